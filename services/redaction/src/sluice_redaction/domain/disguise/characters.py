"""Disguise by single characters: invisible ones, other widths and styles, digits and look-alikes of other scripts."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache

from .look_alikes import look_alikes
from .views import Edit

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+")
# Not of category Cf, yet shown as nothing: variation selectors, fillers, the grapheme joiner, Khmer inherent vowels.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
# A letter or digit with marks on it, keycaps too; the marks belong to the letter.
_MARKED = re.compile(f"([!-~])[\ufe0f]?[{_MARKS}]+")
# Tags spell ASCII invisibly. A few behind a black flag are a region's flag.
_TAGS = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007e])[\U000e0020-\U000e007e]{4,}")
_DASH_IN_NUMBER = re.compile("(?<=[0-9])[\u2010-\u2015\u2212](?=[0-9])")
_TOKEN = re.compile(r"[^\s,;<>()\[\]{}\"'|]+")
_RUN = re.compile(r"[^\W_]+")
_STYLED_NAME = re.compile(r"(?:CIRCLED|SQUARED|PARENTHESIZED|REGIONAL|SMALL CAPITAL).*?\b([A-Z])$")
_KEY_LENGTH = 16


def character_edits(text: str) -> Iterator[Edit]:
    """What single characters hide. Nothing, and next to no time, for plain ASCII."""
    if not text.replace("\n", " ").replace("\t", " ").replace("\r", " ").isprintable():
        for match in _CONTROLS.finditer(text):
            yield Edit(*match.span(), "", "invisible")
    if text.isascii():
        return
    odd = {character for character in set(text) if not character.isascii()}
    yield from _whole_runs(text)
    folds = {character: fold for character in odd if (fold := folded(character)) is not None}
    if folds:
        spelling = {place for match in _TAGS.finditer(text) for place in range(*match.span())}
        for place, character in enumerate(text):
            if (fold := folds.get(character)) is not None and place not in spelling:
                yield Edit(place, place + 1, *fold)
    letters = {character for character in odd - folds.keys() if character.isalpha()}
    if letters and (not letters.isdisjoint(look_alikes()) or _has_key(text)):
        yield from _look_alike_edits(text)


@lru_cache(maxsize=4096)
def folded(character: str) -> tuple[str, str] | None:
    """(what it reads as, the disguise), or None if it stands for itself."""
    category = unicodedata.category(character)
    if category == "Cf" or _UNSEEN.match(character):
        return "", "invisible"
    if category == "Zs":
        return " ", "width"
    plain = unicodedata.normalize("NFKC", character)
    if plain != character and plain.isascii() and (len(plain) == 1 or (plain.isalnum() and len(plain) <= 3)):
        return plain, "width" if "\uff00" <= character <= "\uffef" else "styled"
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit), "digits"
    named = _STYLED_NAME.search(unicodedata.name(character, ""))
    return (named[1], "styled") if named and category[0] in "SL" else None


def _whole_runs(text: str) -> Iterator[Edit]:
    for match in _MARKED.finditer(text):
        yield Edit(*match.span(), match[1], "accent")
    for match in _DASH_IN_NUMBER.finditer(text):
        yield Edit(*match.span(), "-", "dash")
    for match in _TAGS.finditer(text):
        for place in range(*match.span()):
            yield Edit(place, place + 1, chr(ord(text[place]) - 0xE0000), "tags")


def _look_alike_edits(text: str) -> Iterator[Edit]:
    """Look-alikes inside words that are otherwise Latin, and accents inside keys. Real words of other scripts have
    letters that look like nothing Latin, or no Latin letter beside them: they stay."""
    similar = look_alikes()
    for token in _TOKEN.finditer(text):
        if token[0].isascii():
            continue
        for run in _RUN.finditer(text, *token.span()):
            if run[0].isascii():
                continue
            if _is_latin_in_disguise(run[0], token[0], similar):
                yield from _replaced(run, similar, "look-alike")
            elif len(run[0]) >= _KEY_LENGTH and any(character.isdigit() for character in run[0]):
                yield from _unaccented(run)


def _has_key(text: str) -> bool:
    return any(len(token) >= _KEY_LENGTH and not token.isascii() for token in text.split())


def _is_latin_in_disguise(run: str, token: str, similar: Mapping[str, str]) -> bool:
    others = [character for character in run if not character.isascii()]
    if not all(character in similar for character in others):
        return False
    if any(character.isascii() and character.isalpha() for character in run):
        return True
    latin = sum(character.isascii() and character.isalpha() for character in token)
    return latin > 0 and ("@" in token or (len(token) >= _KEY_LENGTH and 2 * latin >= len(token)))


def _replaced(run: re.Match[str], similar: Mapping[str, str], disguise: str) -> Iterator[Edit]:
    for place, character in enumerate(run[0], run.start()):
        if not character.isascii():
            yield Edit(place, place + 1, similar[character], disguise)


def _unaccented(run: re.Match[str]) -> Iterator[Edit]:
    for place, character in enumerate(run[0], run.start()):
        base = unicodedata.normalize("NFD", character)[0]
        if base != character and base.isascii():
            yield Edit(place, place + 1, base, "accent")
