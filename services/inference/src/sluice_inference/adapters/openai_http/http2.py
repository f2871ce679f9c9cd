"""Ends one HTTP/2 stream early.

httpcore2 (2.16.2) only forgets a stream that is closed before its end: it sends no RST_STREAM, so the upstream would generate on for nobody, and data
that had arrived stays counted against the connection's window. There is no public way to do better, hence this file; its test fails when an
upgrade moves what it leans on. Over HTTP/1.1 none of this is needed: there the connection is cut.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import httpx2


@dataclass(frozen=True)
class Http2Stream:
    """One stream of a connection that others use too. `events` are those that arrived and were not read yet."""

    connection: Any
    request: Any
    stream_id: int
    events: list[Any]

    async def reset(self) -> None:
        """Tells the upstream to stop; does nothing when the stream or its connection has ended."""
        state = self.connection._h2_state
        with contextlib.suppress(h2.exceptions.ProtocolError):
            state.reset_stream(self.stream_id, h2.errors.ErrorCodes.CANCEL)
            unread = [event for event in self.events if isinstance(event, h2.events.DataReceived)]
            if amount := sum(event.flow_controlled_length or 0 for event in unread):
                state.increment_flow_control_window(amount)
            await self.connection._write_outgoing_data(self.request)


def http2_stream_of(response: httpx2.Response) -> Http2Stream | None:
    """None over HTTP/1.1. To be asked when the answer has just begun: a closed stream's events are forgotten."""
    inner: Any = response.stream
    # httpcore2's byte stream lies inside the wrappers of the pool and of httpx2.
    for _ in range(6):
        if hasattr(inner, "_connection") and hasattr(inner, "_stream_id"):
            events = inner._connection._events.get(inner._stream_id, [])
            return Http2Stream(inner._connection, inner._request, inner._stream_id, events)
        inner = getattr(inner, "_stream", None) or getattr(inner, "_httpcore_stream", None)
    return None
