"""Numbers, times and money as people read them. Nothing measured is an em dash, never a zero."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sluice_console.domain.answers import Amount

NOTHING = "\N{EM DASH}"
_STEPS = ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k"))


def count(value: float | None) -> str:
    """1,234 or 12.3k; small fractions with two digits."""
    if value is None:
        return NOTHING
    for size, letter in _STEPS:
        if abs(value) >= size:
            divisor = 1_000 if letter == "k" else size
            return f"{value / divisor:.1f}{letter}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def share(value: float | None) -> str:
    """0.0 % to 100 %."""
    if value is None:
        return NOTHING
    size = abs(value)
    digits = 0 if size >= 0.9995 or size == 0 else 1 if size >= 0.001 else 2
    return f"{value * 100:.{digits}f} %"


def chance(value: float | None) -> str:
    """A p-value: 0.0123, and < 0.0001 for what four digits cannot tell from nothing."""
    if value is None:
        return NOTHING
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def change(value: float | None, tell: Callable[[float | None], str]) -> str:
    """A difference, with its sign."""
    return f"{'+' if value is not None and value > 0 else ''}{tell(value)}"


def seconds(value: float | None) -> str:
    """0.8 ms, 320 ms, 1.25 s, 3 min."""
    if value is None:
        return NOTHING
    if value < 0.01:
        return f"{value * 1000:.1f} ms"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s" if value < 180 else f"{value / 60:.0f} min"


def money(amount: Amount | None) -> str:
    """Exact below a cent, since answers cost less than one; two digits from ten on."""
    if amount is None:
        return NOTHING
    value = Decimal(amount.nano_units) / 10**9
    if value == 0:
        return f"0 {amount.currency}"
    if abs(value) >= 10:
        text = f"{value:,.2f}"
    elif abs(value) >= Decimal("0.01"):
        text = f"{value:.4f}"
    else:
        text = f"{value:.9f}".rstrip("0")
    return f"{text} {amount.currency}"


def brief(amount: Amount | None) -> str:
    """Money with three significant digits, for where there is little room."""
    if amount is None:
        return NOTHING
    value = Decimal(amount.nano_units) / 10**9
    if value == 0 or abs(value) >= 10:
        return money(amount)
    digits = 2 - value.adjusted()
    return f"{round(value, digits):f} {amount.currency}"


def moment(at: datetime | None) -> str:
    """2026-11-26 13:05:09 UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else NOTHING


def clock(at: datetime | None) -> str:
    """13:05."""
    return at.astimezone(UTC).strftime("%H:%M") if at else NOTHING


def day(at: datetime) -> str:
    """26 Nov."""
    return f"{at.astimezone(UTC).day} {at.astimezone(UTC):%b}"


def until(at: datetime, now: datetime) -> str:
    """for 40 s, for 5 min, for 3 h, for 2 d."""
    left = max(at - now, timedelta()).total_seconds()
    for size, unit, word in ((86_400 * 2, 86_400, "d"), (7_200, 3_600, "h"), (120, 60, "min"), (0, 1, "s")):
        if left >= size:
            return f"for {left / unit:.0f} {word}"
    return NOTHING


def ago(at: datetime | None, now: datetime) -> str:
    """just now, 40 s ago, 5 min ago, 3 h ago, 2 d ago."""
    if at is None:
        return NOTHING
    passed = max(now - at, timedelta())
    value = passed.total_seconds()
    for size, word in ((86_400 * 2, "d"), (7_200, "h"), (120, "min"), (5, "s")):
        if value >= size:
            unit = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}[word]
            return f"{value / unit:.0f} {word} ago"
    return "just now"
