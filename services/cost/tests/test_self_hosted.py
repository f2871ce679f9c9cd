"""Models on one's own machines have a cost: computed and idle time together cost what the machine does."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice.events.v1 import inference_pb2, moderation_pb2, redaction_pb2
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.sql_chain import SqlChainVerifier
from sluice_cost.adapters.sql_idle import SqlIdle
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.adapters.sql_recompute import SqlRecomputer
from sluice_cost.adapters.sql_spend import SqlSpend
from sluice_cost.consumer import CompletionConsumer
from sluice_cost.domain.corrections import Scope
from sluice_cost.domain.focus import focus_rows
from sluice_cost.domain.idle import UNALLOCATED, ModelHour, Seconds, capacity_of, idle_entries
from sluice_cost.domain.pricing import Price
from sluice_cost.domain.spend import Dimension, SpendQuery
from sluice_kit.consumer import ConsumedEvent

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(hours=2)
MakePrice = Callable[..., Price]
# A processor at 1 nano-unit a microsecond; two of them are paid for: 7,200,000,000 an hour.
OWN = {"cpu_second": 1_000_000, "cpus_milli": 2_000, "effective_from": NOON}
CAPACITY = 7_200_000_000


def measured(
    number: int, *, tenant: str = "acme", cpu_seconds: float = 1.0, **changes: Any
) -> inference_pb2.InferenceMeasured:
    event = inference_pb2.InferenceMeasured(model="small", cpu_seconds=cpu_seconds, **changes)
    _fill_in(event, number, tenant)
    event.usage.output_tokens = 5
    return event


def _fill_in(event: Any, number: int, tenant: str) -> None:
    event.metadata.event_id, event.metadata.request_id = f"m-{number}", f"request-{number}"
    event.metadata.tenant_id = tenant
    event.metadata.occurred_at.FromDatetime(NOON + timedelta(seconds=number))


def consumed(message: Any, offset: int) -> ConsumedEvent:
    return ConsumedEvent(
        message=message,
        topic="t",
        partition=0,
        offset=offset,
        key=b"",
        headers={},
        event_id=message.metadata.event_id,
        timestamp_ms=0,
    )


async def consume(database: Database, *messages: Any) -> None:
    consumer = CompletionConsumer(
        SqlLedger(database, default_currency="USD"),
        encode=encode,
        on_appended=lambda: None,
        report_health=lambda _check, _serving: None,
        clock=lambda: NOON,
    )
    await consumer.handle([consumed(message, offset) for offset, message in enumerate(messages)])


def closing(database: Database) -> SqlIdle:
    return SqlIdle(database, default_currency="USD", encode=encode, lateness=timedelta(minutes=30))


async def spent(database: Database) -> Mapping[tuple[str, ...], int]:
    """Nano-units by kind and tenant, at noon."""
    query = SpendQuery(NOON, NOON + timedelta(hours=1), (), [Dimension.CHARGE_KIND, Dimension.TENANT])
    return {group.values: spend.amount_nano for group, spend in (await SqlSpend(database).spend(query)).groups}


@pytest.fixture
async def own(database: Database, make_price: MakePrice) -> Database:
    await SqlPrices(database, default_currency="USD").put(make_price(**OWN), recorded_at=NOON)
    return database


async def test_computing_is_a_row_of_its_own_and_its_tokens_are_not_counted_twice(own: Database) -> None:
    event = measured(1, cpu_seconds=1.5, aborted=True)
    await consume(own, event, event, measured(2, tenant="umbrella"))
    report = await SqlSpend(own).spend(SpendQuery(NOON, LATER, (), [Dimension.CHARGE_KIND, Dimension.OUTCOME]))
    found = {
        group.values: (s.row_count, s.request_count, s.cpu_us, s.output_tokens, s.amount_nano)
        for group, s in report.groups
    }
    assert found == {
        ("compute", "cancelled"): (1, 0, 1_500_000, 0, 1_500_000),
        ("compute", "completed"): (1, 0, 1_000_000, 0, 1_000_000),
    }


async def test_a_model_that_is_not_priced_by_the_second_has_no_row_of_computing(
    database: Database, make_price: MakePrice
) -> None:
    await SqlPrices(database, default_currency="USD").put(make_price(), recorded_at=NOON)
    await consume(database, measured(1))
    assert await spent(database) == {}


async def test_guardrails_cost_their_time_where_they_have_a_price(database: Database, make_price: MakePrice) -> None:
    prices = SqlPrices(database, default_currency="USD")
    await prices.put(make_price("sluice-moderation", cpu_second=1_000_000), recorded_at=NOON)
    judged, redacted = moderation_pb2.ContentModerated(), redaction_pb2.TextRedacted()
    for number, event in enumerate((judged, redacted)):
        _fill_in(event, number, "acme")
        event.latency.FromMilliseconds(20)
    await consume(database, judged, redacted)
    assert await spent(database) == {("guardrail", "acme"): 20_000}


async def test_computed_and_idle_time_together_cost_the_capacity(own: Database) -> None:
    await consume(
        own, *(measured(n, cpu_seconds=0.123457 * (n + 1)) for n in range(20)), measured(50, tenant="umbrella")
    )
    written = await closing(own).close(LATER)
    assert {entry.charge_kind for entry in written} == {"idle"}
    sums = await spent(own)
    assert sum(sums.values()) == CAPACITY
    idle = CAPACITY - sums["compute", "acme"] - sums["compute", "umbrella"]
    computed = sums["compute", "acme"] + sums["compute", "umbrella"]
    assert sums["idle", "acme"] == pytest.approx(idle * sums["compute", "acme"] / computed, abs=1)
    assert await closing(own).close(LATER) == []
    assert (await SqlChainVerifier(own).verify({}, lambda _: None)).broken is None


async def test_what_comes_late_makes_an_hour_s_idle_time_less(own: Database) -> None:
    await consume(own, measured(1))
    await closing(own).close(LATER)
    await consume(own, measured(2, tenant="umbrella", cpu_seconds=3.0))
    await closing(own).close(LATER)
    sums = await spent(own)
    assert sum(sums.values()) == CAPACITY
    assert sums["idle", "umbrella"] == (CAPACITY - 4_000_000) * 3 // 4


async def test_an_hour_in_which_nobody_computed_is_nobody_s(own: Database) -> None:
    await closing(own).close(LATER)
    assert await spent(own) == {("idle", UNALLOCATED): CAPACITY}


async def test_idle_time_is_a_focus_row_of_so_many_seconds(own: Database) -> None:
    (entry,) = await closing(own).close(LATER)
    (row,) = focus_rows(entry)
    assert (row["SkuMeter"], row["PricingQuantity"], row["ListUnitPrice"], row["BilledCost"]) == (
        "CPU Time",
        "7200",
        "0.001",
        "7.2",
    )
    (back,) = focus_rows(replace(entry, charge=replace(entry.charge, cpu=-5)))
    assert (back["ChargeCategory"], back.get("PricingQuantity")) == ("Adjustment", None)


async def test_an_hour_is_left_open_until_its_lateness_is_over(own: Database) -> None:
    assert await closing(own).close(NOON + timedelta(minutes=80)) == []


async def test_more_computing_than_was_declared_leaves_nothing_idle(own: Database) -> None:
    await consume(own, measured(1, cpu_seconds=9_000.0))
    assert await closing(own).close(LATER) == []


async def recompute(database: Database) -> None:
    recomputer = SqlRecomputer(database, default_currency="USD", encode=encode)
    scope = Scope(NOON, NOON + timedelta(hours=1))
    await recomputer.correct(scope, approved_by="Ada", plan_digest="", recorded_at=LATER)


async def cost(database: Database, *kinds: str) -> dict[str, int]:
    """Nano-units of noon's seconds by currency."""
    query = SpendQuery(NOON, NOON + timedelta(hours=1), (), [Dimension.CHARGE_KIND])
    found: dict[str, int] = {}
    for group, spend in (await SqlSpend(database).spend(query)).groups:
        if group.values[0] in kinds:
            found[group.currency] = found.get(group.currency, 0) + spend.amount_nano
    return found


