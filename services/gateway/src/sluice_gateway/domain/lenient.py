"""Filter streams for tenants that chose to go on when a filter is away."""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from sluice_gateway.domain.rejection import FilterUnavailable

End = TypeVar("End")
End_co = TypeVar("End_co", covariant=True)


class _Stream(Protocol[End_co]):
    async def send(self, text: str) -> None: ...
    async def finish(self) -> None: ...
    async def receive(self) -> str | End_co: ...
    def cancel(self) -> None: ...


class PassThrough(Generic[End]):
    """Gives back what it was given; at most `room` texts wait, then send waits."""

    def __init__(self, end: End, *, waiting: list[str] | None = None, room: int = 64) -> None:
        self._queue: asyncio.Queue[str | None] = asyncio.Queue(room + len(waiting or ()))
        self._end = end
        for text in waiting or ():
            self._queue.put_nowait(text)

    async def send(self, text: str) -> None:
        await self._queue.put(text)

    async def finish(self) -> None:
        await self._queue.put(None)

    async def receive(self) -> str | End:
        text = await self._queue.get()
        return self._end if text is None else text

    def cancel(self) -> None:
        """Nothing runs."""


class LenientStream(Generic[End]):
    """A filter stream that becomes a PassThrough if the filter fails before it has given anything back.

    After that, what was given back and what was withheld can no longer be told apart, so a later failure
    ends the request even for tenants that fail open.
    """

    def __init__(self, inner: _Stream[End], *, end_if_skipped: End, on_skip: Callable[[], None]) -> None:
        self._inner: _Stream[End] = inner
        self._end, self._on_skip = end_if_skipped, on_skip
        self._sent: list[str] | None = []  # None once the filter has given something back, or is skipped
        self._finished = False
        self._skipped: PassThrough[End] | None = None

    async def send(self, text: str) -> None:
        if self._skipped:
            return await self._skipped.send(text)
        if self._sent is not None:
            self._sent.append(text)
        try:
            await self._inner.send(text)
        except FilterUnavailable as error:
            self._skip(error)

    async def finish(self) -> None:
        self._finished = True
        if self._skipped:
            return await self._skipped.finish()
        try:
            await self._inner.finish()
        except FilterUnavailable as error:
            self._skip(error)

    async def receive(self) -> str | End:
        if not self._skipped:
            try:
                item = await self._inner.receive()
            except FilterUnavailable as error:
                self._skip(error)
            else:
                self._sent = None
                return item
        assert self._skipped is not None
        return await self._skipped.receive()

    def cancel(self) -> None:
        self._inner.cancel()

    def _skip(self, error: FilterUnavailable) -> None:
        if self._skipped:  # send and receive can both see the failure; the first turned the stream over
            return
        if self._sent is None:
            raise error
        self._on_skip()
        self._skipped = PassThrough(self._end, waiting=self._sent, room=64)
        if self._finished:
            self._skipped._queue.put_nowait(None)
        self._sent = None
