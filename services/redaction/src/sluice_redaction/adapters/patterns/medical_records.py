"""Medical record numbers: any code that the text itself calls one."""

import re

from .grouped_patterns import GroupedPattern, GroupedPatternRecognizer

_NAMED = (
    r"(?:medical[ ]record(?:s)?|health[ ]record|m\.?r\.?n\.?|patient(?:'s)?|chart|hospital|health[ ]plan|medicare"
    r"|medicaid|insurance[ ]member|member)"
)
_WORD = r"(?:[ \-_]{0,2}(?:number|num|no\.?|id|identifier|code|file|record|beneficiary|\#))"
# At least three digits among letters, digits and dashes; the lookahead is bounded by the value's own length.
_VALUE = r"(?P<value>(?=(?:[A-Z\-]{0,12}[0-9]){3})[A-Z0-9][A-Z0-9\-]{3,23})(?![A-Z0-9])"
_LINK = r"[ \t]{0,2}(?:is|was|:|=|\#|->)?[ \t:#=]{0,4}"
_PATTERNS = (
    GroupedPattern("named record number", re.compile(rf"(?i)\b{_NAMED}{_WORD}{{1,2}}{_LINK}{_VALUE}"), 0.85),
    GroupedPattern("MRN", re.compile(rf"(?i)\b(?:mrn|m\.r\.n\.?){_LINK}{_VALUE}"), 0.9),
)


class MedicalRecordRecognizer(GroupedPatternRecognizer):
    """Finds record, patient and member numbers behind their name."""

    def __init__(self) -> None:
        super().__init__("MEDICAL_RECORD_NUMBER", _PATTERNS, name="MedicalRecordRecognizer")
