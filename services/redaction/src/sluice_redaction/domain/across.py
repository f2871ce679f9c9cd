"""Values split over consecutive texts of one request: "my card is 4111 1111", then "1111 1111".

The end of one text and the beginning of the next are read as one where they could be halves of a value; each half of
what is found there is a finding of its own text, with a placeholder of its own, so that restoring needs to know nothing.
Also over the other side's reply: the text after the next is looked at too.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from .arbitration import arbitrate
from .detection import OwnTokens, decide
from .disguise import Edit, View, find, joint
from .findings import Detector, Finding
from .placeholders import placeholder_like
from .policy import Policy

_LOOK = 120  # characters of a text that are read with its neighbour
_STRIDES = (1, 2)
_LONGEST_CHAIN = 12  # texts
_NUMBER_WORDS = r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|double|triple)"
_SPOKEN_TAIL = re.compile(rf"\b{_NUMBER_WORDS}[\s,.\-]{{1,3}}{_NUMBER_WORDS}$", re.IGNORECASE)
_SPOKEN_HEAD = re.compile(rf"{_NUMBER_WORDS}\b", re.IGNORECASE)
_SPELLED_TAIL = re.compile(r"(?:\b(?:at|dot)|[\[({](?:at|dot)[\])}])$", re.IGNORECASE)
_SPELLED_HEAD = re.compile(r"(?:(?:at|dot)\b|[\[({](?:at|dot)[\])}])", re.IGNORECASE)
_DIGITS_TAIL = re.compile(r"\d{3,}$|(?:\d[ \-]?){3}$")
# "and the rest is 1111 1111": words before the second half, which then needs a checksum.
_WORDS_THEN_DIGITS = re.compile(r"[A-Za-z ,:\-]{1,40}(?=\d{3})")
_CLOSING = ".,;:!?)\"'"


@dataclass(frozen=True, slots=True)
class _Part:
    """`text[start:end]` of the request's text `number`, which begins at `place` in the joined text."""

    number: int
    start: int
    end: int
    place: int


def across(
    texts: Sequence[str],
    found: Sequence[Sequence[Finding]],
    detector: Detector,
    policy: Policy,
    *,
    own_tokens: OwnTokens | None = None,
) -> list[list[Finding]]:
    """The findings of each text, and those that only two texts together show.

    own_tokens: as for `SegmentedDetection`.
    """
    own = own_tokens or (lambda text: list(placeholder_like(text, policy.custom_kinds)))
    patterns = _PatternsOnly(policy.with_recognizers(detector))
    more: list[list[Finding]] = [[] for _ in texts]
    for chain in chains(texts):
        joined = _joined(chain, texts)
        view = View.plain(joined.text).edited(joined.edits)
        candidates = find(view.text, patterns, policy.kinds, lambda given, text: decide(given, text, policy, own(text)))
        for finding in candidates:
            if _counts(finding, view.edits_in(finding.start, finding.end)):
                for number, part in _parts_of(finding, view, joined):
                    more[number].append(part)
    return [
        arbitrate([*old, *new], text) if new else list(old) for text, old, new in zip(texts, found, more, strict=True)
    ]


def chains(texts: Sequence[str]) -> list[list[int]]:
    """Texts, by number, that could hold parts of one value. Cheap: a few looks at the ends of each text."""
    found: list[list[int]] = []
    for stride in _STRIDES:
        for first in range(min(stride, len(texts))):
            found.extend(_runs(range(first, len(texts), stride), texts))
    return found


def _runs(numbers: Sequence[int], texts: Sequence[str]) -> Iterator[list[int]]:
    run: list[int] = []
    for number in numbers:
        if run and _seam(texts[run[-1]], texts[number]) is not None:
            run.append(number)
            # A text that is read whole may be a middle part; of a longer one only the end goes on.
            if len(texts[number]) <= _LOOK and len(run) < _LONGEST_CHAIN:
                continue
        if len(run) > 1:
            yield run
        run = [number]
    if len(run) > 1:
        yield run


@dataclass(frozen=True, slots=True)
class _Seam:
    """Between two halves: `becomes`. skipped: characters of the second text before its half."""

    becomes: str
    skipped: int = 0


def _seam(one: str, two: str) -> _Seam | None:
    """None if nothing can run from the end of one text into the beginning of the next."""
    tail, head = one[-_LOOK:].rstrip(), two[:_LOOK]
    lead = len(head) - len(head.lstrip())
    head = head[lead:]
    if not tail or not head:
        return None
    between = joint(f"{tail}\n{head}", len(tail), len(tail) + 1)
    if between is not None:
        return _Seam(between)
    if (_SPOKEN_TAIL.search(tail) and _SPOKEN_HEAD.match(head)) or _SPELLED_TAIL.search(tail):
        return _Seam(" ")
    if _SPELLED_HEAD.match(head) and tail[-1].isalnum():
        return _Seam(" ")
    words = _WORDS_THEN_DIGITS.match(head) if _DIGITS_TAIL.search(tail.rstrip(_CLOSING)) else None
    return _Seam(" ", words.end()) if words else None


@dataclass(frozen=True, slots=True)
class _Joined:
    """The ends of texts one after the other, where each came from, and what to read at the seams."""

    text: str
    parts: Sequence[_Part]
    edits: Sequence[Edit]


def _joined(chain: Sequence[int], texts: Sequence[str]) -> _Joined:
    joined, parts, edits = "", [], []
    for place, number in enumerate(chain):
        text = texts[number]
        last = place == len(chain) - 1
        start = 0 if place else max(0, len(text) - _LOOK)
        end = min(len(text), _LOOK) if last and place else len(text.rstrip())
        if place:
            seam = _seam(texts[chain[place - 1]], text) or _Seam(" ")
            start = len(text) - len(text.lstrip()) + seam.skipped
            edits.append(Edit(len(joined), len(joined) + 1, seam.becomes, "words" if seam.skipped else "split"))
            joined += "\n"
        parts.append(_Part(number, start, end, len(joined)))
        joined += text[start:end]
    return _Joined(joined, parts, edits)


def _counts(finding: Finding, seams: Sequence[Edit]) -> bool:
    """It runs over a seam, and a check, a word or a prefix speaks for it; only a check does where words were skipped."""
    checked = bool(finding.validation) or finding.explanation == "checksum"
    return bool(seams) and (checked or (finding.confirmed and all(edit.disguise == "split" for edit in seams)))


def _parts_of(finding: Finding, view: View, joined: _Joined) -> Iterator[tuple[int, Finding]]:
    """(number of the text, what of the finding stands in it)."""
    start, end = view.original(finding.start, finding.end)
    disguise = "+".join(sorted({"split", *filter(None, finding.disguise.split("+"))}))
    for part in joined.parts:
        first, last = max(start, part.place), min(end, part.place + part.end - part.start)
        if first < last:
            shift = part.start - part.place
            yield part.number, replace(finding, start=first + shift, end=last + shift, disguise=disguise)


class _PatternsOnly:
    """Fits `Detector`: no model is asked about halves."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def detect(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        return self._detector.detect_patterns(text, kinds)

    detect_patterns = detect
