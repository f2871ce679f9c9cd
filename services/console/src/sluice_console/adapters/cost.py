"""Asks the cost service what was spent, may be spent and will be spent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.cost.v1 import cost_service_pb2_grpc as rpc
from sluice.types.v1 import usage_pb2

from sluice_console.adapters.asking import Neighbour
from sluice_console.adapters.messages import amount, moment, timestamp
from sluice_console.domain.answers import BudgetState, Forecast, PeriodForecast, SpendGroup

DIMENSIONS = {
    "tenant": pb.SPEND_DIMENSION_TENANT,
    "project": pb.SPEND_DIMENSION_PROJECT,
    "model": pb.SPEND_DIMENSION_MODEL,
    "served_model": pb.SPEND_DIMENSION_SERVED_MODEL,
    "prompt_version": pb.SPEND_DIMENSION_PROMPT_VERSION,
    "experiment_arm": pb.SPEND_DIMENSION_EXPERIMENT_ARM,
    "api_key": pb.SPEND_DIMENSION_API_KEY,
    "route": pb.SPEND_DIMENSION_ROUTE,
    "charge_kind": pb.SPEND_DIMENSION_CHARGE_KIND,
    "outcome": pb.SPEND_DIMENSION_OUTCOME,
    "operation": pb.SPEND_DIMENSION_OPERATION,
    "day": pb.SPEND_DIMENSION_DAY,
    "hour": pb.SPEND_DIMENSION_HOUR,
}
_MOST_BUDGETS = 50
_SCOPES = {
    pb.BUDGET_SCOPE_ORGANISATION: "organisation",
    pb.BUDGET_SCOPE_TENANT: "tenant",
    pb.BUDGET_SCOPE_PROJECT: "project",
    pb.BUDGET_SCOPE_API_KEY: "API key",
    pb.BUDGET_SCOPE_SUBJECT: "person",
}
_WINDOWS = {pb.BUDGET_WINDOW_DAY: "day", pb.BUDGET_WINDOW_MONTH: "month", pb.BUDGET_WINDOW_ROLLING: "rolling"}


class Cost:
    """The ledger. Every method raises Away when it does not answer in time, or refuses; `tenant` limits what is seen."""

    def __init__(self, channel: Any, *, seconds: float) -> None:
        self._stub = rpc.CostServiceStub(channel)
        self._cost = Neighbour("cost", "the ledger", seconds)

    async def spend(
        self,
        *,
        tenant: str,
        start: datetime,
        end: datetime,
        group_by: Sequence[str] = (),
        filters: Mapping[str, str],
    ) -> list[SpendGroup]:
        """Sums of the ledger by group, the largest first."""
        request = pb.GetSpendRequest(
            until=timestamp(end), group_by=[DIMENSIONS[name] for name in group_by], filters=_chosen(filters)
        )
        getattr(request, "from").CopyFrom(timestamp(start))
        answer = await self._cost.ask(self._stub.GetSpend, request, tenant=tenant)
        groups = [
            SpendGroup(
                values=list(group.values),
                amount=amount(group.amount),
                rows=group.row_count,
                requests=group.request_count,
                unpriced=group.unpriced_request_count,
                tokens=_tokens(group.usage),
            )
            for group in answer.groups
        ]
        return sorted(groups, key=lambda group: -group.amount.nano_units)

    async def budgets(self, *, tenant: str) -> list[BudgetState]:
        """Budgets in force with what is used of them; the first fifty."""
        answer = await self._cost.ask(self._stub.ListBudgets, pb.ListBudgetsRequest(), tenant=tenant)
        shown = [budget for budget in answer.budgets if not budget.disabled][:_MOST_BUDGETS]
        return list(await asyncio.gather(*(self._budget(budget, tenant) for budget in shown)))

    async def forecasts(self, *, tenant: str, filters: Mapping[str, str]) -> list[Forecast]:
        """What day and month will have cost, by currency."""
        request = pb.ForecastSpendRequest(filters=_chosen(filters))
        answer = await self._cost.ask(self._stub.ForecastSpend, request, tenant=tenant)
        return [
            Forecast(one.currency_code, _period(one.day), _period(one.month), one.method, one.history_hours)
            for one in answer.forecasts
        ]

    async def _budget(self, budget: pb.Budget, tenant: str) -> BudgetState:
        state = BudgetState(
            id=budget.budget_id,
            scope=_SCOPES.get(budget.scope, "unknown"),
            whose=" / ".join([*budget.tenant_ids[:3], *([budget.scope_id] if budget.scope_id else [])]),
            window=_WINDOWS.get(budget.window, "unknown"),
            is_hard=budget.enforcement != pb.BUDGET_ENFORCEMENT_SOFT,
            limit=amount(budget.limit),
        )
        if budget.scope == pb.BUDGET_SCOPE_SUBJECT and not budget.scope_id:
            return state  # every person has one of their own
        found = await self._cost.ask(
            self._stub.GetBudget, pb.GetBudgetRequest(budget_id=budget.budget_id), tenant=tenant
        )
        return replace(
            state,
            spent=amount(found.spent),
            held=amount(found.held),
            available=amount(found.available),
            ends_at=moment(found, "window_end"),
        )


def _chosen(filters: Mapping[str, str]) -> list[pb.SpendFilter]:
    return [pb.SpendFilter(dimension=DIMENSIONS[name], values=[value]) for name, value in filters.items()]


def _period(period: pb.PeriodForecast) -> PeriodForecast:
    return PeriodForecast(*(amount(one) for one in (period.spent, period.expected, period.lower, period.upper)))


def _tokens(usage: usage_pb2.TokenUsage) -> int:
    return sum(value for _, value in usage.ListFields() if isinstance(value, int) and not isinstance(value, bool))
