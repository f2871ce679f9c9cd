"""Whoever tampers with the ledger beneath its triggers is found, and the first broken row is named."""

import asyncio
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st
from sluice_cost.adapters import migrations, tables
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.sql_chain import SqlChainVerifier
from sluice_cost.adapters.sql_entries import sealed_values
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.domain.chain import GENESIS, SEALED_COLUMNS, Head, Verification, seal
from sluice_cost.domain.ledger import Completion, Partition, enter
from sluice_cost.domain.pricing import Price
from sqlalchemy import select, text

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
Make = Callable[..., Completion]
ROWS = 40
values = st.lists(st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1)), max_size=6)


@pytest.fixture
async def ledger(database: Database, make_price: Callable[..., Price]) -> SqlLedger:
    await SqlPrices(database, default_currency="USD").put(make_price(), recorded_at=NOON)
    return SqlLedger(database, default_currency="USD")


@pytest.fixture
async def filled(ledger: SqlLedger, make_completion: Make) -> SqlLedger:
    """ROWS rows on four chains, ten each, and event-5 and event-9 side by side on chain 1."""
    await ledger.append([make_completion(n) for n in range(ROWS)], {}, recorded_at=NOON, encode=encode)
    return ledger


async def verify(database: Database, published: Mapping[Partition, Sequence[Head]] | None = None) -> Verification:
    return await SqlChainVerifier(database).verify(published or {}, lambda rows: None)


async def tamper(database: Database, *statements: str) -> None:
    """What somebody can do who owns the database: triggers off, change, triggers on."""
    if database.dialect == "postgresql":
        off, on = ["ALTER TABLE cost_ledger DISABLE TRIGGER USER"], ["ALTER TABLE cost_ledger ENABLE TRIGGER USER"]
    else:
        off = [f"DROP TRIGGER IF EXISTS cost_ledger_no_{verb}" for verb in ("update", "delete")]
        on = []
    await database.write(lambda connection: [connection.execute(text(sql)) for sql in (*off, *statements, *on)])


