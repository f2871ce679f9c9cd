"""Who an erasure or an access request is about: the pseudonym of a person, or a day of requests that named nobody."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from sluice.events.v1 import privacy_pb2

from sluice_cli.mesh.problem import MeshProblem

_PSEUDONYM = re.compile(r"sub_[0-9a-f]{32}", re.ASCII)
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
KEY_BYTES = 32


@dataclass(frozen=True)
class Subject:
    """Whose texts they are. Never holds a name."""

    tenant_id: str
    id: str
    scope: "privacy_pb2.ErasureScope.ValueType" = privacy_pb2.ERASURE_SCOPE_SUBJECT


def subject_of(told: str, tenant_id: str, *, home: Path) -> Subject:
    """The person by the caller's `user` or by pseudonym. MeshProblem when that cannot be said."""
    tenant = _tenant(tenant_id)
    if _PSEUDONYM.fullmatch(told):
        return Subject(tenant, told)
    if not told:
        raise MeshProblem("--subject is empty: give what callers send as `user`, or the pseudonym (sub_...).")
    return Subject(tenant, _pseudonym(_subject_key(home), tenant, told))


def anonymous_day(told: str, tenant_id: str) -> Subject:
    """The requests of a day that named nobody. MeshProblem when it is no day."""
    try:
        day = date.fromisoformat(told)
    except ValueError:
        raise MeshProblem(f"--anonymous-day {told} is no day: write it as 2026-11-26 (UTC).") from None
    return Subject(_tenant(tenant_id), f"anonymous-{day.isoformat()}", privacy_pb2.ERASURE_SCOPE_ANONYMOUS_DAY)


def _tenant(told: str) -> str:
    if not _TENANT.fullmatch(told):
        raise MeshProblem("--tenant must be the id of a tenant of the gateway, such as `acme`.")
    return told


def _subject_key(home: Path) -> bytes:
    path = home / "gateway-subject.key"
    try:
        key = path.read_bytes()
    except OSError as error:
        raise MeshProblem(
            f"{path} cannot be read ({error.strerror}), and without it nobody can tell a person's pseudonym: set SLUICE_HOME to"
            " the gateway's, or give the pseudonym (sub_...) itself."
        ) from None
    if len(key) != KEY_BYTES:
        raise MeshProblem(f"{path} does not hold a key of {KEY_BYTES} bytes.")
    return key


def _pseudonym(key: bytes, tenant_id: str, user: str) -> str:
    """As the gateway makes it (a contract test compares the two)."""
    return "sub_" + hmac.new(key, f"{tenant_id}\0{user}".encode(), hashlib.sha256).hexdigest()[:32]
