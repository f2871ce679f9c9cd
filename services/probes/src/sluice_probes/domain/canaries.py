"""The seeded values of a round: fictitious people of several name origins, numbers with right check digits, secrets."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

PERSON = "PERSON"
NAMES = {
    "arabic": ("Layla Haddad", "Omar Benjelloun", "Yusuf Al-Khatib", "Mariam Soliman"),
    "chinese": ("Zhang Weimin", "Liu Xiaohong", "Chen Guowei", "Wang Meiling"),
    "eastern_european": ("Agnieszka Wojcik", "Dmitri Volkov", "Bogdan Ionescu", "Katarina Novakova"),
    "hispanic": ("Guadalupe Herrera", "Javier Montoya", "Ximena Quiroga", "Rodrigo Saavedra"),
    "south_asian": ("Priya Raghunathan", "Arjun Chakraborty", "Farhana Siddiqui", "Sanjay Deshpande"),
    "west_african": ("Chinedu Okonkwo", "Abena Owusu", "Babajide Adeyemi", "Fatoumata Diallo"),
    "western_european": ("Margaret Thornbury", "Wolfgang Lindner", "Camille Rousseau", "Henrik Sorensen"),
}
"""Names that nobody we know has, and the origin they are of because we chose them so."""
ORIGINS = tuple(NAMES)
KINDS = (PERSON, "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "API_KEY")

_PERSON_SENTENCES = (
    "My colleague {} will join us on Monday.",
    "Please tell {} that the parcel has arrived.",
    "The appointment was made by {} last week.",
)
_SENTENCES = {
    "EMAIL_ADDRESS": "The receipt went to {} this morning.",
    "PHONE_NUMBER": "Call me at the phone number {} after lunch.",
    "CREDIT_CARD": "I paid with the credit card {} there.",
    "IBAN_CODE": "Refund it to the IBAN {} please.",
    "API_KEY": "The github token is {} for now.",
}


@dataclass(frozen=True)
class Canary:
    """One seeded value and the sentence it stands in; `origin` is of names only."""

    kind: str
    value: str
    sentence: str
    origin: str = ""


def canaries(number: int) -> tuple[Canary, ...]:
    """The values of round `number`: every kind and origin once, others in every round, the same for the same number."""
    dice = random.Random(number)  # noqa: S311 - test data, and the same again for the same round
    people = [
        Canary(PERSON, name, dice.choice(_PERSON_SENTENCES).format(name), origin)
        for origin in ORIGINS
        for name in (_name(origin, number),)
    ]
    values = {
        "EMAIL_ADDRESS": f"{_letters(dice, 7)}.{_letters(dice, 5)}@example.org",
        "PHONE_NUMBER": f"+1-415-555-01{dice.randrange(100):02}",
        "CREDIT_CARD": _card(dice),
        "IBAN_CODE": _iban(dice),
        "API_KEY": "ghp_" + "".join(dice.choices(string.ascii_letters + string.digits, k=36)),
    }
    return (*people, *(Canary(kind, value, _SENTENCES[kind].format(value)) for kind, value in values.items()))


def _name(origin: str, number: int) -> str:
    """One of an origin's sixteen pairs of a first and a last name, all of them in turn."""
    firsts, lasts = zip(*(name.split(" ") for name in NAMES[origin]), strict=True)
    return f"{firsts[number % len(firsts)]} {lasts[number // len(firsts) % len(lasts)]}"


def _letters(dice: random.Random, count: int) -> str:
    return "".join(dice.choices("abdeghiklmnoprstuv", k=count)).capitalize()


def _card(dice: random.Random) -> str:
    """Sixteen digits whose last is Luhn's check digit."""
    digits = [4, 5, 3, 9, *(dice.randrange(10) for _ in range(11))]
    doubled = (digit * 2 - 9 * (digit > 4) if place % 2 == 0 else digit for place, digit in enumerate(digits))
    return "".join(map(str, [*digits, -sum(doubled) % 10]))


def _iban(dice: random.Random) -> str:
    """A German account number with the check digits of ISO 13616 (D is 13, E is 14)."""
    account = "".join(str(dice.randrange(10)) for _ in range(18))
    return f"DE{98 - int(account + '131400') % 97:02}{account}"
