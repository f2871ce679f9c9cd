"""What was spent, over gRPC."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

import grpc
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.types.v1 import usage_pb2
from sluice_kit import context
from sluice_kit.errors import InvalidInput, PermissionDenied, Unavailable

from sluice_cost.adapters.cost_events import as_money
from sluice_cost.api.reading import moment
from sluice_cost.domain.ledger import LedgerUnavailable
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
    pb.SPEND_DIMENSION_SERVED_MODEL: Dimension.SERVED_MODEL,
    pb.SPEND_DIMENSION_PROMPT_VERSION: Dimension.PROMPT_VERSION,
    pb.SPEND_DIMENSION_EXPERIMENT_ARM: Dimension.EXPERIMENT_ARM,
    pb.SPEND_DIMENSION_OPERATION: Dimension.OPERATION,
    pb.SPEND_DIMENSION_HOUR: Dimension.HOUR,
}
_MOST_FILTER_VALUES = 1000
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class SpendMethods:
    """GetSpend."""

    _spend: SpendReader
    _clock: Callable[[], datetime]

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


def _query(request: pb.GetSpendRequest, *, tenant_id: str, now: datetime) -> SpendQuery:
    start = moment(getattr(request, "from"), "from") if request.HasField("from") else _BEGINNING
    # A clock that runs ahead of this one must not hide the newest entries.
    end = moment(request.until, "until") if request.HasField("until") else now + timedelta(hours=1)
    if start > end:
        raise InvalidInput("from must not be after until.", field="from")
    group_by = [_dimension(number, f"group_by[{i}]") for i, number in enumerate(request.group_by)]
    if len(set(group_by)) < len(group_by):
        raise InvalidInput("group_by names a dimension twice.", field="group_by")
    filters = chosen_filters(request.filters, tenant_id=tenant_id)
    return SpendQuery(start, end, filters, group_by, callers_only=is_of_callers(filters, group_by))


def is_of_callers(filters: Sequence[SpendFilter], group_by: Sequence[Dimension] = ()) -> bool:
    """Self-tests cost nothing, but their requests and tokens are nobody's, and what judges answers is no caller: only who asks for
    kinds of rows gets these."""
    return Dimension.CHARGE_KIND not in {*group_by, *(chosen.dimension for chosen in filters)}


def chosen_filters(filters: Sequence[pb.SpendFilter], *, tenant_id: str) -> list[SpendFilter]:
    """The filters of a request; a tenant's choose its own spend only. Raises InvalidInput and PermissionDenied."""
    return _for_tenant([_filter(chosen, f"filters[{i}]") for i, chosen in enumerate(filters)], tenant_id)


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
    if dimension is Dimension.HOUR:
        _check_hours(chosen.values, f"{field}.values")
    if any("\0" in value for value in chosen.values):
        raise InvalidInput("A filter value must not hold NUL.", field=f"{field}.values")
    return SpendFilter(dimension, list(chosen.values))


def _check_days(values: Sequence[str], field: str) -> None:
    try:
        for value in values:
            date.fromisoformat(value)
    except ValueError:
        raise InvalidInput("A day is written as 2026-11-24.", field=field) from None


def _check_hours(values: Sequence[str], field: str) -> None:
    try:
        for value in values:
            datetime.strptime(value, "%Y-%m-%dT%H").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidInput("An hour is written as 2026-11-24T13.", field=field) from None


def _dimension(number: int, field: str) -> Dimension:
    if number not in _DIMENSIONS:
        raise InvalidInput(f"{number} is no dimension of spend.", field=field)
    return _DIMENSIONS[number]  # type: ignore[index]


def _group(group: SpendGroup, spend: Spend) -> pb.SpendGroup:
    buckets = {bucket: getattr(spend, bucket) for bucket in TOKEN_BUCKETS}
    return pb.SpendGroup(
        values=group.values,
        amount=as_money(spend.amount_nano, group.currency),
        row_count=spend.row_count,
        request_count=spend.request_count,
        unpriced_request_count=spend.unpriced_request_count,
        usage=usage_pb2.TokenUsage(**buckets, estimated=spend.estimated_request_count > 0),
        cpu_seconds=spend.cpu_us / 1e6,
        accelerator_seconds=spend.accelerator_us / 1e6,
    )
