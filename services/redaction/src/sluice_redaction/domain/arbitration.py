"""Arbitration: many overlapping findings in, findings that do not overlap out, and nothing flagged is left uncovered.

The rules, in order:

1. parts of one thing become the whole: names that touch or overlap are one PERSON; house number, street, town and
   post code that follow each other are one STREET_ADDRESS;
2. where findings of different kinds overlap, the longest wins, then the confirmed, then the highest score, then the
more
   specific kind (`Kind.rank`);
3. what sticks out of a loser on either side stays a finding of the loser's kind, if it holds a letter or digit.

So whatever any accepted finding covered is covered in the end (spaces and punctuation at the edges aside).
"""

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import replace

from .findings import Finding
from .kinds import KINDS

# Between two halves of a name: blanks, or blanks around a middle initial ("John Q. Public", "Mary-Jane", "O'Neil").
# No newline: two names on two lines are two people.
_NAME_JOINT = re.compile(r"[ \t\u00a0]{0,3}(?:\w\.[ \t\u00a0]{0,3}|[-'’])?")
# Between two parts of an address: commas, blanks, one line break.
_ADDRESS_JOINT = re.compile(r"(?:[ \t]{0,3}(?:,|\n|\r\n|\.|#)?[ \t]{0,3}){1,2}")
_LAST_RANK = len(KINDS)
_STREET, _PLACES = "STREET_ADDRESS", ("LOCATION", "UK_POSTCODE", "CA_POSTAL_CODE")


def arbitrate(findings: Iterable[Finding], text: str) -> list[Finding]:
    """Non-overlapping findings in order of position. Raises nothing; findings outside the text are clipped."""
    tidy = [trimmed for finding in findings if (trimmed := _trim(finding, text)) is not None]
    joined = _join(_join(tidy, text, kinds={"PERSON"}, joint=_NAME_JOINT), text, kinds={_STREET}, joint=_ADDRESS_JOINT)
    taken: list[Finding] = []
    for finding in sorted(joined, key=_strength):
        for piece in _uncovered(finding, taken, text):
            insort(taken, piece, key=_start)
    return taken


def join_addresses(findings: Iterable[Finding], text: str) -> list[Finding]:
    """Turns a place that directly follows or precedes a street into part of the address.

    Runs before the policy is applied: a town beside a street is redacted though towns alone are not.
    """
    ordered = sorted(findings)
    streets = sorted((finding for finding in ordered if finding.kind == _STREET), key=lambda one: one.start)
    places = [finding for finding in ordered if finding.kind in _PLACES]
    others = [finding for finding in ordered if finding.kind not in (_STREET, *_PLACES)]
    result: list[Finding] = []
    chain: list[Finding] = []
    for finding in sorted(streets + places):
        if chain and not _connected(max(one.end for one in chain), finding.start, text, _ADDRESS_JOINT):
            result.extend(_settled(chain))
            chain = []
        chain.append(finding)
    return others + result + _settled(chain)


def _settled(chain: Sequence[Finding]) -> list[Finding]:
    """A chain with a street in it is an address throughout; one without stays as it was."""
    if not any(finding.kind == _STREET for finding in chain):
        return list(chain)
    return [replace(finding, kind=_STREET) for finding in chain]


def _join(findings: Sequence[Finding], text: str, *, kinds: set[str], joint: re.Pattern[str]) -> list[Finding]:
    """Unites findings of the given kinds that overlap or are connected by `joint`; the best score names the source."""
    others = [finding for finding in findings if finding.kind not in kinds]
    united: list[Finding] = []
    for finding in sorted(finding for finding in findings if finding.kind in kinds):
        last = united[-1] if united else None
        if last is not None and _connected(last.end, finding.start, text, joint):
            best = max(last, finding, key=lambda one: one.score)
            united[-1] = replace(best, start=last.start, end=max(last.end, finding.end))
        else:
            united.append(finding)
    return others + united


def _connected(end: int, start: int, text: str, joint: re.Pattern[str]) -> bool:
    return start <= end or (start - end <= 8 and joint.fullmatch(text, end, start) is not None)


def _strength(finding: Finding) -> tuple[int, bool, float, int, Finding]:
    kind = KINDS.get(finding.kind)
    return (
        finding.start - finding.end,
        not finding.confirmed,
        -finding.score,
        kind.rank if kind else _LAST_RANK,
        finding,
    )


def _uncovered(finding: Finding, taken: Sequence[Finding], text: str) -> list[Finding]:
    """The stretches of a finding that no stronger finding has taken; those taken are in order and apart."""
    rest: list[Finding] = []
    start = finding.start
    first = bisect_right(taken, finding.start, key=_end)
    for other in taken[first : bisect_left(taken, finding.end, key=_start)]:
        if other.start > start:
            rest.append(replace(finding, start=start, end=other.start))
        start = max(start, other.end)
    if start < finding.end:
        rest.append(replace(finding, start=start))
    return [trimmed for piece in rest if (trimmed := _trim(piece, text)) is not None]


def _start(finding: Finding) -> int:
    return finding.start


def _end(finding: Finding) -> int:
    return finding.end


def _trim(finding: Finding, text: str) -> Finding | None:
    """Without blanks at its edges; None if nothing that could identify anybody is left."""
    start, end = max(0, finding.start), min(len(text), finding.end)
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if not any(character.isalnum() for character in text[start:end]):
        return None
    return replace(finding, start=start, end=end)
