"""A price book as people write it: read strictly, with every mistake named at once."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from sluice_cost.domain.money import to_nano
from sluice_cost.domain.pricing import ROUTE_PREFIX, Price, Tier
from sluice_cost.domain.usage import LARGEST_TOKEN_COUNT

LONGEST_MODEL_NAME = 200
_CURRENCY = re.compile(r"[A-Z]{3}")  # ISO 4217
LARGEST_PRICE = Decimal(100_000)  # with the largest token count a line still fits a 64-bit column
LARGEST_SECOND_PRICE = Decimal(1_000)  # likewise with the longest time that a request can compute
LARGEST_CAPACITY_NANO = 10**18  # an hour of idle capacity is one amount
_DECIMAL_PLACES = 9  # finer prices could not be held exactly in nano-units

# Name in the book -> field of Price, and the name whose price it takes when absent (None: it must stand there).
_TOKEN_PRICES: Mapping[str, tuple[str, str | None]] = {
    "input_per_million": ("uncached_input", None),
    "cached_input_per_million": ("cached_input", "input_per_million"),
    "cache_write_per_million": ("cache_write", "input_per_million"),
    "output_per_million": ("output", None),
    "reasoning_per_million": ("reasoning", "output_per_million"),
}
_OTHER_PRICES: Mapping[str, str] = {
    "per_request": "per_request",
    "minimum": "minimum",
    "per_cpu_second": "cpu_second",
    "per_accelerator_second": "accelerator_second",
}
_CAPACITIES: Mapping[str, str] = {"cpus": "cpus_milli", "accelerators": "accelerators_milli"}
_TIER_FIELDS = {"above_input_tokens", *_TOKEN_PRICES}
_MODEL_FIELDS = {*_TOKEN_PRICES, *_OTHER_PRICES, *_CAPACITIES, "tiers"}
_BOOK_FIELDS = {"id", "version", "currency", "effective_from", "approved_by", "models", "deployments", "note"}
_MOST_TIERS = 10


class PriceBookMistakes(ValueError):
    """The book cannot be used; `mistakes` says where and why, one line each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("price book: " + "; ".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class PriceBook:
    """One approved version of the prices."""

    id: str
    version: str
    currency: str
    effective_from: datetime
    approved_by: str
    prices: tuple[Price, ...]


def read_price_book(document: Any) -> PriceBook:
    """Builds a PriceBook from what YAML gave. Raises PriceBookMistakes with every mistake in it."""
    if not isinstance(document, Mapping):
        raise PriceBookMistakes(
            ["it must be a mapping with id, version, currency, effective_from, approved_by, models"]
        )
    return _Reader(document).read()


def is_currency(code: str) -> bool:
    """True for what looks like an ISO 4217 code."""
    return _CURRENCY.fullmatch(code) is not None


class _Reader:
    def __init__(self, document: Mapping[Any, Any]) -> None:
        self._document = document
        self._mistakes: list[str] = []

    def read(self) -> PriceBook:
        for name in sorted(str(name) for name in self._document if name not in _BOOK_FIELDS):
            self._mistakes.append(f"{name}: unknown field")
        book_id, version, approved_by = (self._text(name) for name in ("id", "version", "approved_by"))
        currency, effective_from = self._currency(), self._moment()
        prices = self._prices(currency, effective_from, book=f"{book_id}@{version}", approved_by=approved_by)
        if self._mistakes:
            raise PriceBookMistakes(self._mistakes)
        return PriceBook(book_id, version, currency, effective_from, approved_by, prices)

    def _text(self, name: str) -> str:
        value = self._document.get(name)
        if isinstance(value, str) and 0 < len(value.strip()) <= 200:
            return value.strip()
        self._mistakes.append(f"{name}: must be a text of 1 to 200 characters (in quotes), not {value!r}")
        return ""

    def _currency(self) -> str:
        currency = self._document.get("currency")
        if isinstance(currency, str) and is_currency(currency):
            return currency
        self._mistakes.append(f"currency: must be an ISO 4217 code such as USD, not {currency!r}")
        return ""

    def _moment(self) -> datetime:
        value = self._document.get("effective_from")
        if isinstance(value, datetime):
            # A time without a zone is taken as UTC.
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        self._mistakes.append(f"effective_from: must be a time such as 2026-01-01T00:00:00Z, not {value!r}")
        return datetime.min.replace(tzinfo=UTC)

    def _prices(self, currency: str, effective_from: datetime, **origin: Any) -> tuple[Price, ...]:
        models = self._section("models", needed=True)
        deployments = self._section("deployments", needed=False)
        named = [(model, f"models.{model}", entry) for model, entry in models.items()]
        named += [(f"{ROUTE_PREFIX}{route}", f"deployments.{route}", entry) for route, entry in deployments.items()]
        return tuple(
            Price(str(name), currency, effective_from, **self._amounts(entry, where), **origin)
            for name, where, entry in named
            if self._is_readable(name, where, entry)
        )

    def _section(self, name: str, *, needed: bool) -> Mapping[Any, Any]:
        section = self._document.get(name, {})
        if isinstance(section, Mapping) and (section or not needed):
            return section
        what = "model name" if needed else "alias/deployment"
        self._mistakes.append(f"{name}: must be a mapping of {what} to its prices, with one {name[:-1]} at least")
        return {}

    def _is_readable(self, model: Any, where: str, entry: Any) -> bool:
        if not isinstance(model, str) or not 0 < len(model) <= LONGEST_MODEL_NAME:
            self._mistakes.append(f"{where}: a model name must be a text of 1 to {LONGEST_MODEL_NAME} characters")
        if not isinstance(entry, Mapping):
            self._mistakes.append(f"{where}: must be a mapping of prices, not {entry!r}")
            return False
        for name in sorted(str(name) for name in entry if name not in _MODEL_FIELDS):
            self._mistakes.append(f"{where}.{name}: unknown field")
        return True

    def _amounts(self, entry: Mapping[Any, Any], where: str) -> dict[str, Any]:
        amounts, mistakes = read_amounts(entry)
        self._mistakes.extend(f"{where}.{mistake}" for mistake in mistakes)
        return amounts


def read_amounts(entry: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The prices of one model as written -> amounts in nano-units by the fields of Price, and every mistake.

    What is absent takes the input price (cached input, cache write), the output price (reasoning) or nothing.
    """
    amounts, mistakes = _token_amounts(entry)
    for name, field in _OTHER_PRICES.items():
        amounts[field] = _amount(entry, name, mistakes) if name in entry else 0
    for name, field in _CAPACITIES.items():
        amounts[field] = _thousandths(entry, name, mistakes) if name in entry else 0
    mistakes.extend(_too_dear(amounts))
    amounts["tiers"] = _tiers(entry.get("tiers", ()), mistakes)
    return amounts, mistakes


def _too_dear(amounts: Mapping[str, Any]) -> Iterator[str]:
    """What would overflow the ledger's columns once somebody computes, or nobody does."""
    for seconds, capacity in (("cpu_second", "cpus_milli"), ("accelerator_second", "accelerators_milli")):
        name = f"per_{seconds}"
        if amounts[seconds] > to_nano(LARGEST_SECOND_PRICE):
            yield f"{name}: is more than {LARGEST_SECOND_PRICE}"
        elif amounts[seconds] * amounts[capacity] * 3600 // 1000 > LARGEST_CAPACITY_NANO:
            hour = LARGEST_CAPACITY_NANO // 10**9
            yield f"{capacity.removesuffix('_milli')}: an hour of them at {name} costs more than {hour}"


def _token_amounts(entry: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    amounts: dict[str, Any] = {}
    mistakes: list[str] = []
    for name, (field, stand_in) in _TOKEN_PRICES.items():  # a stand-in comes before those it stands in for
        is_written = name in entry or stand_in is None
        amounts[field] = _amount(entry, name, mistakes) if is_written else amounts[_TOKEN_PRICES[str(stand_in)][0]]
    return amounts, mistakes


def _amount(entry: Mapping[str, Any], name: str, mistakes: list[str]) -> int:
    mistake = _mistake_in(entry.get(name))
    if mistake is None:
        return to_nano(Decimal(entry[name]))
    mistakes.append(f"{name}: {mistake}")
    return 0


def _thousandths(entry: Mapping[str, Any], name: str, mistakes: list[str]) -> int:
    mistake = _mistake_in(entry[name])
    if mistake is None and (thousandths := Decimal(entry[name]) * 1000) == int(thousandths):
        return int(thousandths)
    mistakes.append(f"{name}: {mistake or 'has more than 3 decimal places'}")
    return 0


def _tiers(written: Any, mistakes: list[str]) -> tuple[Tier, ...]:
    if not isinstance(written, Sequence) or isinstance(written, str) or len(written) > _MOST_TIERS:
        mistakes.append(f"tiers: must be a list of at most {_MOST_TIERS} tiers")
        return ()
    tiers: list[Tier] = []
    for i, entry in enumerate(written):
        if not isinstance(entry, Mapping) or not set(entry) <= _TIER_FIELDS:
            mistakes.append(f"tiers[{i}]: must be a mapping of above_input_tokens and token prices")
            continue
        above, before = entry.get("above_input_tokens"), tiers[-1].above_input_tokens if tiers else 0
        if not isinstance(above, int) or not before < above <= LARGEST_TOKEN_COUNT:
            mistakes.append(
                f"tiers[{i}].above_input_tokens: must be a whole number above the tier before, not {above!r}"
            )
            continue
        amounts, wrong = _token_amounts(entry)
        mistakes.extend(f"tiers[{i}].{mistake}" for mistake in wrong)
        tiers.append(Tier(above, **amounts))
    return tuple(tiers)


def _mistake_in(value: Any) -> str | None:
    if value is None or value == "":
        return 'missing; write a decimal string such as "0.15" ("0" for free)'
    if not isinstance(value, str):
        return f"{value!r} is not a text; write decimals in quotes, so that nothing is rounded"
    try:
        amount = Decimal(value)
    except InvalidOperation:
        return f"{value!r} is not a decimal number"
    if not amount.is_finite() or amount < 0:
        return f"{value!r} must be 0 or more"
    if amount > LARGEST_PRICE:
        return f"{value!r} is more than {LARGEST_PRICE}"
    if -int(amount.as_tuple().exponent) > _DECIMAL_PLACES:
        return f"{value!r} has more than {_DECIMAL_PLACES} decimal places"
    return None
