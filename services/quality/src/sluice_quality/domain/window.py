"""One partition's share of one series in one window: the unit that is stored, published and merged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from urllib.parse import quote

from sluice_quality.domain.facts import Completion, Feedback, Judgement, Moderation, Series
from sluice_quality.domain.totals import FeedbackTotals, JudgementTotals, ModerationTotals, RequestTotals, Share


@dataclass(slots=True)
class WindowState:
    """Totals, and what makes them countable once: the highest offset merged per source, and the feedback ids merged.

    Times in microseconds since the epoch. Feedback may be merged out of its offsets' order (it waits for its
    completion), so it is told apart by a mark of its event id.
    """

    series: Series
    start: int
    length: int
    partition: int
    revision: int = 0
    offsets: dict[str, int] = field(default_factory=dict)
    feedback_ids: set[int] = field(default_factory=set)
    requests: RequestTotals = field(default_factory=RequestTotals)
    feedback: FeedbackTotals = field(default_factory=FeedbackTotals)
    moderation: ModerationTotals = field(default_factory=ModerationTotals)
    judgement_ids: set[int] = field(default_factory=set)
    judgements: JudgementTotals = field(default_factory=JudgementTotals)

    @property
    def end(self) -> int:
        """Moment after the last."""
        return self.start + self.length

    @property
    def identity(self) -> tuple[Series, int]:
        """What tells it apart within its partition."""
        return self.series, self.start

    @property
    def key(self) -> str:
        """What tells it apart everywhere."""
        return window_key(self.series, self.start, self.length, self.partition)

    def merge_completions(self, source: str, completions: Iterable[Completion]) -> int:
        """Count completions whose offsets arrive in order; how many were not counted before."""
        merged = self.offsets.get(source, -1)
        fresh = []
        for each in completions:
            if each.offset > merged:
                merged = each.offset
                fresh.append(each)
        if fresh:
            self.offsets[source] = merged
            self.requests.add_all(fresh)
            self.revision += len(fresh)
        return len(fresh)

    def merge_share(self, source: str, share: Share) -> int:
        """The same of completions that are summed already. Some of them may have been counted: then each is looked at."""
        if share.first <= self.offsets.get(source, -1):
            return self.merge_completions(source, share.completions())
        self.offsets[source] = share.last
        self.requests.add_share(share)
        self.revision += share.requests
        return share.requests

    def merge_moderation(self, source: str, moderation: Moderation) -> bool:
        """Count a verdict whose offsets arrive in order; False when it was counted before."""
        if moderation.offset <= self.offsets.get(source, -1):
            return False
        self.offsets[source] = moderation.offset
        self.moderation.add(moderation)
        self.revision += 1
        return True

    def merge_feedback(self, feedback: Feedback) -> bool:
        """Count a piece of feedback; False when it was counted before."""
        mark = feedback_mark(feedback.event_id)
        if mark in self.feedback_ids:
            return False
        self.feedback_ids.add(mark)
        self.feedback.add(feedback)
        self.revision += 1
        return True

    def merge_judgement(self, judgement: Judgement) -> bool:
        """Count a judgement; False when it was counted before: a judge that was killed judges again, under the same id."""
        mark = feedback_mark(judgement.event_id)
        if mark in self.judgement_ids:
            return False
        self.judgement_ids.add(mark)
        self.judgements.add(judgement)
        self.revision += 1
        return True


def feedback_mark(event_id: str) -> int:
    """64 bits that stand for an event id: two of a window's thousands are alike once in 10^12 windows."""
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "big")


def window_key(series: Series, start: int, length: int, partition: int) -> str:
    """`quality|series...|start|length|partition`, each part percent-escaped."""
    names = (
        series.tenant_id,
        series.project_id,
        series.model,
        series.route,
        series.prompt_version,
        series.experiment_arm,
    )
    escaped = "|".join(quote(name, safe="@/:.-_") for name in names)
    return f"quality|{escaped}|{start}|{length}|{partition}"
