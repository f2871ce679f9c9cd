"""Disguise by notation: JSON escapes, percent encoding, HTML entities, Markdown's backslashes."""

import html
import re
from collections.abc import Iterator
from urllib.parse import unquote

from .characters import folded
from .views import Edit

# Several backslashes: JSON inside JSON. A surrogate pair is one character.
_BACKSLASHED = re.compile(
    r"\\{1,8}(?:u(?P<pair>[dD][89abAB][0-9a-fA-F]{2}\\{1,8}u[dD][c-fC-F][0-9a-fA-F]{2})|u(?P<code>[0-9a-fA-F]{4})"
    r"|x(?P<byte>[0-9a-fA-F]{2})|(?P<blank>[nrt])|(?P<sign>[\"/_*.@+\-~`#>()\[\]]))"
)
_PERCENT = re.compile(r"%[2-7][0-9A-Fa-f]|(?:%[89A-Fa-f][0-9A-Fa-f]){2,}")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,12});")
_URL_HEAD = re.compile(r"://\S*\Z")
_NOT_HEX = re.compile(r"[^0-9a-fA-F]+")
# Decoded inside a web address, these would end it.
_ENDS_ADDRESS = frozenset(" \"'<>`")


def escape_edits(text: str) -> Iterator[Edit]:
    """What notation hides. Three looks for a character where there is nothing."""
    if "\\" in text:
        yield from _backslashes(text)
    if "%" in text:
        yield from _percents(text)
    if "&" in text:
        yield from _entities(text)


def _backslashes(text: str) -> Iterator[Edit]:
    # `C:\new` has no line end in it; what stands in a quoted string has.
    quoted = '"' in text
    for match in _BACKSLASHED.finditer(text):
        if match["blank"] and not quoted:
            continue
        yield Edit(*match.span(), _unescaped(match), "escape")


def _unescaped(match: re.Match[str]) -> str:
    if match["blank"]:
        return {"n": "\n", "r": "\r", "t": "\t"}[match["blank"]]
    if match["sign"]:
        return match["sign"]
    if match["pair"]:
        high, low = (int(part, 16) for part in re.findall(r"u([0-9a-fA-F]{4})", "u" + match["pair"]))
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    return _shown(chr(int(match["code"] or match["byte"], 16)))


def _percents(text: str) -> Iterator[Edit]:
    for match in _PERCENT.finditer(text):
        decoded = unquote(match[0], errors="strict") if _is_utf8(match[0]) else ""
        if not decoded:
            continue
        if decoded in _ENDS_ADDRESS and _URL_HEAD.search(text, max(0, match.start() - 200), match.start()):
            continue
        yield Edit(*match.span(), decoded, "percent")


def _is_utf8(encoded: str) -> bool:
    try:
        bytes.fromhex(_NOT_HEX.sub("", encoded)).decode()
    except ValueError:
        return False
    return True


def _entities(text: str) -> Iterator[Edit]:
    for match in _ENTITY.finditer(text):
        decoded = html.unescape(match[0])
        if decoded != match[0]:
            yield Edit(*match.span(), _shown(decoded), "entity")


def _shown(character: str) -> str:
    """Lone surrogates are no characters; escaped blanks and invisibles are what they are unescaped."""
    if len(character) != 1:
        return character
    if "\ud800" <= character <= "\udfff":
        return ""
    fold = folded(character)
    return fold[0] if fold else character
