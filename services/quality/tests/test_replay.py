"""Windows counted again: the same bytes in any interleaving of the topics, and compared with what was published."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.events.v1.gateway_pb2 import REQUEST_OUTCOME_COMPLETED, RequestCompleted
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.types.v1 import feedback_pb2, verdict_pb2
from sluice_kit.events import encode
from sluice_kit.streams import windows_compared
from sluice_kit.streams.windows_compared import Horizons, WindowDifference, newest, write_dump
from sluice_kit.streams.windows_replayed import Report as SkippingReport
from sluice_quality.domain.partition import Rules
from sluice_quality.replay import Recount

BEGAN = 1_790_000_040
PARTITIONS = 2
MINUTE = 60_000_000


def records(count: int) -> list[Any]:
    """Requests twenty seconds apart, each with a verdict and every third with a rating, each topic in its own order."""
    ends: dict[tuple[str, int], int] = {}
    found = []
    for number in range(count):
        for event in events(number):
            event.metadata.occurred_at.FromSeconds(BEGAN + 20 * number)
            event.metadata.event_id = f"{event.DESCRIPTOR.name}-{number}"
            event.metadata.request_id, event.metadata.tenant_id = f"request-{number}", "acme"
            record = encode(event)
            place = record.topic, number % PARTITIONS
            offset = ends.get(place, 0)
            ends[place] = offset + 1
            found.append(
                SimpleNamespace(
                    topic=record.topic, partition=place[1], offset=offset, value=record.value, headers=record.headers,
                    timestamp=(BEGAN + 20 * number) * 1000,
                )
            )  # fmt: skip
    return found


def events(number: int) -> list[Any]:
    completed = RequestCompleted(outcome=REQUEST_OUTCOME_COMPLETED, model="small", output_characters=number)
    completed.latency.FromMilliseconds(100 + number)
    moderated = ContentModerated(direction=verdict_pb2.DIRECTION_INPUT)
    rated = FeedbackReceived(thumb=feedback_pb2.THUMB_UP)
    return [completed, moderated, rated] if number % 3 == 0 else [completed, moderated]


def interleaved(found: Sequence[Any], seed: int) -> list[Any]:
    """Each partition of each topic in its order, all of them mixed by chance."""
    dice, mixed = random.Random(seed), []
    queues: dict[tuple[str, int], list[Any]] = {}
    for record in found:
        queues.setdefault((record.topic, record.partition), []).append(record)
    while queues:
        place = dice.choice(sorted(queues))
        mixed.append(queues[place].pop(0))
        if not queues[place]:
            del queues[place]
    return mixed


def counted(found: Sequence[Any]) -> Recount:
    recount = Recount(Rules())
    for record in found:
        recount.take(record)
    return recount


def dump(windows: dict[str, QualityMeasured]) -> bytes:
    file = io.BytesIO()
    write_dump(windows, file)
    return file.getvalue()


def compared(
    live: dict[str, QualityMeasured], replayed: dict[str, QualityMeasured], **options: Any
) -> WindowDifference:
    ends = {(topic, partition): 10**9 for topic in TOPICS for partition in range(PARTITIONS)}
    horizons = Horizons(**{"ends": ends, "whole_from_us": 0, "open_from_us": 2**62} | options)
    return windows_compared.difference(live, replayed, windows_compared.kinds(live, replayed, horizons))


TOPICS = sorted({record.topic for record in records(1)})


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10**6), st.integers(0, 10**6))
def test_any_interleaving_of_the_topics_gives_the_same_bytes(count: int, one: int, other: int) -> None:
    found = records(count)
    first, second = (counted(interleaved(found, seed)).windows() for seed in (one, other))
    assert dump(first) == dump(second)
    assert sum(window.requests.requests for window in first.values()) == count
    assert compared(first, second).is_none


def test_windows_of_days_ago_are_counted_although_the_processor_would_have_forgotten_them() -> None:
    found = records(600)  # more than three hours, in one go
    windows = counted(sorted(found, key=lambda record: record.topic)).windows()
    assert sum(window.requests.requests for window in windows.values()) == 600
    assert sum(window.feedback.positive for window in windows.values()) == 200


def test_a_withheld_event_makes_its_window_different_and_is_named() -> None:
    found = records(30)
    live = counted(
        [r for r in found if not (r.topic.endswith("request_completed.v1") and r.offset == 4 and r.partition == 1)]
    )
    difference = compared(live.windows(), counted(found).windows())
    assert (difference.different, difference.only_live, difference.only_replayed) == (1, 0, 0)
    (example,) = difference.examples
    assert "requests differ" in example.replace("part, requests", "requests")
    assert "(revision " in example


def test_the_newest_revision_of_a_window_is_what_is_compared() -> None:
    windows = counted(records(30)).windows()
    older = []
    for window in windows.values():
        earlier = QualityMeasured()
        earlier.CopyFrom(window)
        earlier.part.revision -= 1
        earlier.requests.requests = 0
        older.append(earlier)
    assert compared(newest([*windows.values(), *older]), windows).is_none


def test_what_the_range_cannot_tell_is_not_held_against_the_live_windows() -> None:
    windows = counted(records(30)).windows()
    first = min(window.window.start.ToMicroseconds() for window in windows.values())
    of_first = sum(window.window.start.ToMicroseconds() == first for window in windows.values())
    assert compared({}, windows, whole_from_us=first + 1).begun_before == of_first
    assert compared({}, windows, open_from_us=first + MINUTE).still_open == len(windows) - of_first
    assert compared(windows, {}, ends={}).still_open == len(windows)


def test_records_that_cannot_be_read_are_counted() -> None:
    poison = records(1)[0]
    poison.value = b"\xff"
    assert counted([poison]).skipped == {"malformed": 1}


def test_a_report_tells_what_was_skipped_by_reason() -> None:
    report = SkippingReport(into="again", skipped=Counter(UnusableCompletion=2))
    assert json.loads(report.as_json())["skipped"] == {"UnusableCompletion": 2}
