"""From usage and a price to a charge: one line per bucket, rounded once, half-even, at nano-units."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from sluice_cost.domain.money import divide_half_even
from sluice_cost.domain.usage import Usage

TOKENS_PER_PRICE = 1_000_000
MICROSECONDS_PER_PRICE = 1_000_000
# A deployment's own price stands in the book under this and its route, `route:alias/deployment`.
ROUTE_PREFIX = "route:"

BUCKETS = ("uncached_input", "cached_input", "cache_write", "output", "reasoning")


@dataclass(frozen=True, slots=True)
class Tier:
    """Token prices of a request whose input is longer than a threshold. They hold for all its tokens, not for those above only."""

    above_input_tokens: int
    uncached_input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int


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
    cpu_second: int = 0
    """Nano-units for a second of a processor."""
    accelerator_second: int = 0
    """Nano-units for a second of an accelerator."""
    tiers: tuple[Tier, ...] = ()
    """By rising threshold."""
    cpus_milli: int = 0
    """Thousandths of processors that are paid for whether they are used or not."""
    accelerators_milli: int = 0
    """Thousandths of accelerators that are paid for whether they are used or not."""
    book: str = ""
    """`id@version` of the price book it came with; `api` for one put by PutPrice."""
    approved_by: str = ""
    version: int = 0
    """Counted from 1 per model; 0 until it is stored."""
    price_id: int | None = None
    """The database's id; None until it is stored."""

    def for_input(self, tokens: int) -> "Price":
        """This price as it is for a request of so many input tokens."""
        tier = next((tier for tier in reversed(self.tiers) if tokens > tier.above_input_tokens), None)
        return self if tier is None else replace(self, **{bucket: getattr(tier, bucket) for bucket in BUCKETS})

    def dearest(self) -> "Price":
        """The most that each bucket can cost in any tier: for worst cases."""
        if not self.tiers:
            return self
        every = (self, *self.tiers)
        return replace(self, tiers=(), **{bucket: max(getattr(one, bucket) for one in every) for bucket in BUCKETS})

    @property
    def is_for_compute(self) -> bool:
        """True when seconds cost something."""
        return bool(self.cpu_second or self.accelerator_second)


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
    NEWLY_PRICED = "newly_priced"
    """A correction of an entry that was unpriced: its price is known now."""


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
    cpu: int = 0
    accelerator: int = 0
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
            + self.cpu
            + self.accelerator
        )


def charge(usage: Usage, price: Price | None, *, is_synthetic: bool, currency: str) -> Charge:
    """Prices one request. `currency` stands on charges that no price stands behind."""
    if is_synthetic:
        return Charge(Priced.SYNTHETIC, currency)
    if usage.is_nothing:
        return Charge(Priced.NO_USAGE, currency)
    if price is None:
        return Charge(Priced.UNPRICED, currency)
    return _charge_at(usage, price)


def _charge_at(usage: Usage, listed: Price) -> Charge:
    price = listed.for_input(usage.input_tokens)
    cpu, accelerator = (
        _seconds(usage.cpu_us, price.cpu_second),
        _seconds(usage.accelerator_us, price.accelerator_second),
    )
    if usage.total_tokens == 0:  # a row of computing alone: no request of its own, so no price of one and no minimum
        return Charge(Priced.PRICED, price.currency, cpu=cpu, accelerator=accelerator, price=listed)
    uncached_input = _line(usage.uncached_input_tokens, price.uncached_input)
    cached_input = _line(usage.cached_input_tokens, price.cached_input)
    cache_write = _line(usage.cache_write_tokens, price.cache_write)
    output = _line(usage.output_tokens, price.output)
    reasoning = _line(usage.reasoning_tokens, price.reasoning)
    subtotal = uncached_input + cached_input + cache_write + output + reasoning + price.per_request + cpu + accelerator
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
        cpu=cpu,
        accelerator=accelerator,
        price=listed,
    )


def _line(tokens: int, nano_per_million: int) -> int:
    return divide_half_even(tokens * nano_per_million, TOKENS_PER_PRICE)


def _seconds(microseconds: int, nano_per_second: int) -> int:
    return divide_half_even(microseconds * nano_per_second, MICROSECONDS_PER_PRICE)


class PriceHistory:
    """Every price ever in force; finds the one for a model at a moment.

    Of two prices with the same moment the later stored wins: that is how a wrong price is put right.
    """

    def __init__(self, prices: Iterable[Price], *, default_currency: str) -> None:
        self.default_currency = default_currency
        self._prices: Mapping[str, list[Price]] = _by_model(prices)
        self._routes: dict[str, list[str]] = {}
        for name in self._prices:
            if name.startswith(ROUTE_PREFIX):
                self._routes.setdefault(name.removeprefix(ROUTE_PREFIX).split("/")[0], []).append(name)
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

    def of_routes(self, alias: str, start: datetime, end: datetime) -> list[Price]:
        """The prices of an alias's deployments that are in force at any moment from `start` to `end`."""
        return [price for route in self._routes.get(alias, ()) for price in self.between(route, start, end)]

    def for_call(self, *, route: str, served_model: str, model: str, at: datetime) -> Price | None:
        """The price of the deployment, else of the model that answered, else of the alias that was asked for."""
        of_route = self.find(ROUTE_PREFIX + route, at) if route else None
        return of_route or self.find(served_model, at) or self.find(model, at)

    def in_force(self, at: datetime) -> list[Price]:
        """One price a model, by model."""
        found = (self.find(model, at) for model in sorted(self._prices))
        return [price for price in found if price is not None]

    def models_with_capacity(self) -> list[str]:
        """Models of which any price ever had processors or accelerators that are paid for around the clock."""
        has_capacity = (
            model
            for model, prices in self._prices.items()
            if any(price.cpus_milli or price.accelerators_milli for price in prices)
        )
        return sorted(has_capacity)

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

    async def put_all(self, prices: Sequence[Price], *, recorded_at: datetime) -> Sequence[Price]:
        """Stores several, all or none."""
