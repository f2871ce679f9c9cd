"""Runs rounds one after the other, remembers the newest of each key, and tells of each by event, metric and log."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from google.protobuf.message import Message
from prometheus_client import Counter, Gauge, Histogram
from sluice.probe.v1 import probe_service_pb2 as pb
from sluice_kit.context import new_request_id
from sluice_kit.telemetry import logger

from sluice_probes.adapters.key_file import KeyFile, KeyReader, key_id
from sluice_probes.adapters.messages import measured, report
from sluice_probes.domain.findings import ROUTES, State, guards_of, worst
from sluice_probes.domain.recall import Recall, Tally
from sluice_probes.domain.round import Door, Round, alarming, in_turn, run_round
from sluice_probes.domain.standing import NO_KEY, Known, Standing, nothing_tried

log = logger(__name__)

GUARD_ON = Gauge(
    "sluice_probes_guard_on", "1 when the guard was seen on by every key in its newest round.", ("route", "guard")
)
UNGUARDED = Gauge(
    "sluice_probes_unguarded", "Guards of the newest round of each key through which content passed: an alarm."
)
UNAVAILABLE = Gauge("sluice_probes_unavailable", "Guards of the newest round of each key of which there was no answer.")
UNTESTED = Gauge("sluice_probes_untested", "Guards of the newest round of each key that could not be tried.")
_OF = ("redaction_policy", "kind", "name_origin")
RECALL = Gauge("sluice_probes_recall", "Seeded values found, of those sent in the hour before the newest round.", _OF)
SOUGHT = Gauge("sluice_probes_recall_sought", "Seeded values sent in the hour before the newest round.", _OF)
ROUNDS = Counter("sluice_probes_rounds_total", "Rounds that ended, by the worst that they found.", ("worst",))
SECONDS = Histogram("sluice_probes_round_seconds", "Time of a round.", buckets=(0.25, 0.5, 1, 2, 5, 10, 20, 40, 80))


class Gateway(Protocol):
    """The gateway that is tried."""

    def doors(self, key: str) -> Mapping[str, Door]:
        """By route."""

    async def models(self, key: str) -> list[str]:
        """All aliases; empty where they cannot be had."""


class Publisher(Protocol):
    """Takes a round's event."""

    async def publish(self, event: Message, /) -> object: ...


class Prober:
    """`run_one` is safe to call at any time: rounds never overlap, and who asks while one runs waits for that one."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        publisher: Publisher,
        keys_at: Path,
        model: str,
        embedding_model: str,
        aliases_limit: int,
        first_number: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway, self._publisher = gateway, publisher
        self._keys_at, self._key_file = keys_at, KeyReader(keys_at)
        self._model, self._embedding_model = model, embedding_model
        self._aliases_limit = aliases_limit
        self._number = first_number
        self._tally, self._standing, self._clock = Tally(), Standing(model), clock
        self._recalled: set[tuple[str, str, str]] = set()
        self._running: asyncio.Task[pb.ProbeReport] | None = None
        self.newest: pb.ProbeReport | None = None

    async def run_one(self) -> pb.ProbeReport:
        """The report of the round that runs, or of one that begins now. It goes on when who asked for it goes away."""
        if self._running is None or self._running.done():
            # In a context of its own, for it is of nobody's request: no deadline, no trace and no name of the one that asked.
            self._running = asyncio.create_task(self._run(), context=contextvars.Context())
            self._running.add_done_callback(_told)
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """End the round that runs."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> pb.ProbeReport:
        started = datetime.now(UTC)
        keys = await asyncio.to_thread(self._key_file.read)
        number = self._number
        self._number += 1  # before the round: one that fails is not repeated for ever, with the same key and values
        result = await self._round(number, keys)
        ended = datetime.now(UTC)
        self._tally.add(result.detections, at=self._clock())
        recalls = self._tally.recalls(at=self._clock())
        self._standing.take(result, keys.ids, left_out=keys.first_left_out)
        known = self._standing.known()
        self._note(result, known, (ended - started).total_seconds())
        self._note_recalls(recalls)
        self.newest = report(result, known, recalls, started_at=started, ended_at=ended)
        await self._publisher.publish(measured(result, ended_at=ended, round_id=new_request_id()))
        return self.newest

    async def run_for_ever(self, interval: float, *, ready: Callable[[], Awaitable[None]]) -> None:
        """Once `ready` returned: a round, a pause, and again. What goes wrong with one round, or with `ready`, does not end the next."""
        if interval:
            await self._wait(ready)
        while interval:
            with contextlib.suppress(Exception):  # told where it failed, for whoever asked for it
                await self.run_one()
            await asyncio.sleep(interval)

    async def _wait(self, ready: Callable[[], Awaitable[None]]) -> None:
        try:
            await ready()
        except Exception as error:  # whatever it is, somebody has to look whether the filters are on
            log.error("probes.readiness_unknown", error=type(error).__name__)

    async def _round(self, number: int, keys: KeyFile) -> Round:
        if not keys.used:
            log.warning("probes.no_key", file=str(self._keys_at))
            return Round(NO_KEY, nothing_tried(self._model, "NO_API_KEY"), ())
        key = keys.used[number % len(keys.used)]
        listed = await self._gateway.models(key)
        others = sorted(set(listed) - {self._model, self._embedding_model}) if self._aliases_limit else []
        result = await run_round(
            self._gateway.doors(key),
            number=number,
            key_id=key_id(key),
            model=self._model,
            embedding_model=self._embedding_model,
            # By the rounds of this key, so that each tenant has every alias tried, however many keys there are.
            aliases=in_turn(others, turn=number // len(keys.used), most=self._aliases_limit),
        )
        return replace(result, others=tuple(others) if listed else None)

    def _note(self, result: Round, known: Sequence[Known], seconds: float) -> None:
        SECONDS.observe(seconds)
        findings = [each.finding for each in known]
        states = [finding.state for finding in findings]
        for gauge, state in (
            (UNGUARDED, State.UNGUARDED),
            (UNAVAILABLE, State.UNAVAILABLE),
            (UNTESTED, State.UNTESTED),
        ):
            gauge.set(states.count(state))
        for route in ROUTES:
            for guard in guards_of(route):
                found = [f.state for f in findings if (f.route, f.guard) == (route, guard)]
                GUARD_ON.labels(route, guard).set(int(bool(found) and set(found) == {State.GUARDED}))
        ROUNDS.labels(worst(result.findings).value).inc()
        for finding in alarming(result.findings):
            log.error(
                "probes.unguarded",
                key_id=result.key_id,
                route=finding.route,
                guard=finding.guard,
                model=finding.model,
                reason=finding.reason,
                decision_ids=finding.decision_ids,
            )

    def _note_recalls(self, recalls: Sequence[Recall]) -> None:
        of = {(each.policy, each.kind, each.origin): each for each in recalls}
        for labels in self._recalled - of.keys():  # nothing of it was sent for an hour: not even its old value is known
            RECALL.remove(*labels)
            SOUGHT.remove(*labels)
        for labels, each in of.items():
            RECALL.labels(*labels).set(each.value)
            SOUGHT.labels(*labels).set(each.sought)
        self._recalled = set(of)


def _told(round_: asyncio.Task[pb.ProbeReport]) -> None:
    """A round's failure, which has to be told also where nobody waits for it any more."""
    if not round_.cancelled() and (error := round_.exception()) is not None:
        log.error("probes.round_failed", error=type(error).__name__)
        ROUNDS.labels("failed").inc()
