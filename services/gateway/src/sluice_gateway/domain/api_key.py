"""API keys: `sk-sluice-<id>-<secret>`, of which only a hash of the secret is ever stored."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PREFIX = "sk-sluice-"
EVERY_OTHER = "*"
# 32 random bytes in hexadecimal. Because every secret has 256 bits of entropy (any other shape is refused), a plain
# SHA-256 is the right hash: slow or salted hashes protect guessable secrets, and this one cannot be guessed.
_SHAPE = re.compile(r"sk-sluice-([a-z0-9][a-z0-9-]{0,30})-([0-9a-f]{64})", re.ASCII)
# What an unknown id is compared with, so that it takes as long as a known one.
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is configured."""

    id: str
    sha256: str
    tenant_id: str
    project_id: str
    enabled: bool = True
    synthetic: bool = False
    cohorts: Mapping[str, str] = field(default_factory=dict)
    """Attribute to value: what every request with this key belongs to."""
    max_tokens: Mapping[str, int] = field(default_factory=dict)
    """Model alias, or EVERY_OTHER, to the most output tokens of one request; what does not stand here is not bounded by the key."""

    def most_tokens(self, alias: str) -> int | None:
        return self.max_tokens.get(alias, self.max_tokens.get(EVERY_OTHER))


def mint(key_id: str = "") -> tuple[str, str]:
    """Make a new key. Returns the key, to be shown once, and the hash to be stored."""
    secret = secrets.token_hex(32)
    return f"{PREFIX}{key_id or secrets.token_hex(4)}-{secret}", digest(secret)


def digest(secret: str) -> str:
    """SHA-256 of the secret's ASCII bytes, in lower-case hexadecimal."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


class Keyring:
    """Finds the configured key that a caller presents."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {key.id: key for key in keys}

    def find(self, presented: str) -> ApiKey | None:
        """The enabled key, or None; takes the same time for an unknown id as for a wrong secret."""
        shape = _SHAPE.fullmatch(presented)
        if shape is None:
            return None
        key = self._keys.get(shape[1])
        right = hmac.compare_digest(digest(shape[2]), key.sha256 if key else _NOBODY)
        return key if key and right and key.enabled else None
