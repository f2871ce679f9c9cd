"""Writes the idle time of closed hours into the ledger, and again where late rows changed an hour."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sluice_kit.process import describe
from sluice_kit.telemetry import logger
from sqlalchemy import Connection, func, select

from sluice_cost.adapters import tables
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import HOUR_US, to_microseconds
from sluice_cost.adapters.sql_books import Terms
from sluice_cost.adapters.sql_chain import lock_heads
from sluice_cost.adapters.sql_entries import Encode, insert_entries
from sluice_cost.adapters.sql_ledger import posting_of
from sluice_cost.adapters.sql_prices import read_prices
from sluice_cost.adapters.sql_spent import count_spent
from sluice_cost.domain.idle import IDLE_CHAIN, ModelHour, Seconds, capacity_of, closed_hours, idle_entries
from sluice_cost.domain.ledger import COMPUTE, CORRECTION, GUARDRAIL, IDLE, LedgerEntry, LedgerUnavailable
from sluice_cost.domain.pricing import Price

log = logger(__name__)

LOOKING_BACK = timedelta(days=7)
_EVERY_SECONDS = 300.0
_COMPUTED = (COMPUTE, GUARDRAIL)
_SECONDS = tables.ledger.c.cpu_nano + tables.ledger.c.accelerator_nano


class SqlIdle:
    """Closes hours."""

    def __init__(self, database: Database, *, default_currency: str, encode: Encode, lateness: timedelta) -> None:
        self._database, self._default_currency, self._encode = database, default_currency, encode
        self._lateness = lateness
        self._terms = Terms(default_currency=default_currency)

    async def close(self, now: datetime) -> list[LedgerEntry]:
        """Enters what the hours closed by now still lack; nothing when all is there."""
        open_hours = await self._database.read(lambda connection: self._not_whole(connection, now))
        written: list[LedgerEntry] = []
        for start, model in open_hours:
            written += await self._database.write(self._closing(start, model, now))
        return written

    def _not_whole(self, connection: Connection, now: datetime) -> list[tuple[datetime, str]]:
        """Hours of models with capacity whose sums are not what the capacity costs. Cheap: hourly sums and corrections only."""
        hours = closed_hours(now, lateness=self._lateness, looking_back=LOOKING_BACK)
        prices = read_prices(connection, default_currency=self._default_currency)
        models = prices.models_with_capacity()  # few of the thousands that an imported book has
        sums = _hour_sums(connection, hours[0], models) if models else {}
        places = ((start, model) for start in hours for model in models)
        return [
            (start, model)
            for start, model in places
            if (price := prices.find(model, start)) is not None
            and not _is_whole(sums.get((to_microseconds(start), model), {}), price)
        ]

    def _closing(self, start: datetime, model: str, now: datetime) -> Callable[[Connection], list[LedgerEntry]]:
        def work(connection: Connection) -> list[LedgerEntry]:
            lock_heads(connection, [IDLE_CHAIN])  # before reading: another replica may close the same hour
            price: Price | None = read_prices(connection, default_currency=self._default_currency).find(model, start)
            assert price is not None
            entries = [
                entry
                for hour in _model_hours(connection, start, model, price.currency)
                for entry in idle_entries(hour, price, recorded_at=now)
            ]
            new = insert_entries(connection, entries, self._encode)
            count_spent(connection, [posting_of(entry) for entry in new], self._terms, now=to_microseconds(now))
            return new

        return work


Sums = dict[str, tuple[int, int]]
"""By currency: what was computed and idle together, and the idle part of it."""


def _is_whole(sums: Sums, price: Price) -> bool:
    capacity = capacity_of(price)
    together, idle = sums.get(price.currency, (0, 0))
    missing = capacity.cpu + capacity.accelerator - together
    in_other_currencies = any(amounts[1] for currency, amounts in sums.items() if currency != price.currency)
    # More may be computed than was declared: then nothing is idle.
    return (missing == 0 or (missing < 0 and idle == 0)) and not in_other_currencies


def _hour_sums(connection: Connection, first: datetime, models: Sequence[str]) -> dict[tuple[int, str], Sums]:
    hours, ledger, moment = tables.spend_hours.c, tables.ledger.c, tables.ledger.c.occurred_at_us
    hour = moment - moment % HOUR_US
    computed = (
        select(hours.hour_us, hours.served_model, hours.currency, hours.charge_kind, func.sum(hours.amount_nano))
        .where(hours.hour_us >= to_microseconds(first), hours.charge_kind.in_((*_COMPUTED, IDLE)))
        .where(hours.served_model.in_(models))
        .group_by(hours.hour_us, hours.served_model, hours.currency, hours.charge_kind)
    )
    # The hourly sums do not tell corrections of tokens from those of seconds; of corrections there are few.
    corrected = (
        select(hour, ledger.served_model, ledger.currency, ledger.charge_kind, func.sum(_SECONDS))
        .where(ledger.corrects != "", moment >= to_microseconds(first), ledger.served_model.in_(models))
        .group_by(hour, ledger.served_model, ledger.currency, ledger.charge_kind)
    )
    found: dict[tuple[int, str], Sums] = {}
    for query in (computed, corrected):
        for hour_us, model, currency, kind, amount in connection.execute(query):
            sums = found.setdefault((hour_us, model), {})
            together, idle = sums.get(currency, (0, 0))
            sums[currency] = (together + int(amount), idle + int(amount) * (kind == IDLE))
    return found


def _model_hours(connection: Connection, start: datetime, model: str, currency: str) -> list[ModelHour]:
    """What the ledger has of the hour: one a currency, that of the price always."""
    ledger, first = tables.ledger.c, to_microseconds(start)
    by = (ledger.currency, ledger.charge_kind, ledger.tenant_id)
    query = (
        select(*by, func.count(), func.sum(ledger.cpu_nano), func.sum(ledger.accelerator_nano))
        .where(ledger.occurred_at_us >= first, ledger.occurred_at_us < first + HOUR_US, ledger.served_model == model)
        .where(ledger.charge_kind.in_((*_COMPUTED, CORRECTION, IDLE)))
        .group_by(*by)
    )
    computed: dict[str, dict[str, Seconds]] = {currency: {}}
    idle: dict[str, dict[str, Seconds]] = {currency: {}}
    written: dict[str, int] = {}
    for found, kind, tenant, rows, cpu, accelerator in connection.execute(query):
        of_kind = (idle if kind == IDLE else computed).setdefault(found, {})
        of_kind[tenant] = of_kind.get(tenant, Seconds()) + Seconds(int(cpu), int(accelerator))
        written[found] = written.get(found, 0) + (rows if kind == IDLE else 0)
    return [
        ModelHour(model, start, _used(computed.get(each, {})), idle.get(each, {}), each, written.get(each, 0))
        for each in sorted({*computed, *idle})
    ]


def _used(computed: dict[str, Seconds]) -> dict[str, Seconds]:
    return {tenant: seconds for tenant, seconds in computed.items() if seconds != Seconds()}


async def close_for_ever(
    idle: SqlIdle, stop: asyncio.Event, *, clock: Callable[[], datetime], told: Callable[[], Any]
) -> None:
    """Closes hours until `stop`."""
    while not stop.is_set():
        try:
            if await idle.close(clock()):
                told()
        except LedgerUnavailable as error:
            log.warning("cost.idle_waits", **describe(error))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _EVERY_SECONDS)
