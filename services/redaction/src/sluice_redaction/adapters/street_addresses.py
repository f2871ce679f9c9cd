"""Street addresses in English form, for those the model misses: a number, capitalised words, a word for a street."""

import re

from .grouped_patterns import GroupedPattern, GroupedPatternRecognizer

_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|Way|Parkway|Pkwy"
    r"|Highway|Hwy|Circle|Cir|Crescent|Close|Row|Alley|Trail|Plaza)\b\.?"
)
_UNIT = r"(?:,?[ ](?:Apt|Apartment|Suite|Ste|Unit|Floor|Flat)\.?[ ]?\#?[0-9]{1,5}[A-Za-z]?)?"
_PATTERNS = (
    GroupedPattern(
        "number and street",
        re.compile(
            r"(?<![0-9A-Za-z.,$])(?P<value>[0-9]{1,5}[A-Za-z]?[ ](?:[NSEW]\.?[ ])?(?:[A-Z0-9][A-Za-z0-9'’.\-]{0,24}[ ]){1,4}"
            + _STREET + _UNIT + ")"
        ),
        0.75,
    ),
    GroupedPattern("post box", re.compile(r"\b(?P<value>P\.?[ ]?O\.?[ ]Box[ ][0-9]{1,8})\b"), 0.75),
)


class StreetAddressRecognizer(GroupedPatternRecognizer):
    """Finds house number with street."""

    def __init__(self) -> None:
        super().__init__("STREET_ADDRESS", _PATTERNS, name="StreetAddressRecognizer")
