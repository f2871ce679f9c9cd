"""A broker that lost the end of its log gives offsets again: what stands there now counts, and what was counted counts once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice_drift.adapters import records
from sluice_drift.adapters.processor import Processor
from sluice_drift.adapters.router import Router
from sluice_drift.agents import OBSERVATIONS_TOPIC
from sluice_drift.domain.comparison import Detection
from sluice_drift.domain.partition import Rules
from sluice_drift.domain.watermark import GIVEN_AGAIN, Marks
from sluice_drift.replay import SeriesCounted
from sluice_kit.events import topic_of
from sluice_kit.streams.windows_replayed import Start

BASE = 1_760_000_100
SOURCE = topic_of(InferenceMeasured).name
RULES = Rules(reference_size=30)


class Broker:
    """One partition of each topic in memory, a table, and the order in which they were written."""

    def __init__(self) -> None:
        self.log: dict[str, list[bytes]] = {SOURCE: [], OBSERVATIONS_TOPIC: []}
        self.table: dict[bytes, bytes] = {}
        self.position: dict[str, int] = {}
        self.dies_at = ""

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        return dict(self.table).items()

    async def apply(self, changes: Mapping[bytes, bytes | None], *, event: Any) -> None:
        self._alive("table")
        for key, value in changes.items():
            if value is None:
                self.table.pop(key, None)
            else:
                self.table[key] = value

    async def send(
        self, *, key: bytes | None = None, value: bytes | None = None, headers: Any = None
    ) -> Awaitable[Any]:
        self._alive("observations")
        self.log[OBSERVATIONS_TOPIC].append(value or b"")
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.set_result(None)
        return sent

    def _alive(self, name: str) -> None:
        if name == self.dies_at:
            raise ConnectionError(name)

    def owns(self, tp: Any) -> bool:
        return True

    async def seek(self, tp: Any, offset: int) -> None:
        self.position[tp.topic] = offset

    async def bounds(self, *tps: Any) -> Mapping[Any, tuple[int, int]]:
        return {tp: (0, len(self.log[tp.topic])) for tp in tps}

    async def next_held(self, tp: Any, offset: int) -> int | None:
        return offset if offset < len(self.log[tp.topic]) else None

    async def commit(self, positions: Mapping[Any, int]) -> None:
        """Advice, which nobody asks for here."""


class Worker:
    """A processor that reads both topics to their end when it is told."""

    def __init__(self, broker: Broker) -> None:
        self.broker, self.published = broker, dict[str, DriftMeasured]()
        self._processor = Processor(
            windows=broker,
            rules=RULES,
            detection=Detection(),
            publish=self._publish,
            source=broker,
            router=Router(target=broker, dead_letters=None),  # type: ignore[arg-type]  # nothing is unreadable here
            now=lambda: BASE + 10.0,
        )

    async def _publish(self, event: DriftMeasured) -> None:
        self.published[event.part.part_key] = event

    async def read(self) -> None:
        """As after an assignment, which the restart of a broker brings."""
        holding, broker = self._processor.holding, self.broker
        holding.pause()
        holding.resume({0})
        await holding.align([TP(SOURCE, 0), TP(OBSERVATIONS_TOPIC, 0)])
        for topic, take in ((SOURCE, self._processor.route), (OBSERVATIONS_TOPIC, self._processor.absorb)):
            while (first := broker.position[topic]) < (end := len(broker.log[topic])):
                broker.position[topic] = end
                await take([record(topic, offset, broker.log[topic][offset]) for offset in range(first, end)])
        await self._processor.publish_due()

    def observed(self) -> int:
        [event] = [each for each in self.published.values() if each.series.tenant_id == "acme"]
        return event.observations


def record(topic: str, offset: int, value: bytes) -> Any:
    message = SimpleNamespace(
        tp=TP(topic, 0), topic=topic, partition=0, offset=offset, timestamp=float(BASE), value=value, headers=None
    )
    return SimpleNamespace(message=message)


def event(number: int) -> bytes:
    made = InferenceMeasured(model="small")
    made.metadata.event_id, made.metadata.tenant_id = f"e{number}", "acme"
    made.metadata.occurred_at.FromSeconds(BASE + number // 100)
    made.prompt_profile.language, made.prompt_profile.words = "en", 3 + number % 9
    return made.SerializeToString()


def marks_of(broker: Broker) -> Marks:
    found = records.decode(b"marks|0", broker.table[b"marks|0"])
    assert isinstance(found, Marks)
    return found


async def counted(*numbers: int) -> tuple[Broker, Worker]:
    broker = Broker()
    broker.log[SOURCE] = [event(number) for number in numbers]
    worker = Worker(broker)
    await worker.read()
    return broker, worker


async def test_what_is_new_at_an_offset_that_is_given_again_is_counted_and_copies_are_not() -> None:
    broker, worker = await counted(*range(50))
    del broker.log[SOURCE][30:]
    broker.log[SOURCE] += [event(number) for number in range(50, 60)]
    await worker.read()
    assert worker.observed() == 60
    broker.log[SOURCE] += [event(number) for number in (*range(60, 90), *range(30, 45))]
    await worker.read()
    assert worker.observed() == 90


async def test_what_is_new_at_an_offset_that_is_given_again_is_collected_and_not_taken_for_a_part_of_the_reference() -> (
    None
):
    broker, worker = await counted(*range(25))
    del broker.log[SOURCE][20:]
    broker.log[SOURCE] += [event(number) for number in (*range(25, 26), *range(20, 22))]
    await worker.read()
    broker.log[SOURCE] += [event(number) for number in (*range(22, 25), *range(26, 70))]
    await worker.read()
    [told] = [each for each in worker.published.values() if each.series.tenant_id == "acme"]
    assert (told.reference.observations, told.observations) == (30, 70)
    assert {each.feature: each.observations for each in told.features}["prompt.words"] == 40


async def test_offsets_of_a_log_that_lost_its_end_twice_are_told_apart() -> None:
    broker, worker = await counted(*range(50))
    for end, new in ((30, range(50, 60)), (35, range(60, 63)), (10, range(63, 65))):
        del broker.log[SOURCE][end:]
        broker.log[SOURCE] += [event(number) for number in new]
        await worker.read()
    assert worker.observed() == 65
    marks = marks_of(broker)
    # Each is seen twice: that the log is shorter, and then from where on it differs. Only the last says anything of what stands there now.
    assert marks.rewinds[SOURCE] == [(6, 10)]
    assert [marks.place(SOURCE, offset) - offset for offset in (9, 10, 50)] == [0, 6 * GIVEN_AGAIN, 6 * GIVEN_AGAIN]


async def test_a_worker_that_dies_while_it_sends_on_what_is_new_has_stored_that_offsets_are_given_again() -> None:
    broker, worker = await counted(*range(50))
    del broker.log[SOURCE][30:]
    broker.log[SOURCE] += [event(number) for number in range(50, 60)]
    broker.dies_at = "observations"
    with pytest.raises(ConnectionError):
        await worker.read()
    assert (marks_of(broker).rewinds, marks_of(broker).frontier[SOURCE]) == ({SOURCE: [(2, 30)]}, 30)
    broker.dies_at = ""
    broker.log[SOURCE] += [event(number) for number in range(60, 90)]  # nobody can see now that it was shorter
    successor = Worker(broker)
    await successor.read()
    assert successor.observed() == 90


async def test_nothing_is_sent_on_where_it_cannot_be_stored_that_offsets_are_given_again() -> None:
    broker, worker = await counted(*range(50))
    del broker.log[SOURCE][30:]
    broker.log[SOURCE] += [event(number) for number in range(50, 60)]
    sent = len(broker.log[OBSERVATIONS_TOPIC])
    broker.dies_at = "table"
    with pytest.raises(ConnectionError):
        await worker.read()
    assert len(broker.log[OBSERVATIONS_TOPIC]) == sent


async def test_a_replay_gives_what_the_log_holds_now_the_places_that_it_had_when_it_was_counted() -> None:
    broker, worker = await counted(*range(50))
    del broker.log[SOURCE][40:]
    broker.log[SOURCE] += [event(number) for number in range(50, 55)]
    await worker.read()
    broker.log[SOURCE] += [event(number) for number in (*range(40, 50), *range(55, 90))]
    await worker.read()
    stored = {key.decode(): records.decode(key, value) for key, value in broker.table.items()}
    again = SeriesCounted(RULES, Detection(), Start(stored, {OBSERVATIONS_TOPIC: 1}, is_partial=False))
    for offset, value in enumerate(broker.log[SOURCE]):
        again.take(consumed(offset, value))
    assert again.unlike() == []
    replayed = again.windows()
    assert {key: told(each) for key, each in replayed.items()} == {
        key: told(each) for key, each in worker.published.items()
    }


def consumed(offset: int, value: bytes) -> Any:
    return SimpleNamespace(topic=SOURCE, partition=0, offset=offset, timestamp=BASE * 1000, value=value, headers=())


def told(each: DriftMeasured) -> tuple[Any, ...]:
    return each.observations, each.reference, list(each.features)