async def test_an_hour_whose_seconds_were_corrected_costs_the_capacity_again_each_time(
    own: Database, make_price: MakePrice
) -> None:
    # From half past twelve on a second costs something else; the hour's capacity is at the price of its beginning.
    half_past = {**OWN, "effective_from": NOON + timedelta(minutes=30)}
    prices = SqlPrices(own, default_currency="USD")
    await consume(own, measured(1), measured(2_400, cpu_seconds=4.0))
    await closing(own).close(LATER)
    for cpu_second in (3_000_000, 1_000_000, 3_000_000, 1_000_000):
        await prices.put(make_price(**{**half_past, "cpu_second": cpu_second}), recorded_at=LATER)
        await recompute(own)
        await closing(own).close(LATER)
        sums = await cost(own, "compute", "correction", "idle")
        assert sums == {"USD": CAPACITY}
        assert await closing(own).close(LATER) == []
    assert (await SqlChainVerifier(own).verify({}, lambda _: None)).broken is None


async def test_an_hour_that_is_priced_in_another_currency_is_taken_back_in_the_first(
    own: Database, make_price: MakePrice
) -> None:
    await consume(own, measured(1))
    await closing(own).close(LATER)
    await SqlPrices(own, default_currency="USD").put(make_price(**OWN, currency="EUR"), recorded_at=LATER)
    await recompute(own)
    await closing(own).close(LATER)
    assert await cost(own, "compute", "correction", "idle") == {"USD": 0, "EUR": CAPACITY}
    assert await closing(own).close(LATER) == []


