"""The ledger is exact, whatever comes in which order and how often; on SQLite and on PostgreSQL."""

import asyncio
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sluice_cost.adapters import tables
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database, open_database
from sluice_cost.adapters.outbox import Telling
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.adapters.sql_spend import SqlSpend
from sluice_cost.domain.ledger import Completion, LedgerEntry, Partition, UnusableCompletion
from sluice_cost.domain.price_book import PriceBookMistakes, read_price_book
from sluice_cost.domain.pricing import Price
from sluice_cost.domain.spend import SUMS, Dimension, Spend, SpendFilter, SpendGroup, SpendQuery, TooManyGroups
from sluice_cost.domain.usage import Usage
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LONG_AGO, FAR_AWAY = NOON - timedelta(days=1000), NOON + timedelta(days=1000)
COST = 40_000
Make = Callable[..., Completion]


@pytest.fixture
async def ledger(database: Database, make_price: Callable[..., Price]) -> SqlLedger:
    await SqlPrices(database, default_currency="USD").put(make_price(), recorded_at=NOON)
    return SqlLedger(database, default_currency="USD")


async def append(
    ledger: SqlLedger, completions: Sequence[Completion], offsets: Mapping[Partition, int] | None = None, **options: Any
) -> Sequence[LedgerEntry]:
    return await ledger.append(completions, offsets or {}, **{"recorded_at": NOON, "encode": encode, **options})


async def counts(database: Database) -> dict[str, int]:
    """Rows and sums of everything that must agree."""

    def read(connection: Any) -> dict[str, int]:
        def number(query: Any) -> int:
            return int(connection.execute(query).scalar() or 0)

        return {
            "rows": number(select(func.count()).select_from(tables.ledger)),
            "amount": number(select(func.sum(tables.ledger.c.amount_nano))),
            "told": number(select(func.count()).select_from(tables.outbox)),
            "spend_rows": number(select(func.sum(tables.spend_hours.c.row_count))),
            "spend": number(select(func.sum(tables.spend_hours.c.amount_nano))),
        }

    return await database.read(read)


def exactly(rows: int) -> dict[str, int]:
    return {"rows": rows, "amount": rows * COST, "told": rows, "spend_rows": rows, "spend": rows * COST}


