"""CostService over gRPC: proto <-> domain.

Called from inside the mesh only. A call with `x-sluice-tenant-id` in its metadata acts for that tenant and sees its
spend alone; a call without one is an operator's.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.cost.v1 import cost_service_pb2_grpc as pb_grpc
from sluice.types.v1 import usage_pb2
from sluice_kit import context
from sluice_kit.errors import InvalidInput, PermissionDenied, Unavailable, Unimplemented

from sluice_cost.adapters.cost_events import as_decimal_text, as_money
from sluice_cost.domain.ledger import LedgerUnavailable
from sluice_cost.domain.price_book import is_currency, read_amounts
from sluice_cost.domain.pricing import Price, PriceStore
from sluice_cost.domain.spend import (
    MOST_GROUPS,
    Dimension,
    Spend,
    SpendFilter,
    SpendGroup,
    SpendQuery,
    SpendReader,
    TooManyGroups,
)
from sluice_cost.domain.usage import TOKEN_BUCKETS

_DIMENSIONS = {
    pb.SPEND_DIMENSION_TENANT: Dimension.TENANT,
    pb.SPEND_DIMENSION_PROJECT: Dimension.PROJECT,
    pb.SPEND_DIMENSION_MODEL: Dimension.MODEL,
    pb.SPEND_DIMENSION_API_KEY: Dimension.API_KEY,
    pb.SPEND_DIMENSION_SUBJECT: Dimension.SUBJECT,
    pb.SPEND_DIMENSION_DAY: Dimension.DAY,
    pb.SPEND_DIMENSION_ROUTE: Dimension.ROUTE,
    pb.SPEND_DIMENSION_CHARGE_KIND: Dimension.CHARGE_KIND,
    pb.SPEND_DIMENSION_OUTCOME: Dimension.OUTCOME,
}
_PRICE_TEXTS = {
    "input_per_million": "uncached_input",
    "cached_input_per_million": "cached_input",
    "cache_write_per_million": "cache_write",
    "output_per_million": "output",
    "reasoning_per_million": "reasoning",
    "per_request": "per_request",
    "minimum": "minimum",
}
_MOST_FILTER_VALUES = 1000
# For clocks that differ: `now` of a caller whose clock is behind is not the past.
_PUT_GRACE = timedelta(minutes=1)
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class CostServicer(pb_grpc.CostServiceServicer):
    """Spend and prices. Holds, budgets and the FOCUS export are not served yet."""

    def __init__(self, *, spend: SpendReader, prices: PriceStore, clock: Callable[[], datetime]) -> None:
        self._spend, self._prices, self._clock = spend, prices, clock

    async def GetSpend(self, request: pb.GetSpendRequest, _: grpc.aio.ServicerContext) -> pb.GetSpendResponse:
        """Sums the ledger."""
        query = _query(request, tenant_id=context.current().tenant_id, now=self._clock())
        try:
            report = await self._spend.spend(query)
        except TooManyGroups:
            raise InvalidInput(
                f"The answer has more than {MOST_GROUPS} groups; choose a shorter range, more filters or fewer dimensions.",
                field="group_by",
            ) from None
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        return pb.GetSpendResponse(
            groups=[_group(group, spend) for group, spend in report.groups],
            complete_up_to=[
                pb.LedgerPosition(topic=partition.topic, partition=partition.number, next_offset=offset)
                for partition, offset in sorted(report.complete_up_to.items(), key=lambda item: item[0].number)
            ],
        )

    async def PutPrice(self, request: pb.PutPriceRequest, _: grpc.aio.ServicerContext) -> pb.PutPriceResponse:
        """Stores a new version of a model's price."""
        if context.current().tenant_id:
            raise PermissionDenied("Prices are set by operators, not on behalf of a tenant.")
        now = self._clock()
        price = _price(request.price, now=now)
        try:
            history = await self._prices.prices()
            if history.newest_version(price.model) and price.effective_from < now - _PUT_GRACE:
                raise InvalidInput(
                    "effective_from lies in the past: what was charged is not charged anew. Leave it out for now, or name a later time.",
                    field="price.effective_from",
                )
            stored = await self._prices.put(price, recorded_at=now)
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        return pb.PutPriceResponse(price=_price_message(stored))

    async def ListPrices(self, request: pb.ListPricesRequest, _: grpc.aio.ServicerContext) -> pb.ListPricesResponse:
        """The prices in force at a moment."""
        at = _moment(request.at, "at") if request.HasField("at") else self._clock()
        try:
            history = await self._prices.prices()
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        return pb.ListPricesResponse(prices=[_price_message(price) for price in history.in_force(at)])

    async def Reserve(self, request: pb.ReserveRequest, _: grpc.aio.ServicerContext) -> pb.ReserveResponse:
        raise _not_yet("Reserve")

    async def Settle(self, request: pb.SettleRequest, _: grpc.aio.ServicerContext) -> pb.SettleResponse:
        raise _not_yet("Settle")

    async def Extend(self, request: pb.ExtendRequest, _: grpc.aio.ServicerContext) -> pb.ExtendResponse:
        raise _not_yet("Extend")

    async def AcquireLease(
        self, request: pb.AcquireLeaseRequest, _: grpc.aio.ServicerContext
    ) -> pb.AcquireLeaseResponse:
        raise _not_yet("AcquireLease")

    async def ReturnLease(self, request: pb.ReturnLeaseRequest, _: grpc.aio.ServicerContext) -> pb.ReturnLeaseResponse:
        raise _not_yet("ReturnLease")

    async def PutBudget(self, request: pb.PutBudgetRequest, _: grpc.aio.ServicerContext) -> pb.PutBudgetResponse:
        raise _not_yet("PutBudget")

    async def ListBudgets(self, request: pb.ListBudgetsRequest, _: grpc.aio.ServicerContext) -> pb.ListBudgetsResponse:
        raise _not_yet("ListBudgets")

    async def GetBudget(self, request: pb.GetBudgetRequest, _: grpc.aio.ServicerContext) -> pb.GetBudgetResponse:
        raise _not_yet("GetBudget")

    async def ExportFocus(self, request: pb.ExportFocusRequest, _: grpc.aio.ServicerContext) -> Any:
        raise _not_yet("ExportFocus")
        yield  # a stream, though an empty one


