"""The gateway and the cost service count money alike: the same examples, and whatever else can be thought of."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_cost.domain import pricing as ledger
from sluice_cost.domain import usage as ledger_usage
from sluice_cost.domain import worst_case as holds
from sluice_gateway.domain import chat
from sluice_gateway.domain import pricing as gateway

EXAMPLES = json.loads((Path(__file__).parent / "pricing_examples.json").read_text())
# In the order of both Usage classes.
BUCKETS = ("uncached_input", "cached_input", "cache_write", "output", "reasoning")


def _prices(amounts: dict[str, int]) -> tuple[ledger.Price, gateway.Price]:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return ledger.Price("m", "USD", moment, **amounts), gateway.Price("USD", **amounts)


def _by_the_cost_service(amounts: dict[str, int], tokens: list[int]) -> tuple[int, int]:
    price, _ = _prices(amounts)
    charge = ledger.charge(ledger_usage.Usage(*tokens), price, is_synthetic=False, currency="USD")
    return charge.total, holds.worst_case(price, sum(tokens[:3]), sum(tokens[3:]))


def _by_the_gateway(amounts: dict[str, int], tokens: list[int]) -> tuple[int, int]:
    _, price = _prices(amounts)
    worst = gateway.worst_case(price, prompt_tokens=sum(tokens[:3]), output_tokens=sum(tokens[3:]))
    return gateway.cost_of(chat.Usage(*tokens), price), worst


@pytest.mark.parametrize("example", EXAMPLES, ids=[example["name"] for example in EXAMPLES])
@pytest.mark.parametrize("count", [_by_the_cost_service, _by_the_gateway])
def test_an_example_costs_what_it_says(count: Any, example: dict[str, Any]) -> None:
    assert count(example["price"], example["usage"]) == (example["cost"], example["worst_case"])


@given(
    amounts=st.fixed_dictionaries({name: st.integers(0, 10**11) for name in (*BUCKETS, "per_request", "minimum")}),
    tokens=st.lists(st.integers(0, 10**6), min_size=5, max_size=5),
)
def test_both_count_alike_whatever_the_price(amounts: dict[str, int], tokens: list[int]) -> None:
    assert _by_the_gateway(amounts, tokens) == _by_the_cost_service(amounts, tokens)


@given(
    amounts=st.fixed_dictionaries({name: st.integers(0, 10**11) for name in (*BUCKETS, "per_request", "minimum")}),
    amount=st.integers(0, 10**10),
    prompt=st.integers(0, 10**4),
)
def test_both_let_as_many_tokens_fit(amounts: dict[str, int], amount: int, prompt: int) -> None:
    by_ledger, by_gateway = _prices(amounts)
    fitting = holds.most_output_tokens(by_ledger, prompt, amount=amount, at_most=4096)
    assert gateway.output_that_fits(by_gateway, amount, prompt_tokens=prompt, most=4096) == fitting
