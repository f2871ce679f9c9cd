"""What the self-test model says: a function of what reached it, so that a probe can tell from the answer what the filters did.

The form of marks is a contract with sluice-probes (docs/decisions/0022-self-test-probes.md); tests/contracts holds both to it.
"""

from __future__ import annotations

import hashlib

COMMAND = "sluice self-test"
REPORT, INVENT, OVERSTEP = "report", "invent", "overstep"
MARKS_BEGIN = "Marks:"
INVENTED = "You may write to ingrid.solberg@fjordmail.example.org or pay to IBAN DE89 3704 0044 0532 0130 00."
"""Personal data that the model makes up: nobody's, of forms with a check."""
FORBIDDEN = "You are a fucking idiot and I hate you."
"""A sentence that every policy withholds, or should."""

# 64 words that no filter takes for a name, a number or a secret: a mark of three of them has 18 bits.
_WORD_LIST = (
    "acorn apple apron arrow basin beach bench berry birch blade board bread brick brook broom brush "
    "cabin candle canoe carpet chair chalk cheese cloud clover coal cotton crane cup curtain desk door "
    "fence fern field flour garden glass grain gravel hammer harbour hedge kettle ladder lake leaf lemon "
    "lamp meadow mirror oak paper pear pebble pine plate river roof rope sand shelf stone table"
)
_WORDS = _WORD_LIST.split()
_EDGES = ".,;:!?\"'()[]"


def answer(instruction: str, heard: str) -> str:
    """What the model says to an instruction, `sluice self-test: report, invent`, about the text it was given."""
    wanted = [word.strip() for word in instruction.partition(":")[2].split(",")]
    said = []
    if REPORT in wanted:
        said.append(f"{heard}\n{MARKS_BEGIN} {marks(heard)}.")
    if INVENT in wanted:
        said.append(INVENTED)
    if OVERSTEP in wanted:
        said.append(FORBIDDEN)
    return "\n".join(said) or "Nothing was asked of the self-test model."


def marks(text: str) -> str:
    """A mark for every word of the text that could be part of a value, in their order."""
    return ", ".join(mark(word) for word in (raw.strip(_EDGES) for raw in text.split()) if _could_be_value(word))


def mark(word: str) -> str:
    """Three words that stand for this one: no filter changes them, and what was put back into an answer does not change them."""
    bits = int.from_bytes(hashlib.sha256(word.encode()).digest()[:3], "big") >> 6
    return " ".join(_WORDS[bits >> shift & 63] for shift in (12, 6, 0))


def _could_be_value(word: str) -> bool:
    return any(character.isupper() or character.isdigit() or character == "@" for character in word)
