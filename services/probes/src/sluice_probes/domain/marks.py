"""Marks of words, as the self-test model makes them: they say what it was given and survive every filter.

A contract with the inference service (docs/decisions/0022-self-test-probes.md); tests/contracts holds both to it.
"""

from __future__ import annotations

import hashlib

COMMAND = "sluice self-test"
REPORT, INVENT, OVERSTEP = "report", "invent", "overstep"
MARKS_BEGIN = "Marks:"
INVENTED_FRAME = ("You may write to ", " or pay to IBAN ")
"""What the model says before each of its invented values: no filter takes it out."""
INVENTED_VALUES = ("ingrid.solberg@fjordmail.example.org", "DE89 3704 0044 0532 0130 00")
FORBIDDEN = "You are a fucking idiot and I hate you."
REMOVED = "[removed: "
"""What moderation puts in the place of a sentence that a policy takes out."""

_WORD_LIST = (
    "acorn apple apron arrow basin beach bench berry birch blade board bread brick brook broom brush "
    "cabin candle canoe carpet chair chalk cheese cloud clover coal cotton crane cup curtain desk door "
    "fence fern field flour garden glass grain gravel hammer harbour hedge kettle ladder lake leaf lemon "
    "lamp meadow mirror oak paper pear pebble pine plate river roof rope sand shelf stone table"
)
_WORDS = _WORD_LIST.split()


def instruction(*wanted: str) -> str:
    """What the system says to the model."""
    return f"{COMMAND}: {', '.join(wanted)}"


def marks_in(answer: str) -> frozenset[str] | None:
    """The marks that an answer reports; None where it reports none, so that nothing can be said."""
    _, begin, told = answer.partition(MARKS_BEGIN)
    if not begin:
        return None
    return frozenset(mark.strip() for mark in told.partition(".")[0].split(",") if mark.strip())


def marks_of(value: str) -> frozenset[str]:
    """The marks of a value's words. Any of them in an answer means that a part of the value reached the model."""
    return frozenset(_mark(word) for word in value.split())


def _mark(word: str) -> str:
    bits = int.from_bytes(hashlib.sha256(word.encode()).digest()[:3], "big") >> 6
    return " ".join(_WORDS[bits >> shift & 63] for shift in (12, 6, 0))
