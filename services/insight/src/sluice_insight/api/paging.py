"""Pages of a list that is whole in memory: a token says where the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sluice_kit.errors import InvalidInput

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A part of a list; `next_token` is empty and `left_out` 0 where nothing follows."""

    items: Sequence[Item]
    left_out: int
    next_token: str


def check_token(token: str) -> None:
    """InvalidInput for a token that is none."""
    if token and not (token.isascii() and token.isdigit() and len(token) <= 9):
        raise InvalidInput("page_token must come from an earlier answer", field="page_token")


def page(found: Sequence[Item], *, size: int, default: int, largest: int, token: str) -> Page[Item]:
    """At most `largest` items, `default` where `size` is 0. InvalidInput for a token that is none."""
    check_token(token)
    first = min(int(token or 0), len(found))
    last = min(first + min(size or default, largest), len(found))
    return Page(found[first:last], len(found) - last, str(last) if last < len(found) else "")
