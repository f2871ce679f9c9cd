"""How much each tenant may ask at once and in a minute; what is over is shed at once, never queued."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sluice_gateway.domain.configuration import Tenant
from sluice_gateway.domain.rejection import Kind, Rejection

# A tenant may send this many seconds' worth of its rate in one burst.
BURST_SECONDS = 10.0


@dataclass(slots=True)
class _Meter:
    """What the requests of one tenant use, or its self-tests."""

    in_flight: int = 0
    # GCRA ("leaky bucket as a meter"): when the bucket will have run empty, in clock seconds.
    empty_at: float = field(default=0.0)


class Admission:
    """Counts what is in flight, in all and per tenant, and how fast requests come."""

    def __init__(self, *, max_in_flight: int, clock: Callable[[], float]) -> None:
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._meters: dict[tuple[str, bool], _Meter] = {}
        self.in_flight = 0

    @contextmanager
    def admit(self, tenant: Tenant, *, synthetic: bool = False) -> Iterator[None]:
        """Hold a place for the length of the block. Raises Rejection (exhausted, with retry_after_seconds).

        Self-tests (`synthetic`) have as much room as the tenant, apart from it: they take nothing from its callers, and
        callers that use up the tenant's room do not leave its filters untried.
        """
        meter = self._meters.setdefault((tenant.id, synthetic), _Meter())
        if self.in_flight >= self._max_in_flight:
            raise _exhausted("OVERLOADED", "The gateway is serving as many requests as it can.", 1)
        if meter.in_flight >= tenant.limits.concurrency:
            raise _exhausted(
                "CONCURRENCY_LIMIT",
                f"{meter.in_flight} requests are in flight; this tenant may have {tenant.limits.concurrency}.",
                1,
            )
        self._take_from_rate(meter, tenant.limits.requests_per_minute)
        meter.in_flight += 1
        self.in_flight += 1
        try:
            yield
        finally:
            meter.in_flight -= 1
            self.in_flight -= 1

    def _take_from_rate(self, meter: _Meter, per_minute: int) -> None:
        interval = 60.0 / per_minute
        now = self._clock()
        empty_at = max(meter.empty_at, now)
        wait = empty_at - now - max(BURST_SECONDS - interval, 0.0)
        if wait > 1e-9:
            raise _exhausted("RATE_LIMIT", f"This tenant may send {per_minute} requests a minute.", wait)
        meter.empty_at = empty_at + interval


def _exhausted(reason: str, message: str, retry_after_seconds: float) -> Rejection:
    return Rejection(Kind.EXHAUSTED, message, reason=reason, retry_after_seconds=retry_after_seconds)
