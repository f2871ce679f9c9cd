"""What moderation's policy says is done on every route: redact, hold, block, and not checked."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import httpx
import pytest
from sluice.events.v1 import gateway_pb2 as events
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.types.v1 import chat_pb2, verdict_pb2
from sluice_kit.errors import from_rpc_error

pytestmark = pytest.mark.asyncio(loop_scope="module")

Answer = dict[str, Any]
Route = Callable[[Any, list[Any]], Awaitable[Answer]]
ROLES = {"user": chat_pb2.ROLE_USER, "assistant": chat_pb2.ROLE_ASSISTANT}


def _messages(said: list[Any]) -> list[dict[str, Any]]:
    return [text if isinstance(text, dict) else {"role": "user", "content": text} for text in said]


async def _grpc_stream(mesh: Any, said: list[Any]) -> Answer:
    spec = pb.ChatSpec(
        model="small",
        messages=[
            chat_pb2.ChatMessage(role=ROLES[m["role"]], content=m["content"], name=m.get("name", ""))
            for m in _messages(said)
        ],
    )
    answer: Answer = {"text": "", "status": 200, "guard": {}}
    try:
        async for response in mesh.stub().ChatStream(
            pb.ChatStreamRequest(spec=spec), metadata=mesh.credentials(), timeout=10
        ):
            answer["text"] += response.delta.content
            if response.HasField("finished"):
                guard = response.finished.guard
                answer |= {"finish": response.finished.finish_reason, "ids": list(guard.decision_ids)}
                answer["withheld"] = guard.withheld_reason
    except grpc.aio.AioRpcError as error:
        told = from_rpc_error(error)
        answer |= {"status": 400 if error.code() is grpc.StatusCode.FAILED_PRECONDITION else 503, "reason": told.reason}
        answer |= told.metadata
    return answer


async def _http_stream(mesh: Any, said: list[Any]) -> Answer:
    answer: Answer = {"text": "", "status": 200}
    async with (
        httpx.AsyncClient(base_url=mesh.http_url, timeout=10) as client,
        client.stream(
            "POST", "/v1/chat/completions", headers=dict(mesh.credentials()),
            json={"model": "small", "stream": True, "messages": _messages(said)},
        ) as response,
    ):  # fmt: skip
        if response.status_code != 200:
            error = json.loads(await response.aread())["error"]
            return answer | {"status": response.status_code, "code": error["code"], **error["sluice"]}
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    return answer | {"status": 503, **chunk["error"]["sluice"]}
                answer["text"] += chunk["choices"][0]["delta"].get("content", "")
                guard = chunk.get("sluice", {})
                answer |= {"ids": guard.get("decision_ids"), "withheld": guard.get("withheld_reason")}
    return answer


both_doors = pytest.mark.parametrize("ask", [_grpc_stream, _http_stream], ids=["grpc", "http"])


@both_doors
async def test_sentences_that_are_redacted_on_the_way_in_never_reach_the_model(mesh: Any, ask: Route) -> None:
    answer = await ask(mesh, ["I am jane@x.example. This is RUDE talk. Go on.", "Be nice."])
    assert answer["status"] == 200
    (spec,) = mesh.inference.specs
    sent = [message.content for message in spec.chat.messages]
    assert "[removed: toxicity]" in sent[0]
    assert "<EMAIL_ADDRESS_1>" in sent[0]
    assert "RUDE" not in "".join(mesh.inference.seen)
    event = await mesh.event()
    assert (event.outcome, event.input_action) == (events.REQUEST_OUTCOME_COMPLETED, verdict_pb2.ACTION_REDACT)
    assert event.output_action == verdict_pb2.ACTION_ALLOW
    assert list(event.moderation_policies) == ["general@3", "general@3"]
    assert not event.blocked_categories


@both_doors
async def test_what_would_break_when_cut_is_withheld_instead(mesh: Any, ask: Route) -> None:
    answer = await ask(mesh, [{"role": "user", "content": "Hello", "name": "RUDE"}])
    assert (answer["status"], answer["reason"]) == (400, "CONTENT_BLOCKED")
    assert mesh.inference.specs == []
    event = await mesh.event()
    assert (event.outcome, event.input_action) == (events.REQUEST_OUTCOME_BLOCKED_INPUT, verdict_pb2.ACTION_REDACT)
    assert list(event.blocked_categories) == ["toxicity"]


@both_doors
async def test_a_held_request_is_withheld_with_a_reason_of_its_own(mesh: Any, ask: Route) -> None:
    answer = await ask(mesh, ["This is DOUBTFUL."])
    assert (answer["status"], answer["reason"], answer["decision_id"]) == (400, "CONTENT_HELD", "decision-in")
    assert answer.get("code", "content_filter") == "content_filter"
    assert mesh.inference.specs == []
    event = await mesh.event()
    assert (event.outcome, event.reason) == (events.REQUEST_OUTCOME_BLOCKED_INPUT, "CONTENT_HELD")
    assert event.input_action == verdict_pb2.ACTION_HOLD


@both_doors
@pytest.mark.parametrize(("word", "reason"), [("DOUBTFUL", "CONTENT_HELD"), ("FORBIDDEN", "CONTENT_BLOCKED")])
async def test_a_withheld_answer_says_why_and_nothing_of_it_was_sent(
    mesh: Any, ask: Route, word: str, reason: str
) -> None:
    mesh.inference.script = ["All good. ", f"Now {word} things. ", "Never seen."]
    answer = await ask(mesh, ["go on"])
    assert (answer["text"], answer["withheld"], answer["ids"]) == (
        "All good. ",
        reason,
        ["decision-in", "decision-out"],
    )
    event = await mesh.event()
    assert (event.outcome, event.reason) == (events.REQUEST_OUTCOME_BLOCKED_OUTPUT, reason)


@both_doors
async def test_redacted_sentences_of_an_answer_are_markers_and_the_rest_goes_on(mesh: Any, ask: Route) -> None:
    mesh.inference.script = ["All good. ", "Now RUDE ", "things. ", "And on."]
    answer = await ask(mesh, ["go on"])
    assert answer["text"] == "All good. [removed: toxicity] And on."
    assert answer["withheld"] == ""
    event = await mesh.event()
    assert (event.outcome, event.output_action) == (events.REQUEST_OUTCOME_COMPLETED, verdict_pb2.ACTION_REDACT)


@both_doors
@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize("word", ["UNREAD", "HALFREAD"])
async def test_what_was_not_checked_or_not_whole_passes_only_where_the_tenant_chose_so(
    mesh: Any, ask: Route, way: str, fail_open: bool, word: str
) -> None:
    mesh.set_tenant(fail_open=fail_open)
    mesh.inference.script = [f"This is {word}. " if way == "out" else "Fine. ", "The end."]
    answer = await ask(mesh, [f"This is {word}." if way == "in" else "Hello"])
    event = await mesh.event()
    if fail_open:
        assert answer["text"].endswith("The end.")
        assert list(event.skipped_filters) == ["moderation"]
        assert event.outcome == events.REQUEST_OUTCOME_COMPLETED
    else:
        assert (answer["status"], answer["reason"], answer["cause"]) == (503, "FILTER_UNAVAILABLE", "deadline")
        assert word not in answer["text"]
        assert event.outcome == events.REQUEST_OUTCOME_FAILED


@both_doors
@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize("fail_open", [False, True])
async def test_a_policy_that_fails_closed_is_an_absent_filter_to_the_caller_and_never_blames_the_text(
    mesh: Any, ask: Route, way: str, fail_open: bool
) -> None:
    mesh.set_tenant(fail_open=fail_open)
    mesh.inference.script = ["Fine so far. ", "This is UNSCORED. " if way == "out" else "Fine. ", "The end."]
    answer = await ask(mesh, ["This is UNSCORED." if way == "in" else "Hello"])
    assert (answer["status"], answer["reason"], answer["cause"]) == (503, "FILTER_UNAVAILABLE", "deadline")
    assert "UNSCORED" not in answer["text"]
    event = await mesh.event()
    assert (event.outcome, event.reason) == (events.REQUEST_OUTCOME_FAILED, "FILTER_UNAVAILABLE")
    assert not event.blocked_categories
    assert list(event.decision_ids) == ["decision-in", "decision-out"][: 1 if way == "in" else 2]


async def test_texts_to_embed_are_cut_as_well(mesh: Any) -> None:
    response = await mesh.stub().Embed(
        pb.EmbedRequest(model="vectors", texts=["This is RUDE. Fine.", "Good."]),
        metadata=mesh.credentials(),
        timeout=10,
    )
    assert len(response.embeddings) == 2
    assert "RUDE" not in "".join(mesh.inference.seen)
    assert any("[removed: toxicity]" in text for text in mesh.inference.seen)


@both_doors
async def test_moderation_learns_who_said_what(mesh: Any, ask: Route) -> None:
    await ask(mesh, ["Hello", {"role": "assistant", "content": "Hi."}, "Bye"])
    assert mesh.moderation.writers == ["user", "assistant", "user"]
