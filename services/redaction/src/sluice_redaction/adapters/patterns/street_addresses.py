"""Street addresses in English form, for those the model misses: a number, capitalised words, a word for a street."""

import re

from .grouped_patterns import GroupedPattern, GroupedPatternRecognizer

_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|Way|Parkway|Pkwy"
    r"|Highway|Hwy|Circle|Cir|Crescent|Close|Row|Alley|Trail|Plaza)\b\.?"
)
_UNIT = r"(?:,?[ ](?:Apt|Apartment|Suite|Ste|Unit|Floor|Flat)\.?[ ]?\#?[0-9]{1,5}[A-Za-z]?)"
_NUMBER_AND_WORDS = r"(?<![0-9A-Za-z.,$])[0-9]{1,5}[A-Za-z]?(?:[ ][A-Z][A-Za-z'’.\-]{1,24}){1,3}"
_TOWN = r"[A-Z][A-Za-z'’.\-]{1,24}(?:[ ][A-Z][A-Za-z'’.\-]{1,24}){0,2},[ ][A-Z]{2}[ ][0-9]{5}(?:-[0-9]{4})?(?![0-9])"
_PATTERNS = (
    GroupedPattern(
        "number and street",
        re.compile(
            r"(?<![0-9A-Za-z.,$])(?P<value>[0-9]{1,5}[A-Za-z]?[ ](?:[NSEW]\.?[ ])?"
            r"(?:[A-Z0-9][A-Za-z0-9'’.\-]{0,24}[ ]){1,4}" + _STREET + f"(?:{_UNIT})?" + ")"
        ),
        0.75,
    ),
    # Any capitalised words behind a number, where a unit or a town with state and post code follows.
    GroupedPattern("number, words, unit", re.compile(rf"(?P<value>{_NUMBER_AND_WORDS}{_UNIT})"), 0.75),
    GroupedPattern(
        "number, words, town",
        re.compile(rf"(?P<value>{_NUMBER_AND_WORDS}(?:{_UNIT})?[ ,]{{0,2}}\n?[ ]{{0,4}}{_TOWN})"),
        0.8,
    ),
    GroupedPattern("town, state, post code", re.compile(rf"\b(?P<value>{_TOWN})"), 0.6),
    GroupedPattern(
        "military address",
        re.compile(
            r"\b(?P<value>(?:(?:PSC|Unit|CMR)[ ][0-9]{1,5},?[ ]Box[ ][0-9]{1,5}|US[A-Z]{1,4}[ ][A-Z][a-z]{1,20})?"
            r"[ ,]{0,2}\n?[ ]{0,4}\b[ADF]PO[ ]A[AEP][ ][0-9]{5})\b"
        ),
        0.75,
    ),
    GroupedPattern("post box", re.compile(r"\b(?P<value>P\.?[ ]?O\.?[ ]Box[ ][0-9]{1,8})\b"), 0.75),
)


class StreetAddressRecognizer(GroupedPatternRecognizer):
    """Finds house number with street."""

    def __init__(self) -> None:
        super().__init__("STREET_ADDRESS", _PATTERNS, name="StreetAddressRecognizer")
