"""Made-up numbers: from ranges that are reserved for tests and examples where there are any, in the format of the original.

Where there is no reserved range (passports, record numbers, accounts) every letter and digit is replaced by another: the
result may by chance be somebody's, as any number may.
"""

import ipaddress
import re
import string
from random import Random

from .checksums import luhn_sum, mod97_remainder

# The issuers' and processors' published test numbers begin so; by the first digits of real ones.
_TEST_CARDS = (
    (re.compile(r"4"), ("411111", "400000")),
    (re.compile(r"5[1-5]|2[2-7]"), ("555555", "222300")),
    (re.compile(r"3[47]"), ("378282", "371449")),
    (re.compile(r"6(?:011|4|5)"), ("601111",)),
    (re.compile(r"35"), ("353011", "356600")),
    (re.compile(r"3[068]"), ("305693", "385200")),
)
_DOCUMENTATION_NETS = ("192.0.2", "198.51.100", "203.0.113")  # RFC 5737
# A word of issuer or type in front stays: `sk-`, `EMP-`, `ghp_`.
_PREFIX = re.compile(r"[A-Za-z]{2,8}[-_:#]")
_LETTERS_IN_A_ROW = re.compile(r"[a-z]{3}")


def card(value: str, random: Random) -> str:
    """Of the same brand, length and grouping, with a valid check digit."""
    digits = _digits(value)
    heads = next((heads for begins, heads in _TEST_CARDS if begins.match(digits)), (digits[:1],))
    body = random.choice(heads) + "".join(str(random.randrange(10)) for _ in range(len(digits)))
    body = body[: max(0, len(digits) - 1)]
    check = -luhn_sum([*map(int, body), 0]) % 10
    return filled(value, f"{body}{check}")


def iban(value: str, random: Random) -> str | None:
    """Of the same country, length and grouping, with valid check digits."""
    compact = "".join(filter(str.isalnum, value)).upper()
    if len(compact) < 8:
        return None
    account = _scrambled(compact[4:], random)
    check = 98 - mod97_remainder(f"{account}{compact[:2]}00")
    characters = iter(f"{compact[:2]}{check:02d}{account}")
    return "".join(next(characters) if character.isalnum() else character for character in value)


def us_ssn(value: str, random: Random) -> str | None:
    """With the area number 666, which is never assigned."""
    if len(_digits(value)) != 9:
        return None
    return filled(value, f"666{random.randrange(1, 100):02d}{random.randrange(1, 10_000):04d}")


def us_itin(value: str, random: Random) -> str | None:
    """With a group number that no taxpayer number has."""
    if len(_digits(value)) != 9:
        return None
    return filled(value, f"9{random.randrange(100):02d}{random.randrange(66, 70)}{random.randrange(1, 10_000):04d}")


def uk_nhs(value: str, random: Random) -> str | None:
    """From 999 on, the range for tests, with a valid check digit."""
    if len(_digits(value)) != 10:
        return None
    while True:
        body = f"999{random.randrange(10**6):06d}"
        check = -sum(int(digit) * weight for digit, weight in zip(body, range(10, 1, -1), strict=True)) % 11
        if check < 10:
            return filled(value, f"{body}{check}")


def uk_nino(value: str, random: Random) -> str | None:
    """With the prefix QQ, which is not used."""
    shape = re.fullmatch(r"[A-Za-z]{2}([ -]?\d{2}[ -]?\d{2}[ -]?\d{2}[ -]?)[A-Za-z]", value)
    if shape is None:
        return None
    return f"QQ{filled(shape[1], f'{random.randrange(10**6):06d}')}{random.choice('ABCD')}"


def ip_address(value: str, random: Random) -> str | None:
    """From the networks that are reserved for documentation (RFC 5737, RFC 3849)."""
    try:
        version = ipaddress.ip_address(value).version
    except ValueError:
        return None
    if version == 4:
        return f"{random.choice(_DOCUMENTATION_NETS)}.{random.randrange(1, 255)}"
    return "2001:db8:" + ":".join(f"{random.randrange(1, 2**16):x}" for _ in range(6))


def mac_address(value: str, random: Random) -> str | None:
    """From the block that is reserved for documentation (RFC 7042): 256 of them."""
    if sum(character in string.hexdigits for character in value) != 12:
        return None
    made_up = f"00005e0053{random.randrange(256):02x}"
    characters = iter(made_up.upper() if value.upper() == value else made_up)
    return "".join(next(characters) if character in string.hexdigits else character for character in value)


def age(value: str, random: Random) -> str | None:
    """A few years more or less."""
    number = re.search(r"\d{1,3}", value)
    if number is None:
        return None
    years = int(number[0]) + random.choice((-4, -3, -2, -1, 1, 2, 3, 4))
    return f"{value[: number.start()]}{abs(years) or 1}{value[number.end() :]}"


def reshaped(value: str, random: Random) -> str | None:
    """Every letter and digit replaced by another of its sort; None for what reads like words."""
    if not any(character.isdigit() for character in value):
        return None
    if any(character.isspace() for character in value) and _LETTERS_IN_A_ROW.search(value):
        return None
    prefix = _PREFIX.match(value)
    kept = prefix.end() if prefix else 0
    return value[:kept] + _scrambled(value[kept:], random)


def filled(shape: str, digits: str) -> str:
    """The shape with its digits replaced, one by one, by these."""
    following = iter(digits)
    return "".join(next(following, "") if character.isdigit() else character for character in shape)


def _scrambled(value: str, random: Random) -> str:
    return "".join(_another(character, random) for character in value)


def _another(character: str, random: Random) -> str:
    for alphabet in (string.digits, string.ascii_uppercase, string.ascii_lowercase):
        if character in alphabet:
            return random.choice(alphabet)
    return character


def _digits(value: str) -> str:
    return "".join(character for character in value if character in string.digits)
