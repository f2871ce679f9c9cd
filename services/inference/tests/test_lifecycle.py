"""Exactly one terminal event, on every path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_inference.domain.lifecycle import Lifecycle, State


@given(st.lists(st.sampled_from(["admitted", "token", "end"]), max_size=30))
def test_the_right_to_end_is_given_exactly_once(steps: list[str]) -> None:
    lifecycle, ends = Lifecycle(), 0
    for step in [*steps, "end", "end"]:
        if step == "end":
            ends += lifecycle.end()
            continue
        before = lifecycle.state
        try:
            getattr(lifecycle, step)()
        except RuntimeError:
            assert lifecycle.state is before
    assert ends == 1
    assert lifecycle.has_ended


def test_a_token_before_admission_is_a_fault() -> None:
    with pytest.raises(RuntimeError, match="queued"):
        Lifecycle().token()


def test_it_remembers_that_tokens_went_out_after_the_end() -> None:
    lifecycle = Lifecycle()
    lifecycle.admitted()
    lifecycle.token()
    lifecycle.token()
    lifecycle.end()
    assert lifecycle.has_streamed
    assert lifecycle.state is State.ENDED
