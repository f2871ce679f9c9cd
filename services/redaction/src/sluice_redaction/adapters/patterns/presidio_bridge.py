"""Presidio's recognizers in our engine: their patterns and checks are used as they are, their way of running them is not."""

import re
from collections.abc import Callable, Iterable

from presidio_analyzer import PatternRecognizer

from .context import Context
from .recognizer import Check, Pattern, Recognizer


def from_presidio(
    theirs: PatternRecognizer,
    check: str = "",
    *,
    context: Iterable[str] = (),
    needs_context: bool = True,
    check_suffices: bool = False,
    confirmed: bool = False,
    ignore_case: bool = True,
    least_score: float = 0.0,
    veto: Callable[[str, int, int], bool] | None = None,
) -> Recognizer:
    """A recognizer that finds what theirs finds beside a word.

    check: what theirs checks ("luhn"); empty if it checks nothing. context: words added to theirs. ignore_case: whether
    patterns match small letters, as they do with Presidio. least_score: their patterns below it are left out.
    """
    words = [*(theirs.context or ()), *context]
    return Recognizer(
        name=str(theirs.name),  # type: ignore[has-type]  # Presidio sets it without a type
        kind=theirs.supported_entities[0],
        patterns=_patterns(theirs, ignore_case=ignore_case, least_score=least_score),
        context=Context(words) if words else None,
        needs_context=needs_context,
        check=Check(check, _verdict(theirs)) if check else None,
        check_suffices=check_suffices,
        confirmed=confirmed,
        veto=veto,
    )


def _patterns(theirs: PatternRecognizer, *, ignore_case: bool, least_score: float) -> list[Pattern]:
    """Compiled by `re`, which is faster than the `regex` package, with one meaning of \\d and \\w for all engines."""
    flags = re.ASCII | re.DOTALL | re.MULTILINE | (re.IGNORECASE if ignore_case else 0)
    return [
        # An inline flag in the middle, as some of theirs have it, is an error since Python 3.11.
        Pattern(one.name, re.compile(one.regex.replace("(?i)", ""), flags), max(one.score, 0.05))
        for one in theirs.patterns  # type: ignore[has-type]
        if one.score >= least_score
    ]


def _verdict(theirs: PatternRecognizer) -> Callable[[str], bool | None]:
    def verdict(value: str) -> bool | None:
        result: bool | None = theirs.validate_result(value)
        return False if result is False or theirs.invalidate_result(value) else result

    return verdict
