"""Check digits that Presidio does not ship. Each takes the value as written (separators allowed) and is named for evidence.

Sources: the algorithms as published by the issuing authorities; ISO/IEC 7064 for mod 11-10, mod 11-2 and mod 97-10.
"""

import hashlib
import re
from collections.abc import Callable, Sequence

from .recognizer import Check

_NOT_DIGIT = re.compile(r"[^0-9]")


def digits(value: str) -> list[int]:
    return [int(sign) for sign in _NOT_DIGIT.sub("", value)]


def weighted(numbers: Sequence[int], weights: Sequence[int]) -> int:
    return sum(number * weight for number, weight in zip(numbers, weights, strict=False))


def luhn(value: str) -> bool:
    numbers = digits(value)
    doubled = [sum(divmod(2 * number, 10)) for number in numbers[-2::-2]]
    return len(set(numbers)) > 1 and (sum(doubled) + sum(numbers[::-2])) % 10 == 0


def ean(value: str) -> bool:
    """Weights 1, 3 from the right: Swiss AHV numbers."""
    numbers = digits(value)
    return (sum(numbers[::-2]) + 3 * sum(numbers[-2::-2])) % 10 == 0


def siret(value: str) -> bool:
    """French SIREN (nine digits) or SIRET (five more): Luhn over the nine and over all."""
    return luhn(value) and luhn(_NOT_DIGIT.sub("", value)[:9])


def nir(value: str) -> bool:
    """French social security number: the last two digits are 97 - (the rest mod 97); Corsica's A and B are 0 with a
    constant taken off."""
    bare = re.sub(r"[^0-9ABab]", "", value).upper()
    number, key = bare[:-2], bare[-2:]
    number = number.replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number) % 97 == int(key)


