"""The pseudonym under which a person is known to the mesh."""

import hashlib
import hmac


def pseudonym(key: bytes, tenant_id: str, user: str) -> str:
    """Keyed hash of a caller's `user`, the same for the same person and tenant of one installation; empty for none.

    A user id may itself be personal (an e-mail address), and an unkeyed hash of one could be found by trying
    addresses. The tenant is part of it, so that tenants cannot compare their users.
    """
    if not user:
        return ""
    return "sub_" + hmac.new(key, f"{tenant_id}\0{user}".encode(), hashlib.sha256).hexdigest()[:32]
