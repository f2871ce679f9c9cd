"""The way of an answer: model -> moderation -> redaction -> caller, each waiting for the next (backpressure)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from sluice_gateway.domain.basin import Basin
from sluice_gateway.domain.chat import FinishReason
from sluice_gateway.domain.completion import Completion
from sluice_gateway.domain.neighbours import (
    ModelEnd,
    ModelStart,
    ModelStream,
    ModelText,
    ModerationStream,
    RedactionStream,
)
from sluice_gateway.domain.rejection import FilterUnavailable, Kind, Rejection
from sluice_gateway.domain.verdict import Verdict


class Audience(Protocol):
    """Whoever gets the answer: one of four, gRPC or HTTP, whole or streamed."""

    async def text(self, text: str) -> None:
        """Take text that has passed every filter. Waits while the caller is slow."""


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first failure is raised as itself; all its tasks have ended when the block has."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup) -> BaseException:
    """The cause: not what the other tasks said on being cancelled because of it."""
    for failure in failures.exceptions:
        if not (isinstance(failure, Rejection) and failure.kind is Kind.CANCELLED):
            return failure
    return failures.exceptions[0]


class Relay:
    """One answer on its way. Four tasks carry text from stream to stream, the caller's own task carries it out."""

    def __init__(
        self,
        model: ModelStream,
        moderation: ModerationStream,
        redaction: RedactionStream,
        *,
        completion: Completion,
        filter_timeout: float,
        clock: Callable[[], float],
        may_skip: bool = False,
    ) -> None:
        self._may_skip = may_skip
        self._model, self._moderation, self._redaction = model, moderation, redaction
        self._completion, self._filter_timeout, self._clock = completion, filter_timeout, clock
        self._to_judge, self._judged = Basin(), Basin()
        self._limit = asyncio.timeout(None)
        self._from_model: tuple[asyncio.Task[None], ...] = ()
        self._feeding = self._sending = self._owed = self._model_ended = self._all_given = False
        self._verdict: Verdict | None = None
        self._end: ModelEnd | None = None
        self.tokens_seen = 0
        # What moderation let through: the model's own words, with the caller's values still as placeholders.
        self.judged: list[str] = []

    async def run(self, audience: Audience) -> ModelEnd:
        """Carry the whole answer. Returns how it ended; raises Rejection. Nothing runs on when it has returned."""
        try:
            async with together() as group:
                self._from_model = (group.create_task(self._listen()), group.create_task(self._judge()))
                group.create_task(self._gather())
                group.create_task(self._redact())
                await self._release(audience)
        finally:
            for stream in (self._model, self._moderation, self._redaction):
                stream.cancel()
        if self._verdict and self._verdict.is_withheld:
            return ModelEnd(FinishReason.CONTENT_FILTER, self._end.usage if self._end else None)
        assert self._end is not None
        return self._end

    async def _listen(self) -> None:
        """Model -> basin."""
        while True:
            item = await self._model.receive()
            if isinstance(item, ModelText):
                self.tokens_seen += item.tokens
                if item.text:
                    await self._to_judge.put(item.text)
            elif isinstance(item, ModelStart):
                self._completion.served_model = item.model
            else:
                break
        _refuse_failed(item)
        self._end = item
        self._completion.generation_ended_at = self._clock()
        self._watch(model_ended=True)
        self._to_judge.end()

    async def _judge(self) -> None:
        """Basin -> moderation."""
        while (text := await self._to_judge.take()) is not None:
            self._watch(feeding=True)
            await self._moderation.send(text)
            self._watch(feeding=False)
        self._all_given = True
        await self._moderation.finish()

    async def _gather(self) -> None:
        """Moderation -> basin."""
        while isinstance(item := await self._moderation.receive(), str):
            self.judged.append(item)
            await self._judged.put(item)
        self._verdict = item
        self._completion.note_output(item)
        if item.is_unchecked:
            self._skip_checks()
        if item.is_unjudged:
            raise FilterUnavailable("moderation", item.unmade)
        if item.is_withheld:
            self._stop_model()
        elif not self._all_given:
            raise FilterUnavailable("moderation", "ended_early")
        self._judged.end()

    def _skip_checks(self) -> None:
        """Moderation let text through that it could not check, as its policy says; the tenant must have chosen so, too."""
        if not self._may_skip:
            raise FilterUnavailable("moderation", "not_checked")
        self._completion.skip("moderation")

    def _stop_model(self) -> None:
        for task in self._from_model:
            task.cancel()
        self._model.cancel()
        self._completion.generation_ended_at = self._clock()
        self._watch(model_ended=True)

    async def _redact(self) -> None:
        """Basin -> redaction."""
        while (text := await self._judged.take()) is not None:
            await self._redaction.send(text)
        await self._redaction.finish()

    async def _release(self, audience: Audience) -> None:
        """Redaction -> caller."""
        completion = self._completion
        try:
            async with self._limit:
                while isinstance(item := await self._redaction.receive(), str):
                    if completion.first_text_at is None:
                        completion.first_text_at = self._clock()
                    completion.output_characters += len(item)
                    self._watch(sending=True)
                    await audience.text(item)
                    self._watch(sending=False)
        except TimeoutError:
            raise FilterUnavailable("redaction" if self._verdict else "moderation", "timeout") from None
        if self._verdict is None:
            raise FilterUnavailable("redaction", "ended_early")
        completion.redacted_output = item.counts

    def _watch(
        self, *, feeding: bool | None = None, sending: bool | None = None, model_ended: bool | None = None
    ) -> None:
        """Start or stop the clock the filters run against.

        It runs while a filter does not take text (feeding) or the model has said all, but never while we wait for
        the caller: a slow caller holds up the whole chain, and that is no fault of a filter. While the model is
        still speaking a filter may hold text back as long as it likes.
        """
        self._feeding = self._feeding if feeding is None else feeding
        self._sending = self._sending if sending is None else sending
        self._model_ended = self._model_ended or bool(model_ended)
        owed = (self._feeding or self._model_ended) and not self._sending
        if owed != self._owed and not self._limit.expired():
            self._owed = owed
            self._limit.reschedule(asyncio.get_running_loop().time() + self._filter_timeout if owed else None)


def _refuse_failed(end: ModelEnd) -> None:
    if end.finish_reason is FinishReason.TIMEOUT:
        raise Rejection(Kind.DEADLINE, "The model ran out of time.", reason="MODEL_TIMEOUT")
    if end.finish_reason in (FinishReason.CANCELLED, FinishReason.ERROR):
        raise Rejection(Kind.UNAVAILABLE, "The model stopped before its answer was whole.", reason="MODEL_FAILED")
