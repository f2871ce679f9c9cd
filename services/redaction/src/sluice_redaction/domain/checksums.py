"""Check digits, by the names under which a policy's recognizers may ask for them.

All of them look at the letters and digits of a value only, so "4111 1111 1111 1111" and "4111-1111-1111-1111" are equal.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

# Verhoeff, "Error Detecting Decimal Codes" (1969): multiplication in the dihedral group D5, and its permutation.
_D5 = ("0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
       "5987604321", "6598710432", "7659821043", "8765932104", "9876543210")  # fmt: skip
_PERMUTED = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)
# Damm, "Total anti-symmetrische Quasigruppen" (2004): the quasigroup of order 10 that the paper gives.
_DAMM = ("0317598642", "7092154863", "4206871359", "1750983426", "6123045978",
         "3674209581", "5869720134", "8945362017", "9438617205", "2581436790")  # fmt: skip


def luhn(value: str) -> bool:
    """ISO/IEC 7812: payment cards, IMEI, NPI with its prefix."""
    digits = _digits(value)
    return bool(digits) and luhn_sum(digits) % 10 == 0


def luhn_sum(digits: Sequence[int]) -> int:
    """The sum that a valid number's digits bring to a multiple of ten."""
    return sum(digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4) for place, digit in enumerate(reversed(digits)))


def mod97(value: str) -> bool:
    """ISO 7064 MOD 97-10 with the country and check digits in front: IBAN."""
    characters = _alphanumeric(value)
    return len(characters) > 4 and mod97_remainder(characters[4:] + characters[:4]) == 1


def mod97_remainder(characters: str) -> int:
    """Remainder of the number that letters (A = 10) and digits spell."""
    return int("".join(str(int(character, 36)) for character in characters)) % 97


def verhoeff(value: str) -> bool:
    """Verhoeff's check digit: Indian Aadhaar."""
    check = 0
    for place, digit in enumerate(reversed(_digits(value))):
        check = int(_D5[check][int(_PERMUTED[place % 8][digit])])
    return check == 0 and any(character.isdigit() for character in value)


def damm(value: str) -> bool:
    """Damm's check digit."""
    interim, digits = 0, _digits(value)
    for digit in digits:
        interim = int(_DAMM[interim][digit])
    return bool(digits) and interim == 0


def mod11(value: str) -> bool:
    """Weights rising from 1 at the check digit, X for ten: ISBN-10, UK NHS numbers."""
    characters = _alphanumeric(value)
    if len(characters) < 2 or not characters[:-1].isdigit() or characters[-1] not in "0123456789X":
        return False
    weighted = ((10 if character == "X" else int(character)) * weight
                for weight, character in enumerate(reversed(characters), start=1))  # fmt: skip
    return sum(weighted) % 11 == 0


def mod11_2(value: str) -> bool:
    """ISO 7064 MOD 11-2, X for ten: ORCID, Chinese resident identity numbers."""
    characters = _alphanumeric(value)
    if len(characters) < 2 or not characters[:-1].isdigit() or characters[-1] not in "0123456789X":
        return False
    total = 0
    for character in characters[:-1]:
        total = (total + int(character)) * 2
    return (total + (10 if characters[-1] == "X" else int(characters[-1]))) % 11 == 1


CHECKSUMS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {check.__name__: check for check in (luhn, mod97, verhoeff, damm, mod11, mod11_2)}
)


def _digits(value: str) -> list[int]:
    return [int(character) for character in value if character in "0123456789"]


def _alphanumeric(value: str) -> str:
    return "".join(character for character in value.upper() if character.isascii() and character.isalnum())
