"""What a budget must be, however it was written: read strictly, with every mistake named at once."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sluice_cost.domain.budget import LIMIT_PERCENT, Budget, Scope
from sluice_cost.domain.price_book import is_currency
from sluice_cost.domain.windows import LONGEST_ROLLING_MINUTES, WindowKind

LONGEST_ID = 128
LARGEST_LIMIT_NANO = 10**18  # a thousand million units: sums of many still fit a 64-bit column
MOST_TENANTS = 1000
MOST_SHARES = 10
# The gateway takes no other: a budget over such a tenant would never be used.
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)

Mistakes = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class BudgetWritten:
    """A budget as somebody wrote it. None stands for what was left out or is unknown."""

    budget_id: str
    scope: Scope | None
    tenant_ids: tuple[str, ...]
    scope_id: str
    limit_nano: int | None
    currency: str
    window: WindowKind | None
    rolling_seconds: float
    is_hard: bool | None
    notify_percent: tuple[int, ...]
    approved_by: str
    is_disabled: bool = False
    origin: str = "api"


def read_budget(written: BudgetWritten) -> tuple[Budget | None, Mistakes]:
    """The budget, or every (field, reason) that it cannot be."""
    mistakes = list(_mistakes(written))
    if mistakes or written.scope is None or written.window is None or written.limit_nano is None:
        return None, mistakes
    return (
        Budget(
            written.budget_id,
            written.scope,
            tuple(sorted(set(written.tenant_ids))),
            written.scope_id,
            written.limit_nano,
            written.currency,
            written.window,
            int(written.rolling_seconds) // 60,
            bool(written.is_hard),
            tuple(sorted(set(written.notify_percent))),
            written.approved_by.strip(),
            written.is_disabled,
            written.origin,
        ),
        [],
    )


def _mistakes(written: BudgetWritten) -> Iterator[tuple[str, str]]:
    if not _is_id(written.budget_id):
        yield "budget_id", f"must have 1 to {LONGEST_ID} characters"
    yield from _scope_mistakes(written)
    if written.limit_nano is None or not 0 <= written.limit_nano <= LARGEST_LIMIT_NANO:
        yield "limit", f"must be given, from 0 to {LARGEST_LIMIT_NANO // 10**9} units"
    if not is_currency(written.currency):
        yield "limit.currency_code", "must be an ISO 4217 code such as USD"
    yield from _window_mistakes(written)
    if written.is_hard is None:
        yield "enforcement", "must be hard or soft"
    shares = written.notify_percent
    if len(shares) > MOST_SHARES or any(not 1 <= share < LIMIT_PERCENT for share in shares):
        yield "notify_percent", f"takes up to {MOST_SHARES} shares from 1 to 99; the limit itself is always told"
    if not 0 < len(written.approved_by.strip()) <= 200 or "\0" in written.approved_by:
        yield "approved_by", "must have 1 to 200 characters"


def _scope_mistakes(written: BudgetWritten) -> Iterator[tuple[str, str]]:
    if written.scope is None:
        yield "scope", "must be organisation, tenant, project, api_key or subject"
    tenants = written.tenant_ids
    if not tenants or len(tenants) > MOST_TENANTS or not all(_TENANT.fullmatch(tenant) for tenant in tenants):
        yield "tenant_ids", f"must name 1 to {MOST_TENANTS} tenants, each as the gateway knows it ({_TENANT.pattern})"
    elif written.scope is not Scope.ORGANISATION and len(set(tenants)) != 1:
        yield "tenant_ids", "must name one tenant; only an organisation has several"
    if written.scope is Scope.TENANT and written.scope_id:
        yield "scope_id", "must be empty for a tenant, which tenant_ids names"
    is_needed = written.scope not in (None, Scope.TENANT, Scope.SUBJECT)
    if (is_needed and not written.scope_id) or (written.scope_id and not _is_id(written.scope_id)):
        yield "scope_id", f"must have 1 to {LONGEST_ID} characters"
    elif written.scope is Scope.SUBJECT and "@" in written.scope_id:
        # It would be stored in clear, and stand over nobody.
        yield "scope_id", "must be the person's pseudonym (sub_...), never a name or an address"


def _window_mistakes(written: BudgetWritten) -> Iterator[tuple[str, str]]:
    if written.window is None:
        yield "window", "must be day, month or rolling"
    elif written.window is not WindowKind.ROLLING:
        if written.rolling_seconds:
            yield "rolling_window", "belongs to rolling windows only"
    elif written.rolling_seconds % 60 or not 60 <= written.rolling_seconds <= LONGEST_ROLLING_MINUTES * 60:
        yield "rolling_window", "must be whole minutes, from 1 minute to 90 days"


def _is_id(text: str) -> bool:
    return 0 < len(text) <= LONGEST_ID and "\0" not in text
