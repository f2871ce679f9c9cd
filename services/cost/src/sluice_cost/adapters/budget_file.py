"""Budgets from a YAML file: read strictly, every mistake with its line, put in force again when the file changes."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal

from sluice_kit.configuration import ConfigurationModel, ConfigurationRefused, Document, Mistake, SourceFile, document
from sluice_kit.configuration_watch import POLL_SECONDS, WatchedConfiguration
from sluice_kit.process import describe
from sluice_kit.telemetry import logger

from sluice_cost.adapters.moments import to_microseconds
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.domain.budget import Budget, Scope
from sluice_cost.domain.budget_rules import BudgetWritten, read_budget
from sluice_cost.domain.ledger import LedgerUnavailable
from sluice_cost.domain.money import NANO_PER_UNIT
from sluice_cost.domain.windows import WindowKind

log = logger(__name__)

# Field of a budget -> name in the file.
_NAMES = {
    "budget_id": "id",
    "tenant_ids": "tenants",
    "limit.currency_code": "currency",
    "rolling_window": "rolling_minutes",
}


class BudgetEntry(ConfigurationModel):
    """One budget of the file."""

    id: str
    scope: Literal["organisation", "tenant", "project", "api_key", "subject"]
    tenants: tuple[str, ...]
    scope_id: str = ""
    limit: str
    currency: str
    window: Literal["day", "month", "rolling"]
    rolling_minutes: int = 0
    enforcement: Literal["hard", "soft"] = "hard"
    notify_percent: tuple[int, ...] = ()


class BudgetsWritten(ConfigurationModel):
    """The file."""

    approved_by: str
    budgets: tuple[BudgetEntry, ...]


def read_budget_file(source: SourceFile) -> tuple[Budget, ...]:
    """The budgets of a file. Raises ConfigurationRefused with every mistake in it."""
    read = document(source, BudgetsWritten)
    budgets: list[Budget] = []
    mistakes: list[Mistake] = []
    seen: set[str] = set()
    for number, entry in enumerate(read.value.budgets):
        found, wrong = _read_entry(read, number, entry)
        mistakes += wrong
        if entry.id in seen:
            mistakes.append(
                read.mistake(f"{entry.id} stands here a second time; keep one", at=("budgets", number, "id"))
            )
        seen.add(entry.id)
        budgets += [found] if found is not None else []
    if mistakes:
        raise ConfigurationRefused(sorted(set(mistakes)))
    return tuple(budgets)


def _read_entry(read: Document[BudgetsWritten], number: int, entry: BudgetEntry) -> tuple[Budget | None, list[Mistake]]:
    limit_nano = _nano(entry.limit)
    written = BudgetWritten(
        budget_id=entry.id,
        scope=Scope(entry.scope),
        tenant_ids=entry.tenants,
        scope_id=entry.scope_id,
        limit_nano=0 if limit_nano is None else limit_nano,
        currency=entry.currency,
        window=WindowKind(entry.window),
        rolling_seconds=entry.rolling_minutes * 60,
        is_hard=entry.enforcement == "hard",
        notify_percent=entry.notify_percent,
        approved_by=read.value.approved_by,
        origin="file",
    )
    budget, wrong = read_budget(written)
    mistakes = [
        # approved_by stands once in the file.
        read.mistake(f"{_NAMES.get(field, field)}: {reason}", at=_place(number, _NAMES.get(field, field)))
        for field, reason in wrong
    ]
    if limit_nano is None:
        reason = 'limit: must be a decimal in quotes with up to nine places, such as "250.00"'
        mistakes.append(read.mistake(reason, at=("budgets", number, "limit")))
    return budget, mistakes


def _place(number: int, name: str) -> tuple[str | int, ...]:
    return (name,) if name == "approved_by" else ("budgets", number, name)


def _nano(limit: str) -> int | None:
    try:
        nano = Decimal(limit) * NANO_PER_UNIT
    except InvalidOperation:
        return None
    return int(nano) if nano.is_finite() and nano == nano.to_integral_value() else None


class WatchedBudgets:
    """The file's budgets in force: stored at the start, and again whenever a good new version of the file is there."""

    def __init__(self, path: Path, budgets: SqlBudgets, *, clock: Callable[[], datetime]) -> None:
        def build(sources: tuple[SourceFile, ...]) -> tuple[Budget, ...]:
            source = next((source for source in sources if source.path.name == path.name), None)
            if source is None:
                raise ConfigurationRefused([Mistake(path, 1, "there is no such file")])
            return read_budget_file(source)

        self._budgets, self._clock = budgets, clock
        self._configuration = WatchedConfiguration([path.parent], build, service="cost", suffix=path.name)
        self._stored = ""

    async def store(self) -> int:
        """Puts what the file says in force; returns how many budgets changed. Raises LedgerUnavailable."""
        digest, budgets = self._configuration.digest, self._configuration.current
        approved_by = budgets[0].approved_by if budgets else "file"
        changed = await self._budgets.put_file(
            budgets, approved_by=approved_by, recorded_at=to_microseconds(self._clock())
        )
        self._stored = digest
        log.info("budgets.stored", budgets=len(budgets), changed=changed)
        return changed

    async def run(self, stop: asyncio.Event, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Looks at the file until `stop`. While the database is away, what is to be stored waits."""
        watch = asyncio.create_task(self._configuration.watch(poll_seconds=poll_seconds))
        try:
            while not stop.is_set():
                if self._configuration.digest != self._stored:
                    try:
                        await self.store()
                    except LedgerUnavailable as error:
                        log.warning("budgets.wait", **describe(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), poll_seconds)
        finally:
            watch.cancel()
