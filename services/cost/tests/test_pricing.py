"""What a request costs."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_cost.domain.money import divide_half_even, from_nano, to_nano
from sluice_cost.domain.price_book import LARGEST_SECOND_PRICE
from sluice_cost.domain.pricing import Charge, Price, Priced, PriceHistory, Tier, charge
from sluice_cost.domain.usage import LARGEST_TOKEN_COUNT, LONGEST_COMPUTE_US, TOKEN_BUCKETS, AbsurdUsage, Usage

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

tokens = st.integers(0, LARGEST_TOKEN_COUNT)
usages = st.builds(Usage, tokens, tokens, tokens, tokens, tokens)
amounts = st.integers(0, 100_000 * 10**9)
prices = st.builds(
    Price,
    st.just("small"),
    st.just("USD"),
    st.just(NOON),
    amounts,
    amounts,
    amounts,
    amounts,
    amounts,
    amounts,
    amounts,
)
LINES = tuple(field.name for field in fields(Charge) if field.name not in ("priced", "currency", "price"))


def charged(usage: Usage, price: Price | None, **options: Any) -> Charge:
    return charge(usage, price, **{"is_synthetic": False, "currency": "EUR", **options})


@pytest.mark.parametrize(
    ("usage", "changes", "nano"),
    [
        (Usage(uncached_input_tokens=1), {}, 2_000),
        (Usage(cached_input_tokens=1), {}, 1_000),
        (Usage(cache_write_tokens=1), {}, 3_000),
        (Usage(output_tokens=1), {}, 5_000),
        (Usage(reasoning_tokens=1), {}, 7_000),
        (Usage(1, 1, 1, 1, 1), {}, 18_000),
        (Usage(uncached_input_tokens=1_000_000), {}, 2_000_000_000),
        (Usage(output_tokens=1), {"per_request": 11}, 5_011),
        (Usage(output_tokens=1), {"minimum": 9_000}, 9_000),
        (Usage(output_tokens=2), {"minimum": 9_000}, 10_000),
        (Usage(output_tokens=1), {"per_request": 11, "minimum": 9_000}, 9_000),
        (Usage(), {"per_request": 11, "minimum": 9_000}, 0),
        # A price of 1 nano-unit per token and a half: halves go to the even neighbour.
        (Usage(output_tokens=1), {"output": 1_500_000}, 2),
        (Usage(output_tokens=1), {"output": 2_500_000}, 2),
        (Usage(output_tokens=1), {"output": 2_500_001}, 3),
        (Usage(output_tokens=1), {"output": 499_999}, 0),
        # Rounded once a line, not once a token.
        (Usage(output_tokens=1_000), {"output": 499_999}, 500),
    ],
)
def test_a_request_costs_its_tokens_at_the_price_of_each_bucket(
    usage: Usage, changes: dict[str, int], nano: int, make_price: Callable[..., Price]
) -> None:
    result = charged(usage, make_price(**changes))
    assert result.total == nano
    assert result.currency == "USD" if usage.total_tokens else "EUR"


def test_the_worked_example_of_the_readme_is_true(make_price: Callable[..., Price]) -> None:
    price = make_price(uncached_input=to_nano(Decimal("0.05")), cached_input=to_nano(Decimal("0.01")))
    price = replace(price, output=to_nano(Decimal("0.20")))
    usage = Usage(uncached_input_tokens=120, cached_input_tokens=30, output_tokens=45)
    result = charged(usage, price)
    assert (result.uncached_input, result.cached_input, result.output) == (6_000, 300, 9_000)
    assert from_nano(result.total) == Decimal("0.0000153")


def test_an_unknown_price_is_told_and_is_not_a_price_of_nothing() -> None:
    assert charged(Usage(output_tokens=5), None).priced is Priced.UNPRICED


def test_a_request_that_used_nothing_costs_nothing_even_without_a_price() -> None:
    assert charged(Usage(), None).priced is Priced.NO_USAGE


def test_a_self_test_is_not_charged(make_price: Callable[..., Price]) -> None:
    result = charged(Usage(output_tokens=5), make_price(per_request=7), is_synthetic=True)
    assert (result.priced, result.total) == (Priced.SYNTHETIC, 0)


@pytest.mark.parametrize("count", [-1, LARGEST_TOKEN_COUNT + 1, 2**63])
def test_token_counts_that_no_request_has_are_refused(count: int) -> None:
    with pytest.raises(AbsurdUsage, match="output_tokens"):
        Usage(output_tokens=count)


@given(usages, prices)
def test_the_total_is_the_sum_of_the_lines(usage: Usage, price: Price) -> None:
    result = charged(usage, price)
    assert result.total == sum(getattr(result, line) for line in LINES)


@given(usages, prices, st.sampled_from(TOKEN_BUCKETS), tokens)
def test_more_tokens_never_cost_less(usage: Usage, price: Price, bucket: str, more: int) -> None:
    larger = replace(usage, **{bucket: min(getattr(usage, bucket) + more, LARGEST_TOKEN_COUNT)})
    assert charged(larger, price).total >= charged(usage, price).total


@given(usages, prices)
def test_a_request_that_used_tokens_costs_the_minimum_at_least(usage: Usage, price: Price) -> None:
    result = charged(usage, price)
    assert result.total >= (price.minimum if usage.total_tokens else 0)


@given(tokens, tokens, amounts)
def test_splitting_a_bucket_over_two_requests_moves_the_cost_by_rounding_only(a: int, b: int, output: int) -> None:
    def cost(count: int) -> int:
        price = Price("small", "USD", NOON, 0, 0, 0, output, 0)
        return charged(Usage(output_tokens=count), price).total

    if a + b <= LARGEST_TOKEN_COUNT:
        assert abs(cost(a) + cost(b) - cost(a + b)) <= 1


@given(usages, prices)
def test_every_charge_fits_a_64_bit_column(usage: Usage, price: Price) -> None:
    assert all(0 <= getattr(charged(usage, price), line) < 2**63 for line in LINES)


def test_the_dearest_second_for_the_longest_time_fits_a_64_bit_column(make_price: Callable[..., Price]) -> None:
    dearest = to_nano(LARGEST_SECOND_PRICE)
    usage = Usage(cpu_us=LONGEST_COMPUTE_US, accelerator_us=LONGEST_COMPUTE_US)
    assert charged(usage, make_price(cpu_second=dearest, accelerator_second=dearest)).total < 2**63


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**9))
def test_division_rounds_as_decimal_half_even_does(numerator: int, denominator: int) -> None:
    with localcontext(prec=80):
        exact = Decimal(numerator) / Decimal(denominator)
        assert divide_half_even(numerator, denominator) == int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))


def test_the_price_in_force_is_the_newest_that_has_begun(make_price: Callable[..., Price]) -> None:
    old = make_price(effective_from=NOON, version=1, output=1)
    new = make_price(effective_from=NOON + timedelta(hours=1), version=2, output=2)
    put_right = make_price(effective_from=NOON + timedelta(hours=1), version=3, output=3)
    history = PriceHistory([put_right, new, old], default_currency="USD")
    assert history.find("small", NOON - timedelta(microseconds=1)) is None
    assert history.find("small", NOON) == old
    assert history.find("small", NOON + timedelta(hours=2)) == put_right
    assert history.find("other", NOON) is None
    assert history.in_force(NOON) == [old]
    assert history.newest_version("small") == 3


TIER = Tier(1_000, 4_000_000_000, 2_000_000_000, 6_000_000_000, 10_000_000_000, 14_000_000_000)


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(uncached_input_tokens=1_000), 2_000_000),
        (Usage(uncached_input_tokens=1_001), 4_004_000),
        (Usage(uncached_input_tokens=1, cached_input_tokens=999, cache_write_tokens=1, output_tokens=1), 2_018_000),
        (Usage(output_tokens=5_000), 25_000_000),
    ],
)
def test_a_tier_holds_for_the_whole_request_once_its_input_is_longer(
    usage: Usage, nano: int, make_price: Callable[..., Price]
) -> None:
    assert charged(usage, make_price(tiers=(TIER,))).total == nano


def test_the_dearest_of_a_price_bounds_every_tier(make_price: Callable[..., Price]) -> None:
    price = make_price(tiers=(replace(TIER, output=1),))
    assert (price.dearest().output, price.dearest().uncached_input) == (5_000_000_000, 4_000_000_000)


def test_seconds_cost_what_a_second_costs_and_no_price_of_a_request(make_price: Callable[..., Price]) -> None:
    price = make_price(cpu_second=3, accelerator_second=2_000, per_request=7, minimum=10**9)
    result = charged(Usage(cpu_us=500_000, accelerator_us=1_500_000), price)
    assert (result.cpu, result.accelerator, result.total) == (2, 3_000, 3_002)  # one and a half goes to the even two


def test_a_deployment_s_own_price_comes_before_the_model_s_and_that_before_the_alias_s(
    make_price: Callable[..., Price],
) -> None:
    prices_ = [make_price(name) for name in ("route:alias/here", "small", "alias")]
    history = PriceHistory(prices_, default_currency="USD")

    def found(**call: str) -> str:
        price = history.for_call(**{"route": "", "served_model": "", "model": "alias", "at": NOON, **call})  # type: ignore[arg-type]
        return price.model if price else ""

    assert found(route="alias/here", served_model="small") == "route:alias/here"
    assert found(route="alias/there", served_model="small") == "small"
    assert found(served_model="other") == "alias"
    assert found(model="other") == ""
