"""Keys for `hash` and `encrypt`: derived for each tenant and use from the keys in a file."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sluice_redaction.domain.vault import ENCRYPTED, HASHED

_SHORTEST_KEY = 32
# 80 bits: two of a billion values of one kind and tenant share a fingerprint with a chance of one in two million.
_HASH_BYTES = 10
# What tells our hash tokens from what somebody typed in their form: 40 bits, 2^-40 to hit by chance.
_CHECK_BYTES = 5


class BadKey(ValueError):
    """A key file cannot be used; the message says why and holds nothing of it."""


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of a file, one a line in base64, the one in use first; blank lines and lines with # are left out.

    Raises BadKey.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadKey(f"{path} cannot be read ({type(error).__name__})") from None
    keys = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            key = base64.b64decode(line.strip(), validate=True)
        except ValueError:
            raise BadKey(f"{path}:{number}: is not base64; make a key with `openssl rand -base64 32`") from None
        if len(key) < _SHORTEST_KEY:
            raise BadKey(f"{path}:{number}: has {len(key)} bytes; {_SHORTEST_KEY} are needed")
        keys.append(key)
    if not keys:
        raise BadKey(f"{path} holds no key; make one with `openssl rand -base64 32`")
    return tuple(keys)


@dataclass(frozen=True, slots=True)
class TenantKeys:
    """Fits `domain.operators.Keys`. The first key is used, the others are only read with: keys are changed by putting a
    new one in front. Hashes are made anew with a new key, so they match old ones no more."""

    secrets: Sequence[bytes]
    tenant: str = ""

    def hashed(self, value: str, kind: str) -> str:
        mark = hmac.digest(
            self._derived(0, "hash"), f"{kind}\0{value}".encode("utf-8", "surrogatepass"), hashlib.sha256
        )
        mark = mark[:_HASH_BYTES]
        return f"<{kind}_HASH_{_base32(mark + self._check(0, kind, mark))}>"

    def encrypted(self, value: str, kind: str) -> str:
        plain = value.encode("utf-8", "surrogatepass")
        return f"<{kind}_ENC_{_base32(AESSIV(self._derived(0, 'encrypt')).encrypt(plain, [kind.encode()]))}>"

    def decrypted(self, token: str) -> str | None:
        read = ENCRYPTED.fullmatch(token)
        sealed = _from_base32(read[2]) if read else None
        if read is None or sealed is None:
            return None
        for number in range(len(self.secrets)):
            try:
                plain = AESSIV(self._derived(number, "encrypt")).decrypt(sealed, [read[1].encode()])
            except (InvalidTag, ValueError):
                continue
            return plain.decode("utf-8", "surrogatepass")
        return None

    def is_ours(self, token: str) -> bool:
        read = HASHED.fullmatch(token)
        if read is None:
            return self.decrypted(token) is not None
        mark = _from_base32(read[2]) or b""
        return any(
            hmac.compare_digest(mark[_HASH_BYTES:], self._check(number, read[1], mark[:_HASH_BYTES]))
            for number in range(len(self.secrets))
        )

    def _check(self, number: int, kind: str, mark: bytes) -> bytes:
        return hmac.digest(self._derived(number, "check"), kind.encode() + b"\0" + mark, hashlib.sha256)[:_CHECK_BYTES]

    def _derived(self, number: int, use: str) -> bytes:
        return _derive(self.secrets[number], self.tenant, use)


@lru_cache(maxsize=4096)
def _derive(secret: bytes, tenant: str, use: str) -> bytes:
    """64 bytes: AES-256-SIV takes two keys."""
    info = f"sluice redaction {use}\0{tenant}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=64, salt=None, info=info).derive(secret)


def _base32(content: bytes) -> str:
    return base64.b32encode(content).decode().rstrip("=")


def _from_base32(text: str) -> bytes | None:
    try:
        return base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        return None
