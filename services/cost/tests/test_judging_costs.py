"""What judging answers costs: a row of its own of the tenant, in no caller's spend and no budget."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.events.v1.quality_pb2 import AnswerJudged
from sluice_cost.adapters.cost_events import cost_recorded, encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import to_microseconds
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.adapters.sql_chain import SqlChainVerifier
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.adapters.sql_spend import SqlSpend
from sluice_cost.api.forecast import ForecastMethods
from sluice_cost.consumer import CompletionConsumer, measured_of
from sluice_cost.domain.budget import AccountKey, Budget, Scope
from sluice_cost.domain.ledger import enter_measured
from sluice_cost.domain.pricing import Price, Priced, PriceHistory
from sluice_cost.domain.spend import Dimension, SpendQuery
from sluice_cost.domain.windows import WindowKind
from sluice_kit.consumer import ConsumedEvent

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MakePrice = Callable[..., Price]


def judged(number: int, *, failure: str = "", tokens: int = 100, **metadata: Any) -> AnswerJudged:
    event = AnswerJudged(judge_model="small", failure=failure, score_milli=0 if failure else 4000)
    event.metadata.event_id, event.metadata.request_id = f"j-{number}", f"request-{number}"
    event.metadata.tenant_id, event.metadata.project_id = "acme", "shop"
    event.metadata.occurred_at.FromDatetime(NOON + timedelta(seconds=number))
    for name, value in metadata.items():
        setattr(event.metadata, name, value)
    event.usage.uncached_input_tokens, event.usage.output_tokens = tokens, tokens // 10
    return event


def consumed(message: Any, offset: int = 0) -> ConsumedEvent:
    return ConsumedEvent(
        message=message, topic="judged", partition=0, offset=offset, key=b"", headers={},
        event_id=message.metadata.event_id, timestamp_ms=0,
    )  # fmt: skip


async def consume(database: Database, *messages: Any) -> None:
    consumer = CompletionConsumer(
        SqlLedger(database, default_currency="USD"), encode=encode, on_appended=lambda: None,
        report_health=lambda _check, _serving: None, clock=lambda: NOON,
    )  # fmt: skip
    await consumer.handle([consumed(message, offset) for offset, message in enumerate(messages)])


def budget(budget_id: str, **changes: Any) -> Budget:
    values: dict[str, Any] = {
        "scope": Scope.TENANT, "tenant_ids": ("acme",), "scope_id": "", "limit_nano": 10**10, "currency": "USD",
        "window": WindowKind.DAY, "rolling_minutes": 0, "is_hard": True, "notify_percent": (), "approved_by": "test",
    }  # fmt: skip
    return Budget(budget_id, **{**values, **changes})


@pytest.fixture
async def priced(database: Database, make_price: MakePrice) -> Database:
    await SqlPrices(database, default_currency="USD").put(make_price(), recorded_at=NOON)
    return database


async def test_a_judgement_is_one_row_of_its_own_kind_however_often_it_is_told(priced: Database) -> None:
    await consume(priced, judged(1), judged(1), judged(2, failure="not_json"))
    query = SpendQuery(NOON, NOON + timedelta(hours=1), (), [Dimension.CHARGE_KIND, Dimension.OUTCOME])
    report = await SqlSpend(priced).spend(query)
    found = {group.values: (s.row_count, s.request_count, s.amount_nano) for group, s in report.groups}
    each = 100 * 2_000 + 10 * 5_000  # a failed judgement has used its tokens, too
    assert found == {("judge", "completed"): (1, 0, each), ("judge", "not_json"): (1, 0, each)}
    assert (await SqlChainVerifier(priced).verify({}, lambda _: None)).broken is None


async def test_judging_is_no_part_of_what_callers_spent_and_has_neither_key_nor_person(
    priced: Database, make_completion: Callable[..., Any]
) -> None:
    await consume(priced, judged(1))
    ledger = SqlLedger(priced, default_currency="USD")
    await ledger.append([make_completion(1)], {}, recorded_at=NOON, encode=encode)
    by = [Dimension.TENANT, Dimension.API_KEY]
    spent = await SqlSpend(priced).spend(SpendQuery(NOON, NOON + timedelta(hours=1), (), by, callers_only=True))
    assert {group.values: s.amount_nano for group, s in spent.groups} == {("acme", "key-1"): 40_000}
    facts = measured_of(consumed(judged(1, subject_id="somebody"))).facts
    assert (facts.api_key_id, facts.subject_id, facts.tenant_id, facts.project_id) == ("", "", "acme", "shop")


class Forecasts(ForecastMethods):
    def __init__(self, database: Database) -> None:
        self._spend, self._clock = SqlSpend(database), lambda: NOON + timedelta(minutes=5)


async def test_judging_is_no_part_of_a_forecast_unless_kinds_are_asked_for(
    priced: Database, make_completion: Callable[..., Any]
) -> None:
    await consume(priced, judged(1))
    ledger = SqlLedger(priced, default_currency="USD")
    await ledger.append([make_completion(1)], {}, recorded_at=NOON, encode=encode)
    kinds = pb.SpendFilter(dimension=pb.SPEND_DIMENSION_CHARGE_KIND, values=["judge"])
    told = []
    for filters in ([], [kinds]):
        [found] = (await Forecasts(priced).ForecastSpend(pb.ForecastSpendRequest(filters=filters), None)).forecasts  # type: ignore[arg-type]
        told.append(found.month.spent.nano_units)
    assert told == [40_000, 250_000]


async def test_judging_counts_in_no_budget_neither_as_it_comes_nor_counted_anew(priced: Database) -> None:
    budgets = SqlBudgets(priced)
    await budgets.put(budget("before"), recorded_at=to_microseconds(NOON))
    await consume(priced, judged(1))
    await budgets.put(budget("after"), recorded_at=to_microseconds(NOON))
    for name in ("before", "after"):
        standing = await budgets.standing(AccountKey(name, ""), at=to_microseconds(NOON))
        assert standing is not None
        assert standing.account.spent == 0
    assert not await budgets.reconcile(at=to_microseconds(NOON))


def test_a_judge_without_a_price_has_an_unknown_cost_and_one_that_used_nothing_has_none() -> None:
    prices = PriceHistory([], default_currency="USD")
    entry = enter_measured(measured_of(consumed(judged(1))), prices, recorded_at=NOON)
    assert entry is not None
    assert (entry.charge.priced, entry.charge_kind) == (Priced.UNPRICED, "judge")
    assert cost_recorded(entry).unpriced
    assert enter_measured(measured_of(consumed(judged(2, tokens=0))), prices, recorded_at=NOON) is None
