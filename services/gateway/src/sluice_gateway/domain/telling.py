"""Every request is told of once, however it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from sluice_gateway.domain.arrival import Arrival
from sluice_gateway.domain.completion import OUTCOME_OF, Completion
from sluice_gateway.domain.neighbours import EventSink
from sluice_gateway.domain.rejection import Kind, Rejection, internal

# A failure this close to the deadline is the deadline's: neighbours were given the same one.
DEADLINE_SLACK_SECONDS = 0.01


class Telling:
    """Publishes completions, and knows how many requests have not been told of yet."""

    def __init__(self, events: EventSink, *, clock: Callable[[], float]) -> None:
        self._events, self._clock = events, clock
        self._untold = 0

    def check_room(self) -> None:
        """Raises Rejection (unavailable) when a request that begins now could probably not be told of at its end."""
        self._events.check_room()

    @asynccontextmanager
    async def told(self, completion: Completion, arrival: Arrival) -> AsyncIterator[None]:
        """Run the block until the deadline, and publish how it ended: once, whatever happens.

        The completion is durable before the caller gets the last frame, so a gateway that is killed has either
        told of an answer or not finished giving it.
        """
        limit = asyncio.timeout(max(arrival.deadline - self._clock(), 0.0))
        self._untold += 1
        try:
            async with limit:
                yield
        except (Exception, asyncio.CancelledError) as error:
            rejection = self._why(error, late=limit.expired() or self._is_late(arrival))
            completion.outcome, completion.reason = OUTCOME_OF[rejection.kind], rejection.reason
            completion.rejection = rejection.kind
            with suppress(Rejection):  # the caller is told why the request failed, not that its event did too
                await self._publish(completion)
            if isinstance(error, asyncio.CancelledError):
                raise
            if rejection is error:
                raise
            raise rejection from error
        await self._publish(completion)

    def _is_late(self, arrival: Arrival) -> bool:
        return self._clock() >= arrival.deadline - DEADLINE_SLACK_SECONDS

    def _why(self, error: BaseException, *, late: bool) -> Rejection:
        if isinstance(error, Rejection) and error.kind not in (Kind.UNAVAILABLE, Kind.INTERNAL, Kind.CANCELLED):
            return error
        if late:
            return Rejection(Kind.DEADLINE, "The deadline passed before the answer was whole.", reason="DEADLINE")
        if isinstance(error, asyncio.CancelledError):
            return Rejection(Kind.CANCELLED, "The caller went away.", reason="CALLER_GONE")
        return error if isinstance(error, Rejection) else internal()

    async def _publish(self, completion: Completion) -> None:
        completion.ended_at = self._clock()
        telling = asyncio.ensure_future(self._events.completed(completion))
        telling.add_done_callback(self._count_told)
        # A task of its own under a shield: a cancellation that arrives now must neither lose nor double the event.
        await asyncio.shield(telling)

    def _count_told(self, _: object) -> None:
        self._untold -= 1

    async def all_told(self, seconds: float) -> bool:
        """Wait until every request that began has its event, at most so long. False when some have not."""
        deadline = self._clock() + seconds
        while self._untold and self._clock() < deadline:
            await asyncio.sleep(0.01)
        return not self._untold
