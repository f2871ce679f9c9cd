"""The most a request can cost: an upper bound of what the ledger can charge for it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from sluice_cost.domain.pricing import TOKENS_PER_PRICE, Price, PriceHistory


class PricesOfSeveralCurrencies(ValueError):
    """The models that may answer are priced in several currencies: no one amount can bound them."""


def dearest_price(
    prices: PriceHistory, model: str, served_models: Sequence[str], *, start: datetime, end: datetime
) -> Price | None:
    """A price that none of the models exceeds, in any of its parts, at any moment from `start` to `end`.

    The ledger prices by the model that answered, or else by the alias, and so does this. None when a model has no price.
    Raises PricesOfSeveralCurrencies.
    """
    alias = prices.between(model, start, end)
    # A deployment's own price comes first in the ledger, and which one answers is not known yet.
    of_routes = prices.of_routes(model, start, end)
    candidates = list(of_routes)
    for served in served_models or [model]:
        own = prices.between(served, start, end)
        if prices.find(served, start) is None:
            # Until the model's own price is in force, the alias's stands in.
            if prices.find(model, start) is None:
                if not of_routes:
                    return None
                continue
            own = [*own, *alias]
        candidates += own
    return _dearest_of(price.dearest() for price in candidates)


def _dearest_of(candidates: Iterable[Price]) -> Price:
    first, *others = candidates
    for price in others:
        if price.currency != first.currency:
            raise PricesOfSeveralCurrencies
        amounts = {name: max(getattr(first, name), getattr(price, name)) for name in _AMOUNTS}
        first = replace(first, **amounts)
    return first


_AMOUNTS = ("uncached_input", "cached_input", "cache_write", "output", "reasoning", "per_request", "minimum")


def worst_case(price: Price, prompt_tokens: int, output_tokens: int) -> int:
    """The most nano-units that so many tokens can cost, in whichever buckets they come."""
    inputs = (price.uncached_input, price.cached_input, price.cache_write)
    outputs = (price.output, price.reasoning)
    tokens = _at_most(prompt_tokens, inputs) + _at_most(output_tokens, outputs)
    return max(price.minimum, price.per_request + tokens)


def _at_most(tokens: int, prices: tuple[int, ...]) -> int:
    # The ledger rounds each bucket: split over three of them, the roundings can add up to a nano-unit and a half.
    # A whole number of nano-units a token is never rounded.
    is_rounded = tokens > 1 and any(price % TOKENS_PER_PRICE for price in prices)
    return -(-tokens * max(prices) // TOKENS_PER_PRICE) + is_rounded


def most_output_tokens(price: Price, prompt_tokens: int, *, amount: int, at_most: int) -> int:
    """The most tokens of the answer that `amount` covers, up to `at_most`; -1 when it does not even cover the prompt."""
    low, high = -1, at_most
    while low < high:
        middle = (low + high + 1) // 2
        if worst_case(price, prompt_tokens, middle) <= amount:
            low = middle
        else:
            high = middle - 1
    return low