@pytest.mark.parametrize("seed", range(3))
async def test_duplicates_reordering_and_any_split_into_batches_give_the_same_ledger(
    seed: int, ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    chance = random.Random(seed)
    deliveries = [make_completion(number) for number in range(300) for _ in range(chance.choice([1, 1, 2, 4]))]
    chance.shuffle(deliveries)
    new = 0
    while deliveries:
        size = chance.randint(1, 90)
        batch, deliveries = deliveries[:size], deliveries[size:]
        new += len(await append(ledger, batch))
    assert new == 300
    assert await counts(database) == exactly(300)


async def test_a_full_replay_changes_nothing(ledger: SqlLedger, database: Database, make_completion: Make) -> None:
    batch = [make_completion(number) for number in range(50)]
    await append(ledger, batch)
    assert await append(ledger, batch) == []
    assert await counts(database) == exactly(50)


async def test_a_batch_that_fails_leaves_nothing_behind(
    ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    def break_down(entry: LedgerEntry) -> bytes:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await append(ledger, [make_completion(1)], {Partition("t", 0): 5}, encode=break_down)
    assert await counts(database) == exactly(0)
    assert await ledger.next_offsets({Partition("t", 0)}) == {}


async def test_offsets_are_kept_with_the_rows_and_only_those_asked_for_are_told(
    ledger: SqlLedger, make_completion: Make
) -> None:
    first, second, never_read = Partition("t", 0), Partition("t", 1), Partition("t", 2)
    await append(ledger, [make_completion(1)], {first: 7, second: 9})
    await append(ledger, [], {first: 8})
    assert await ledger.next_offsets({first, never_read}) == {first: 8}


@pytest.mark.parametrize("table", ["cost_ledger", "cost_prices", "cost_audit"])
@pytest.mark.parametrize("change", ["UPDATE {} SET recorded_at_us = 0", "DELETE FROM {}"])
async def test_what_is_written_can_not_be_changed(
    table: str, change: str, ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    await append(ledger, [make_completion(1)])
    with pytest.raises(DBAPIError, match="append-only"):
        await database.write(lambda connection: connection.execute(text(change.format(table))))


@pytest.mark.parametrize(
    ("changes", "priced", "nano"),
    [
        ({}, "priced", COST),
        ({"served_model": "", "model": "small"}, "priced", COST),
        ({"served_model": "unheard-of"}, "unpriced", 0),
        ({"occurred_at": NOON - timedelta(days=101)}, "unpriced", 0),
        ({"usage": Usage(), "outcome": "blocked_input"}, "no_usage", 0),
        ({"outcome": "cancelled", "usage": Usage(output_tokens=2, is_estimated=True)}, "priced", 10_000),
        ({"is_synthetic": True}, "synthetic", 0),
    ],
)
async def test_every_request_has_a_row_that_says_how_its_amount_came_about(
    changes: dict[str, Any], priced: str, nano: int, ledger: SqlLedger, make_completion: Make
) -> None:
    (entry,) = await append(ledger, [make_completion(1, **changes)])
    assert (entry.charge.priced, entry.charge.total) == (priced, nano)
    assert entry.charge_kind == ("synthetic" if changes.get("is_synthetic") else "inference")


@pytest.mark.parametrize("missing", ["event_id", "request_id", "tenant_id"])
async def test_a_completion_nobody_can_be_charged_for_is_refused(
    missing: str, ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    with pytest.raises(UnusableCompletion):
        await append(ledger, [make_completion(0), make_completion(1, **{missing: ""})])
    assert await counts(database) == exactly(0)


async def test_a_new_price_is_in_force_with_the_next_batch_and_leaves_the_past_alone(
    ledger: SqlLedger, database: Database, make_completion: Make, make_price: Callable[..., Price]
) -> None:
    await append(ledger, [make_completion(0)])
    dearer = make_price(effective_from=NOON + timedelta(hours=1), output=50_000_000_000)
    await SqlPrices(database, default_currency="USD").put(dearer, recorded_at=NOON)
    late = make_completion(1)
    (before, after) = await append(ledger, [late, make_completion(2, occurred_at=NOON + timedelta(hours=1))])
    assert (before.charge.total, after.charge.total) == (COST, 20_000 + 200_000)
    assert after.charge.price is not None
    assert after.charge.price.version == 2


async def test_the_event_of_a_row_has_the_same_id_however_often_it_is_made(
    ledger: SqlLedger, make_completion: Make
) -> None:
    (entry,) = await append(ledger, [make_completion(1)])
    assert entry.cost_event_id == LedgerEntry(entry.completion, entry.charge, FAR_AWAY).cost_event_id
    assert entry.cost_event_id != LedgerEntry(make_completion(2), entry.charge, NOON).cost_event_id


async def test_the_outbox_keeps_what_could_not_be_handed_over(
    ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    def refuse(payloads: Sequence[bytes]) -> None:
        raise TimeoutError

    await append(ledger, [make_completion(number) for number in range(5)])
    with pytest.raises(TimeoutError):
        await ledger.hand_over(refuse, limit=10)
    handed: list[bytes] = []
    assert await ledger.hand_over(handed.extend, limit=3) == 3
    assert await ledger.hand_over(handed.extend, limit=3) == 2
    assert await ledger.hand_over(handed.extend, limit=3) == 0
    assert len(set(handed)) == 5
    assert (await counts(database))["rows"] == 5


async def test_neither_the_ledger_nor_anybody_else_waits_while_events_are_handed_over(
    ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    handing_over, go_on = threading.Event(), threading.Event()

    def deliver(_: Sequence[Telling]) -> None:
        handing_over.set()
        assert go_on.wait(60)

    await append(ledger, [make_completion(1)])
    relaying = asyncio.create_task(ledger.hand_over(deliver, limit=10))
    assert await asyncio.to_thread(handing_over.wait, 60)
    try:
        async with asyncio.timeout(30):
            await append(ledger, [make_completion(2)])
            await database.write_beside(lambda connection: connection.execute(select(tables.outbox)).all())
    finally:
        go_on.set()
    assert await relaying == 1
    assert (await counts(database))["told"] == 1  # what came meanwhile waits for its turn


async def test_an_event_that_was_sent_and_not_taken_out_is_sent_again_with_its_id(
    ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    sent: list[Telling] = []

    def die(waiting: Sequence[Telling]) -> None:
        sent.extend(waiting)
        raise ConnectionError

    await append(ledger, [make_completion(1)])
    with pytest.raises(ConnectionError):
        await ledger.hand_over(die, limit=10)
    assert await ledger.hand_over(sent.extend, limit=10) == 1
    assert sent[0] == sent[1]


@pytest.mark.parametrize(
    ("seed", "group_by"),
    [
        (0, ()),
        (1, (Dimension.TENANT,)),
        (2, (Dimension.DAY, Dimension.MODEL)),
        (3, (Dimension.OUTCOME, Dimension.TENANT)),
    ],
)
async def test_spend_over_any_range_is_what_adding_up_the_rows_gives(
    seed: int, group_by: tuple[Dimension, ...], ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    chance = random.Random(seed)
    completions = [
        make_completion(
            number,
            occurred_at=NOON + timedelta(seconds=chance.randrange(-200_000, 200_000)),
            tenant_id=chance.choice(["acme", "umbrella"]),
            served_model=chance.choice(["small", "unheard-of"]),
            outcome=chance.choice(["completed", "cancelled"]),
            usage=Usage(*(chance.randrange(100) for _ in range(5))),
        )
        for number in range(200)
    ]
    entries = await append(ledger, completions)
    start = NOON + timedelta(seconds=chance.randrange(-200_000, 0))
    query = SpendQuery(start, start + timedelta(seconds=chance.randrange(200_000)), (), group_by)
    report = await SqlSpend(database).spend(query)
    assert dict(report.groups) == added_up(entries, query)
    amounts = [spend.amount_nano for _, spend in report.groups]
    assert amounts == sorted(amounts, reverse=True)


def added_up(entries: Sequence[LedgerEntry], query: SpendQuery) -> dict[SpendGroup, Spend]:
    sums: dict[SpendGroup, Spend] = {}
    for entry in entries:
        done = entry.completion
        if not query.start <= done.occurred_at < query.end:
            continue
        facts = {"day": done.occurred_at.date().isoformat()}
        values = tuple(facts.get(dimension) or getattr(done, dimension) for dimension in query.group_by)
        buckets = {name: getattr(done.usage, name) for name in SUMS if name.endswith("_tokens")}
        unpriced = int(entry.charge.priced == "unpriced")
        spend = Spend(1, 1, unpriced, 0, entry.charge.total, **buckets)
        sums.setdefault(SpendGroup(values, entry.charge.currency), Spend()).add(spend)
    return sums


async def test_spend_is_chosen_by_filters_and_grouped_by_subject_too(
    ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    await append(
        ledger,
        [
            make_completion(1, subject_id="s1"),
            make_completion(2, subject_id="s2"),
            make_completion(3, subject_id="s2", tenant_id="umbrella"),
            make_completion(4, subject_id="s2", occurred_at=NOON + timedelta(days=1)),
        ],
    )
    filters = [SpendFilter(Dimension.TENANT, ["acme"]), SpendFilter(Dimension.DAY, ["2026-11-24"])]
    report = await SqlSpend(database).spend(SpendQuery(LONG_AGO, FAR_AWAY, filters, [Dimension.SUBJECT]))
    assert {group.values: spend.request_count for group, spend in report.groups} == {("s1",): 1, ("s2",): 1}


async def test_too_many_groups_are_refused_rather_than_cut(
    ledger: SqlLedger, database: Database, make_completion: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice_cost.adapters.sql_spend.MOST_GROUPS", 3)
    await append(ledger, [make_completion(number, api_key_id=f"key-{number}") for number in range(4)])
    with pytest.raises(TooManyGroups):
        await SqlSpend(database).spend(SpendQuery(LONG_AGO, FAR_AWAY, (), [Dimension.API_KEY]))


async def test_a_price_book_is_loaded_once_and_its_version_never_changes(database: Database) -> None:
    def book(output: str) -> Any:
        models = {"small": {"input_per_million": "1", "output_per_million": output}}
        facts = {"id": "b", "version": "1", "currency": "USD", "effective_from": NOON, "approved_by": "me"}
        return read_price_book({**facts, "models": models})

    prices = SqlPrices(database, default_currency="USD")
    assert await prices.load(book("2"), recorded_at=NOON) is True
    assert await prices.load(book("2"), recorded_at=FAR_AWAY) is False
    with pytest.raises(PriceBookMistakes, match="raise the version"):
        await prices.load(book("3"), recorded_at=NOON)
    assert (await prices.prices()).newest_version("small") == 1


async def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    def compare(connection: Any) -> list[Any]:
        options = {"version_table": "cost_schema_version"}
        return compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)

    assert await database.read(compare) == []


async def test_a_second_start_finds_the_schema_there(database_url: str, database: Database) -> None:
    again = open_database(database_url)
    await again.close()
