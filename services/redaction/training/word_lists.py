"""The short lists of words in `words.txt`: one a line, `name: this|that`."""

from functools import cache
from pathlib import Path


@cache
def _lists() -> dict[str, list[str]]:
    lines = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").splitlines()
    return {name: words.split("|") for name, words in (line.split(": ", 1) for line in lines)}


def word_list(name: str) -> list[str]:
    """Raises KeyError if there is none of that name."""
    return _lists()[name]
