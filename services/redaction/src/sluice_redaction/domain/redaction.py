"""Redaction: findings in texts are replaced; a vault remembers what the tokens stand for."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .arbitration import arbitrate
from .detection import STREAM, Segment, SegmentedDetection
from .findings import Detector, Finding
from .operators import Operation
from .policy import Policy
from .replacing import Replacement, Replacing, Tools
from .restoring import RestoringStream
from .vault import Entry, Vault, parts_of_name

_WORD = re.compile(r"\w+")
_LONGEST_KNOWN = 200  # comparing longer values at every word would be quadratic; the detectors find them anyway
# First names that are words as well: their other occurrences are left to the detectors.
_ALSO_WORDS_TEXT = """
amber angel april art august austin autumn bill bishop carol chad chance chase cherry china christian clay
cliff crystal dallas dawn dean destiny drew earl faith frank gene georgia ginger grace grant guy hazel
heather honey hope hunter iris israel ivy jack jasmine jean jersey jordan joy june lane lily london major
mark mason max may melody mercy mike miles olive page paris pat pearl penny pierce piper poppy ray reed rich
rob robin rose ruby rusty sandy savannah sky skip smith stone sue summer sunny sydney taylor terry tony
victor violet wade wall ward will winter young
"""
_ALSO_WORDS = frozenset(_ALSO_WORDS_TEXT.split())


@dataclass(frozen=True, slots=True)
class RedactedText:
    """text: with tokens. findings: what was found, by positions in the text before; replacements: of each of them."""

    text: str
    findings: Sequence[Finding]
    replacements: Sequence[Replacement]

    def replaced(self) -> Iterator[tuple[Finding, Replacement]]:
        """Without what the policy keeps."""
        pairs = zip(self.findings, self.replacements, strict=True)
        return (pair for pair in pairs if pair[1].operation is not Operation.KEEP)


@dataclass(frozen=True, slots=True)
class Redaction:
    """All texts of a request, redacted with one vault."""

    texts: Sequence[RedactedText]


def redact(
    texts: Sequence[str], found: Sequence[Sequence[Finding]], vault: Vault, replacing: Replacing | None = None
) -> Redaction:
    """Replaces findings, by placeholders or as `replacing` says, one vault for all texts; the vault grows.

    A value found once is replaced wherever it stands in the request, though the detectors missed it there.
    """
    replacing = replacing or Replacing(Policy(), vault)
    for text in texts:
        vault.reserve(text)
    first = [_replace(text, findings, replacing) for text, findings in zip(texts, found, strict=True)]
    known = KnownValues(vault)
    for text, one in zip(texts, first, strict=True):
        known.add_found(text, one)
    redacted = []
    for text, findings in zip(texts, found, strict=True):
        redacted.append(_replace(text, with_known(text, findings, known, replacing), replacing))
    return Redaction(redacted)


def with_known(text: str, findings: Sequence[Finding], known: "KnownValues", replacing: Replacing) -> Sequence[Finding]:
    """The findings, and every other occurrence of a known value outside of them and of tokens."""
    covered = _Spans((one.start, one.end) for one in findings)
    repeats = [one for one in known.occurrences(text) if not covered.hold(one.start, one.end)]
    if not repeats:
        return findings
    own = _Spans(replacing.own_tokens(text))
    free = [one for one in repeats if not own.touch(one.start, one.end)]
    settled: list[Finding] = []
    # Each heap by itself: findings that only touch have been decided about.
    for heap in _heaps(sorted([*findings, *free])):
        settled += arbitrate(heap, text) if len(heap) > 1 else heap
    return settled


def _heaps(findings: Sequence[Finding]) -> Iterator[list[Finding]]:
    """Findings that hang together by overlapping, in order."""
    heap: list[Finding] = []
    end = 0
    for finding in findings:
        if heap and finding.start >= end:
            yield heap
            heap = []
        heap.append(finding)
        end = max(end, finding.end)
    if heap:
        yield heap


class _Spans:
    """Stretches of a text, in order and apart, to ask questions of."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._spans = list(spans)
        self._starts = [start for start, _ in self._spans]

    def hold(self, start: int, end: int) -> bool:
        """Whether one of them covers all of this."""
        place = bisect_right(self._starts, start) - 1
        return place >= 0 and end <= self._spans[place][1]

    def touch(self, start: int, end: int) -> bool:
        """Whether one of them shares a character with this."""
        place = bisect_left(self._starts, end) - 1
        return place >= 0 and self._spans[place][1] > start


