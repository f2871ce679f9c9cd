"""The price book, over gRPC."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_kit import context
from sluice_kit.errors import InvalidInput, PermissionDenied, Unavailable

from sluice_cost.adapters.cost_events import as_decimal_text
from sluice_cost.api.reading import moment
from sluice_cost.domain.ledger import LedgerUnavailable
from sluice_cost.domain.price_book import is_currency, read_amounts
from sluice_cost.domain.pricing import BUCKETS, Price, PriceStore, Tier

_PRICE_TEXTS = {
    "input_per_million": "uncached_input",
    "cached_input_per_million": "cached_input",
    "cache_write_per_million": "cache_write",
    "output_per_million": "output",
    "reasoning_per_million": "reasoning",
    "per_request": "per_request",
    "minimum": "minimum",
    "per_cpu_second": "cpu_second",
    "per_accelerator_second": "accelerator_second",
}
_CAPACITIES = {"cpus": "cpus_milli", "accelerators": "accelerators_milli"}
# For clocks that differ: `now` of a caller whose clock is behind is not the past.
_PUT_GRACE = timedelta(minutes=1)


class PriceMethods:
    """PutPrice and ListPrices."""

    _prices: PriceStore
    _clock: Callable[[], datetime]

    async def PutPrice(self, request: pb.PutPriceRequest, _: grpc.aio.ServicerContext) -> pb.PutPriceResponse:
        """Stores a new version of a model's price."""
        if context.current().tenant_id:
            raise PermissionDenied("Prices are set by operators, not on behalf of a tenant.")
        now = self._clock()
        price = _price(request.price, now=now)
        try:
            history = await self._prices.prices()
            reaches_back = history.newest_version(price.model) and price.effective_from < now - _PUT_GRACE
            if reaches_back and not request.puts_right_the_past:
                raise InvalidInput(
                    "effective_from lies in the past: what was charged is not charged anew. Leave it out for now, name a later time, "
                    "or set puts_right_the_past and then Recompute.",
                    field="price.effective_from",
                )
            stored = await self._prices.put(price, recorded_at=now)
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        return pb.PutPriceResponse(price=price_message(stored))

    async def ListPrices(self, request: pb.ListPricesRequest, _: grpc.aio.ServicerContext) -> pb.ListPricesResponse:
        """The prices in force at a moment."""
        at = moment(request.at, "at") if request.HasField("at") else self._clock()
        try:
            history = await self._prices.prices()
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        return pb.ListPricesResponse(prices=[price_message(price) for price in history.in_force(at)])


def _price(price: pb.Price, *, now: datetime) -> Price:
    written: dict[str, Any] = {
        name: getattr(price, name) for name in (*_PRICE_TEXTS, *_CAPACITIES) if getattr(price, name)
    }
    written["tiers"] = [_tier_as_written(tier) for tier in price.tiers]
    amounts, mistakes = read_amounts(written)
    if not 0 < len(price.model) <= 200 or "\0" in price.model:
        mistakes.append("model: must have 1 to 200 characters")
    if not 0 < len(price.approved_by.strip()) <= 200 or "\0" in price.approved_by:
        mistakes.append("approved_by: must have 1 to 200 characters")
    if not is_currency(price.currency_code):
        mistakes.append("currency_code: must be an ISO 4217 code such as USD")
    if mistakes:
        raise InvalidInput("price." + "; price.".join(mistakes) + ".", field="price." + mistakes[0].split(":")[0])
    effective_from = moment(price.effective_from, "price.effective_from") if price.HasField("effective_from") else now
    return Price(
        price.model, price.currency_code, effective_from, **amounts, book="api", approved_by=price.approved_by.strip()
    )


def _tier_as_written(tier: pb.PriceTier) -> dict[str, Any]:
    return {field.name: value for field, value in tier.ListFields()}


def _tier_message(tier: Tier) -> pb.PriceTier:
    texts: dict[str, Any] = {
        name: as_decimal_text(getattr(tier, field)) for name, field in _PRICE_TEXTS.items() if field in BUCKETS
    }
    return pb.PriceTier(above_input_tokens=tier.above_input_tokens, **texts)


def price_message(price: Price) -> pb.Price:
    texts: dict[str, Any] = {name: as_decimal_text(getattr(price, field)) for name, field in _PRICE_TEXTS.items()}
    message = pb.Price(
        model=price.model,
        version=price.version,
        currency_code=price.currency,
        approved_by=price.approved_by,
        tiers=[_tier_message(tier) for tier in price.tiers],
        **texts,
        **_capacity_texts(price),
    )
    message.effective_from.FromDatetime(price.effective_from)
    return message


def _capacity_texts(price: Price) -> dict[str, Any]:
    known = {name: Decimal(getattr(price, field)) / 1000 for name, field in _CAPACITIES.items()}
    return {name: f"{count.normalize() + Decimal(0):f}" for name, count in known.items() if count}
