"""The writing half of a bidirectional gRPC stream, as both filters need it."""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message
from grpc.aio import AioRpcError, StreamStreamCall

from sluice_gateway.domain.rejection import FilterUnavailable, Rejection

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
TranslatedError = Callable[[BaseException], Rejection]


class Duplex(Generic[Request, Response]):
    """One bidirectional call: writes wait for flow control, a failure is a Rejection on either half."""

    def __init__(
        self, name: str, call: "StreamStreamCall[Request, Response]", opening: Request, failure: TranslatedError
    ) -> None:
        self._name, self._call, self._failure = name, call, failure
        self._opening: Request | None = opening

    async def write(self, request: Request) -> None:
        """Send the opening if it was not sent yet, then this.

        A stream that the other side has ended well takes no more text; that is not reported here, because its last
        message says why, and whoever reads it is about to.
        """
        try:
            if self._opening is not None:
                opening, self._opening = self._opening, None
                await self._call.write(opening)
            await self._call.write(request)
        except (AioRpcError, asyncio.InvalidStateError):
            await self._raise_unless_ended_well()

    async def half_close(self) -> None:
        """Say that nothing more comes."""
        try:
            await self._call.done_writing()
        except (AioRpcError, asyncio.InvalidStateError):
            await self._raise_unless_ended_well()

    async def read(self) -> Response:
        """The next message. A stream that ends without its last message has failed."""
        try:
            response: Any = await self._call.read()
        except AioRpcError as error:
            raise self._failure(error) from None
        if response is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise FilterUnavailable(self._name, "ended_early")
        return response

    def cancel(self) -> None:
        """Let go of the call; harmless when it has ended."""
        self._call.cancel()

    async def _raise_unless_ended_well(self) -> None:
        if await self._call.code() is grpc.StatusCode.OK:
            return
        raise self._failure(
            AioRpcError(
                await self._call.code(),
                await self._call.initial_metadata(),
                await self._call.trailing_metadata(),
                await self._call.details(),
                None,
            )
        )
