"""Everything quality knows of one partition, and how facts change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, cast

from sluice_quality.domain.attribution import (
    DETACHED,
    Attribution,
    AttributionChunk,
    Attributions,
    PendingFeedback,
    PendingFeedbacks,
)
from sluice_quality.domain.facts import Completion, Fact, Feedback, Judgement, Moderation, Series
from sluice_quality.domain.watermark import Clock, Marks
from sluice_quality.domain.window import WindowState

if TYPE_CHECKING:  # numpy comes with an extra
    from sluice_quality.domain.columns import CompletionColumns

Record = WindowState | AttributionChunk | PendingFeedback | Marks
"""What is stored, each under its own `key`."""

_SECOND = 1_000_000
_DECISIONS_KEPT = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How windows are cut and how long things are remembered. Times in microseconds."""

    length: int = 60 * _SECOND
    lateness: int = 30 * _SECOND
    """A window closes when the watermark is this far past its end."""
    retention: int = 1800 * _SECOND
    """A closed window can be restated for so long; after that, late facts are dropped and counted."""
    idle_after: int = 30 * _SECOND
    attribution_capacity: int = 100_000
    pending_capacity: int = 20_000
    marks_are_doubted: bool = False
    """The broker may lose what it acknowledged and keep what came after, as the embedded one does."""


@dataclass(frozen=True, slots=True)
class Part:
    """A window as it stands now, ready to be published."""

    state: WindowState
    revision: int
    closed: bool
    complete_up_to: int


class _Batch:
    """Completions of a batch by the window they belong to, each group in the order of the log."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._by_start: dict[tuple[int, int], list[Completion]] = {}
        """By id() of the series, whose hash takes longer than all else here. Two objects may be the same series, so the
        group is that of the window."""
        self._by_window: dict[int, tuple[WindowState, list[Completion]]] = {}

    def add(self, completion: Completion, window: Callable[[Series, int], WindowState | None]) -> None:
        """Into its window's group; nowhere when it is too late."""
        at = completion.at
        place = (id(completion.series), at - at % self._length)
        group = self._by_start.get(place)
        if group is None:
            state = window(completion.series, at)
            if state is None:
                return
            _, group = self._by_window.setdefault(id(state), (state, []))
            self._by_start[place] = group
        group.append(completion)

    @property
    def groups(self) -> Iterable[tuple[WindowState, list[Completion]]]:
        """Windows with what belongs to them."""
        return self._by_window.values()


