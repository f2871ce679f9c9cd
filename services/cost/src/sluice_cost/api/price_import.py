"""The import of public price files, over gRPC."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import grpc
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_kit import context
from sluice_kit.errors import InvalidInput, PermissionDenied, Unavailable

from sluice_cost.api.prices import price_message
from sluice_cost.api.reading import moment
from sluice_cost.domain.ledger import LedgerUnavailable
from sluice_cost.domain.litellm_prices import PublicPrices, read_public_prices
from sluice_cost.domain.pricing import Price, PriceHistory, PriceStore


class PriceImportMethods:
    """ImportPrices."""

    _prices: PriceStore
    _clock: Callable[[], datetime]

    async def ImportPrices(
        self, request: pb.ImportPricesRequest, _: grpc.aio.ServicerContext
    ) -> pb.ImportPricesResponse:
        """Puts the prices of a part of a file that are new or changed, all or none."""
        if context.current().tenant_id:
            raise PermissionDenied("Prices are set by operators, not on behalf of a tenant.")
        now = self._clock()
        found, at = _read(request), _effective_from(request, now)
        try:
            history = await self._prices.prices()
            wanted = [
                Price(model, "USD", at, **amounts, book=request.book, approved_by=request.approved_by.strip())
                for model, amounts in found.amounts.items()
            ]
            changed = [price for price in wanted if not _is_in_force(price, history)]
            stored = changed if request.dry_run else await self._prices.put_all(changed, recorded_at=now)
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        return pb.ImportPricesResponse(
            imported=[_imported(price, history.find(price.model, at)) for price in stored],
            unchanged_models=sorted({price.model for price in wanted} - {price.model for price in changed}),
            left_out=[pb.LeftOutPrice(model=one.model, reason=one.reason) for one in found.left_out],
            ignored_fields=dict(found.ignored_fields),
        )


def _read(request: pb.ImportPricesRequest) -> PublicPrices:
    if not request.dry_run and not 0 < len(request.approved_by.strip()) <= 200:
        raise InvalidInput("Say who signs the prices off, in 1 to 200 characters.", field="approved_by")
    if not 0 < len(request.book) <= 401 or "\0" in request.book + request.approved_by:
        raise InvalidInput("Say where the prices come from, as id@version.", field="book")
    try:
        # Every number as the decimal that stands there: 1.5e-07 is not the double next to it.
        document = json.loads(request.document, parse_float=Decimal, parse_int=Decimal)
        return read_public_prices(document, providers=request.providers)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"This is no price file: {type(error).__name__}.", field="document") from None


def _effective_from(request: pb.ImportPricesRequest, now: datetime) -> datetime:
    at = moment(request.effective_from, "effective_from") if request.HasField("effective_from") else now
    if at < now.replace(second=0, microsecond=0) and request.HasField("effective_from"):
        raise InvalidInput("effective_from lies in the past: an import never reaches back.", field="effective_from")
    return at


def _is_in_force(price: Price, history: PriceHistory) -> bool:
    """The same amounts hold already, whoever signed them off."""
    there = history.find(price.model, price.effective_from)
    if there is None:
        return False
    signed_off = replace(price, book=there.book, approved_by=there.approved_by, effective_from=there.effective_from)
    return replace(signed_off, version=there.version, price_id=there.price_id) == there


def _imported(price: Price, before: Price | None) -> pb.ImportedPrice:
    return pb.ImportedPrice(price=price_message(price), before=price_message(before) if before else None)
