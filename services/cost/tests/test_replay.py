"""The ledger rebuilt from its events: the same rows, the same bytes, and a switch that loses nothing; on SQLite and PostgreSQL."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiokafka import AIOKafkaProducer
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.cost.v1 import cost_service_pb2_grpc as pb_grpc
from sluice.events.v1 import cost_pb2, gateway_pb2
from sluice_cost.adapters import tables, versions
from sluice_cost.adapters.cost_events import encode as encode_entry
from sluice_cost.adapters.database import Database, open_database
from sluice_cost.adapters.price_file import load_price_book
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.adapters.sql_recompute import SqlRecomputer
from sluice_cost.consumer import CompletionConsumer
from sluice_cost.domain.corrections import Scope
from sluice_cost.domain.ledger import Partition
from sluice_cost.domain.pricing import Price
from sluice_cost.replay import Replay, Report
from sluice_cost.replay import Report as SkippingReport
from sluice_cost.settings import CostSettings
from sluice_kit.broker import ensure_topics
from sluice_kit.consumer import EventConsumer
from sluice_kit.events import decode, encode, topic_of
from sluice_kit.ordered import OrderedReader
from sluice_kit.settings import MeshSettings
from sqlalchemy import func, insert, select, text, update

COMPLETED = topic_of(gateway_pb2.RequestCompleted).name
RECORDED = topic_of(cost_pb2.CostRecorded).name
MEASURED = "sluice.inference.inference_measured.v1"
MODEL = "smollm2-135m-instruct"
COUNT = 700
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)

pytestmark = pytest.mark.skipif(find_spec("noida_db") is None, reason="no embedded broker: noida-db is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def completed(number: int) -> gateway_pb2.RequestCompleted:
    event = gateway_pb2.RequestCompleted(
        outcome=gateway_pb2.REQUEST_OUTCOME_COMPLETED, model="alias", served_model=MODEL
    )
    event.metadata.event_id, event.metadata.request_id = f"event-{number}", f"request-{number}"
    event.metadata.tenant_id = ("acme", "globex")[number % 2]
    event.metadata.occurred_at.GetCurrentTime()
    event.usage.uncached_input_tokens, event.usage.output_tokens = number % 97, number % 31
    return event


class Books:
    """A broker, a cost service with a database of its own, and replays of it."""

    def __init__(self, home: Path, port: int, database_url: str, start_process: Callable[..., Any]) -> None:
        self.bootstrap, self._start_process = f"127.0.0.1:{port}", start_process
        self.target = f"127.0.0.1:{free_port()}"
        self.settings = CostSettings(
            home=home, kafka_bootstrap=self.bootstrap, kafka_embedded=True, database_url=database_url
        )

    def start(self) -> None:
        environment = os.environ | {
            "SLUICE_HOME": str(self.settings.home),
            "SLUICE_KAFKA_BOOTSTRAP": self.bootstrap,
            "SLUICE_KAFKA_EMBEDDED": "true",
            "SLUICE_COST_DATABASE_URL": self.settings.database_url,
            "SLUICE_COST_GRPC_LISTEN": self.target,
            "SLUICE_COST_METRICS_LISTEN": "127.0.0.1:0",
        }
        command = [sys.executable, "-c", "from sluice_cost.main import main; main()"]
        self._process = self._start_process(command, env=environment, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(timeout=20) == 0

    async def write(self, *events: Any) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        for event in events:
            record = encode(event)
            await producer.send(record.topic, key=record.key, value=record.value, headers=record.headers)
        await producer.stop()

    async def write_poison(self) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        await producer.send(COMPLETED, key=b"poison", value=b"\xff")
        await producer.stop()

    async def entered(self, count: int) -> int:
        """Waits until the running service has entered so many requests."""
        deadline, found = time.monotonic() + 60, 0
        async with grpc.aio.insecure_channel(self.target) as channel:
            stub: Any = pb_grpc.CostServiceStub(channel)
            while time.monotonic() < deadline and found < count:
                answer = await stub.GetSpend(pb.GetSpendRequest(), wait_for_ready=True, timeout=60)
                found = sum(group.request_count for group in answer.groups)
        return found

    async def told(self, count: int) -> Counter[str]:
        """Waits for so many requests in CostRecorded; under how many numbers each was told of.

        The embedded broker is sent the same records again when a publisher restarts: under the same number.
        """
        deadline, found = time.monotonic() + 30, Counter[str]()
        settings = MeshSettings(kafka_bootstrap=self.bootstrap, kafka_embedded=True)
        while time.monotonic() < deadline and len(found) < count:
            async with OrderedReader.opened(settings) as reader:
                spans = await reader.spans([RECORDED])
                records = [record async for record in reader.records(spans)]
            messages: list[Any] = [decode(record.topic, record.value) for record in records]
            numbers = {(m.source_event_id, m.metadata.producer, m.metadata.producer_sequence) for m in messages}
            found = Counter(source for source, _, _ in numbers)
        return found

    async def enter(self) -> None:
        """What a running service does, in this process: everything that is on the topic now, in batches of its own cut."""
        database = open_database(self.settings.database)
        await SqlPrices(database, default_currency="USD").load(load_price_book(None), recorded_at=NOW)
        ledger = SqlLedger(database, default_currency="USD")
        entering = CompletionConsumer(
            ledger, encode=encode_entry, on_appended=lambda: None, report_health=lambda *_: None, clock=lambda: NOW
        )
        consumer = EventConsumer(
            service="cost", group="sluice-cost", events=[gateway_pb2.RequestCompleted], handle=entering.handle,
            settings=self.settings, starting_offsets=entering.starting_offsets, batch_size=73,
        )  # fmt: skip
        async with OrderedReader.opened(self.settings) as reader:
            ends = {tp: span.end for tp, span in (await reader.spans([COMPLETED])).items() if span.end}
        stop = asyncio.Event()
        running = asyncio.create_task(consumer.run(stop))
        async with asyncio.timeout(60):
            while not await self._reached(ledger, ends):
                await asyncio.sleep(0.05)
        stop.set()
        await running
        await database.close()

    async def _reached(self, ledger: SqlLedger, ends: dict[Any, int]) -> bool:
        # The last record of all partitions is an event that can be entered: the offsets reach the ends.
        offsets = await ledger.next_offsets({Partition(tp.topic, tp.partition) for tp in ends})
        return all(offsets.get(Partition(tp.topic, tp.partition), 0) >= end for tp, end in ends.items())

    def replay(self, into: str = "replay") -> Replay:
        return Replay(self.settings, into=into, currency="USD")

    async def build(self, into: str = "replay", begin: str = "", export: Path | None = None) -> Report:
        return await self.replay(into).build(begin, export)

    async def put_price(self, price: Price) -> None:
        database = open_database(self.settings.database)
        await SqlPrices(database, default_currency="USD").put(price, recorded_at=datetime.now(UTC))
        await database.close()

    async def correct(self, scope: Scope) -> int:
        """Prices the live ledger anew; how many corrections that took."""
        database = open_database(self.settings.database)
        recomputer = SqlRecomputer(database, default_currency="USD", encode=encode_entry)
        done = await recomputer.correct(scope, approved_by="anna", plan_digest="", recorded_at=datetime.now(UTC))
        await database.close()
        return done.corrections

    async def entries_of_nothing(self) -> int:
        """Requests without a token: they cost nothing at any price."""
        ledger = tables.ledger.c
        nothing = (ledger.uncached_input_tokens == 0) & (ledger.output_tokens == 0)
        asked = select(func.count()).where(nothing)
        return int(await self.change(lambda connection: connection.execute(asked).scalar()))

    async def change(self, work: Callable[[Any], Any], url: str = "") -> Any:
        database = Database(url or self.settings.database)
        try:
            return await database.write(work)
        finally:
            await database.close()


@pytest.fixture
async def books(tmp_path: Path, database_url: str, start_process: Callable[..., Any]) -> Any:
    """A ledger of COUNT requests, some of whose events came twice, and a few that can never be entered."""
    port = free_port()
    binary = str(files("noida_db") / "noida-db")
    command = [binary, "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(tmp_path / "broker")]
    start_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made = Books(tmp_path / "home", port, database_url, start_process)
    await ensure_topics(made.settings)
    absurd = completed(10**6)
    absurd.usage.output_tokens = 2**60
    nobody = completed(10**6 + 1)
    nobody.metadata.tenant_id = ""
    await made.write_poison()
    await made.write(absurd, nobody, *(completed(n) for n in range(COUNT)), *(completed(n) for n in range(50)))
    await made.enter()
    yield made
    for name in ("replay", "before_replay"):
        versions.drop(made.settings.database, name)


async def test_a_replay_has_the_live_ledgers_rows_and_twice_the_same_bytes(books: Books, tmp_path: Path) -> None:
    first = await books.build(export=tmp_path / "first.jsonl")
    second = await books.build(export=tmp_path / "second.jsonl")
    assert (first.difference.same, first.difference.is_none) == (COUNT, True)
    assert (first.sums_same, first.chains_same) == (True, True)
    assert first.skipped == {"malformed": 1, "AbsurdUsage": 1, "UnusableCompletion": 1}
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()
    assert (tmp_path / "first.jsonl").read_bytes().count(b"\n") == COUNT
    assert (first.sha256, first.spans) == (second.sha256, second.spans)

    def waiting(connection: Any) -> int:
        return int(connection.execute(select(func.count()).select_from(tables.outbox)).scalar())

    assert await books.change(waiting, versions.url_of(books.settings.database, "replay")) == 0


async def test_a_row_that_was_changed_is_named_with_what_changed(books: Books) -> None:
    def tamper(connection: Any) -> None:
        if connection.dialect.name == "sqlite":
            connection.execute(text("DROP TRIGGER cost_ledger_no_update"))
        else:
            connection.execute(text("ALTER TABLE cost_ledger DISABLE TRIGGER ALL"))
        connection.execute(update(tables.ledger).where(tables.ledger.c.event_id == "event-7").values(amount_nano=1))

    await books.change(tamper)
    report = await books.build()
    assert (report.difference.different, report.difference.same, report.is_same) == (1, COUNT - 1, False)
    (example,) = report.difference.examples
    assert example.startswith("event-7: amount_nano 1 -> ")


async def test_a_part_from_a_moment_or_an_offset_on_is_compared_and_cannot_be_switched_to(books: Books) -> None:
    by_offset = await books.build(begin="100")
    assert by_offset.difference.is_none
    assert 0 < by_offset.difference.same < COUNT
    assert by_offset.difference.begun_before
    nothing = await books.build(begin="2999-01-01")
    assert (nothing.events, nothing.difference.same, nothing.is_same) == (0, 0, True)
    await books.build(begin="100")
    left = await books.replay().switch()
    assert (left.kept_as, left.is_same) == ("", False)
    assert left.difference.only_live == COUNT - by_offset.difference.same - by_offset.difference.begun_before


async def test_after_a_switch_the_service_goes_on_and_nothing_is_lost_or_told_twice(books: Books) -> None:
    await books.build()
    await books.write(*(completed(n) for n in range(COUNT, COUNT + 40)))
    books.start()
    assert await books.entered(COUNT + 40) == COUNT + 40
    with pytest.raises(versions.Refused, match="stop every cost service"):
        await books.replay().switch()
    books.stop()
    await books.write(*(completed(n) for n in range(COUNT + 40, COUNT + 60)))
    decided = insert(tables.audit).values(recorded_at_us=1, actor="anna", action="test", subject="x", details="{}")
    await books.change(lambda connection: connection.execute(decided))
    report = await books.replay().switch()
    assert report.is_same
    assert report.kept_as
    assert (report.difference.same, report.events) == (COUNT + 40, 40)
    asked = select(func.count()).where(tables.audit.c.actor == "anna")
    assert await books.change(lambda connection: connection.execute(asked).scalar()) == 1
    books.start()
    assert await books.entered(COUNT + 60) == COUNT + 60
    told = await books.told(COUNT + 60)
    assert (len(told), set(told.values())) == (COUNT + 60, {1})


def test_what_is_decided_or_under_way_is_carried_over_by_a_switch() -> None:
    assert {"cost_prices", "cost_audit", "cost_outbox", "cost_budgets"} <= set(versions.carried())
    assert not versions.REBUILT & set(versions.carried())


async def test_names_that_cannot_be_versions_are_refused(books: Books) -> None:
    for name in ("", "Up", "a b", "../x", "before_x"):
        with pytest.raises(versions.Refused, match="--into"):
            books.replay(name)
    with pytest.raises(versions.Refused, match="replay without --switch first"):
        await books.replay("never_built").switch()
    with pytest.raises(versions.Refused, match="--from yesterday"):
        await books.build(begin="yesterday")


async def test_a_row_that_was_corrected_is_told_apart_from_one_that_is_wrong_and_holds_up_a_switch(
    books: Books, make_price: Callable[..., Price]
) -> None:
    """The price of the model that answered was wrong: what it should have been is entered, then corrected to."""
    now = datetime.now(UTC)
    await books.put_price(make_price(MODEL, effective_from=now - timedelta(days=1)))
    free = await books.entries_of_nothing()
    uncorrected = await books.build()
    assert (uncorrected.difference.different, uncorrected.difference.corrected) == (COUNT - free, 0)
    assert not uncorrected.is_same

    assert await books.correct(Scope(now - timedelta(days=1), now + timedelta(days=1))) == COUNT - free
    corrected = await books.build()
    assert (corrected.difference.corrected, corrected.difference.different) == (COUNT - free, 0)
    assert corrected.difference.same == free
    assert (corrected.sums_same, corrected.chains_same, corrected.is_same) == (None, None, True)

    for accept in (False, True):
        with pytest.raises(versions.Refused, match=f"holds {COUNT - free} corrections"):
            await books.replay().switch(accept_differences=accept)
    assert versions.exists(books.settings.database, "replay")

    # Corrections explain their own difference, and no other.
    await books.put_price(make_price(MODEL, effective_from=now - timedelta(days=1), output=7_000_000_000))
    again = await books.build()
    assert again.difference.different > 0
    assert again.difference.corrected + again.difference.different == COUNT - free
    assert not again.is_same


async def test_rows_that_no_replay_makes_hold_up_a_switch(books: Books) -> None:
    """Machine seconds come from InferenceMeasured, which is not replayed."""
    await books.build()

    def copy_as_compute(connection: Any) -> None:
        row = dict(connection.execute(select(tables.ledger).limit(1)).mappings().one())
        row |= {"entry_id": 10**6, "event_id": "measured", "cost_event_id": "told", "source_topic": MEASURED}
        connection.execute(insert(tables.ledger).values(row))

    await books.change(copy_as_compute)
    report = await books.build()
    assert (report.difference.same, report.difference.is_none) == (COUNT, True)
    assert (report.sums_same, report.chains_same) == (None, None)
    for accept in (False, True):
        with pytest.raises(versions.Refused, match="1 rows for machine seconds"):
            await books.replay().switch(accept_differences=accept)


def test_a_report_tells_what_was_skipped_by_reason() -> None:
    report = SkippingReport(into="again", skipped=Counter(UnusableCompletion=2))
    assert json.loads(report.as_json())["skipped"] == {"UnusableCompletion": 2}
