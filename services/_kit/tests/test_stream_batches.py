"""Batches from the queue that Faust fills for an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import faust
import pytest
from faust.types import TP, ConsumerMessage, EventT
from sluice_kit.streams.batches import batches
from sluice_kit.streams.options import Rhythm
from sluice_kit.streams.sequence import FaustLog
from sluice_kit.streams.worker import WorkerOptions, create_app

TOPIC = "batches-test"
PLACE = TP(TOPIC, 0)


@pytest.fixture()
def app(tmp_path: Path) -> Iterator[faust.App]:
    made = create_app(
        WorkerOptions(
            group="test",
            instance="0",
            bootstrap="127.0.0.1:1",  # never connected
            web_host="127.0.0.1",
            web_port=1,
            data_dir=tmp_path,
            store="memory://",
            partitions=1,
        )
    )
    made.flow_control.resume()
    made.topics._acking_topics.add(TOPIC)  # as after a subscription
    yield made
    made.consumer._thread.thread_loop.close()  # Faust makes a loop for a consumer thread that never runs here


def rhythm(*, size: int, seconds: float) -> Rhythm:
    return Rhythm(batch_size=size, batch_seconds=seconds, publish_seconds=1.0)


class Queue:
    """What an agent's stream has, filled by hand."""

    def __init__(self, app: faust.App) -> None:
        self._app = app
        self._next = 0
        self.stream = app.stream(app.topic(TOPIC, key_type=bytes, value_type=bytes))

    def put(self, count: int, *, generation: int | None = None, first: int | None = None) -> list[EventT]:
        """Events of partition 0, of this generation of the group or of another; they follow on one another, or begin at an offset."""
        self._next = self._next if first is None else first
        made = []
        for _ in range(count):
            message = ConsumerMessage(
                TOPIC, 0, self._next, 1.0, 0, None, b"key", b"value", None,
                generation_id=self._app.consumer_generation_id if generation is None else generation,
            )  # fmt: skip
            message.incref()  # as by the conductor, for this one queue
            self._next += 1
            made.append(faust.Event(self._app, b"key", b"value", None, message))
            self.stream.channel.queue.put_nowait(made[-1])
        return made

    def acknowledged(self) -> list[int]:
        return sorted(offset for offsets in self._app.consumer._acked.values() for offset in offsets)


async def test_a_batch_is_full_or_what_came_in_its_time(app: faust.App) -> None:
    queue = Queue(app)
    queue.put(7)
    found = batches(app, queue.stream, rhythm=rhythm(size=3, seconds=0.1))
    assert [len(await anext(found)) for _ in range(3)] == [3, 3, 1]


async def test_a_batch_waits_for_what_comes_within_its_time(app: faust.App) -> None:
    queue = Queue(app)
    queue.put(1)
    asyncio.get_running_loop().call_later(0.05, queue.put, 1)
    found = batches(app, queue.stream, rhythm=rhythm(size=2, seconds=30.0))
    assert [event.message.offset for event in await anext(found)] == [0, 1]


async def test_a_batch_is_acknowledged_when_the_next_is_asked_for_and_not_before(app: faust.App) -> None:
    queue = Queue(app)
    queue.put(2)
    found = batches(app, queue.stream, rhythm=rhythm(size=2, seconds=0.1))
    await anext(found)
    assert queue.acknowledged() == []
    queue.put(1)
    await anext(found)
    assert queue.acknowledged() == [0, 1]


async def test_a_batch_whose_handling_failed_is_not_acknowledged(app: faust.App) -> None:
    queue = Queue(app)
    queue.put(2)
    found = batches(app, queue.stream, rhythm=rhythm(size=2, seconds=0.1))
    with pytest.raises(RuntimeError):
        await _fail(found)
    await found.aclose()
    assert queue.acknowledged() == []


async def _fail(found: AsyncIterator[Any]) -> None:
    async for _ in found:
        raise RuntimeError("the table could not be written")


async def test_events_of_before_a_rebalance_are_dropped_and_not_acknowledged(app: faust.App) -> None:
    queue = Queue(app)
    queue.put(2, generation=app.consumer_generation_id - 1)
    queue.put(1)
    found = batches(app, queue.stream, rhythm=rhythm(size=3, seconds=0.1))
    assert [event.message.offset for event in await anext(found)] == [2]
    queue.put(1)
    await anext(found)
    assert queue.acknowledged() == [2]


@pytest.mark.parametrize("waiting", [0, 2])
async def test_batches_end_with_their_stream_after_what_is_in_hand(app: faust.App, waiting: int) -> None:
    queue = Queue(app)
    queue.put(waiting)
    asyncio.get_running_loop().call_later(0.05, queue.stream.channel._throw, StopAsyncIteration())
    found = [len(batch) async for batch in batches(app, queue.stream, rhythm=rhythm(size=3, seconds=0.2))]
    assert found == ([waiting] if waiting else [])


async def test_nothing_is_handed_over_while_partitions_move(app: faust.App) -> None:
    queue = Queue(app)
    queue.put(2)
    app.flow_control.suspend()
    found = batches(app, queue.stream, rhythm=rhythm(size=2, seconds=0.01))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(found), 0.2)
    assert queue.acknowledged() == []


async def test_faust_commits_again_once_it_is_told_how_far_all_is_merged(
    app: faust.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is acknowledged does not follow on what it has committed."""
    consumer, committed = app.consumer, []

    async def commit(offsets: Mapping[TP, int]) -> bool:
        committed.append(dict(offsets))
        return True

    async def flush() -> None:
        """Nothing was sent."""

    monkeypatch.setattr(consumer, "_commit", commit)
    monkeypatch.setattr(consumer, "assignment", lambda: {PLACE})
    monkeypatch.setattr(app.producer, "flush", flush)
    consumer._committed_offset[PLACE] = 2
    queue = Queue(app)
    found = batches(app, queue.stream, rhythm=rhythm(size=5, seconds=0.1))
    queue.put(5, first=10)
    await anext(found)
    queue.put(5)
    await anext(found)
    await consumer.commit()
    assert committed == []
    await FaustLog(app, {}).commit({PLACE: 15})
    queue.put(1)
    await anext(found)
    await consumer.commit()
    assert committed == [{PLACE: 15}, {PLACE: 20}]
