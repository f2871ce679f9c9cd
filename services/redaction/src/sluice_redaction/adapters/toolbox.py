"""What operators need, put together for one request from the service's keys and the request's context."""

import os
import re
from collections.abc import Iterator, Sequence

from sluice_redaction.domain.operators import Keys
from sluice_redaction.domain.policy import Policy
from sluice_redaction.domain.replacing import Tools
from sluice_redaction.domain.vault import ENCRYPTED

from .keys import TenantKeys
from .surrogates import SurrogateMaker

# Models change case.
_ENCRYPTED = re.compile(ENCRYPTED.pattern, re.IGNORECASE)


class Toolbox:
    """Shared by all requests; holds the keys and nothing else."""

    def __init__(self, secrets: Sequence[bytes] = ()) -> None:
        """secrets: the keys, the one in use first; without any, hashing and encrypting are refused with the policy."""
        self._secrets = tuple(secrets)
        self._maker = SurrogateMaker(self._secrets[0] if secrets else os.urandom(32))

    def keys(self, tenant: str) -> Keys | None:
        return TenantKeys(self._secrets, tenant) if self._secrets else None

    def tools(self, policy: Policy, *, tenant: str, request_id: str) -> Tools:
        return Tools(self.keys(tenant), self._maker.for_request(request_id, tenant=tenant, regions=policy.regions))


def decrypted_in(text: str, keys: Keys) -> Iterator[tuple[str, str, str]]:
    """(token, value, kind) of every encrypted token in the text, in any case, that these keys made."""
    for match in _ENCRYPTED.finditer(text):
        token = match[0].upper()
        value = keys.decrypted(token)
        if value is not None:
            yield token, value, match[1].upper()
