"""A price book is read strictly."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sluice_cost.adapters.price_file import load_price_book
from sluice_cost.domain.price_book import PriceBookMistakes, read_price_book


def book(**changes: Any) -> dict[str, Any]:
    good = {
        "id": "test",
        "version": "1",
        "currency": "USD",
        "effective_from": datetime(2026, 1, 1, tzinfo=UTC),
        "approved_by": "somebody",
        "models": {"small": {"input_per_million": "0.15", "output_per_million": "0.6"}},
    }
    return {**good, **changes}


def small(**changes: Any) -> dict[str, Any]:
    return book(models={"small": {"input_per_million": "0.15", "output_per_million": "0.6", **changes}})


def test_what_is_not_written_takes_the_price_it_is_stated_to_take() -> None:
    (price,) = read_price_book(small()).prices
    assert (price.uncached_input, price.cached_input, price.cache_write) == (150_000_000,) * 3
    assert (price.output, price.reasoning) == (600_000_000,) * 2
    assert (price.per_request, price.minimum, price.book) == (0, 0, "test@1")


def test_what_is_written_is_held_exactly() -> None:
    (price,) = read_price_book(
        small(cached_input_per_million="0.000000001", minimum="12", reasoning_per_million="0")
    ).prices
    assert (price.cached_input, price.minimum, price.reasoning) == (1, 12_000_000_000, 0)


@pytest.mark.parametrize(
    ("document", "mistake"),
    [
        (None, "must be a mapping"),
        ([], "must be a mapping"),
        (book(currency="dollars"), "currency:"),
        (book(version=1), "version: must be a text"),
        (book(approved_by=""), "approved_by:"),
        (book(effective_from="soon"), "effective_from:"),
        (book(discount="10"), "discount: unknown field"),
        (book(models={}), "models: must be a mapping"),
        (book(models={"small": "cheap"}), "models.small: must be a mapping"),
        (book(models={7: {"input_per_million": "1", "output_per_million": "1"}}), "models.7: a model name"),
        (book(models={"small": {"output_per_million": "1"}}), "models.small.input_per_million: missing"),
        (small(input_per_million=0.15), "0.15 is not a text; write decimals in quotes"),
        (small(input_per_million="a lot"), "'a lot' is not a decimal number"),
        (small(input_per_million="NaN"), "'NaN' must be 0 or more"),
        (small(input_per_million="-1"), "'-1' must be 0 or more"),
        (small(input_per_million="1e9"), "'1e9' is more than 100000"),
        (small(input_per_million="0.0000000001"), "more than 9 decimal places"),
        (small(imput_per_million="1"), "models.small.imput_per_million: unknown field"),
    ],
)
def test_a_mistake_is_named_with_its_place(document: Any, mistake: str) -> None:
    with pytest.raises(PriceBookMistakes) as caught:
        read_price_book(document)
    assert mistake in str(caught.value)
    assert len(caught.value.mistakes) == 1


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(PriceBookMistakes) as caught:
        read_price_book(book(currency="", version="", models={"small": {"input_per_million": "x"}, "large": 1}))
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == [
        "version",
        "currency",
        "models.small.input_per_million",
        "models.small.output_per_million",
        "models.large",
    ]


def test_the_shipped_book_is_good_and_prices_the_packaged_model() -> None:
    assert "smollm2-135m-instruct" in {price.model for price in load_price_book(None).prices}


@pytest.mark.parametrize(("content", "mistake"), [(None, "cannot be read"), ("a: [", "is not YAML")])
def test_a_file_that_is_no_book_is_named(tmp_path: Path, content: str | None, mistake: str) -> None:
    path = tmp_path / "book.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PriceBookMistakes, match=f"book.yaml: {mistake}"):
        load_price_book(path)


def test_tiers_seconds_capacity_and_deployments_are_read() -> None:
    document = small(
        per_cpu_second="0.00001",
        per_accelerator_second="0.001",
        cpus="1.5",
        tiers=[{"above_input_tokens": 200_000, "input_per_million": "0.3", "output_per_million": "1.2"}],
    )
    document["deployments"] = {"chat/west": {"input_per_million": "1", "output_per_million": "2"}}
    model, deployment = read_price_book(document).prices
    assert (model.cpu_second, model.accelerator_second, model.cpus_milli) == (10_000, 1_000_000, 1_500)
    assert [(tier.above_input_tokens, tier.cached_input) for tier in model.tiers] == [(200_000, 300_000_000)]
    assert (deployment.model, deployment.output) == ("route:chat/west", 2_000_000_000)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"tiers": "high"}, "tiers: must be a list"),
        ({"tiers": [7]}, "tiers[0]: must be a mapping"),
        ({"tiers": [{"input_per_million": "1", "output_per_million": "1"}]}, "tiers[0].above_input_tokens"),
        ({"tiers": [{"above_input_tokens": 5, "output_per_million": "1"}]}, "tiers[0].input_per_million: missing"),
        ({"cpus": "0.0001"}, "cpus: has more than 3"),
        ({"per_cpu_second": "1000.1"}, "per_cpu_second: is more than 1000"),
        (
            {"per_accelerator_second": "1000", "accelerators": "278"},
            "accelerators: an hour of them at per_accelerator_second costs more than 1000000000",
        ),
    ],
)
def test_a_mistake_in_a_tier_is_named_with_its_place(changes: dict[str, Any], mistake: str) -> None:
    with pytest.raises(PriceBookMistakes, match=r"models\.small") as caught:
        read_price_book(small(**changes))
    assert mistake in str(caught.value)
