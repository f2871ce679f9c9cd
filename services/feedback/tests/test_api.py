"""FeedbackService over real gRPC, with a redaction service beside it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.feedback.v1 import (
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    feedback_service_pb2_grpc,
    review_service_pb2,
    review_service_pb2_grpc,
)
from sluice.feedback.v1 import feedback_service_pb2 as pb
from sluice.types.v1 import feedback_pb2 as types_pb
from sluice_feedback.adapters.database import Database
from sluice_feedback.adapters.feedback_events import encode
from sluice_feedback.adapters.grpc_redactor import GrpcRedactor
from sluice_feedback.adapters.sql_feedback import SqlFeedback
from sluice_feedback.api import DatasetServicer, FeedbackServicer, ReviewServicer
from sluice_feedback.domain.desk import Desk
from sluice_feedback.domain.known_requests import KnownRequest
from sluice_feedback.settings import FeedbackSettings
from sluice_kit.channel import connect
from sluice_kit.server import GrpcServer

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ACME = (("x-sluice-tenant-id", "acme"), ("x-sluice-project-id", "shop"))
UMBRELLA = (("x-sluice-tenant-id", "umbrella"),)


@pytest.fixture
def store(database: Database) -> SqlFeedback:
    return SqlFeedback(database, encode=encode)


@pytest.fixture
async def channel(store: SqlFeedback, redaction_target: str, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    settings = FeedbackSettings(home=tmp_path, grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=0)
    server = GrpcServer(service="feedback", settings=settings)
    async with connect(redaction_target, settings) as to_redaction:
        desk = Desk(store, GrpcRedactor(to_redaction, timeout_seconds=5))
        servicer = FeedbackServicer(desk, store, on_change=lambda: None, clock=lambda: NOON)
        feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server(servicer, server.grpc)
        review_service_pb2_grpc.add_ReviewServiceServicer_to_server(ReviewServicer(), server.grpc)
        dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(DatasetServicer(), server.grpc)
        await server.start(service_names=[])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
            yield opened
        await server.stop()


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return feedback_service_pb2_grpc.FeedbackServiceStub(channel)


async def told(store: SqlFeedback) -> list[FeedbackReceived]:
    payloads: list[bytes] = []
    await store.hand_over(payloads.extend, limit=1000)
    return [FeedbackReceived.FromString(payload) for payload in payloads]


def submission(**values: Any) -> pb.SubmitFeedbackRequest:
    return pb.SubmitFeedbackRequest(**{"feedback_id": "f1", "request_id": "r1", **values})


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"thumb": types_pb.THUMB_DOWN}, "thumb"),
        ({"rating": 4}, "rating"),
        ({"comparison": pb.Comparison(other_request_id="r2", preference=types_pb.PREFERENCE_TIE)}, "comparison"),
        ({"comment": "fine"}, "redacted_comment"),
        ({"correction": "It is Paris."}, "redacted_correction"),
    ],
)
async def test_every_kind_of_feedback_is_stored_listed_and_told(
    stub: Any, store: SqlFeedback, said: dict[str, Any], field: str
) -> None:
    answer = await stub.SubmitFeedback(submission(**said, tags=["tone"]), metadata=ACME)
    assert (answer.feedback_id, answer.request_known) == ("f1", False)
    listed = await stub.ListFeedback(pb.ListFeedbackRequest(request_id="r1"), metadata=ACME)
    (event,) = await told(store)
    for found in (listed.feedback[0], event):
        assert found.WhichOneof("value") == field
        assert (list(found.tags), found.source) == (["tone"], types_pb.FEEDBACK_SOURCE_END_USER)
    assert (event.metadata.tenant_id, event.metadata.project_id, event.metadata.request_id) == ("acme", "shop", "r1")


async def test_personal_data_in_a_comment_is_nowhere_but_in_the_call(
    stub: Any, store: SqlFeedback, redaction: Any, tmp_path: Path
) -> None:
    await stub.SubmitFeedback(submission(comment="Ask Jane Doe"), metadata=ACME)
    assert redaction.tenants == ["acme"]
    (event,) = await told(store)
    assert event.redacted_comment == "Ask <PERSON_1>"
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"Jane" not in path.read_bytes()


@pytest.mark.parametrize(
    "failure", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, "nothing"]
)
async def test_nothing_is_stored_while_redaction_fails(
    stub: Any, store: SqlFeedback, redaction: Any, failure: Any
) -> None:
    redaction.answer = failure
    error = await refused(stub.SubmitFeedback(submission(correction="Ask Jane Doe"), metadata=ACME))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "Jane" not in (error.details() or "")
    assert await told(store) == []
    assert not (await stub.ListFeedback(pb.ListFeedbackRequest(request_id="r1"), metadata=ACME)).feedback
    redaction.answer = "redact"
    await stub.SubmitFeedback(submission(correction="Ask Jane Doe"), metadata=ACME)
    assert len(await told(store)) == 1


async def test_a_thumb_needs_no_redaction(stub: Any, redaction: Any) -> None:
    redaction.answer = grpc.StatusCode.UNAVAILABLE
    await stub.SubmitFeedback(submission(thumb=types_pb.THUMB_UP), metadata=ACME)
    assert redaction.tenants == []


async def test_submitting_twice_is_one_and_other_content_is_already_exists(stub: Any, store: SqlFeedback) -> None:
    first = await stub.SubmitFeedback(submission(comment="Jane Doe is right"), metadata=ACME)
    assert await stub.SubmitFeedback(submission(comment="Jane Doe is right"), metadata=ACME) == first
    error = await refused(stub.SubmitFeedback(submission(comment="Jane Doe is wrong"), metadata=ACME))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert len(await told(store)) == 1


async def test_an_id_is_made_where_none_is_given(stub: Any, store: SqlFeedback) -> None:
    answers = [await stub.SubmitFeedback(submission(feedback_id="", rating=3), metadata=ACME) for _ in range(2)]
    assert len({answer.feedback_id for answer in answers}) == 2
    assert len(await told(store)) == 2


async def test_another_tenants_request_is_denied_before_any_text_is_passed_on(
    stub: Any, store: SqlFeedback, redaction: Any
) -> None:
    await store.learn([KnownRequest("r1", "umbrella", NOON)], {}, at=NOON)
    for call in (
        stub.SubmitFeedback(submission(comment="Ask Jane Doe"), metadata=ACME),
        stub.ListFeedback(pb.ListFeedbackRequest(request_id="r1"), metadata=ACME),
    ):
        assert (await refused(call)).code() is grpc.StatusCode.PERMISSION_DENIED
    assert redaction.tenants == []


async def test_feedback_is_taken_back_by_its_tenant_only(stub: Any, store: SqlFeedback) -> None:
    await stub.SubmitFeedback(submission(rating=1), metadata=ACME)
    retract = pb.RetractFeedbackRequest(feedback_id="f1")
    assert (await refused(stub.RetractFeedback(retract, metadata=UMBRELLA))).code() is grpc.StatusCode.NOT_FOUND
    first = await stub.RetractFeedback(retract, metadata=ACME)
    assert await stub.RetractFeedback(retract, metadata=ACME) == first
    listed = await stub.ListFeedback(pb.ListFeedbackRequest(request_id="r1"), metadata=ACME)
    assert listed.feedback[0].retracted_at == first.retracted_at
    assert [event.retracted for event in await told(store)] == [False, True]


@pytest.mark.parametrize("feedback_id", ["", "\0", "x" * 65])
async def test_an_id_that_can_not_be_one_is_refused(stub: Any, feedback_id: str) -> None:
    error = await refused(stub.RetractFeedback(pb.RetractFeedbackRequest(feedback_id=feedback_id), metadata=ACME))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_self_test_is_marked_as_one(stub: Any, store: SqlFeedback) -> None:
    await stub.SubmitFeedback(submission(rating=1), metadata=(*ACME, ("x-sluice-synthetic", "true")))
    (event,) = await told(store)
    assert event.metadata.synthetic


@pytest.mark.parametrize(
    "bad",
    [
        submission(),
        submission(thumb=types_pb.THUMB_UNSPECIFIED),
        submission(thumb=77),
        submission(rating=6),
        submission(comment="x" * 4_001),
        submission(comparison=pb.Comparison(other_request_id="r2")),
        submission(rating=5, source=77),
        submission(rating=5, request_id="a b"),
        submission(rating=5, feedback_id="Jane Doe"),
        submission(rating=5, tags=["Jane Doe"]),
    ],
)
async def test_bad_feedback_is_refused_without_quoting_it(stub: Any, store: SqlFeedback, bad: Any) -> None:
    error = await refused(stub.SubmitFeedback(bad, metadata=ACME))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Jane" not in (error.details() or "")
    assert await told(store) == []


async def test_a_caller_without_a_tenant_is_refused(stub: Any) -> None:
    error = await refused(stub.SubmitFeedback(submission(rating=5)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "x-sluice-tenant-id" in (error.details() or "")


async def test_what_is_not_served_yet_says_so(channel: grpc.aio.Channel) -> None:
    reviews, datasets = (
        review_service_pb2_grpc.ReviewServiceStub(channel),
        dataset_service_pb2_grpc.DatasetServiceStub(channel),
    )
    calls: list[Any] = [
        reviews.RequestReview(review_service_pb2.RequestReviewRequest()),
        reviews.ClaimReview(review_service_pb2.ClaimReviewRequest()),
        reviews.ResolveReview(review_service_pb2.ResolveReviewRequest()),
        datasets.CreateDataset(dataset_service_pb2.CreateDatasetRequest()),
        datasets.ExportDataset(dataset_service_pb2.ExportDatasetRequest()).read(),  # type: ignore[attr-defined]
    ]
    for call in calls:
        error = await refused(call)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "not served yet" in (error.details() or "")
