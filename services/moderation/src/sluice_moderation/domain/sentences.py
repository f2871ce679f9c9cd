"""Sentences of texts with the windows each is judged by: where they stand, and what they are joined to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from sluice_moderation.domain.windows import SentenceCutter, joined, sentences_of

STREAM_SEGMENT = "stream"


@dataclass(frozen=True)
class Text:
    """One text of a call. `writer` is empty, or says who wrote it."""

    segment_id: str
    text: str
    writer: str = ""


@dataclass(frozen=True)
class Place:
    """A sentence by its number in its segment; any of the segment where the number is None."""

    segment_id: str
    number: int | None = None


@dataclass(frozen=True)
class Window:
    """A text that detectors score. `after` are the places of what stands before the sentence in it; empty for it alone."""

    text: str
    after: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Sentence:
    """A sentence, code points `start` to `end` of its segment, and the windows it is judged by."""

    segment_id: str
    number: int
    start: int
    text: str
    windows: tuple[Window, ...]

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass
class SentenceReader:
    """Reads one segment, whole or as it comes. What it gives depends on the text alone, never on how it came."""

    segment_id: str
    characters: int = field(default=0, init=False)
    _cutter: SentenceCutter = field(default_factory=SentenceCutter, init=False)
    _previous: str = field(default="", init=False)
    _number: int = field(default=0, init=False)
    _start: int = field(default=0, init=False)

    @property
    def held_characters(self) -> int:
        """What has come and is in no sentence yet."""
        return self._cutter.held_characters

    def feed(self, text: str) -> list[Sentence]:
        """Sentences that are complete now."""
        self.characters += len(text)
        return [self._sentence(found) for found in self._cutter.feed(text)]

    def finish(self) -> list[Sentence]:
        """What is left, once no more text comes."""
        return [self._sentence(found) for found in self._cutter.finish()]

    def _sentence(self, text: str) -> Sentence:
        windows = [Window(text)]
        if self._previous:
            # Joined, so that a cut does not split what is harmful as one; alone, so that a neighbour does not dilute it.
            windows.append(Window(joined(self._previous, text), (Place(self.segment_id, self._number - 1),)))
        sentence = Sentence(self.segment_id, self._number, self._start, text, tuple(windows))
        self._previous, self._number, self._start = text, self._number + 1, sentence.end
        return sentence


def read(texts: Sequence[Text]) -> list[Sentence]:
    """All sentences of all texts, in their order, each character in at most six windows: linear in what there is to read."""
    seams = _seams(texts)
    sentences = []
    for row, text in enumerate(texts):
        reader = SentenceReader(text.segment_id)
        sentences += _with_seams([*reader.feed(text.text), *reader.finish()], seams.get(row, []))
    return sentences


@dataclass(frozen=True)
class _Seam:
    """A window over the end of some texts and the beginning of another, up to its code point `end`."""

    window: Window
    end: int


def _with_seams(sentences: list[Sentence], seams: list[_Seam]) -> list[Sentence]:
    """Each seam is judged with the sentence in which it ends."""
    result, waiting = [], list(reversed(seams))
    for sentence in sentences:
        here = []
        while waiting and waiting[-1].end <= sentence.end:
            here.append(waiting.pop().window)
        result.append(replace(sentence, windows=(*sentence.windows, *here)))
    return result


def _seams(texts: Sequence[Text]) -> dict[int, list[_Seam]]:
    """By the row of the text in which they end: the windows of each writer's joined texts that lie in more than one of them.

    The joined texts are cut like any text, so many tiny messages make few windows, and an attack that is spread over them is
    read in one piece.
    """
    rows_by_writer: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        if text.writer and text.text:
            rows_by_writer.setdefault(text.writer, []).append(row)
    seams: dict[int, list[_Seam]] = {}
    for rows in rows_by_writer.values():
        if len(rows) > 1:
            for row, seam in _seams_of([(row, texts[row]) for row in rows]):
                seams.setdefault(row, []).append(seam)
    return seams


def _seams_of(texts: Sequence[tuple[int, Text]]) -> Iterator[tuple[int, _Seam]]:
    whole = "\n".join(text.text for _, text in texts)
    starts = list(accumulate((len(text.text) + 1 for _, text in texts[:-1]), initial=0))
    before = start = last = 0  # where the last two sentences begin, and the text in which the later one ends
    for sentence in sentences_of(whole):
        end = start + len(sentence)
        while last + 1 < len(starts) and starts[last + 1] < end:
            last += 1
        row, text = texts[last]
        for begin in sorted({before, start}):
            first = last
            while starts[first] > begin:
                first -= 1
            if first < last:
                after = tuple(Place(found.segment_id) for _, found in texts[first:last])
                yield row, _Seam(Window(whole[begin:end], after), min(end - starts[last], len(text.text)))
        before, start = start, end
