"""A trailing reference is the windows just before: its rate is the stated one, and late data restate those that follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sluice_drift.adapters import records
from sluice_drift.adapters.events import measured
from sluice_drift.domain.causes import causes_of
from sluice_drift.domain.comparison import Comparer, Comparison, Detection, Feature, Verdict
from sluice_drift.domain.observation import Observation, Profile, Series, pack_embedding
from sluice_drift.domain.partition import Due, Partition, Record, Rules
from sluice_drift.domain.recount import Recount
from sluice_drift.domain.trailing import Span, Trailing, TrailingRules, read_rules
from sluice_drift.settings import DriftSettings

SECOND = 1_000_000
LENGTH = 60 * SECOND
BASE = 1_760_000_040 * SECOND
SERIES = Series("acme", "small")
RULES = Rules(length=LENGTH, reference_size=60, trailing=read_rules("prompt.*=3"))
DETECTION = Detection(false_alarm_rate=0.05)


def observation(rng: np.random.Generator, offset: int, at: int, *, german: float) -> Observation:
    vector = rng.standard_normal(8)
    profile = Profile(
        "de" if rng.random() < german else "en",
        int(rng.integers(5, 60)),
        pack_embedding((vector / np.linalg.norm(vector)).tolist()),
    )
    return Observation(
        source_partition=0,
        offset=offset,
        at=BASE + at,
        series=SERIES,
        prompt=profile,
        answer=profile,
        embedding_model="sha256:a",
        mark=1 + offset,
        slices=(("route", "a" if offset % 2 else "b"),),
    )


def traffic(seed: int, shares: list[float], each: int = 60) -> list[Observation]:
    """So many a window, with these shares of German."""
    rng = np.random.default_rng(seed)
    return [
        observation(rng, window * each + number, window * LENGTH + number * SECOND * 60 // each, german=german)
        for window, german in enumerate(shares)
        for number in range(each)
    ]


def run(log: list[Observation], rules: Rules = RULES) -> Partition:
    partition = Partition(0, rules, now=0)
    for each in log:
        partition.absorb([each], now=0)
    return partition


def last_of(partition: Partition) -> Due:
    return max(partition.due(0), key=lambda due: due.window.start)


def compared(due: Due) -> Comparison:
    return Comparer(DETECTION, RULES.trailing).compare(due.window, due.reference, due.before)


def test_a_change_that_lasts_is_old_news_to_the_trailing_side_and_news_to_the_pinned_one() -> None:
    due = last_of(run(traffic(1, [0.1, 0.1, 0.8, 0.8, 0.8, 0.8])))
    features = {each.name: each for each in compared(due).features}
    trailing, pinned = features["prompt.language"], features["answer.language"]
    assert (trailing.trailing, trailing.reference_observations, trailing.verdict) == (3, 180, Verdict.STABLE)
    assert (pinned.trailing, pinned.reference_observations, pinned.verdict) == (0, 60, Verdict.DRIFTED)


def test_a_sudden_change_is_found_against_the_windows_before_and_its_causes_are_measured_from_them() -> None:
    due = last_of(run(traffic(2, [0.1, 0.9, 0.9, 0.9, 0.1])))
    comparison = compared(due)
    features = {each.name: each for each in comparison.features}
    assert features["prompt.language"].verdict is Verdict.DRIFTED
    assert features["answer.language"].verdict is Verdict.STABLE
    told = measured(due, comparison, causes_of(due.window, due.reference, comparison), false_alarm_rate=0.05)
    event = {each.feature: each for each in told.features}
    assert (event["prompt.language"].trailing_windows, event["answer.language"].trailing_windows) == (3, 0)
    assert sum(event["prompt.language"].reference_bin_counts) == 180


def test_without_drift_alarms_against_trailing_windows_are_as_rare_as_stated() -> None:
    streams = 150
    verdicts = [compared(last_of(run(traffic(seed, [0.3] * 5)))).verdict for seed in range(streams)]
    alarms = sum(each is Verdict.DRIFTED for each in verdicts)
    assert alarms / streams <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / streams)


def test_too_little_before_is_insufficient() -> None:
    due = last_of(run(traffic(3, [0.3, 0.3])))
    features = {each.name: each for each in compared(due).features}
    assert features["prompt.language"].verdict is Verdict.INSUFFICIENT  # the window before is the reference itself
    assert features["answer.language"].verdict is Verdict.STABLE


def test_late_data_restate_the_windows_that_were_compared_with_theirs() -> None:
    log = traffic(4, [0.3] * 6)
    partition = run(log)
    for due in partition.due(0):
        partition.mark_published(due)
    assert partition.due(0) == []
    revisions = {due.window.start: due.revision for due in run(log).due(0)}
    late = observation(np.random.default_rng(9), len(log), 2 * LENGTH, german=1.0)
    partition.absorb([late], now=0)
    again = {(due.window.start - BASE) // LENGTH: due for due in partition.due(0)}
    assert sorted(again) == [2, 3, 4, 5]
    assert all(due.revision == revisions[due.window.start] + 1 for due in again.values())


def test_after_a_restart_late_data_restate_the_windows_that_were_compared_with_theirs_and_no_others() -> None:
    log = traffic(10, [0.3] * 7, each=20)
    changes = Partition(0, RULES, now=0).absorb(log, now=0)
    kept = [records.decode(key.encode(), records.encode(record)) for key, record in changes.items() if record]
    revived = Partition(0, RULES, records=kept, now=0)
    revived.absorb(log[-1:], now=0)
    for due in revived.due(0):
        revived.mark_published(due)
    revived.absorb([observation(np.random.default_rng(9), len(log), 2 * LENGTH, german=1.0)], now=0)
    assert sorted((due.window.start - BASE) // LENGTH for due in revived.due(0)) == [2, 3, 4, 5]


def test_features_that_trail_alike_share_what_they_are_compared_with() -> None:
    rules = read_rules("prompt.words=2, prompt.*=3, answer.*=3")
    due = last_of(run(traffic(11, [0.3] * 6), replace(RULES, trailing=rules)))
    comparison = Comparer(DETECTION, rules).compare(due.window, due.reference, due.before)
    bases = {each.name: each.base for each in comparison.features}
    assert bases["prompt.language"] is bases["prompt.topic"] is bases["prompt.embedding"]
    assert bases["answer.language"] is bases["answer.words"]
    assert [bases[name].observations for name in ("prompt.words", "prompt.language")] == [120, 180]  # type: ignore[union-attr]


def test_windows_are_kept_for_as_long_as_another_is_compared_with_them() -> None:
    rules = Rules(length=LENGTH, lateness=0, retention=2 * LENGTH, reference_size=60, trailing=read_rules("*=3"))
    pinned_only = Rules(length=LENGTH, lateness=0, retention=2 * LENGTH, reference_size=60)
    kept = {}
    for name, each in (("trailing", rules), ("pinned", pinned_only)):
        partition = Partition(0, each, now=0)
        for one in traffic(5, [0.3] * 12, each=10):
            partition.absorb([one], now=0)
            for due in partition.due(0):
                partition.mark_published(due)
        kept[name] = len(list(partition.windows))
    assert kept["trailing"] == kept["pinned"] + 3


FORGETFUL = Rules(
    length=LENGTH, lateness=0, retention=2 * LENGTH, reference_size=60, trailing=read_rules("prompt.language=3")
)


def stored_and_published(batches: list[list[Observation]]) -> tuple[dict[str, bytes], dict[int, int]]:
    """What a crash leaves of a partition that published after each batch but the last, and the revisions by window."""
    partition, stored, out = Partition(0, FORGETFUL, now=0), dict[str, bytes](), dict[int, int]()
    for number, batch in enumerate(batches, start=1):
        for key, record in partition.absorb(batch, now=0).items():
            if record is None:
                stored.pop(key, None)
            else:
                stored[key] = records.encode(record)
        for due in partition.due(0) if number < len(batches) else ():
            out[due.window.start] = due.revision
            partition.mark_published(due)
    return stored, out


def revived_from(stored: dict[str, bytes]) -> Partition:
    kept = [records.decode(key.encode(), value) for key, value in stored.items()]
    return Partition(0, FORGETFUL, records=kept, now=0)


def test_a_window_that_is_kept_only_for_later_ones_is_not_said_again_after_a_restart_and_takes_nothing_late() -> None:
    log = traffic(7, [0.3] * 12, each=10)
    stored, out = stored_and_published([[each] for each in log] + [[]])
    revived = revived_from(stored)
    assert len(list(revived.windows)) == 6
    assert [(due.window.start - BASE) // LENGTH for due in sorted(revived.due(0), key=lambda due: due.window.start)] == [
        9, 10, 11,
    ]  # fmt: skip
    assert all(due.revision == out[due.window.start] for due in revived.due(0))
    late = observation(np.random.default_rng(9), len(log), 8 * LENGTH, german=1.0)
    revived.absorb([late], now=0)
    assert revived.dropped["late"] == 1
    assert len(revived.due(0)) == 3


def test_of_a_window_that_takes_nothing_more_no_marks_are_kept_by_which_copies_are_known() -> None:
    stored, _ = stored_and_published([[each] for each in traffic(7, [0.3] * 12, each=10)] + [[]])
    kept = sorted(revived_from(stored).windows, key=lambda window: window.start)
    assert [(each.final, len(each.marks)) for each in kept] == [(True, 0)] * 3 + [(False, 10)] * 3


def test_windows_that_a_crash_kept_from_being_published_are_published_however_old_with_all_those_before() -> None:
    log = traffic(8, [0.3] * 12, each=10)
    stored, _ = stored_and_published([log[:50], log[50:]])
    due = {(each.window.start - BASE) // LENGTH: each for each in revived_from(stored).due(0)}
    assert set(range(4, 12)) <= set(due)
    assert all(len(due[number].before) == 3 for number in range(4, 12))


A_DAY_OF_FOUR = replace(RULES, trailing=TrailingRules((Trailing("prompt.*", Span(3, 5)),)))
"""The window of the same time of the day before, and one on each side."""


def compared_with_the_day_before(due: Due) -> dict[str, Feature]:
    comparison = Comparer(DETECTION, A_DAY_OF_FOUR.trailing).compare(due.window, due.reference, due.before)
    return {each.name: each for each in comparison.features}


def test_what_comes_every_day_is_news_to_the_pinned_side_and_not_to_the_one_that_is_compared_with_the_day_before() -> (
    None
):
    days = [0.1, 0.1, 0.1, 0.8, 0.8, 0.8, 0.8, 0.1] * 2
    rules = replace(RULES, trailing=TrailingRules((Trailing("prompt.*", Span(7, 9)),)))
    [due] = [each for each in run(traffic(12, days), rules).due(0) if each.window.start == BASE + 13 * LENGTH]
    comparison = Comparer(DETECTION, rules.trailing).compare(due.window, due.reference, due.before)
    features = {each.name: each for each in comparison.features}
    seasonal, pinned = features["prompt.language"], features["answer.language"]
    assert (seasonal.trailing, seasonal.gap, seasonal.reference_observations) == (3, 6, 180)
    assert (seasonal.verdict, pinned.verdict) == (Verdict.STABLE, Verdict.DRIFTED)
    told = measured(due, comparison, causes_of(due.window, due.reference, comparison), false_alarm_rate=0.05)
    spans = {each.feature: (each.trailing_windows, each.trailing_gap) for each in told.features}
    assert (spans["prompt.language"], spans["answer.language"]) == ((3, 6), (0, 0))


def test_a_change_is_found_against_the_day_before_for_a_whole_day() -> None:
    dues = run(traffic(13, [0.1] * 8 + [0.9] * 8), A_DAY_OF_FOUR).due(0)
    verdicts = {
        (due.window.start - BASE) // LENGTH: compared_with_the_day_before(due)["prompt.language"] for due in dues
    }
    found = [number for number, each in sorted(verdicts.items()) if each.verdict is Verdict.DRIFTED]
    assert found == [8, 9, 10, 11, 12]  # of the last, two of the three windows were still of before
    assert [verdicts[number].verdict for number in (2, 3)] == [Verdict.INSUFFICIENT, Verdict.INSUFFICIENT]


def test_late_data_restate_the_windows_of_the_day_after_and_none_between() -> None:
    log = traffic(14, [0.3] * 9)
    partition = run(log, A_DAY_OF_FOUR)
    for due in partition.due(0):
        partition.mark_published(due)
    partition.absorb([observation(np.random.default_rng(9), len(log), 2 * LENGTH, german=1.0)], now=0)
    assert sorted((due.window.start - BASE) // LENGTH for due in partition.due(0)) == [2, 5, 6, 7]


def test_windows_are_kept_for_a_day_and_what_is_on_its_other_side() -> None:
    kept = {}
    for name, trailing in (("seasonal", A_DAY_OF_FOUR.trailing), ("pinned", read_rules(""))):
        rules = Rules(length=LENGTH, lateness=0, retention=2 * LENGTH, reference_size=60, trailing=trailing)
        partition = Partition(0, rules, now=0)
        for one in traffic(15, [0.3] * 14, each=10):
            partition.absorb([one], now=0)
            for due in partition.due(0):
                partition.mark_published(due)
        kept[name] = len(list(partition.windows))
        partition.absorb([observation(np.random.default_rng(9), 140, 13 * LENGTH, german=1.0)], now=0)
        assert len(last_of(partition).before) == (3 if name == "seasonal" else 0)
    assert kept["seasonal"] == kept["pinned"] + 5


@pytest.mark.parametrize("rules", [RULES, A_DAY_OF_FOUR])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_through_a_crash_and_counted_again_the_same_is_said_of_every_window(rules: Rules, data: st.DataObject) -> None:
    log = traffic(6, [0.3, 0.3, 0.7, 0.7, 0.2, 0.2, 0.7], each=30)
    stored: dict[str, bytes] = {}
    partition = Partition(0, rules, now=0)
    cut = data.draw(st.integers(0, len(log)))
    for each in log[:cut]:
        changes: dict[str, Record | None] = partition.absorb([each], now=0)
        stored |= {key: records.encode(record) for key, record in changes.items() if record is not None}
    kept = [records.decode(key.encode(), value) for key, value in stored.items()]
    revived = Partition(0, rules, records=kept, now=0)
    for each in log[max(0, cut - 20) :]:
        revived.absorb([each], now=0)
    [reference] = revived.references
    again = Recount(0, rules, pinned={(SERIES, 1): reference}, partial=False, now=0)
    for each in log:
        again.absorb_one(each, now=0)
    assert said(revived.due(0), rules) == said(again.due_all(), rules) == said(run(log, rules).due(0), rules)


def said(dues: list[Due], rules: Rules) -> dict[int, tuple[int, Comparison]]:
    comparer = Comparer(DETECTION, rules.trailing)
    return {
        due.window.start: (len(due.before), comparer.compare(due.window, due.reference, due.before)) for due in dues
    }


def test_the_first_rule_that_fits_decides() -> None:
    rules = read_rules("acme|small/prompt.language=0, acme|*/prompt.*=12, request.outcome=288")
    assert rules.windows(SERIES, "prompt.language") == 0
    assert rules.windows(SERIES, "prompt.words") == 12
    assert rules.windows(Series("other", "small"), "prompt.words") == 0
    assert rules.windows(Series("", "small"), "request.outcome") == 288
    assert (rules.most(SERIES), rules.most(Series("", "x")), read_rules("").most(SERIES)) == (288, 288, 0)


def test_the_same_time_of_the_day_before_is_found_by_the_length_of_the_windows() -> None:
    assert read_rules("*=5@day").span(SERIES, "prompt.words") == Span(286, 290)
    assert read_rules("prompt.*=3 @ day, *=2", 3600).numbers(SERIES) == (1, 2, 23, 24, 25)
    hours = DriftSettings(window_seconds=3600, trailing="*=1@day").rules()  # type: ignore[call-arg]
    assert (hours.trailing.numbers(SERIES), hours.trailing.most(SERIES)) == ((24,), 24)


@pytest.mark.parametrize(
    ("text", "seconds", "told"),
    [
        ("*=4@day", 300, "needs an odd number"),
        ("*=27@day", 300, "needs an odd number"),
        ("*=0@day", 300, "needs an odd number"),
        ("*=3@day", 86_400, "none of them the window itself"),
        ("*=3@day", 700, "divide a day"),
        ("*=3@day", 60, "five minutes or more"),
        ("*=3@week", 300, "must be FEATURE=WINDOWS"),
        ("*=3@", 300, "must be FEATURE=WINDOWS"),
    ],
)
def test_a_rule_of_the_day_before_that_cannot_be_kept_stops_the_start_with_a_sentence(
    text: str, seconds: int, told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        DriftSettings(trailing=text, window_seconds=seconds)  # type: ignore[call-arg]


@pytest.mark.parametrize("text", ["prompt.language", "prompt.language=many", "prompt.language=289", "=", "a=-1"])
def test_a_rule_that_cannot_be_read_stops_the_start_with_a_sentence(text: str) -> None:
    with pytest.raises(ValidationError, match="must be FEATURE=WINDOWS"):
        DriftSettings(trailing=text)  # type: ignore[call-arg]


def test_rules_come_from_the_setting() -> None:
    assert DriftSettings(trailing="*=6").rules().trailing.windows(SERIES, "answer.words") == 6  # type: ignore[call-arg]
    assert DriftSettings().rules().trailing.most(SERIES) == 0  # type: ignore[call-arg]
