"""What counts of the words that the name tagger marks: a net sees likely values, and knows nothing of tokens."""

import re

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


def is_plausible(finding: Finding, text: str) -> bool:
    """For numbers: a whole token of a likely length. Else: a word that is no label, and for persons not a piece of a user
    name, an address or a number."""
    if finding.kind in _NUMBERS:
        digits = len(_DIGIT.findall(text, finding.start, finding.end))
        return _FEWEST_DIGITS <= digits <= _MOST_DIGITS and not _is_cut_out(finding, text, _TOKEN_SIGN)
    words = _WORD.findall(text, finding.start, finding.end)
    if not words or all(is_label(word) for word in words):
        return False
    return finding.kind != "PERSON" or not _is_cut_out(finding, text, _NO_NAME)


def _is_cut_out(finding: Finding, text: str, foreign: re.Pattern[str]) -> bool:
    """The token that the finding begins or ends in goes on with a sign that is foreign to its kind."""
    before = _TOKEN_BEFORE.search(text, max(0, finding.start - 64), finding.start)
    after = _TOKEN_AFTER.match(text, finding.end)
    return any(rest is not None and foreign.search(rest[0]) is not None for rest in (before, after))
