"""The name tagger: a small convolutional net that says of every word whether it belongs to a person's name, a place, a
street, an organisation. It costs a hundredth of the models it learnt from (MODEL_CARD.md), so it reads everything.

Texts that wait at the same moment are read in one run: they are laid one behind the other with as many empty places
between as the net looks sideways in one step, so that none sees another and nothing is padded.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from sluice_redaction.domain.findings import Finding

from .word_features import DIGIT, LETTER, NEWLINE, Lexicon, Words, words_of

NAME = "NameTagger"
WEIGHTS = Path(__file__).parent / "models" / "name_tagger.onnx"
LEXICON = Path(__file__).parent / "models" / "names_lexicon.npz"
_GAP = 8  # the widest step of the net's convolutions
_ROW = 2_048  # words in one run: what fits the second-level cache
# Probability from which a word counts. Recall goes before precision where the value is a person's.
THRESHOLD = 0.4
# Probability from which a word belongs to the finding beside it: half a name gives the other half away.
REACH = 0.2
_BEGIN_WITH_SIGNS = frozenset({"PHONE_NUMBER"})  # "+49", "(030)"
Probabilities = npt.NDArray[np.float32]


class TaggerModel:
    """The session and the lexicon; both are only read, so threads may share it."""

    def __init__(self, weights: Path = WEIGHTS, lexicon: Path = LEXICON) -> None:
        """Raises FileNotFoundError or onnxruntime's error if the files are not there or not sound."""
        content, words = weights.read_bytes(), lexicon.read_bytes()
        self.digest = "sha256:" + hashlib.sha256(content + words).hexdigest()
        self.lexicon = Lexicon.load(lexicon)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # A plan of memory is kept for every length of text ever seen; without one a run takes as long (measured).
        options.enable_mem_pattern = False
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.labels = self._session.get_modelmeta().custom_metadata_map["labels"].split()

    def probabilities(self, texts: Sequence[Words]) -> list[Probabilities]:
        """For each text [words, labels]. The same whatever texts stand beside it."""
        return [part for batch in _batches(texts) for part in self._run(batch)]

    def _run(self, texts: Sequence[Words]) -> Iterator[Probabilities]:
        if len(texts) == 1:
            features = texts[0].features[np.newaxis]
            yield self._session.run(
                None, {"features": features, "mask": np.ones((1, features.shape[1], 1), np.float32)}
            )[0][0]
            return
        size = sum(len(words.starts) + _GAP for words in texts)
        features = np.zeros((1, size, 8), dtype=np.int32)
        mask = np.zeros((1, size, 1), dtype=np.float32)
        places, at = [], 0
        for words in texts:
            end = at + len(words.starts)
            features[0, at:end], mask[0, at:end] = words.features, 1
            places.append((at, end))
            at = end + _GAP
        (found,) = self._session.run(None, {"features": features, "mask": mask})
        yield from (found[0, start:end] for start, end in places)


def _batches(texts: Sequence[Words]) -> Iterator[list[Words]]:
    batch: list[Words] = []
    size = 0
    for words in texts:
        if batch and size + len(words.starts) > _ROW:
            yield batch
            batch, size = [], 0
        batch.append(words)
        size += len(words.starts) + _GAP
    if batch:
        yield batch


class _Marked(NamedTuple):
    """A word with its likeliest label; number: its place among the words."""

    number: int
    label: int
    probability: float
    group: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tagged:
    """A text as the tagger read it. table: [words, labels], probabilities; kinds: of the labels behind `O`."""

    words: Words
    table: Probabilities
    kinds: Sequence[str]

    def findings(self, threshold: float = THRESHOLD, *, reach: float = REACH) -> Iterator[Finding]:
        """In order, not overlapping: runs of words of one label that each have `reach`, one of them `threshold`. Scored
        by the surest word."""
        run: list[_Marked] = []
        for word in self._marked(reach):
            if run and (word.number != run[-1].number + 1 or word.label != run[-1].label):
                yield from self._finding(run, threshold)
                run = []
            run.append(word)
        yield from self._finding(run, threshold)

    def _marked(self, reach: float) -> Iterator["_Marked"]:
        """The words of which some label is likely enough."""
        if not len(self.table):
            return
        chosen = self.table[:, 1:].max(axis=1)
        at = np.flatnonzero((chosen >= reach) & (self.words.group != NEWLINE))
        words = self.words
        columns = (at, self.table[at, 1:].argmax(axis=1), chosen[at], words.group[at], words.starts[at], words.ends[at])
        yield from map(_Marked._make, zip(*(column.tolist() for column in columns), strict=True))

    def _finding(self, run: Sequence["_Marked"], threshold: float) -> Iterator[Finding]:
        """What a run of words is, without signs at its edges; nothing if it is signs only or nowhere likely enough."""
        spoken = [word for word in run if word.group in (LETTER, DIGIT)]
        score = max((word.probability for word in run), default=0.0)
        if spoken and score >= threshold:
            kind = self.kinds[run[0].label]
            first = run[0] if kind in _BEGIN_WITH_SIGNS else spoken[0]
            label = f"label:{kind.lower()}"
            yield Finding(first.start, spoken[-1].end, kind, score, NAME, label, pattern=label)

    def doubts(self, low: float, high: float) -> list[tuple[int, int]]:
        """The words of letters that belong to a name with a probability within the limits."""
        name = self.table[:, 1 + self.kinds.index("PERSON")]
        at = np.flatnonzero((name >= low) & (name < high) & (self.words.group == LETTER))
        return [(int(self.words.starts[one]), int(self.words.ends[one])) for one in at]


class NameTagger:
    """Names, places, streets and organisations as findings. Stateless: threads may share it."""

    name = NAME

    def __init__(self, model: TaggerModel) -> None:
        self.model = model
        self.kinds = tuple(model.labels[1:])

    def tag(self, text: str) -> Tagged:
        """One text; the net is not run where there is no letter and no number of several parts."""
        return self.tag_all([text])[0]

    def tag_all(self, texts: Sequence[str]) -> list[Tagged]:
        """For each text what `tag` gives; one run of the net for many."""
        words = [words_of(text, self.model.lexicon) for text in texts]
        readable = [number for number, one in enumerate(words) if (one.group == LETTER).any() or len(one.starts) > 3]
        nothing = np.zeros((0, len(self.kinds) + 1), dtype=np.float32)
        tables = dict.fromkeys(range(len(texts)), nothing)
        tables |= zip(readable, self.model.probabilities([words[at] for at in readable]), strict=True)
        return [Tagged(one, tables[number], self.kinds) for number, one in enumerate(words)]

    def find(self, text: str) -> list[Finding]:
        """Findings of one text, in order, not overlapping."""
        return list(self.tag(text).findings())
