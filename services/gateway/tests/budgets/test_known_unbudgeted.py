"""Over whom no budget stood is remembered over a restart."""

from pathlib import Path

import pytest
from sluice_gateway.adapters.known_unbudgeted import KnownUnbudgeted
from sluice_gateway.domain.budgets import Caller

CALLER = Caller("acme", "lab", "key", "small", "fake-1")


def test_a_restarted_gateway_knows_who_had_no_budget_until_that_is_too_old(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    KnownUnbudgeted(path, stale_seconds=100, clock=lambda: 1000.0).note(CALLER, unbudgeted=True)
    assert KnownUnbudgeted(path, stale_seconds=100, clock=lambda: 1099.0).is_unbudgeted(CALLER)
    assert not KnownUnbudgeted(path, stale_seconds=100, clock=lambda: 1100.0).is_unbudgeted(CALLER)


def test_who_got_a_budget_is_forgotten_at_once(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    known = KnownUnbudgeted(path, stale_seconds=100)
    known.note(CALLER, unbudgeted=True)
    known.note(CALLER, unbudgeted=False)
    assert not known.is_unbudgeted(CALLER)
    assert not KnownUnbudgeted(path, stale_seconds=100).is_unbudgeted(CALLER)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": "b"}', "null", "\x00"])
def test_a_file_that_cannot_be_read_is_no_knowledge_and_no_reason_not_to_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "known.json"
    path.write_text(text)
    known = KnownUnbudgeted(path, stale_seconds=100)
    assert not known.is_unbudgeted(CALLER)
    known.note(CALLER, unbudgeted=True)
    assert KnownUnbudgeted(path, stale_seconds=100).is_unbudgeted(CALLER)


def test_a_folder_that_cannot_be_written_costs_only_the_memory(tmp_path: Path) -> None:
    known = KnownUnbudgeted(tmp_path / "missing" / "known.json", stale_seconds=100)
    known.note(CALLER, unbudgeted=True)
    assert known.is_unbudgeted(CALLER)
