"""Phone numbers in the forms that people write and the numbering plans do not know: extensions, invented area codes."""

import re

from .grouped_patterns import GroupedPattern, GroupedPatternRecognizer

_EXTENSION = r"(?:[ ]?(?:x|ext\.?|extension)[ ]?[0-9]{1,6})?(?![0-9])"
_PATTERNS = (
    GroupedPattern(
        "three groups",
        re.compile(
            r"(?<![0-9.\-+])(?P<value>(?:\+?(?:00)?[0-9]{1,3}[ .\-])?\(?[0-9]{3}\)?[ .\-]?[0-9]{3}[ .\-][0-9]{4}"
            + _EXTENSION
            + ")"
        ),
        0.6,
    ),
    GroupedPattern(
        "ten digits behind a word",
        re.compile(
            r"(?i)\b(?:phone|telephone|tel|cell|mobile|fax|call|text|sms|whatsapp)\b[^\n0-9]{0,16}(?P<value>\+?[0-9]{9,13}"
            + _EXTENSION
            + ")"
        ),
        0.7,
    ),
    GroupedPattern(
        "ten digits before a word",
        re.compile(
            r"(?i)(?<![0-9.])(?P<value>\+?[0-9]{9,13}"
            + _EXTENSION
            + r")[ \-(]{1,2}(?:phone|cell|mobile|fax|office|home|work|desk)\b"
        ),
        0.7,
    ),
)


class WrittenPhoneRecognizer(GroupedPatternRecognizer):
    """Finds telephone numbers by how they are written."""

    def __init__(self) -> None:
        super().__init__("PHONE_NUMBER", _PATTERNS, name="WrittenPhoneRecognizer")