async def test_capacity_that_turns_out_not_to_be_paid_for_is_not_idle(own: Database, make_price: MakePrice) -> None:
    await closing(own).close(LATER)
    await SqlPrices(own, default_currency="USD").put(make_price(**{**OWN, "cpus_milli": 0}), recorded_at=LATER)
    await closing(own).close(LATER)
    assert await cost(own, "idle") == {"USD": 0}
    assert await closing(own).close(LATER) == []


async def test_what_a_filter_took_of_its_capacity_is_not_idle(database: Database, make_price: MakePrice) -> None:
    prices = SqlPrices(database, default_currency="USD")
    await prices.put(make_price("sluice-moderation", **OWN), recorded_at=NOON)
    judged = moderation_pb2.ContentModerated()
    _fill_in(judged, 1, "acme")
    judged.latency.FromMilliseconds(20)
    await consume(database, judged)
    await closing(database).close(LATER)
    assert await spent(database) == {("guardrail", "acme"): 20_000, ("idle", "acme"): CAPACITY - 20_000}


shares = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 10**12), max_size=6)


@given(shares, st.integers(0, 10**6), st.integers(0, 10**9))
def test_idle_time_is_spread_to_the_last_nano_unit(computed: dict[str, int], milli: int, second: int) -> None:
    price = Price("small", "USD", NOON, 0, 0, 0, 0, 0, cpu_second=second, cpus_milli=milli)
    hour = ModelHour("small", NOON, {tenant: Seconds(cpu=use) for tenant, use in computed.items()}, {})
    entries = idle_entries(hour, price, recorded_at=NOON)
    attributed = sum(computed.values())
    assert sum(entry.charge.total for entry in entries) + attributed == max(capacity_of(price).cpu, attributed)
    written = {entry.completion.tenant_id: Seconds(cpu=entry.charge.cpu) for entry in entries}
    assert idle_entries(replace(hour, idle=written), price, recorded_at=NOON) == []
