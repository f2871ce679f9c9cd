"""From usage and a price to a charge: one line per bucket, rounded once, half-even, at nano-units."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from sluice_cost.domain.money import divide_half_even
from sluice_cost.domain.usage import Usage

TOKENS_PER_PRICE = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs from a moment on. Token prices are nano-units per million tokens."""

    model: str
    currency: str
    effective_from: datetime
    uncached_input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int
    per_request: int = 0
    """Nano-units for every request that used tokens."""
    minimum: int = 0
    """Nano-units: a request that used tokens is charged no less."""
    book: str = ""
    """`id@version` of the price book it came with; `api` for one put by PutPrice."""
    approved_by: str = ""
    version: int = 0
    """Counted from 1 per model; 0 until it is stored."""
    price_id: int | None = None
    """The database's id; None until it is stored."""


class Priced(StrEnum):
    """How the amount of a ledger entry came about."""

    PRICED = "priced"
    """From the price that `price_id` names."""
    UNPRICED = "unpriced"
    """Tokens were used and no price is known: the amount is 0 because it is unknown, not because it is free."""
    NO_USAGE = "no_usage"
    """No token was used (blocked, refused, failed before the model): nothing to charge."""
    SYNTHETIC = "synthetic"
    """A self-test of the mesh: recorded, never billed."""


@dataclass(frozen=True, slots=True)
class Charge:
    """The lines of one request in nano-units; `total` is their sum."""

    priced: Priced
    currency: str
    uncached_input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    per_request: int = 0
    minimum_top_up: int = 0
    price: Price | None = None
    """What it was priced at; None unless PRICED."""

    @property
    def total(self) -> int:
        return (
            self.uncached_input
            + self.cached_input
            + self.cache_write
            + self.output
            + self.reasoning
            + self.per_request
            + self.minimum_top_up
        )


def charge(usage: Usage, price: Price | None, *, is_synthetic: bool, currency: str) -> Charge:
    """Prices one request. `currency` stands on charges that no price stands behind."""
    if is_synthetic:
        return Charge(Priced.SYNTHETIC, currency)
    if usage.total_tokens == 0:
        return Charge(Priced.NO_USAGE, currency)
    if price is None:
        return Charge(Priced.UNPRICED, currency)
    return _charge_at(usage, price)


def _charge_at(usage: Usage, price: Price) -> Charge:
    uncached_input = _line(usage.uncached_input_tokens, price.uncached_input)
    cached_input = _line(usage.cached_input_tokens, price.cached_input)
    cache_write = _line(usage.cache_write_tokens, price.cache_write)
    output = _line(usage.output_tokens, price.output)
    reasoning = _line(usage.reasoning_tokens, price.reasoning)
    subtotal = uncached_input + cached_input + cache_write + output + reasoning + price.per_request
    return Charge(
        Priced.PRICED,
        price.currency,
        uncached_input=uncached_input,
        cached_input=cached_input,
        cache_write=cache_write,
        output=output,
        reasoning=reasoning,
        per_request=price.per_request,
        minimum_top_up=max(price.minimum - subtotal, 0),
        price=price,
    )


def _line(tokens: int, nano_per_million: int) -> int:
    return divide_half_even(tokens * nano_per_million, TOKENS_PER_PRICE)


class PriceHistory:
    """Every price ever in force; finds the one for a model at a moment.

    Of two prices with the same moment the later stored wins: that is how a wrong price is put right.
    """

    def __init__(self, prices: Iterable[Price], *, default_currency: str) -> None:
        self.default_currency = default_currency
        self._prices: Mapping[str, list[Price]] = _by_model(prices)
        self._moments = {model: [price.effective_from for price in prices] for model, prices in self._prices.items()}

    def find(self, model: str, at: datetime) -> Price | None:
        """The price of `model` in force at `at`; None when it is unknown or not yet in force."""
        index = bisect_right(self._moments.get(model, []), at)
        return self._prices[model][index - 1] if index else None

    def between(self, model: str, start: datetime, end: datetime) -> list[Price]:
        """The prices of `model` that are in force at any moment from `start` to `end`."""
        moments = self._moments.get(model, [])
        first = max(bisect_right(moments, start) - 1, 0)
        return self._prices.get(model, [])[first : bisect_right(moments, end)]

    def in_force(self, at: datetime) -> list[Price]:
        """One price a model, by model."""
        found = (self.find(model, at) for model in sorted(self._prices))
        return [price for price in found if price is not None]

    def newest_version(self, model: str) -> int:
        """0 for a model without a price."""
        return max((price.version for price in self._prices.get(model, [])), default=0)


def _by_model(prices: Iterable[Price]) -> dict[str, list[Price]]:
    grouped: dict[str, list[Price]] = {}
    for price in sorted(prices, key=lambda price: (price.effective_from, price.version)):
        grouped.setdefault(price.model, []).append(price)
    return grouped


class PriceStore(Protocol):
    """Where prices are kept."""

    async def prices(self) -> PriceHistory:
        """Every price ever in force, as stored now."""

    async def put(self, price: Price, *, recorded_at: datetime) -> Price:
        """Stores a new version of a model's price, with an audit row. Returns it as stored."""
