"""Collects the scores of sentences into one verdict under one policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sluice_moderation.domain.detector import CATEGORIES
from sluice_moderation.domain.normalisation import views
from sluice_moderation.domain.panel import COLUMN, DECIMALS, Panel, WindowScores
from sluice_moderation.domain.policy import DENIED_TERM, Action, CategoryScore, Direction, Policy, RuleSheet, strictest
from sluice_moderation.domain.sentences import Place, Sentence
from sluice_moderation.domain.verdict import Offence, Skipped, Verdict

AS_WRITTEN, FOLDED, TERM = "as_written", "folded", "term"
_MAX_OFFENCES = 100  # kept in evidence; the verdict counts all


@dataclass(frozen=True)
class Outcome:
    """What one sentence alone asks for, and the category that asks most for it."""

    action: Action
    category: str = ""


@dataclass(frozen=True)
class _Found:
    score: CategoryScore
    window: int
    view: int | None
    """Number of the view that gave the score; None for a term of the policy's own."""


@dataclass
class Judgement:
    """The verdict in the making: the highest score of each category over all sentences so far.

    `scored_by` are the detectors that run for the call: the enforced policy's. A shadow may have rules for more categories.
    """

    policy: Policy
    direction: Direction
    language: str
    panel: Panel
    scored_by: frozenset[str] | None = None
    fail_closed: bool = False
    """The caller wants text that cannot be checked blocked, even where the policy lets it through."""
    offences: list[Offence] = field(default_factory=list, init=False)
    redacted_sentences: int = field(default=0, init=False)
    _sheet: RuleSheet = field(init=False)
    _detectors: Mapping[str, str] = field(init=False)
    _scored: tuple[str, ...] = field(init=False)
    _columns: list[int] = field(init=False)
    _mildest: npt.NDArray[np.float64] = field(init=False)
    _highest: npt.NDArray[np.float64] = field(init=False)
    _reached: dict[str, tuple[float, str, int]] = field(default_factory=dict, init=False)
    """Category to its highest score, the window and the number of the view that gave it."""
    _terms: dict[int, None] = field(default_factory=dict, init=False)
    _offending: dict[str, None] = field(default_factory=dict, init=False)
    _failed: dict[str, str] = field(default_factory=dict, init=False)
    _replaced: dict[Place, frozenset[str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._sheet = self.policy.sheet(self.direction, self.language)
        self._detectors = self.panel.detector_of()
        scored_by = self.detectors if self.scored_by is None else self.scored_by
        self._scored = tuple(c for c in self.categories if self._detectors.get(c) in scored_by)
        self._columns = [COLUMN[category] for category in self._scored]
        self._mildest = np.array([self._sheet.rules[category][0].threshold for category in self._scored])
        self._highest = np.zeros(len(self._scored))

    @property
    def categories(self) -> tuple[str, ...]:
        """What the policy has rules for in this direction and language."""
        return tuple(self._sheet.rules)

    @property
    def has_a_say(self) -> bool:
        """Whether the policy could do anything to texts of this direction."""
        return bool(self._sheet.rules) or any(self.direction in term.directions for term in self.policy.terms.denied)

    @property
    def detectors(self) -> frozenset[str]:
        """The detectors that the policy needs."""
        return self.panel.needed(self.categories)

    def add(self, sentence: Sentence, scored: WindowScores) -> Outcome:
        """Take in the scores of one sentence's windows; sentences of a segment come in order."""
        self._note_failures(scored.failed)
        values = self._values(sentence, scored)
        self._highest = np.fmax(self._highest, values)
        hits = np.flatnonzero(values >= self._mildest)  # NaN, where no detector ran, is none
        if not len(hits) and not self.policy.terms.denied:  # most sentences
            return Outcome(self._with_failures(Action.ALLOW))
        reached = [self._found(sentence, scored, int(hit), float(values[hit])) for hit in hits]
        return self._settled(sentence, [*reached, *self._over_terms(sentence)])

    def _settled(self, sentence: Sentence, reached: Sequence[_Found]) -> Outcome:
        if not reached:
            return Outcome(self._with_failures(Action.ALLOW))
        self._offending[sentence.segment_id] = None
        worst = max(reached, key=lambda hit: (hit.score.action, hit.score.score)).score
        self.offences += [_offence(sentence, hit) for hit in reached[: _MAX_OFFENCES - len(self.offences)]]
        action = self._with_failures(worst.action)
        if action is Action.REDACT:
            self.redacted_sentences += 1
            self._note_replaced(sentence, frozenset(hit.score.category for hit in reached))
        return Outcome(action, worst.category)

    @property
    def offending_segment_ids(self) -> tuple[str, ...]:
        """Segments that reached a threshold, in the order they came."""
        return tuple(self._offending)

    @property
    def reached(self) -> dict[str, str]:
        """Category that reached a threshold to the view of a window that gave its highest score. Text: never stored."""
        found = {}
        for category, (_, window, view) in self._reached.items():
            seen = views(self.policy.terms.without_allowed(window))
            # A shadow's own terms may leave fewer views than the enforced policy's, on whose scores it is judged.
            found[category] = seen[min(view, len(seen) - 1)]
        return found

    @property
    def denied_terms(self) -> tuple[int, ...]:
        """Places in the policy's list of the terms that were found."""
        return tuple(self._terms)

    def verdict(self, decision_id: str, *, skipped: Sequence[Skipped] = (), is_foreign: bool = False) -> Verdict:
        """The decision over all that was added. `is_foreign`: the texts are not in a script that the detectors were made for."""
        judged = (self._sheet.judge(c, float(score)) for c, score in zip(self._scored, self._highest, strict=True))
        # Of a detector that failed for some of the text, only what it found in the rest is known for certain.
        scores = [s for s in judged if s.is_reached or self._detectors[s.category] not in self._failed]
        scores += [self._term_score(place) for place in self._strictest_term()]
        return Verdict(
            decision_id=decision_id,
            action=self._with_failures(strictest(scores)),
            policy_id=self.policy.policy_id,
            policy_version=self.policy.version,
            scores=tuple(scores),
            skipped=(*self._skipped(is_foreign), *skipped),
            model_digests=self.panel.digests(self.panel.needed(self._scored)),
            detectors={score.category: self._detectors.get(score.category, "policy-terms") for score in scores},
            policy_digest=self.policy.digest,
        )

    def _values(self, sentence: Sentence, scored: WindowScores) -> npt.NDArray[np.float64]:
        """The score of a sentence in each category that is scored: the highest of the windows that count."""
        own = scored.scores[:, self._columns].astype(np.float64)
        if self._replaced:
            for at, category in enumerate(self._scored):
                own[self._rows_that_do_not_count(category, sentence), at] = np.nan
        # fmax: a window that is NaN must not hide the others.
        highest: npt.NDArray[np.float64] = np.fmax.reduce(own, axis=0, initial=np.nan)
        return np.round(highest, DECIMALS)

    def _found(self, sentence: Sentence, scored: WindowScores, at: int, score: float) -> _Found:
        """The hit of a category, and which window and view gave it."""
        category, column = self._scored[at], self._columns[at]
        own = scored.scores[:, column].astype(np.float64)
        own[self._rows_that_do_not_count(category, sentence)] = np.nan
        row = int(np.nanargmax(own))
        view = scored.view_of(row, column)
        if score > self._reached.get(category, (-1.0,))[0]:
            self._reached[category] = (score, sentence.windows[row].text, view)
        return _Found(self._sheet.judge(category, score), row, view)

    def _rows_that_do_not_count(self, category: str, sentence: Sentence) -> list[int]:
        """Once a sentence was replaced for a category, the next is not judged for it together with what nobody will read."""
        return [
            row
            for row, window in enumerate(sentence.windows)
            if any(category in self._replaced.get(place, ()) for place in window.after)
        ]

    def _over_terms(self, sentence: Sentence) -> list[_Found]:
        terms = self.policy.terms
        if not terms.denied:
            return []
        left_out = self._rows_that_do_not_count(DENIED_TERM, sentence)
        found = []
        for row, window in enumerate(sentence.windows):
            place = terms.find(window.text, self.direction) if row not in left_out else None
            if place is not None:
                found.append(_Found(self._term_score(place), row, None))
                self._terms[place] = None
        return sorted(found, key=lambda hit: -hit.score.action)[:1]

    def _term_score(self, place: int) -> CategoryScore:
        return CategoryScore(DENIED_TERM, 1.0, 1.0, self.policy.terms.denied[place].action)

    def _strictest_term(self) -> list[int]:
        return sorted(self._terms, key=lambda place: -self.policy.terms.denied[place].action)[:1]

    def _note_replaced(self, sentence: Sentence, categories: frozenset[str]) -> None:
        here, anywhere = Place(sentence.segment_id, sentence.number), Place(sentence.segment_id)
        self._replaced[here] = categories
        self._replaced[anywhere] = self._replaced.get(anywhere, frozenset()) | categories

    def _note_failures(self, failed: Mapping[str, str]) -> None:
        if failed:
            mine = {self._detectors[c] for c in self._scored}
            self._failed |= {name: reason for name, reason in failed.items() if name in mine}

    def _with_failures(self, action: Action) -> Action:
        if not self._failed:
            return action
        return Action.BLOCK if self.policy.fail_closed or self.fail_closed else max(action, Action.SKIPPED)

    def _skipped(self, is_foreign: bool) -> list[Skipped]:
        """What was not checked. The order is that of the categories, so that equal verdicts look equal."""
        checks = [Skipped(c, "not_in_policy") for c in CATEGORIES if c not in self._sheet.rules]
        for category in self.categories:
            detector = self._detectors.get(category)
            if detector is None:
                checks.append(Skipped(category, "detector_unavailable"))
            elif category not in self._scored:
                checks.append(Skipped(category, "not_scored"))
            elif detector in self._failed:
                checks.append(Skipped(category, self._failed[detector]))
        if self.language != "en" or is_foreign:
            # The scores are there, but nobody has measured what they are worth in this language.
            checks += [Skipped(c, "language_untested") for c in self._scored]
        return checks


def _offence(sentence: Sentence, hit: _Found) -> Offence:
    return Offence(
        segment_id=sentence.segment_id,
        sentence=sentence.number,
        start=sentence.start,
        end=sentence.end,
        category=hit.score.category,
        score=hit.score.score,
        action=hit.score.action,
        view=TERM if hit.view is None else FOLDED if hit.view else AS_WRITTEN,
        joined=bool(sentence.windows[hit.window].after),
    )
