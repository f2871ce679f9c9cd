"""Both doors, whole and streamed: one table of what may never happen, run against real gRPC neighbours."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import pytest
from sluice.events.v1 import gateway_pb2 as events
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.redaction.v1 import redaction_service_pb2
from sluice.types.v1 import chat_pb2, finish_reason_pb2, generation_pb2, verdict_pb2
from sluice_kit.errors import from_rpc_error

pytestmark = pytest.mark.asyncio(loop_scope="module")

EMAIL = "jane.doe@example.com"


@dataclass
class Answer:
    """What a caller got, whichever way it asked."""

    text: str = ""
    finish: str = ""
    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    decision_ids: list[str] = field(default_factory=list)
    redaction_policy: str = ""


_FINISH = {
    finish_reason_pb2.FINISH_REASON_STOP: "stop",
    finish_reason_pb2.FINISH_REASON_LENGTH: "length",
    finish_reason_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}
_HTTP_OF = {
    grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.FAILED_PRECONDITION: 400, grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.NOT_FOUND: 404, grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}  # fmt: skip


async def _grpc_whole(mesh: Any, texts: list[str]) -> Answer:
    try:
        response = await mesh.stub().Chat(pb.ChatRequest(spec=_spec(texts)), metadata=mesh.credentials(), timeout=10)
    except grpc.aio.AioRpcError as error:
        return _grpc_failure(error, Answer())
    choice = response.choices[0]
    return Answer(
        choice.message.content,
        _FINISH[choice.finish_reason],
        decision_ids=list(response.guard.decision_ids),
        redaction_policy=response.guard.redaction_policy,
    )


async def _grpc_stream(mesh: Any, texts: list[str]) -> Answer:
    answer = Answer()
    try:
        async for response in mesh.stub().ChatStream(
            pb.ChatStreamRequest(spec=_spec(texts)), metadata=mesh.credentials(), timeout=10
        ):
            answer.text += response.delta.content
            if response.HasField("finished"):
                answer.finish = _FINISH[response.finished.finish_reason]
                answer.decision_ids = list(response.finished.guard.decision_ids)
                answer.redaction_policy = response.finished.guard.redaction_policy
    except grpc.aio.AioRpcError as error:
        return _grpc_failure(error, answer)
    return answer


def _grpc_failure(error: grpc.aio.AioRpcError, answer: Answer) -> Answer:
    told = from_rpc_error(error)
    answer.status = _HTTP_OF.get(error.code(), 500)
    answer.error = {"reason": told.reason, "message": str(told), **told.metadata}
    return answer


def _spec(texts: list[str]) -> pb.ChatSpec:
    messages = [chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=text) for text in texts]
    return pb.ChatSpec(model="small", messages=messages)


async def _http_whole(mesh: Any, texts: list[str]) -> Answer:
    async with httpx.AsyncClient(base_url=mesh.http_url, timeout=10) as client:
        response = await client.post("/v1/chat/completions", json=_json(texts), headers=dict(mesh.credentials()))
    if response.status_code != 200:
        return _http_failure(response.status_code, response.json())
    choice = response.json()["choices"][0]
    return Answer(
        choice["message"]["content"],
        choice["finish_reason"],
        decision_ids=response.headers["x-sluice-decision-ids"].split(","),
        redaction_policy=response.json()["sluice"]["redaction_policy"],
    )


async def _http_stream(mesh: Any, texts: list[str]) -> Answer:
    answer = Answer()
    body = _json(texts) | {"stream": True}
    async with (
        httpx.AsyncClient(base_url=mesh.http_url, timeout=10) as client,
        client.stream("POST", "/v1/chat/completions", json=body, headers=dict(mesh.credentials())) as response,
    ):
        if response.status_code != 200:
            return _http_failure(response.status_code, json.loads(await response.aread()))
        async for line in response.aiter_lines():
            _take_line(line, answer)
    return answer


def _take_line(line: str, answer: Answer) -> None:
    if not line.startswith("data: ") or line == "data: [DONE]":
        return
    chunk = json.loads(line.removeprefix("data: "))
    if "error" in chunk:
        failure = _http_failure(503, chunk)
        answer.status, answer.error = failure.status, failure.error
        return
    answer.text += chunk["choices"][0]["delta"].get("content", "")
    answer.finish = chunk["choices"][0]["finish_reason"] or answer.finish
    guard = chunk.get("sluice", {})
    answer.decision_ids = guard.get("decision_ids", answer.decision_ids)
    answer.redaction_policy = guard.get("redaction_policy", answer.redaction_policy)


def _http_failure(status: int, body: dict[str, Any]) -> Answer:
    error = body["error"]
    return Answer(status=status, error={"message": error["message"], **error["sluice"]})


def _json(texts: list[str]) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": text} for text in texts]}


Route = Callable[[Any, list[str]], Awaitable[Answer]]
every_route = pytest.mark.parametrize(
    "ask", [_grpc_whole, _grpc_stream, _http_whole, _http_stream], ids=["grpc", "grpc-stream", "http", "http-stream"]
)


@every_route
async def test_the_model_sees_placeholders_and_the_caller_its_own_values(mesh: Any, ask: Route) -> None:
    mesh.inference.script = ["I wrote to <EMAIL_", "ADDRESS_1> and to ", "new.person@exam", "ple.org today."]
    answer = await ask(mesh, [f"Write to {EMAIL} please", f"to {EMAIL}, I said"])
    assert answer.text == f"I wrote to {EMAIL} and to <EMAIL_ADDRESS_99> today."
    assert answer.finish == "stop"
    assert answer.decision_ids == ["decision-in", "decision-out"]
    assert [m.content for m in mesh.inference.specs[0].chat.messages] == [
        "Write to <EMAIL_ADDRESS_1> please", "to <EMAIL_ADDRESS_1>, I said",
    ]  # fmt: skip
    event = await mesh.event()
    assert event.outcome == events.REQUEST_OUTCOME_COMPLETED
    assert (event.redacted_input[0].kind, event.redacted_output[0].count) == ("EMAIL_ADDRESS", 1)
    assert list(event.decision_ids) == ["decision-in", "decision-out"]
    assert EMAIL not in str(event)


@every_route
async def test_a_blocked_prompt_never_reaches_the_model(mesh: Any, ask: Route) -> None:
    answer = await ask(mesh, ["fine", "ABUSE"])
    assert answer.status == 400
    assert (answer.error["reason"], answer.error["decision_id"]) == ("CONTENT_BLOCKED", "decision-in")
    assert (answer.error["categories"], answer.error["policy"]) == ("toxicity", "general@3")
    assert mesh.inference.specs == []
    event = await mesh.event()
    assert (event.outcome, event.status_code) == (events.REQUEST_OUTCOME_BLOCKED_INPUT, 9)
    assert list(event.blocked_categories) == ["toxicity"]


@every_route
async def test_a_blocked_answer_ends_with_content_filter_and_stops_the_model(
    mesh: Any, ask: Route, eventually: Callable[..., Awaitable[None]]
) -> None:
    mesh.inference.script = ["All good. ", "Now FORBIDDEN things. ", "Never ", "seen."]
    mesh.inference.pause_after = 3
    answer = await ask(mesh, ["go on"])
    assert (answer.status, answer.finish, answer.text) == (200, "content_filter", "All good. ")
    event = await mesh.event()
    assert event.outcome == events.REQUEST_OUTCOME_BLOCKED_OUTPUT
    assert event.usage.estimated
    assert event.usage.output_tokens >= 2
    assert event.finish_reason == finish_reason_pb2.FINISH_REASON_CONTENT_FILTER
    await eventually(lambda: mesh.inference.running == 0)
    assert mesh.inference.cancelled == 1


@every_route
@pytest.mark.parametrize("trouble", ["away", "silent"])
@pytest.mark.parametrize("rpc", ["unary", "stream"])
@pytest.mark.parametrize("name", ["redaction", "moderation"])
async def test_without_a_filter_nothing_passes(mesh: Any, ask: Route, name: str, rpc: str, trouble: str) -> None:
    getattr(getattr(mesh, name), trouble).add(rpc)
    if trouble == "silent":
        mesh.be_impatient_with_filters()
    answer = await ask(mesh, [f"hello {EMAIL}"])
    assert answer.status == 503
    assert answer.text == ""
    assert (answer.error["reason"], answer.error["filter"]) == ("FILTER_UNAVAILABLE", name)
    if rpc == "unary":
        assert mesh.inference.specs == []
    assert EMAIL not in "".join(mesh.inference.seen)
    event = await mesh.event()
    assert (event.outcome, event.reason) == (events.REQUEST_OUTCOME_FAILED, "FILTER_UNAVAILABLE")


@every_route
@pytest.mark.parametrize("rpc", ["unary", "stream"])
@pytest.mark.parametrize("name", ["redaction", "moderation"])
async def test_a_tenant_that_fails_open_gets_an_answer_and_the_event_says_what_was_skipped(
    mesh: Any, ask: Route, name: str, rpc: str
) -> None:
    mesh.set_tenant(fail_open=True)
    getattr(mesh, name).away.add(rpc)
    answer = await ask(mesh, ["hello"])
    assert (answer.status, answer.text, answer.finish) == (200, "Hello there. All is well.", "stop")
    event = await mesh.event()
    assert list(event.skipped_filters) == [name]
    assert event.outcome == events.REQUEST_OUTCOME_COMPLETED


@every_route
@pytest.mark.parametrize(("skipped", "policy"), [(False, "strict@3"), (True, "")])
async def test_an_answer_names_the_redaction_policy_that_was_in_force(
    mesh: Any, ask: Route, skipped: bool, policy: str
) -> None:
    mesh.set_tenant(fail_open=True)
    if skipped:
        mesh.redaction.away.add("unary")
    assert (await ask(mesh, ["hello"])).redaction_policy == policy


@every_route
async def test_a_model_that_is_away_is_unavailable_and_has_used_nothing(mesh: Any, ask: Route) -> None:
    mesh.inference.away.add("stream")
    answer = await ask(mesh, ["hello"])
    assert (answer.status, answer.error["reason"]) == (503, "MODEL_UNAVAILABLE")
    event = await mesh.event()
    assert not event.HasField("usage")


@every_route
async def test_a_model_that_fails_midway_ends_the_answer_with_an_error(mesh: Any, ask: Route) -> None:
    mesh.inference.script = ["One sentence. ", "Two ", "three"]
    mesh.inference.fail_after = 2
    mesh.inference.may_fail.set()
    answer = await ask(mesh, ["hello"])
    assert answer.status == 503
    assert answer.finish == ""
    event = await mesh.event()
    assert (event.outcome, event.usage.estimated) == (events.REQUEST_OUTCOME_FAILED, True)


@every_route
@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, events.REQUEST_OUTCOME_SHED),
        (grpc.StatusCode.INVALID_ARGUMENT, 400, events.REQUEST_OUTCOME_INVALID),
        (grpc.StatusCode.UNIMPLEMENTED, 400, events.REQUEST_OUTCOME_INVALID),
        (grpc.StatusCode.NOT_FOUND, 503, events.REQUEST_OUTCOME_FAILED),
        (grpc.StatusCode.INTERNAL, 500, events.REQUEST_OUTCOME_FAILED),
    ],
)
async def test_what_the_model_refuses_gets_its_own_status(
    mesh: Any, ask: Route, code: grpc.StatusCode, status: int, outcome: int
) -> None:
    mesh.inference.refuse = code
    answer = await ask(mesh, ["hello"])
    assert answer.status == status
    assert (await mesh.event()).outcome == outcome


@every_route
async def test_a_model_for_self_tests_alone_is_none_for_others_and_not_one_to_try_again(mesh: Any, ask: Route) -> None:
    mesh.inference.refuse, mesh.inference.refuse_because = grpc.StatusCode.NOT_FOUND, "SELF_TESTS_ONLY"
    answer = await ask(mesh, ["hello"])
    assert (answer.status, answer.error["reason"], answer.text) == (404, "MODEL_NOT_FOUND", "")


@every_route
async def test_a_full_outbox_is_an_error_and_not_an_unrecorded_answer(mesh: Any, ask: Route) -> None:
    mesh.published.full = True
    answer = await ask(mesh, ["hello"])
    assert answer.error["reason"] == "OUTBOX_FULL"
    assert answer.finish == ""


@every_route
async def test_a_nearly_full_outbox_lets_nothing_begin(mesh: Any, ask: Route) -> None:
    mesh.published.nearly_full = True
    answer = await ask(mesh, ["hello"])
    assert (answer.status, answer.error["reason"], answer.text) == (503, "OUTBOX_FULL", "")
    assert mesh.inference.specs == []


@every_route
async def test_captured_text_is_redacted_text(mesh: Any, ask: Route) -> None:
    from sluice_gateway.domain.configuration import ContentCapture

    mesh.set_tenant(content_capture=ContentCapture.REDACTED)
    mesh.inference.script = ["To <EMAIL_ADDRESS_1> and ", "made.up@example.org."]
    await ask(mesh, [f"I am {EMAIL}"])
    event = await mesh.event()
    assert event.redacted_prompt == "I am <EMAIL_ADDRESS_1>"
    assert event.redacted_answer == "To <EMAIL_ADDRESS_1> and <EMAIL_ADDRESS_2>."


@every_route
async def test_made_up_values_stand_for_the_callers_with_the_model_and_in_what_is_captured(
    mesh: Any, ask: Route
) -> None:
    from sluice_gateway.domain.configuration import ContentCapture

    mesh.set_tenant(content_capture=ContentCapture.REDACTED)
    mesh.redaction.made_up = True
    mesh.inference.script = ["I wrote to maria1@exam", "ple.net, not to ", "new.person@example.org."]
    answer = await ask(mesh, [f"I am {EMAIL}"])
    assert answer.text == f"I wrote to {EMAIL}, not to <EMAIL_ADDRESS_99>."
    assert mesh.inference.specs[0].chat.messages[0].content == "I am maria1@example.net"
    event = await mesh.event()
    assert event.redacted_prompt == "I am maria1@example.net"
    assert event.redacted_answer == "I wrote to maria1@example.net, not to maria2@example.net."
    assert EMAIL not in str(event)
    assert mesh.redaction.directions == [verdict_pb2.DIRECTION_INPUT, verdict_pb2.DIRECTION_UNSPECIFIED]


@every_route
async def test_a_policy_that_does_not_exist_is_no_reason_to_go_on_without_the_filter(mesh: Any, ask: Route) -> None:
    mesh.set_tenant(fail_open=True)
    mesh.redaction.away.add("unary")
    mesh.redaction.away_as = grpc.StatusCode.NOT_FOUND
    answer = await ask(mesh, ["hello"])
    assert (answer.status, answer.error["reason"], answer.text) == (500, "FILTER_POLICY_NOT_FOUND", "")
    assert mesh.inference.specs == []


@every_route
async def test_a_value_of_the_caller_that_the_model_writes_by_itself_is_not_captured(mesh: Any, ask: Route) -> None:
    from sluice_gateway.domain.configuration import ContentCapture

    mesh.set_tenant(content_capture=ContentCapture.REDACTED)
    mesh.inference.script = ["I guess you are ", f"{EMAIL}."]
    answer = await ask(mesh, [f"I am {EMAIL}"])
    assert answer.text == f"I guess you are {EMAIL}."
    assert (await mesh.event()).redacted_answer == "I guess you are <EMAIL_ADDRESS_1>."


async def test_values_are_put_back_as_json_strings_where_the_answer_is_json(mesh: Any) -> None:
    spec = pb.ChatSpec(
        model="small",
        messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=f"I am {EMAIL}")],
        guided=generation_pb2.GuidedDecoding(json_object=True),
    )
    await mesh.stub().Chat(pb.ChatRequest(spec=spec), metadata=mesh.credentials(), timeout=10)
    assert mesh.redaction.formats[-1] == redaction_service_pb2.TEXT_FORMAT_JSON


async def test_a_request_of_very_many_empty_parts_is_refused_before_it_is_taken_apart(mesh: Any) -> None:
    calls = [chat_pb2.ToolCall() for _ in range(200_000)]
    spec = pb.ChatSpec(model="small", messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, tool_calls=calls)])
    with pytest.raises(grpc.aio.AioRpcError, match="200001 messages, tools, tool calls and stop strings"):
        await mesh.stub().Chat(pb.ChatRequest(spec=spec), metadata=mesh.credentials(), timeout=10)


@every_route
async def test_an_event_says_what_metrics_and_the_ledger_need(mesh: Any, ask: Route) -> None:
    await ask(mesh, ["hello"])
    event = await mesh.event()
    assert event.model == "small"
    assert event.route == "small/fake-1"
    assert event.served_model == "fake-1"
    assert event.api_key_id == "test"
    assert (event.metadata.tenant_id, event.metadata.project_id) == ("acme", "lab")
    assert (event.usage.uncached_input_tokens, event.usage.cached_input_tokens, event.usage.output_tokens) == (7, 2, 3)
    assert event.latency.nanos > 0
    assert event.time_to_first_token.nanos > 0
    assert event.generation_time.nanos > 0
    assert event.input_filter_time.nanos > 0
    assert (event.message_count, event.input_characters, event.output_characters) == (1, 5, 25)
    assert (event.refusal, event.empty_answer) == (False, False)
    assert (event.input_language, event.output_language, event.HasField("language_mismatch")) == ("", "en", False)
    assert (event.HasField("repetition_permille"), event.context_sentences) == (False, 0)
    assert not event.HasField("redacted_prompt")
    assert mesh.inference.specs[0].stopping.max_tokens == 64
    assert dict(mesh.inference.specs[0].labels) == {"route": event.route}


@every_route
async def test_an_event_says_how_the_answer_stands_to_prompt_and_context(mesh: Any, ask: Route) -> None:
    mesh.inference.script = ["The library opens ", "at nine. Members may ", "borrow 12 books for four weeks. "] * 3
    await ask(
        mesh,
        ["Kontext: Mitglieder dürfen 12 Bücher vier Wochen lang ausleihen; die Bücherei öffnet um neun. Wie viele?"],
    )
    event = await mesh.event()
    assert (event.input_language, event.output_language, event.language_mismatch) == ("de", "en", True)
    assert event.repetition_permille >= 500
    assert (event.context_sentences, event.grounded_sentences) == (6, 0)


@every_route
async def test_the_neighbours_learn_whose_request_it_is_from_the_key_alone(mesh: Any, ask: Route) -> None:
    await ask(mesh, ["hello"])
    for neighbour in (mesh.redaction, mesh.moderation, mesh.inference):
        for metadata in neighbour.metadata:
            assert metadata["x-sluice-tenant-id"] == "acme"
            assert metadata["x-sluice-project-id"] == "lab"
            assert metadata["x-request-id"] == mesh.inference.specs[0].request_id
            assert len(metadata["traceparent"]) == 55
