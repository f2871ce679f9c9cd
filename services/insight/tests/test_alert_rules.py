"""Rules in files against how long minutes are kept."""

from __future__ import annotations

from pathlib import Path
from string import Template

import pytest
from sluice_insight.adapters.alerting.rule_files import SHIPPED, read_rules
from sluice_insight.domain.alerting.rules import Absence, Rule
from sluice_insight.domain.board import MINUTE
from sluice_insight.main import _alert_files
from sluice_insight.settings import InsightSettings
from sluice_kit.configuration import ConfigurationRefused, source_files
from sluice_kit.process import StartFailed

HEAD = "rules:\n  - rule: far\n    severity: info\n    summary: x\n    metric: quality.failed_ratio\n"
NEEDED = {
    "    window: 3h\n    threshold: {above: 1}\n": 3,
    "    window: 1h\n    change: {earlier: 1d, rises_by: 0.1}\n": 25,
    "    window: 5h\n    change: {earlier: 1h, baseline: 1h, rises_by: 0.1}\n": 5,
    "    burn_rate: {objective: 0.99, pairs: [{long: 1h, short: 5m, factor: 14}, {long: 3d, short: 6h, factor: 1}]}\n": 72,
    "    window: 10m\n    absence: {lookback: 2h}\n": 3,
    "    window: 45m\n    threshold: {above: 1}\n": 1,
}


@pytest.mark.parametrize(("condition", "needed"), NEEDED.items(), ids=map(str, NEEDED.values()))
def test_a_rule_that_looks_back_farther_than_minutes_are_kept_is_refused(
    tmp_path: Path, condition: str, needed: int
) -> None:
    (tmp_path / "far.yaml").write_text(HEAD + condition)
    [rule] = read_rules(source_files(tmp_path), kept_hours=needed)
    assert rule.name == "far"
    with pytest.raises(ConfigurationRefused) as caught:
        read_rules(source_files(tmp_path), kept_hours=needed - 1)
    said = f"far.yaml:2: rule far looks back {needed} hours, and SLUICE_INSIGHT_HISTORY_HOURS={needed - 1} keeps fewer"
    assert said in str(caught.value)


def test_rules_that_look_at_no_minutes_look_back_as_far_as_they_like(tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text(
        "rules:\n  - {rule: far, severity: info, summary: x, window: 2d, dead_letters: {above: 0}}\n"
        "  - {rule: still, severity: info, summary: x, window: 2d, standstill: {groups: [acme-reader]}}\n"
    )
    assert len(read_rules(source_files(tmp_path), kept_hours=1)) == 2


@pytest.mark.parametrize("groups", ["[]", "['not a group']", "acme"])
def test_a_standstill_names_its_groups(tmp_path: Path, groups: str) -> None:
    (tmp_path / "still.yaml").write_text(HEAD + f"    standstill: {{groups: {groups}}}\n")
    with pytest.raises(ConfigurationRefused, match=r"still\.yaml:\d+: .*groups"):
        read_rules(source_files(tmp_path))


def test_a_start_with_fewer_hours_than_the_rules_need_says_which_and_how_many(tmp_path: Path) -> None:
    with pytest.raises(
        StartFailed, match=r"probe\.absent looks back 7 hours, and SLUICE_INSIGHT_HISTORY_HOURS=2 keeps"
    ):
        _alert_files(InsightSettings(history_hours=2))
    rules, _ = _alert_files(InsightSettings(history_hours=7))
    assert {rule.name for rule in rules.current} == {rule.name for rule in read_rules(source_files(SHIPPED))}
    # One of ours in the place of each shipped one that looks back too far.
    (tmp_path / "own.yaml").write_text(
        HEAD.replace("far", "quality.failing") + "    window: 1h\n    threshold: {above: 0.1}\n"
        "  - {rule: probe.absent, severity: info, summary: x, metric: probe.rounds, window: 10m, absence: {lookback: 1h}}\n"
    )
    rules, _ = _alert_files(InsightSettings(history_hours=2, alert_rules=tmp_path))
    assert len(rules.current) == len(read_rules(source_files(SHIPPED)))


SAID = {"value": "1", "count": "1", "ratio": "0.5", "reference": "none", "attribute": "input_terms", "group": "age"}


@pytest.mark.parametrize("rule", read_rules(source_files(SHIPPED)), ids=lambda rule: rule.name)
def test_no_shipped_summary_shows_a_variable_where_a_label_is_missing_or_empty(rule: Rule) -> None:
    labels = [name for name in Template(rule.summary).get_identifiers() if name not in SAID]
    for missing in (SAID, SAID | dict.fromkeys(labels, "")):
        said = rule.say(missing, 0.5)
        assert "$" not in said
        assert "(none)" not in said


def test_the_series_of_all_tenants_is_said_to_be_of_all_tenants() -> None:
    [drifted] = [rule for rule in read_rules(source_files(SHIPPED)) if rule.name == "drift.drifted"]
    said = "Requests of all tenants to small are unlike those of the reference."
    assert drifted.say({"model": "small"}, 1.0) == drifted.say({"model": "small", "tenant_id": ""}, 1.0) == said


@pytest.mark.parametrize(
    ("attribute", "group", "reference"), [("input_terms", "religion", "none"), ("input_cohort.plan", "free", "others")]
)
def test_what_is_said_of_an_unequal_rate_is_true_of_terms_and_of_cohorts(
    attribute: str, group: str, reference: str
) -> None:
    [unequal] = [rule for rule in read_rules(source_files(SHIPPED)) if rule.name == "fairness.four_fifths"]
    labels = {"tenant_id": "acme", "policy": "general@3", "attribute": attribute, "group": group}
    said = unequal.say(labels | {"ratio": "0.51", "reference": reference}, 0.488)
    assert f"texts of {group} ({attribute}) of acme through: 0.488, that is 0.51 of the part of {reference}" in said
    assert "mention" not in said  # A text of a cohort mentions nothing.


@pytest.mark.parametrize("rule", read_rules(source_files(SHIPPED)), ids=lambda rule: rule.name)
def test_no_summary_says_that_the_wait_of_a_rule_is_over_while_it_is_pending(rule: Rule) -> None:
    waits = {2: "two", 5: "five"}.get(rule.lasts // MINUTE, str(rule.lasts // MINUTE))
    assert not rule.lasts or f"for {waits} minutes" not in rule.summary


def test_a_series_is_retired_after_a_week_unless_the_rule_says_sooner(tmp_path: Path) -> None:
    found = []
    for told in ("{lookback: 1h}", "{lookback: 1h, retired_after: 2d}"):
        (tmp_path / "away.yaml").write_text(HEAD + f"    absence: {told}\n")
        [rule] = read_rules(source_files(tmp_path))
        found.append(rule.condition)
    week = 7 * 24 * 60 * MINUTE
    assert found == [
        Absence(lookback=60 * MINUTE, retired_after=week),
        Absence(lookback=60 * MINUTE, retired_after=2 * week // 7),
    ]
    (tmp_path / "away.yaml").write_text(HEAD + "    absence: {retired_after: 8d}\n")
    with pytest.raises(ConfigurationRefused, match="at most 7d"):
        read_rules(source_files(tmp_path))
