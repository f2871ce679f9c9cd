"""What a stream costs its reader: how much was held back at most, and for how long the first text was."""

from dataclasses import dataclass


@dataclass(slots=True)
class Holding:
    """Times are seconds of any one clock; characters are code points."""

    most_characters: int = 0
    first_in: float | None = None
    first_out: float | None = None

    def received(self, now: float) -> None:
        if self.first_in is None:
            self.first_in = now

    def released(self, now: float) -> None:
        if self.first_out is None:
            self.first_out = now

    def held(self, characters: int) -> None:
        self.most_characters = max(self.most_characters, characters)

    @property
    def first_text_seconds(self) -> float | None:
        """From the first text received to the first released; None while nothing is."""
        if self.first_in is None or self.first_out is None:
            return None
        return max(0.0, self.first_out - self.first_in)
