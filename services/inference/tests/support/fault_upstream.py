"""An OpenAI-compatible upstream that misbehaves as told: it speaks HTTP/1.1 by hand, so that every byte and its timing is ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Call:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client closed the connection while it was being answered."""
    answering: bool = True


Script = Callable[["Connection", Call], Awaitable[None]]


class Connection:
    """What a script answers with."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def whole(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode() if not isinstance(body, bytes) else body
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        await self.writer.drain()

    async def begin(self) -> None:
        self.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await self.writer.drain()

    async def raw(self, content: bytes) -> None:
        if content:
            self.writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            await self.writer.drain()

    async def event(self, body: Any) -> None:
        await self.raw(b"data: " + (body if isinstance(body, bytes) else json.dumps(body).encode()) + b"\n\n")

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def cut(self) -> None:
        """Breaks the connection without a goodbye."""
        self.writer.transport.abort()


def piece(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of a chat."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more}


def telling(*texts: str, finish: str = "stop", usage: dict[str, Any] | None = None, done: bool = True) -> Script:
    """A stream that is well."""

    async def script(connection: Connection, call: Call) -> None:
        await connection.begin()
        await connection.event({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})
        for text in texts:
            await connection.event(piece(text))
        await connection.event(piece("", finish))
        if usage is not None:
            await connection.event({"choices": [], "usage": usage})
        if done:
            await connection.event(b"[DONE]")
        await connection.end()

    return script


class FaultUpstream:
    """Plays its scripts in order; the last one again and again."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.calls: list[Call] = []
        self.connections = 0
        self.open = 0
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FaultUpstream]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        self._writers.add(writer)
        self.connections += 1
        self.open += 1
        try:
            while call := await _read_call(reader):
                self.calls.append(call)
                script = self.scripts[min(len(self.calls), len(self.scripts)) - 1]
                await self._play(script, Connection(writer), call, reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()

    async def _play(self, script: Script, connection: Connection, call: Call, reader: asyncio.StreamReader) -> None:
        playing = asyncio.ensure_future(script(connection, call))
        leaving = asyncio.ensure_future(_until_gone(reader))
        await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done() and not leaving.cancelled():
            call.gone.set()
            playing.cancel()
        leaving.cancel()
        await asyncio.gather(playing, leaving, return_exceptions=True)
        call.answering = False
        if call.gone.is_set():
            raise ConnectionResetError


async def _until_gone(reader: asyncio.StreamReader) -> None:
    """Returns when the client closed its side; a client that sends more would be a fault of the test."""
    while not reader.at_eof():
        if reader.exception():
            return
        await asyncio.sleep(0.005)


async def _read_call(reader: asyncio.StreamReader) -> Call | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Call(first.split()[1], headers, json.loads(body or b"{}"))
