"""Writes the idle time of closed hours into the ledger, and again where late rows changed an hour."""

import asyncio
import contextlib
from collections.abc import Callable
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
from sluice_cost.domain.ledger import COMPUTE, CORRECTION, IDLE, LedgerEntry, LedgerUnavailable
from sluice_cost.domain.pricing import Price

log = logger(__name__)

LOOKING_BACK = timedelta(days=7)
_EVERY_SECONDS = 300.0


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
        """Hours of models with capacity whose sums are not what the capacity costs. Cheap: hourly sums only."""
        hours = closed_hours(now, lateness=self._lateness, looking_back=LOOKING_BACK)
        prices = read_prices(connection, default_currency=self._default_currency)
        models = prices.models_with_capacity()  # few of the thousands that an imported book has
        sums = _hour_sums(connection, hours[0]) if models else {}
        found = []
        for start in hours:
            for model in models:
                price = prices.find(model, start)
                capacity = capacity_of(price) if price else Seconds()
                spent = sums.get((to_microseconds(start), model), 0)
                if capacity != Seconds() and spent != capacity.cpu + capacity.accelerator:
                    found.append((start, model))
        return found

    def _closing(self, start: datetime, model: str, now: datetime) -> Callable[[Connection], list[LedgerEntry]]:
        def work(connection: Connection) -> list[LedgerEntry]:
            lock_heads(connection, [IDLE_CHAIN])  # before reading: another replica may close the same hour
            price: Price | None = read_prices(connection, default_currency=self._default_currency).find(model, start)
            assert price is not None
            entries = idle_entries(_model_hour(connection, start, model), price, recorded_at=now)
            new = insert_entries(connection, entries, self._encode)
            count_spent(connection, [posting_of(entry) for entry in new], self._terms, now=to_microseconds(now))
            return new

        return work


def _hour_sums(connection: Connection, first: datetime) -> dict[tuple[int, str], int]:
    hours = tables.spend_hours.c
    query = (
        select(hours.hour_us, hours.served_model, func.sum(hours.amount_nano))
        .where(hours.hour_us >= to_microseconds(first), hours.charge_kind.in_((COMPUTE, IDLE)))
        .group_by(hours.hour_us, hours.served_model)
    )
    return {(hour_us, model): int(amount) for hour_us, model, amount in connection.execute(query)}


def _model_hour(connection: Connection, start: datetime, model: str) -> ModelHour:
    ledger, first = tables.ledger.c, to_microseconds(start)
    query = (
        select(ledger.charge_kind, ledger.tenant_id, func.sum(ledger.cpu_nano), func.sum(ledger.accelerator_nano))
        .where(ledger.occurred_at_us >= first, ledger.occurred_at_us < first + HOUR_US, ledger.served_model == model)
        .where(ledger.charge_kind.in_((COMPUTE, CORRECTION, IDLE)))
        .group_by(ledger.charge_kind, ledger.tenant_id)
    )
    computed: dict[str, Seconds] = {}
    idle: dict[str, Seconds] = {}
    for kind, tenant, cpu, accelerator in connection.execute(query):
        of_kind = idle if kind == IDLE else computed
        of_kind[tenant] = of_kind.get(tenant, Seconds()) + Seconds(int(cpu), int(accelerator))
    used = {tenant: seconds for tenant, seconds in computed.items() if seconds != Seconds()}
    return ModelHour(model, start, used, idle)


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
