"""Decoding many events at once gives the facts of decoding them one by one, whatever stands in them."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.events import UndecodableEvent, encode, topic_of
from sluice_kit.streams.dead_letters import read
from sluice_quality.adapters import batches
from sluice_quality.adapters.batches import WORTH_IT, together
from sluice_quality.adapters.columns import facts_of
from sluice_quality.adapters.events import fact_of
from sluice_quality.domain.columns import CompletionColumns
from structlog.testing import capture_logs

TOPIC = topic_of(RequestCompleted).name
NOW = 1_760_000_000

seconds = st.one_of(st.integers(0, 100), st.integers(NOW - 400, NOW + 400), st.integers(-(2**63), 2**63 - 1))
nanos = st.one_of(st.integers(0, 999_999_999), st.integers(-(2**31), 2**31 - 1))
counts = st.one_of(st.integers(0, 300), st.integers(10**9 - 2, 10**9 + 2), st.integers(0, 2**64 - 1))
small = st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1))
names = st.sampled_from(["", "a", "b", "ä|ß", "x" * 300])
maybe = st.one_of(st.none(), st.booleans())


@st.composite
def completions(draw: st.DrawFn) -> RequestCompleted:
    event = RequestCompleted(
        outcome=draw(st.one_of(st.integers(0, 9), st.integers(-(2**31), 2**31 - 1))),  # type: ignore[arg-type]
        finish_reason=draw(st.integers(-1, 12)),  # type: ignore[arg-type]
        model=draw(names),
        route=draw(names),
        prompt_version=draw(names),
        experiment_arm=draw(names),
        output_characters=draw(small),
        streamed=draw(st.booleans()),
        refusal=draw(maybe),
        empty_answer=draw(maybe),
        language_mismatch=draw(maybe),
        repetition_permille=draw(st.one_of(st.none(), small)),
        context_sentences=draw(small),
        grounded_sentences=draw(small),
    )
    if draw(st.integers(0, 9)):
        event.metadata.event_id = draw(st.sampled_from(["e", "", "f"]))
        event.metadata.request_id, event.metadata.tenant_id = draw(names), draw(names)
        event.metadata.project_id, event.metadata.synthetic = draw(names), not draw(st.integers(0, 9))
        if draw(st.booleans()):
            event.metadata.occurred_at.CopyFrom(Timestamp(seconds=draw(seconds), nanos=draw(nanos)))
    for name in ("latency", "time_to_first_token", "generation_time"):
        if draw(st.booleans()):
            getattr(event, name).CopyFrom(Duration(seconds=draw(seconds), nanos=draw(nanos)))
    if draw(st.booleans()):
        for name in event.usage.DESCRIPTOR.fields_by_name:
            if name != "estimated" and draw(st.booleans()):
                setattr(event.usage, name, draw(counts))
    for kinds in (event.redacted_input, event.redacted_output):
        for count in draw(st.lists(small, max_size=3)):
            kinds.add(kind="EMAIL_ADDRESS", count=count)
    return event


def record(value: bytes | None, offset: int, headers: Any = ()) -> Any:
    return SimpleNamespace(
        message=SimpleNamespace(
            topic=TOPIC, partition=0, offset=offset, timestamp=NOW + 0.123, value=value, headers=headers, key=None
        )
    )


def one_by_one(events: list[Any]) -> list[Any]:
    """Facts, or why there is none."""
    found: list[Any] = []
    for event in events:
        try:
            record_time = round(event.message.timestamp * 1_000_000)
            found.append(fact_of(read(event), offset=event.message.offset, record_time=record_time))
        except UndecodableEvent as error:
            found.append(error.reason)
    return found


def same(events: list[Any]) -> int:
    """How many were decoded together; all of them as one by one."""
    found, alone = facts_of(events)
    expected = one_by_one(events)
    for place, fact in enumerate(found):
        if place not in alone:
            assert fact == expected[place]
            assert repr(fact) == repr(
                expected[place]
            )  # 1 and True, 1 and numpy's 1 are equal, and are stored as different things
    return len(events) - len(alone)


HEADERS = [("content-type", b"application/protobuf"), ("ce_type", TOPIC.encode())]


def test_events_without_headers_and_with_those_of_a_mapping_are_decoded_together() -> None:
    good = RequestCompleted()
    good.metadata.event_id = "e"
    value = good.SerializeToString()
    assert same([record(value, 0, None), record(value, 1, dict(HEADERS)), record(value, 2, HEADERS)]) == 3


@given(st.lists(completions(), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_all_events_decoded_together_are_as_one_by_one(events: list[RequestCompleted]) -> None:
    same([record(event.SerializeToString(), offset, HEADERS) for offset, event in enumerate(events)])


@given(st.lists(completions(), min_size=2, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_bytes_that_are_damaged_or_repeated_are_as_one_by_one(
    events: list[RequestCompleted], data: st.DataObject
) -> None:
    values = [event.SerializeToString() for event in events]
    values.append(values[0] + values[1])  # protobuf merges what stands twice
    damaged = bytearray(data.draw(st.sampled_from(values)))
    if damaged:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    same([record(value, offset, HEADERS) for offset, value in enumerate([*values, bytes(damaged)])])


def test_events_of_the_mesh_are_decoded_together() -> None:
    rng = random.Random(5)
    events = []
    for number in range(WORTH_IT):
        event = RequestCompleted(model=f"m{number % 3}", outcome=1)  # type: ignore[arg-type]
        event.metadata.event_id = event.metadata.request_id = f"r{number}"
        event.metadata.occurred_at.FromSeconds(NOW - rng.randrange(100))
        event.latency.FromMicroseconds(rng.randrange(10**6))
        encoded = encode(event)
        events.append(record(encoded.value, number, encoded.headers))
    assert same(events) == WORTH_IT
    columns = together(events)
    assert isinstance(columns, CompletionColumns)
    assert (columns.completions(), []) == facts_of(events)


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (None, HEADERS),
        (b"", HEADERS),
        (b"\0\0\0\0\1\0\x0a\x03\x0a\x01a", HEADERS),
        (b"\xff\xff", HEADERS),
        (b"\x0a\x03\x0a\x01a", [("ce_type", b"another")]),
        (b"\x0a\x03\x0a\x01a", [("content-type", b"text/plain")]),
    ],
)
def test_what_is_no_plain_event_is_read_one_by_one(value: bytes | None, headers: Any) -> None:
    good = RequestCompleted()
    good.metadata.event_id = "e"
    events = [record(good.SerializeToString(), 0, HEADERS), record(value, 1, headers)]
    found, alone = facts_of(events)
    assert 1 in alone
    assert found[1] is None
    assert value == b"\xff\xff" or found[0] is not None


def test_few_events_are_read_one_by_one() -> None:
    good = RequestCompleted()
    good.metadata.event_id = "e"
    assert together([record(good.SerializeToString(), 0, HEADERS)]) == ([None], [0])


NO_PANDAS = """
import sys
from types import SimpleNamespace
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_quality.adapters.columns import read_together

