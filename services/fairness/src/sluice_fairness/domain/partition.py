"""Everything fairness knows of one partition, and how facts change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sluice_fairness.domain.board import Board, Frame, Tally
from sluice_fairness.domain.counts import GroupCounts, group_keys
from sluice_fairness.domain.facts import Completion, Decision, Review, Series, StoryFact
from sluice_fairness.domain.stories import Stories, Story, StoryChunk
from sluice_fairness.domain.watermark import Clock, Marks
from sluice_fairness.domain.window import WindowState

Record = WindowState | StoryChunk | Tally | Marks
"""What is stored, each under its own `key`."""

_SECOND = 1_000_000
_TALLIES = "tallies"
"""Among the watermarks: how far the parts that were read reach. They are forgotten by that, never by the wall's time,
which would drop the parts of a backlog before they were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How windows are cut and how long things are remembered. Times in microseconds."""

    length: int = 60 * _SECOND
    longest: int = 3600 * _SECOND
    """The windows of this length are merged from the short ones."""
    lateness: int = 30 * _SECOND
    """A window closes when the watermark is this far past its end."""
    retention: int = 1800 * _SECOND
    """A closed window can be restated for so long; after that, late facts are dropped and counted."""
    idle_after: int = 30 * _SECOND
    story_capacity: int = 20_000


@dataclass(frozen=True, slots=True)
class Part:
    """A window as it stands now, ready to be published."""

    state: WindowState
    revision: int
    closed: bool
    complete_up_to: int


class Partition:
    """Joins facts of requests, counts them into windows, and merges the published windows of the tenants it owns.

    Every effect is idempotent by itself, because a crash may leave any prefix of the writes behind: windows carry marks
    of what they have counted, stories hold each fact once, and of a part only the newest version counts.
    """

    def __init__(self, partition: int, rules: Rules, *, records: Iterable[Record] = (), now: int) -> None:
        kept = list(records)
        self.number = partition
        self._rules = rules
        self._windows = {each.identity: each for each in kept if isinstance(each, WindowState)}
        chunks = [each for each in kept if isinstance(each, StoryChunk)]
        self._stories = Stories(partition=partition, capacity=rules.story_capacity, chunks=chunks)
        self._marks = next((each for each in kept if isinstance(each, Marks)), Marks(partition))
        tallies = [each for each in kept if isinstance(each, Tally)]
        self._board = Board(longest=rules.longest, tallies=tallies, forgotten_before=self._board_horizon)
        self._clock = Clock(self._marks, idle_after=rules.idle_after, now=now)
        self._published: dict[tuple[Series, int], tuple[int, bool]] = {}
        self._unsettled = {id(state): state for state in self._windows.values()}
        self._changed: dict[str, Record | None] = {}
        self._changed_windows: dict[str, Record | None] = {}
        self.dropped: Counter[str] = Counter()
        """Facts that count nowhere, by reason: late, duplicate, forgotten, foreign."""

    @property
    def windows(self) -> Iterable[WindowState]:
        """All windows remembered."""
        return self._windows.values()

    @property
    def requests(self) -> int:
        """Requests remembered."""
        return len(self._stories)

    def next_offset(self, source: str) -> int | None:
        """The offset that follows on what is merged of a source; None when nothing is."""
        return self._marks.frontier.get(source)

    def skip_to(self, source: str, offset: int) -> None:
        """Go on at an offset, because the log no longer holds what is before it."""
        self._marks.frontier[source] = offset

    def rewind(self, source: str, end: int) -> None:
        """The log ends before what was merged. What comes again is known by its ids, not by its offsets."""
        self._marks.frontier[source] = end

    def absorb(
        self, source: str, facts: Sequence[StoryFact | Tally], *, now: int, through: int | None = None
    ) -> dict[str, Record | None]:
        """Merge facts of one source in the order of their offsets; `through` is the offset of the last event read.

        Returns what must be stored, windows first: whatever prefix of the writes survives a crash, nothing is marked as
        done that was not counted. None means: delete.
        """
        for fact in facts:
            if isinstance(fact, Tally):
                self._absorb_tally(fact)
            else:
                self._clock.hear(source, at=fact.at, now=now)
                self._absorb_story_fact(fact)
        if through is not None:
            self._marks.frontier[source] = max(self._marks.frontier.get(source, 0), through + 1)
        self._forget(self._clock.watermark(now) - self._rules.lateness - self._rules.retention)
        self._forget_tallies()
        return self._take_changes()

    def parts_due(self, now: int) -> list[Part]:
        """Windows whose published form is out of date."""
        watermark = self._clock.watermark(now)
        due = []
        for state in self._unsettled.values():
            closed = state.end + self._rules.lateness <= watermark
            if self._published.get(state.identity) != (state.revision, closed):
                due.append(Part(state, state.revision, closed, watermark))
        return due

    def mark_published(self, part: Part) -> None:
        """The part is out: it is due again only when it changes."""
        self._published[part.state.identity] = (part.revision, part.closed)
        if part.closed and part.state.revision == part.revision:
            self._unsettled.pop(id(part.state), None)

    def frames_due(self, now: int) -> list[Frame]:
        """Merged windows to be measured."""
        return self._board.due(self._clock.watermark(now) - self._rules.lateness)

    def mark_measured(self, frame: Frame) -> None:
        """The measurements are out."""
        self._board.mark_measured(frame)

    def _absorb_tally(self, tally: Tally) -> None:
        reached = max(self._marks.watermarks.get(_TALLIES, 0), tally.start + tally.length)
        self._marks.watermarks[_TALLIES] = reached
        if self._board.is_forgotten(tally):
            self.dropped["late"] += 1
        elif self._board.put(tally):
            self._changed[tally.key] = tally

    def _absorb_story_fact(self, fact: StoryFact) -> None:
        story, chunk = self._stories.of(fact.request_id)
        if not story.add(fact):
            self.dropped["duplicate"] += 1
            return
        self._changed[chunk.key] = chunk
        if story.completion is not None:
            self._count(story, story.completion, fact)

    def _count(self, story: Story, completion: Completion, fact: StoryFact) -> None:
        """Count whatever the new fact completes, at the moment when all of it was known: the same in any order."""
        decisions = [fact] if isinstance(fact, Decision) else list(story.decisions.values())
        for decision in decisions:
            if decision.tenant_id != completion.tenant_id:
                self.dropped["foreign"] += 1
                continue
            if not isinstance(fact, Review):
                self._count_decision(decision, completion)
            for review in story.reviews.values() if not isinstance(fact, Review) else (fact,):
                if review.decision_id == decision.decision_id:
                    self._count_review(review, decision, completion)

    def _count_decision(self, decision: Decision, completion: Completion) -> None:
        state = self._window(decision, completion, max(decision.at, completion.at))
        if state is None:
            return
        for counts in self._take(state, f"decision|{decision.decision_id}", decision, completion):
            counts.add_decision(decision)
        if completion.answered and decision.decision_id == completion.input_decision_id:
            for counts in self._take(state, f"answer|{decision.decision_id}", decision, completion):
                counts.add_answer(completion)

    def _count_review(self, review: Review, decision: Decision, completion: Completion) -> None:
        if review.tenant_id != decision.tenant_id:
            self.dropped["foreign"] += 1  # nobody judges another tenant's decisions
            return
        state = self._window(decision, completion, max(review.at, decision.at, completion.at))
        if state is not None:
            for counts in self._take(state, f"review|{review.review_id}", decision, completion):
                counts.add_review(review, decision)

    def _take(self, state: WindowState, what: str, decision: Decision, completion: Completion) -> list[GroupCounts]:
        counts = state.take(what, group_keys(decision, completion))
        if counts is None:
            self.dropped["duplicate"] += 1
            return []
        self._changed_windows[state.key] = self._unsettled[id(state)] = state
        return counts

    def _window(self, decision: Decision, completion: Completion, at: int) -> WindowState | None:
        series = Series(decision.tenant_id, decision.project_id, completion.model, decision.policy)
        start = at - at % self._rules.length
        state = self._windows.get((series, start))
        if state is None and start + self._rules.length <= self._marks.forgotten_before:
            self.dropped["late"] += 1
            return None
        if state is None:
            state = self._windows[series, start] = WindowState(series, start, self._rules.length, self.number)
        return state

    def _forget(self, horizon: int) -> None:
        # Whole windows only, and only those that were published as closed.
        horizon -= horizon % self._rules.length
        if horizon <= self._marks.forgotten_before:
            return
        self._marks.forgotten_before = horizon
        for state in [each for each in self._windows.values() if each.end <= horizon]:
            if id(state) not in self._unsettled:
                del self._windows[state.identity]
                self._published.pop(state.identity, None)
                self._changed[state.key] = None

    def _forget_tallies(self) -> None:
        for tally in self._board.forget(self._board_horizon):
            self._changed[tally.key] = None

    @property
    def _board_horizon(self) -> int:
        horizon = self._marks.watermarks.get(_TALLIES, 0) - self._rules.lateness - self._rules.retention
        return max(0, horizon - horizon % self._rules.length)

    def _take_changes(self) -> dict[str, Record | None]:
        self.dropped["forgotten"], self._stories.forgotten = self.dropped["forgotten"] + self._stories.forgotten, 0
        changed = {**self._changed_windows, **self._changed, self._marks.key: self._marks}
        self._changed_windows, self._changed = {}, {}
        return changed
