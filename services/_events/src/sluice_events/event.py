"""An event as it is handed to the loop, and a record that is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar, cast

from google.protobuf.message import Message
from sluice.events.v1.metadata_pb2 import EventMetadata

E = TypeVar("E", bound=Message)

_ATTRIBUTE = "ce_"


@dataclass(frozen=True, slots=True)
class Event(Generic[E]):
    """One fact: the protobuf message and where it stood."""

    data: E
    """The message, such as RequestCompleted."""
    topic: str
    partition: int
    offset: int
    key: bytes
    recorded_at: datetime
    """When the broker had it; `metadata.occurred_at` is when it happened."""
    headers: Mapping[str, bytes] = field(repr=False)

    @property
    def metadata(self) -> EventMetadata:
        """Who, when, which request; the first field of every event."""
        return cast(EventMetadata, self.data.metadata)  # type: ignore[attr-defined]

    @property
    def id(self) -> str:
        """The same whenever the event comes again: be idempotent by it."""
        return self.metadata.event_id

    @property
    def attributes(self) -> dict[str, str]:
        """CloudEvents attributes by their name without prefix: `id`, `source`, `type`, `time`, `dataclassification` ..."""
        return {
            name.removeprefix(_ATTRIBUTE): value.decode(errors="replace")
            for name, value in self.headers.items()
            if name.startswith(_ATTRIBUTE)
        }


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that is no event of its topic."""

    reason: str
    """`no_value`, `wrong_type` (another ce_type or content type), `malformed` or `no_metadata`."""
    topic: str
    partition: int
    offset: int
    key: bytes = field(repr=False)
    value: bytes | None = field(repr=False)
    """As it came. It may hold anything: do not log it."""
    headers: Mapping[str, bytes] = field(repr=False)


class PoisonRecord(Exception):
    """Raised for a record that is no event, unless the reader chose otherwise. It is not committed: it comes again."""

    def __init__(self, record: Poison) -> None:
        place = f"{record.topic}, partition {record.partition}, offset {record.offset}"
        super().__init__(
            f"{place}: {record.reason}. on_poison='skip' passes over such records; a function takes them in hand."
        )
        self.record = record


class TopicMissing(LookupError):
    """The broker has no topic of this event."""
