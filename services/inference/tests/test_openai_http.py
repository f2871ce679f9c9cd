"""The OpenAI-compatible backend against an upstream that misbehaves in every way we could think of."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from fault_upstream import Call, Connection, FaultUpstream, Script, piece, telling
from http2_upstream import Http2Upstream
from hypothesis import given
from hypothesis import strategies as st
from inference_stage import until
from pydantic import ValidationError
from sluice_inference.adapters import metrics
from sluice_inference.adapters.openai_http.backend import OpenAiEmbedding, OpenAiHttp, model_facts
from sluice_inference.adapters.openai_http.budget import RetryBudget
from sluice_inference.adapters.openai_http.chunks import read_usage
from sluice_inference.adapters.openai_http.options import OpenAiHttpOptions
from sluice_inference.adapters.openai_http.sse import BrokenStream, EventStream
from sluice_inference.adapters.openai_http.trouble import retry_after
from sluice_inference.domain.backend import EngineEnded, EngineStep, NewTokens
from sluice_inference.domain.generation import (
    Chat,
    ChatTurn,
    FinishReason,
    Generation,
    Guide,
    GuideKind,
    Sampling,
    Stopping,
)
from sluice_inference.domain.refusals import (
    EngineFailed,
    EngineUnavailable,
    InferenceRefusal,
    InvalidRequest,
    Overloaded,
)

USAGE = {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
ASKED = Generation("id", "m", Chat((ChatTurn("user", "Hello, upstream!"),)), stopping=Stopping(max_tokens=8))


def backend(upstream: FaultUpstream | Http2Upstream, **more: Any) -> OpenAiHttp:
    quick = {"first_wait_seconds": 0.01, "longest_wait_seconds": 0.05} | more.pop("retries", {})
    options = OpenAiHttpOptions(base_url=upstream.url, upstream_model="up", retries=quick, **more)
    return OpenAiHttp(options, model=model_facts(options, model_id="m"))


async def steps_of(engine: OpenAiHttp, generation: Generation = ASKED) -> list[EngineStep]:
    run = engine.start(generation, slot=0, may_reuse_cache=False)
    try:
        return [step async for step in run]
    finally:
        run.stop()
        await run.closed()
        await engine.close()


def text_of(steps: list[EngineStep]) -> str:
    return "".join(step.text for step in steps if isinstance(step, NewTokens))


def end_of(steps: list[EngineStep]) -> EngineEnded:
    assert isinstance(steps[-1], EngineEnded)
    return steps[-1]


async def test_a_stream_that_is_well_gives_its_text_and_its_usage() -> None:
    async with FaultUpstream(telling("Hel", "lo", usage=USAGE)).serving() as upstream:
        steps = await steps_of(backend(upstream))
    assert text_of(steps) == "Hello"
    end = end_of(steps)
    assert (end.prompt_tokens, end.cached_tokens, end.generated, end.estimated) == (10, 4, 3, False)
    sent = upstream.calls[0]
    assert sent.path == "/v1/chat/completions"
    assert sent.body["messages"] == [{"role": "user", "content": "Hello, upstream!"}]
    assert (sent.body["model"], sent.body["stream"], sent.body["max_completion_tokens"]) == ("up", True, 8)


@given(st.data())
def test_any_cutting_of_the_bytes_gives_the_same_events(data: st.DataObject) -> None:
    ends = st.sampled_from(["\n", "\r\n", "\r"])
    texts = data.draw(
        st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=5)
    )
    stream = "﻿: a comment\n"
    for text in texts:
        end = data.draw(ends)
        stream += f"event: x{end}data: {json.dumps(text, ensure_ascii=False)}{end}{end}"
    content = stream.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=12)))
    parser, seen = EventStream(), []
    for begin, stop in zip([0, *cuts], [*cuts, len(content)], strict=True):
        seen += list(parser.feed(content[begin:stop]))
    seen += list(parser.end())
    assert [json.loads(event) for event in seen] == texts


def test_lines_of_one_event_are_joined_and_a_missing_last_blank_line_is_forgiven() -> None:
    parser = EventStream()
    assert list(parser.feed(b"data: a\ndata: b\n\ndata: c")) == ["a\nb"]
    assert list(parser.end()) == ["c"]


@pytest.mark.parametrize("content", [b"data: \xff\xfe\n\n", b"data: " + b"x" * 1_100_000])
def test_what_is_no_event_stream_is_refused(content: bytes) -> None:
    with pytest.raises(BrokenStream):
        list(EventStream().feed(content))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_the_answer_is_the_same_however_small_the_packets(size: int) -> None:
    async def script(connection: Connection, call: Call) -> None:
        whole = "".join(f"data: {json.dumps(piece(t), ensure_ascii=False)}\r\n\r\n" for t in ("né", "e ", "🦀"))
        whole += f"data: {json.dumps(piece('', 'length'))}\r\n\r\ndata: [DONE]\r\n\r\n"
        await connection.begin()
        content = whole.encode()
        for begin in range(0, len(content), size):
            await connection.raw(content[begin : begin + size])
        await connection.end()

    async with FaultUpstream(script).serving() as upstream:
        steps = await steps_of(backend(upstream))
    assert text_of(steps) == "née 🦀"
    assert end_of(steps).reason is FinishReason.LENGTH


# --- usage ---------------------------------------------------------------------------------------------------------------


async def test_usage_in_a_last_chunk_that_still_has_choices_is_taken() -> None:
    async def script(connection: Connection, call: Call) -> None:
        await connection.begin()
        await connection.event(piece("Hi"))
        await connection.event(piece("", "stop", usage=USAGE))
        await connection.event(b"[DONE]")
        await connection.end()

    async with FaultUpstream(script).serving() as upstream:
        assert end_of(await steps_of(backend(upstream))).prompt_tokens == 10


async def test_missing_usage_is_counted_here_and_marked() -> None:
    async with FaultUpstream(telling("Hello ", "big ", "world", done=False)).serving() as upstream:
        end = end_of(await steps_of(backend(upstream)))
    assert end.estimated
    assert end.prompt_tokens == 8
    assert end.generated == 4  # 15 bytes are more than 3 chunks tell


@pytest.mark.parametrize(
    ("usage", "inside", "expected"),
    [
        (USAGE, True, (10, 4, 0, 3, 0)),
        ({"input_tokens": 6, "output_tokens": 3, "cache_read_input_tokens": 4}, False, (10, 4, 0, 3, 0)),
        (
            {"input_tokens": 6, "output_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 5},
            False,
            (15, 4, 5, 3, 0),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}},
            True,
            (10, 0, 0, 9, 7),
        ),
        (
            {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}},
            True,
            (3, 3, 0, 1, 0),
        ),
        ({"prompt_tokens": 3, "completion_tokens": None, "prompt_tokens_details": None}, True, (3, 0, 0, 0, 0)),
    ],
)
def test_usage_of_both_conventions_ends_in_disjoint_buckets(
    usage: dict[str, Any], inside: bool, expected: tuple[int, ...]
) -> None:
    counted = read_usage(usage, cached_in_prompt_tokens=inside)
    assert (counted.prompt, counted.cached, counted.cache_write, counted.generated, counted.reasoning) == expected


# --- failures ------------------------------------------------------------------------------------------------------------


def answering(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Script:
    async def script(connection: Connection, call: Call) -> None:
        await connection.whole(status, body or {"error": {"message": "Hello, upstream! is a secret"}}, headers)

    return script


@pytest.mark.parametrize(
    ("status", "body", "kind", "calls"),
    [
        (400, None, InvalidRequest, 1),
        (422, {"error": {"code": "bad_parameter"}}, InvalidRequest, 1),
        (400, {"error": {"code": "context_length_exceeded"}}, InvalidRequest, 1),
        (413, b"not json", InvalidRequest, 1),
        (401, None, EngineFailed, 1),
        (403, None, EngineFailed, 1),
        (404, None, EngineFailed, 1),
        (418, None, EngineFailed, 1),
        (429, {"error": {"code": "insufficient_quota"}}, EngineFailed, 1),
        (429, None, Overloaded, 3),
        (500, None, EngineUnavailable, 3),
        (502, b"<html>", EngineUnavailable, 3),
        (503, None, EngineUnavailable, 3),
        (504, None, EngineUnavailable, 3),
        (501, None, EngineUnavailable, 1),
    ],
)
async def test_every_status_has_its_refusal_and_none_repeats_the_upstreams_words(
    status: int, body: Any, kind: type[InferenceRefusal], calls: int
) -> None:
    async with FaultUpstream(answering(status, body)).serving() as upstream:
        with pytest.raises(kind) as refusal:
            await steps_of(backend(upstream))
    assert "secret" not in refusal.value.message
    assert len(upstream.calls) == calls


async def cut_at_once(connection: Connection, call: Call) -> None:
    connection.cut()


async def cut_before_the_first_token(connection: Connection, call: Call) -> None:
    await connection.begin()
    await connection.event({"choices": [{"delta": {"role": "assistant"}}]})
    connection.cut()


async def end_before_the_first_token(connection: Connection, call: Call) -> None:
    await connection.begin()
    await connection.end()


async def error_as_first_event(connection: Connection, call: Call) -> None:
    await connection.begin()
    await connection.event({"error": {"code": 503, "message": "busy with secret things"}})
    await connection.end()


@pytest.mark.parametrize(
    "fault",
    [cut_at_once, cut_before_the_first_token, end_before_the_first_token, error_as_first_event, answering(503)],
)
async def test_what_fails_before_the_first_token_is_tried_again(fault: Script) -> None:
    async with FaultUpstream(fault, fault, telling("well", usage=USAGE)).serving() as upstream:
        steps = await steps_of(backend(upstream))
    assert text_of(steps) == "well"
    assert len(upstream.calls) == 3


async def test_what_fails_after_the_first_token_is_never_tried_again() -> None:
    async def script(connection: Connection, call: Call) -> None:
        await connection.begin()
        await connection.event(piece("Hel"))
        connection.cut()

    async with FaultUpstream(script).serving() as upstream:
        with pytest.raises(EngineUnavailable):
            await steps_of(backend(upstream))
    assert len(upstream.calls) == 1


async def test_an_answer_broken_off_without_a_reason_is_no_answer() -> None:
    async def script(connection: Connection, call: Call) -> None:
        await connection.begin()
        await connection.event(piece("Hel"))
        await connection.end()

    async with FaultUpstream(script).serving() as upstream:
        with pytest.raises(EngineUnavailable, match="broke the stream off"):
            await steps_of(backend(upstream))


async def test_an_error_in_mid_stream_ends_the_answer() -> None:
    async def script(connection: Connection, call: Call) -> None:
        await connection.begin()
        await connection.event(piece("Hel"))
        await connection.event({"error": {"message": "out of secret memory", "type": "server_error", "code": 500}})
        await connection.end()

    async with FaultUpstream(script).serving() as upstream:
        with pytest.raises(EngineUnavailable) as refusal:
            await steps_of(backend(upstream))
    assert "secret" not in refusal.value.message


@pytest.mark.parametrize("event", [b"{half", b'"text"', b"[1]", b'{"choices": [{"delta": {"content": [1]}}]}'])
async def test_nonsense_in_a_stream_is_a_failure_of_the_upstream(event: bytes) -> None:
    async def script(connection: Connection, call: Call) -> None:
        await connection.begin()
        await connection.event(piece("Hel"))
        await connection.event(event)
        await connection.end()

    async with FaultUpstream(script).serving() as upstream:
        with pytest.raises(EngineFailed):
            await steps_of(backend(upstream))


async def test_an_upstream_that_nobody_runs_is_unavailable() -> None:
    upstream = FaultUpstream(telling("x"))
    async with upstream.serving():
        pass
    with pytest.raises(EngineUnavailable, match="cannot be reached"):
        await steps_of(backend(upstream))


# --- retries -------------------------------------------------------------------------------------------------------------


async def test_a_last_attempt_that_fails_pays_for_no_retry_and_counts_none() -> None:
    async def busy(connection: Connection, _: Call) -> None:
        await connection.whole(503, {})

    before = metrics.UPSTREAM_RETRIES._value.get()
    async with FaultUpstream(busy).serving() as upstream:
        engine = backend(upstream, retries={"attempts": 3, "budget_ratio": 0.0, "budget_burst": 4})
        for expected in (3, 6, 7):  # two retries each, and then the budget of four is used up
            run = engine.start(ASKED, slot=0, may_reuse_cache=False)
            with pytest.raises(EngineUnavailable):
                async for _ in run:
                    pass
            run.stop()
            await run.closed()
            assert len(upstream.calls) == expected
        await engine.close()
    assert metrics.UPSTREAM_RETRIES._value.get() - before == 4


def test_the_budget_bounds_retries_by_requests() -> None:
    budget = RetryBudget(ratio=0.1, burst=2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    for _ in range(10):
        budget.request()
    assert [budget.take() for _ in range(2)] == [True, False]


async def test_an_empty_budget_means_no_retry() -> None:
    async with FaultUpstream(answering(503)).serving() as upstream:
        with pytest.raises(EngineUnavailable):
            await steps_of(backend(upstream, retries={"budget_burst": 0, "budget_ratio": 0.0}))
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: Any) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_may_be_a_date() -> None:
    assert retry_after({"retry-after": formatdate(time.time() + 100, usegmt=True)}) == pytest.approx(100, abs=5)


async def test_a_short_retry_after_is_waited_for_and_a_long_one_is_told_to_the_caller() -> None:
    short = answering(429, headers={"Retry-After-Ms": "20"})
    async with FaultUpstream(short, telling("well")).serving() as upstream:
        assert text_of(await steps_of(backend(upstream))) == "well"
    async with FaultUpstream(answering(429, headers={"Retry-After": "60"})).serving() as upstream:
        with pytest.raises(Overloaded) as refusal:
            await steps_of(backend(upstream))
    assert refusal.value.retry_after_seconds == 60
    assert len(upstream.calls) == 1


# --- time ----------------------------------------------------------------------------------------------------------------


async def silent(connection: Connection, call: Call) -> None:
    await asyncio.Event().wait()


async def silent_after_one_token(connection: Connection, call: Call) -> None:
    await connection.begin()
    await connection.event(piece("Hel"))
    await asyncio.Event().wait()


async def silent_after_the_end(connection: Connection, call: Call) -> None:
    await connection.begin()
    await connection.event(piece("Hello", "stop"))
    await asyncio.Event().wait()


async def test_a_late_first_token_is_not_waited_for_and_not_asked_for_twice() -> None:
    async with FaultUpstream(silent).serving() as upstream:
        with pytest.raises(EngineUnavailable, match="no token within"):
            await steps_of(backend(upstream, seconds={"first_token": 0.3}))
        await asyncio.wait_for(upstream.calls[0].gone.wait(), 5)
    assert len(upstream.calls) == 1


async def test_silence_between_tokens_ends_the_answer_and_closes_the_connection() -> None:
    async with FaultUpstream(silent_after_one_token).serving() as upstream:
        with pytest.raises(EngineUnavailable, match="silent"):
            await steps_of(backend(upstream, seconds={"between_tokens": 0.05}))
        await asyncio.wait_for(upstream.calls[0].gone.wait(), 5)


async def test_silence_in_place_of_the_usage_loses_only_the_usage() -> None:
    async with FaultUpstream(silent_after_the_end).serving() as upstream:
        steps = await steps_of(backend(upstream, seconds={"between_tokens": 0.05}))
    assert (text_of(steps), end_of(steps).estimated) == ("Hello", True)


async def test_stopping_closes_the_connection_once_and_counts_one_abort() -> None:
    async with FaultUpstream(silent_after_one_token).serving() as upstream:
        engine = backend(upstream)
        run = engine.start(ASKED, slot=0, may_reuse_cache=False)
        async for step in run:
            if isinstance(step, NewTokens):
                break
        for _ in range(3):
            run.stop()
        await run.closed()
        await asyncio.wait_for(upstream.calls[0].gone.wait(), 5)
        await until(lambda: upstream.open == 0)
        assert engine.aborts == 1
        await engine.close()


async def test_a_run_that_finished_is_not_aborted_and_its_connection_is_used_again() -> None:
    async with FaultUpstream(telling("a", usage=USAGE)).serving() as upstream:
        engine = backend(upstream)
        for _ in range(3):
            run = engine.start(ASKED, slot=0, may_reuse_cache=False)
            assert text_of([step async for step in run]) == "a"
            await run.closed()
            run.stop()
        assert (engine.aborts, upstream.connections, len(upstream.calls)) == (0, 1, 3)
        await engine.close()


async def test_stopping_at_the_very_end_is_no_abort_and_keeps_the_connection() -> None:
    async with FaultUpstream(telling("a", usage=USAGE)).serving() as upstream:
        engine = backend(upstream)
        for _ in range(10):
            run = engine.start(ASKED, slot=0, may_reuse_cache=False)
            async for step in run:
                if isinstance(step, EngineEnded):
                    run.stop()  # as the conductor does, before the run has tidied up
            await run.closed()
        assert (engine.aborts, upstream.connections) == (0, 1)
        await engine.close()


async def test_a_reader_that_does_not_read_makes_the_upstream_wait() -> None:
    sent = 0

    async def endless(connection: Connection, call: Call) -> None:
        nonlocal sent
        await connection.begin()
        while True:
            await connection.event(piece("x" * 1000))
            sent += 1

    async with FaultUpstream(endless).serving() as upstream:
        engine = backend(upstream)
        run = engine.start(ASKED, slot=0, may_reuse_cache=False)
        await until(lambda: sent > 0)
        last = -1
        while sent != last:  # the kernel's buffers fill, then nothing moves any more
            last = sent
            await asyncio.sleep(0.2)
        run.stop()
        await run.closed()
        await engine.close()
    assert 0 < sent < 50_000


# --- what is sent --------------------------------------------------------------------------------------------------------


async def sent_body(generation: Generation, **options: Any) -> Call:
    async with FaultUpstream(telling("x")).serving() as upstream:
        await steps_of(backend(upstream, **options), generation)
    return upstream.calls[0]


async def test_absent_fields_are_not_sent_and_zeros_are() -> None:
    body = (await sent_body(Generation("id", "m", ASKED.input, sampling=Sampling(temperature=0.0, seed=0)))).body
    assert (body["temperature"], body["seed"]) == (0.0, 0)
    assert not {"top_p", "frequency_penalty", "presence_penalty", "max_tokens", "max_completion_tokens"} & set(body)


async def test_fields_of_a_dialect_go_out_under_its_names() -> None:
    generation = Generation(
        "id",
        "m",
        ASKED.input,
        sampling=Sampling(top_k=0, repetition_penalty=1.5),
        stopping=Stopping(max_tokens=4, min_tokens=2, ignore_eos=True, stop_token_ids=(7,)),
        guide=Guide(GuideKind.REGEX, source="a+"),
        cache_salt="tenant",
    )
    body = (await sent_body(generation, dialect="vllm")).body
    assert (body["top_k"], body["min_tokens"], body["ignore_eos"], body["stop_token_ids"]) == (0, 2, True, [7])
    assert (body["cache_salt"], body["structured_outputs"]) == ("tenant", {"regex": "a+"})


async def test_stop_strings_are_not_sent_because_they_are_found_here() -> None:
    body = (await sent_body(Generation("id", "m", ASKED.input, stopping=Stopping(stop=("END",))))).body
    assert "stop" not in body


async def test_the_key_comes_from_its_file_each_time_and_never_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("first-key\n")
    async with FaultUpstream(telling("x")).serving() as upstream:
        engine = backend(upstream, key_file=key)
        await steps_of(engine)
        key.write_text("second-key\n")
        await steps_of(engine)
        monkeypatch.setenv("UPSTREAM_KEY", "third-key")
        await steps_of(backend(upstream, key_env="UPSTREAM_KEY"))
    assert [call.headers["authorization"] for call in upstream.calls] == [
        f"Bearer {name}-key" for name in ("first", "second", "third")
    ]
    assert "key" not in repr(engine)


async def test_a_key_that_is_named_and_missing_is_told_and_nothing_is_sent(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    async with FaultUpstream(telling("x")).serving() as upstream:
        for where in (
            {"key_file": tmp_path / "none"},
            {"key_file": tmp_path / "empty"},
            {"key_env": "NOT_SET_ANYWHERE"},
        ):
            with pytest.raises(EngineFailed, match="key"):
                await steps_of(backend(upstream, **where))
    assert upstream.calls == []


def test_a_key_from_two_places_an_unknown_dialect_and_unknown_names_are_refused() -> None:
    good = {"base_url": "http://x/v1", "upstream_model": "m"}
    for wrong in ({"key_file": "a", "key_env": "B"}, {"dialect": "x"}, {"without": ["tea"]}, {"base_url": "ftp://x"}):
        with pytest.raises(ValidationError):
            OpenAiHttpOptions(**good | wrong)


def test_what_a_dialect_does_not_have_is_no_capability() -> None:
    options = OpenAiHttpOptions(base_url="http://x/v1", upstream_model="m", dialect="vllm", without={"min_p", "regex"})
    able = model_facts(options, model_id="m").capabilities
    assert "min_p" not in able.sampling
    assert GuideKind.REGEX not in able.guides
    assert GuideKind.EBNF in able.guides
    assert able.min_tokens


# --- HTTP/2 --------------------------------------------------------------------------------------------------------------


async def test_many_requests_share_one_http2_connection() -> None:
    async with Http2Upstream("Hel", "lo").serving() as upstream:
        engine = backend(upstream, http="2")
        await engine.load()
        await _one(engine)  # the first request makes the connection

        texts = await asyncio.gather(*(_one(engine) for _ in range(6)))
        await engine.close()
    assert texts == ["Hello"] * 6
    assert (upstream.connections, upstream.requests) == (1, 7)
    assert upstream.most_at_once > 1


async def _one(engine: OpenAiHttp) -> str:
    run = engine.start(ASKED, slot=0, may_reuse_cache=False)
    text = text_of([step async for step in run])
    await run.closed()
    return text


async def test_stopping_resets_the_stream_and_leaves_the_http2_connection_to_the_others() -> None:
    async with Http2Upstream("Hel", "lo").serving() as upstream:
        engine = backend(upstream, http="2", lora_models={"never": "endless"})
        run = engine.start(replace(ASKED, lora_name="never"), slot=0, may_reuse_cache=False)
        async for step in run:
            if isinstance(step, NewTokens):
                break
        run.stop()
        await run.closed()
        await until(lambda: len(upstream.resets) == 1)
        assert await _one(engine) == "Hello"
        assert upstream.connections == 1
        await engine.close()


# --- embeddings ----------------------------------------------------------------------------------------------------------


async def test_embeddings_come_in_the_order_of_the_texts_cut_and_of_length_one() -> None:
    rows = [{"index": 1, "embedding": [0.0, 2.0, 9.0]}, {"index": 0, "embedding": [3.0, 4.0, 9.0]}]
    answer = answering(200, {"data": rows, "usage": {"prompt_tokens": 5}})
    async with FaultUpstream(answer).serving() as upstream:
        options = OpenAiHttpOptions(base_url=upstream.url, upstream_model="up")
        embedder = OpenAiEmbedding(options, model_id="e")
        embedded = await embedder.embed(["a", "b"], dimensions=2)
        await embedder.close()
    assert embedded.vectors.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 1.0]]
    assert (embedded.tokens, embedded.estimated) == (5, False)
