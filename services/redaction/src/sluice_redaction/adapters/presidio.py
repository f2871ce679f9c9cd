"""The detector: pattern recognizers first, then the models, over one text."""

import re
from collections.abc import Iterable, Sequence

from presidio_analyzer import LocalRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts
from spacy.tokens import Doc
from spacy.vocab import Vocab

from sluice_redaction.domain.findings import Finding

from .listed import Listed
from .offline import use_packaged_suffix_list
from .patterns.detector import PatternDetector
from .patterns.phone_numbers import DEFAULT_REGIONS
from .patterns.sources import pattern_sources
from .rampart import HINT, RampartModel, RampartRecognizer
from .spacy_names import NAME as SPACY_NAMES
from .spacy_names import SpacyNames

# What models are shown of long runs of signs: 16 of them, then blanks. spaCy's tokenizer takes a run apart sign by sign,
# which is quadratic (14 s for 8,000 emoji); no name has such a run. Lengths stay, so offsets do.
_SIGNS = re.compile(r"[^\w\s]{17,}")


class PresidioDetector:
    """Fits `domain.findings.Detector`. One thread at a time: make one for each worker."""

    def __init__(self, patterns: PatternDetector, models: Sequence[LocalRecognizer] = ()) -> None:
        self._patterns = patterns
        self._models = tuple(models)
        self._artifacts = NlpArtifacts(
            entities=[], tokens=Doc(Vocab()), tokens_indices=[], lemmas=[], nlp_engine=None, language="en"
        )

    def detect_patterns(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        return self._patterns.detect(text, kinds)

    def detect(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        found = self._patterns.detect(text, kinds)
        thinned = _SIGNS.sub(lambda run: run[0][:16] + " " * (len(run[0]) - 16), text)
        for model in self._models:
            offered = model.supported_entities
            if not kinds.isdisjoint(offered):
                found.extend(_finding(one, _name(model)) for one in model.analyze(thinned, offered, self._artifacts))
        return _believed(found)

    def listed(self) -> list[Listed]:
        return [
            *self._patterns.listed(),
            *(
                Listed(
                    _name(model),
                    sorted(model.supported_entities),
                    model.model.digest if isinstance(model, RampartRecognizer) else "",
                )
                for model in self._models
            ),
        ]


class DetectorFactory:
    """Makes detectors, one for each worker thread; what can be shared between them is loaded once."""

    def __init__(self, *, phone_regions: Sequence[str] = DEFAULT_REGIONS, spacy_names: bool = True) -> None:
        use_packaged_suffix_list()
        self._phone_regions = phone_regions
        self._spacy_names = spacy_names
        self._rampart = RampartModel()

    def __call__(self) -> PresidioDetector:
        models: list[LocalRecognizer] = [RampartRecognizer(self._rampart)]
        if self._spacy_names:
            models.append(SpacyNames())
        return PresidioDetector(PatternDetector(pattern_sources(self._phone_regions)), models)


def _believed(found: Sequence[Finding]) -> list[Finding]:
    """Without hints, and without names that spaCy alone believes in: it takes any odd noun for a person."""
    names = [one for one in found if one.kind == "PERSON" and one.recognizer != SPACY_NAMES]
    return [
        one
        for one in found
        if one.explanation != HINT
        and (one.kind != "PERSON" or one.recognizer != SPACY_NAMES or any(one.overlaps(name) for name in names))
    ]


def _finding(result: RecognizerResult, recognizer: str) -> Finding:
    label = result.analysis_explanation.pattern_name or "" if result.analysis_explanation else ""
    return Finding(result.start, result.end, result.entity_type, result.score, recognizer, label, pattern=label)


def _name(model: LocalRecognizer) -> str:
    return str(model.name)  # type: ignore[has-type]  # Presidio sets it without a type