async def test_an_untouched_ledger_is_whole_whatever_came_in_which_order(
    ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    chance = random.Random(5)
    deliveries = [make_completion(n) for n in range(200) for _ in range(chance.choice([1, 2]))]
    chance.shuffle(deliveries)
    for start in range(0, len(deliveries), 37):
        await ledger.append(deliveries[start : start + 37], {}, recorded_at=NOON, encode=encode)
    found = await verify(database)
    assert (found.rows, found.broken, found.sums_agree) == (200, None, True)
    assert sum(head.number for head in found.heads.values()) == 200


@pytest.mark.parametrize(
    ("statements", "number", "event_id", "reason"),
    [
        (["UPDATE cost_ledger SET amount_nano = 1 WHERE event_id = 'event-5'"], 2, "event-5", "not what was sealed"),
        (["UPDATE cost_ledger SET tenant_id = 'x' WHERE event_id = 'event-9'"], 3, "event-9", "not what was sealed"),
        (["UPDATE cost_ledger SET price_id = NULL WHERE event_id = 'event-9'"], 3, "event-9", "not what was sealed"),
        (["UPDATE cost_ledger SET entry_hash = NULL WHERE event_id = 'event-5'"], 2, "event-5", "not what was sealed"),
        (["DELETE FROM cost_ledger WHERE event_id = 'event-5'"], 2, "event-9", "missing"),
        (["DELETE FROM cost_ledger WHERE event_id = 'event-1'"], 1, "event-5", "missing"),
        (["DELETE FROM cost_ledger WHERE event_id = 'event-37'"], 10, "", "ends at row 9"),
        (
            [
                "UPDATE cost_ledger SET event_id = 'spare' WHERE event_id = 'event-5'",
                "UPDATE cost_ledger SET event_id = 'event-5' WHERE event_id = 'event-9'",
            ],
            2,
            "spare",
            "not what was sealed",
        ),
    ],
)
async def test_a_row_that_was_changed_or_taken_out_is_found_and_named(
    statements: list[str], number: int, event_id: str, reason: str, filled: SqlLedger, database: Database
) -> None:
    assert (await verify(database)).broken is None
    await tamper(database, *statements)
    broken = (await verify(database)).broken
    assert broken is not None
    assert (broken.chain.number, broken.number, broken.event_id) == (1, number, event_id)
    assert reason in broken.reason


@pytest.mark.parametrize("chain", ["sluice.gateway.request_completed.v1", "a.topic.nobody.read"])
async def test_a_row_that_was_put_in_is_found(chain: str, filled: SqlLedger, database: Database) -> None:
    columns = [column.name for column in tables.ledger.columns if column.name != "entry_id"]
    forged = {"event_id": "'forged'", "source_topic": f"'{chain}'", "amount_nano": "-5"}
    chosen = ", ".join(forged.get(name, name) for name in columns)
    await tamper(
        database,
        f"INSERT INTO cost_ledger ({', '.join(columns)}) SELECT {chosen} FROM cost_ledger WHERE event_id = 'event-5'",
    )
    broken = (await verify(database)).broken
    assert broken is not None
    assert broken.event_id == "forged"


async def test_a_ledger_cut_off_together_with_its_head_contradicts_what_was_published(
    filled: SqlLedger, database: Database
) -> None:
    published = {chain: [head] for chain, head in (await verify(database)).heads.items()}
    last, before = (
        f"SELECT {what} FROM cost_ledger WHERE source_partition = 1 AND chain_number = 9"
        for what in ("chain_number", "entry_hash")
    )
    await tamper(
        database,
        "DELETE FROM cost_ledger WHERE event_id = 'event-37'",
        f"UPDATE cost_chain_heads SET number = ({last}), hash = ({before}) WHERE partition_number = 1",
    )
    assert (await verify(database)).broken is None
    broken = (await verify(database, published)).broken
    assert broken is not None
    assert (broken.chain.number, broken.number) == (1, 10)
    assert "was published" in broken.reason


async def test_a_ledger_that_was_rewritten_with_good_seals_contradicts_what_was_published(
    filled: SqlLedger, database: Database
) -> None:
    found = await verify(database)
    (chain, head) = next(iter(found.heads.items()))
    broken = (await verify(database, {chain: [Head(head.number, bytes(32))]})).broken
    assert broken is not None
    assert "rewritten" in broken.reason


async def test_sums_that_are_not_those_of_the_rows_are_told(filled: SqlLedger, database: Database) -> None:
    await tamper(database, "UPDATE cost_spend_hours SET amount_nano = amount_nano + 1")
    found = await verify(database)
    assert (found.broken, found.sums_agree) == (None, False)


async def test_the_same_events_give_the_same_heads_whenever_and_in_whatever_batches_they_come(
    ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    completions = [make_completion(n) for n in range(60)]
    await ledger.append(completions, {}, recorded_at=NOON, encode=encode)
    prices = await SqlPrices(database, default_currency="USD").prices()
    heads: dict[Partition, tuple[int, bytes]] = {}
    for completion in completions:
        entry = enter(completion, prices, recorded_at=datetime(2030, 1, 1, tzinfo=UTC))
        number, before = heads.get(completion.partition, (0, GENESIS))
        heads[completion.partition] = number + 1, seal(before, number + 1, sealed_values(entry))
    kept = (await verify(database)).heads
    assert {chain: (head.number, head.hash) for chain, head in kept.items()} == heads


@pytest.mark.parametrize("batch", [1, 3, 100])
async def test_copies_leave_a_row_where_the_first_of_them_stood_in_whatever_batch_they_come(
    batch: int, ledger: SqlLedger, database: Database, make_completion: Make
) -> None:
    first = [replace(make_completion(n), partition=Partition("completed", 0), offset=n) for n in range(10)]
    copies = [replace(completion, offset=10 + n) for n, completion in enumerate(first[2:7])]
    later = replace(make_completion(99), partition=Partition("completed", 0), offset=20)
    read = [*first, *copies, later]
    for start in range(0, len(read), batch):
        await ledger.append(read[start : start + batch], {}, recorded_at=NOON, encode=encode)
    in_chain = select(tables.ledger.c.source_offset).order_by(tables.ledger.c.chain_number)
    rows = await database.read(lambda connection: list(connection.execute(in_chain).scalars()))
    assert rows == [*range(10), 20]


async def test_two_replicas_that_read_the_same_events_keep_every_chain_whole(
    database_url: str, database: Database, ledger: SqlLedger, make_completion: Make
) -> None:
    other_database = Database(database_url)
    other = SqlLedger(other_database, default_currency="USD")
    batches = [[make_completion(n) for n in range(start, start + 30)] for start in range(0, 300, 15)]
    entering = [
        replica.append(batch, {}, recorded_at=NOON, encode=encode) for batch in batches for replica in (ledger, other)
    ]
    await asyncio.gather(*entering)
    await other_database.close()
    found = await verify(database)
    assert (found.rows, found.broken, found.sums_agree) == (315, None, True)


async def test_anybody_can_compute_a_seal_from_its_description(filled: SqlLedger, database: Database) -> None:
    ledger, prices = tables.ledger, tables.prices
    joined = ledger.join(prices, ledger.c.price_id == prices.c.price_id)
    query = select(ledger, prices.c.version, prices.c.model.label("price_model")).select_from(joined)
    rows = await database.read(
        lambda connection: (
            connection.execute(query.where(ledger.c.source_partition == 1).order_by(ledger.c.entry_id)).mappings().all()
        )
    )
    before = bytes(32)
    for number, row in enumerate(rows, start=1):
        facts = {**row, "price_version": row["version"]}
        told = json.dumps([1, number, *(facts[name] for name in SEALED_COLUMNS)], separators=(",", ":"))
        before = hashlib.sha256(before + told.encode()).digest()
        assert before == bytes(row["entry_hash"])


@given(values, values)
def test_different_rows_have_different_seals(one: list[Any], other: list[Any]) -> None:
    assert (seal(GENESIS, 1, one) == seal(GENESIS, 1, other)) == (one == other)


async def test_rows_written_before_there_was_a_chain_are_vouched_for_by_the_first_sealed_row(
    empty_database_url: str, make_completion: Make
) -> None:
    database = Database(empty_database_url)
    await database.write(lambda connection: _migrate(connection, "0001"))
    await database.write(lambda connection: [connection.execute(text(_OLD_ROW.format(n=n))) for n in range(3)])
    if database.dialect == "postgresql":  # where the rows above took no number from the sequence
        advance = text("SELECT setval('cost_ledger_entry_id_seq', 100)")
        await database.write(lambda connection: connection.execute(advance))
    await database.write(lambda connection: _migrate(connection, "head"))
    ledger = SqlLedger(database, default_currency="USD")
    assert (await verify(database)).broken is None
    partition = Partition("t", 0)
    await ledger.append([make_completion(1, partition=partition)], {}, recorded_at=NOON, encode=encode)
    found = await verify(database)
    assert (found.rows, found.broken, found.sums_agree) == (4, None, True)
    await tamper(database, "UPDATE cost_ledger SET amount_nano = 8 WHERE event_id = 'old-1'")
    broken = (await verify(database)).broken
    assert broken is not None
    assert (broken.event_id, "before there were seals" in broken.reason) == ("event-1", True)
    await database.close()


_OLD_ROW = (
    "INSERT INTO cost_ledger VALUES ({n} + 1, 'old-{n}', 'cost-{n}', 'inference', 1, 1, 'r{n}', 'acme', '', '', 'k', 'a', 's', '', "
    "'chat', 'completed', 'unpriced', NULL, 'USD', 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 't', 0, {n})"
)


def _migrate(connection: Any, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
