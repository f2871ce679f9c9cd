"""What counts of the words that the name tagger marks: a net sees likely values, and knows nothing of tokens."""

import re
from dataclasses import replace

from .findings import Finding
from .names import is_label

# Numbers are first of all the patterns' to find: the net took parts of hashes, of serial and tracking numbers for them.
# It is believed where a whole token has as many digits as telephone and identity numbers have ("* Ann Lee - 03434721815").
_NUMBERS = frozenset({"PHONE_NUMBER", "GOVERNMENT_ID", "US_BANK_NUMBER"})
_FEWEST_DIGITS, _MOST_DIGITS = 9, 15
_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"[^\W\d_]{2,}")
# What may go on before or behind a value within one token ("bryan_k", "FE45", "u.lee@"): 64 is more than any has.
_TOKEN_BEFORE, _TOKEN_AFTER = re.compile(r"[\w@+\-]{1,64}$"), re.compile(r"[\w@+\-]{1,64}")
_NO_NAME = re.compile(r"[\d_@]")
_TOKEN_SIGN = re.compile(r"[\w@\-]")
_FROM_DIGIT_TO_DIGIT = re.compile(r"[+(]{0,2}\d(?:.*\d)?", re.DOTALL)


def without_words(finding: Finding, text: str) -> Finding:
    """A telephone number without the words that the net took along: "867-5309 tonight"."""
    number = _FROM_DIGIT_TO_DIGIT.search(text, finding.start, finding.end) if finding.kind == "PHONE_NUMBER" else None
    return replace(finding, start=number.start(), end=number.end()) if number else finding


def is_plausible(finding: Finding, text: str) -> bool:
    """For numbers: a whole token of a likely length. Else: a word that is no label, no piece of a longer
    word, and for persons not a piece of a user name, an address or a number."""
    if finding.kind in _NUMBERS:
        digits = len(_DIGIT.findall(text, finding.start, finding.end))
        return _FEWEST_DIGITS <= digits <= _MOST_DIGITS and not _is_cut_out(finding, text, _TOKEN_SIGN)
    words = _WORD.findall(text, finding.start, finding.end)
    if not words or all(is_label(word) for word in words):
        return False
    if finding.kind == "STREET_ADDRESS":
        return not _is_piece_of_a_word(finding, text)
    return finding.kind != "PERSON" or not _is_cut_out(finding, text, _NO_NAME)


def _is_piece_of_a_word(finding: Finding, text: str) -> bool:
    """Without a blank in it, and the letters or digits go on: "afes7" of the key "38afes7a8"."""
    around = text[max(0, finding.start - 1) : finding.start] + text[finding.end : finding.end + 1]
    inside = text[finding.start : finding.end]
    return any(sign.isalnum() for sign in around) and not any(sign.isspace() for sign in inside)


def _is_cut_out(finding: Finding, text: str, foreign: re.Pattern[str]) -> bool:
    """The token that the finding begins or ends in goes on with a sign that is foreign to its kind."""
    before = _TOKEN_BEFORE.search(text, max(0, finding.start - 64), finding.start)
    after = _TOKEN_AFTER.match(text, finding.end)
    return any(rest is not None and foreign.search(rest[0]) is not None for rest in (before, after))
