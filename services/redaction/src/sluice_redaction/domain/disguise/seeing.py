"""Finding what a text holds, in the open or in disguise: the order of looks, cheapest first.

1. The text as it reads (`characters`, `escapes`): every detector reads this one instead of the text as it is written.
2. Stretches where layout or spelling could hide a value (`markup`, `spelling`): patterns only, and only there.
3. What decodes to readable text (`encodings`): every detector, on what was decoded.

Plain text costs a few scans for single characters and words.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import accumulate

from ..findings import Detector, Finding
from .characters import character_edits
from .encodings import blobs
from .escapes import escape_edits
from .markup import emphasis_edits, markup_edits
from .spelling import spelling_edits
from .views import View

Decide = Callable[[Iterable[Finding], str], list[Finding]]
_MARGIN = 80  # characters around a disguise that patterns are shown: as far as context words count
_DEEPEST = 2  # encodings within encodings
_BETWEEN = "\n\n"
_ROUNDS = 2  # escapes of escapes: %2540


def find(
    text: str,
    detector: Detector,
    kinds: frozenset[str],
    decide: Decide,
    *,
    decoded: Decide | None = None,
    depth: int = 0,
) -> list[Finding]:
    """What stands in the text, by positions in it as it is written; `decide` makes findings of candidates, and `decoded`
    of those in what was decoded, if that is decided otherwise."""
    view = as_it_reads(text)
    found = list(detector.detect(view.text, kinds))
    found.extend(_hidden(view.text, detector, kinds, decoded or decide, depth))
    decided = decide(found, view.text)
    return decided if view.is_plain else list(_as_written(decided, view))


def as_it_reads(text: str) -> View:
    """The text without what a reader would not notice."""
    view = View.plain(text)
    for _ in range(_ROUNDS):
        unescaped = view.edited(escape_edits(view.text))
        if unescaped is view:
            break
        view = unescaped
    view = view.edited(character_edits(view.text))
    return view.edited(emphasis_edits(view.text))


def _as_written(findings: Iterable[Finding], view: View) -> Iterator[Finding]:
    """With positions in the text under the view. Two findings of one stretch that only reads as two are told apart by
    giving it to the first."""
    covered = 0
    for finding in findings:
        start, end = view.original(finding.start, finding.end)
        names = view.disguises(finding.start, finding.end)
        if end > covered:
            yield replace(finding, start=max(start, covered), end=end, disguise=_joined(names, finding.disguise))
            covered = end


def _hidden(text: str, detector: Detector, kinds: frozenset[str], decide: Decide, depth: int) -> Iterator[Finding]:
    plain = View.plain(text)
    unmarked = plain.edited(markup_edits(text))
    spelled = unmarked.edited(spelling_edits(unmarked.text))
    if unmarked is not plain:
        yield from _around_edits(unmarked, detector, kinds)
    if spelled is not unmarked:
        yield from _around_edits(spelled, detector, kinds)
    if depth < _DEEPEST:
        yield from _decoded(unmarked, detector, kinds, decide, depth)


def _around_edits(view: View, detector: Detector, kinds: frozenset[str]) -> Iterator[Finding]:
    """What patterns find across an edit. Digits that only a join brought together need a check or a word beside them."""
    for first, last in view.regions(_MARGIN):
        for candidate in detector.detect_patterns(view.text[first:last], kinds):
            finding = candidate.shifted(first)
            names = frozenset(edit.disguise for edit in view.edits_in(finding.start, finding.end))
            if names and _counts(finding, names):
                start, end = view.original(finding.start, finding.end)
                yield replace(
                    finding, start=start, end=end, disguise=_joined(view.disguises(finding.start, finding.end))
                )


def _counts(finding: Finding, disguises: frozenset[str]) -> bool:
    """Numbers that were only brought together, such as object identifiers, need a check or a word beside them."""
    if "spaced" in disguises and finding.kind not in ("EMAIL_ADDRESS", "API_KEY"):
        return bool(finding.validation or finding.context)
    return finding.confirmed or "spoken" in disguises


def _decoded(view: View, detector: Detector, kinds: frozenset[str], decide: Decide, depth: int) -> Iterator[Finding]:
    """Encoded stretches whose text holds something: the whole stretch is the finding, of the surest kind inside.

    All are read in one go, a blank line between: a look at each would cost fifty times as much where they are short.
    """
    stretches = list(blobs(view.text))
    if not stretches:
        return
    starts = list(accumulate((len(blob.decoded) + len(_BETWEEN) for blob in stretches), initial=0))
    inside: dict[int, Finding] = {}
    for finding in find(_BETWEEN.join(blob.decoded for blob in stretches), detector, kinds, decide, depth=depth + 1):
        for number in range(bisect_right(starts, finding.start) - 1, bisect_left(starts, finding.end)):
            inside[number] = max(inside.get(number, finding), finding, key=_sureness)
    for number, surest in sorted(inside.items()):
        blob = stretches[number]
        start, end = view.original(blob.start, blob.end)
        names = view.disguises(blob.start, blob.end) | {blob.encoding}
        yield replace(surest, start=start, end=end, confirmed=True, disguise=_joined(names, surest.disguise))


def _sureness(finding: Finding) -> tuple[bool, float, str]:
    return finding.confirmed, finding.score, finding.kind


def _joined(names: Iterable[str], *more: str) -> str:
    return "+".join(sorted({*names, *(name for one in more for name in one.split("+") if name)}))
