"""FeedbackService over gRPC: proto <-> domain.

Called from inside the mesh only: the tenant is the one of the metadata `x-sluice-tenant-id`, and the caller is trusted to
have authenticated it.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc
from prometheus_client import Counter
from sluice.feedback.v1 import dataset_service_pb2 as dataset_pb
from sluice.feedback.v1 import dataset_service_pb2_grpc as dataset_grpc
from sluice.feedback.v1 import feedback_service_pb2 as pb
from sluice.feedback.v1 import feedback_service_pb2_grpc as pb_grpc
from sluice.feedback.v1 import review_service_pb2 as review_pb
from sluice.feedback.v1 import review_service_pb2_grpc as review_grpc
from sluice.types.v1 import feedback_pb2 as types_pb
from sluice_kit import context
from sluice_kit.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from sluice_kit.events import new_event_id

from sluice_feedback.adapters.feedback_events import PREFERENCES, SOURCES, THUMBS
from sluice_feedback.domain.desk import Desk, FeedbackStore
from sluice_feedback.domain.feedback import (
    MOST_PER_REQUEST,
    CaptureRefused,
    ContentDiffers,
    Feedback,
    ForeignRequest,
    KeysUnavailable,
    Kind,
    ReadFeedback,
    RedactionUnavailable,
    Source,
    StoreUnavailable,
    TooMuchFeedback,
    UnknownFeedback,
    Value,
)
from sluice_feedback.domain.mistakes import find_mistakes, is_feedback_id

T = TypeVar("T")

SUBMITTED = Counter("sluice_feedback_submissions_total", "Feedback that was taken in.", ("kind", "request_known"))

_THUMBS = {number: thumb for thumb, number in THUMBS.items()}
_PREFERENCES = {number: preference for preference, number in PREFERENCES.items()}
_SOURCES = {number: source for source, number in SOURCES.items()} | {
    types_pb.FEEDBACK_SOURCE_UNSPECIFIED: Source.END_USER
}


class FeedbackServicer(pb_grpc.FeedbackServiceServicer):
    """Takes feedback in, takes it back, lists it."""

    def __init__(
        self, desk: Desk, store: FeedbackStore, *, on_change: Callable[[], None], clock: Callable[[], datetime]
    ) -> None:
        self._desk, self._store, self._on_change, self._clock = desk, store, on_change, clock

    async def SubmitFeedback(
        self, request: pb.SubmitFeedbackRequest, _: grpc.aio.ServicerContext
    ) -> pb.SubmitFeedbackResponse:
        """Stores and publishes one piece of feedback."""
        feedback = _feedback(request)
        mistakes = find_mistakes(feedback)
        if mistakes:
            raise InvalidInput("; ".join(mistake.message for mistake in mistakes) + ".", field=mistakes[0].field)
        stored, is_known = await _mapped(self._desk.submit(feedback, received_at=self._clock()))
        SUBMITTED.labels(feedback.value.kind.value, str(is_known).lower()).inc()
        self._on_change()
        response = pb.SubmitFeedbackResponse(feedback_id=feedback.feedback_id, request_known=is_known)
        response.received_at.FromDatetime(stored.received_at)
        return response

    async def RetractFeedback(
        self, request: pb.RetractFeedbackRequest, _: grpc.aio.ServicerContext
    ) -> pb.RetractFeedbackResponse:
        """Takes a piece of feedback back."""
        if not is_feedback_id(request.feedback_id):
            raise InvalidInput("feedback_id must have 1 to 64 of A-Z a-z 0-9 _ . -.", field="feedback_id")
        stored = await _mapped(self._store.retract(_tenant(), request.feedback_id, at=self._clock()))
        self._on_change()
        response = pb.RetractFeedbackResponse()
        response.retracted_at.FromDatetime(stored.ended_at or stored.received_at)
        return response

    async def ListFeedback(
        self, request: pb.ListFeedbackRequest, _: grpc.aio.ServicerContext
    ) -> pb.ListFeedbackResponse:
        """The tenant's feedback of one request."""
        if not 0 < len(request.request_id) <= 128 or "\0" in request.request_id:
            raise InvalidInput("request_id must have 1 to 128 characters.", field="request_id")
        found, is_known = await _mapped(self._desk.of_request(_tenant(), request.request_id))
        return pb.ListFeedbackResponse(feedback=[_shown_message(one) for one in found], request_known=is_known)