events = []
for number in range(5):
    event = RequestCompleted(refusal=True, repetition_permille=3) if number % 2 else RequestCompleted(model="m")
    event.metadata.event_id = event.metadata.request_id = "e"
    event.metadata.synthetic = number == 4
    event.usage.output_tokens = number
    event.redacted_input.add(kind="EMAIL_ADDRESS", count=number)
    message = SimpleNamespace(topic="t", offset=number, timestamp=1.0, value=event.SerializeToString(), headers=())
    events.append(SimpleNamespace(message=message))
read_together(events).completions()
sys.exit("pandas" in sys.modules)
"""


def test_pandas_is_not_imported_for_what_needs_none() -> None:
    """Arrow imports it, where it is installed, for most ways to numpy and back."""
    subprocess.run([sys.executable, "-c", NO_PANDAS], check=True, timeout=60)


@pytest.fixture
def columns_to_be_looked_for() -> Iterator[None]:
    batches._columns.cache_clear()
    yield
    batches._columns.cache_clear()


@pytest.mark.usefixtures("columns_to_be_looked_for")
@pytest.mark.parametrize(("is_there", "told"), [(True, ("info", "columns.on")), (False, ("warning", "columns.off"))])
def test_whether_events_are_decoded_together_is_logged_once(
    is_there: bool, told: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_there:
        monkeypatch.setitem(sys.modules, "sluice_quality.adapters.columns", None)
    good = RequestCompleted()
    good.metadata.event_id = "e"
    events = [record(good.SerializeToString(), number, HEADERS) for number in range(WORTH_IT)]
    with capture_logs() as logs:
        found = [together(events) for _ in range(3)]
    assert [(line["log_level"], line["event"]) for line in logs] == [told]
    assert "reason" in logs[0] or is_there
    alone = [0 if isinstance(each, CompletionColumns) else len(each[1]) for each in found]
    assert alone == [0 if is_there else WORTH_IT] * 3
