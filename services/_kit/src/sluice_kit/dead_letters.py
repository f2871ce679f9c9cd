"""Dead letters: records a consumer gave up, on `<topic>.dlq`, with what it takes to understand them and to send them again."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from sluice_kit.events import DEAD_LETTER_SUFFIX, Headers

REASON = "sluice_error_reason"
SOURCE_TOPIC = "sluice_source_topic"
SOURCE_PARTITION = "sluice_source_partition"
SOURCE_OFFSET = "sluice_source_offset"
SOURCE_TIMESTAMP = "sluice_source_timestamp_ms"
GROUP = "sluice_group"
ATTEMPTS = "sluice_attempts"
FIRST_FAILED_AT = "sluice_first_failed_at"
VALUE_OMITTED = "sluice_value_omitted"
RESERVED = frozenset(
    {
        REASON,
        SOURCE_TOPIC,
        SOURCE_PARTITION,
        SOURCE_OFFSET,
        SOURCE_TIMESTAMP,
        GROUP,
        ATTEMPTS,
        FIRST_FAILED_AT,
        VALUE_OMITTED,
    }
)
"""Header names that only a dead letter has; taken off again when the record is rebuilt."""


class Record(Protocol):
    """What is used of a Kafka record; aiokafka's ConsumerRecord fits."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None

    @property
    def headers(self) -> Iterable[tuple[str, bytes]]:
        """Names and values, in order; a name may come twice."""


@dataclass(frozen=True)
class Failure:
    """Why a consumer gave a record up."""

    reason: str
    """A short code, such as `malformed` or `handler_failed:ValueError`; never text of the record or of the exception."""
    group: str
    attempts: int
    """How often a handler was tried with it; 0 for a record that could not be read."""
    first_failed_at: datetime
    """When it failed first, UTC."""


@dataclass(frozen=True)
class OriginalRecord:
    """The record as it stood on its topic, to be sent there again."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers

    def without_value(self) -> "OriginalRecord":
        """Without what is large in it, and a header that says so: the record itself still stands at its source offset."""
        told = [(name, value) for name, value in self.headers if name in RESERVED or name.startswith("ce_")]
        return OriginalRecord(
            self.topic, self.key, None, [*told, (VALUE_OMITTED, str(len(self.value or b"")).encode())]
        )


@dataclass(frozen=True)
class DeadLetter:
    """A record of a dead-letter topic, read."""

    source_topic: str
    source_partition: int
    source_offset: int
    source_timestamp_ms: int | None
    """Timestamp of the original record; None in letters of before 0.2."""
    reason: str
    group: str
    attempts: int | None
    """None in letters of before 0.2."""
    first_failed_at: datetime | None
    """None in letters of before 0.2."""
    original: OriginalRecord
    value_omitted: bool
    """True when the record did not fit a letter: `original` lacks value and headers; read it at its source offset."""
    partition: int
    """Where the letter itself stands on `<source_topic>.dlq`."""
    offset: int


class NotADeadLetter(ValueError):
    """A record of a dead-letter topic that lacks what a letter must tell; the message names the headers."""


def dead_letter(record: Record, failure: Failure) -> OriginalRecord:
    """The record for `<topic>.dlq`: key, value and headers as they came, and after them the failure's."""
    told = {
        REASON: failure.reason,
        SOURCE_TOPIC: record.topic,
        SOURCE_PARTITION: str(record.partition),
        SOURCE_OFFSET: str(record.offset),
        SOURCE_TIMESTAMP: str(record.timestamp),
        GROUP: failure.group,
        ATTEMPTS: str(failure.attempts),
        FIRST_FAILED_AT: failure.first_failed_at.astimezone(UTC).isoformat(timespec="milliseconds"),
    }
    # A replayer that left our headers on must not make the next letter tell two stories.
    kept = _without_reserved(record.headers)
    headers = [*kept, *((name, value.encode()) for name, value in told.items())]
    return OriginalRecord(record.topic + DEAD_LETTER_SUFFIX, record.key, record.value, headers)


def read_dead_letter(record: Record) -> DeadLetter:
    """What a record of a `.dlq` topic tells, and the record it was. Raises NotADeadLetter."""
    told = {name: value.decode(errors="replace") for name, value in record.headers if name in RESERVED}
    missing = sorted({REASON, SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET} - told.keys())
    if missing:
        raise NotADeadLetter(
            f"{record.topic}/{record.partition}/{record.offset} is no dead letter: without {', '.join(missing)}"
        )
    try:
        return DeadLetter(
            source_topic=told[SOURCE_TOPIC],
            source_partition=int(told[SOURCE_PARTITION]),
            source_offset=int(told[SOURCE_OFFSET]),
            source_timestamp_ms=int(told[SOURCE_TIMESTAMP]) if SOURCE_TIMESTAMP in told else None,
            reason=told[REASON],
            group=told.get(GROUP, ""),
            attempts=int(told[ATTEMPTS]) if ATTEMPTS in told else None,
            first_failed_at=datetime.fromisoformat(told[FIRST_FAILED_AT]) if FIRST_FAILED_AT in told else None,
            original=OriginalRecord(told[SOURCE_TOPIC], record.key, record.value, _without_reserved(record.headers)),
            value_omitted=VALUE_OMITTED in told,
            partition=record.partition,
            offset=record.offset,
        )
    except ValueError:
        numbers = ", ".join((SOURCE_PARTITION, SOURCE_OFFSET, SOURCE_TIMESTAMP, ATTEMPTS, FIRST_FAILED_AT))
        raise NotADeadLetter(
            f"{record.topic}/{record.partition}/{record.offset} is no dead letter: one of {numbers} cannot be read"
        ) from None


def _without_reserved(headers: Iterable[tuple[str, bytes]]) -> Headers:
    return [(name, value) for name, value in headers if name not in RESERVED]
