"""The streaming state machine: text goes in as it comes, and out sentence by sentence once it was checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from sluice_moderation.domain.judgement import Judgement, WindowScores
from sluice_moderation.domain.policy import Action
from sluice_moderation.domain.windows import SentenceCutter, windows_of

STREAM_SEGMENT = "stream"


@dataclass(frozen=True)
class HeldSentence:
    """A sentence that waits for the scores of its windows."""

    text: str
    windows: tuple[str, ...]


@dataclass
class Gate:
    """Holds text back until it is judged.

    Protocol: `feed` (and at the end `finish`) give sentences; each must be scored and handed to `settle` in that order, which
    returns the text that may go on. The sentences depend on the text alone, so the released text does too, however it was cut
    into pieces. Once a sentence asks for BLOCK nothing is released any more, and nothing of that sentence was.
    """

    judgement: Judgement
    is_blocked: bool = field(default=False, init=False)
    characters: int = field(default=0, init=False)
    withheld_sentences: int = field(default=0, init=False)
    _cutter: SentenceCutter = field(default_factory=SentenceCutter, init=False)
    _previous: str = field(default="", init=False)

    def feed(self, text: str) -> list[HeldSentence]:
        self.characters += len(text)
        return self._held(self._cutter.feed(text))

    def finish(self) -> list[HeldSentence]:
        return self._held(self._cutter.finish())

    def settle(self, sentence: HeldSentence, scored: WindowScores) -> str:
        """The text that may go on: the sentence, or nothing."""
        if self.is_blocked:
            self.withheld_sentences += 1
            return ""
        if self.judgement.add(STREAM_SEGMENT, sentence.windows, scored) is Action.BLOCK:
            self.is_blocked = True
            self.withheld_sentences += 1
            return ""
        return sentence.text

    def _held(self, sentences: list[str]) -> list[HeldSentence]:
        held = []
        for sentence in sentences:
            held.append(HeldSentence(sentence, windows_of(self._previous, sentence)))
            self._previous = sentence
        return held
