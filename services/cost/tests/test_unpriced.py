"""A model without a price is told of, once a model and day, and never costs nothing in silence."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sluice.events.v1 import alert_pb2
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.outbox import Telling
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.domain.ledger import Completion

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


async def alerts(ledger: SqlLedger) -> list[alert_pb2.AlertRaised]:
    waiting: list[Telling] = []

    def take(told: Sequence[Telling]) -> None:
        waiting.extend(told)

    while await ledger.hand_over(take, limit=100):
        pass
    return [alert_pb2.AlertRaised.FromString(one.payload) for one in waiting if one.event_type == "AlertRaised"]


async def test_a_model_without_a_price_raises_one_alert_a_day(
    database: Database, make_completion: Callable[..., Completion]
) -> None:
    ledger = SqlLedger(database, default_currency="USD")
    facts = [("new", 0), ("new", 0), ("newer", 0), ("new", 1)]
    for number, (model, day) in enumerate(facts):
        completion = make_completion(number, served_model=model, occurred_at=NOON + timedelta(days=day))
        await ledger.append([completion], {}, recorded_at=NOON, encode=encode)
    raised = await alerts(ledger)
    assert [alert.alert_id for alert in raised] == [
        "cost.unpriced|new|2026-11-24",
        "cost.unpriced|newer|2026-11-24",
        "cost.unpriced|new|2026-11-25",
    ]
    assert (raised[0].rule, raised[0].state, raised[0].evidence.series.model) == ("cost.unpriced", "firing", "new")
    assert [dict(alert.labels) for alert in raised] == [{"model": "new"}, {"model": "newer"}, {"model": "new"}]
    assert len({alert.metadata.event_id for alert in raised}) == 3
