"""The cost page's figures, from the ledger's sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sluice_console.domain import wording
from sluice_console.domain.answers import Amount, SpendGroup, total
from sluice_console.domain.charts import Chart, Line

PERIODS: Mapping[str, timedelta] = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
BY: Mapping[str, str] = {
    "tenant": "tenant",
    "project": "project",
    "model": "model",
    "served_model": "served model",
    "prompt_version": "prompt version",
    "experiment_arm": "experiment arm",
    "api_key": "API key",
    "route": "route",
    "charge_kind": "kind of charge",
    "outcome": "outcome",
    "operation": "operation",
}
MOST_ROWS = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One group of the ledger, in words; `share` is of the money in its currency."""

    name: str
    amount: str
    share: float
    requests: str
    tokens: str
    unpriced: int


def rows(groups: Sequence[SpendGroup], by: str) -> list[Row]:
    """The groups, the dearest first."""
    whole = total(groups)
    found = []
    for group in groups[:MOST_ROWS]:
        currency = group.amount.currency
        found.append(
            Row(
                name=group.values[0] or f"(no {BY[by]})",
                amount=wording.money(group.amount),
                share=max(group.amount.nano_units, 0) / whole[currency] if whole.get(currency, 0) > 0 else 0.0,
                requests=wording.count(group.requests),
                tokens=wording.count(group.tokens),
                unpriced=group.unpriced,
            )
        )
    return found


def sums(groups: Sequence[SpendGroup]) -> list[Amount]:
    """One amount a currency."""
    return [Amount(currency, nano) for currency, nano in sorted(total(groups).items())]


def over_time(groups: Sequence[SpendGroup], period: str, now: datetime) -> list[Chart]:
    """One chart a currency, by hour (24 h) or day: the last dimension of the groups, which are added up over any before it."""
    is_hourly = period == "24h"
    step = timedelta(hours=1) if is_hourly else timedelta(days=1)
    form = "%Y-%m-%dT%H" if is_hourly else "%Y-%m-%d"
    count = 25 if is_hourly else PERIODS[period].days + 1
    names = [(now - step * i).strftime(form) for i in reversed(range(count))]
    found = []
    for currency in sorted(total(groups)):
        nano: Counter[str] = Counter()
        for group in groups:
            if group.amount.currency == currency:
                nano[group.values[-1]] += group.amount.nano_units
        labels = [f"{name[-2:]}:00" if is_hourly else name[5:] for name in names]
        line = Line("spent", [nano[name] / 1e9 for name in names], "main")
        note = f"by {'hour' if is_hourly else 'day'}, UTC"
        found.append(
            Chart(f"spend-{currency}", f"Spent, {currency}", "stack", f"money:{currency}", labels, [line], note=note)
        )
    return found
