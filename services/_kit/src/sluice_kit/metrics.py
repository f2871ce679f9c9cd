"""GET /metrics and /healthz on a port of their own, in a thread, so that a busy event loop is still seen."""

import json
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from sluice_kit.health import HealthBoard
from sluice_kit.process import check_free


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without looking up the host's name, as http.server would: without DNS that takes seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _SilentHandler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no event."""


class MetricsServer:
    """Serves /metrics (Prometheus text) and /healthz (200, or 503 with the failing checks)."""

    def __init__(self, listen: str, board: HealthBoard, *, variable: str = "the metrics address") -> None:
        """Listens at once. Raises PortTaken naming `variable`, the setting to change."""
        check_free(listen, variable)
        host, port = listen.rsplit(":", 1)
        self._server = _Server((host, int(port)), _SilentHandler)
        self._server.set_app(_application(board))  # type: ignore[arg-type]
        self.port: int = self._server.server_port
        # The pause between two looks at whether to stop: with the default of 0.5 s every stop would take as long.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving. Blocks for up to a tenth of a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=2)


def _application(board: HealthBoard) -> Callable[..., Iterable[bytes]]:
    metrics = make_wsgi_app()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/healthz":
            return metrics(environ, start_response)
        body = json.dumps({"serving": board.serving, "checks": dict(board.checks)}).encode()
        start_response("200 OK" if board.serving else "503 Service Unavailable", [("Content-Type", "application/json")])
        return [body]

    return application
