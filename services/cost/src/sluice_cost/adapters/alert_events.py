"""Alerts of the cost service: a model that is used and has no price."""

from uuid import UUID, uuid5

from sluice.events.v1 import alert_pb2

from sluice_cost.adapters.moments import DAY_US, from_microseconds
from sluice_cost.adapters.outbox import Telling
from sluice_cost.domain.ledger import LedgerEntry

# Fixed for ever: one alert a model and day, whichever replica finds it.
_UNPRICED_NAMESPACE = UUID("c2a4a6c1-58f5-5d43-8c84-0d9e1d1c7b0a")

UNPRICED = "cost.unpriced"
"""The rule."""


def unpriced_alert(entry: LedgerEntry, *, model: str, day_us: int) -> Telling:
    """AlertRaised of the first request of the day whose cost is not known."""
    day = from_microseconds(day_us)
    event = alert_pb2.AlertRaised(
        alert_id=f"{UNPRICED}|{model}|{day.date().isoformat()}", rule=UNPRICED, state="firing"
    )
    # Without it silences and receivers would take the alerts of all models for one.
    event.labels["model"] = model
    event.metadata.event_id = str(uuid5(_UNPRICED_NAMESPACE, event.alert_id))
    event.metadata.occurred_at.FromDatetime(entry.completion.occurred_at)
    evidence = event.evidence
    evidence.metric, evidence.unit, evidence.sample_count = "cost.unpriced_requests", "1", 1
    evidence.series.model = model
    evidence.window.start.FromDatetime(day)
    evidence.window.length.FromSeconds(DAY_US // 10**6)
    evidence.value = 1
    event.causes[f"model={model}"] = 1.0
    return Telling(event.metadata.event_id, "AlertRaised", event.SerializeToString(deterministic=True))