class KnownValues:
    """Finds values of a vault in a text, in time linear in the text: by the first word of each value."""

    def __init__(self, vault: Iterable[Entry]) -> None:
        self._kinds: dict[str, str] = {}
        # First word -> how far before it values begin; word and what stands before it -> how long they are. So a word is
        # compared with what begins like the text, at most some hundred times, not with every value that holds it.
        self._offsets: dict[str, set[int]] = {}
        self._lengths: dict[tuple[str, str], set[int]] = {}
        entries = list(vault)
        # Not the parts of names that made-up names brought along: nobody found these by themselves.
        parts = {pair for entry in entries for pair in parts_of_name(entry)}
        for entry in entries:
            if (entry.value, entry.placeholder) not in parts:
                self.add(entry.value, entry.kind)

    def add_found(self, text: str, redacted: RedactedText) -> None:
        """What was replaced in this text, whether a vault remembers it or not."""
        for finding, _ in redacted.replaced():
            self.add(text[finding.start : finding.end], finding.kind)

    def add(self, value: str, kind: str) -> None:
        word = _WORD.search(value)
        if word is None or not 3 <= len(value) <= _LONGEST_KNOWN or not _is_telling(value, kind):
            return
        self._kinds.setdefault(value, kind)
        self._offsets.setdefault(word[0], set()).add(word.start())
        self._lengths.setdefault((word[0], value[: word.start()]), set()).add(len(value))

    def occurrences(self, text: str) -> Iterator[Finding]:
        """In order, not overlapping; at each word the longest value."""
        end = 0
        for word in _WORD.finditer(text) if self._kinds else ():
            if word.start() < end:
                continue
            free = [span for span in self._spans(text, word) if span[0] >= end and self._is_known(text, *span)]
            if free:
                start, end = max(free, key=lambda span: span[1] - span[0])
                kind = self._kinds[text[start:end]]
                yield Finding(start, end, kind, 1.0, "repeat", "same value elsewhere in the request")

    def _spans(self, text: str, word: re.Match[str]) -> Iterator[tuple[int, int]]:
        """Where values could stand that have this as their first word."""
        for offset in self._offsets.get(word[0], ()):
            start = word.start() - offset
            if start >= 0:
                lengths = self._lengths.get((word[0], text[start : word.start()]), ())
                yield from ((start, start + length) for length in lengths)

    def _is_known(self, text: str, start: int, end: int) -> bool:
        value = text[start:end]
        return value in self._kinds and _stands_free(text, value, start)


def _is_telling(value: str, kind: str) -> bool:
    """False for a value that is likely to mean something else elsewhere."""
    if kind in ("PERSON", "LOCATION", "ORGANIZATION", "NRP", "DATE_TIME"):
        return len(_WORD.findall(value)) > 1 or value.casefold() not in _ALSO_WORDS
    return len(value) > 4


def _stands_free(text: str, value: str, start: int) -> bool:
    """The value that stands at `start` is not a part of longer words."""
    end = start + len(value)
    return not (start > 0 and text[start - 1].isalnum() and value[0].isalnum()) and not (
        end < len(text) and text[end].isalnum() and value[-1].isalnum()
    )


