"""The harm that is done, all of it drawn from the seed: which process dies when, and when the broker goes away."""

import asyncio
import os
import random
import signal
import time
from dataclasses import dataclass
from typing import Any
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from ..mesh.conftest import Mesh
from .stage import Plan

VICTIMS = ("gateway", "inference", "cost", "quality", "drift")
# A process that is being restarted has no pid for some seconds.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Strike:
    """One harm, so many seconds after the load began."""

    at: float
    target: str
    how: str
    """`kill -9`, or of the broker `stopped` or `frozen` (SIGSTOP: it answers nobody and closes nothing)."""


def drawn(plan: Plan, broker: str) -> list[Strike]:
    """The strikes of a seed, in order."""
    # The embedded broker loses records that it has acknowledged when it is stopped, and nobody promises anything then.
    # SLUICE_CHAOS_STOP_EMBEDDED=1 stops it all the same.
    may_stop = broker != "embedded" or os.environ.get("SLUICE_CHAOS_STOP_EMBEDDED") == "1"
    outages = ("stopped", "frozen") if may_stop else ("frozen", "frozen")
    chance = random.Random(plan.seed)
    last = plan.load_seconds * 0.9
    strikes = [Strike(chance.uniform(2, last), victim, "kill -9") for victim in VICTIMS for _ in range(plan.kills_each)]
    room = (last - 2) / plan.outages
    for number in range(plan.outages):
        begin = 2 + number * room + chance.uniform(0, max(0.0, room - plan.outage_seconds))
        strikes.append(Strike(begin, "kafka", outages[(plan.seed + number) % 2]))
    return sorted(strikes, key=lambda strike: strike.at)


class Havoc:
    """Does the strikes and keeps what was done."""

    def __init__(self, plan: Plan, mesh: Mesh) -> None:
        self._plan, self._mesh = plan, mesh
        self._begun = 0.0
        self.done: list[str] = []

    async def run(self) -> None:
        """All strikes, each at its moment; returns when the last one is over and the broker is back."""
        self._begun = time.monotonic()
        await asyncio.gather(*(self._strike(strike) for strike in drawn(self._plan, self._mesh.broker)))

    async def kill(self, name: str) -> None:
        """Now, without any warning; the supervisor starts it again."""
        pid = await self._pid(name)
        os.kill(pid, signal.SIGKILL)
        self._note(f"kill -9 {name} (pid {pid})")

    async def _strike(self, strike: Strike) -> None:
        await asyncio.sleep(strike.at)
        if strike.target == "kafka":
            await (self._frozen() if strike.how == "frozen" else self._stopped())
        else:
            await self.kill(strike.target)

    async def _stopped(self) -> None:
        self._note("kafka stopped")
        await asyncio.to_thread(self._tell_supervisor, "stopProcess", "kafka")
        await asyncio.sleep(self._plan.outage_seconds)
        await asyncio.to_thread(self._tell_supervisor, "startProcess", "kafka")
        self._note("kafka started")

    async def _frozen(self) -> None:
        pid = await self._pid("kafka")
        os.kill(pid, signal.SIGSTOP)
        self._note("kafka frozen")
        try:
            await asyncio.sleep(self._plan.outage_seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
        self._note("kafka thawed")

    async def _pid(self, name: str) -> int:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (pid := await asyncio.to_thread(self._mesh.pid, name)):
            assert time.monotonic() < deadline, f"{name} was not started again"
            await asyncio.sleep(0.1)
        return pid

    def _tell_supervisor(self, method: str, *arguments: Any) -> None:
        transport = SupervisorTransport(None, None, f"unix://{self._mesh.home.socket}")
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            getattr(proxy.supervisor, method)(*arguments)

    def _note(self, what: str) -> None:
        self.done.append(f"{time.monotonic() - self._begun:6.1f} s  {what}")
