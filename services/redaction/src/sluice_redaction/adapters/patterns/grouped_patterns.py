"""Presidio recognizers whose pattern needs a keyword beside the value: only the group `value` is the finding."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from presidio_analyzer import AnalysisExplanation, LocalRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts


@dataclass(frozen=True, slots=True)
class GroupedPattern:
    """expression: has a group `value`; every repetition in it is bounded, so that matching stays linear."""

    name: str
    expression: re.Pattern[str]
    score: float


class GroupedPatternRecognizer(LocalRecognizer):
    """One kind, several patterns."""

    name: str

    def __init__(self, kind: str, patterns: Sequence[GroupedPattern], *, name: str) -> None:
        self._kind = kind
        self._patterns = tuple(patterns)
        super().__init__(supported_entities=[kind], name=name, supported_language="en")

    def load(self) -> None:
        """Nothing to load: patterns are compiled at import."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        return [
            self._result(pattern, match.span("value"))
            for pattern in self._patterns
            for match in pattern.expression.finditer(text)
            if match["value"]
        ]

    def _result(self, pattern: GroupedPattern, span: tuple[int, int]) -> RecognizerResult:
        return RecognizerResult(
            entity_type=self._kind,
            start=span[0],
            end=span[1],
            score=pattern.score,
            analysis_explanation=AnalysisExplanation(self.name, pattern.score, pattern_name=pattern.name),
        )
