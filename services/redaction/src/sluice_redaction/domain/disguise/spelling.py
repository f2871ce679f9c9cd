"""Disguise by spelling: "john dot smith at example dot com", digits in words, l e t t e r s  a p a r t, digits apart."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .views import Edit

_SIGNS_TO_BLANKS = str.maketrans(dict.fromkeys(",.;:!?()[]{}<>-/\"'\n\t", " "))
_NO_DIGITS = str.maketrans(dict.fromkeys("0123456789"))


def spelling_edits(text: str) -> Iterator[Edit]:
    """What spelling hides. Whether a costlier look is needed is told from the words, taken apart once."""
    lower = text.translate(_SIGNS_TO_BLANKS).lower()
    words = lower.split()
    known = set(words)
    if "dot" in known or _may_hold_address(text, known):
        yield from _addresses(text)
    if not known.isdisjoint(_SPOKEN_HINTS) and _has_spoken_run(words):
        yield from _spoken_numbers(text)
    if len([word for word in known if len(word) == 1]) >= 2 and _has_letters_apart(text):
        yield from _letters_apart(text)
    if len(text) - len(text.translate(_NO_DIGITS)) >= 9:
        yield from _digits_apart(text)


# --- addresses --------------------------------------------------------------------------------------------------------
# Words have letters and digits only and signs have none, so that there is one way to read a text.
_WORD = r"[A-Za-z0-9]{1,32}"
_OPEN, _CLOSE = r"[ \t]{0,2}[\[({<][ \t]{0,2}", r"[ \t]{0,2}[\])}>][ \t]{0,2}"
_DOT = (
    rf"(?:{_OPEN}(?:dot|d0t|\.|period|punkt|punto){_CLOSE}|[ \t\n]{{1,3}}(?:dot|punkt|punto)[ \t\n]{{1,3}}|[ \t]{{1,2}}\.[ \t]{{1,2}}"
    r"|[\-_]dot[\-_]|\.)"
)
_AT = rf"(?:{_OPEN}(?:at|@|ät|arroba){_CLOSE}|[ \t\n]{{1,3}}(?:at|arroba|at[ \-]sign)[ \t\n]{{1,3}}|[\-_]at[\-_]|@|[ \t]{{1,2}}@[ \t]{{1,2}})"
_SIGN = rf"(?:{_DOT}|[ \t]{{1,3}}(?:underscore|dash|hyphen|minus|plus)[ \t]{{1,3}}|[._+\-])"
_ADDRESS = re.compile(
    rf"(?<![A-Za-z0-9@])(?P<local>{_WORD}(?:{_SIGN}{_WORD}){{0,5}})(?P<at>{_AT})"
    rf"(?P<domain>{_WORD}(?:(?:{_DOT}|-){_WORD}){{0,4}}{_DOT}[A-Za-z]{{2,24}})(?![A-Za-z0-9@])",
    re.IGNORECASE,
)
_AT_DOMAIN = re.compile(r"at(?:[ \t]{1,3}|[_\-])[\w\-]{1,63}\.[A-Za-z]{2}", re.IGNORECASE)
_AT_CLOSED = ("at)", "at]", "at}", "at>", "AT)", "AT]", "AT}", "AT>", "@)", "@]", "@}", " @", "@ ")
_PLAIN_AT = re.compile(r"\s+at\s+", re.IGNORECASE)
_WORD_RE, _AT_RE, _SIGN_RE = (re.compile(one, re.IGNORECASE) for one in (_WORD, _AT, _SIGN))
_AT_IN_NAMES = ("_at_", "-at-")
_USUAL_END = re.compile(r"(?:com|org|net|edu|gov|info|co|io|uk|de|fr|eu|us|ca|au|in)\Z", re.IGNORECASE)
_DOT_WORD = re.compile(r"dot|punkt|punto|[\[({<]", re.IGNORECASE)
_MAIL_WORD = re.compile(r"(?:e-?mail|mail(?:ing)?|address|contact|reach|write|inbox)\b[^\n]{0,24}\Z", re.IGNORECASE)
_SPELLED_SIGNS = {"underscore": "_", "dash": "-", "hyphen": "-", "minus": "-", "plus": "+"}
# "look at example dot com": before the "at" stands no name. After it, an article begins no domain.
_NO_LOCAL_TEXT = """
look looking looked looks see seen check out arrive arrived available found find located live lives living work works
working worked stay staying meet met is are was were be been being it me us him her them you this that there here page
site website online visit visiting hosted posted published shop blog store based back read anything something available
start started login sign register order buy more info information details contact
"""
_NO_DOMAIN_TEXT = "the a an this that my your our their his her its each every any some all one"
_NO_LOCAL, _NO_DOMAIN = frozenset(_NO_LOCAL_TEXT.split()), frozenset(_NO_DOMAIN_TEXT.split())


def _may_hold_address(text: str, words: set[str]) -> bool:
    if "@" in text or not words.isdisjoint(("at", "ät", "arroba")):
        return any(sign in text for sign in _AT_CLOSED) or "arroba" in words or _AT_DOMAIN.search(text) is not None
    return "_at_" in text or "-at-" in text


def _addresses(text: str) -> Iterator[Edit]:
    for match in _ADDRESS.finditer(text):
        if _is_address(match, text):
            yield from _address_edits(match, text)


def _is_address(match: re.Match[str], text: str) -> bool:
    if match["at"].lower() in _AT_IN_NAMES and not _USUAL_END.search(match["domain"]):
        return False  # an identifier of code
    if not _PLAIN_AT.fullmatch(match["at"]):
        return True
    local, domain = match["local"].lower(), match["domain"].lower()
    if _WORD_RE.match(domain)[0] in _NO_DOMAIN:  # type: ignore[index]  # the pattern begins with a word
        return False
    if not local.isalnum():
        return True
    if _DOT_WORD.search(domain):
        return local not in _NO_LOCAL
    return local not in _NO_LOCAL and bool(_MAIL_WORD.search(text, max(0, match.start() - 40), match.start()))


def _address_edits(match: re.Match[str], text: str) -> Iterator[Edit]:
    place = match.start()
    while (word := _WORD_RE.match(text, place)) and word.end() < match.end():
        at = word.end() == match.start("at")
        gap = (_AT_RE if at else _SIGN_RE).match(text, word.end())
        if gap is None:
            return
        becomes = "@" if at else _sign(gap[0])
        if becomes != gap[0]:
            yield Edit(*gap.span(), becomes, "spelled")
        place = gap.end()


def _sign(gap: str) -> str:
    bare = gap.strip().lower()
    return _SPELLED_SIGNS.get(bare, bare if bare in ("_", "-", "+") else ".")


# --- numbers ----------------------------------------------------------------------------------------------------------
_UNIT_WORDS = "zero one two three four five six seven eight nine"
_TEEN_WORDS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: str(digit) for digit, word in enumerate(_UNIT_WORDS.split())}
_UNITS |= dict.fromkeys(("oh", "o", "nought", "naught"), "0")
_TEENS = {word: str(number) for number, word in enumerate(_TEEN_WORDS.split(), 10)}
_TENS = {word: str(digit) for digit, word in enumerate(_TEN_WORDS.split(), 2)}
_TIMES = {"double": 2, "triple": 3, "treble": 3}
_SPOKEN_HINTS = frozenset({*_UNITS, *_TEENS, *_TENS, *_TIMES})
_BETWEEN_HINTS = frozenset(("dash", "hyphen", "minus", "then", "and"))
_NUMBER = "|".join(sorted({*_UNITS, *_TEENS, *_TENS}, key=len, reverse=True))
_ITEM = rf"(?:(?:(?:double|triple|treble)[ \-]{{1,2}})?(?:{_NUMBER})|[0-9]{{1,4}})(?![A-Za-z0-9])"
_BETWEEN = (
    r"(?:[ \t]{0,2}(?:[,;/\-]|\.{1,3})[ \t]{0,2}|[ \t]{1,3}(?:(?:dash|hyphen|minus|then|and then)[ \t]{1,3})?"
    r"|[,.]?[ \t]{0,2}\r?\n[> \t]{0,4})"
)
_SPOKEN = re.compile(rf"(?<![A-Za-z0-9])(?:plus[ ])?{_ITEM}(?:{_BETWEEN}{_ITEM}){{3,60}}", re.IGNORECASE)
_ITEM_RE = re.compile(rf"(?P<plus>plus(?=[ ]))|{_ITEM}", re.IGNORECASE)
_GROUPS: dict[int, Sequence[int]] = {9: (3, 5), 10: (3, 6), 11: (1, 4, 7), 12: (2, 5, 8)}


def _has_spoken_run(words: Sequence[str]) -> bool:
    """Four number words in a row."""
    run = 0
    for word in words:
        if word in _SPOKEN_HINTS:
            run += 1
            if run == 4:
                return True
        elif word not in _BETWEEN_HINTS and not word.isdigit():
            run = 0
    return False


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A number word, or digits among number words."""

    start: int
    end: int
    digits: str
    in_words: bool


