"""Budgets from a file: strict, every mistake at once, in force again when the file changes."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sluice_cost.adapters.budget_file import WatchedBudgets, read_budget_file
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.domain.budget import Budget, BudgetManagedByFile, Scope
from sluice_cost.domain.windows import WindowKind
from sluice_kit.configuration import ConfigurationRefused, read_source

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
GOOD = """\
approved_by: finance
budgets:
  - id: acme-month
    scope: tenant
    tenants: [acme]
    limit: "250.000000001"
    currency: USD
    window: month
    notify_percent: [80, 50]
  - id: everyone-hour
    scope: subject
    tenants: [acme]
    limit: "1"
    currency: EUR
    window: rolling
    rolling_minutes: 60
    enforcement: soft
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "budgets.yaml"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_is_read_into_budgets(path: Path) -> None:
    month, hour = read_budget_file(read_source(written(path, GOOD)))
    assert (month.limit_nano, month.notify_percent, month.is_hard) == (250_000_000_001, (50, 80), True)
    assert (month.scope, month.window, month.origin, month.approved_by) == (
        Scope.TENANT,
        WindowKind.MONTH,
        "file",
        "finance",
    )
    assert (hour.is_for_every_person, hour.rolling_minutes, hour.is_hard, hour.currency) == (True, 60, False, "EUR")


def test_every_mistake_is_told_at_once_with_its_line(path: Path) -> None:
    bad = """\
approved_by: " "
budgets:
  - id: a
    scope: project
    tenants: [acme, umbrella]
    limit: "1.0000000001"
    currency: usd
    window: day
    rolling_minutes: 5
  - id: a
    scope: tenant
    tenants: [acme]
    limit: "-3"
    currency: USD
    window: rolling
    notify_percent: [100]
"""
    with pytest.raises(ConfigurationRefused) as caught:
        read_budget_file(read_source(written(path, bad)))
    told = {(mistake.line, mistake.reason.split(":")[0]) for mistake in caught.value.mistakes}
    assert told == {
        (1, "approved_by"),
        (3, "scope_id"),
        (5, "tenants"),
        (6, "limit"),
        (7, "currency"),
        (9, "rolling_minutes"),
        (10, "a stands here a second time; keep one"),
        (10, "rolling_minutes"),
        (13, "limit"),
        (16, "notify_percent"),
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD.replace("scope: tenant", "scope: town"), "must be"),
        (GOOD.replace('"250.000000001"', "250"), "must be"),
        (GOOD + "    colour: red\n", "unknown field"),
        (GOOD.replace("approved_by: finance\n", ""), "approved_by is missing"),
    ],
)
def test_what_no_budget_can_hold_is_refused(text: str, reason: str, path: Path) -> None:
    with pytest.raises(ConfigurationRefused, match=reason):
        read_budget_file(read_source(written(path, text)))


async def versions(budgets: SqlBudgets) -> dict[str, tuple[int, bool]]:
    return {budget.budget_id: (budget.version, budget.is_disabled) for budget in await budgets.budgets()}


async def test_what_the_file_says_is_in_force_and_what_it_no_longer_says_is_not(database: Database, path: Path) -> None:
    budgets = SqlBudgets(database)
    watched = WatchedBudgets(written(path, GOOD), budgets, clock=lambda: NOON)
    assert await watched.store() == 2
    assert await watched.store() == 0
    again = WatchedBudgets(written(path, GOOD), budgets, clock=lambda: NOON)
    assert await again.store() == 0
    shorter = WatchedBudgets(written(path, GOOD[: GOOD.index("  - id: everyone")]), budgets, clock=lambda: NOON)
    assert await shorter.store() == 1
    assert await versions(budgets) == {"acme-month": (1, False), "everyone-hour": (2, True)}


async def test_a_budget_of_the_file_is_not_changed_behind_its_back(database: Database, path: Path) -> None:
    budgets = SqlBudgets(database)
    await WatchedBudgets(written(path, GOOD), budgets, clock=lambda: NOON).store()
    mine: Budget = next(iter(await budgets.budgets()))
    with pytest.raises(BudgetManagedByFile):
        await budgets.put(mine, recorded_at=0)


async def test_a_changed_file_comes_into_force_and_a_bad_one_leaves_the_last_good(
    database: Database, path: Path
) -> None:
    budgets, stop = SqlBudgets(database), asyncio.Event()
    watched = WatchedBudgets(written(path, GOOD), budgets, clock=lambda: NOON)
    running = asyncio.create_task(watched.run(stop, poll_seconds=0.02))

    async def until(is_so: Callable[[dict[str, tuple[int, bool]]], bool]) -> None:
        deadline = time.monotonic() + 30
        while not is_so(await versions(budgets)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    await until(lambda found: len(found) == 2)
    written(path, GOOD.replace("limit: ", "limt: "))
    await until(lambda _: REGISTRY.get_sample_value("sluice_configuration_stale", {"service": "cost"}) == 1)
    assert (await versions(budgets))["acme-month"] == (1, False)
    written(path, GOOD.replace('"250.000000001"', '"300.5"'))
    await until(lambda found: found["acme-month"] == (2, False))
    stop.set()
    await running


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationRefused, match="there is no such file"):
        WatchedBudgets(tmp_path / "budgets.yaml", None, clock=lambda: NOON)  # type: ignore[arg-type]
