"""An HTTP server for an ASGI application: uvicorn, inside the process's own event loop. Needs the extra `http`."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from sluice_kit.process import PortTaken
from sluice_kit.telemetry import logger

log = logger(__name__)
# Its start and stop are told by our own events.
logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


class _Quiet(uvicorn.Server):
    """Leaves signals alone: the gRPC server and the kit act on them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpListener:
    """Serves an ASGI application at `host:port`; port 0 takes a free one."""

    def __init__(
        self,
        app: Any,
        listen: str,
        *,
        variable: str,
        drain_seconds: float,
        cert_file: Path | None = None,
        key_file: Path | None = None,
    ) -> None:
        """`variable` is the setting to change when the address is taken."""
        self._listen, self._variable = listen, variable
        self._server = _Quiet(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
                ssl_certfile=cert_file,
                ssl_keyfile=key_file,
            )
        )
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises PortTaken."""
        host, _, port = self._listen.rpartition(":")
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host.strip("[]"), int(port)))
        except OSError:
            listening.close()
            raise PortTaken(self._listen, self._variable) from None
        self.port = listening.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]))
        await self._server.ready.wait()
        log.info("http.listening", port=self.port)

    async def stop(self) -> None:
        """Take no more requests, let running ones end for the drain time, stop."""
        self._server.should_exit = True
        if self._task:
            await self._task
