"""Processes die and the broker goes away, at moments drawn from a seed, under load: nothing is lost, nothing counts twice, no budget is overshot."""

import asyncio
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import grpc
from sluice_kit.errors import Unavailable

from ..mesh.conftest import Mesh, eventually
from . import books
from .callers import Callers, Told
from .havoc import Havoc
from .stage import Stage

DRAIN_SECONDS = 180.0


@dataclass(frozen=True)
class Found:
    """What everybody counts, by tenant, and the ids where there are some."""

    events: books.Events
    ledger: Counter[tuple[str, str, str]]
    spend: Counter[str]
    quality: Counter[str]
    failed: Counter[str]
    decided: Counter[str]
    drift: Counter[str]
    costs: Counter[str]
    behind: dict[str, int]

    @property
    def completed(self) -> Counter[str]:
        """RequestCompleted by tenant."""
        return Counter(tenant for _, tenant in self.events.completed.values())

    @property
    def disagreements(self) -> list[str]:
        """What does not fit; empty when all is right."""
        completed = self.events.completed
        requests = Counter(request_id for request_id, _ in completed.values())
        rows = {event_id: (request_id, tenant) for event_id, request_id, tenant in self.ledger}
        observed = Counter(self.events.measured.values())
        # Drift has a series of each tenant and one of all together, which has no tenant.
        watched = observed + Counter({"": observed.total()})
        claims = {
            "each request has one event": all(count == 1 for count in requests.values()),
            "each event has one row in the ledger": set(self.ledger.values()) <= {1} and rows == completed,
            "each event has one CostRecorded": _among(self.events.recorded, completed) == dict.fromkeys(completed, 1),
            "the cost service counts the requests": self.spend == self.completed,
            "quality counts the requests": self.quality == self.completed,
            "quality counts the failures": self.failed == self.events.failed,
            # A decision that its producer sent twice over a restart of quality may count twice, as its README says: none is left out.
            "quality leaves no decision of moderation out": self.events.decisions.total() > 0
            and self.decided >= self.events.decisions,
            "drift counts the generations": self.events.drift == watched,
            "insight counts each CostRecorded once": self.costs == self.events.records,
            "insight shows what drift counts": self.drift == watched,
            "no group of consumers seems to stand still": self.behind == {},
        }
        return [claim for claim, holds in claims.items() if not holds]


def _among(counted: Counter[str], ids: object) -> dict[str, int]:
    return {id_: count for id_, count in counted.items() if id_ in ids}  # type: ignore[operator]


async def find(mesh: Mesh, since: float) -> Found:
    return Found(
        events=await books.read_events(mesh),
        ledger=books.read_ledger(mesh),
        spend=await books.requests_in_ledger(mesh),
        quality=await books.measured(mesh, "quality.requests", since),
        failed=await books.measured(mesh, "quality.failed", since),
        decided=await books.measured(mesh, "quality.moderated_inputs", since)
        + await books.measured(mesh, "quality.moderated_outputs", since),
        drift=await books.measured(mesh, "drift.observations", since),
        costs=await books.measured(mesh, "cost.records", since),
        behind=await books.behind(mesh),
    )


