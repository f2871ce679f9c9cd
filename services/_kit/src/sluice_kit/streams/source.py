"""What a stream processor sees of its runner: events, their place in the log, a table, a topic to send to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol


class Place(Protocol):
    """A partition of a topic; Faust's TP and aiokafka's TopicPartition fit."""

    @property
    def topic(self) -> str:
        """Name of the topic."""

    @property
    def partition(self) -> int:
        """Number of the partition."""


class SourceMessage(Protocol):
    """A record of the log."""

    @property
    def tp(self) -> Any:
        """Its place."""

    @property
    def topic(self) -> str:
        """Name of its topic."""

    @property
    def partition(self) -> int:
        """Number of its partition."""

    @property
    def offset(self) -> int:
        """Where it stands."""

    @property
    def timestamp(self) -> float:
        """Kafka's, in seconds."""

    @property
    def key(self) -> Any:
        """Bytes, or none."""

    @property
    def value(self) -> Any:
        """Bytes, or none."""

    @property
    def headers(self) -> Any:
        """A mapping, or pairs; none where there are none."""


class SourceEvent(Protocol):
    """An event as a runner hands it over."""

    @property
    def message(self) -> Any:
        """Its record: a SourceMessage. (Faust's own types allow more than it ever gives.)"""


Handle = Callable[[Sequence[Any]], Awaitable[None]]
"""Takes a batch of SourceEvents of one topic; when it returns, the batch may be acknowledged."""


class Table(Protocol):
    """Keys and values with a changelog on Kafka."""

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """What is stored of the partitions that this worker has."""

    async def apply(self, changes: Mapping[bytes, bytes | None], *, event: Any) -> None:
        """Store changes in the partition of the event; None deletes. Returns when the changelog has them."""


class Sender(Protocol):
    """A topic to send to."""

    async def send(
        self, *, key: bytes | None = None, value: bytes | None = None, headers: Any = None
    ) -> Awaitable[Any]:
        """Hand a record over; what comes back is done when the broker has it."""
