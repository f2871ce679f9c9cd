"""A dead letter tells why and where, and gives back the record it was."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_kit.dead_letters import (
    RESERVED,
    DeadLetter,
    Failure,
    NotADeadLetter,
    OriginalRecord,
    dead_letter,
    read_dead_letter,
)


@dataclass
class Record:
    topic: str = "sluice.gateway.request_completed.v1"
    partition: int = 3
    offset: int = 41
    timestamp: int = 1_750_000_000_123
    key: bytes | None = b"r-1"
    value: bytes | None = b"\xff\xfe"
    headers: list[tuple[str, bytes]] = field(default_factory=lambda: [("ce_id", b"e-1"), ("x", b""), ("x", b"\xff")])


FAILED = Failure("handler_failed:ValueError", "sluice-cost", 8, datetime(2026, 11, 26, 4, 0, 0, 123_000, tzinfo=UTC))


def on_its_topic(letter: OriginalRecord) -> Record:
    return Record(letter.topic, 0, 7, 1_750_000_009_999, letter.key, letter.value, letter.headers)


def test_a_letter_tells_where_its_record_stood_and_why_it_is_here():
    letter = read_dead_letter(on_its_topic(dead_letter(Record(), FAILED)))
    assert letter == DeadLetter(
        source_topic="sluice.gateway.request_completed.v1",
        source_partition=3,
        source_offset=41,
        source_timestamp_ms=1_750_000_000_123,
        reason="handler_failed:ValueError",
        group="sluice-cost",
        attempts=8,
        first_failed_at=FAILED.first_failed_at,
        original=OriginalRecord(Record().topic, b"r-1", b"\xff\xfe", Record().headers),
        value_omitted=False,
        partition=0,
        offset=7,
    )


@given(
    st.one_of(st.none(), st.binary(max_size=50)),
    st.one_of(st.none(), st.binary(max_size=50)),
    st.lists(st.tuples(st.text(max_size=10).filter(lambda name: name not in RESERVED), st.binary(max_size=20))),
)
def test_any_record_comes_back_as_it_was_however_often_it_is_given_up(key, value, headers):
    record = Record(key=key, value=value, headers=headers)
    for _ in range(2):
        letter = read_dead_letter(on_its_topic(dead_letter(record, FAILED)))
        assert letter.original == OriginalRecord(record.topic, key, value, headers)
        # The careless replay: with the letter's own headers still on.
        record.headers = dead_letter(record, FAILED).headers
    assert [name for name, _ in dead_letter(record, FAILED).headers if name in RESERVED].count("sluice_group") == 1


def test_a_letter_of_an_older_release_is_read_too():
    old = {
        "sluice_error_reason": b"malformed",
        "sluice_source_topic": b"t",
        "sluice_source_partition": b"1",
        "sluice_source_offset": b"2",
        "sluice_group": b"g",
    }
    letter = read_dead_letter(Record(topic="t.dlq", headers=[("ce_id", b"e"), *old.items()]))
    assert (letter.reason, letter.source_offset, letter.attempts, letter.first_failed_at) == (
        "malformed",
        2,
        None,
        None,
    )
    assert letter.original.headers == [("ce_id", b"e")]


def test_a_letter_without_the_value_says_so_and_where_the_record_stands():
    letter = read_dead_letter(on_its_topic(dead_letter(Record(), FAILED).without_value()))
    assert (letter.value_omitted, letter.original.value, letter.source_partition, letter.source_offset) == (
        True,
        None,
        3,
        41,
    )
    assert letter.original.headers == [("ce_id", b"e-1")]


def test_a_record_that_is_no_letter_is_refused_by_name():
    with pytest.raises(NotADeadLetter, match="without sluice_error_reason, sluice_source_offset"):
        read_dead_letter(Record(headers=[("ce_id", b"e-1")]))
    broken = [
        (name, b"seven" if name == "sluice_source_offset" else value)
        for name, value in dead_letter(Record(), FAILED).headers
    ]
    with pytest.raises(NotADeadLetter, match="cannot be read"):
        read_dead_letter(Record(headers=broken))
