"""Shows a verification to a person."""

import json

from rich.console import Console
from rich.table import Table

from sluice_cli.proof.findings import CrossCheck, StreamFinding, TopicFinding, Verification, moment, ranges


def show(found: Verification, console: Console, *, as_json: bool) -> None:
    """A table of streams, then a sentence for everything that is not as it should be."""
    if as_json:
        console.out(json.dumps(found.as_dict(), indent=2, ensure_ascii=False), highlight=False)
        return
    if any(topic.streams for topic in found.topics):
        console.print(_table(found))
    for topic in found.topics:
        _tell_topic(topic, console)
    if found.arrived_late:
        _line(console, f"{found.arrived_late} events were on their way when the reading began, and arrived.")
    for check in found.checks:
        _tell_check(check, console)
    events = sum(topic.records for topic in found.topics)
    told = "nothing is missing" if found.is_sound else "NOT COMPLETE"
    _line(console, f"{events} records on {len(found.topics)} topics: {told}.")


def _table(found: Verification) -> Table:
    table = Table(
        "topic", "producer", "events", "first", "last", "complete up to", "missing", "twice", "order", box=None
    )
    for topic in found.topics:
        for stream in topic.streams:
            report = stream.report
            table.add_row(
                _short(topic.topic),
                report.producer.removeprefix("sluice-"),
                str(report.records),
                str(report.first),
                str(report.last),
                f"{report.complete_up_to} {moment(report.complete_up_to_us)[11:23]}",
                ranges(stream.gaps, 3) or "-",
                str(stream.sent_again + stream.published_again + stream.number_twice + report.replayed) or "-",
                str(report.reordered),
            )
    return table


def _tell_topic(topic: TopicFinding, console: Console) -> None:
    name = _short(topic.topic)
    if topic.deleted_heads:
        begins = ", ".join(f"partition {p} at offset {offset}" for p, offset in topic.deleted_heads)
        _line(console, f"{name} begins later, because retention has deleted what was before: {begins}.")
    for reason, count, places in topic.undecodable:
        where = ", ".join(f"{p}/{offset}" for p, offset in places)
        _line(console, f"{name}: {count} undecodable records ({reason}), at partition/offset {where}.")
    if topic.unnumbered:
        _line(console, f"{name}: {topic.unnumbered} events carry no number; of them nothing can be proved.")
    if topic.lost_at_least:
        _line(console, f"{name}: {topic.lost_at_least} more numbers are missing than records were deleted: LOST.")
    for stream in topic.streams:
        for sentence in _sentences(stream, compacted=topic.compacted):
            _line(console, f"{name} of {stream.report.producer}: {sentence}")


def _sentences(stream: StreamFinding, *, compacted: bool) -> list[str]:
    report = stream.report
    because = "compaction keeps the newest of a key" if compacted else "retention has deleted the head"
    told = {
        f"MISSING {ranges(stream.gaps)}.": stream.gaps,
        f"{stream.number_twice} numbers were given to two events: the producer's counting is BROKEN.": stream.number_twice,
        f"begins at {report.begins_at}: of what is missing before, {ranges(report.unprovable)}, nothing can be said ({because}).": (
            report.unprovable
        ),
        f"{ranges(stream.waiting)} wait in the outbox to be sent.": stream.waiting,
        f"{ranges(stream.refused)} were refused by Kafka and put aside in the outbox.": stream.refused,
        f"{ranges(stream.given_up)} were dropped knowingly: the producer has told so (EventsLost).": stream.given_up,
        f"{stream.sent_again} records repeat an event under its number (sent again).": stream.sent_again,
        f"{stream.published_again} events stand there under another number, too (published again).": stream.published_again,
        f"{report.replayed} were put back from dead letters.": report.replayed,
        f"{report.reordered} stand behind a higher number.": report.reordered,
    }
    return [sentence for sentence, holds in told.items() if holds]


def _tell_check(check: CrossCheck, console: Console) -> None:
    sign = "=" if check.is_sound else "≠"
    note = f" ({check.note})" if check.note else ""
    _line(console, f"{check.left_count} {check.left} {sign} {check.right_count} {check.right}{note}")
    for side, count, examples in (
        (check.left, check.only_left, check.examples_left),
        (check.right, check.only_right, check.examples_right),
    ):
        if count:
            _line(console, f"  only in {side}, {count}: {', '.join(examples)}")


def _short(topic: str) -> str:
    return topic.removeprefix("sluice.")


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
