"""CostService over real gRPC."""

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.cost.v1 import cost_service_pb2 as pb

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ACME = (("x-sluice-tenant-id", "acme"),)


def moment(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


async def test_spend_tells_sums_and_how_complete_they_are(stub: Any) -> None:
    answer = await stub.GetSpend(
        pb.GetSpendRequest(group_by=[pb.SPEND_DIMENSION_TENANT, pb.SPEND_DIMENSION_CHARGE_KIND])
    )
    groups = {tuple(group.values): group for group in answer.groups}
    assert set(groups) == {("acme", "inference"), ("umbrella", "inference"), ("acme", "synthetic")}
    acme = groups["acme", "inference"]
    assert (acme.amount.currency_code, acme.amount.nano_units) == ("USD", 40_000)
    assert (acme.request_count, acme.row_count, acme.unpriced_request_count) == (2, 2, 1)
    assert (acme.usage.uncached_input_tokens, acme.usage.output_tokens) == (20, 8)
    assert groups["acme", "synthetic"].amount.nano_units == 0
    (position,) = answer.complete_up_to
    assert (position.topic, position.partition, position.next_offset) == ("t", 1, 9)


async def test_self_tests_are_in_no_sum_of_those_who_do_not_ask_for_kinds_of_rows(stub: Any) -> None:
    by_tenant = await stub.GetSpend(pb.GetSpendRequest(group_by=[pb.SPEND_DIMENSION_TENANT]))
    by_tenant_and_kind = await stub.GetSpend(
        pb.GetSpendRequest(group_by=[pb.SPEND_DIMENSION_TENANT, pb.SPEND_DIMENSION_CHARGE_KIND])
    )
    counted = {group.values[0]: (group.request_count, group.usage) for group in by_tenant.groups}
    people = [group for group in by_tenant_and_kind.groups if group.values[1] != "synthetic"]
    assert counted == {group.values[0]: (group.request_count, group.usage) for group in people}
    chosen = pb.SpendFilter(dimension=pb.SPEND_DIMENSION_CHARGE_KIND, values=["synthetic"])
    assert [group.request_count for group in (await stub.GetSpend(pb.GetSpendRequest(filters=[chosen]))).groups] == [1]


async def test_a_tenant_sees_its_own_spend_only(stub: Any) -> None:
    answer = await stub.GetSpend(pb.GetSpendRequest(group_by=[pb.SPEND_DIMENSION_TENANT]), metadata=ACME)
    assert [list(group.values) for group in answer.groups] == [["acme"]]
    others = pb.SpendFilter(dimension=pb.SPEND_DIMENSION_TENANT, values=["umbrella"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSpend(pb.GetSpendRequest(filters=[others]), metadata=ACME)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_range_without_requests_has_no_groups(stub: Any) -> None:
    answer = await stub.GetSpend(pb.GetSpendRequest(until=moment(NOON - timedelta(hours=1))))
    assert not answer.groups


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GetSpendRequest(group_by=[pb.SPEND_DIMENSION_UNSPECIFIED]), "group_by[0]"),
        (pb.GetSpendRequest(group_by=[77]), "group_by[0]"),  # type: ignore[list-item]
        (pb.GetSpendRequest(group_by=[pb.SPEND_DIMENSION_DAY] * 2), "group_by"),
        (pb.GetSpendRequest(filters=[pb.SpendFilter(dimension=pb.SPEND_DIMENSION_MODEL)]), "filters[0].values"),
        (
            pb.GetSpendRequest(filters=[pb.SpendFilter(dimension=pb.SPEND_DIMENSION_DAY, values=["today"])]),
            "filters[0].values",
        ),
        (
            pb.GetSpendRequest(filters=[pb.SpendFilter(dimension=pb.SPEND_DIMENSION_MODEL, values=["\0"])]),
            "filters[0].values",
        ),
        (pb.GetSpendRequest(until=Timestamp(seconds=10**15)), "until"),
        (pb.GetSpendRequest(**{"from": moment(NOON)}, until=moment(NOON - timedelta(1))), "from"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_with_the_field(stub: Any, request_: Any, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSpend(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field.encode() in dict(caught.value.trailing_metadata())["grpc-status-details-bin"]


def new_price(**changes: Any) -> pb.PutPriceRequest:
    texts = {
        "model": "large",
        "currency_code": "USD",
        "approved_by": "me",
        "input_per_million": "3",
        "output_per_million": "15",
    }
    return pb.PutPriceRequest(price=pb.Price(**{**texts, **changes}))


async def test_a_price_that_was_put_is_listed_with_all_it_stands_for(stub: Any) -> None:
    put = (await stub.PutPrice(new_price(per_request="0.001", minimum="0"))).price
    assert (put.version, put.cached_input_per_million, put.reasoning_per_million) == (1, "3", "15")
    listed = (await stub.ListPrices(pb.ListPricesRequest())).prices
    assert [price.model for price in listed] == ["large", "small"]
    assert listed[0] == put
    assert listed[0].per_request == "0.001"
    before = await stub.ListPrices(pb.ListPricesRequest(at=moment(NOON - timedelta(days=1))))
    assert [price.model for price in before.prices] == ["small"]


async def test_a_second_price_is_a_new_version_and_does_not_reach_back(stub: Any) -> None:
    await stub.PutPrice(new_price())
    assert (await stub.PutPrice(new_price(output_per_million="16"))).price.version == 2
    with pytest.raises(grpc.aio.AioRpcError, match="not charged anew") as caught:
        await stub.PutPrice(new_price(effective_from=moment(NOON - timedelta(days=1))))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_every_mistake_in_a_price_is_named(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.PutPrice(
            new_price(input_per_million="cheap", output_per_million="", approved_by=" ", currency_code="$")
        )
    message = caught.value.details() or ""
    for name in ("input_per_million", "output_per_million", "approved_by", "currency_code"):
        assert f"price.{name}:" in message


async def test_a_tenant_can_not_set_prices(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.PutPrice(new_price(), metadata=ACME)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