def bsn(value: str) -> bool:
    """Dutch BSN, the eleven test."""
    numbers = digits(value)
    return any(numbers) and weighted(numbers, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def belgian(value: str) -> bool:
    """Belgian national number: 97 - (nine digits mod 97), with a 2 before them for births from 2000 on."""
    bare = _NOT_DIGIT.sub("", value)
    head, key = bare[:9], int(bare[9:])
    return key in (97 - int(head) % 97, 97 - int("2" + head) % 97) and _month(bare[2:4])


def norwegian(value: str) -> bool:
    """Norwegian birth number, two check digits mod 11."""
    numbers = digits(value)
    first = -weighted(numbers, (3, 7, 6, 1, 8, 9, 4, 5, 2)) % 11
    second = -weighted(numbers, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return numbers[9:] == [first, second]


def portuguese(value: str) -> bool:
    """Portuguese NIF, mod 11."""
    numbers = digits(value)
    rest = weighted(numbers, range(9, 1, -1)) % 11
    return numbers[8] == (0 if rest < 2 else 11 - rest)


def austrian(value: str) -> bool:
    """Austrian social insurance number: the fourth digit checks the others."""
    numbers = digits(value)
    return weighted(numbers[:3] + numbers[4:], (3, 7, 9, 5, 8, 4, 2, 1, 6)) % 11 == numbers[3]


def irish(value: str) -> bool:
    """Irish PPS number: a letter mod 23."""
    bare = value.upper()
    total = weighted(digits(bare), range(8, 1, -1))
    if len(bare) == 9 and bare[8] not in "W ":
        total += 9 * (ord(bare[8]) - 64)
    return "WABCDEFGHIJKLMNOPQRSTUV"[total % 23] == bare[7]


def pesel(value: str) -> bool:
    numbers = digits(value)
    return (10 - weighted(numbers[:10], (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10) % 10 == numbers[10]


def polish_nip(value: str) -> bool:
    numbers = digits(value)
    return weighted(numbers[:9], (6, 5, 7, 2, 3, 4, 5, 6, 7)) % 11 == numbers[9]


def czech(value: str) -> bool:
    """Czech and Slovak birth number: divisible by 11; until 1985 a rest of ten was written as 0."""
    bare = _NOT_DIGIT.sub("", value)
    divides = len(bare) == 10 and (int(bare) % 11 == 0 or (int(bare[:9]) % 11 == 10 and bare[9] == "0"))
    return divides and 1 <= int(bare[2:4]) % 50 % 20 <= 12


def romanian(value: str) -> bool:
    numbers = digits(value)
    rest = weighted(numbers, (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return numbers[12] == (1 if rest == 10 else rest)


def bulgarian(value: str) -> bool:
    numbers = digits(value)
    return weighted(numbers, (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10 == numbers[9]


def mod_11_10(value: str) -> bool:
    """ISO 7064 mod 11-10: Croatian OIB."""
    rest = 10
    numbers = digits(value)
    for number in numbers[:-1]:
        rest = ((rest + number) % 10 or 10) * 2 % 11
    return (11 - rest) % 10 == numbers[-1]


def greek_afm(value: str) -> bool:
    numbers = digits(value)
    return any(numbers) and weighted(numbers, (256, 128, 64, 32, 16, 8, 4, 2)) % 11 % 10 == numbers[8]


def hungarian(value: str) -> bool:
    """Hungarian tax identification number."""
    numbers = digits(value)
    return weighted(numbers, range(1, 10)) % 11 == numbers[9]


def cpf(value: str) -> bool:
    """Brazilian CPF, two check digits mod 11."""
    numbers = digits(value)
    return len(set(numbers)) > 1 and all(
        (weighted(numbers, range(end + 1, 1, -1)) if end == 9 else weighted(numbers, range(11, 1, -1))) * 10 % 11 % 10
        == numbers[end]
        for end in (9, 10)
    )


def cnpj(value: str) -> bool:
    """Brazilian company number."""
    numbers = digits(value)
    weights = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    return all(
        (0 if (rest := weighted(numbers[:end], weights[13 - end :]) % 11) < 2 else 11 - rest) == numbers[end]
        for end in (12, 13)
    )


def cuit(value: str) -> bool:
    """Argentine CUIT and CUIL."""
    numbers = digits(value)
    rest = (11 - weighted(numbers, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11) % 11
    return numbers[10] == (9 if rest == 10 else rest)


def rut(value: str) -> bool:
    """Chilean RUT: mod 11 with K for ten."""
    bare = re.sub(r"[^0-9Kk]", "", value).upper()
    numbers = [int(sign) for sign in reversed(bare[:-1])]
    check = (11 - weighted(numbers, (2, 3, 4, 5, 6, 7, 2, 3, 4)) % 11) % 11
    return bare[-1] == ("K" if check == 10 else str(check))


def curp(value: str) -> bool:
    """Mexican CURP: the last digit checks the rest."""
    alphabet = "0123456789ABCDEFGHIJKLMNÑOPQRSTUVWXYZ"
    total = sum(alphabet.index(sign) * (18 - place) for place, sign in enumerate(value.upper()[:17]))
    return str(-total % 10) == value[17]


def mod_11_2(value: str) -> bool:
    """ISO 7064 mod 11-2: Chinese resident identity number."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return "10X98765432"[weighted(digits(value[:17]), weights) % 11] == value[17].upper()


def hong_kong(value: str) -> bool:
    """Hong Kong identity card: mod 11 over letters (A = 10) and digits, with 36 for a missing first letter."""
    bare = re.sub(r"[^0-9A-Z]", "", value.upper())
    bare = bare if len(bare) == 9 else " " + bare
    numbers = [36 if sign == " " else int(sign, 36) for sign in bare[:8]]
    check = 10 if bare[8] == "A" else int(bare[8], 36)
    return (weighted(numbers, range(9, 1, -1)) + check) % 11 == 0


def taiwanese(value: str) -> bool:
    """Taiwanese identity number."""
    place = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(value[0].upper()) + 10
    return (place // 10 + place % 10 * 9 + weighted(digits(value[1:]), (8, 7, 6, 5, 4, 3, 2, 1, 1))) % 10 == 0


def my_number(value: str) -> bool:
    """Japanese individual number."""
    numbers = digits(value)
    rest = weighted(numbers[:11], (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return numbers[11] == (0 if rest <= 1 else 11 - rest)


def new_zealand_ird(value: str) -> bool:
    numbers = digits(value)
    numbers = [0] * (9 - len(numbers)) + numbers
    for weights in ((3, 2, 7, 6, 5, 4, 3, 2), (7, 4, 3, 2, 5, 2, 7, 6)):
        check = -weighted(numbers, weights) % 11
        if check != 10:
            return check == numbers[8]
    return False


def vin(value: str) -> bool:
    """Vehicle identification number, check digit in the ninth place (North America; optional elsewhere)."""
    values = dict(
        zip(
            "ABCDEFGHJKLMNPRSTUVWXYZ",
            (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9),
            strict=True,
        )
    )
    numbers = [int(sign) if sign.isdigit() else values[sign] for sign in value.upper()]
    weights = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
    return "0123456789X"[weighted(numbers, weights) % 11] == value[8].upper()


def spanish_cif(value: str) -> bool:
    """Spanish company number."""
    bare = re.sub(r"[^0-9A-Z]", "", value.upper())
    numbers = digits(bare[1:8])
    check = -(sum(numbers[1::2]) + sum(sum(divmod(2 * number, 10)) for number in numbers[::2])) % 10
    return bare[8] in (str(check), "JABCDEFGHI"[check])


def tin_mod_97(value: str) -> bool:
    """Belgian enterprise number: 97 - (the first eight digits mod 97)."""
    bare = _NOT_DIGIT.sub("", value)[-10:]
    return len(bare) == 10 and 97 - int(bare[:8]) % 97 == int(bare[8:])


_BASE58 = {sign: place for place, sign in enumerate("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")}


def base58check(value: str) -> bool:
    """Base58Check (Bitcoin, Litecoin, Dogecoin, Dash, Tron, extended keys): four bytes of a double SHA-256 at the end."""
    number = 0
    for sign in value:
        place = _BASE58.get(sign)
        if place is None:
            return False
        number = number * 58 + place
    content = number.to_bytes((number.bit_length() + 7) // 8, "big")
    content = b"\0" * (len(value) - len(value.lstrip("1"))) + content
    if len(content) < 21:
        return False
    return hashlib.sha256(hashlib.sha256(content[:-4]).digest()).digest()[:4] == content[-4:]


_BECH32 = {sign: place for place, sign in enumerate("qpzry9x8gf2tvdw0s3jn54khce6mua7l")}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def bech32(value: str) -> bool:
    """Bech32 and bech32m (BIP 173, BIP 350)."""
    if value.lower() != value and value.upper() != value:
        return False
    prefix, _, content = value.lower().rpartition("1")
    if not prefix or any(sign not in _BECH32 for sign in content):
        return False
    numbers = [ord(sign) >> 5 for sign in prefix] + [0] + [ord(sign) & 31 for sign in prefix]
    rest = 1
    for number in numbers + [_BECH32[sign] for sign in content]:
        top, rest = rest >> 25, (rest & 0x1FFFFFF) << 5 ^ number
        for bit, generator in enumerate(_GENERATOR):
            rest ^= generator if top >> bit & 1 else 0
    return rest in (1, 0x2BC830A3)


def _month(two: str) -> bool:
    return int(two) % 20 <= 12


def check(name: str, passes: Callable[[str], bool]) -> Check:
    """A check that drops what fails it."""
    return Check(name, lambda value: bool(passes(value)))


def supporting(name: str, passes: Callable[[str], bool]) -> Check:
    """A check that raises what passes it and leaves the rest as it was."""
    return Check(name, lambda value: True if passes(value) else None)
