"""What both doors do first: find out who calls, and put the request into its context."""

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from prometheus_client import Counter
from sluice_kit import context

from sluice_gateway.domain.arrival import Arrival, Identity
from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.gateway import Gateway
from sluice_gateway.domain.rejection import Rejection

UNAUTHENTICATED = Counter(
    "sluice_gateway_unauthenticated_requests_total",
    "Requests without a valid API key; they make no event.",
    ["protocol"],
)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """A request whose caller is known."""

    arrival: Arrival
    identity: Identity
    _gateway: Gateway

    def is_for(self, user: str) -> None:
        """Put the person the request is for, as a pseudonym, into the context; known only when the body was read."""
        if user:
            subject_id = self._gateway.subject_of(self.identity, user)
            context.enter(replace(context.current(), subject_id=subject_id))


def enter(
    gateway: Gateway,
    *,
    door: Door,
    request_id: str,
    traceparent: str,
    header: Callable[[str], str | None],
    seconds: float,
    streamed: bool = False,
) -> Entry:
    """Authenticate and begin. Raises Rejection (unauthenticated). The context lasts as long as the running task.

    Nothing the caller says of its tenant, project or request id is believed: the key decides the first two, and a
    request id of our own keeps two requests from ever sharing one.
    """
    now = time.monotonic()
    traceparent = continued_trace(traceparent)
    context.enter(context.RequestContext(request_id=request_id, traceparent=traceparent))
    try:
        identity = gateway.authenticate(_credential(header))
    except Rejection:
        UNAUTHENTICATED.labels(door.value).inc()
        raise
    context.enter(
        context.RequestContext(
            request_id=request_id,
            tenant_id=identity.tenant.id,
            project_id=identity.key.project_id,
            traceparent=traceparent,
            synthetic=identity.key.synthetic,
        )
    )
    arrival = Arrival(request_id, door, arrived_at=now, deadline=now + seconds, streamed=streamed)
    return Entry(arrival, identity, gateway)


def continued_trace(traceparent: str | None) -> str:
    """The caller's trace if it sent a valid one (W3C Trace Context), else a new one."""
    if traceparent and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def _credential(header: Callable[[str], str | None]) -> str:
    scheme, _, token = (header("authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return header("x-api-key") or header("api-key") or ""
