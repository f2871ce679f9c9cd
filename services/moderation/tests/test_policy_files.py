"""Policies as files: what ships is valid, and every mistake is told with its line."""

from pathlib import Path

import pytest
from sluice_moderation.adapters.policy_files import SHIPPED, PolicyMistake, load_policies, read_policy
from sluice_moderation.domain.policy import Action, Direction

GOOD = """policy: strict
version: 2
description: Blocks early.
fail_closed: true
rules:
  input:
    toxicity: {flag: 0.3, block: 0.6}
"""


def written(folder: Path, text: str, name: str = "p.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_policy_is_valid_and_fails_closed() -> None:
    policy = load_policies(SHIPPED)["general"]
    assert policy.version == 1
    assert policy.fail_closed
    assert "prompt_injection" in policy.categories(Direction.INPUT)


def test_a_policy_is_read(tmp_path: Path) -> None:
    policy = read_policy(written(tmp_path, GOOD))
    assert [(r.threshold, r.action) for r in policy.rules_for(Direction.INPUT, "toxicity")] == [
        (0.3, Action.FLAG),
        (0.6, Action.BLOCK),
    ]
    assert policy.categories(Direction.OUTPUT) == ()


def test_a_policy_of_ones_own_replaces_a_shipped_one(tmp_path: Path) -> None:
    written(tmp_path, GOOD.replace("strict", "general"))
    assert load_policies(SHIPPED, tmp_path)["general"].version == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("toxicity: {", "toxicty: {", "line 7: toxicty: unknown category"),
        ("block: 0.6", "block: 1.6", "line 7: block: must be a number above 0"),
        ("block: 0.6", "block: high", "line 7: block: must be a number"),
        ("flag: 0.3", "flag: 0.7", "line 7: toxicity: flag must be lower than block"),
        ("flag: 0.3", "warn: 0.3", "line 7: warn: must be flag or block"),
        ("input:", "inward:", "line 6: inward: must be input or output"),
        ("version: 2", "version: two", "line 2: version: must be a whole number"),
        ("version: 2", "versoin: 2", "line 2: versoin: unknown field"),
        ("version: 2\n", "", "line 1: version is missing"),
        ("fail_closed: true", "fail_closed: maybe", "line 4: fail_closed: must be true or false"),
        ("version: 2", "version: 2\nversion: 3", "line 3: version stands here a second time"),
        ("rules:", "rules: [", "not YAML"),
        (GOOD, "", "line 1: a policy is a mapping"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(PolicyMistake, match=r"p\.yaml") as mistake:
        read_policy(path)
    assert message in str(mistake.value)


def test_two_files_with_one_policy_are_refused(tmp_path: Path) -> None:
    written(tmp_path, GOOD), written(tmp_path, GOOD, "q.yaml")
    with pytest.raises(PolicyMistake, match="also stands in"):
        load_policies(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyMistake, match="is no folder"):
        load_policies(SHIPPED, tmp_path / "nowhere")
