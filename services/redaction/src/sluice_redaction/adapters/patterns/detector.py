"""Runs pattern recognizers over one text: Presidio's and ours.

Presidio's `AnalyzerEngine` is left out on purpose: it copies every result deeply and looks context words up among
lemmas, which need four more spaCy pipes. Recognizers are run as they are; context is looked for in the text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from presidio_analyzer import LocalRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts
from spacy.tokens import Doc
from spacy.vocab import Vocab

from sluice_redaction.domain.findings import Finding

from ..listed import Listed

_WORD = re.compile(r"[^\W_]+")
_CONTEXT_BEFORE, _CONTEXT_AFTER = 60, 24
_CONTEXT_GAIN, _CONTEXT_FLOOR = 0.35, 0.4  # as in Presidio's own enhancer


@dataclass(frozen=True, slots=True)
class Source:
    """A recognizer, and what its findings need.

    context: words (lower case, whole) that raise a score when they stand shortly before or after. needs_context:
    findings without any are dropped, because the pattern alone hits one number in ten. any_of: the recognizer finds
    nothing in a text without one of these characters, so it need not be run. confirmed: its pattern alone settles the
    kind.
    """

    recognizer: LocalRecognizer
    context: frozenset[str] = frozenset()
    needs_context: bool = False
    any_of: str = ""
    confirmed: bool = False

    @property
    def name(self) -> str:
        return str(self.recognizer.name)  # type: ignore[has-type]  # Presidio sets it without a type


class PatternDetector:
    """Fits `domain.findings.Detector`. One thread at a time: make one for each worker."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        self._artifacts = no_artifacts()

    def detect(self, text: str, kinds: frozenset[str]) -> list[Finding]:
        characters = set(text)
        found: list[Finding] = []
        for source in self._sources:
            offered = source.recognizer.supported_entities
            if kinds.isdisjoint(offered) or (source.any_of and characters.isdisjoint(source.any_of)):
                continue
            for result in source.recognizer.analyze(text, offered, self._artifacts):
                found.extend(findings(result, source, text))
        return found

    def detect_patterns(self, text: str, kinds: frozenset[str]) -> list[Finding]:
        """The same: there is no model here."""
        return self.detect(text, kinds)

    def listed(self) -> list[Listed]:
        return [Listed(source.name, sorted(source.recognizer.supported_entities)) for source in self._sources]


def findings(result: RecognizerResult, source: Source, text: str) -> Iterator[Finding]:
    """What a Presidio result says, with the context words of its source."""
    pattern, validation = _explained(result)
    score, word = result.score, _context_word(text, result, source.context) if source.context else None
    if word is None and source.needs_context:
        return
    if word is not None:
        score = min(1.0, max(score + _CONTEXT_GAIN, _CONTEXT_FLOOR))
    yield Finding(
        result.start,
        result.end,
        result.entity_type,
        score,
        source.name,
        f"context:{word}" if word else validation or pattern,
        confirmed=bool(source.confirmed or validation or word),
        pattern=pattern,
        context=word or "",
        original_score=_original_score(result),
        validation=validation,
    )


def _explained(result: RecognizerResult) -> tuple[str, str]:
    """Pattern name, and which check it passed."""
    explanation = result.analysis_explanation
    if explanation is None:
        return "", ""
    return explanation.pattern_name or "", "checksum" if explanation.validation_result else ""


def _original_score(result: RecognizerResult) -> float:
    explanation = result.analysis_explanation
    return result.score if explanation is None else explanation.original_score


def _context_word(text: str, result: RecognizerResult, context: frozenset[str]) -> str | None:
    before = text[max(0, result.start - _CONTEXT_BEFORE) : result.start]
    after = text[result.end : result.end + _CONTEXT_AFTER]
    words: Mapping[str, None] = dict.fromkeys(word.lower() for word in _WORD.findall(before + " " + after))
    return next((word for word in words if word in context), None)


def no_artifacts() -> NlpArtifacts:
    """What Presidio's recognizers want to be given; none of ours reads it."""
    return NlpArtifacts(entities=[], tokens=Doc(Vocab()), tokens_indices=[], lemmas=[], nlp_engine=None, language="en")
