"""Asks the cost service what was spent, may be spent and will be spent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.cost.v1 import cost_service_pb2_grpc as rpc
from sluice.types.v1 import money_pb2, usage_pb2
from sluice_kit import context

from sluice_console.domain.answers import Amount, Away, BudgetState, Forecast, PeriodForecast, SpendGroup

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
        self._seconds = seconds

    async def spend(
        self,
        *,
        tenant: str,
        start: datetime,
        end: datetime,
        group_by: Sequence[str] = (),
        filters: Mapping[str, str] | None = None,
    ) -> list[SpendGroup]:
        """Sums of the ledger by group, the largest first."""
        chosen = [pb.SpendFilter(dimension=DIMENSIONS[name], values=[value]) for name, value in (filters or {}).items()]
        request = pb.GetSpendRequest(
            until=_timestamp(end), group_by=[DIMENSIONS[name] for name in group_by], filters=chosen
        )
        getattr(request, "from").CopyFrom(_timestamp(start))
        answer = await self._ask(self._stub.GetSpend, request, tenant)
        groups = [
            SpendGroup(
                values=list(group.values),
                amount=_amount(group.amount),
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
        answer = await self._ask(self._stub.ListBudgets, pb.ListBudgetsRequest(), tenant)
        shown = [budget for budget in answer.budgets if not budget.disabled][:_MOST_BUDGETS]
        return list(await asyncio.gather(*(self._budget(budget, tenant) for budget in shown)))

    async def forecasts(self, *, tenant: str) -> list[Forecast]:
        """What day and month will have cost, by currency."""
        answer = await self._ask(self._stub.ForecastSpend, pb.ForecastSpendRequest(), tenant)
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
            limit=_amount(budget.limit),
        )
        if budget.scope == pb.BUDGET_SCOPE_SUBJECT and not budget.scope_id:
            return state  # every person has one of their own
        found = await self._ask(self._stub.GetBudget, pb.GetBudgetRequest(budget_id=budget.budget_id), tenant)
        ends_at = found.window_end.ToDatetime(tzinfo=UTC) if found.HasField("window_end") else None
        return BudgetState(
            state.id, state.scope, state.whose, state.window, state.is_hard, state.limit,
            _amount(found.spent), _amount(found.held), _amount(found.available), ends_at,
        )  # fmt: skip

    async def _ask(self, method: Any, request: Any, tenant: str) -> Any:
        metadata = ((context.TENANT_ID, tenant),) if tenant else ()
        try:
            return await method(request, timeout=self._seconds, metadata=metadata)
        except grpc.RpcError as error:
            code = error.code()  # type: ignore[attr-defined]
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise Away("cost", "cost, which keeps the ledger, does not answer.") from None
            if code is grpc.StatusCode.INVALID_ARGUMENT:
                raise Away("cost", f"cost refused the question: {error.details()}") from None  # type: ignore[attr-defined]
            raise Away("cost", f"cost refused the question ({code.name}).") from None


def _period(period: pb.PeriodForecast) -> PeriodForecast:
    return PeriodForecast(*(_amount(one) for one in (period.spent, period.expected, period.lower, period.upper)))


def _amount(money: money_pb2.Money) -> Amount:
    return Amount(money.currency_code, money.nano_units)


def _tokens(usage: usage_pb2.TokenUsage) -> int:
    return sum(value for _, value in usage.ListFields() if isinstance(value, int) and not isinstance(value, bool))


def _timestamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
