"""Redaction: findings in texts become placeholders; a vault remembers what they stand for."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .arbitration import arbitrate
from .detection import STREAM, Segment, SegmentedDetection
from .findings import Detector, Finding
from .placeholders import placeholder_like
from .policy import Policy
from .restoring import RestoringStream
from .vault import Entry, Vault

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
    """text: with placeholders. findings: what was replaced, by positions in the text before."""

    text: str
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Redaction:
    """All texts of a request, redacted with one vault. new_entries: those this redaction added to the vault."""

    texts: Sequence[RedactedText]
    new_entries: Sequence[Entry]


def redact(texts: Sequence[str], found: Sequence[Sequence[Finding]], vault: Vault) -> Redaction:
    """Replaces findings by placeholders, one vault for all texts; the vault grows.

    A value found once is replaced wherever it stands in the request, though the detectors missed it there.
    """
    for text in texts:
        vault.reserve(text)
    before = {entry.placeholder for entry in vault}
    for text, findings in zip(texts, found, strict=True):
        for finding in findings:
            vault.entry_for(text[finding.start : finding.end], finding.kind)
    known = KnownValues(vault)
    redacted = []
    for text, findings in zip(texts, found, strict=True):
        everywhere = with_known(text, findings, known)
        redacted.append(RedactedText(_replace(text, everywhere, vault), everywhere))
    return Redaction(redacted, [entry for entry in vault if entry.placeholder not in before])


def with_known(text: str, findings: Sequence[Finding], known: "KnownValues") -> Sequence[Finding]:
    """The findings, and every other occurrence of a known value outside of them and of placeholders."""
    repeats = [
        repeat
        for repeat in known.occurrences(text)
        if not any(repeat.start >= one.start and repeat.end <= one.end for one in findings)
    ]
    if not repeats:
        return findings
    spans = list(placeholder_like(text))
    free = [repeat for repeat in repeats if not any(repeat.start < end and begin < repeat.end for begin, end in spans)]
    return arbitrate([*findings, *free], text) if free else findings


class KnownValues:
    """Finds values of a vault in a text, in time linear in the text: by the first word of each value."""

    def __init__(self, vault: Iterable[Entry]) -> None:
        self._kinds: dict[str, str] = {}
        # First word -> where values begin before it, and how long they are: few shapes even for thousands of values.
        self._shapes: dict[str, set[tuple[int, int]]] = {}
        for entry in vault:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        word = _WORD.search(entry.value)
        if word is None or not 3 <= len(entry.value) <= _LONGEST_KNOWN or not _is_telling(entry):
            return
        self._kinds.setdefault(entry.value, entry.kind)
        self._shapes.setdefault(word[0], set()).add((word.start(), len(entry.value)))

    def occurrences(self, text: str) -> list[Finding]:
        if not self._kinds:
            return []
        return [
            Finding(start, start + length, self._kinds[value], 1.0, "repeat", "same value elsewhere in the request")
            for word in _WORD.finditer(text)
            for offset, length in self._shapes.get(word[0], ())
            if (start := word.start() - offset) >= 0
            and (value := text[start : start + length]) in self._kinds
            and _stands_free(text, value, start)
        ]


def _is_telling(entry: Entry) -> bool:
    """False for a value that is likely to mean something else elsewhere."""
    if entry.kind in ("PERSON", "LOCATION", "ORGANIZATION", "NRP", "DATE_TIME"):
        return len(_WORD.findall(entry.value)) > 1 or entry.value.casefold() not in _ALSO_WORDS
    return len(entry.value) > 4


def _stands_free(text: str, value: str, start: int) -> bool:
    """The value that stands at `start` is not a part of longer words."""
    end = start + len(value)
    return not (start > 0 and text[start - 1].isalnum() and value[0].isalnum()) and not (
        end < len(text) and text[end].isalnum() and value[-1].isalnum()
    )


def _replace(text: str, findings: Sequence[Finding], vault: Vault) -> str:
    pieces: list[str] = []
    position = 0
    for finding in findings:
        pieces.append(text[position : finding.start])
        pieces.append(vault.entry_for(text[finding.start : finding.end], finding.kind).placeholder)
        position = finding.end
    pieces.append(text[position:])
    return "".join(pieces)


@dataclass(frozen=True, slots=True)
class Released:
    """What a stream lets go: text for the caller, and findings by positions in the whole stream's input."""

    text: str
    findings: Sequence[Finding] = ()
    new_entries: Sequence[Entry] = ()


class RedactingStream:
    """The way out: redacts personal data that the caller's vault does not know, restores what it does.

    Any chunking of the input gives the same output as one chunk, because segments depend on the text alone
    (`SegmentedDetection`) and restoring holds back only what could still be a placeholder. A value of the caller's that
    turns up in the clear stays in the clear: it is the caller's own.
    """

    def __init__(self, policy: Policy, vault: Vault, *, restoring: bool = True, json_text: bool = False) -> None:
        """With `restoring` off, placeholders of the vault stay placeholders."""
        self._vault = vault
        self._own = {entry.value for entry in vault}
        self._known = KnownValues(vault)
        self._detection = SegmentedDetection(policy, STREAM)
        self._restoring = RestoringStream(vault if restoring else Vault(), json_text=json_text)
        self._offset = 0
        self.counts: Counter[str] = Counter()
        self.recognizer_counts: Counter[str] = Counter()
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
        before = len(self._vault)
        findings = with_known(segment.text, segment.findings, self._known)
        redacted = self._restoring.push(_replace(segment.text, findings, self._vault))
        new = list(self._vault)[before:]
        for entry in new:
            self._known.add(entry)
        fresh = [one for one in findings if segment.text[one.start : one.end] not in self._own]
        self.counts.update(finding.kind for finding in fresh)
        self.recognizer_counts.update(finding.recognizer for finding in fresh)
        offset, self._offset = self._offset, self._offset + len(segment.text)
        return Released(redacted, [finding.shifted(offset) for finding in fresh], new)
