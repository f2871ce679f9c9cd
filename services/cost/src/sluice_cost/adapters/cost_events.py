"""Tells the mesh of ledger entries: makes CostRecorded and relays the outbox to the kit's publisher."""

import asyncio
import contextlib
from collections.abc import Sequence
from decimal import Decimal

from prometheus_client import Counter
from sluice.events.v1 import cost_pb2
from sluice.types.v1 import money_pb2, usage_pb2
from sluice_kit.errors import SluiceError
from sluice_kit.process import describe
from sluice_kit.publisher import EventPublisher
from sluice_kit.telemetry import logger

from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.domain.ledger import LedgerEntry, LedgerUnavailable
from sluice_cost.domain.money import from_nano
from sluice_cost.domain.pricing import Charge, Priced
from sluice_cost.domain.usage import TOKEN_BUCKETS, Usage

log = logger(__name__)

HANDED_OVER = Counter("sluice_cost_events_handed_over_total", "CostRecorded events given to the publisher.")

_BATCH = 500
_IDLE_SECONDS = 1.0  # the relay is woken by every batch; this is for what a former process left

# Bucket in the event, field of Charge and Price, and the token count it is for.
_BUCKETS = tuple(
    (bucket.removeprefix("uncached_"), bucket, f"{bucket}_tokens")
    for bucket in (name.removesuffix("_tokens") for name in TOKEN_BUCKETS)
)


def cost_recorded(entry: LedgerEntry) -> cost_pb2.CostRecorded:
    """The event of an entry: the same bytes' meaning and the same id, however often it is made."""
    completion, charge = entry.completion, entry.charge
    event = cost_pb2.CostRecorded(
        source_event_id=completion.event_id,
        model=completion.model,
        served_model=completion.served_model,
        route=completion.route,
        api_key_id=completion.api_key_id,
        charge_kind=entry.charge_kind,
        unpriced=charge.priced is Priced.UNPRICED,
        usage=as_token_usage(completion.usage),
        price_book=charge.price.book if charge.price else "",
        price_version=charge.price.version if charge.price else 0,
        outcome=completion.outcome,
        lines=_lines(charge, completion.usage),
    )
    if charge.priced is not Priced.UNPRICED:
        event.amount.CopyFrom(as_money(charge.total, charge.currency))
    _fill_in_metadata(event, entry)
    return event


def _fill_in_metadata(event: cost_pb2.CostRecorded, entry: LedgerEntry) -> None:
    completion, metadata = entry.completion, event.metadata
    metadata.event_id = entry.cost_event_id
    metadata.occurred_at.FromDatetime(completion.occurred_at)  # when the cost arose, not when it was written down
    metadata.request_id = completion.request_id
    metadata.tenant_id = completion.tenant_id
    metadata.project_id = completion.project_id
    metadata.subject_id = completion.subject_id
    metadata.traceparent = completion.traceparent
    metadata.synthetic = completion.is_synthetic


def _lines(charge: Charge, usage: Usage) -> list[cost_pb2.CostLine]:
    if charge.price is None:
        return []
    lines = [
        _line(bucket, getattr(usage, tokens), getattr(charge.price, field), getattr(charge, field), charge.currency)
        for bucket, field, tokens in _BUCKETS
        if getattr(usage, tokens)
    ]
    if charge.per_request:
        lines.append(_line("request", 1, charge.price.per_request, charge.per_request, charge.currency))
    if charge.minimum_top_up:
        lines.append(_line("minimum", 1, charge.price.minimum, charge.minimum_top_up, charge.currency))
    return lines


def _line(bucket: str, quantity: int, unit_nano: int, amount_nano: int, currency: str) -> cost_pb2.CostLine:
    return cost_pb2.CostLine(
        bucket=bucket, quantity=quantity, unit_price=as_decimal_text(unit_nano), amount=as_money(amount_nano, currency)
    )


def as_money(nano_units: int, currency: str) -> money_pb2.Money:
    return money_pb2.Money(currency_code=currency, nano_units=nano_units)


def as_decimal_text(nano_units: int) -> str:
    """Nano-units as the shortest decimal of the currency's unit: 150000000 -> `0.15`."""
    amount = from_nano(nano_units)
    return "0" if amount == 0 else f"{amount.normalize() + Decimal(0):f}"


def as_token_usage(usage: Usage) -> usage_pb2.TokenUsage:
    buckets = {bucket: getattr(usage, bucket) for bucket in TOKEN_BUCKETS}
    return usage_pb2.TokenUsage(**buckets, estimated=usage.is_estimated)


def encode(entry: LedgerEntry) -> bytes:
    """What stands in the outbox."""
    return cost_recorded(entry).SerializeToString(deterministic=True)


class CostRelay:
    """Hands the outbox over to the publisher, oldest first, for ever."""

    def __init__(self, ledger: SqlLedger, publisher: EventPublisher) -> None:
        self._ledger, self._publisher = ledger, publisher
        self._appended = asyncio.Event()

    def wake(self) -> None:
        """There is something new."""
        self._appended.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Relays until `stop`; what is left stays in the outbox for the next start."""
        while not stop.is_set():
            self._appended.clear()
            if await self._hand_over() < _BATCH:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._appended.wait(), _IDLE_SECONDS)

    async def _hand_over(self) -> int:
        loop = asyncio.get_running_loop()

        def deliver(payloads: Sequence[bytes]) -> None:
            asyncio.run_coroutine_threadsafe(self._publish(payloads), loop).result(timeout=30)

        try:
            count = await self._ledger.hand_over(deliver, limit=_BATCH)
        except (LedgerUnavailable, SluiceError, TimeoutError) as error:
            log.warning("cost.relay_waits", **describe(error))
            return 0
        HANDED_OVER.inc(count)
        return count

    async def _publish(self, payloads: Sequence[bytes]) -> None:
        await self._publisher.publish(*(cost_pb2.CostRecorded.FromString(payload) for payload in payloads))
