"""A small HTTP/2 upstream (prior knowledge, plain TCP) over the `h2` library: streams answers and notes resets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import h2.config
import h2.connection
import h2.events
from fault_upstream import piece


class Http2Upstream:
    """Answers every request with its words, one event each; a request for the model `endless` never ends."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.connections = 0
        self.requests = 0
        self.most_at_once = 0
        self.resets: list[int] = []
        self.url = ""
        self._serving: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Http2Upstream]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        self.connections += 1
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        bodies: dict[int, bytes] = {}
        answering: dict[int, asyncio.Task[None]] = {}
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(65_536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.DataReceived):
                        bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded):
                        body = json.loads(bodies.pop(event.stream_id))
                        work = self._answer(connection, writer, event.stream_id, endless=body["model"] == "endless")
                        answering[event.stream_id] = asyncio.create_task(work)
                        self.requests += 1
                        self.most_at_once = max(self.most_at_once, sum(not one.done() for one in answering.values()))
                    elif isinstance(event, h2.events.StreamReset):
                        self.resets.append(event.stream_id)
                        answering[event.stream_id].cancel()
                writer.write(connection.data_to_send())
                await writer.drain()
        for work in answering.values():
            work.cancel()
        await asyncio.gather(*answering.values(), return_exceptions=True)
        writer.close()

    async def _answer(
        self, connection: h2.connection.H2Connection, writer: asyncio.StreamWriter, stream: int, *, endless: bool
    ) -> None:
        connection.send_headers(stream, [(":status", "200"), ("content-type", "text/event-stream")])
        for word in self.words:
            connection.send_data(stream, f"data: {json.dumps(piece(word))}\n\n".encode())
            writer.write(connection.data_to_send())
            await asyncio.sleep(0.01)
        if endless:
            await asyncio.Event().wait()
        connection.send_data(
            stream, f"data: {json.dumps(piece('', 'stop'))}\n\ndata: [DONE]\n\n".encode(), end_stream=True
        )
        writer.write(connection.data_to_send())
