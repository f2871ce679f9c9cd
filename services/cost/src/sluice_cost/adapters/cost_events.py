"""Tells the mesh of ledger entries: makes CostRecorded and relays the outbox to the kit's publisher."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from decimal import Decimal

from google.protobuf.message import Message
from prometheus_client import Counter
from sluice.events.v1 import alert_pb2, cost_pb2
from sluice.types.v1 import money_pb2, usage_pb2
from sluice_kit.errors import SluiceError
from sluice_kit.process import describe
from sluice_kit.publisher import EventPublisher
from sluice_kit.telemetry import logger

from sluice_cost.adapters.outbox import Telling
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.domain.ledger import LedgerEntry, LedgerUnavailable, Partition
from sluice_cost.domain.money import from_nano
from sluice_cost.domain.pricing import Charge, Priced
from sluice_cost.domain.usage import TOKEN_BUCKETS, Usage

log = logger(__name__)

HANDED_OVER = Counter("sluice_cost_events_handed_over_total", "Events of the outbox given to the publisher.")

_BATCH = 500
_IDLE_SECONDS = 1.0  # the relay is woken by every batch; this is for what a former process left

_EVENTS: Mapping[str, type[Message]] = {
    event.DESCRIPTOR.name: event for event in (cost_pb2.CostRecorded, cost_pb2.BudgetChanged, alert_pb2.AlertRaised)
}

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
        prompt_version=completion.prompt_version,
        experiment_arm=completion.experiment_arm,
        corrects_event_id=entry.corrects,
        approved_by=entry.approved_by,
        cpu_seconds=completion.usage.cpu_us / 1e6,
        accelerator_seconds=completion.usage.accelerator_us / 1e6,
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
    price = charge.price.for_input(usage.input_tokens)
    quantities = [
        *((bucket, getattr(usage, tokens), field, field) for bucket, field, tokens in _BUCKETS),
        ("request", int(charge.per_request != 0), "per_request", "per_request"),
        ("minimum", int(charge.minimum_top_up != 0), "minimum", "minimum_top_up"),
        ("cpu_microseconds", usage.cpu_us, "cpu_second", "cpu"),
        ("accelerator_microseconds", usage.accelerator_us, "accelerator_second", "accelerator"),
    ]
    return [
        _line(bucket, quantity, getattr(price, of_price), getattr(charge, of_charge), charge.currency)
        for bucket, quantity, of_price, of_charge in quantities
        if quantity or getattr(charge, of_charge)  # a correction has amounts without quantities
    ]


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


def chain_name(chain: Partition) -> str:
    """`topic/partition`."""
    return f"{chain.topic}/{chain.number}"


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

        def deliver(waiting: Sequence[Telling]) -> None:
            asyncio.run_coroutine_threadsafe(self._publish(waiting), loop).result(timeout=30)

        try:
            count = await self._ledger.hand_over(deliver, limit=_BATCH)
        except (LedgerUnavailable, SluiceError, TimeoutError) as error:
            log.warning("cost.relay_waits", **describe(error))
            return 0
        HANDED_OVER.inc(count)
        return count

    async def _publish(self, waiting: Sequence[Telling]) -> None:
        await self._publisher.publish(*(_EVENTS[one.event_type].FromString(one.payload) for one in waiting))
