"""The agent around the aggregation, without a broker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from faust.types import TP
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice_kit.events import encode
from sluice_kit.streams.agents import declare_agent, raw_topic
from sluice_kit.streams.worker import WorkerOptions, create_app
from sluice_quality.adapters import processor as processors
from sluice_quality.agents import RHYTHM
from sluice_quality.domain.partition import Rules


class NoLog:
    """A source that never moves."""

    def owns(self, tp: TP) -> bool:
        return True

    async def seek(self, tp: TP, offset: int) -> None:
        raise AssertionError("nothing is out of order")

    async def bounds(self, *tps: TP) -> Mapping[TP, tuple[int, int]]:
        return dict.fromkeys(tps, (0, 0))

    async def next_held(self, tp: TP, offset: int) -> int | None:
        raise AssertionError("nothing is missing")

    async def commit(self, positions: Mapping[TP, int]) -> None:
        raise AssertionError("nothing is aligned")


class NoDeadLetters:
    """Counts what could not be read."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    async def park(self, event: object, *, reason: str) -> None:
        self.reasons.append(reason)


class Changes(dict):
    """A table that needs no broker."""

    async def apply(self, changes: Mapping[bytes, bytes | None], *, event: object) -> None:
        self.update(changes)


async def test_an_agent_merges_a_batch_and_publishes_its_window(tmp_path: Path) -> None:
    app = create_app(
        WorkerOptions(
            group="test",
            instance="0",
            bootstrap="127.0.0.1:1",
            web_host="127.0.0.1",
            web_port=1,  # not opened here
            data_dir=tmp_path,
            store="memory://",
            partitions=4,
        )
    )
    published: list[QualityMeasured] = []

    async def publish(*events: QualityMeasured) -> None:
        published.extend(events)

    dead_letters = NoDeadLetters()
    processor = processors.Processor(
        windows=Changes(),
        rules=Rules(),
        dead_letters=dead_letters,  # type: ignore[arg-type]
        source=NoLog(),
        publish=publish,
        now=lambda: 1_760_000_000.0,
    )
    processor.holding.resume({0})
    record = encode(completion())
    agent = declare_agent(app, raw_topic(app, record.topic), processor.absorb, rhythm=RHYTHM)
    async with agent.test_context() as worker:
        for value in (record.value, b"\xff\xff poison"):
            await worker.put(value, partition=0, timestamp=1_760_000_000.0, wait=False)
        await worker.put(record.value, partition=0, timestamp=1_760_000_000.0)  # the same event, sent twice
    app.consumer._thread.thread_loop.close()  # Faust makes a loop for a consumer thread that never runs here
    await processor.publish_due()
    [event] = published
    assert (event.requests.requests, event.part.revision, event.series.tenant_id) == (1, 1, "acme")
    assert dead_letters.reasons == ["malformed"]


def completion() -> RequestCompleted:
    event = RequestCompleted(outcome=RequestOutcome.REQUEST_OUTCOME_COMPLETED, model="small")
    event.metadata.event_id = event.metadata.request_id = "r1"
    event.metadata.tenant_id = "acme"
    event.metadata.occurred_at.FromSeconds(1_760_000_000)
    return event
