"""Remembering ids, boundedly."""

import pytest
from sluice_events import SeenIds


def test_an_id_is_new_once():
    seen = SeenIds()
    assert [seen.is_new(i) for i in ("a", "b", "a", "b", "c")] == [True, True, False, False, True]


def test_memory_is_bounded_and_the_longest_unseen_is_forgotten_first():
    seen = SeenIds(capacity=2)
    assert [seen.is_new(i) for i in ("a", "b", "a", "c")] == [True, True, False, True]  # b makes room
    assert len(seen) == 2
    assert [seen.is_new(i) for i in ("a", "b")] == [False, True]


def test_an_id_whose_work_failed_may_be_made_new_again():
    seen = SeenIds()
    seen.is_new("a")
    seen.forget("a")
    assert seen.is_new("a")


def test_a_memory_of_nothing_is_refused():
    with pytest.raises(ValueError, match="capacity is 0; it must be 1 or more"):
        SeenIds(0)
