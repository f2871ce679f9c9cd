"""What a model says badly never reaches the caller: real redaction and moderation, a scripted model, both doors."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.gateway.v1 import gateway_service_pb2_grpc as rpc
from sluice.moderation.v1 import moderation_service_pb2 as moderation
from sluice.moderation.v1 import moderation_service_pb2_grpc as moderation_rpc
from sluice.types.v1 import chat_pb2, finish_reason_pb2, verdict_pb2

FINE = "The capital of France is Paris. "
ABUSE = "You are a fucking idiot and I hate you. "
MORE = "It lies on the river Seine."
EMAIL = "erika.mustermann@example.org"


@dataclass
class Answer:
    """What a caller got, piece by piece."""

    pieces: list[str] = field(default_factory=list)
    finish: str = ""
    withheld: str = ""
    reason: str = ""
    told: dict[str, str] = field(default_factory=dict)
    """What the ErrorInfo of a refused request says besides."""
    decision_ids: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def by_grpc(guarded: Any, tenant: str, said: str) -> Answer:
    answer = Answer()
    messages = [chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=said)]
    request = pb.ChatStreamRequest(spec=pb.ChatSpec(model="small", messages=messages))
    key = [("authorization", f"Bearer {guarded.keys[tenant]}")]
    with grpc.insecure_channel(guarded.gateway.target) as channel:
        try:
            for response in rpc.GatewayServiceStub(channel).ChatStream(request, metadata=key, timeout=90):
                answer.pieces += [response.delta.content] if response.delta.content else []
                if response.HasField("finished"):
                    filtered = response.finished.finish_reason == finish_reason_pb2.FINISH_REASON_CONTENT_FILTER
                    answer.finish = "content_filter" if filtered else "stop"
                    answer.withheld = response.finished.guard.withheld_reason
                    answer.decision_ids = list(response.finished.guard.decision_ids)
        except grpc.RpcError as error:
            info = error_details_pb2.ErrorInfo()
            status = rpc_status.from_call(error)  # type: ignore[arg-type]
            assert status is not None
            assert any(detail.Unpack(info) for detail in status.details)
            answer.reason, answer.decision_ids = info.reason, [info.metadata["decision_id"]]
            answer.told = dict(info.metadata)
    return answer


def by_http(guarded: Any, tenant: str, said: str) -> Answer:
    answer = Answer()
    body = {"model": "small", "stream": True, "messages": [{"role": "user", "content": said}]}
    headers = {"authorization": f"Bearer {guarded.keys[tenant]}"}
    url = f"{guarded.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=90) as response:
        answer.decision_ids = response.headers.get("x-sluice-decision-ids", "").split(",")
        if response.status_code != 200:
            answer.reason = json.loads(response.read())["error"]["sluice"]["reason"]
            return answer
        for line in response.iter_lines():
            if line.startswith("data: {"):
                _take(json.loads(line.removeprefix("data: ")), answer)
    return answer


def _take(chunk: dict[str, Any], answer: Answer) -> None:
    choice = chunk["choices"][0]
    answer.pieces += [choice["delta"]["content"]] if choice["delta"].get("content") else []
    answer.finish = choice["finish_reason"] or answer.finish
    if "sluice" in chunk:
        answer.withheld, answer.decision_ids = chunk["sluice"]["withheld_reason"], chunk["sluice"]["decision_ids"]


Door = Callable[[Any, str, str], Answer]
both_doors = pytest.mark.parametrize("ask", [by_grpc, by_http], ids=["grpc", "sse"])
chunked = pytest.mark.parametrize("size", [1, 5, 1000])


def cut(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


@both_doors
@chunked
@pytest.mark.parametrize(("tenant", "reason"), [("plain", "CONTENT_BLOCKED"), ("holding", "CONTENT_HELD")])
def test_no_character_of_a_withheld_sentence_or_of_what_follows_is_sent(
    guarded: Any, ask: Door, size: int, tenant: str, reason: str
) -> None:
    guarded.model.script = cut(FINE + ABUSE + MORE, size)
    answer = ask(guarded, tenant, "Where is Paris?")
    assert answer.text == FINE, answer
    assert (answer.finish, answer.withheld) == ("content_filter", reason)
    assert len(answer.decision_ids) == 2


@both_doors
@chunked
def test_a_redacted_sentence_is_a_marker_and_the_rest_goes_on(guarded: Any, ask: Door, size: int) -> None:
    guarded.model.script = cut(FINE + ABUSE + MORE, size)
    answer = ask(guarded, "redacting", "Where is Paris?")
    assert answer.text == f"{FINE}[removed: toxicity] {MORE}"
    assert (answer.finish, answer.withheld) == ("stop", "")


@both_doors
def test_a_whole_answer_that_begins_badly_is_empty(guarded: Any, ask: Door) -> None:
    guarded.model.script = cut(ABUSE + FINE, 3)
    answer = ask(guarded, "plain", "Where is Paris?")
    assert (answer.text, answer.finish) == ("", "content_filter")


@both_doors
def test_a_sentence_is_taken_out_of_what_the_model_sees_and_personal_data_too(guarded: Any, ask: Door) -> None:
    guarded.model.script = cut("I shall write to <EMAIL_ADDRESS_1> at once.", 4)
    guarded.model.asked.clear()
    answer = ask(guarded, "redacting", f"Write to {EMAIL} for me. {ABUSE}Thank you.")
    (asked,) = guarded.model.asked
    assert "[removed: toxicity]" in asked
    assert "<EMAIL_ADDRESS_1>" in asked
    assert not any(word in asked for word in ("idiot", "erika"))
    assert answer.text == f"I shall write to {EMAIL} at once."


@both_doors
@pytest.mark.parametrize(("tenant", "reason"), [("plain", "CONTENT_BLOCKED"), ("holding", "CONTENT_HELD")])
def test_a_withheld_request_never_reaches_the_model(guarded: Any, ask: Door, tenant: str, reason: str) -> None:
    guarded.model.asked.clear()
    answer = ask(guarded, tenant, ABUSE)
    assert (answer.reason, guarded.model.asked) == (reason, [])
    assert answer.decision_ids[0]


@both_doors
def test_every_decision_can_be_explained_by_its_tenant_and_by_nobody_else(guarded: Any, ask: Door) -> None:
    guarded.model.script = cut(FINE + ABUSE, 6)
    answer = ask(guarded, "redacting", "Where is Paris?")
    actions = []
    with grpc.insecure_channel(guarded.moderation.target) as channel:
        stub = moderation_rpc.ModerationServiceStub(channel)
        for decision_id in answer.decision_ids:
            request = moderation.ExplainRequest(decision_id=decision_id)
            actions.append(stub.Explain(request, metadata=[("x-sluice-tenant-id", "redacting")]).verdict.action)
            with pytest.raises(grpc.RpcError) as error:
                stub.Explain(request, metadata=[("x-sluice-tenant-id", "plain")])
            assert error.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    assert actions == [verdict_pb2.ACTION_ALLOW, verdict_pb2.ACTION_REDACT]


def test_nothing_of_a_withheld_text_lies_in_a_log_or_a_file(guarded: Any) -> None:
    guarded.model.script = cut(f"{FINE}You are a fucking idiot, Quuxington, and I hate you. {MORE}", 4)
    for tenant in ("plain", "redacting", "holding"):
        by_http(guarded, tenant, "Where is Paris?")
        by_grpc(guarded, tenant, "You are a fucking idiot, Quuxington, and I hate you.")
    written = guarded.everything_written().lower()
    assert b"request_completed" in written
    assert b"quuxington" not in written
    # Single words of a detector's own vocabulary may stand in evidence; what was said may not.
    assert b"fucking idiot, quux" not in written
    assert b"idiot and i hate" not in written
