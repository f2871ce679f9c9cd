"""Budgets, over gRPC: put, listed, told."""

from collections.abc import Callable
from datetime import datetime

import grpc
from google.protobuf.duration_pb2 import Duration
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_kit import context
from sluice_kit.errors import InvalidInput, NotFound, PermissionDenied, PreconditionFailed, Unavailable

from sluice_cost.adapters.cost_events import as_money
from sluice_cost.adapters.moments import from_microseconds, to_microseconds
from sluice_cost.domain.budget import (
    AccountKey,
    Budget,
    BudgetManagedByFile,
    BudgetStore,
    Difference,
    Scope,
    Standing,
)
from sluice_cost.domain.budget_rules import BudgetWritten, read_budget
from sluice_cost.domain.ledger import LedgerUnavailable
from sluice_cost.domain.windows import WindowKind

_SCOPES = {
    pb.BUDGET_SCOPE_ORGANISATION: Scope.ORGANISATION,
    pb.BUDGET_SCOPE_TENANT: Scope.TENANT,
    pb.BUDGET_SCOPE_PROJECT: Scope.PROJECT,
    pb.BUDGET_SCOPE_API_KEY: Scope.API_KEY,
    pb.BUDGET_SCOPE_SUBJECT: Scope.SUBJECT,
}
_WINDOWS = {
    pb.BUDGET_WINDOW_DAY: WindowKind.DAY,
    pb.BUDGET_WINDOW_MONTH: WindowKind.MONTH,
    pb.BUDGET_WINDOW_ROLLING: WindowKind.ROLLING,
}
_ENFORCEMENTS = {
    pb.BUDGET_ENFORCEMENT_UNSPECIFIED: True,
    pb.BUDGET_ENFORCEMENT_HARD: True,
    pb.BUDGET_ENFORCEMENT_SOFT: False,
}


class BudgetMethods:
    """PutBudget, ListBudgets, GetBudget, VerifyBudgets."""

    _budgets: BudgetStore
    _clock: Callable[[], datetime]

    async def PutBudget(self, request: pb.PutBudgetRequest, _: grpc.aio.ServicerContext) -> pb.PutBudgetResponse:
        """Stores a new version of a budget."""
        if context.current().tenant_id:
            raise PermissionDenied("Budgets are set by operators, not on behalf of a tenant.")
        budget, mistakes = read_budget(_written(request.budget))
        if budget is None:
            raise InvalidInput(
                "budget." + "; budget.".join(f"{field}: {reason}" for field, reason in mistakes) + ".",
                field=f"budget.{mistakes[0][0]}",
            )
        try:
            stored = await self._budgets.put(budget, recorded_at=to_microseconds(self._clock()))
        except BudgetManagedByFile:
            raise PreconditionFailed(
                f"The budget {budget.budget_id!r} stands in the file of budgets: change it there.",
                reason="BUDGET_MANAGED_BY_FILE",
            ) from None
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        return pb.PutBudgetResponse(budget=budget_message(stored))

    async def ListBudgets(self, _request: pb.ListBudgetsRequest, _: grpc.aio.ServicerContext) -> pb.ListBudgetsResponse:
        """The newest version of every budget that the caller may see."""
        try:
            found = await self._budgets.budgets()
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        return pb.ListBudgetsResponse(budgets=[budget_message(budget) for budget in found if _may_see(budget)])

    async def GetBudget(self, request: pb.GetBudgetRequest, _: grpc.aio.ServicerContext) -> pb.GetBudgetResponse:
        """Where a budget stands now."""
        key = AccountKey(request.budget_id, request.subject_id)
        try:
            standing = await self._budgets.standing(key, at=to_microseconds(self._clock()))
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        if standing is None or not _may_see(standing.budget):
            raise NotFound(f"There is no budget {request.budget_id!r}.")
        if bool(request.subject_id) is not standing.budget.is_for_every_person:
            raise InvalidInput(
                "subject_id must be given for a budget of every person, and for no other.", field="subject_id"
            )
        return _standing_message(standing)

    async def VerifyBudgets(
        self, _request: pb.VerifyBudgetsRequest, _: grpc.aio.ServicerContext
    ) -> pb.VerifyBudgetsResponse:
        """Tells every counter that is not the sum of the ledger's rows or of the open holds."""
        if context.current().tenant_id:
            raise PermissionDenied("Budgets are verified by operators, not on behalf of a tenant.")
        try:
            audit = await self._budgets.audit(at=to_microseconds(self._clock()))
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        return pb.VerifyBudgetsResponse(
            account_count=audit.accounts, differences=[_difference_message(found) for found in audit.differences]
        )


def _may_see(budget: Budget) -> bool:
    """A tenant sees what is its own; an organisation's budgets are the operator's."""
    tenant_id = context.current().tenant_id
    return not tenant_id or (budget.scope is not Scope.ORGANISATION and tenant_id in budget.tenant_ids)


def _written(budget: pb.Budget) -> BudgetWritten:
    return BudgetWritten(
        budget_id=budget.budget_id,
        scope=_SCOPES.get(budget.scope),  # type: ignore[call-overload]
        tenant_ids=tuple(budget.tenant_ids),
        scope_id=budget.scope_id,
        limit_nano=budget.limit.nano_units if budget.HasField("limit") else None,
        currency=budget.limit.currency_code,
        window=_WINDOWS.get(budget.window),  # type: ignore[call-overload]
        rolling_seconds=budget.rolling_window.ToTimedelta().total_seconds() if budget.HasField("rolling_window") else 0,
        is_hard=_ENFORCEMENTS.get(budget.enforcement),  # type: ignore[call-overload]
        notify_percent=tuple(budget.notify_percent),
        approved_by=budget.approved_by,
        is_disabled=budget.disabled,
    )


def budget_message(budget: Budget) -> pb.Budget:
    """A budget as the contract has it."""
    message = pb.Budget(
        budget_id=budget.budget_id,
        version=budget.version,
        scope=next(number for number, scope in _SCOPES.items() if scope is budget.scope),
        tenant_ids=budget.tenant_ids,
        scope_id=budget.scope_id,
        limit=as_money(budget.limit_nano, budget.currency),
        window=next(number for number, window in _WINDOWS.items() if window is budget.window),
        enforcement=pb.BUDGET_ENFORCEMENT_HARD if budget.is_hard else pb.BUDGET_ENFORCEMENT_SOFT,
        notify_percent=budget.notify_percent,
        approved_by=budget.approved_by,
        disabled=budget.is_disabled,
    )
    if budget.rolling_minutes:
        message.rolling_window.CopyFrom(Duration(seconds=budget.rolling_minutes * 60))
    return message


def _standing_message(standing: Standing) -> pb.GetBudgetResponse:
    budget, account = standing.budget, standing.account
    answer = pb.GetBudgetResponse(
        budget_id=budget.budget_id,
        limit=as_money(budget.limit_nano, budget.currency),
        spent=as_money(account.spent, budget.currency),
        held=as_money(account.held, budget.currency),
        leased=as_money(account.leased, budget.currency),
        available=as_money(max(account.available(budget), 0), budget.currency),
        budget=budget_message(budget),
    )
    answer.window_start.FromDatetime(from_microseconds(account.window_start))
    answer.window_end.FromDatetime(from_microseconds(standing.window_end))
    return answer


def _difference_message(found: Difference) -> pb.BudgetDifference:
    return pb.BudgetDifference(
        budget_id=found.key.budget_id,
        subject_id=found.key.subject_id,
        counter=found.counter,
        counted=as_money(found.counted, found.currency),
        added_up=as_money(found.added_up, found.currency),
    )