def _replace(
    text: str, findings: Sequence[Finding], replacing: Replacing, *, before: str = "", goes_on: bool = False
) -> RedactedText:
    """before: the character before the text. goes_on: there is more text, but not here."""
    pieces: list[str] = []
    replacements: list[Replacement] = []
    position = 0
    for number, finding in enumerate(findings):
        glued = finding.start == position and number > 0
        follower = findings[number + 1].start if number + 1 < len(findings) else -1
        apart = not glued and follower != finding.end and not (goes_on and finding.end == len(text))
        alone = (
            apart
            and not _in_word(text[finding.start - 1 : finding.start] or before)
            and not _in_word(text[finding.end : finding.end + 1])
        )
        replacement = replacing.of(text[finding.start : finding.end], finding.kind, alone=alone)
        pieces += (text[position : finding.start], replacement.text)
        replacements.append(replacement)
        position = finding.end
    pieces.append(text[position:])
    return RedactedText("".join(pieces), findings, replacements)


def _in_word(character: str) -> bool:
    """Beside it a made-up value could not be told from a part of a word, or of a tag."""
    return character.isalnum() or character in ("_", "<")


@dataclass(frozen=True, slots=True)
class Released:
    """What a stream lets go: text for the caller, and findings by positions in the whole stream's input."""

    text: str
    findings: Sequence[Finding] = ()


class RedactingStream:
    """The way out: redacts personal data that the caller's vault does not know, restores what it does.

    Any chunking of the input gives the same output as one chunk, because segments depend on the text alone
    (`SegmentedDetection`) and restoring holds back only what could still be a placeholder. A value of the caller's that
    turns up in the clear stays in the clear: it is the caller's own.
    """

    def __init__(
        self,
        policy: Policy,
        vault: Vault,
        *,
        restoring: bool = True,
        json_text: bool = False,
        tools: Tools | None = None,
    ) -> None:
        """With `restoring` off, tokens of the vault stay as they are."""
        self._replacing = Replacing(policy, vault, tools)
        self._vault = vault
        self._own = {entry.value for entry in vault}
        self._known = KnownValues(vault)
        self._detection = SegmentedDetection(policy, STREAM, own_tokens=self._replacing.own_tokens)
        self._restoring = RestoringStream(vault if restoring else Vault(), json_text=json_text)
        self._offset = 0
        self._last = ""
        self.counts: Counter[str] = Counter()
        self.recognizer_counts: Counter[str] = Counter()
        self.operator_counts: Counter[str] = Counter()
        self.characters = 0

    @property
    def held_characters(self) -> int:
        return self._detection.held_characters + self._restoring.held_characters

    @property
    def restored(self) -> int:
        return self._restoring.replaced

    def push(self, text: str) -> None:
        self.characters += len(text)
        self._detection.push(text)

    def has_work(self, *, final: bool = False) -> bool:
        return self._detection.has_work(final=final)

    def step(self, detector: Detector, *, final: bool = False) -> Released:
        """Analyses at most one segment. Runs as long as a detector does: not for an event loop."""
        segment = self._detection.step(detector, final=final)
        return self._redact(segment) if segment else Released("")

    def finish(self) -> Released:
        """The rest, once there is no more work."""
        return Released(self._restoring.finish())

    def _redact(self, segment: Segment) -> Released:
        self._vault.reserve(segment.text)
        findings = with_known(segment.text, segment.findings, self._known, self._replacing)
        goes_on = bool(self._detection.held_characters)
        redacted = _replace(segment.text, findings, self._replacing, before=self._last, goes_on=goes_on)
        self._last = segment.text[-1:]
        self._known.add_found(segment.text, redacted)
        fresh = [pair for pair in redacted.replaced() if segment.text[pair[0].start : pair[0].end] not in self._own]
        self.counts.update(finding.kind for finding, _ in fresh)
        self.recognizer_counts.update(finding.recognizer for finding, _ in fresh)
        self.operator_counts.update(str(replacement.operation) for _, replacement in fresh)
        offset, self._offset = self._offset, self._offset + len(segment.text)
        released = self._restoring.push(redacted.text)
        return Released(released, [finding.shifted(offset) for finding, _ in fresh])