class Partition:
    """Merges facts into windows. Any batch split, and any order within the retention, gives the same windows.

    Every effect is idempotent by itself, because a crash may leave any prefix of the writes behind: windows carry the
    offsets and feedback marks they have merged, attributions and pending feedback are sets.
    """

    def __init__(
        self, partition: int, rules: Rules, *, records: Iterable[Record] = (), now: int, completions: str = ""
    ) -> None:
        """`completions` names their source, where it is to be proved of the records that they fit together."""
        kept = list(records)
        self.number = partition
        self._rules = rules
        self._windows = {each.identity: each for each in kept if isinstance(each, WindowState)}
        self._attributions = Attributions(
            partition=partition,
            capacity=rules.attribution_capacity,
            chunks=[each for each in kept if isinstance(each, AttributionChunk)],
        )
        self._pending = PendingFeedbacks(
            capacity=rules.pending_capacity, waiting=[each for each in kept if isinstance(each, PendingFeedback)]
        )
        self._marks = next((each for each in kept if isinstance(each, Marks)), Marks(partition))
        self._stored_frontier = dict(self._marks.frontier)
        self._clock = Clock(self._marks, idle_after=rules.idle_after, now=now)
        self._published: dict[tuple[Series, int], tuple[int, bool]] = {}
        self._unsettled = {id(state): state for state in self._windows.values()}
        self._changed_windows: dict[int, WindowState] = {}
        """By id(): hashing a series of six names three times an event took a tenth of the whole."""
        self._changed: dict[str, Record | None] = {}
        self._changed_first: dict[str, Record | None] = {}
        self._gone: dict[str, Record | None] = {}
        self._completions = completions
        self._decisions: dict[str, int] = {}
        self.dropped: Counter[str] = Counter()
        """Facts that count nowhere, by reason: late, duplicate, replayed, forgotten, foreign."""
        # Windows of another length say nothing of the windows that requests would be in now.
        if completions and all(state.length == rules.length for state in self._windows.values()):
            self._read_again_what_no_window_has()

    @property
    def windows(self) -> Iterable[WindowState]:
        """All windows remembered."""
        return self._windows.values()

    @property
    def waiting(self) -> int:
        """Feedback that waits for its completion."""
        return len(self._pending)

    def next_offset(self, source: str) -> int | None:
        """The offset that follows on what is merged of a source; None when nothing is."""
        return self._marks.frontier.get(source)

    def skip_to(self, source: str, offset: int) -> None:
        """Go on at an offset, because the log no longer holds what is before it."""
        self._marks.frontier[source] = offset

    def rewind(self, source: str, end: int) -> None:
        """The log ends at `end`, before what was merged: the broker lost records, and will give their offsets again.

        What was counted of them stays counted, also when it comes again at the very offset where it stood.
        """
        if source == self._completions:
            counted = [entry for entry in self._attributions.known if entry.offset >= end and self._is_counted(entry)]
            for chunk in self._attributions.detach(counted):
                self._changed_first[chunk.key] = chunk
        else:
            self._decisions = {name: at if at < end else DETACHED for name, at in self._decisions.items()}
        self._marks.frontier[source] = end
        for state in self._windows.values():
            if state.offsets.get(source, -1) >= end:
                state.offsets[source] = end - 1
                self._note(state)

    def absorb(
        self, source: str, facts: Sequence[Fact] | CompletionColumns, *, now: int, through: int | None = None
    ) -> dict[str, Record | None]:
        """Merge facts of one source, in the order of their offsets; `through` is the offset of the last event read.

        Returns what must be stored, in an order that matters: windows first, so that whatever prefix of the
        writes survives a crash, nothing is marked as done that was not counted (but what was counted at an offset that is
        given again is marked before its window says that the offset is free). None means: delete.
        """
        if isinstance(facts, Sequence):
            self._absorb_facts(source, facts, now)
        else:
            self._absorb_columns(source, facts, now)
        if through is not None:
            self._marks.frontier[source] = max(self._marks.frontier.get(source, 0), through + 1)
        self._forget(self._clock.watermark(now) - self._rules.lateness - self._rules.retention)
        return self._take_changes()

    def _absorb_facts(self, source: str, facts: Sequence[Fact], now: int) -> None:
        # A judgement is dated by its answer, minutes before it: it must not hold back what is complete.
        if facts and type(facts[0]) is not Judgement:
            self._clock.hear(source, at=max(fact.at for fact in facts), now=now)
        for kind, found in groupby(facts, key=type):
            if kind is Completion:
                self._doubt_what_is_not_merged(source)
                self._absorb_completions(source, cast(Iterable[Completion], found))
            elif kind is Feedback:
                self._absorb_feedback(cast(Iterable[Feedback], found))
            elif kind is Judgement:
                self._absorb_judgements(cast(Iterable[Judgement], found))
            else:
                self._absorb_moderation(source, cast(Iterable[Moderation], found))

    def _absorb_columns(self, source: str, columns: CompletionColumns, now: int) -> None:
        """At least one. When a request is known already, each is looked at."""
        self._clock.hear(source, at=int(columns.at.max()), now=now)
        self._doubt_what_is_not_merged(source)
        if self._attributions.are_new(columns.request_id):
            self._absorb_shares(source, columns)
        else:
            self._absorb_completions(source, columns.completions())

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

    def _doubt_what_is_not_merged(self, source: str) -> None:
        """Once: beyond the stored frontier only the windows say what they counted.

        The embedded broker may lose the end of the changelog, too, and keep some of its keys: a request that was known
        there and not in its window would be taken for a copy, and count nowhere.
        """
        if source in self._stored_frontier:
            self._attributions.forget_from(self._stored_frontier.pop(source))

    def _read_again_what_no_window_has(self) -> None:
        """A request that is known and in no window was never counted: it is forgotten, and read again from where it stood.

        Windows are written before all else, so no crash does this. The embedded broker does: it may lose a window and keep
        what was written after it. Then the log may have lost its end as well: what was counted is known by its id alone.
        """
        if self._rules.marks_are_doubted:
            self._read_again_what_nobody_knows()
        known = list(self._attributions.known)
        lost = [entry for entry in known if not self._is_counted(entry)]
        if lost:
            # Of what is detached nobody knows where it stands: not before the oldest that is known.
            oldest = min((entry.offset for entry in known if entry.offset != DETACHED), default=0)
            first = min(oldest if entry.offset == DETACHED else entry.offset for entry in lost)
            self._attributions.forget(lost)
            self.rewind(self._completions, min(first, self._marks.frontier.get(self._completions, first)))

    def _read_again_what_nobody_knows(self) -> None:
        """Beyond the last request that is known the marks have only the word of a later batch, maybe of another source.

        What cannot be read there may so become a dead letter twice.
        """
        last = max((entry.offset for entry in self._attributions.known), default=DETACHED)
        frontier = self._marks.frontier.get(self._completions)
        if last != DETACHED and frontier is not None:
            self._marks.frontier[self._completions] = min(frontier, last + 1)

    def _is_counted(self, entry: Attribution) -> bool:
        start = entry.at - entry.at % self._rules.length
        state = self._windows.get((entry.series, start))
        if state is None:
            return start + self._rules.length <= self._marks.forgotten_before  # closed and gone, or it came too late
        return state.offsets.get(self._completions, -1) >= entry.offset

    def _absorb_completions(self, source: str, completions: Iterable[Completion]) -> None:
        """Each is looked up and remembered by itself; those of one window are counted together."""
        batch = _Batch(self._rules.length)
        open_chunk: AttributionChunk | None = None
        for completion in completions:
            known = self._attributions.find(completion.request_id)
            if known is not None and known.offset != completion.offset:
                self.dropped["duplicate"] += 1  # its producer sent the event twice
                continue
            batch.add(completion, self._window)
            if known is None:
                known, chunk = self._attributions.remember(completion)
                if chunk is not open_chunk:
                    self._remember(chunk)
                    open_chunk = chunk
            self._attribute_waiting(known)
        for state, found in batch.groups:
            self._count_many(state, state.merge_completions(source, found), len(found))

    def _absorb_shares(self, source: str, columns: CompletionColumns) -> None:
        """Of requests that are new, each."""
        for share in columns.shares(self._rules.length):
            state = self._window(share.series, share.at)
            if state is None:
                self.dropped["late"] += share.requests - 1  # one is counted as such already
            else:
                self._count_many(state, state.merge_share(source, share), share.requests)
        at, offsets = columns.at.tolist(), columns.offset.tolist()
        entries = list(map(Attribution, columns.request_id, offsets, at, columns.series_by_row()))
        for chunk in self._attributions.remember_all(entries):
            self._remember(chunk)
        for entry in entries if self._pending.has_any(columns.request_id) else ():
            self._attribute_waiting(entry)

    def _count_many(self, state: WindowState, counted: int, among: int) -> None:
        if counted:
            self._note(state)
        if counted < among:
            self.dropped["replayed"] += among - counted

    def _remember(self, chunk: AttributionChunk) -> None:
        """Stored with the full chunk before it, which nothing else would write again.

        The embedded broker may lose what it has acknowledged in its last second, and keep what comes after: a window that was
        written again then counts requests that nobody knows, and counts their copies once more.
        """
        if (full := self._attributions.before(chunk)) is not None:
            self._changed[full.key] = full
        self._changed[chunk.key] = chunk

    def _absorb_feedback(self, pieces: Iterable[Feedback]) -> None:
        for feedback in pieces:
            known = self._attributions.find(feedback.request_id)
            if known is not None:
                self._attribute(feedback, known)
                continue
            pending = PendingFeedback(self.number, feedback)
            self._changed[pending.key] = pending
            for forgotten in self._pending.add(pending):
                self._changed[forgotten.key] = None
                self.dropped["forgotten"] += 1

    def _absorb_moderation(self, source: str, decisions: Iterable[Moderation]) -> None:
        for moderation in decisions:
            if self._decisions.setdefault(moderation.event_id, moderation.offset) != moderation.offset:
                self.dropped["duplicate"] += 1  # an outbox sent it again, a moment later
                continue
            if len(self._decisions) > _DECISIONS_KEPT:
                del self._decisions[next(iter(self._decisions))]
            state = self._window(moderation.series, moderation.at)
            if state is not None:
                self._count(state, state.merge_moderation(source, moderation))

    def _absorb_judgements(self, judgements: Iterable[Judgement]) -> None:
        for judgement in judgements:
            state = self._window(judgement.series, judgement.at)
            if state is not None:
                self._count(state, state.merge_judgement(judgement))

    def _attribute_waiting(self, request: Attribution) -> None:
        for pending in self._pending.take(request.request_id):
            self._changed[pending.key] = None
            self._attribute(pending.feedback, request)

    def _attribute(self, feedback: Feedback, request: Attribution) -> None:
        if feedback.tenant_id != request.series.tenant_id:
            self.dropped["foreign"] += 1  # nobody judges another tenant's answers
            return
        # The moment both were known: the same whichever of the two comes first.
        state = self._window(request.series, max(feedback.at, request.at))
        if state is not None:
            self._count(state, state.merge_feedback(feedback))

    def _window(self, series: Series, at: int) -> WindowState | None:
        start = at - at % self._rules.length
        state = self._windows.get((series, start))
        if state is None and start + self._rules.length <= self._marks.forgotten_before:
            self.dropped["late"] += 1
            return None
        if state is None:
            state = self._windows[series, start] = WindowState(series, start, self._rules.length, self.number)
        return state

    def _count(self, state: WindowState, counted: bool) -> None:
        if counted:
            self._note(state)
        else:
            self.dropped["replayed"] += 1

    def _note(self, state: WindowState) -> None:
        self._changed_windows[id(state)] = self._unsettled[id(state)] = state

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
                self._gone[state.key] = None

    def _take_changes(self) -> dict[str, Record | None]:
        changed = self._changed_first | {state.key: state for state in self._changed_windows.values()} | self._changed
        changed[self._marks.key] = self._marks
        changed |= self._gone  # after the marks that say so: what is in no window is otherwise taken for lost
        self._changed_first, self._changed_windows, self._changed, self._gone = {}, {}, {}, {}
        return changed
