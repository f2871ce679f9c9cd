"""Patterns that come from configuration, on RE2: a match takes time linear in the text, whatever the pattern.

All matches of a pattern like `x.*y|x` can still take the square of a text's length; texts are searched in segments of at
most some 8,000 code points (`domain.detection.WHOLE_TEXT`), so that is bounded too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import re2

VALUE = "value"
_LONGEST = 2_000
_MOST_MEMORY = 1 << 20
# Lone halves of surrogate pairs cannot be written as UTF-8, which RE2 reads.
_HALVES = re.compile("[\ud800-\udfff]")


class PatternRefused(ValueError):
    """RE2 cannot run it; the message says why."""


@dataclass(frozen=True)
class LinearPattern:
    """Fits `domain.recognizers.TextPattern`. The group `value`, if there is one, is what was looked for."""

    source: str
    _compiled: Any = field(init=False, repr=False, compare=False)
    _group: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises PatternRefused."""
        if len(self.source) > _LONGEST:
            raise PatternRefused(f"is longer than {_LONGEST} characters")
        options = re2.Options()
        options.max_mem, options.log_errors = _MOST_MEMORY, False
        try:
            # It calls the group (?P<value>...), as Python does; RE2 itself knows (?<value>...) too.
            compiled = re2.compile(self.source, options)
        except (re2.error, UnicodeEncodeError) as error:
            raise PatternRefused(f"RE2 refuses it: {_reason(error)}") from None
        if compiled.fullmatch("") is not None:
            raise PatternRefused("matches the empty text, and so everywhere: ask for at least one character")
        object.__setattr__(self, "_compiled", compiled)
        object.__setattr__(self, "_group", compiled.groupindex.get(VALUE, 0))

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        for match in self._compiled.finditer(_HALVES.sub("?", text)):
            start, end = match.span(self._group)
            if end > start >= 0:
                yield start, end

    def is_whole(self, text: str) -> bool:
        return self._compiled.fullmatch(_HALVES.sub("?", text)) is not None


def _reason(error: Exception) -> str:
    told = error.args[0] if error.args else error
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
