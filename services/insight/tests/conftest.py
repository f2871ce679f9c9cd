"""Lives of the read model over one file of history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from .history_lives import Insight, log


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
