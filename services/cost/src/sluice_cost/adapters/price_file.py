"""Reads a price book from YAML: the one that is shipped, or a file of the operator's."""

from importlib.resources import files
from pathlib import Path

import yaml

from sluice_cost.domain.price_book import PriceBook, PriceBookMistakes, read_price_book


def load_price_book(path: Path | None) -> PriceBook:
    """The book at `path`, or the shipped one. Raises PriceBookMistakes, also for a file that cannot be read."""
    source = path if path is not None else files("sluice_cost.adapters") / "price_book.yaml"
    try:
        document = yaml.safe_load(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise PriceBookMistakes([f"{path}: cannot be read ({error.strerror})"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PriceBookMistakes([f"{path}: is not YAML ({type(error).__name__})"]) from None
    return read_price_book(document)
