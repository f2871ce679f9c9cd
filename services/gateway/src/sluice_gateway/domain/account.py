"""What the gateway knows of one caller's budgets, and the leases it has on them."""

import asyncio
from dataclasses import dataclass, field

from sluice_gateway.domain.budgets import Caller, Standing
from sluice_gateway.domain.lease import Lease
from sluice_gateway.domain.size import Size

# How fast recent use is forgotten. Over the last seven seconds or so: long enough to outlast most answers.
HALF_LIFE_SECONDS = 5.0


@dataclass(slots=True)
class Demand:
    """How much was asked for recently, older requests counting less and less (halved every HALF_LIFE_SECONDS)."""

    requests: float = 0.0
    worst: float = 0.0
    noted_at: float = 0.0

    def note(self, worst: int, now: float) -> None:
        """Count a request and its worst case."""
        self._decay(now)
        self.requests += 1
        self.worst += worst

    def recent(self, now: float) -> tuple[float, float]:
        """Requests and the sum of their worst cases."""
        self._decay(now)
        return self.requests, self.worst

    def _decay(self, now: float) -> None:
        factor = 0.5 ** ((now - self.noted_at) / HALF_LIFE_SECONDS)
        self.requests, self.worst, self.noted_at = self.requests * factor, self.worst * factor, now


@dataclass(slots=True)
class Account:
    """One caller and model. Times are clock seconds."""

    caller: Caller
    standing: Standing | None = None
    known_at: float = 0.0
    failed_at: float = float("-inf")
    """When it was last asked in vain."""
    used_at: float = 0.0
    asking: "asyncio.Task[Standing] | None" = None
    leasing: "asyncio.Task[None] | None" = None
    returning: "asyncio.Task[None] | None" = None
    leases: list[Lease] = field(default_factory=list)
    demand: Demand = field(default_factory=Demand)

    @property
    def was_never_asked_about(self) -> bool:
        """Whether nothing was ever heard of the caller, nor asked in vain."""
        return self.standing is None and self.failed_at == float("-inf")

    def is_fresh(self, now: float) -> bool:
        """Whether what is known may be believed without asking."""
        return self.standing is not None and now < self.known_at + self.standing.seconds

    def may_be_believed(self, now: float, *, stale_seconds: float) -> bool:
        """Whether what is known may be used although it is old, because nobody can be asked.

        No budget: for a long time, so that the cost service's absence does not harm whom it has nothing to do with.
        A budget: what is leased is ours however long ago that was said.
        """
        if self.standing is None:
            return False
        return not self.standing.unbudgeted or now < self.known_at + stale_seconds

    def is_nearly_stale(self, now: float) -> bool:
        """Whether it is time to ask again, so that nobody has to wait for it."""
        return self.standing is not None and now >= self.known_at + self.standing.seconds * 2 / 3

    def room(self, now: float, *, until: float) -> int:
        """What is left on leases that hold on until then."""
        return sum(lease.room for lease in self.leases if lease.is_open(now) and lease.expires_at > until)

    def lease_for(self, size: Size, now: float, *, whole: bool) -> tuple[Lease, int] | None:
        """A lease that the request fits, and its output tokens: all that were asked for, or (not `whole`) no fewer than are of use."""
        least = size.output_tokens if whole else size.least_output_tokens
        for lease in self.leases:
            if lease.is_open(now) and (fitting := lease.output_tokens_for(size)) >= least:
                return lease, fitting
        return None
