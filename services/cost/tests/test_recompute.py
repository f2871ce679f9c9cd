"""A price that was wrong last Tuesday: the differences first, then corrections, and never the same one twice."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.events.v1 import cost_pb2
from sluice_cost.adapters import tables
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.sql_chain import SqlChainVerifier
from sluice_cost.adapters.sql_entries import Telling
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.adapters.sql_recompute import SqlRecomputer
from sluice_cost.adapters.sql_spend import SqlSpend
from sluice_cost.domain.corrections import OtherPlan, Recomputation, Scope
from sluice_cost.domain.ledger import Completion
from sluice_cost.domain.pricing import Price
from sluice_cost.domain.spend import Dimension, SpendFilter, SpendQuery
from sqlalchemy import func, select

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TUESDAY = Scope(NOON - timedelta(days=1), NOON + timedelta(days=1))
COST = 40_000
Make = Callable[..., Completion]
MakePrice = Callable[..., Price]


@pytest.fixture
def prices(database: Database) -> SqlPrices:
    return SqlPrices(database, default_currency="USD")


@pytest.fixture
async def ledger(database: Database, prices: SqlPrices, make_price: MakePrice, make_completion: Make) -> SqlLedger:
    """Ten requests of acme and ten of umbrella at 40,000 each, and a self-test."""
    await prices.put(make_price(), recorded_at=NOON)
    made = SqlLedger(database, default_currency="USD")
    completions = [make_completion(n, tenant_id="acme" if n < 10 else "umbrella") for n in range(20)]
    await made.append([*completions, make_completion(99, is_synthetic=True)], {}, recorded_at=NOON, encode=encode)
    return made


def recomputer(database: Database) -> SqlRecomputer:
    return SqlRecomputer(database, default_currency="USD", encode=encode)


async def correct(database: Database, scope: Scope = TUESDAY, plan_digest: str = "") -> Recomputation:
    return await recomputer(database).correct(
        scope, approved_by="Ada", plan_digest=plan_digest, recorded_at=NOON + timedelta(days=2)
    )


async def spent(database: Database, *filters: SpendFilter) -> dict[str, int]:
    """Nano-units by currency."""
    report = await SqlSpend(database).spend(SpendQuery(TUESDAY.start, TUESDAY.end, filters))
    return {group.currency: spend.amount_nano for group, spend in report.groups}


async def rows(database: Database) -> int:
    query = select(func.count()).select_from(tables.ledger)
    return await database.read(lambda connection: int(connection.execute(query).scalar() or 0))


async def test_corrections_make_the_past_cost_what_it_should_have_and_twice_is_once(
    ledger: SqlLedger, database: Database, prices: SqlPrices, make_price: MakePrice
) -> None:
    assert (await correct(database)).corrections == 0
    await prices.put(make_price(uncached_input=1_000_000_000), recorded_at=NOON)  # half: 30,000 a request
    before = await rows(database)
    plan = await recomputer(database).plan(TUESDAY)
    assert (plan.rows, plan.corrections, await rows(database)) == (20, 20, before)
    done = await correct(database, plan_digest=plan.digest)
    assert (done.corrections, done.digest) == (20, plan.digest)
    group = done.groups["acme", "small", "USD"]
    assert (group.corrections, group.before, group.after) == (10, 400_000, 300_000)
    assert await spent(database) == {"USD": 20 * 30_000}
    again = await correct(database)
    assert (again.corrections, await rows(database)) == (0, before + 20)
    assert (await SqlChainVerifier(database).verify({}, lambda _: None)).broken is None


async def test_a_price_put_right_twice_is_corrected_by_the_difference(
    ledger: SqlLedger, database: Database, prices: SqlPrices, make_price: MakePrice
) -> None:
    for output, each in ((0, 20_000), (10_000_000_000, 60_000), (5_000_000_000, COST)):
        await prices.put(make_price(output=output), recorded_at=NOON)
        await correct(database)
        assert await spent(database) == {"USD": 20 * each}


async def test_what_was_unpriced_becomes_priced_and_is_counted_so(
    ledger: SqlLedger, database: Database, prices: SqlPrices, make_price: MakePrice, make_completion: Make
) -> None:
    new = make_completion(50, served_model="new")
    await ledger.append([new], {}, recorded_at=NOON, encode=encode)
    chosen = SpendFilter(Dimension.SERVED_MODEL, ["new"])
    await prices.put(make_price("new", **dict.fromkeys(("uncached_input", "output"), 0)), recorded_at=NOON)
    assert (await correct(database)).corrections == 1
    ((_, spend),) = (await SqlSpend(database).spend(SpendQuery(TUESDAY.start, TUESDAY.end, [chosen]))).groups
    counts = (spend.row_count, spend.request_count, spend.unpriced_request_count, spend.uncached_input_tokens)
    assert counts == (2, 1, 0, 10)
    assert (await correct(database)).corrections == 0


async def test_a_price_in_another_currency_takes_back_the_one_and_charges_the_other(
    ledger: SqlLedger, database: Database, prices: SqlPrices, make_price: MakePrice
) -> None:
    await prices.put(make_price(currency="EUR"), recorded_at=NOON)
    assert (await correct(database)).corrections == 40
    assert await spent(database) == {"USD": 0, "EUR": 20 * COST}
    assert (await correct(database)).corrections == 0


async def test_only_the_chosen_time_and_model_are_touched(
    ledger: SqlLedger, database: Database, prices: SqlPrices, make_price: MakePrice
) -> None:
    await prices.put(make_price(output=0), recorded_at=NOON)
    later = Scope(NOON + timedelta(seconds=15), NOON + timedelta(days=1))
    assert (await recomputer(database).plan(later)).corrections == 5
    assert (await recomputer(database).plan(Scope(later.start, later.end, "large"))).rows == 0
    assert (await recomputer(database).plan(Scope(later.start, later.end, "alias"))).corrections == 5


async def test_what_was_not_signed_off_is_not_entered(
    ledger: SqlLedger, database: Database, prices: SqlPrices, make_price: MakePrice, make_completion: Make
) -> None:
    await prices.put(make_price(output=0), recorded_at=NOON)
    plan = await recomputer(database).plan(TUESDAY)
    dearer = make_completion(60, occurred_at=NOON, served_model="small")
    await prices.put(make_price(output=1), recorded_at=NOON)
    await ledger.append([dearer], {}, recorded_at=NOON, encode=encode)
    before = await rows(database)
    with pytest.raises(OtherPlan):
        await correct(database, plan_digest=plan.digest)
    assert await rows(database) == before


async def test_a_price_that_is_put_while_corrections_are_entered_is_not_taken_for_signed_off(
    ledger: SqlLedger, database: Database, prices: SqlPrices, make_price: MakePrice
) -> None:
    class Interrupted(SqlRecomputer):
        async def _audit(self, *facts: Any) -> None:
            await super()._audit(*facts)
            await prices.put(make_price(output=99), recorded_at=NOON)

    await prices.put(make_price(output=0), recorded_at=NOON)
    plan = await recomputer(database).plan(TUESDAY)
    before = await rows(database)
    interrupted = Interrupted(database, default_currency="USD", encode=encode)
    with pytest.raises(OtherPlan):
        await interrupted.correct(TUESDAY, approved_by="Ada", plan_digest=plan.digest, recorded_at=NOON)
    assert await rows(database) == before


async def test_two_recomputations_at_once_correct_once(
    ledger: SqlLedger, database_url: str, database: Database, prices: SqlPrices, make_price: MakePrice
) -> None:
    await prices.put(make_price(output=0), recorded_at=NOON)
    other = Database(database_url)
    await asyncio.gather(correct(database), correct(other))
    await other.close()
    assert await spent(database) == {"USD": 20 * 20_000}


async def test_a_correction_is_told_with_what_it_corrects_and_who_signed_it(
    ledger: SqlLedger, database: Database, prices: SqlPrices, make_price: MakePrice
) -> None:
    await prices.put(make_price(output=0), recorded_at=NOON)
    await correct(database, Scope(NOON + timedelta(seconds=3), NOON + timedelta(seconds=4)))
    told: list[Telling] = []
    await ledger.hand_over(told.extend, limit=100)
    event = cost_pb2.CostRecorded.FromString(told[-1].payload)
    assert (event.corrects_event_id, event.approved_by, event.charge_kind) == ("event-3", "Ada", "correction")
    assert (event.amount.nano_units, event.usage.output_tokens, event.price_version) == (-20_000, 0, 2)
    assert [(line.bucket, line.quantity, line.amount.nano_units) for line in event.lines] == [("output", 0, -20_000)]


async def test_who_corrected_what_is_in_the_audit(
    ledger: SqlLedger, database: Database, prices: SqlPrices, make_price: MakePrice
) -> None:
    await prices.put(make_price(output=0), recorded_at=NOON)
    done = await correct(database)
    audit = tables.audit.c
    query = select(audit.action, audit.actor, audit.details).order_by(audit.audit_id)
    found: Any = await database.read(lambda connection: connection.execute(query).all())
    assert [row.action for row in found][-2:] == ["ledger.recompute_begun", "ledger.recomputed"]
    assert {row.actor for row in found[-2:]} == {"Ada"}
    assert done.digest in found[-1].details


def stamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made


async def test_over_grpc_a_dry_run_changes_nothing_and_its_digest_signs_the_corrections(
    stub: Any, database: Database
) -> None:
    right = pb.Price(
        model="small",
        currency_code="USD",
        approved_by="me",
        input_per_million="1",
        output_per_million="5",
        effective_from=stamp(NOON - timedelta(days=3)),
    )
    await stub.PutPrice(pb.PutPriceRequest(price=right, puts_right_the_past=True))
    time = {"from": stamp(TUESDAY.start), "until": stamp(TUESDAY.end)}
    plan = await stub.Recompute(pb.RecomputeRequest(**time, dry_run=True))
    assert (plan.row_count, plan.correction_count) == (3, 2)
    with pytest.raises(grpc.aio.AioRpcError, match="Say who signs"):
        await stub.Recompute(pb.RecomputeRequest(**time))
    with pytest.raises(grpc.aio.AioRpcError, match="no longer") as caught:
        await stub.Recompute(pb.RecomputeRequest(**time, approved_by="Ada", plan_digest="0" * 64))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    done = await stub.Recompute(pb.RecomputeRequest(**time, approved_by="Ada", plan_digest=plan.plan_digest))
    assert (done.correction_count, done.groups) == (2, plan.groups)
    answers = [answer async for answer in stub.VerifyLedger(pb.VerifyLedgerRequest())]
    assert (answers[-1].finished, answers[-1].row_count, answers[-1].HasField("broken")) == (True, 6, False)
    assert answers[-1].sums_agree


async def test_a_tenant_neither_verifies_nor_recomputes(stub: Any) -> None:
    acme = (("x-sluice-tenant-id", "acme"),)
    time = {"from": stamp(TUESDAY.start), "until": stamp(TUESDAY.end)}
    for call in (
        stub.Recompute(pb.RecomputeRequest(**time, dry_run=True), metadata=acme),
        stub.VerifyLedger(pb.VerifyLedgerRequest(), metadata=acme).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
