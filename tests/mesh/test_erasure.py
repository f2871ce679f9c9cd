"""A person is erased: after it no text of theirs can be read, however the topics are replayed, while every count and cost stays."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import grpc
import pytest
from sluice.feedback.v1 import feedback_service_pb2, feedback_service_pb2_grpc
from sluice.gateway.v1 import gateway_service_pb2 as pb

from .conftest import Mesh, eventually
from .test_conversations import gateway, options, spec
from .test_privacy import _files, _leaks_of, _records

PEOPLE = ("maria", "paul", "")
TENANT = "acme"
ERASED = "maria"


def canary(person: str) -> str:
    """Words that redaction leaves and the model need not repeat."""
    return {"maria": "quokka umbrella", "paul": "walrus lantern", "": "heron teapot"}[person]


def _converse(mesh: Mesh) -> dict[str, list[str]]:
    """Two requests of everybody, whole and streamed; their ids by person."""
    channel, stub = gateway(mesh)
    asked: dict[str, list[str]] = {}
    with channel:
        for person in PEOPLE:
            told = spec(f"Say something about a {canary(person)}.", user=person)
            whole = _patiently(partial(stub.Chat, pb.ChatRequest(spec=told), **options(mesh)))
            streamed = _patiently(partial(_stream, mesh, stub, told))
            asked[person] = [whole.request_id, streamed[-1].request_id]
    return asked


def _stream(mesh: Mesh, stub: Any, told: pb.ChatSpec) -> list[Any]:
    return list(stub.ChatStream(pb.ChatStreamRequest(spec=told), **options(mesh)))


def _patiently(call: Callable[[], Any]) -> Any:
    """As a caller does: UNAVAILABLE is tried again (a mesh that has just started on a busy machine)."""

    def answered() -> Any:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return None

    return eventually(answered, 120)


def _give_feedback(mesh: Mesh, asked: dict[str, list[str]]) -> None:
    with grpc.insecure_channel(
        mesh.environment["SLUICE_FEEDBACK_TARGET"], options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        stub = feedback_service_pb2_grpc.FeedbackServiceStub(channel)
        for person, request_ids in asked.items():
            for number, request_id in enumerate(request_ids):
                said = {"comment" if number else "correction": f"Not a word of the {canary(person)}!"}
                request = feedback_service_pb2.SubmitFeedbackRequest(request_id=request_id, **said)
                stub.SubmitFeedback(request, metadata=(("x-sluice-tenant-id", TENANT),), timeout=60)


def _read(mesh: Mesh, *types: str) -> list[dict[str, Any]]:
    """All events from offset 0, decrypted by whoever has the key store."""
    named = [word for name in types for word in ("--type", name)]
    told = mesh.sluice("events", "tail", "--no-follow", "--decrypt", *named)
    assert told.returncode == 0, told.stderr
    return [json.loads(line) for line in told.stdout.splitlines()]


def _texts(events: Iterable[dict[str, Any]], request_ids: Iterable[str]) -> list[str]:
    """What can be read of requests; the reason where it cannot."""
    wanted = set(request_ids)
    return [
        opened.get("text", opened.get("left_out"))
        for event in events
        if event.get("subject") in wanted
        for name, opened in event["data"].items()
        if name.startswith("encrypted_")
    ]


def _sums(mesh: Mesh, asked: dict[str, list[str]]) -> dict[str, Any]:
    """What must not change of all these requests: how many facts of each kind there are, tokens, and what they cost."""
    ids = {request_id for requests in asked.values() for request_id in requests}
    told = {event["id"]: event for event in mesh.events() if event.get("subject") in ids}  # at least once: each once
    costs = [event["data"].get("amount", {}) for event in told.values() if event["type"].endswith("cost_recorded.v1")]
    usages = [event["data"].get("usage", {}) for event in told.values() if "request_completed" in event["type"]]
    return {
        "facts": Counter(event["type"] for event in told.values()),
        "cost": sum(int(amount.get("nano_units", 0)) for amount in costs),
        "tokens": sum(int(usage.get("output_tokens", 0)) for usage in usages),
    }


def _settled(mesh: Mesh, asked: dict[str, list[str]]) -> dict[str, Any]:
    """The sums when two readings in a row are the same: everything that follows from the requests has been told."""
    seen = [_sums(mesh, asked)]

    def is_still() -> bool:
        seen.append(_sums(mesh, asked))
        return seen[-1] == seen[-2]

    assert eventually(is_still, 120)
    return seen[-1]


def _shown(mesh: Mesh, request_id: str) -> list[tuple[str, str]]:
    with grpc.insecure_channel(
        mesh.environment["SLUICE_FEEDBACK_TARGET"], options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        stub = feedback_service_pb2_grpc.FeedbackServiceStub(channel)
        request = feedback_service_pb2.ListFeedbackRequest(request_id=request_id)
        found = stub.ListFeedback(request, metadata=(("x-sluice-tenant-id", TENANT),), timeout=60).feedback
    return [(one.redacted_comment or one.redacted_correction, one.text_left_out) for one in found]


@pytest.fixture(scope="module")
def asked(mesh: Mesh) -> dict[str, list[str]]:
    """The conversations and the feedback, and everything that follows from them, told."""
    asked = _converse(mesh)
    ids = {request_id for requests in asked.values() for request_id in requests}
    assert eventually(lambda: ids <= {e.get("subject") for e in mesh.events("RequestCompleted")})
    _give_feedback(mesh, asked)
    assert eventually(lambda: ids <= {e.get("subject") for e in mesh.events("FeedbackReceived")})
    assert eventually(lambda: ids <= {e.get("subject") for e in mesh.events("CostRecorded")})
    return asked


def test_captured_text_stands_in_no_topic_and_no_file_in_clear(mesh: Mesh, asked: dict[str, list[str]]) -> None:
    words = [canary(person).encode() for person in PEOPLE]
    records = asyncio.run(_records(mesh))
    assert any(asked[ERASED][0].encode() in content for _, content in records), "the search sees the requests at all"
    assert _leaks_of(words, records) == []
    assert _leaks_of(words, _files(mesh.home.path)) == []


def test_an_erased_person_cannot_be_read_anywhere_while_everything_else_stays(
    mesh: Mesh, asked: dict[str, list[str]]
) -> None:
    before = _read(mesh, "RequestCompleted", "FeedbackReceived")
    for person in PEOPLE:
        readable = _texts(before, asked[person])
        assert len(readable) == 6, "two prompts, two answers, two pieces of feedback"
        assert sum(canary(person) in text for text in readable) >= 4
    sums = _settled(mesh, asked)
    assert sums["facts"]["sluice.gateway.request_completed.v1"] == 6
    assert sums["facts"]["sluice.feedback.feedback_received.v1"] == 6
    assert sums["facts"]["sluice.cost.cost_recorded.v1"] >= 6
    assert sums["tokens"] > 0

    erased = mesh.sluice("privacy", "erase", "--tenant", TENANT, "--subject", ERASED, "--reason", "T-17")
    assert erased.returncode == 0, erased.stderr
    receipt = json.loads(erased.stdout)
    assert receipt["destroyed_keys"] == 1
    assert ERASED not in erased.stdout

    after = _read(mesh, "RequestCompleted", "FeedbackReceived")
    assert set(_texts(after, asked[ERASED])) == {"ERASED"}
    for person in PEOPLE:
        if person != ERASED:
            assert sorted(_texts(after, asked[person])) == sorted(_texts(before, asked[person]))
    assert eventually(lambda: all(_shown(mesh, r) == [("", "ERASED")] for r in asked[ERASED]))
    assert all(canary("paul") in text for r in asked["paul"] for text, _ in _shown(mesh, r))
    assert _settled(mesh, asked) == sums
    words = [canary(person).encode() for person in PEOPLE]
    assert _leaks_of(words, asyncio.run(_records(mesh))) == []
    assert _leaks_of(words, _files(mesh.home.path)) == []


def test_an_erasure_done_again_does_nothing_and_the_person_may_come_back(
    mesh: Mesh, asked: dict[str, list[str]]
) -> None:
    again = json.loads(mesh.sluice("privacy", "erase", "--tenant", TENANT, "--subject", ERASED).stdout)
    assert again["destroyed_keys"] == 0
    told = {event["id"] for event in mesh.events("SubjectErased")}
    assert again["metadata"]["event_id"] in told
    assert len(told) == 1

    def readable_again() -> bool:
        channel, stub = gateway(mesh)
        with channel:  # once the gateway has let go of the key it held: half a minute at most
            asked_again = pb.ChatRequest(spec=spec(f"A {canary(ERASED)}, please.", user=ERASED))
            answer = _patiently(partial(stub.Chat, asked_again, **options(mesh)))
        here = [answer.request_id]
        return bool(
            eventually(
                lambda: any(canary(ERASED) in text for text in _texts(_read(mesh, "RequestCompleted"), here)), 10
            )
        )

    assert eventually(readable_again, 90)
    assert set(_texts(_read(mesh, "RequestCompleted"), asked[ERASED])) == {"ERASED"}
