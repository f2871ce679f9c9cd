"""Letters of other scripts that look like Latin ones, from Unicode's confusables as `confusable-homoglyphs` carries them."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType


@cache
def look_alikes() -> Mapping[str, str]:
    """Letter -> the ASCII letter it looks like. Read once, when a text first needs it (about 30 ms)."""
    table = json.loads((files("confusable_homoglyphs") / "confusables.json").read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for character, similar in table.items():
        if len(character) != 1 or character.isascii() or not character.isalpha():
            continue
        letters = [one["c"] for one in similar if len(one["c"]) == 1 and one["c"].isascii() and one["c"].isalpha()]
        if letters:
            found[character] = _same_case(character, letters)
    return MappingProxyType(found)


def _same_case(character: str, letters: list[str]) -> str:
    """Unicode's table takes a capital I for a small l: a capital stands for a capital."""
    if character.isupper() and letters[0] == "l":
        return "I"
    return next((letter for letter in letters if letter.isupper() == character.isupper()), letters[0])
