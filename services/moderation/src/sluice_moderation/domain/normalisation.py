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

# Letters that look like Latin ones: the frequent part of Unicode's confusables table (Cyrillic, Greek, Armenian, small capitals, letters
# with strokes). NFKC has already undone full-width, circled, mathematical and superscript letters.
_LOOK_ALIKES = str.maketrans(
    "авекмнорстухіјѕԁһԛԝёєгьийпѵүҝӏқңҳбзαβεηικνορτυχγωσμζδθλξπςάέήίόύώϲϳաոսօզցեյքᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢɑɡıłøđħŧƙɓɗɛɔɩʋæß",
    "abekmhopctyxijsdhqweerbuunvykiknhbeabenikvoptuxywouzdolencaeniouwcjwnuoqgtjpabcdefghijklmnoprstuvwyzagilodhtkbdeoivab",
)
# Regional indicators and squared letters spell words too; NFKC leaves them.
_LOOK_ALIKES |= {start + i: 97 + i for start in (0x1F1E6, 0x1F130, 0x1F150, 0x1F170) for i in range(26)}
# Emoji that stand for a word.
_EMOJI = str.maketrans(
    {
        "🖕": " fuck you ", "🔪": " knife ", "🗡": " knife ", "🔫": " gun ", "💣": " bomb ", "💩": " shit ", "🤡": " clown ", "🐀": " rat ",
        "🐷": " pig ", "🐖": " pig ", "🐍": " snake ", "🍆": " cock ", "🍑": " ass ", "💦": " cum ", "🪓": " axe ", "💊": " pills ", "🐒": " monkey ",
        "🐵": " monkey ", "🗑": " garbage ", "⚰": " dead ", "☠": " dead ", "💀": " dead ", "🪳": " cockroach ", "🤮": " disgusting ",
    }
)  # fmt: skip
# The same sign outside of ASCII, many times: three say as much, and one may stand for a word of ten letters or more.
_FLOOD = re.compile(r"([^\x00-\x7f])\1{3,}")
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
# An emoji or symbol between two letters stands for a letter that was left out: `f🤬ck`, `id☹ot`.
_SYMBOL_INSIDE = re.compile(r"(?<=[a-z])[\u2600-\u27bf\U0001f300-\U0001faff]+(?=[a-z])")
# Numbers with a unit, times, versions, addresses: not leetspeak though they mix letters and symbols.
_UNITS = re.compile(r"\d+(?:[.,:/-]\d+)*[a-z]{0,3}[^\w\s]*|\S+@\S+\.\w+[^\w\s]*")
# Letters each followed by the same sort of gap: `i d i o t`, `k.i.l.l`. Of letters with spaces there must be four, of others three.
_SPACED_LETTERS = re.compile(
    r"(?<!\w)(?:[a-z0-9@$!](?: [a-z0-9@$!]){3,}|[a-z0-9@$!](?:[.\-_*/|~,·•+][a-z0-9@$!]){2,})(?!\w)"
)
_SPACED_OF_ANY_CASE = re.compile(_SPACED_LETTERS.pattern, re.IGNORECASE)
# Two letters or more with single spaces between them, in a text where words stand further apart.
_APART = re.compile(r"(?<!\w)\w(?: \w)+(?!\w)")
_SPACED_OUT = re.compile(r"(?<!\w)\w(?: \w)+ {2,}\w(?: \w)+(?!\w)")
_GAP = re.compile(r"[ .\-_*/|~,·•+]")
# Marks between letters of a word, more than one of them: `k_i_ll`, `st.u.pid`; not `e.g.`, `well-known`, `don't`.
_MARKED_WORD = re.compile(r"(?<![\w@/.:-])[a-z]{1,3}(?:[.\-_*~|·•+]{1,2}[a-z]{1,3}){2,}(?![\w@/:-])")
# A word of four letters or more, each set apart by a mark: `k.i.l.l`; not `e.g.`, `U.S.A.`.
_DOTTED_WORD = re.compile(r"(?<!\w)[a-z](?:[.\-_*|~·•+][a-z]){3,}(?!\w)", re.IGNORECASE)
_MARK_INSIDE = re.compile(r"[a-z0-9@$!][.\-_*/|~,·•+][a-z0-9@$!]")
_DRAWN_OUT = re.compile(r"([a-z])\1{2,}")


def plain_view(text: str) -> str:
    """The text in NFKC, without invisible characters, with single spaces. Case is kept."""
    if not text.isascii():
        text = _FLOOD.sub(r"\1\1\1", _INVISIBLE.sub("", text))
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    if not text.isprintable():
        text = _CONTROL_OR_SPACE.sub(" ", text)
    return " ".join(text.split())


def folded_view(plain: str) -> str:
    """Lower case, without accents, look-alike letters, emoji words, leetspeak, spaced-out or drawn-out letters."""
    text = plain.lower()
    if not text.isascii():
        text = _SYMBOL_INSIDE.sub("*", text).translate(_EMOJI).translate(_LOOK_ALIKES)
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    words = text.split(" ")
    if sum(len(word) == 1 for word in words) > 3 or _MARK_INSIDE.search(text):
        text = _SPACED_LETTERS.sub(lambda letters: _joined(letters.group()), text)
        text = _MARKED_WORD.sub(lambda letters: _joined(letters.group()), text)
        words = text.split(" ")
    if not _LEET_SYMBOLS.isdisjoint(text):
        text = " ".join(word if _LEET_SYMBOLS.isdisjoint(word) else _unleeted(word) for word in words)
    return _DRAWN_OUT.sub(r"\1", text)


def _joined(letters: str) -> str:
    joined = _GAP.sub("", letters)
    return joined if any(c.isalpha() for c in joined) else letters


def _unleeted(word: str) -> str:
    """`1d10t`, `$h!t`, `a$$` with letters for symbols; `100`, `3.5`, `10am`, `wow!` as they are."""
    end = len(word.rstrip("!|+"))
    if _UNITS.fullmatch(word) or not any(c.isalpha() for c in word):
        return word
    return word[:end].translate(_LEET) + word[end:]


def _unspaced(text: str) -> str:
    """Letters set apart by single spaces, words by more: `k i l l  y o u`."""
    return _APART.sub(lambda letters: letters.group().replace(" ", ""), text) if _SPACED_OUT.search(text) else text


def _is_set_apart(plain: str) -> bool:
    """Most words are letters that stand alone (`k i l l`), or any word of four letters is written with marks (`k.i.l.l`)."""
    words = plain.split(" ")
    if len(words) > 6 and sum(len(word) == 1 for word in words) * 2 > len(words):
        return True
    return bool(_DOTTED_WORD.search(plain)) or len(_MARK_INSIDE.findall(plain.lower())) * 5 > len(plain)


def views(text: str) -> tuple[str, ...]:
    """The one or two texts a detector looks at; a text's score is the highest of its views.

    The second view is left out where folding changes nothing but case, as in most texts. A text in letters set apart is only looked
    at with its letters joined: to a model, single letters are noise.
    """
    plain = plain_view(text if "  " not in text else _unspaced(text))
    if _is_set_apart(plain):
        plain = _SPACED_OF_ANY_CASE.sub(lambda letters: _joined(letters.group()), plain)
    folded = folded_view(plain)
    return (plain,) if folded == plain.lower() else (plain, folded)
