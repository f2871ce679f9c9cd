"""A worker that is to stop does stop."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from sluice_kit.streams.options import Rhythm
from sluice_kit.streams.rounds import PublishRounds
from sluice_kit.streams.sequence import SourceWithheld

HANGS = """
import asyncio, sys
from pathlib import Path
from sluice_kit.streams import worker
from sluice_kit.streams.options import WorkerOptions

async def crashes():
    raise RuntimeError("PartitionsMismatch")

async def for_ever():
    await asyncio.Event().wait()

worker.SHUTDOWN_SECONDS = 1.0
app = worker.create_app(WorkerOptions(
    group="group", instance="0", bootstrap="127.0.0.1:9", partitions=1,
    data_dir=Path(sys.argv[1]), store="memory://", web_host="127.0.0.1", web_port=6066))
hanging = worker.Worker(app, quiet=True, redirect_stdouts=False)
hanging.spinner = None
hanging.start, hanging.stop = crashes, for_ever
hanging.execute_from_commandline()
"""


def test_a_worker_that_crashed_and_cannot_stop_ends_and_says_where_it_hung(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "stop_and_shutdown" in done.stderr


class Held:
    """A holding that cannot be aligned."""

    recovered = True

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def align(self, assigned: Any) -> None:
        raise self._error


async def test_the_timer_ends_a_worker_that_does_not_get_what_the_log_holds_and_for_nothing_else() -> None:
    async def nothing() -> None:
        return None

    def rounds(error: Exception) -> PublishRounds:
        rhythm = Rhythm(batch_size=1, batch_seconds=1.0, publish_seconds=1.0)
        holding: Any = Held(error)
        return PublishRounds(holding, nothing, name="test", rhythm=rhythm, assigned=lambda: [])

    await rounds(ConnectionError("the broker is away")).tick()
    with pytest.raises(SourceWithheld):
        await rounds(SourceWithheld(TopicPartition("facts", 0), 5)).tick()
