"""Who calls, and what is known of a request before its body is read."""

from dataclasses import dataclass

from sluice_gateway.domain.api_key import ApiKey
from sluice_gateway.domain.completion import Completion, Operation
from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.configuration import Tenant


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, once the key was found."""

    key: ApiKey
    tenant: Tenant


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of a request before its body is read. Times are clock seconds."""

    request_id: str
    door: Door
    arrived_at: float
    deadline: float
    streamed: bool = False

    def seconds_left(self, now: float) -> float:
        """Time until the deadline; a millisecond where it has passed, which fails at once as a timeout does."""
        return max(self.deadline - now, 0.001)


def begin(arrival: Arrival, identity: Identity, operation: Operation) -> Completion:
    """The completion of a request that has just come."""
    return Completion(
        operation=operation,
        protocol=arrival.door,
        arrived_at=arrival.arrived_at,
        api_key_id=identity.key.id,
        tenant_id=identity.tenant.id,
        project_id=identity.key.project_id,
        streamed=arrival.streamed,
        content_capture=identity.tenant.content_capture,
        cohorts=identity.key.cohorts,
    )
