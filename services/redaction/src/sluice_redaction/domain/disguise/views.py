"""A view: a text as it reads without its disguise, with the exact way back to where each character came from."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """`text[start:end]` reads as `becomes`. disguise: what kind of disguise that undoes."""

    start: int
    end: int
    becomes: str
    disguise: str


class View:
    """A text, or another view, after edits. Offsets are code points.

    What a character of the view came from: itself, or the whole stretch that an edit replaced. What edits removed belongs
    to a span only if the span goes on behind it.
    """

    __slots__ = ("_base", "_edits", "_ends", "_starts", "text")

    def __init__(self, text: str, edits: Sequence[Edit] = (), base: "View | None" = None) -> None:
        """text: already edited. Use `View.plain` and `edited`."""
        self.text = text
        self._edits = edits
        self._base = base
        self._starts: list[int] = []  # of each edit, in the view
        self._ends: list[int] = []
        shift = 0
        for edit in edits:
            self._starts.append(edit.start + shift)
            shift += len(edit.becomes) - (edit.end - edit.start)
            self._ends.append(edit.end + shift)

    @classmethod
    def plain(cls, text: str) -> "View":
        return cls(text)

    def edited(self, edits: Iterable[Edit]) -> "View":
        """A view on top of this one. Of edits that overlap the first counts; without edits it is this one itself."""
        chosen = _apart(sorted(edits))
        if not chosen:
            return self
        pieces: list[str] = []
        position = 0
        for edit in chosen:
            pieces += (self.text[position : edit.start], edit.becomes)
            position = edit.end
        pieces.append(self.text[position:])
        return View("".join(pieces), chosen, self)

    @property
    def is_plain(self) -> bool:
        return self._base is None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span of the text under all views that `[start, end)` of this one came from."""
        span = self.one_down(start, end)
        return span if self._base is None else self._base.original(*span)

    def disguises(self, start: int, end: int) -> frozenset[str]:
        """What had to be undone for this span, in this view and those below it."""
        own = frozenset(edit.disguise for edit in self.edits_in(start, end))
        if self._base is None:
            return own
        return own | self._base.disguises(*self.one_down(start, end))

    def one_down(self, start: int, end: int) -> tuple[int, int]:
        """The span of the text right under this view."""
        return self._came_from(start)[0], self._came_from(end - 1)[1] if end > start else self._came_from(start)[0]

    def edits_in(self, start: int, end: int) -> Sequence[Edit]:
        """The edits of this view that gave the span a character, or took one out of its middle."""
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        return self._edits[first:last]

    def regions(self, margin: int) -> list[tuple[int, int]]:
        """Stretches of this view that hold its edits, with some text around; no two overlap."""
        merged: list[tuple[int, int]] = []
        for start, end in zip(self._starts, self._ends, strict=True):
            first, last = max(0, start - margin), min(len(self.text), end + margin)
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        return merged

    def _came_from(self, place: int) -> tuple[int, int]:
        """The span under the character at `place`."""
        number = bisect_right(self._starts, place) - 1
        if number < 0:
            return place, place + 1
        edit = self._edits[number]
        if place < self._ends[number]:
            return edit.start, edit.end
        start = edit.end + place - self._ends[number]
        return start, start + 1


def _apart(edits: Iterable[Edit]) -> list[Edit]:
    chosen: list[Edit] = []
    for edit in edits:
        if not chosen or edit.start >= chosen[-1].end:
            chosen.append(edit)
    return chosen
