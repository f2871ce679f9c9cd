"""Tools in the words of OpenAI-compatible upstreams, out and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fault_upstream import Call, Connection, FaultUpstream, Script, piece
from sluice_inference.adapters.openai_http.backend import OpenAiHttp, model_facts
from sluice_inference.adapters.openai_http.body import request_body
from sluice_inference.adapters.openai_http.dialects import DIALECTS
from sluice_inference.adapters.openai_http.options import OpenAiHttpOptions
from sluice_inference.domain.backend import EngineEnded, EngineStep, NewTokens
from sluice_inference.domain.generation import Chat, ChatTurn, FinishReason, Generation, Stopping
from sluice_inference.domain.refusals import EngineFailed, EngineUnavailable, UnsupportedRequest
from sluice_inference.domain.tools import Tool, ToolCall, ToolCallPiece, ToolChoice, ToolMode, join_pieces
from sluice_inference.domain.validation import Limits, admissible

WEATHER = Tool("get_weather", "Weather of a city", '{"type": "object", "properties": {"city": {"type": "string"}}}')
TIME = Tool("get_time")
ASKED = Generation(
    "id",
    "m",
    Chat((ChatTurn("user", "Weather in Lima?"),)),
    stopping=Stopping(max_tokens=8),
    tools=(WEATHER, TIME),
    tool_choice=ToolChoice(),
    has_tools=True,
)


def delta(*calls: dict[str, Any], finish: str | None = None, text: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text, "tool_calls": list(calls)}, "finish_reason": finish}]}


def call(index: int | None, arguments: str, **more: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"function": {"arguments": arguments}} if index is None else {
        "index": index, "function": {"arguments": arguments}
    }  # fmt: skip
    if name := more.pop("name", ""):
        entry["function"]["name"] = name
    return entry | more


def telling(*chunks: dict[str, Any], packet: int = 0) -> Script:
    """The chunks as one stream, in packets of so many bytes (0: one event each)."""

    async def script(connection: Connection, _: Call) -> None:
        await connection.begin()
        events = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
        for start in range(0, len(events), packet or len(events)):
            await connection.raw(events[start : start + (packet or len(events))])
        await connection.end()

    return script


def backend(upstream: FaultUpstream, **more: Any) -> OpenAiHttp:
    options = OpenAiHttpOptions(
        base_url=upstream.url, upstream_model="up", retries={"first_wait_seconds": 0.01}, **more
    )
    return OpenAiHttp(options, model=model_facts(options, model_id="m"))


async def steps_of(upstream: FaultUpstream, generation: Generation = ASKED, **more: Any) -> list[EngineStep]:
    engine = backend(upstream, **more)
    run = engine.start(generation, slot=0, may_reuse_cache=False)
    try:
        return [step async for step in run]
    finally:
        run.stop()
        await run.closed()
        await engine.close()


def calls_of(steps: list[EngineStep]) -> tuple[ToolCallPiece, ...]:
    return join_pieces(piece for step in steps if isinstance(step, NewTokens) for piece in step.tool_calls)


TWO_CALLS = (
    delta(call(0, "", name="get_weather", id="c0", type="function")),
    delta(call(0, '{"city": "Li')),
    delta(call(0, 'ma"}')),
    delta(call(1, "{}", name="get_time", id="c1")),
    delta(finish="tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7}},
)


@pytest.mark.parametrize("packet", [0, 1, 7, 64])
async def test_calls_are_put_together_however_the_stream_is_cut(packet: int) -> None:
    async with FaultUpstream(telling(*TWO_CALLS, packet=packet)).serving() as upstream:
        steps = await steps_of(upstream)
    assert calls_of(steps) == (
        ToolCallPiece(0, "c0", "get_weather", '{"city": "Lima"}'),
        ToolCallPiece(1, "c1", "get_time", "{}"),
    )
    end = steps[-1]
    assert isinstance(end, EngineEnded)
    assert (end.reason, end.generated, end.estimated) == (FinishReason.TOOL_CALLS, 7, False)


async def test_a_whole_call_without_an_index_is_taken_and_a_stop_after_it_is_an_end_by_tools() -> None:
    chunks = (delta(call(None, "{}", name="get_time", id="c")), delta(finish="stop"))
    async with FaultUpstream(telling(*chunks)).serving() as upstream:
        steps = await steps_of(upstream)
    assert calls_of(steps) == (ToolCallPiece(0, "c", "get_time", "{}"),)
    end = steps[-1]
    assert isinstance(end, EngineEnded)
    assert (end.reason, end.estimated) == (FinishReason.TOOL_CALLS, True)
    assert end.generated > 0
    assert end.prompt_tokens > (len(WEATHER.parameters) + len(TIME.name)) // 4  # the tools are part of the prompt


@pytest.mark.parametrize("entry", ["text", {"index": "first"}, {"function": "get_time"}, 7])
async def test_calls_of_an_unknown_form_are_a_failure_of_the_upstream(entry: Any) -> None:
    async with FaultUpstream(telling(delta(entry), delta(finish="tool_calls"))).serving() as upstream:
        with pytest.raises(EngineFailed):
            await steps_of(upstream)


async def test_a_call_is_a_first_token_after_which_nothing_is_tried_again() -> None:
    async def broken(connection: Connection, _: Call) -> None:
        await connection.begin()
        await connection.event(TWO_CALLS[0])
        connection.cut()

    async with FaultUpstream(broken, telling(*TWO_CALLS)).serving() as upstream:
        with pytest.raises(EngineUnavailable):
            await steps_of(upstream)
        assert len(upstream.calls) == 1


async def test_text_and_calls_come_in_one_answer() -> None:
    chunks = (piece("One moment. "), *TWO_CALLS)
    async with FaultUpstream(telling(*chunks)).serving() as upstream:
        steps = await steps_of(upstream)
    assert "".join(step.text for step in steps if isinstance(step, NewTokens)) == "One moment. "
    assert len(calls_of(steps)) == 2


def body_of(generation: Generation, dialect: str) -> dict[str, Any]:
    return request_body(generation, model="up", dialect=DIALECTS[dialect])[1]


def names_in(body: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in body.get("tools", [])]


def test_tools_and_choices_go_out_in_the_dialects_words() -> None:
    named = replace(ASKED, tool_choice=ToolChoice(ToolMode.REQUIRED, "get_time"), parallel_tool_calls=False)
    body = body_of(named, "openai")
    assert body["tool_choice"] == {"type": "function", "function": {"name": "get_time"}}
    assert names_in(body) == ["get_weather", "get_time"]
    assert body["parallel_tool_calls"] is False
    assert body["tools"][0]["function"]["parameters"] == json.loads(WEATHER.parameters)
    assert "parameters" not in body["tools"][1]["function"]
    # llama.cpp's server reads no choice by name: the tool is shown alone and a call demanded.
    alone = body_of(named, "llama_cpp")
    assert (alone["tool_choice"], names_in(alone)) == ("required", ["get_time"])
    auto = body_of(ASKED, "openai")
    assert "tool_choice" not in auto
    assert "parallel_tool_calls" not in auto


def test_a_model_that_may_call_nothing_is_shown_no_tools() -> None:
    body = body_of(replace(ASKED, tool_choice=ToolChoice(ToolMode.NONE)), "openai")
    assert {"tools", "tool_choice"} & body.keys() == set()


def test_calls_and_results_of_the_conversation_go_out() -> None:
    turns = (
        ChatTurn("user", "Weather in Lima?"),
        ChatTurn("assistant", "", tool_calls=(ToolCall("c0", "get_weather", "{}"),)),
        ChatTurn("tool", "snow", tool_call_id="c0"),
    )
    messages = body_of(replace(ASKED, input=Chat(turns)), "openai")["messages"]
    assert messages[1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c0", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
    }
    assert messages[2] == {"role": "tool", "content": "snow", "tool_call_id": "c0"}


@pytest.mark.parametrize(
    ("dialect", "without", "choice", "sentence"),
    [
        ("trtllm_serve", (), ToolChoice(), "cannot call tools"),
        ("openai", ("tools",), ToolChoice(), "cannot call tools"),
        ("ollama", (), ToolChoice(ToolMode.REQUIRED), "cannot be made to call"),
        ("vllm", ("forced_tools",), ToolChoice(ToolMode.REQUIRED, "get_time"), "cannot be made to call"),
        ("openai", (), None, "set chat.tool_choice"),
    ],
)
def test_what_an_upstream_cannot_do_with_tools_is_refused(
    dialect: str, without: tuple[str, ...], choice: ToolChoice | None, sentence: str
) -> None:
    options = OpenAiHttpOptions(
        base_url="http://127.0.0.1/v1", upstream_model="up", dialect=dialect, without=frozenset(without)
    )
    model = model_facts(options, model_id="m")
    with pytest.raises(UnsupportedRequest, match=sentence):
        admissible(replace(ASKED, tool_choice=choice), model=model, limits=Limits())
