"""Runs the pattern recognizers over one text: one pass tells which can match, and only those are run.

Presidio's `AnalyzerEngine` is left out on purpose: it runs every expression over every text, copies every result deeply
and looks context words up among lemmas, which need four more spaCy pipes.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

from sluice_redaction.domain.findings import Finding

from ..listed import Listed
from .prefilter import prefilter
from .recognizer import Pattern, Recognizer


class PatternDetector:
    """Fits `domain.findings.Detector`. One thread at a time: make one for each worker; what is compiled is shared."""

    def __init__(self, recognizers: Sequence[Recognizer], *, plain: bool = False) -> None:
        """plain: without Hyperscan. Recognizers that a policy brings along are simply further ones."""
        self._recognizers = tuple(recognizers)
        # Trigger -> what is to be run where it is hit: number of the recognizer, place of the pattern. A pattern that counts only beside a word is
        # triggered by the words, which are rarer than nine digits and the same for all patterns of the recognizer.
        rules: dict[re.Pattern[str], list[tuple[int, int]]] = {}
        for number, recognizer in enumerate(self._recognizers):
            for place, pattern in enumerate(recognizer.patterns):
                for trigger in recognizer.triggers(pattern):
                    rules.setdefault(trigger, []).append((number, place))
        self._rules = list(rules.values())
        named = {
            pattern.expression: None for one in self._recognizers for pattern in one.patterns if one.is_named(pattern)
        }
        self._prefilter = prefilter(list(rules), list(named), plain=plain)

    def detect(self, text: str, kinds: frozenset[str]) -> list[Finding]:
        """Candidates of the given kinds, overlapping or not, every score."""
        scan = self._prefilter.scan(text)
        rules = sorted({rule for hit in scan.hits for rule in self._rules[hit]})
        wanted: dict[int, list[Pattern]] = {}
        for number, place in rules:
            recognizer = self._recognizers[number]
            pattern = recognizer.patterns[place]
            if recognizer.kind in kinds and (not recognizer.is_named(pattern) or scan.may_match(pattern.expression)):
                wanted.setdefault(number, []).append(pattern)
        return nearest_named(
            finding for number, patterns in wanted.items() for finding in self._recognizers[number].find(text, patterns)
        )

    def detect_patterns(self, text: str, kinds: frozenset[str]) -> list[Finding]:
        """The same: there is no model here."""
        return self.detect(text, kinds)

    def listed(self) -> list[Listed]:
        return [Listed(one.name, [one.kind], _digest(one), len(one.patterns)) for one in self._recognizers]


def _digest(recognizer: Recognizer) -> str:
    """Of its patterns: it tells two versions of the service apart."""
    rows = (f"{pattern.expression.pattern}\0{pattern.score}" for pattern in recognizer.patterns)
    return "sha256:" + hashlib.sha256("\1".join([recognizer.name, recognizer.kind, *rows]).encode()).hexdigest()


def nearest_named(found: Iterable[Finding]) -> list[Finding]:
    """Of findings on the same span that only a word beside it speaks for, those whose word stands nearest.

    "passport 123456789, account 987654321": each number belongs to the word before it.
    """
    findings = list(found)
    nearest: dict[tuple[int, int], int] = {}
    for one in findings:
        if one.context:
            span = (one.start, one.end)
            nearest[span] = min(nearest.get(span, one.context_distance), one.context_distance)
    return [
        one
        for one in findings
        if not one.context or one.validation or one.context_distance <= nearest[one.start, one.end]
    ]