def _spoken_numbers(text: str) -> Iterator[Edit]:
    for match in _SPOKEN.finditer(text):
        items = _items(text, match)
        digits = sum(len(item.digits) for item in items if item.digits != "+")
        words = sum(item.in_words for item in items)
        if digits >= 7 and words >= 4 and 2 * words >= len(items) and not _counts_up(items):
            yield from _spoken_edits(items, digits)


def _items(text: str, match: re.Match[str]) -> list[_Spoken]:
    items: list[_Spoken] = []
    for found in _ITEM_RE.finditer(text, *match.span()):
        said = found[0].lower()
        last = items[-1] if items else None
        if found["plus"]:
            items.append(_Spoken(*found.span(), "+", False))
        elif last is not None and _completes(last, said, text[last.end : found.start()]):
            items[-1] = _Spoken(last.start, found.end(), last.digits[0] + _UNITS[said], True)
        else:
            items.append(_Spoken(*found.span(), _digits(said), not said.isdigit()))
    return items


def _completes(last: _Spoken, said: str, between: str) -> bool:
    """ "forty" and "one" are 41, "forty" and "oh" are not."""
    whole = last.in_words and len(last.digits) == 2 and last.digits[1] == "0" and last.digits != "10"
    return whole and _UNITS.get(said, "0") != "0" and between in (" ", "-")


