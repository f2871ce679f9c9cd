"""Lives of the read model over one file of history, and a house of stories."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from sluice.insight.v1 import request_service_pb2_grpc as rpc
from sluice_insight.api.requests import RequestService
from sluice_kit.interceptor import CallInterceptor

from .history_lives import Insight, log
from .story_house import House


@pytest.fixture(scope="session")
def month() -> list[list[Message]]:
    return log(34)


@pytest.fixture()
async def lives(tmp_path: Path) -> AsyncIterator[Iterator[Insight]]:
    """Lives over one file, each opened where the last ended."""
    made: list[Insight] = []

    def start(now: int, **more: Any) -> Insight:
        if made:
            made[-1].close()
        made.append(Insight(tmp_path / "history.db", now=now, **more))
        return made[-1]

    yield start  # type: ignore[misc]
    if made:
        made[-1].close()


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "requests.db")
    server = grpc.aio.server(interceptors=[CallInterceptor()])
    rpc.add_RequestServiceServicer_to_server(RequestService(made.stories), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        made.stub = rpc.RequestServiceStub(channel)
        yield made
    await server.stop(None)
    made.stories.close()
