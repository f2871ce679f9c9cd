"""The streaming state machine: text goes in as it comes, and out sentence by sentence once it was checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from sluice_moderation.domain.hearing import Hearing, released
from sluice_moderation.domain.panel import WindowScores
from sluice_moderation.domain.sentences import STREAM_SEGMENT, Sentence, SentenceReader


@dataclass
class Gate:
    """Holds text back until it is judged.

    Protocol: `feed` (and at the end `finish`) give sentences; each must be scored and handed to `settle` in that order, which
    returns the text that may go on. The sentences depend on the text alone, so the released text does too, however it was cut
    into pieces. Once a sentence asks for BLOCK or HOLD nothing is released any more, and nothing of that sentence was.
    """

    hearing: Hearing
    is_closed: bool = field(default=False, init=False)
    withheld_sentences: int = field(default=0, init=False)
    _reader: SentenceReader = field(default_factory=lambda: SentenceReader(STREAM_SEGMENT), init=False)

    @property
    def characters(self) -> int:
        """Length of what has come."""
        return self._reader.characters

    @property
    def held_characters(self) -> int:
        """Length of what waits for the end of its sentence."""
        return self._reader.held_characters

    def feed(self, text: str) -> list[Sentence]:
        """Sentences to be scored now."""
        return self._reader.feed(text)

    def finish(self) -> list[Sentence]:
        """The last sentences to be scored."""
        return self._reader.finish()

    def settle(self, sentence: Sentence, scored: WindowScores) -> str:
        """The text that may go on: the sentence, a marker in its place, or nothing."""
        if not self.is_closed:
            outcome = self.hearing.add(sentence, scored)
            if not outcome.action.withholds:
                return released(sentence, outcome)
            self.is_closed = True
        self.withheld_sentences += 1
        return ""
