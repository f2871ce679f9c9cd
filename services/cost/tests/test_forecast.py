"""What will have been spent, and how fast a budget burns."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.types.v1 import money_pb2
from sluice_cost.domain.forecast import HOUR, Forecast, burn_rate, day_of, forecast, month_of, profile_of

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)  # a Tuesday
END = NOW.replace(minute=0)


def hours(count: int, value: Any) -> dict[datetime, int]:
    return {END - (i + 1) * HOUR: value(END - (i + 1) * HOUR) for i in range(count)}


def of_day(history: dict[datetime, int]) -> Forecast:
    profile = profile_of(history, first=min(history, default=END), end=END)
    start, end = day_of(NOW)
    return forecast(profile, spent=1_000, now=NOW, start=start, end=end)


def test_a_steady_spend_goes_on_and_is_certain() -> None:
    found = of_day(hours(24 * 3, lambda _: 100))
    assert (found.expected, found.lower, found.upper) == (1_000 + 1_150,) * 3  # eleven and a half hours are left


def test_nights_are_told_from_days() -> None:
    found = of_day(hours(24 * 5, lambda hour: 100 if hour.hour < 18 else 0))
    assert found.expected == 1_000 + 550


def test_weekends_are_told_from_weekdays_with_two_weeks_of_history() -> None:
    history = hours(24 * 21, lambda hour: 0 if hour.weekday() == 1 else 100)
    assert of_day(history).expected == 1_000


def test_without_history_only_what_is_spent_is_known() -> None:
    found = of_day({})
    assert (found.expected, found.lower, found.upper) == (1_000,) * 3


def test_the_interval_holds_what_comes_about_as_often_as_it_says() -> None:
    chance, hits, trials = random.Random(3), 0, 400
    for _ in range(trials):
        draw = lambda _: chance.randrange(0, 2_000)  # noqa: E731
        found = of_day(hours(24 * 8, draw))
        come = 1_000 + sum(chance.randrange(0, 2_000) for _ in range(11)) + chance.randrange(0, 2_000) // 2
        hits += found.lower <= come <= found.upper
    # 90 % of 400 with a standard deviation of 6: five of them, so that a fixed seed is not what makes it pass.
    assert 330 <= hits <= 390


@given(st.lists(st.integers(-(10**12), 10**12), max_size=60))
def test_a_forecast_is_ordered_and_never_below_what_is_spent(values: list[int]) -> None:
    found = of_day({END - (i + 1) * HOUR: value for i, value in enumerate(values)})
    assert found.lower <= found.upper
    assert found.lower >= found.spent


def test_a_budget_that_lasts_exactly_the_month_burns_at_one() -> None:
    start, end = month_of(NOW)
    assert (end - start) == timedelta(days=30)
    assert burn_rate(3_000, timedelta(days=3), budget=30_000, month=end - start) == pytest.approx(1.0)
    assert burn_rate(3_000, timedelta(days=3), budget=0, month=end - start) == 0.0
    assert month_of(datetime(2026, 12, 31, 23, tzinfo=UTC))[1] == datetime(2027, 1, 1, tzinfo=UTC)


async def test_over_grpc_a_burst_is_an_alert_in_the_windows_it_fills(stub: Any) -> None:
    at = Timestamp()
    at.FromDatetime(datetime(2026, 11, 24, 12, 4, tzinfo=UTC))  # 80,000 nano-units were spent four minutes ago
    budget = money_pb2.Money(currency_code="USD", nano_units=80_000 * 30)
    (found,) = (await stub.ForecastSpend(pb.ForecastSpendRequest(at=at, monthly_budget=budget))).forecasts
    assert (found.currency_code, found.month.spent.nano_units, found.day.spent.nano_units) == ("USD", 80_000, 80_000)
    rates = [(burn.long_window.seconds, round(burn.long_rate, 2), burn.alert) for burn in found.burn_rates]
    assert rates == [(3_600, 24.0, True), (21_600, 4.0, False), (259_200, 0.33, False)]
    acme = await stub.ForecastSpend(pb.ForecastSpendRequest(at=at), metadata=(("x-sluice-tenant-id", "acme"),))
    assert [one.month.spent.nano_units for one in acme.forecasts] == [40_000]
