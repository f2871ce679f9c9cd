"""A worst case is a bound: nothing that the ledger can charge for so many tokens is more."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sluice_cost.domain.pricing import Price, PriceHistory, charge
from sluice_cost.domain.usage import Usage
from sluice_cost.domain.worst_case import PricesOfSeveralCurrencies, dearest_price, most_output_tokens, worst_case

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
AMOUNTS = ("uncached_input", "cached_input", "cache_write", "output", "reasoning", "per_request", "minimum")
amounts = st.integers(0, 10_000_000_000) | st.sampled_from([0, 1, 500_000, 1_500_000, 1_000_000])


def price(model: str = "small", **changes: Any) -> Price:
    values = dict.fromkeys(AMOUNTS, 1_000_000)
    return Price(**{"model": model, "currency": "USD", "effective_from": NOON, **values, **changes})


prices = st.fixed_dictionaries(dict.fromkeys(AMOUNTS, amounts)).map(lambda chosen: price(**chosen))
counts = st.integers(0, 5000)


@given(price=prices, inputs=st.tuples(counts, counts, counts), outputs=st.tuples(counts, counts))
def test_no_split_of_the_tokens_over_the_buckets_costs_more_than_the_worst_case(
    price: Price, inputs: tuple[int, int, int], outputs: tuple[int, int]
) -> None:
    cost = charge(Usage(*inputs, *outputs), price, is_synthetic=False, currency="USD").total
    assert cost <= worst_case(price, sum(inputs), sum(outputs))


@given(
    nano_per_million=st.sampled_from([500_000, 1_500_000, 2_500_000, 1_500_001, 1_499_999]),
    tokens=st.tuples(*(st.integers(0, 4) for _ in range(5))),
)
def test_few_tokens_whose_roundings_add_up_cost_no_more_than_the_worst_case(
    nano_per_million: int, tokens: tuple[int, ...]
) -> None:
    # Halves of a nano-unit a token, each bucket rounded by itself: this is where a bound without its slack is too small.
    halves = price(**dict.fromkeys(AMOUNTS[:5], nano_per_million), per_request=0, minimum=0)
    cost = charge(Usage(*tokens), halves, is_synthetic=False, currency="USD").total
    assert cost <= worst_case(halves, sum(tokens[:3]), sum(tokens[3:]))


@given(tokens=st.tuples(counts, counts), nano_per_token=st.integers(0, 10_000))
def test_where_a_token_costs_whole_nano_units_the_worst_case_is_what_it_costs(
    tokens: tuple[int, int], nano_per_token: int
) -> None:
    flat = price(**dict.fromkeys(AMOUNTS[:5], nano_per_token * 1_000_000), per_request=0, minimum=0)
    assert worst_case(flat, *tokens) == sum(tokens) * nano_per_token


@given(price=prices, prompt=counts, amount=st.integers(0, 10**9), at_most=st.integers(0, 3000))
def test_as_many_tokens_as_fit_are_the_most_that_fit(price: Price, prompt: int, amount: int, at_most: int) -> None:
    found = most_output_tokens(price, prompt, amount=amount, at_most=at_most)
    assert -1 <= found <= at_most
    assert found == -1 or worst_case(price, prompt, found) <= amount
    assert found == at_most or worst_case(price, prompt, found + 1) > amount


@given(prices=st.lists(prices, min_size=1, max_size=4), tokens=st.tuples(*[st.integers(0, 4) | counts] * 5))
@example(
    prices=[
        price(**dict.fromkeys(AMOUNTS, 0) | {"reasoning": 1_000_000}),
        price(**dict.fromkeys(AMOUNTS, 0) | {"reasoning": 1, "output": 1_000_000}),
    ],
    tokens=(0, 0, 0, 1, 1),
)
def test_no_split_costs_more_than_the_worst_case_of_the_dearest_price_whichever_is_in_force_until_the_end(
    prices: list[Price], tokens: tuple[int, ...]
) -> None:
    history = PriceHistory(
        [replace(each, effective_from=NOON + timedelta(minutes=i)) for i, each in enumerate(prices)],
        default_currency="USD",
    )
    end = NOON + timedelta(minutes=len(prices) - 1)
    dearest = dearest_price(history, "small", (), start=NOON, end=end)
    assert dearest is not None
    # What is charged, and not the bounds of the others: these may have slack for roundings that the dearest has no need of.
    charged = [charge(Usage(*tokens), each, is_synthetic=False, currency="USD").total for each in prices]
    assert worst_case(dearest, sum(tokens[:3]), sum(tokens[3:])) >= max(charged)


def find(known: list[Price], served: tuple[str, ...], *, minutes: int = 10) -> Price | None:
    history = PriceHistory(known, default_currency="USD")
    return dearest_price(history, "alias", served, start=NOON, end=NOON + timedelta(minutes=minutes))


def test_a_model_is_priced_as_the_ledger_does_by_itself_or_else_by_its_alias() -> None:
    alias, own = price("alias", output=1), price("a", output=7)
    assert find([own], ("a",)) == own
    assert find([alias], ("a",)) == alias
    assert find([alias, own], ("a", "b")) == replace(own, output=7)
    assert find([own], ("a", "b")) is None
    assert find([own], ()) is None


def test_the_alias_counts_until_the_models_own_price_is_in_force() -> None:
    alias, later = price("alias", output=9), price("a", output=1, effective_from=NOON + timedelta(minutes=5))
    found = find([alias, later], ("a",))
    assert found is not None
    assert found.output == 9


def test_prices_of_several_currencies_have_no_dearest() -> None:
    with pytest.raises(PricesOfSeveralCurrencies):
        find([price("a"), price("b", currency="EUR")], ("a", "b"))
