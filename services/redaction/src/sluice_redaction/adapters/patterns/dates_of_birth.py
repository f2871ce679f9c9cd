"""Dates of birth: a date is one only where the text says so."""

import re

from .grouped_patterns import GroupedPattern, GroupedPatternRecognizer

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"[0-3]?[0-9](?:st|nd|rd|th)?"
_YEAR = r"(?:1[89]|20)[0-9]{2}"
_DATE = (
    rf"(?:{_YEAR}[-/.][01]?[0-9][-/.][0-3]?[0-9]"  # 1980-03-12
    rf"|[0-3]?[0-9][-/.][0-3]?[0-9][-/.](?:{_YEAR}|[0-9]{{2}})"  # 12/03/1980, 3-12-80
    rf"|(?:the[ ])?{_DAY}(?:[ ]of)?[ -]{_MONTH},?[ -](?:{_YEAR}|[0-9]{{2}})"  # 12th of March, 1980
    rf"|{_MONTH}[ ]{_DAY},?[ ](?:{_YEAR}|'?[0-9]{{2}}))(?![0-9])"  # March 12, 1980
)
_SAID_BEFORE = (
    r"\b(?:date[ -]of[ -]birth|birth[ -]?date|d\.?o\.?b\.?|birthday|born(?:[ ]on|[ ]in)?|geboren(?:[ ]am)?)"
    # At most a few words or signs between: "is", "was on", "(mm/dd/yyyy):".
    r"[^\n0-9]{0,24}?"
)
_SAID_AFTER = (
    r"[ ]{0,2}\(?(?:date[ ]of[ ]birth|birthday|d\.?o\.?b\b|is[ ](?:my|her|his|their)[ ](?:birthday|date[ ]of[ ]birth))"
)
_PATTERNS = (
    GroupedPattern("birth keyword before", re.compile(rf"(?i){_SAID_BEFORE}(?P<value>\b{_DATE})"), 0.9),
    GroupedPattern("birth keyword after", re.compile(rf"(?i)(?P<value>\b{_DATE}){_SAID_AFTER}"), 0.8),
)


class DateOfBirthRecognizer(GroupedPatternRecognizer):
    """Finds dates beside a word of birth."""

    def __init__(self) -> None:
        super().__init__("DATE_OF_BIRTH", _PATTERNS, name="DateOfBirthRecognizer")
