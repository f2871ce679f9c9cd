"""What the self-test probes are counted by: guards, kinds of seeded values, name origins. A contract with sluice-probes (tests/contracts)."""

from __future__ import annotations

from collections.abc import Mapping

GUARDS = ("input_redaction", "input_moderation", "output_moderation", "output_redaction", "restoration")
KINDS = ("PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "API_KEY")
ORIGINS = (
    "arabic", "chinese", "eastern_european", "hispanic", "south_asian", "west_african", "western_european",
)  # fmt: skip
"""Of names that the probes invented; never guessed of a person."""

ROUNDS, CHECKS, TRIED = "rounds", "checks", "tried"
"""Rounds that ended; guards that were looked at; those of them about which something was seen."""
COUNTS: Mapping[str, tuple[str, str]] = {
    "unguarded": (TRIED, "Guards through which content passed that they should have stopped: an alarm above 0."),
    "unavailable": (CHECKS, "Guards without an answer: a filter or the model is away, and nothing passed."),
    "untested": (CHECKS, "Guards that could not be tried."),
}
"""State to what it is counted of."""


def guard_count(guard: str, state: str) -> str:
    """Name of the count of one guard in one state."""
    return f"{guard}.{state}"


def found(kind: str = "", origin: str = "") -> tuple[str, str]:
    """Names of the counts of seeded values: found, sought. Empty: of every kind, of every origin."""
    of = ".".join(part for part in ("values", kind.lower(), origin) if part)
    return f"{of}.found", f"{of}.sought"
