"""Forecasts and burn rates, over gRPC."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_kit import context
from sluice_kit.errors import InvalidInput, Unavailable

from sluice_cost.adapters.cost_events import as_money
from sluice_cost.api.reading import moment
from sluice_cost.api.spend import chosen_filters, is_of_callers
from sluice_cost.domain.forecast import (
    BURN_WINDOWS,
    HISTORY,
    HOUR,
    METHOD,
    BurnWindow,
    Forecast,
    burn_rate,
    day_of,
    forecast,
    month_of,
    profile_of,
)
from sluice_cost.domain.ledger import LedgerUnavailable
from sluice_cost.domain.spend import Dimension, SpendFilter, SpendQuery, SpendReader

Sums = Mapping[str, int]


class ForecastMethods:
    """ForecastSpend."""

    _spend: SpendReader
    _clock: Callable[[], datetime]

    async def ForecastSpend(
        self, request: pb.ForecastSpendRequest, _: grpc.aio.ServicerContext
    ) -> pb.ForecastSpendResponse:
        """One forecast a currency in which anything was spent in the last four weeks."""
        now = moment(request.at, "at") if request.HasField("at") else self._clock()
        filters = chosen_filters(request.filters, tenant_id=context.current().tenant_id)
        if request.monthly_budget.nano_units < 0:
            raise InvalidInput("A budget must not be below zero.", field="monthly_budget")
        try:
            hours = await self._hours(filters, now)
            sums = {period: await self._sums(filters, *period) for period in _periods(now)}
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        currencies = sorted({*hours, *(currency for found in sums.values() for currency in found)})
        return pb.ForecastSpendResponse(
            forecasts=[
                _told(currency, hours.get(currency, {}), sums, now=now, budget=request.monthly_budget)
                for currency in currencies
            ]
        )

    async def _hours(self, filters: Sequence[SpendFilter], now: datetime) -> Mapping[str, Mapping[datetime, int]]:
        end = now.replace(minute=0, second=0, microsecond=0)
        report = await self._spend.spend(
            SpendQuery(end - HISTORY, end, filters, [Dimension.HOUR], callers_only=is_of_callers(filters))
        )
        hours: dict[str, dict[datetime, int]] = {}
        for group, spend in report.groups:
            hour = datetime.strptime(group.values[0], "%Y-%m-%dT%H").replace(tzinfo=UTC)
            hours.setdefault(group.currency, {})[hour] = spend.amount_nano
        return hours

    async def _sums(self, filters: Sequence[SpendFilter], start: datetime, end: datetime) -> Sums:
        report = await self._spend.spend(SpendQuery(start, end, filters, callers_only=is_of_callers(filters)))
        return {group.currency: spend.amount_nano for group, spend in report.groups}


def _periods(now: datetime) -> set[tuple[datetime, datetime]]:
    lengths = {window for pair in BURN_WINDOWS for window in (pair.long, pair.short)}
    return {(now - length, now) for length in lengths} | {(day_of(now)[0], now), (month_of(now)[0], now)}


def _told(
    currency: str,
    hours: Mapping[datetime, int],
    sums: Mapping[tuple[datetime, datetime], Sums],
    *,
    now: datetime,
    budget: Any,
) -> pb.SpendForecast:
    end = now.replace(minute=0, second=0, microsecond=0)
    first = min(hours, default=end)  # before the first spending there was nothing to learn from
    profile = profile_of(hours, first=first, end=end)

    def spent(start: datetime) -> int:
        return sums[start, now].get(currency, 0)

    def period(start: datetime, until: datetime) -> pb.PeriodForecast:
        found = forecast(profile, spent=spent(start), now=now, start=start, end=until)
        return _period(found, currency)

    limit = budget.nano_units if budget.currency_code == currency else 0
    month = month_of(now)
    return pb.SpendForecast(
        currency_code=currency,
        day=period(*day_of(now)),
        month=period(*month),
        burn_rates=[
            _burn(pair, spent(now - pair.long), spent(now - pair.short), currency, limit, month[1] - month[0])
            for pair in BURN_WINDOWS
        ],
        method=METHOD,
        history_hours=int((end - first) / HOUR),
    )


def _period(found: Forecast, currency: str) -> pb.PeriodForecast:
    told = pb.PeriodForecast(
        spent=as_money(found.spent, currency),
        expected=as_money(found.expected, currency),
        lower=as_money(found.lower, currency),
        upper=as_money(found.upper, currency),
    )
    told.start.FromDatetime(found.start)
    told.end.FromDatetime(found.end)
    return told


def _burn(pair: BurnWindow, long: int, short: int, currency: str, budget: int, month: timedelta) -> pb.BurnRate:
    long_rate = burn_rate(long, pair.long, budget=budget, month=month)
    short_rate = burn_rate(short, pair.short, budget=budget, month=month)
    return pb.BurnRate(
        long_window=_duration(pair.long),
        short_window=_duration(pair.short),
        spent=as_money(long, currency),
        long_rate=long_rate,
        short_rate=short_rate,
        threshold=pair.threshold,
        alert=min(long_rate, short_rate) >= pair.threshold,
    )


def _duration(length: timedelta) -> Duration:
    made = Duration()
    made.FromTimedelta(length)
    return made
