"""Views of a text under which detectors look at it, so that simple disguises do not hide words."""

from __future__ import annotations

import re
import unicodedata

# Format characters (Cf: zero-width, bidi, soft hyphen, tags) and variation selectors carry no meaning for a detector.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_CONTROL_OR_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")

# Cyrillic and Greek letters that look like Latin ones (the frequent part of Unicode's confusables table).
_LOOK_ALIKES = str.maketrans(
    "авекмнорстухіјѕԁһԛԝёєгьαβεηικνορτυχγωσμ",
    "abekmhopctyxijsdhqweerbabenikvoptuxywou",
)
_LEET = str.maketrans(
    {
        "0": "o",
        "1": "i",
        "3": "e",
        "4": "a",
        "5": "s",
        "7": "t",
        "8": "b",
        "9": "g",
        "@": "a",
        "$": "s",
        "!": "i",
        "|": "i",
        "+": "t",
        "€": "e",
        "£": "l",
    }
)
_LEET_SYMBOLS = frozenset("0134578@$!|+€")
# A token that mixes letters with symbols which stand for letters: `1d10t`, `$h!t`, but not `100`, `3.5` or `wow!`.
_LEET_TOKEN = re.compile(r"(?<!\S)(?=\S*[a-z])(?=\S*[0134578@$!|+€](?:\S*[a-z]))\S+")
# Four or more single letters with the same sort of gap: `i d i o t`, `k.i.l.l`.
_SPACED_LETTERS = re.compile(r"(?<!\w)[a-z](?:[ .\-_*/][a-z]){3,}(?!\w)")
_GAP = re.compile(r"[ .\-_*/]")
_DRAWN_OUT = re.compile(r"([a-z])\1{2,}")


def plain_view(text: str) -> str:
    """The text in NFKC, without invisible characters, with single spaces. Case is kept."""
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return _CONTROL_OR_SPACE.sub(" ", text).strip()


def folded_view(plain: str) -> str:
    """Lower case, without accents, look-alike letters, leetspeak, spaced-out or drawn-out letters."""
    text = plain.lower()
    if not text.isascii():
        text = text.translate(_LOOK_ALIKES)
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if not _LEET_SYMBOLS.isdisjoint(text):
        text = _LEET_TOKEN.sub(lambda token: token.group().translate(_LEET), text)
    text = _SPACED_LETTERS.sub(lambda letters: _GAP.sub("", letters.group()), text)
    return _DRAWN_OUT.sub(r"\1", text)


def views(text: str) -> tuple[str, ...]:
    """The one or two texts a detector looks at; a text's score is the highest of its views.

    The second view is left out where folding changes nothing but case, as in most texts.
    """
    plain = plain_view(text)
    folded = folded_view(plain)
    return (plain,) if folded == plain.lower() else (plain, folded)
