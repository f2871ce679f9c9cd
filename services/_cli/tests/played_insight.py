"""An insight that a test plays, where the commands look for it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest


@contextmanager
def playing(monkeypatch: pytest.MonkeyPatch, played: Any, *adds: Callable[[Any, grpc.Server], None]) -> Iterator[Any]:
    """Serves it; `adds` are those of its services, such as `add_InsightServiceServicer_to_server`."""
    server = grpc.server(ThreadPoolExecutor(1))
    for add in adds:
        add(played, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("SLUICE_INSIGHT_TARGET", f"127.0.0.1:{port}")
    yield played
    server.stop(None).wait()
