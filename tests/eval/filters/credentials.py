"""Secrets as the common providers shape them: keys, tokens, private keys, passwords. Random; none opens anything."""

import base64
import json
import random
import string

_ALNUM = string.ascii_letters + string.digits


def _mixed(chance: random.Random, count: int, extra: str = "") -> str:
    return "".join(chance.choices(_ALNUM + extra, k=count))


def _hex(chance: random.Random, count: int) -> str:
    return "".join(chance.choices("0123456789abcdef", k=count))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwt(chance: random.Random) -> str:
    claims = json.dumps({"sub": str(chance.randint(10**5, 10**7)), "iat": chance.randint(10**9, 2 * 10**9)})
    return ".".join(
        (_base64url(b'{"alg":"HS256","typ":"JWT"}'), _base64url(claims.encode()), _base64url(chance.randbytes(32)))
    )


def api_key(chance: random.Random, *, held_out: bool) -> str:
    shared = (
        "sk-proj-" + _mixed(chance, 48),
        "AIza" + _mixed(chance, 35, "-_"),
        "sk_live_" + _mixed(chance, 24),
        "hf_" + _mixed(chance, 34),
    )
    others = (
        "sk-ant-api03-" + _mixed(chance, 93, "-_") + "AA",
        "SG." + _mixed(chance, 22) + "." + _mixed(chance, 43),
        "gsk_" + _mixed(chance, 52),
        "PMAK-" + _hex(chance, 24) + "-" + _hex(chance, 34),
        "shpat_" + _hex(chance, 32),
        "key-" + _hex(chance, 32),
        "r8_" + _mixed(chance, 37),
        "sk-or-v1-" + _hex(chance, 64),
        _hex(chance, 32),
        _mixed(chance, 40),
    )
    return chance.choice(others if held_out else shared)


def token(chance: random.Random, *, held_out: bool) -> str:
    shared = (
        "ghp_" + _mixed(chance, 36),
        f"xoxb-{chance.randint(10**11, 10**12 - 1)}-{_mixed(chance, 24)}",
        jwt(chance),
    )
    others = (
        "glpat-" + _mixed(chance, 20),
        "github_pat_" + _mixed(chance, 22) + "_" + _mixed(chance, 59),
        "npm_" + _mixed(chance, 36),
        "pypi-AgEIcHlwaS5vcmc" + _mixed(chance, 120, "-_"),
        "dop_v1_" + _hex(chance, 64),
        f"{chance.randint(10**8, 10**10)}:AA" + _mixed(chance, 33, "-_"),
        jwt(chance),
    )
    return chance.choice(others if held_out else shared)


def aws_id(chance: random.Random, *, held_out: bool) -> str:
    return ("ASIA" if held_out else "AKIA") + "".join(chance.choices(string.ascii_uppercase + "234567", k=16))


def aws_secret(chance: random.Random) -> str:
    return _mixed(chance, 40, "/+")


def azure_key(chance: random.Random) -> str:
    return base64.b64encode(chance.randbytes(64)).decode()


def private_key(chance: random.Random, *, held_out: bool) -> str:
    label = chance.choice(["OPENSSH PRIVATE KEY", "EC PRIVATE KEY"] if held_out else ["RSA PRIVATE KEY", "PRIVATE KEY"])
    body = base64.b64encode(chance.randbytes(chance.choice([180, 330]))).decode()
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----"])


def password(chance: random.Random, *, held_out: bool) -> str:
    word = chance.choice(["summer", "Dragon", "welcome", "blueSky", "monkey", "Passw0rd", "kitchen", "Falcon"])
    if not held_out:
        return chance.choice([f"{word}{chance.randint(10, 9999)}!", word.title() + _mixed(chance, 5) + "#"])
    return chance.choice(
        [
            _mixed(chance, 12, "!$%&*#+"),
            f"{word}-{chance.choice(['river', 'table', 'cloud'])}-{chance.randint(2, 99)}",
            f"{word}{chance.choice('@$!')}{chance.randint(1950, 2025)}",
        ]
    )
