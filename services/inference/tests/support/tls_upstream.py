"""An OpenAI-compatible answer behind Hypercorn with TLS, whose protocol ALPN negotiates; and proxy.py as outbound proxy, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trustme
from fault_upstream import piece
from hypercorn.asyncio import serve
from hypercorn.config import Config

PROXY_USER = "sluice:geheim"


class TlsUpstream:
    """Answers with three words; a request for the model `endless` never ends. Notes what was negotiated and who went."""

    def __init__(self) -> None:
        self.versions: list[str] = []
        self.gone = 0
        self.url = ""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.versions.append(scope["http_version"])
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for text in ("the ", "salt ", "sea"):
            await send(_event(piece(text)))
        if json.loads(body)["model"] == "endless":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone += 1
            return
        usage = {"prompt_tokens": 5, "completion_tokens": 3}
        await send(_event(piece("", "stop", usage=usage)))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    @contextlib.asynccontextmanager
    async def serving(self, folder: Path, *, alpn: tuple[str, ...] = ("h2", "http/1.1")) -> AsyncIterator[Path]:
        """Yields the file of the authority that signed its throw-away certificate."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        leaf = authority.issue_cert("localhost")
        leaf.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        leaf.private_key_pem.write_to_path(str(folder / "key.pem"))
        config = Config()
        config.certfile, config.keyfile = str(folder / "cert.pem"), str(folder / "key.pem")
        config.alpn_protocols = list(alpn)
        config.bind, config.accesslog, config.errorlog = ["127.0.0.1:0"], None, None
        config.graceful_timeout = 1
        sockets = config.create_sockets()
        self.url = f"https://localhost:{sockets.secure_sockets[0].getsockname()[1]}/v1"
        config.create_sockets = lambda: sockets  # type: ignore[method-assign]
        over = asyncio.Event()
        running = asyncio.create_task(serve(self, config, shutdown_trigger=over.wait))  # type: ignore[arg-type]
        try:
            yield folder / "ca.pem"
        finally:
            over.set()
            await running


def _event(body: Any) -> dict[str, Any]:
    return {"type": "http.response.body", "body": f"data: {json.dumps(body)}\n\n".encode(), "more_body": True}


@contextlib.asynccontextmanager
async def outbound_proxy(folder: Path) -> AsyncIterator[str]:
    """proxy.py, which asks for PROXY_USER; yields its address."""
    port_file = folder / "proxy-port"
    command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--port-file", str(port_file)]
    command += ["--num-workers", "1", "--num-acceptors", "1", "--basic-auth", PROXY_USER, "--log-level", "ERROR"]
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(20):
            while not (port_file.exists() and port_file.read_text().strip()):
                assert child.poll() is None, "proxy.py ended at once"
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port_file.read_text().split()[0]}"
    finally:
        child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
