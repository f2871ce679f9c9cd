"""What a verification found, as values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sluice_kit.completeness import Range, StreamReport


@dataclass(frozen=True)
class StreamFinding:
    """One producer's events on one topic."""

    report: StreamReport
    gaps: tuple[Range, ...]
    """Missing without an explanation."""
    waiting: tuple[Range, ...]
    """Missing, but in the producer's outbox on this machine: not sent yet."""
    refused: tuple[Range, ...]
    """Missing, and put aside in the producer's outbox because Kafka refused them."""
    given_up: tuple[Range, ...]
    """Missing, and the producer has said so (EventsLost): dropped knowingly."""
    sent_again: int
    """Records that repeat an event under its own number (harmless: consumers know it by its id)."""
    published_again: int
    """Events that stand there under more than one number (harmless for the same reason)."""
    number_twice: int
    """Numbers that two different events carry: the producer's counting is broken."""

    @property
    def is_sound(self) -> bool:
        """Nothing is missing and no number was given out twice."""
        return not self.gaps and not self.number_twice


@dataclass(frozen=True)
class TopicFinding:
    """What a topic holds."""

    topic: str
    records: int
    streams: tuple[StreamFinding, ...]
    deleted_heads: tuple[tuple[int, int], ...] = ()
    """Partitions whose first records retention has deleted, and the offset at which they begin."""
    compacted: bool = False
    removed: int = 0
    """Offsets without a record: deleted by retention or compaction."""
    lost_at_least: int = 0
    """Numbers that are missing beyond what was removed: lost, though it cannot be told which."""
    undecodable: tuple[tuple[str, int, tuple[tuple[int, int], ...]], ...] = ()
    """Reason, how many, and the first places (partition, offset)."""
    unnumbered: int = 0
    """Events that carry no producer_sequence: of them nothing can be proved."""

    @property
    def is_sound(self) -> bool:
        """Nothing is missing."""
        return not self.lost_at_least and all(stream.is_sound for stream in self.streams)


@dataclass(frozen=True)
class Verification:
    """What `sluice events verify` found."""

    topics: tuple[TopicFinding, ...]
    arrived_late: int = 0
    """Events that were on their way when the reading began."""
    checks: tuple["CrossCheck", ...] = field(default=())

    @property
    def is_sound(self) -> bool:
        """True when nothing is missing anywhere."""
        return all(topic.is_sound for topic in self.topics) and all(check.is_sound for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sound": self.is_sound,
            "arrived_late": self.arrived_late,
            "topics": [_topic(topic) for topic in self.topics],
            "checks": [asdict(check) | {"sound": check.is_sound} for check in self.checks],
        }


@dataclass(frozen=True)
class CrossCheck:
    """Two sets of ids that must be the same."""

    name: str
    left: str
    left_count: int
    right: str
    right_count: int
    only_left: int = 0
    only_right: int = 0
    examples_left: tuple[str, ...] = ()
    examples_right: tuple[str, ...] = ()
    note: str = ""

    @property
    def is_sound(self) -> bool:
        """Nothing on one side alone."""
        return not self.only_left and not self.only_right and self.left_count == self.right_count


def ranges(found: Sequence[Range], most: int = 8) -> str:
    """`3, 7-9`; the rest counted."""
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found[:most])
    return shown + (f" and {len(found) - most} ranges more" if len(found) > most else "")


def moment(microseconds: int) -> str:
    """UTC to the millisecond; empty for 0."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="milliseconds") if microseconds else ""


def _topic(topic: TopicFinding) -> dict[str, Any]:
    told = asdict(topic) | {"sound": topic.is_sound}
    told["undecodable"] = [
        {"reason": reason, "count": count, "first": [{"partition": p, "offset": o} for p, o in places]}
        for reason, count, places in topic.undecodable
    ]
    told["deleted_heads"] = [{"partition": p, "begins_at_offset": o} for p, o in topic.deleted_heads]
    told["streams"] = [_stream(stream) for stream in topic.streams]
    return told


def _stream(stream: StreamFinding) -> dict[str, Any]:
    told = asdict(stream)
    report = told.pop("report")
    for name in ("topic", "gaps"):
        report.pop(name)
    report["complete_up_to_time"] = moment(report.pop("complete_up_to_us"))
    return report | told | {"sound": stream.is_sound}
