"""Reads the public LiteLLM price file: exact decimals only, and what cannot be said in this book is told, never rounded."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sluice_cost.domain.price_book import LONGEST_MODEL_NAME, read_amounts

# Field of the file -> name in the book.
_TOKEN_FIELDS = {
    "input_cost_per_token": "input_per_million",
    "cache_read_input_token_cost": "cached_input_per_million",
    "cache_creation_input_token_cost": "cache_write_per_million",
    "output_cost_per_token": "output_per_million",
    "output_cost_per_reasoning_token": "reasoning_per_million",
}
# What has tokens in and none out, so that no output price is a price of nothing.
_WITHOUT_OUTPUT = {"embedding", "rerank", "moderation"}
_TEXT_MODES = {"chat", "completion", "responses", *_WITHOUT_OUTPUT}
_SAMPLE = "sample_spec"  # the file's own explanation of its fields
_TIERED = re.compile(rf"({'|'.join(_TOKEN_FIELDS)})_above_(\d+)k_tokens")
_PRICE_FIELD = re.compile(r"cost|pricing")
_PER_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry that is no price here, and why."""

    model: str
    reason: str


@dataclass(slots=True)
class PublicPrices:
    """What a price file holds for this book."""

    amounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of Price by model."""
    left_out: list[LeftOut] = field(default_factory=list)
    ignored_fields: Counter[str] = field(default_factory=Counter)
    """Prices of other usage than text tokens, which the ledger never sees."""


def read_public_prices(document: Any, *, providers: Iterable[str] = ()) -> PublicPrices:
    """Reads entries whose numbers came as Decimal (never float). Raises ValueError for what is no price file."""
    if not isinstance(document, Mapping):
        raise ValueError("it must be a JSON object of model to prices")
    chosen, found = set(providers), PublicPrices()
    for model, entry in document.items():
        if model == _SAMPLE or (chosen and isinstance(entry, Mapping) and entry.get("litellm_provider") not in chosen):
            continue
        reason = _why_not(model, entry)
        amounts, mistakes = ({}, [reason]) if reason else _amounts(entry)
        if mistakes:
            found.left_out.append(LeftOut(str(model), "; ".join(mistakes)))
            continue
        found.amounts[model] = amounts
        found.ignored_fields.update(_others(entry))
    return found


def _why_not(model: str, entry: Any) -> str | None:
    if not isinstance(entry, Mapping):
        return "is not an object of prices"
    if not 0 < len(model) <= LONGEST_MODEL_NAME or "\0" in model:
        return f"its name must have 1 to {LONGEST_MODEL_NAME} characters"
    mode = entry.get("mode")
    if mode not in _TEXT_MODES:
        return f"its mode is {mode}: the ledger counts text tokens"
    if "tiered_pricing" in entry:
        return "tiered_pricing: whether a range holds for the whole request or for its part is not said in the file"
    if "input_cost_per_second" in entry or "output_cost_per_second" in entry:
        return "is priced by the second of the call; put a price by accelerator-second for the time it really computes"
    if "input_cost_per_token" not in entry:
        return "has no price per token"
    if "output_cost_per_token" not in entry and mode not in _WITHOUT_OUTPUT:
        return "has no price per output token"
    if not any(entry.get(name) for name in _TOKEN_FIELDS) and not entry.get("input_cost_per_request"):
        return "costs 0: whether that is free or unknown is not said in the file; put a price if it is free"
    return None


def _amounts(entry: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    mistakes: list[str] = []
    written: dict[str, Any] = {"output_per_million": "0"}
    tiers: dict[int, dict[str, Any]] = {}
    for name, value in entry.items():
        tiered = _TIERED.fullmatch(name)
        if name in _TOKEN_FIELDS:
            written[_TOKEN_FIELDS[name]] = _per_million(name, value, mistakes)
        elif name == "input_cost_per_request":
            written["per_request"] = _exact(name, value, mistakes)
        elif tiered is not None:
            above = int(tiered[2]) * 1000
            tiers.setdefault(above, {"above_input_tokens": above})[_TOKEN_FIELDS[tiered[1]]] = _per_million(
                name, value, mistakes
            )
    if mistakes:
        return {}, mistakes
    # What a tier does not say costs what it does below the tier, also where that itself stands in for another.
    written["tiers"] = [{**_base_of(written), **tiers[above]} for above in sorted(tiers)]
    return read_amounts(written)


def _base_of(written: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in written.items() if name in _TOKEN_FIELDS.values()}


def _per_million(name: str, value: Any, mistakes: list[str]) -> str:
    return _exact(name, value, mistakes, times=_PER_MILLION)


def _exact(name: str, value: Any, mistakes: list[str], *, times: int = 1) -> str:
    if not isinstance(value, Decimal) or not value.is_finite():
        mistakes.append(f"{name}: {value!r} is not a number")
        return "0"
    exact = value * times
    text = f"{exact.normalize() + Decimal(0):f}"
    if -int(exact.normalize().as_tuple().exponent) > 9:
        mistakes.append(f"{name}: {value} has more decimal places than a price can hold, and is not rounded")
        return "0"
    return text


def _others(entry: Mapping[str, Any]) -> Iterable[str]:
    known = {*_TOKEN_FIELDS, "input_cost_per_request"}
    return (name for name in entry if _PRICE_FIELD.search(name) and name not in known and not _TIERED.fullmatch(name))
