"""Topics, vocabulary, tool use and how requests end: counted from numbers alone, at the stated rate, and found when they move."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pytest
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice.types.v1.finish_reason_pb2 import FINISH_REASON_ERROR, FINISH_REASON_STOP, FINISH_REASON_TOOL_CALLS
from sluice_drift.adapters import records
from sluice_drift.adapters.facts import REQUESTS_FROM, observations_of
from sluice_drift.domain.comparison import Comparer, Comparison, Detection, Verdict
from sluice_drift.domain.observation import Observation
from sluice_drift.domain.partition import Partition, Rules
from sluice_drift.domain.recount import Recount
from sluice_drift.domain.reference import Reference
from sluice_drift.domain.topics import cut_topics, topic_of
from sluice_drift.domain.vocabulary import rarity_bin, variety_bin

SECOND = 1_000_000
BASE = 1_760_000_400 * SECOND
RATE, STREAMS, REFERENCE, WINDOW = 0.05, 120, 200, 80
NEW = {
    "prompt.topic", "answer.topic", "prompt.vocabulary", "answer.vocabulary", "prompt.variety", "answer.variety",
    "answer.tools", "request.outcome",
}  # fmt: skip


@dataclass
class World:
    """What traffic is drawn from."""

    topics: tuple[float, ...] = (0.3, 0.25, 0.2, 0.15, 0.1)
    rarity: float = 1.3
    variety: float = 0.9
    tools: tuple[float, ...] = (0.8, 0.15, 0.05)
    outcomes: tuple[float, ...] = (0.9, 0.05, 0.03, 0.02)


class Traffic:
    def __init__(self, seed: int) -> None:
        self.world, self.rng, self.offset = World(), np.random.default_rng(seed), -1
        self.centres = np.random.default_rng(7).standard_normal((5, 64))
        self.tag = seed

    def generation(self) -> InferenceMeasured:
        event = InferenceMeasured(model="small", finish_reason=FINISH_REASON_STOP)
        event.metadata.event_id = f"g{self.tag}-{self.offset}"
        event.metadata.tenant_id = "acme"
        for profile in (event.prompt_profile, event.answer_profile):
            vector = self.centres[self.rng.choice(5, p=self.world.topics)] + 0.7 * self.rng.standard_normal(64)
            profile.embedding.extend((vector / np.linalg.norm(vector)).tolist())
            profile.embedding_model_digest = "sha256:a"
            profile.words = profile.profiled_words = int(self.rng.integers(20, 100))
            profile.pieces = int(profile.words * self.rng.normal(self.world.rarity, 0.2))
            profile.distinct_words = int(profile.words * np.clip(self.rng.normal(self.world.variety, 0.08), 0.1, 1))
            profile.language = "en"
        tool = self.rng.choice(["", "search", "(other)"], p=self.world.tools)
        if tool:
            event.called_tools.append(tool)
            event.finish_reason = FINISH_REASON_TOOL_CALLS
        return event

    def request(self) -> RequestCompleted:
        event = RequestCompleted(model="alias", served_model="small", refusal=False)
        event.metadata.event_id = f"r{self.tag}-{self.offset}"
        event.metadata.tenant_id = "acme"
        event.outcome = RequestOutcome.REQUEST_OUTCOME_COMPLETED
        how = self.rng.choice(["answered", "refused", "blocked", "empty"], p=self.world.outcomes)
        event.refusal, event.empty_answer = how == "refused", how == "empty"
        if how == "blocked":
            event.outcome = RequestOutcome.REQUEST_OUTCOME_BLOCKED_OUTPUT
        return event

    def observations(self, count: int, at: int) -> list[Observation]:
        """The tenant's, of so many generations and as many requests."""
        found = []
        for _ in range(count):
            self.offset += 1
            for event in (self.generation(), self.request()):
                event.metadata.occurred_at.FromMicroseconds(at)
                found.append(observations_of(event, partition=0, offset=self.offset, record_time=at)[0])
        return found


RULES = Rules(reference_size=REFERENCE)


def logged(seed: int, drift: Callable[[World], None] | None = None, window: int = WINDOW) -> list[Observation]:
    traffic = Traffic(seed)
    before = traffic.observations(REFERENCE, BASE)
    if drift:
        drift(traffic.world)
    return before + traffic.observations(window, BASE + RULES.length)


def taken(log: list[Observation]) -> Partition:
    partition = Partition(0, RULES, now=0)
    partition.absorb(log, now=0)
    return partition


def compare(seed: int, drift: Callable[[World], None] | None = None) -> Comparison:
    due = max(taken(logged(seed, drift)).due(0), key=lambda each: each.window.start)
    return Comparer(Detection(false_alarm_rate=RATE)).compare(due.window, due.reference)


@pytest.fixture(scope="module")
def quiet() -> list[Comparison]:
    return [compare(seed) for seed in range(STREAMS)]


