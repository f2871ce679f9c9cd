"""Budgets: what may be spent by whom in which time, and how far each is used."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from sluice_cost.domain.windows import WindowKind, bucket_of, end_of, start_of

LIMIT_PERCENT = 100


class Scope(StrEnum):
    """For whose requests a budget stands, from the widest to the narrowest."""

    ORGANISATION = "organisation"
    TENANT = "tenant"
    PROJECT = "project"
    API_KEY = "api_key"
    SUBJECT = "subject"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. Empty texts mean: none."""

    tenant_id: str
    project_id: str = ""
    api_key_id: str = ""
    subject_id: str = ""


class AccountKey(NamedTuple):
    """A budget's account. A budget of every person has one a person, every other budget exactly one."""

    budget_id: str
    subject_id: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """One version of a budget."""

    budget_id: str
    scope: Scope
    tenant_ids: tuple[str, ...]
    scope_id: str
    """Project, API key or subject; for an organisation its name; empty for a tenant and for every person."""
    limit_nano: int
    currency: str
    window: WindowKind
    rolling_minutes: int
    """Length of a rolling window; 0 for the others."""
    is_hard: bool
    notify_percent: tuple[int, ...]
    """Ascending, without the limit itself."""
    approved_by: str
    is_disabled: bool = False
    origin: str = "api"
    """`api`, or `file` for one that stands in the file of budgets."""
    version: int = 0
    """Counted from 1 per budget; 0 until it is stored."""

    @property
    def is_for_every_person(self) -> bool:
        return self.scope is Scope.SUBJECT and not self.scope_id

    @property
    def shape(self) -> tuple[object, ...]:
        """What decides which costs count: when it changes, the counters are made anew."""
        return (
            self.scope,
            self.tenant_ids,
            self.scope_id,
            self.currency,
            self.window,
            self.rolling_minutes,
            self.is_disabled,
        )

    def covers(self, caller: Caller) -> bool:
        """True when the caller's requests count. A budget of every person does not cover a request without a person."""
        if caller.tenant_id not in self.tenant_ids:
            return False
        match self.scope:
            case Scope.PROJECT:
                return caller.project_id == self.scope_id
            case Scope.API_KEY:
                return caller.api_key_id == self.scope_id
            case Scope.SUBJECT:
                return caller.subject_id == self.scope_id if self.scope_id else caller.subject_id != ""
        return True

    def account_of(self, caller: Caller) -> AccountKey:
        return AccountKey(self.budget_id, caller.subject_id if self.is_for_every_person else "")

    def bucket_of(self, at: int) -> int:
        return bucket_of(self.window, at)

    def window_start(self, at: int) -> int:
        return start_of(self.window, at, rolling_minutes=self.rolling_minutes)

    def window_end(self, at: int) -> int:
        return end_of(self.window, at)


@dataclass(slots=True)
class Account:
    """How far a budget is used. `spent` is the ledger's sum of the window that begins at `window_start`."""

    key: AccountKey
    window_start: int
    spent: int = 0
    held: int = 0
    """Nano-units that may still become ledger rows."""
    leased: int = 0
    """Of held: slices leased to gateways."""
    notified_percent: int = 0
    """The highest share of the limit whose crossing was told in this window."""
    notified_at: int = 0

    def available(self, budget: Budget) -> int:
        """What a new request may still cost; below zero where the limit was lowered or a cost was higher than held."""
        return budget.limit_nano - self.spent - self.held

    def enter_window(self, budget: Budget, start: int, *, spent: int) -> None:
        """The window moved on: `spent` is the ledger's sum of the new one. What is held goes along."""
        self.window_start, self.spent = start, spent
        # A rolling window moves every minute: what was told is told again only when a whole window has passed since.
        if budget.window is not WindowKind.ROLLING:
            self.notified_percent = 0
        elif self.notified_at < start:
            self.notified_percent = min(self.notified_percent, self._reached(budget))

    def crossed(self, budget: Budget, *, at: int) -> list[int]:
        """Shares of the limit that `spent` has reached and that were not told in this window; they are told now."""
        reached = [
            percent
            for percent in (*budget.notify_percent, LIMIT_PERCENT)
            if percent > self.notified_percent and self._has_reached(budget, percent)
        ]
        if reached:
            self.notified_percent, self.notified_at = max(reached), at
        return reached

    def was_refused(self, *, at: int) -> bool:
        """Notes that a request was refused; True when that is new in this window."""
        if self.notified_percent >= LIMIT_PERCENT:
            return False
        self.notified_percent, self.notified_at = LIMIT_PERCENT, at
        return True

    def _reached(self, budget: Budget) -> int:
        percents = (*budget.notify_percent, LIMIT_PERCENT)
        return max((percent for percent in percents if self._has_reached(budget, percent)), default=0)

    def _has_reached(self, budget: Budget, percent: int) -> bool:
        return self.spent > 0 and self.spent * LIMIT_PERCENT >= budget.limit_nano * percent


class BudgetIndex:
    """The newest version of every budget; finds those over a caller."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self._by_id = {budget.budget_id: budget for budget in budgets}
        self._by_tenant: dict[str, list[Budget]] = {}
        for budget in sorted(self._by_id.values(), key=lambda budget: budget.budget_id):
            for tenant_id in () if budget.is_disabled else budget.tenant_ids:
                self._by_tenant.setdefault(tenant_id, []).append(budget)

    def __iter__(self) -> Iterator[Budget]:
        return iter(sorted(self._by_id.values(), key=lambda budget: budget.budget_id))

    def find(self, budget_id: str) -> Budget | None:
        return self._by_id.get(budget_id)

    def over(self, caller: Caller) -> Sequence[Budget]:
        """The budgets over a caller, in the order of their ids."""
        return [budget for budget in self._by_tenant.get(caller.tenant_id, ()) if budget.covers(caller)]

    def is_by_person(self, tenant_id: str) -> bool:
        """True when a budget of the tenant is for one person, or for each."""
        return any(budget.scope is Scope.SUBJECT for budget in self._by_tenant.get(tenant_id, ()))


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a budget stands."""

    budget: Budget
    account: Account
    window_end: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A counter that is not what the ledger's rows, or the open holds, add up to. Nano-units."""

    key: AccountKey
    currency: str
    counter: str
    """`spent`, `held` or `leased`."""
    counted: int
    added_up: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What adding everything up anew found."""

    accounts: int
    differences: Sequence[Difference]


class BudgetManagedByFile(Exception):
    """A budget that stands in the file of budgets is changed there."""


class BudgetStore(Protocol):
    """Where budgets are kept."""

    async def budgets(self) -> BudgetIndex:
        """The newest version of every budget."""

    async def put(self, budget: Budget, *, recorded_at: int) -> Budget:
        """Stores a new version, with an audit row, and its counters where what counts changed. Returns it as stored.

        Raises BudgetManagedByFile.
        """

    async def standing(self, key: AccountKey, *, at: int) -> Standing | None:
        """Where a budget stands; None when there is none of that id."""

    async def audit(self, *, at: int) -> Audit:
        """Adds up the ledger and the open holds anew and tells every counter that differs, in one view of the data."""
