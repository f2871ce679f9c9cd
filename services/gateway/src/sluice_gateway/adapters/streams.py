"""The two halves of a bidirectional gRPC stream, as both filters need them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from google.protobuf.message import Message
from grpc.aio import AioRpcError, StreamStreamCall

from sluice_gateway.domain.rejection import FilterUnavailable, Rejection

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
TranslatedError = Callable[[BaseException], Rejection]


class Duplex(Generic[Request, Response]):
    """One bidirectional call. Writes wait for flow control; only reads tell of failures.

    A filter may end its half while we are still writing (a blocking verdict does), and gRPC then fails the write,
    although the verdict is on its way or already here. So a write that fails is no news: whoever reads gets the last
    message, or the reason why there is none.
    """

    def __init__(
        self, name: str, call: "StreamStreamCall[Request, Response]", opening: Request, failure: TranslatedError
    ) -> None:
        self._name, self._call, self._failure = name, call, failure
        self._opening: Request | None = opening
        # Not call.read(): after a failed write that raises at once, without the messages that had arrived before.
        self._responses = call.__aiter__()

    async def write(self, request: Request) -> None:
        """Send the opening if it was not sent yet, then this."""
        with suppress(AioRpcError, asyncio.InvalidStateError):
            if self._opening is not None:
                opening, self._opening = self._opening, None
                await self._call.write(opening)
            await self._call.write(request)

    async def half_close(self) -> None:
        """Say that nothing more comes."""
        with suppress(AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    async def read(self) -> Response:
        """The next message. Raises Rejection; a stream that ends without its last message has failed."""
        try:
            return await anext(self._responses)
        except AioRpcError as error:
            raise self._failure(error) from None
        except StopAsyncIteration:
            raise FilterUnavailable(self._name, "ended_early") from None

    def cancel(self) -> None:
        """Let go of the call; harmless when it has ended."""
        self._call.cancel()