def test_all_features_together_alarm_as_rarely_as_stated(quiet: list[Comparison]) -> None:
    tested = {feature.name for feature in quiet[0].features if feature.p_value is not None}
    assert tested >= NEW
    alarms = sum(each.verdict is Verdict.DRIFTED for each in quiet)
    assert alarms / STREAMS <= RATE + 3 * np.sqrt(RATE * (1 - RATE) / STREAMS)


@pytest.mark.parametrize("name", sorted(NEW))
def test_p_values_of_a_new_feature_are_uniform_or_coarser_without_drift(quiet: list[Comparison], name: str) -> None:
    """Never too many small ones; topics are cut by other texts than those that are counted."""
    values = [feature.p_value for each in quiet for feature in each.features if feature.name == name]
    assert len(values) == STREAMS
    known = np.sort([value for value in values if value is not None])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(known <= level) <= level + 3 * np.sqrt(level * (1 - level) / STREAMS), name


DRIFTS: dict[str, Callable[[World], None]] = {
    "prompt.topic": lambda world: setattr(world, "topics", (0.05, 0.1, 0.15, 0.3, 0.4)),
    "answer.vocabulary": lambda world: setattr(world, "rarity", 1.6),
    "answer.variety": lambda world: setattr(world, "variety", 0.75),
    "answer.tools": lambda world: setattr(world, "tools", (0.4, 0.55, 0.05)),
    "request.outcome": lambda world: setattr(world, "outcomes", (0.6, 0.35, 0.03, 0.02)),
}


@pytest.mark.parametrize("name", sorted(DRIFTS))
def test_what_moves_is_found_in_its_own_feature(name: str) -> None:
    found = 0
    for seed in range(10):
        [feature] = [each for each in compare(seed, DRIFTS[name]).features if each.name == name]
        found += feature.verdict is Verdict.DRIFTED
    assert found >= 8


def test_only_names_that_are_told_and_numbers_leave_the_events() -> None:
    event = InferenceMeasured(model="m", finish_reason=FINISH_REASON_TOOL_CALLS, called_tools=["search", "(other)"])
    event.answer_profile.words = event.answer_profile.profiled_words = 40
    event.answer_profile.pieces, event.answer_profile.distinct_words = 61, 30
    [found] = observations_of(event, partition=0, offset=0, record_time=BASE)
    assert found.answer is not None
    assert found.answer.facts == (("vocabulary", "1.50"), ("variety", "0.7"), ("tools", "(several)"))


@pytest.mark.parametrize(
    ("outcome", "refusal", "empty", "told"),
    [
        ("COMPLETED", False, False, "answered"), ("COMPLETED", True, False, "refused"), ("COMPLETED", False, True, "empty"),
        ("BLOCKED_INPUT", None, None, "blocked_input"), ("BLOCKED_OUTPUT", None, None, "blocked_output"), ("FAILED", None, None, "failed"),
    ],
)  # fmt: skip
def test_a_request_is_counted_by_how_it_ended(outcome: str, refusal: bool | None, empty: bool | None, told: str) -> None:  # fmt: skip
    event = RequestCompleted(model="m", outcome=getattr(RequestOutcome, f"REQUEST_OUTCOME_{outcome}"))
    if refusal is not None:
        event.refusal = refusal
    if empty is not None:
        event.empty_answer = empty
    [found] = observations_of(event, partition=2, offset=5, record_time=BASE)
    assert found.request is not None
    assert (found.source_partition, found.request.facts) == (REQUESTS_FROM + 2, (("outcome", told),))


@pytest.mark.parametrize("outcome", ["CANCELLED", "INVALID", "SHED", "COMPLETED"])
def test_what_says_nothing_of_model_and_filters_or_was_not_judged_is_not_counted(outcome: str) -> None:
    event = RequestCompleted(model="m", outcome=getattr(RequestOutcome, f"REQUEST_OUTCOME_{outcome}"))
    assert observations_of(event, partition=0, offset=0, record_time=BASE) == []


def test_probes_and_broken_generations_tell_nothing_of_tools() -> None:
    event = InferenceMeasured(model="m", finish_reason=FINISH_REASON_ERROR)
    event.answer_profile.words = 3
    [found] = observations_of(event, partition=0, offset=0, record_time=BASE)
    assert found.answer is not None
    assert found.answer.facts == ()
    event.metadata.synthetic = True
    assert observations_of(event, partition=0, offset=0, record_time=BASE) == []


def test_topics_are_the_same_in_any_order_of_the_texts() -> None:
    embeddings = [each.prompt.embedding for each in Traffic(3).observations(60, 0) if each.prompt]
    centres = cut_topics(embeddings)
    assert len(centres) == 6
    assert cut_topics(reversed(embeddings)) == centres
    middles = np.array([np.frombuffer(each, "<i2") for each in centres], dtype=object)
    for each in embeddings:
        nearest = min(range(6), key=lambda k, each=each: ((middles[k] - np.frombuffer(each, "<i2")) ** 2).sum())
        assert topic_of(each, centres) == f"topic {nearest + 1}"
    assert {topic_of(each, centres) for each in embeddings} == {f"topic {k}" for k in range(1, 7)}
    assert cut_topics(embeddings[:19]) == []
    assert topic_of(b"", centres) == topic_of(embeddings[0][:8], centres) == ""


