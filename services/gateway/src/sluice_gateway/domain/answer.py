"""Cheap facts about an answer that quality metrics count."""

import re

# How the method is stated in the README: an answer is a refusal when its first 200 characters say so in one of these
# phrases. It misses polite detours and other languages; it is a trend line, not a judgement.
HEAD_CHARACTERS = 200
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|afraid|unable|not able)|i (?:can(?:'t|not)|won't|will not|must decline)|"
    r"as an ai\b|(?:can(?:'t|not)|unable to) (?:help|assist|comply) with)"
)


def is_refusal(head: str) -> bool:
    """Whether the answer's beginning reads like a refusal (English phrases only)."""
    return _REFUSAL.search(head[:HEAD_CHARACTERS].replace("’", "'").casefold()) is not None


def is_empty(head: str) -> bool:
    """Whether there is nothing but white space."""
    return not head.strip()