async def _mapped(work: Awaitable[T]) -> T:
    """The outcome of domain work, its errors as those of the mesh."""
    try:
        return await work
    except ForeignRequest:
        raise PermissionDenied("The request belongs to another tenant.") from None
    except ContentDiffers:
        raise AlreadyExists("feedback_id is taken, with other content; use a new one.", field="feedback_id") from None
    except TooMuchFeedback:
        raise ResourceExhausted(
            f"The request has {MOST_PER_REQUEST} pieces of feedback; no more are taken.", reason="TOO_MUCH_FEEDBACK"
        ) from None
    except UnknownFeedback:
        raise NotFound("There is no feedback of this id.", field="feedback_id") from None
    except RedactionUnavailable:
        raise Unavailable(
            "The text cannot be redacted now, so nothing was stored; try again.",
            reason="REDACTION_UNAVAILABLE",
            retry_after_seconds=1,
        ) from None
    except KeysUnavailable:
        raise Unavailable(
            "The text cannot be encrypted now, so nothing was stored; try again.",
            reason="KEY_STORE_UNAVAILABLE",
            retry_after_seconds=2,
        ) from None
    except CaptureRefused:
        raise PreconditionFailed(
            "The tenant captures no text (content_capture: none), so no comments and corrections are taken; a thumb or a"
            " rating is.",
            reason="CONTENT_CAPTURE_OFF",
        ) from None
    except StoreUnavailable as error:
        raise Unavailable(f"{error}; try again.", retry_after_seconds=1) from None


def _tenant() -> str:
    tenant_id = context.current().tenant_id
    if not 0 < len(tenant_id) <= 128:
        raise InvalidInput("The metadata x-sluice-tenant-id must name the tenant, in at most 128 characters.")
    return tenant_id


def _feedback(request: pb.SubmitFeedbackRequest) -> Feedback:
    here = context.current()
    if request.source not in _SOURCES:
        raise InvalidInput(f"{request.source} is no source of feedback.", field="source")
    return Feedback(
        request.feedback_id or new_event_id(),
        request.request_id,
        _tenant(),
        _value(request),
        source=_SOURCES[request.source],
        tags=tuple(request.tags),
        project_id=here.project_id[:128],
        subject_id=here.subject_id[:128],
        traceparent=here.traceparent[:64],
        is_synthetic=here.synthetic,
    )


def _value(request: pb.SubmitFeedbackRequest) -> Value:
    which = request.WhichOneof("value")
    if which is None:
        raise InvalidInput("One of thumb, rating, comment, correction or comparison must be given.", field="value")
    kind = Kind(which)
    if kind is Kind.THUMB:
        return Value(kind, thumb=_THUMBS.get(request.thumb))
    if kind is Kind.RATING:
        return Value(kind, rating=request.rating)
    if kind is Kind.COMPARISON:
        comparison = request.comparison
        preference = _PREFERENCES.get(comparison.preference)
        return Value(kind, other_request_id=comparison.other_request_id, preference=preference)
    return Value(kind, text=request.comment if kind is Kind.COMMENT else request.correction)


def _shown_message(shown: ReadFeedback) -> pb.StoredFeedback:
    stored = shown.stored
    feedback, value = stored.feedback, stored.feedback.value
    said: dict[str, Any] = {}
    if value.thumb is not None:
        said["thumb"] = THUMBS[value.thumb]
    elif value.rating is not None:
        said["rating"] = value.rating
    elif value.has_text:
        said["redacted_comment" if value.kind is Kind.COMMENT else "redacted_correction"] = value.text or ""
    elif value.preference is not None:
        said["comparison"] = pb.Comparison(
            other_request_id=value.other_request_id or "", preference=PREFERENCES[value.preference]
        )
    message = pb.StoredFeedback(
        feedback_id=feedback.feedback_id,
        source=SOURCES[feedback.source],
        tags=feedback.tags,
        text_left_out=shown.left_out,
        **said,
    )
    message.received_at.FromDatetime(stored.received_at)
    if stored.ended_at is not None:
        message.retracted_at.FromDatetime(stored.ended_at.astimezone(UTC))
    return message


class ReviewServicer(review_grpc.ReviewServiceServicer):
    """The human review queue: not served yet."""

    async def RequestReview(self, request: review_pb.RequestReviewRequest, _: grpc.aio.ServicerContext) -> Any:
        raise _not_yet("RequestReview", "the review queue")

    async def ClaimReview(self, request: review_pb.ClaimReviewRequest, _: grpc.aio.ServicerContext) -> Any:
        raise _not_yet("ClaimReview", "the review queue")

    async def ResolveReview(self, request: review_pb.ResolveReviewRequest, _: grpc.aio.ServicerContext) -> Any:
        raise _not_yet("ResolveReview", "the review queue")


class DatasetServicer(dataset_grpc.DatasetServiceServicer):
    """Datasets made of feedback: not served yet."""

    async def CreateDataset(self, request: dataset_pb.CreateDatasetRequest, _: grpc.aio.ServicerContext) -> Any:
        raise _not_yet("CreateDataset", "datasets")

    async def ExportDataset(self, request: dataset_pb.ExportDatasetRequest, _: grpc.aio.ServicerContext) -> Any:
        raise _not_yet("ExportDataset", "datasets")
        yield  # a stream, though an empty one


def _not_yet(rpc: str, what: str) -> Unimplemented:
    return Unimplemented(f"{rpc} is not served yet: {what} will come with a later version.")