def test_vocabulary_falls_into_bins() -> None:
    assert [rarity_bin(pieces, 100) for pieces in (0, 100, 124, 125, 399, 400, 10**6)] == [
        "0.00", "1.00", "1.00", "1.25", "3.75", "4.00+", "4.00+",
    ]  # fmt: skip
    assert [variety_bin(distinct, 200) for distinct in (0, 55, 99, 100)] == ["0.0", "0.5", "0.9", "0.9"]


def test_texts_and_requests_have_references_of_their_own_that_are_filled_apart() -> None:
    partition = taken([each for each in logged(1) if not each.request])
    [reference] = partition.references
    assert (reference.pinned, reference.requests_pinned, reference.observations) == (True, False, REFERENCE)
    assert not reference.prompts_uncounted
    assert not reference.answers_uncounted
    requests = [each for each in logged(1) if each.request]
    partition.absorb(requests, now=0)
    assert (reference.requests_pinned, reference.request.observations) == (True, REFERENCE)
    window = max(partition.windows, key=lambda each: each.start)
    assert (window.request.observations, window.prompt.observations, window.observations) == (WINDOW, WINDOW, WINDOW)


def test_counted_again_in_another_order_windows_and_references_are_the_same() -> None:
    log = logged(4)
    live = taken(log)
    [reference] = live.references
    again = Recount(0, RULES, pinned={(reference.series, 1): copy.deepcopy(reference)}, partial=False, now=0)
    for each in [*(one for one in log if one.request), *(one for one in log if not one.request)]:
        again.absorb_one(each, now=0)
    assert not list(again.unlike())
    told = {window.key: (window.prompt, window.answer, window.request) for window in live.windows}
    assert told == {window.key: (window.prompt, window.answer, window.request) for window in again.windows}
    assert any("topic" in prompt.facts for prompt, _, _ in told.values())


def pinned_by_an_earlier_release(reference: Reference, *, slices: bool) -> Reference:
    """As it was stored before there were topics, vocabulary and tools; and, before that, slices."""
    old = copy.deepcopy(reference)
    old.prompt_topics, old.answer_topics = [], []
    for sample in (old.prompt, old.answer):
        sample.facts = {}
        for values in sample.slices.values():
            for counts in values.values():
                counts.facts = {}
        sample.slices = sample.slices if slices else {}
    return old


@pytest.mark.parametrize("slices", [True, False])
def test_a_reference_of_an_earlier_release_is_compared_with_the_log_in_what_it_was_told(slices: bool) -> None:
    log = logged(6)
    [reference] = taken(log).references
    old = pinned_by_an_earlier_release(reference, slices=slices)
    other = copy.deepcopy(old)
    other.answer.words["4-7"] = 1 + other.answer.words.get("4-7", 0)
    unlike = {}
    for name, pinned in (("old", old), ("other", other)):
        again = Recount(0, RULES, pinned={(pinned.series, 1): pinned}, partial=False, now=0)
        for each in log:
            again.absorb_one(each, now=0)
        unlike[name] = list(again.unlike())
    assert unlike == {"old": [], "other": [(old.series, 1)]}


def test_a_second_copy_of_a_request_counts_once() -> None:
    log = logged(5)
    last = log[-1]
    partition = taken([*log, replace(last, offset=last.offset + 1)])
    assert partition.dropped["repeated"] == 1


def as_stored_before(partition: Partition, taken_in: list[Observation]) -> list[Reference]:
    """The references as the release before stored them, which kept whole the observations whose topics will be counted."""
    kept = [replace(each, request=None) for each in taken_in if not each.request and each.mark & 1]
    found = []
    for reference in partition.references:
        told = msgspec.msgpack.decode(records.encode(reference))
        for name in ("prompts_uncounted", "answers_uncounted"):
            assert len(told.pop(name)) == len(kept)
        told["uncounted"] = msgspec.to_builtins(kept, builtin_types=(bytes,))
        found.append(records.decode(reference.key.encode(), msgspec.msgpack.encode(told)))
    return found


def test_a_reference_that_an_earlier_release_began_counts_the_topics_of_all_its_texts() -> None:
    log = [replace(each, slices=(("route", "ab"[each.offset % 2]),)) for each in logged(2)]
    half = log[:REFERENCE]
    upgraded = Partition(0, RULES, records=as_stored_before(taken(half), half), now=0)
    upgraded.absorb(log[REFERENCE:], now=0)
    [expected], [found] = taken(log).references, upgraded.references
    assert found.pinned
    assert sum(expected.prompt.facts["topic"].values()) > REFERENCE / 3
    assert (found.prompt, found.answer) == (expected.prompt, expected.answer)
    assert (found.prompt_topics, found.answer_topics) == (expected.prompt_topics, expected.answer_topics)
