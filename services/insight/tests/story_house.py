"""The stories of requests under test: events, and a store with its feed and its door."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from sluice.events.v1 import cost_pb2, feedback_pb2, gateway_pb2, inference_pb2, moderation_pb2
from sluice.insight.v1 import request_service_pb2 as pb
from sluice.insight.v1 import request_service_pb2_grpc as rpc
from sluice.types.v1 import encrypted_text_pb2, money_pb2, personal_data_pb2, usage_pb2
from sluice.types.v1 import feedback_pb2 as feedback_types
from sluice_insight.adapters.stories.feed import StoryFeed
from sluice_insight.adapters.stories.store import Stories
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.events import topic_of

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
CANARY = "maria.keller@example.com"
DAY_US = 86_400_000_000


def described(event: Any, number: int, request_id: str, *, tenant: str = "acme", seconds: float = 0) -> Any:
    event.metadata.event_id = f"{event.DESCRIPTOR.name}-{number}-{request_id}-{tenant}"
    event.metadata.request_id, event.metadata.tenant_id, event.metadata.subject_id = request_id, tenant, "sub_abc"
    event.metadata.occurred_at.FromDatetime(NOON + timedelta(seconds=seconds))
    return event


def completed(
    request_id: str, *, tenant: str = "acme", seconds: float = 0, **fields: Any
) -> gateway_pb2.RequestCompleted:
    fields = {"outcome": gateway_pb2.REQUEST_OUTCOME_COMPLETED, "model": "small", "route": "direct"} | fields
    event = gateway_pb2.RequestCompleted(
        redacted_input=[personal_data_pb2.KindCount(kind="EMAIL_ADDRESS", count=2)],
        usage=usage_pb2.TokenUsage(uncached_input_tokens=10, output_tokens=5),
        redacted_prompt=f"hello {CANARY}",
        encrypted_answer=encrypted_text_pb2.EncryptedText(ciphertext=CANARY.encode()),
        **fields,
    )
    event.latency.FromMilliseconds(750)
    return described(event, 1, request_id, tenant=tenant, seconds=seconds)


def cost(request_id: str, number: int, nano: int, *, tenant: str = "acme", currency: str = "USD") -> Any:
    event = cost_pb2.CostRecorded(
        amount=money_pb2.Money(currency_code=currency, nano_units=nano), charge_kind="inference"
    )
    return described(event, number, request_id, tenant=tenant, seconds=number)


def thumb(request_id: str, number: int, *, retracted: bool = False, feedback_id: str = "f1") -> Any:
    event = feedback_pb2.FeedbackReceived(
        feedback_id=feedback_id, thumb=feedback_types.THUMB_UP, retracted=retracted, tags=[CANARY]
    )
    return described(event, number, request_id, seconds=number)


def whole_story(request_id: str = "r1") -> list[Any]:
    decision = moderation_pb2.ContentModerated()
    decision.verdict.decision_id = "d1"
    generation = inference_pb2.InferenceMeasured(model="small")
    generation.prompt_profile.embedding.extend([0.5] * 64)
    generation.prompt_profile.words = 7
    comment = feedback_pb2.FeedbackReceived(feedback_id="f2", redacted_comment=f"call {CANARY}")
    return [
        completed(request_id),
        described(decision, 1, request_id, seconds=-1),
        described(generation, 1, request_id, seconds=-0.5),
        cost(request_id, 1, 1_000),
        cost(request_id, 2, -400),
        thumb(request_id, 3),
        described(comment, 4, request_id, seconds=4),
    ]


def consumed(messages: Sequence[Message]) -> list[ConsumedEvent]:
    return [
        ConsumedEvent(
            message=message,
            topic=topic_of(type(message)).name,
            partition=0,
            offset=i,
            key=b"",
            headers={},
            event_id=message.metadata.event_id,  # type: ignore[attr-defined]
            timestamp_ms=0,
        )
        for i, message in enumerate(messages)
    ]


class House:
    """A store with its feed and its door."""

    def __init__(self, path: Path, **bounds: int) -> None:
        self.stories = Stories(path, **({"most_requests": 1_000, "keep_us": 30 * DAY_US} | bounds))
        self.feed = StoryFeed(self.stories)
        self.stub: rpc.RequestServiceStub

    async def take(self, *messages: Message) -> None:
        await self.feed.handle(consumed(messages))

    async def ids(self, metadata: Any = (), **conditions: Any) -> list[str]:
        answer = await self.stub.ListRequests(pb.ListRequestsRequest(**conditions), metadata=metadata)
        return [one.request_id for one in answer.requests]

    def marks(self, request_id: str) -> set[str]:
        """What a request is found by, out of the file."""
        database, sql = self.stories._read_from, "SELECT mark FROM marks WHERE request_id = ?"
        rows = self.stories._reader.submit(lambda: database.execute(sql, (request_id,)).fetchall()).result()
        return {mark for (mark,) in rows}
