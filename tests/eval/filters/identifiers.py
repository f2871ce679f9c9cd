"""Numbers that governments, banks, clinics and makers give to people and their things, with right check digits.

Every function takes the source of chance and returns the number as people write it. None belongs to anybody except by accident.
"""

import hashlib
import random
import string

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def digits(chance: random.Random, count: int, *, first: str = "0123456789") -> str:
    return chance.choice(first) + "".join(chance.choices(string.digits, k=count - 1))


def pattern(chance: random.Random, shape: str) -> str:
    """`#` becomes a digit, `%` one from 1 to 9, `?` an upper-case letter, `^` either."""
    fill = {
        "#": string.digits,
        "%": "123456789",
        "?": string.ascii_uppercase,
        "^": string.digits + "ABCDEFGHJKLMNPRSTUVWXYZ",
    }
    return "".join(chance.choice(fill[c]) if c in fill else c for c in shape)


def luhn(body: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def ssn(chance: random.Random) -> str:
    area = chance.choice([n for n in range(1, 900) if n not in (78, 219, 666)])
    return f"{area:03d}-{chance.randint(1, 99):02d}-{chance.randint(1, 9999):04d}"


def itin(chance: random.Random) -> str:
    return f"9{digits(chance, 2)}-{chance.choice([*range(50, 66), *range(70, 89), *range(90, 93)])}-{digits(chance, 4)}"


def nino(chance: random.Random) -> str:
    letters = chance.choice("ABCEGHJKLMNPRSTWXY") + chance.choice("ABCEGHJKLMPRSTWXYZ")
    if letters in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"):
        letters = "AB"
    body = digits(chance, 6)
    spaced = f"{letters} {body[:2]} {body[2:4]} {body[4:]} {chance.choice('ABCD')}"
    return chance.choice([spaced, spaced.replace(" ", "")])


def aadhaar(chance: random.Random) -> str:
    body = digits(chance, 11, first="23456789")
    number = body + _verhoeff(body)
    return chance.choice(
        [f"{number[:4]} {number[4:8]} {number[8:]}", number, f"{number[:4]}-{number[4:8]}-{number[8:]}"]
    )


def _verhoeff(body: str) -> str:
    """J. Verhoeff, Error Detecting Decimal Codes, 1969: the dihedral group D5."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
        return 5 + (a - b) % 5 if b < 5 else (a - b) % 5

    swap = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for place, digit in enumerate(reversed(body), start=1):
        value = int(digit)
        for _ in range(place % 8):
            value = swap[value]
        check = times(check, value)
    return str(next(d for d in range(10) if times(check, d) == 0))


def pan(chance: random.Random) -> str:
    return pattern(chance, "???") + "P" + pattern(chance, "?####?")


def tfn(chance: random.Random) -> str:
    weights = (1, 4, 3, 7, 5, 8, 6, 9, 10)
    while True:
        number = digits(chance, 9, first="12345678")
        if sum(w * int(d) for w, d in zip(weights, number, strict=True)) % 11 == 0:
            return chance.choice([number, f"{number[:3]} {number[3:6]} {number[6:]}"])


def nric(chance: random.Random) -> str:
    prefix, body = chance.choice("STFG"), digits(chance, 7)
    total = sum(w * int(d) for w, d in zip((2, 7, 6, 5, 4, 3, 2), body, strict=True)) + (4 if prefix in "TG" else 0)
    return prefix + body + ("JZIHGFEDCBA" if prefix in "ST" else "XWUTRQPNMLK")[total % 11]


def dni(chance: random.Random) -> str:
    number = chance.randint(10_000_000, 79_999_999)
    return f"{number}{chance.choice(['', '-'])}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def bsn(chance: random.Random) -> str:
    while True:
        number = digits(chance, 9, first="123456789")
        if (sum(w * int(d) for w, d in zip((9, 8, 7, 6, 5, 4, 3, 2), number, strict=False)) - int(number[8])) % 11 == 0:
            return number


def steuer_id(chance: random.Random) -> str:
    """ISO 7064 MOD 11,10; one digit stands twice among the first ten and one is missing (BZSt)."""
    chosen = chance.sample(string.digits, 9)
    chosen.append(chance.choice(chosen))
    while chosen[0] == "0" or len(set(chosen)) != 9:
        chance.shuffle(chosen)
    product = 10
    for digit in chosen:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    number = "".join(chosen) + str((11 - product) % 10)
    return chance.choice([number, f"{number[:2]} {number[2:5]} {number[5:8]} {number[8:]}"])


def pesel(chance: random.Random) -> str:
    body = f"{chance.randint(40, 99)}{chance.randint(1, 12):02d}{chance.randint(1, 28):02d}{digits(chance, 4)}"
    total = sum(w * int(d) for w, d in zip((1, 3, 7, 9, 1, 3, 7, 9, 1, 3), body, strict=True))
    return body + str(-total % 10)


def cpf(chance: random.Random) -> str:
    number = digits(chance, 9)
    for length in (10, 11):
        rest = sum((length - i) * int(d) for i, d in enumerate(number)) % 11
        number += str(0 if rest < 2 else 11 - rest)
    return chance.choice([f"{number[:3]}.{number[3:6]}.{number[6:9]}-{number[9:]}", number])


def sin(chance: random.Random) -> str:
    body = digits(chance, 8, first="12345679")
    number = body + luhn(body)
    return f"{number[:3]} {number[3:6]} {number[6:]}"


def nir(chance: random.Random) -> str:
    body = f"{chance.choice('12')}{chance.randint(40, 99)}{chance.randint(1, 12):02d}{chance.randint(1, 95):02d}{digits(chance, 6)}"
    key = f"{97 - int(body) % 97:02d}"
    spaced = f"{body[0]} {body[1:3]} {body[3:5]} {body[5:7]} {body[7:10]} {body[10:]} {key}"
    return chance.choice([spaced, spaced.replace(" ", "")])


def nhs(chance: random.Random) -> str:
    while True:
        body = digits(chance, 9, first="4679")
        check = (11 - sum((10 - i) * int(d) for i, d in enumerate(body)) % 11) % 11
        if check < 10:
            number = f"{body}{check}"
            return chance.choice([number, f"{number[:3]} {number[3:6]} {number[6:]}"])


def npi(chance: random.Random) -> str:
    body = digits(chance, 9, first="12")
    return body + luhn("80840" + body)


def dea(chance: random.Random) -> str:
    body = digits(chance, 6)
    odd, even = sum(map(int, body[::2])), sum(map(int, body[1::2]))
    return chance.choice("ABFGM") + chance.choice(string.ascii_uppercase) + body + str((odd + 2 * even) % 10)


def mbi(chance: random.Random) -> str:
    """Medicare Beneficiary Identifier: CMS's pattern of eleven places, no S, L, O, I, B, Z."""
    letters = "ACDEFGHJKMNPQRTUVWXY"
    either = letters + string.digits
    kinds = (
        "123456789",
        letters,
        either,
        string.digits,
        letters,
        either,
        string.digits,
        letters,
        letters,
        string.digits,
        string.digits,
    )
    number = "".join(chance.choice(kind) for kind in kinds)
    return chance.choice([number, f"{number[:4]}-{number[4:7]}-{number[7:]}"])


def routing(chance: random.Random) -> str:
    body = chance.choice(["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12"]) + digits(chance, 6)
    return body + str(-sum(w * int(d) for w, d in zip((3, 7, 1, 3, 7, 1, 3, 7), body, strict=True)) % 10)


def vin(chance: random.Random) -> str:
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ"
    values = dict(zip(letters, (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))
    weights = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
    body = [*pattern(chance, "%??^^^^^#^?######").upper()]
    body = [c if c not in "IOQ" else "A" for c in body]
    total = sum(w * (int(c) if c.isdigit() else values[c]) for w, c in zip(weights, body, strict=True))
    body[8] = "X" if total % 11 == 10 else str(total % 11)
    return "".join(body)


def bitcoin(chance: random.Random) -> str:
    return chance.choice([_base58_address, _segwit_address])(chance)


def _base58_address(chance: random.Random) -> str:
    payload = bytes([chance.choice([0, 5])]) + chance.randbytes(20)
    payload += hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(payload, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = _BASE58[rest] + text
    return "1" * (len(payload) - len(payload.lstrip(b"\0"))) + text


def _segwit_address(chance: random.Random) -> str:
    """BIP 173: witness version 0, twenty bytes."""
    bits = "".join(f"{byte:08b}" for byte in chance.randbytes(20))
    values = [0, *(int(bits[i : i + 5], 2) for i in range(0, 160, 5))]
    expanded = [3, 3, 0, 2, 3]
    check = _bech32_polymod([*expanded, *values, *[0] * 6]) ^ 1
    values += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return "bc1" + "".join(_BECH32[v] for v in values)


def _bech32_polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check


def ethereum(chance: random.Random) -> str:
    return "0x" + chance.randbytes(20).hex()
