"""Prices come in from the public LiteLLM file exactly, or are named as left out."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import grpc
import pytest
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_cost.domain.litellm_prices import read_public_prices

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TEXT = """{
  "sample_spec": {"input_cost_per_token": "explains the fields", "mode": "one of: chat, embedding"},
  "small": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07, "cache_read_input_token_cost": 7.5e-08,
            "input_cost_per_token_batches": 7.5e-08, "litellm_provider": "one", "mode": "chat"},
  "long": {"input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05, "cache_creation_input_token_cost": 3.75e-06,
           "input_cost_per_token_above_200k_tokens": 2.5e-06, "output_cost_per_token_above_200k_tokens": 1.5e-05,
           "output_cost_per_reasoning_token": 2e-05, "input_cost_per_request": 0.005,
           "output_cost_per_token_above_200k_tokens_priority": 2.7e-05, "litellm_provider": "two", "mode": "chat"},
  "vectors": {"input_cost_per_token": 2e-08, "litellm_provider": "one", "mode": "embedding"}
}"""


def read(text: str, **options: Any) -> Any:
    return read_public_prices(json.loads(text, parse_float=Decimal, parse_int=Decimal), **options)


def test_numbers_are_taken_as_the_decimals_that_stand_there() -> None:
    found = read(TEXT)
    assert sorted(found.amounts) == ["long", "small", "vectors"]
    small = found.amounts["small"]
    assert (small["uncached_input"], small["cached_input"], small["output"]) == (150_000_000, 75_000_000, 600_000_000)
    assert (small["cache_write"], small["reasoning"]) == (150_000_000, 600_000_000)
    assert (found.amounts["vectors"]["uncached_input"], found.amounts["vectors"]["output"]) == (20_000_000, 0)
    assert found.left_out == []


def test_a_tier_takes_what_it_does_not_say_from_below() -> None:
    long = read(TEXT).amounts["long"]
    (tier,) = long["tiers"]
    assert (tier.above_input_tokens, tier.uncached_input, tier.output) == (200_000, 2_500_000_000, 15_000_000_000)
    assert (tier.cache_write, tier.reasoning) == (3_750_000_000, 20_000_000_000)
    assert tier.cached_input == 2_500_000_000  # nowhere said: the tier's own input
    assert long["per_request"] == 5_000_000


def test_prices_of_other_usage_are_counted() -> None:
    assert dict(read(TEXT).ignored_fields) == {
        "input_cost_per_token_batches": 1,
        "output_cost_per_token_above_200k_tokens_priority": 1,
    }


def test_only_the_chosen_providers_are_read() -> None:
    assert sorted(read(TEXT, providers=["two"]).amounts) == ["long"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"input_cost_per_token": 0.1}, "its mode is None"),
        ({"mode": "image_generation", "output_cost_per_image": 1}, "its mode is image_generation"),
        ({"mode": "chat", "tiered_pricing": []}, "tiered_pricing"),
        ({"mode": "chat", "input_cost_per_second": 0.001}, "by the second of the call"),
        ({"mode": "chat", "output_cost_per_token": 1e-6}, "no price per token"),
        ({"mode": "chat", "input_cost_per_token": 1e-6}, "no price per output token"),
        ({"mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0}, "costs 0"),
        (
            {"mode": "chat", "input_cost_per_token": 3.0001999999999996e-07, "output_cost_per_token": 1},
            "is not rounded",
        ),
        ({"mode": "chat", "input_cost_per_token": "1e-6", "output_cost_per_token": 1}, "is not a number"),
        ({"mode": "chat", "input_cost_per_token": -1, "output_cost_per_token": 1}, "must be 0 or more"),
        ("cheap", "not an object"),
    ],
)
def test_what_can_not_be_said_in_this_book_is_left_out_with_its_reason(entry: Any, reason: str) -> None:
    found = read(json.dumps({"model": entry}))
    assert found.amounts == {}
    assert [one.model for one in found.left_out] == ["model"]
    assert reason in found.left_out[0].reason


def request(**changes: Any) -> pb.ImportPricesRequest:
    return pb.ImportPricesRequest(**{"document": TEXT.encode(), "book": "litellm@abc", "approved_by": "Ada", **changes})


async def test_an_import_puts_what_is_new_once(stub: Any) -> None:
    plan = await stub.ImportPrices(request(dry_run=True, approved_by=""))
    assert sorted(one.price.model for one in plan.imported) == ["long", "small", "vectors"]
    assert {one.price.model for one in plan.imported if one.HasField("before")} == {"small"}
    assert [p.model for p in (await stub.ListPrices(pb.ListPricesRequest())).prices] == ["small"]
    done = await stub.ImportPrices(request())
    assert len(done.imported) == 3
    listed = {price.model: price for price in (await stub.ListPrices(pb.ListPricesRequest())).prices}
    assert (listed["small"].version, listed["small"].input_per_million) == (2, "0.15")
    assert [(tier.above_input_tokens, tier.input_per_million) for tier in listed["long"].tiers] == [(200_000, "2.5")]
    again = await stub.ImportPrices(request(book="litellm@later"))
    assert (list(again.imported), again.unchanged_models) == ([], ["long", "small", "vectors"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"document": b"{"}, "no price file"),
        ({"document": b"[]"}, "no price file"),
        ({"document": b"\xff"}, "no price file"),
        ({"approved_by": " "}, "Say who signs"),
        ({"book": ""}, "id@version"),
    ],
)
async def test_what_can_not_be_imported_is_refused(stub: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
        await stub.ImportPrices(request(**changes))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_tenant_imports_nothing(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ImportPrices(request(), metadata=(("x-sluice-tenant-id", "acme"),))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