def _not_yet(rpc: str) -> Unimplemented:
    return Unimplemented(
        f"{rpc} is not served yet: this version keeps prices and the ledger, but no budgets, holds or exports."
    )


def _query(request: pb.GetSpendRequest, *, tenant_id: str, now: datetime) -> SpendQuery:
    start = _moment(getattr(request, "from"), "from") if request.HasField("from") else _BEGINNING
    # A clock that runs ahead of this one must not hide the newest entries.
    end = _moment(request.until, "until") if request.HasField("until") else now + timedelta(hours=1)
    if start > end:
        raise InvalidInput("from must not be after until.", field="from")
    group_by = [_dimension(number, f"group_by[{i}]") for i, number in enumerate(request.group_by)]
    if len(set(group_by)) < len(group_by):
        raise InvalidInput("group_by names a dimension twice.", field="group_by")
    filters = [_filter(chosen, f"filters[{i}]") for i, chosen in enumerate(request.filters)]
    return SpendQuery(start, end, _for_tenant(filters, tenant_id), group_by)


def _for_tenant(filters: list[SpendFilter], tenant_id: str) -> list[SpendFilter]:
    if not tenant_id:
        return filters
    if any(f.dimension is Dimension.TENANT and set(f.values) != {tenant_id} for f in filters):
        raise PermissionDenied("A tenant sees its own spend only.")
    return [*filters, SpendFilter(Dimension.TENANT, [tenant_id])]


def _filter(chosen: pb.SpendFilter, field: str) -> SpendFilter:
    dimension = _dimension(chosen.dimension, f"{field}.dimension")
    if not 1 <= len(chosen.values) <= _MOST_FILTER_VALUES:
        raise InvalidInput(f"A filter takes 1 to {_MOST_FILTER_VALUES} values.", field=f"{field}.values")
    if dimension is Dimension.DAY:
        _check_days(chosen.values, f"{field}.values")
    if any("\0" in value for value in chosen.values):
        raise InvalidInput("A filter value must not hold NUL.", field=f"{field}.values")
    return SpendFilter(dimension, list(chosen.values))


def _check_days(values: Sequence[str], field: str) -> None:
    try:
        for value in values:
            date.fromisoformat(value)
    except ValueError:
        raise InvalidInput("A day is written as 2026-11-24.", field=field) from None


def _dimension(number: int, field: str) -> Dimension:
    if number not in _DIMENSIONS:
        raise InvalidInput(f"{number} is no dimension of spend.", field=field)
    return _DIMENSIONS[number]  # type: ignore[index]


def _moment(timestamp: Timestamp, field: str) -> datetime:
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput("The time is out of range.", field=field) from None


def _group(group: SpendGroup, spend: Spend) -> pb.SpendGroup:
    buckets = {bucket: getattr(spend, bucket) for bucket in TOKEN_BUCKETS}
    return pb.SpendGroup(
        values=group.values,
        amount=as_money(spend.amount_nano, group.currency),
        row_count=spend.row_count,
        request_count=spend.request_count,
        unpriced_request_count=spend.unpriced_request_count,
        usage=usage_pb2.TokenUsage(**buckets, estimated=spend.estimated_request_count > 0),
    )


def _price(price: pb.Price, *, now: datetime) -> Price:
    written = {name: getattr(price, name) for name in _PRICE_TEXTS if getattr(price, name)}
    amounts, mistakes = read_amounts(written)
    if not 0 < len(price.model) <= 200 or "\0" in price.model:
        mistakes.append("model: must have 1 to 200 characters")
    if not 0 < len(price.approved_by.strip()) <= 200 or "\0" in price.approved_by:
        mistakes.append("approved_by: must have 1 to 200 characters")
    if not is_currency(price.currency_code):
        mistakes.append("currency_code: must be an ISO 4217 code such as USD")
    if mistakes:
        raise InvalidInput("price." + "; price.".join(mistakes) + ".", field="price." + mistakes[0].split(":")[0])
    effective_from = _moment(price.effective_from, "price.effective_from") if price.HasField("effective_from") else now
    return Price(
        price.model, price.currency_code, effective_from, **amounts, book="api", approved_by=price.approved_by.strip()
    )


def _price_message(price: Price) -> pb.Price:
    texts: dict[str, Any] = {name: as_decimal_text(getattr(price, field)) for name, field in _PRICE_TEXTS.items()}
    message = pb.Price(
        model=price.model,
        version=price.version,
        currency_code=price.currency,
        approved_by=price.approved_by,
        **texts,
    )
    message.effective_from.FromDatetime(price.effective_from)
    return message
