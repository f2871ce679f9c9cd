"""What is measured of every generation, and who hears of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from sluice_inference.domain.attribution import Share
from sluice_inference.domain.generation import Finished, FinishReason, Generation, Timings, Usage
from sluice_inference.domain.refusals import EngineDied, InferenceRefusal, RequestStopped
from sluice_inference.domain.session import Session


@dataclass(frozen=True)
class Measurement:
    """Everything measured of one generation. `answer` is the text sent; both texts leave this process only as profiles."""

    generation: Generation
    reason: FinishReason
    refusal: InferenceRefusal | None
    usage: Usage
    timings: Timings
    token_seconds: tuple[float, ...]
    share: Share
    answer: str
    called_tools: tuple[str, ...] = ()
    """Names of the tools that the answer asked for, as the caller named them."""


class Observer(Protocol):
    """Hears of what happens; must return at once and never raise."""

    def load_changed(self, *, running: int, queued: int) -> None: ...

    def engine_responds(self, responds: bool) -> None: ...

    def engine_broke(self, error: Exception) -> None: ...

    def engine_died(self, error: EngineDied) -> None: ...

    def finished(self, measurement: Measurement) -> asyncio.Future[None] | None:
        """Gives what is done when the measurement has come to where it outlives this process; None when it is not kept."""


def measure(session: Session, share: Share) -> Measurement:
    outcome = session.outcome
    refusal = outcome if isinstance(outcome, InferenceRefusal) else None
    reason = outcome.reason if isinstance(outcome, Finished) else FinishReason.ERROR
    if isinstance(refusal, RequestStopped):
        reason = FinishReason.TIMEOUT if refusal.timed_out else FinishReason.CANCELLED
    return Measurement(
        generation=session.generation,
        reason=reason,
        refusal=refusal,
        usage=session.usage(),
        timings=session.ended_timings or session.timings(),
        token_seconds=tuple(seconds for output in session.outputs for seconds in output.token_seconds),
        share=share,
        answer="\n".join("".join(output.sent) for output in session.outputs),
        called_tools=tuple(name for output in session.outputs for name in output.called_tools),
    )