def _digits(said: str) -> str:
    if said.isdigit():
        return said
    *times, word = re.split(r"[ \-]+", said)
    digits = _UNITS.get(word) or _TEENS.get(word) or _TENS[word] + "0"
    return digits * _TIMES[times[0]] if times else digits


def _counts_up(items: Sequence[_Spoken]) -> bool:
    """One, two, three, four ... or backwards: nobody's number."""
    steps = {int(two.digits) - int(one.digits) for one, two in pairwise(items) if "+" not in (one.digits, two.digits)}
    return steps in ({1}, {-1})


def _spoken_edits(items: Sequence[_Spoken], digits: int) -> Iterator[Edit]:
    """Each word its digits; between words nothing, or a dash where numbers of that length have one."""
    dashes = set(_GROUPS.get(digits, ()))
    place, end = 0, items[0].start
    for item in items:
        if item.start > end:
            yield Edit(end, item.start, "-" if place in dashes else "", "spoken")
        shown = "".join(
            ("-" if number and place + number in dashes else "") + digit for number, digit in enumerate(item.digits)
        )
        yield Edit(item.start, item.end, shown, "spoken")
        place, end = place + (0 if item.digits == "+" else len(item.digits)), item.end


# --- letters and digits apart -----------------------------------------------------------------------------------------
_LETTERS_APART = re.compile(r"(?<!\S)\S(?:[ \t]{1,2}\S){5,400}(?:(?=[.,;:!?](?:\s|$))|(?!\S))")
_BLANKS = re.compile(r"[ \t]+")
_DIGITS_APART = re.compile(r"(?<![\w.])[0-9]{1,4}(?:(?:[ .\-_/*·•]{1,4}|[ ]{1,2}\|[ ]{1,2})[0-9]{1,4}){3,18}(?!\w)")
_APART = re.compile(r"[^0-9]+")
_IP_OR_DATE = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|(?:19|20)[0-9]{2}[\-/.][0-9]{1,2}[\-/.][0-9]{1,2}.*")


def _has_letters_apart(text: str) -> bool:
    return len([word for word in text.split() if len(word) == 1]) >= 6


def _letters_apart(text: str) -> Iterator[Edit]:
    """One blank parts letters, two part words; a number gets the dashes of numbers of its length."""
    for match in _LETTERS_APART.finditer(text):
        digits = sum(character.isdigit() for character in match[0])
        number = digits >= 9 and not any(character.isalpha() for character in match[0])
        dashes, place = set(_GROUPS.get(digits, ()) if number else ()), 0
        for blanks in _BLANKS.finditer(text, *match.span()):
            place += text[blanks.start() - 1].isdigit()
            apart = "" if number or len(blanks[0]) == 1 else " "
            yield Edit(*blanks.span(), "-" if place in dashes else apart, "spaced")
            dashes.discard(place)


def _digits_apart(text: str) -> Iterator[Edit]:
    for match in _DIGITS_APART.finditer(text):
        gaps = list(_APART.finditer(text, *match.span()))
        digits = match.end() - match.start() - sum(len(gap[0]) for gap in gaps)
        usual = gaps[0].start() - match.start() >= 3 and all(gap[0] in (" ", "-") for gap in gaps)
        if 9 <= digits <= 19 and not usual and not _IP_OR_DATE.fullmatch(match[0]):
            dashes, place = set(_GROUPS.get(digits, ())), 0
            end = match.start()
            for gap in gaps:
                place += gap.start() - end
                end = gap.end()
                yield Edit(*gap.span(), "-" if place in dashes else "", "spaced")