async def find_in_the_end(mesh: Mesh, told: Told, since: float) -> Found:
    """When all that was answered has come in and all agree, or when that did not happen in time."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        try:
            found = await find(mesh, since)
        except (grpc.aio.AioRpcError, Unavailable):  # restarting
            assert time.monotonic() < deadline
        else:
            known = {request_id for request_id, _ in found.events.completed.values()}
            if (told.answered.keys() <= known and not found.disagreements) or time.monotonic() > deadline:
                return found
        await asyncio.sleep(1)


async def play(stage: Stage, havoc: Havoc) -> tuple[Told, float]:
    """Load, harm, and then quiet."""
    since = time.time()
    async with Callers(stage) as callers:
        running = asyncio.create_task(callers.run())
        async with asyncio.timeout(stage.plan.load_seconds + 300):
            await asyncio.gather(havoc.run(), asyncio.sleep(stage.plan.load_seconds))
            # On a busy machine that was not enough to use the budget up.
            while not (callers.told.ends["BUDGET_EXHAUSTED"] or running.done()):
                await asyncio.sleep(0.2)
            # The gateway may have been dead whenever the model was: then nobody was told of that yet.
            while not (callers.told.ends["MODEL_UNAVAILABLE"] or running.done()):
                await havoc.kill("inference")
                await asyncio.sleep(5)
        callers.stop()
        await asyncio.wait_for(running, 120)
    ready = await asyncio.to_thread(eventually, stage.mesh.is_ready, 120)
    assert ready, "not everything was started again"
    return callers.told, since


async def test_kills_and_a_broker_that_goes_away_lose_nothing_and_count_nothing_twice(
    stage: Stage, report: list[str], tmp_path: Path
) -> None:
    plan, mesh = stage.plan, stage.mesh
    report.append(f"chaos on {mesh.broker} Kafka (again: make {plan.target} SEED={plan.seed})")
    havoc, watch = Havoc(plan, mesh), books.BudgetWatch(mesh)
    watching = asyncio.create_task(watch.run())
    try:
        told, since = await play(stage, havoc)
        found = await find_in_the_end(mesh, told, since)
        free = await watch.until_free(plan.release_seconds + 60)
    finally:
        watch.stopped = True
        await watching
        report += havoc.done
    report += table(told, found, watch)
    known = dict(found.events.completed.values())
    assert found.disagreements == []
    assert told.twice == []
    assert {id_: tenant for id_, tenant in told.answered.items() if known.get(id_) != tenant} == {}
    assert {id_: (how, found.events.ends[id_]) for id_, how in told.how.items() if found.events.ends[id_] != how} == {}
    assert told.chats.keys() - found.events.generated == set()
    assert watch.broken == []
    assert watch.samples > plan.load_seconds
    assert free, f"still held: {watch.last[1]}"
    assert watch.last[0] == books.spent_in_ledger(mesh) <= watch.limit
    await asyncio.to_thread(prove, mesh, told, tmp_path)
    assert told.ends["OK"] > 0
    assert told.ends["MODEL_UNAVAILABLE"] > 0, "nobody asked while the model was dead: nothing was tested of it"
    assert told.ends["BUDGET_EXHAUSTED"] > 0, "the budget was not used up: nothing was tested of it"


def prove(mesh: Mesh, told: Told, folder: Path) -> None:
    """What an operator would do: verify the events, the ledger's chain, and the ledger rebuilt from its events."""
    answered = folder / "answered.txt"
    answered.write_text("".join(f"{id_}\n" for id_ in told.answered))
    verify = ("events", "verify", "--against", "ledger", "--answered", str(answered), "--settle", "20")
    for command in (verify, ("cost", "verify"), ("events", "replay", "ledger", "--into", "chaos")):
        done = mesh.sluice(*command)
        assert done.returncode == 0, f"sluice {' '.join(command)}: {done.stdout}{done.stderr}"


def table(told: Told, found: Found, watch: books.BudgetWatch) -> list[str]:
    """All counts, a line each."""
    ids = {request_id for request_id, _ in found.events.completed.values()}
    counts = {
        "requests answered to callers": len(told.answered),
        "  of these among the events": len(told.answered.keys() & ids),
        "streams left by their callers": f"{len(told.given_up)}, {len(told.given_up & ids)} among the events",
        "requests without an answer": told.unanswered,
        "RequestCompleted": len(found.events.completed),
        "CostRecorded of them": len(_among(found.events.recorded, found.events.completed)),
        "rows of them in the ledger": sum(found.ledger.values()),
        "requests, says the cost service": found.spend.total(),
        "requests, says quality": found.quality.total(),
        "CostRecorded, and says insight": f"{found.events.records.total()}, {found.costs.total()}",
        "requests that failed, and says quality": f"{found.events.failed.total()}, {found.failed.total()}",
        "ContentModerated, and says quality": f"{found.events.decisions.total()}, {found.decided.total()}",
        "InferenceMeasured": len(found.events.measured),
        "whole answers without one": len(told.chats.keys() - found.events.generated),
        "observations, says drift": found.events.drift.total(),
        "observations, says insight": found.drift.total(),
        "events that a group has not read": found.behind or 0,
        "records sent again": found.events.copies,
        "budget, nano-units": f"limit {watch.limit:,}, most spent + held {watch.most:,}, spent {watch.last[0]:,},"
        f" held {watch.last[1]:,} ({watch.samples} looks, {watch.away} while the cost service was away)",
        "disagreements": found.disagreements or "none",
        "load of the machine": f"{os.getloadavg()[0]:.1f}",
    }
    ends = ", ".join(f"{what} {count}" for what, count in told.ends.most_common())
    return [*(f"  {name:34} {count}" for name, count in counts.items()), f"  ends: {ends}"]
