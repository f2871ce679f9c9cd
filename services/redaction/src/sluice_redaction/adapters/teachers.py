"""Rampart and spaCy's ner together: what the name tagger learnt from, and the `thorough` way of finding names.

They cost a hundred times as much as the tagger. A name that only spaCy believes in counts if Rampart gives it a hint.
"""

import re
from collections.abc import Callable, Sequence

from presidio_analyzer import RecognizerResult

from sluice_redaction.domain.findings import Finding

from .rampart import HINT, RampartModel, RampartRecognizer
from .spacy_names import NAME as SPACY_NAMES
from .spacy_names import SpacyNames

# What the models are shown of long runs of signs: 16 of them, then blanks. spaCy's tokenizer takes a run apart sign by
# sign, which is quadratic (14 s for 8,000 emoji); no name has such a run. Lengths stay, so offsets do.
_SIGNS = re.compile(r"[^\w\s]{17,}")
ORGANIZATION = "ORGANIZATION"


def thinned(text: str) -> str:
    """The text as the models are shown it."""
    return _SIGNS.sub(lambda run: run[0][:16] + " " * (len(run[0]) - 16), text)


class Teachers:
    """Not for two threads at once: spaCy forgets its words after every text."""

    def __init__(self, rampart: RampartModel, *, spacy_names: bool = True) -> None:
        """spacy_names: whether spaCy gives its second opinion; only it knows organisations, nationalities and dates."""
        self._models: list[RampartRecognizer | SpacyNames] = [RampartRecognizer(rampart)]
        if spacy_names:
            self._models.append(SpacyNames())
        self.kinds = frozenset(kind for model in self._models for kind in model.supported_entities)

    def listed(self) -> list[tuple[str, Sequence[str], str]]:
        """Name, kinds and digest of each model."""
        return [
            (
                model.name,
                sorted(model.supported_entities),
                model.model.digest if isinstance(model, RampartRecognizer) else "",
            )
            for model in self._models
        ]

    def find(self, text: str) -> list[Finding]:
        """Candidates of every kind the models know, overlapping or not."""
        shown = thinned(text)
        return _believed([_finding(one, model.name) for model in self._models for one in model.analyze(shown, [])])


class Organizations:
    """Organisations, for policies that ask for them: the one kind that spaCy's ner knows better than the tagger.

    spaCy is loaded when it is first asked, because hardly a policy asks. Not for two threads at once.
    """

    def __init__(self) -> None:
        self._spacy: SpacyNames | None = None

    def find(self, text: str) -> list[Finding]:
        """Raises OSError (spaCy's) if the model package is not installed."""
        if self._spacy is None:
            self._spacy = SpacyNames()
        found = self._spacy.analyze(thinned(text), [])
        return [_finding(one, SPACY_NAMES) for one in found if one.entity_type == ORGANIZATION]


def thorough_names() -> Callable[[str], list[Finding]]:
    """A finder of its own, with both models loaded."""
    return Teachers(RampartModel()).find


def _finding(result: RecognizerResult, recognizer: str) -> Finding:
    explanation = result.analysis_explanation.pattern_name if result.analysis_explanation else ""
    label = explanation or ""
    return Finding(result.start, result.end, result.entity_type, result.score, recognizer, label, pattern=label)


def _believed(found: Sequence[Finding]) -> list[Finding]:
    """Without hints, and without names that spaCy alone believes in: it takes any odd noun for a person."""
    names = [one for one in found if one.kind == "PERSON" and one.recognizer != SPACY_NAMES]
    return [
        one
        for one in found
        if one.explanation != HINT
        and (one.kind != "PERSON" or one.recognizer != SPACY_NAMES or any(one.overlaps(name) for name in names))
    ]
