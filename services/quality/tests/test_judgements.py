"""Judgements in windows: each once, in the window of its answer, holding nothing back."""

from __future__ import annotations

import pytest
from sluice.events.v1.quality_pb2 import AnswerJudged
from sluice_kit.events import UndecodableEvent
from sluice_quality.adapters import records
from sluice_quality.adapters.events import fact_of, measured
from sluice_quality.domain.facts import Completion, Outcome, Series
from sluice_quality.domain.partition import Part, Partition, Rules

SECOND = 1_000_000
BASE = 1_760_000_040 * SECOND
SERIES = Series("acme", "lab", "small", "small/cpu")


def judged(number: int, score: int = 0, *, failure: str = "", screened: bool = False, at: int = BASE) -> AnswerJudged:
    event = AnswerJudged(score_milli=score, failure=failure, screened=screened)
    event.metadata.event_id, event.metadata.request_id = f"j{number}", f"r{number}"
    event.metadata.occurred_at.FromMicroseconds(BASE + 400 * SECOND)
    event.answered_at.FromMicroseconds(at)
    event.series.tenant_id, event.series.project_id = SERIES.tenant_id, SERIES.project_id
    event.series.model, event.series.route = SERIES.model, SERIES.route
    return event


def partition() -> Partition:
    made = Partition(0, Rules(), now=BASE)
    done = Completion(0, BASE, "r1", SERIES, Outcome.SUCCEEDED)
    made.absorb("completions", [done], now=BASE, through=0)
    return made


def absorb(into: Partition, *events: AnswerJudged, first: int = 0) -> dict:
    now = BASE + 400 * SECOND
    facts = [fact for n, event in enumerate(events) if (fact := fact_of(event, offset=first + n, record_time=now))]
    return into.absorb("judged", facts, now=now, through=first + len(events) - 1)


def totals(of: Partition) -> tuple[int, int, int, int]:
    [state] = of.windows
    found = state.judgements
    return found.judged, found.unusable, found.score_sum_milli, found.screened


def test_judgements_are_added_up_in_the_window_of_their_answers() -> None:
    made = partition()
    absorb(made, judged(1, 4333), judged(2, 1000, screened=True), judged(3, failure="not_json"))
    assert totals(made) == (2, 1, 5333, 1)
    [state] = made.windows
    event = measured(Part(state, state.revision, False, 0))
    found = event.judgements
    assert (found.judged, found.unusable, found.score_sum_milli, found.screened) == (2, 1, 5333, 1)
    assert (event.requests.requests, state.revision) == (1, 4)


def test_a_judgement_that_is_made_again_counts_once_also_after_a_restart() -> None:
    made = partition()
    changes = absorb(made, judged(1, 5000))
    absorb(made, judged(1, 2000), first=1)
    stored = {key: records.encode(record) for key, record in changes.items() if record is not None}
    revived = Partition(
        0, Rules(), records=[records.decode(key.encode(), value) for key, value in stored.items()], now=BASE
    )
    absorb(revived, judged(1, 3000), first=2)
    assert totals(made) == totals(revived) == (1, 0, 5000, 0)


def test_a_judgement_that_comes_late_holds_no_window_back() -> None:
    plain, with_judge = partition(), partition()
    absorb(with_judge, judged(1, 5000))
    later = Completion(1, BASE + 300 * SECOND, "r9", SERIES, Outcome.SUCCEEDED)
    for each in (plain, with_judge):
        each.absorb("completions", [later], now=BASE + 300 * SECOND, through=1)
    marks = [{part.complete_up_to for part in each.parts_due(BASE + 300 * SECOND)} for each in (plain, with_judge)]
    assert marks[0] == marks[1]


@pytest.mark.parametrize("score", [0, 999, 5001, 4_000_000])
def test_a_score_that_no_grades_give_is_no_fact(score: int) -> None:
    with pytest.raises(UndecodableEvent):
        fact_of(judged(1, score), offset=0, record_time=BASE)
