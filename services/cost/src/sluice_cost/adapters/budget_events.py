"""Tells the mesh where budgets stand: makes BudgetChanged and puts it into the outbox."""

from collections.abc import Sequence
from uuid import UUID, uuid5

from sluice.events.v1 import cost_pb2
from sluice.types.v1 import money_pb2
from sqlalchemy import Connection

from sluice_cost.adapters.moments import from_microseconds
from sluice_cost.adapters.sql_entries import Telling, tell
from sluice_cost.domain.budget import LIMIT_PERCENT, Budget, BudgetIndex, Scope
from sluice_cost.domain.holds import Crossing

_NAMESPACE = UUID("5d0c3b52-8f0e-5b53-9a7e-0c8f1d2a6e31")


def put_crossings(connection: Connection, crossings: Sequence[Crossing], budgets: BudgetIndex) -> None:
    """Puts an event a crossing into the outbox, in the transaction that the crossing happens in."""
    events = [
        budget_changed(crossing, budget)
        for crossing in crossings
        if (budget := budgets.find(crossing.key.budget_id)) is not None
    ]
    tell(
        connection,
        [
            Telling(event.metadata.event_id, "BudgetChanged", event.SerializeToString(deterministic=True))
            for event in events
        ],
    )


def budget_changed(crossing: Crossing, budget: Budget) -> cost_pb2.BudgetChanged:
    """The event of a crossing."""
    event = cost_pb2.BudgetChanged(
        budget_id=budget.budget_id,
        budget_version=budget.version,
        limit=money_pb2.Money(currency_code=budget.currency, nano_units=budget.limit_nano),
        spent=money_pb2.Money(currency_code=budget.currency, nano_units=crossing.spent),
        held=money_pb2.Money(currency_code=budget.currency, nano_units=crossing.held),
        state=cost_pb2.BUDGET_STATE_NOTIFIED if crossing.percent < LIMIT_PERCENT else cost_pb2.BUDGET_STATE_EXHAUSTED,
        reason=(cost_pb2.BUDGET_CHANGE_REASON_REFUSED if crossing.is_refusal else cost_pb2.BUDGET_CHANGE_REASON_SPENT),
        percent=crossing.percent,
        hard=budget.is_hard,
    )
    event.window_start.FromDatetime(from_microseconds(crossing.window_start))
    event.window_end.FromDatetime(from_microseconds(budget.window_end(crossing.at)))
    _fill_in_metadata(event, crossing, budget)
    return event


def _fill_in_metadata(event: cost_pb2.BudgetChanged, crossing: Crossing, budget: Budget) -> None:
    metadata, key = event.metadata, crossing.key
    name = f"{key.budget_id}\n{key.subject_id}\n{budget.version}\n{crossing.window_start}\n{crossing.percent}\n{crossing.at}"
    metadata.event_id = str(uuid5(_NAMESPACE, name))
    metadata.occurred_at.FromDatetime(from_microseconds(crossing.at))
    metadata.tenant_id = "" if budget.scope is Scope.ORGANISATION else budget.tenant_ids[0]
    metadata.project_id = budget.scope_id if budget.scope is Scope.PROJECT else ""
    metadata.subject_id = key.subject_id or (budget.scope_id if budget.scope is Scope.SUBJECT else "")
