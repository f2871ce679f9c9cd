"""Where a text may be cut for analysis: by a function of the text alone, never of how it arrived.

This is what makes a stream give the same result in any chunking. `CutRule.next_cut` decides on a cut only when the
characters that decide are there, so more text coming later never changes a cut already made.
"""

import re
from dataclasses import dataclass

# Blanks between two words, or the empty place behind a full-width full stop. A run of blanks longer than 64 counts as
# several. The character behind a gap must be there: it has a say in whether the gap is a cut.
_GAP = re.compile(r"\s{1,64}(?=\S)|\s{64}(?=\s)|(?<=[。！？])(?=\S)")
_CLOSERS = "\"'”’)]}*_`"
_STOPS = ".!?…。！？"
# What may stand inside a number that is written in groups: phone numbers, cards, record numbers.
_NUMBERISH = re.compile(r"[0-9+(#]")
_NUMBER_TAIL = re.compile(r"[0-9)\-–/+(#:]$")
# Signs of quotation, comment or table at the start of a line: what they stand before decides.
_LINE_SIGNS = re.compile(r"(?:(?:>|#|//|\*|\|)[ \t]{0,8}){0,4}")
_SPOKEN = r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|ten|double|triple|[a-z]{2,5}teen|[a-z]{3,5}ty)"
_SPOKEN_TAIL = re.compile(rf"\b{_SPOKEN}[.,;]{{0,3}}$", re.IGNORECASE)
_SPOKEN_HEAD = re.compile(rf"{_SPOKEN}\b", re.IGNORECASE)
_LONGEST_SPOKEN = 10
# A line that ends in the middle of an address, a key, an encoding, or in an address that is being spelled.
_UNFINISHED_LINE = re.compile(
    r"(?:@[\w.\-]{0,120}|\w[_+\-]|(?<![\w.])[\w\-]{1,64}[._+\-]\w{1,64}|[A-Za-z0-9+/_=\-]{16,})$"
    r"|\bdot\b|[\[({](?:at|dot)[\])}]|\bat$",
    re.IGNORECASE,
)
# "86626 Paul Mountains" at the end of a line: the town may stand on the next.
_STREET_TAIL = re.compile(r"[0-9][0-9A-Za-z]{0,5}(?: [A-Z][\w.'’\-]{0,24}){1,4},?$")
# Full stops that end no sentence: titles, street types, initials ("J. Smith").
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:dr|mr|mrs|ms|prof|st|no|nr|ave|rd|blvd|ln|apt|ste|jr|sr|rev|hon|capt|lt|col|gen|sgt|mt|ft|vs|etc"
    r"|e\.g|i\.e|d\.o\.b|m\.r\.n|tel|ph|ext|fax|dept|fig|approx|[a-z])\.$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class CutRule:
    """Sizes in characters.

    shortest: no cut before it. patience: where no sentence or line has ended within this much more, cut between
    words, and between characters if there are no words. longest: a segment grows no further than this (plus
    patience), even if personal data stands at its end. context: how much of what went before is shown to the
    detectors again.

    steady, ramp: a text's first segment may be as short as `shortest`, so that its reader waits little; later ones are
    longer by one character for every `ramp` of the text that went before, up to `steady`, so that less context is read
    again. How long a segment is depends on where it stands in the text, and on nothing else.
    """

    shortest: int
    patience: int
    longest: int
    context: int
    steady: int = 0
    ramp: int = 2

    def shortest_at(self, position: int) -> int:
        """The least length of a segment that begins at this position of the text."""
        return max(self.shortest, min(self.steady, self.shortest + position // self.ramp))

    def next_cut(self, text: str, *, position: int = 0, minimum: int = 0, final: bool = False) -> int | None:
        """The first cut at or after max(shortest_at(position), minimum); None if more text is needed to tell.

        With `final` the end of the text is a cut. A cut found without `final` is found with it too.
        """
        start = max(self.shortest_at(position), minimum)
        limit = start + self.patience
        candidates: list[tuple[int, int]] = []
        for gap in _GAP.finditer(text, max(0, start - 64)):
            before, after = gap.span()
            if after > limit:
                break
            if after < start:
                continue
            ends = _ends_thought(text, before, after, final=final)
            if ends is None:
                return None
            if ends:
                return after
            candidates.append((before, after))
        if len(text) > limit + 64:
            return _calmest(text, candidates) or limit
        return len(text) if final else None

    def tail(self, text: str) -> str:
        """The context that the next segment is shown: whole words."""
        if len(text) <= self.context:
            return text
        cut = text[-self.context :]
        word = re.search(r"\s", cut)
        return cut[word.end() :] if word else cut


def _ends_thought(text: str, before: int, after: int, *, final: bool) -> bool | None:
    """A sentence or a line ends here, and no number or other value runs across. None: more text must tell."""
    head = text[max(0, before - 64) : before]
    runs_on = _number_runs_on(head, text, after, final=final)
    if runs_on is not False:
        return None if runs_on is None else False
    if "\n" in text[before:after]:
        return text[after] != "@" and not (_STREET_TAIL.search(head) or _UNFINISHED_LINE.search(head))
    stripped = head.rstrip(_CLOSERS)
    return (
        len(head) - len(stripped) <= 3
        and stripped[-1:] in tuple(_STOPS)
        and not stripped[-2:-1].isspace()  # "example . com"
        and _ABBREVIATION.search(stripped) is None
    )


def _number_runs_on(head: str, text: str, after: int, *, final: bool) -> bool | None:
    """Digits, or number words, on both sides."""
    in_digits, in_words = _NUMBER_TAIL.search(head), _SPOKEN_TAIL.search(head)
    if not in_digits and not in_words:
        return False
    signs = _LINE_SIGNS.match(text, after)
    start = signs.end() if signs else after
    if start >= len(text) and not final:
        return None
    if in_digits and _NUMBERISH.match(text, start):
        return True
    if not in_words:
        return False
    if start + _LONGEST_SPOKEN >= len(text) and not final and text[start:].isalpha():
        return None
    return _SPOKEN_HEAD.match(text, start) is not None


def _calmest(text: str, candidates: list[tuple[int, int]]) -> int | None:
    """The last gap between two words in lower case; else the last that splits no number; else the last."""
    calm = [after for before, after in candidates if text[before - 1].islower() and text[after].islower()]
    whole = [after for before, after in candidates if not (text[before - 1].isdigit() and text[after].isdigit())]
    for choice in (calm, whole, [after for _, after in candidates]):
        if choice:
            return choice[-1]
    return None
