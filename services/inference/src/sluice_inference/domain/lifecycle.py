"""The states of one request, so that every path ends with exactly one terminal event."""

from __future__ import annotations

import enum


class State(enum.Enum):
    QUEUED = "queued"
    PREFILL = "prefill"
    STREAMING = "streaming"
    ENDED = "ended"


class Lifecycle:
    """QUEUED -> PREFILL -> STREAMING -> ENDED; ENDED can be reached from everywhere, once.

    Whoever ends a request asks `end()` first: True is given exactly once, and only its receiver may send a terminal event.
    """

    def __init__(self) -> None:
        self.state = State.QUEUED

    @property
    def has_ended(self) -> bool:
        return self.state is State.ENDED

    @property
    def has_streamed(self) -> bool:
        """True when a token went out: failures are told in-band from then on, as a status before."""
        return self._streamed

    _streamed = False

    def admitted(self) -> None:
        self._move(State.QUEUED, State.PREFILL)

    def token(self) -> None:
        """A token came; may be called for every token."""
        if self.state is not State.STREAMING:
            self._move(State.PREFILL, State.STREAMING)
            self._streamed = True

    def end(self) -> bool:
        if self.state is State.ENDED:
            return False
        self.state = State.ENDED
        return True

    def _move(self, before: State, after: State) -> None:
        if self.state is not before:
            raise RuntimeError(f"a request cannot go from {self.state.value} to {after.value}")
        self.state = after
