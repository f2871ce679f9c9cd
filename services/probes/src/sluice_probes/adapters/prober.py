"""Runs rounds one after the other, remembers the newest, and tells of each by event, metric and log."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import Counter, Gauge, Histogram
from sluice.probe.v1 import probe_service_pb2 as pb
from sluice_kit.context import new_request_id
from sluice_kit.publisher import EventPublisher
from sluice_kit.telemetry import logger

from sluice_probes.adapters.grpc_door import GrpcDoor
from sluice_probes.adapters.http_door import HttpDoor
from sluice_probes.adapters.messages import measured, report
from sluice_probes.domain.findings import CHAT_ROUTES, EMBED_ROUTES, ROUTES, Finding, State, guards_of
from sluice_probes.domain.recall import Tally
from sluice_probes.domain.round import Door, Round, alarming, run_round

log = logger(__name__)

GUARD_ON = Gauge("sluice_probes_guard_on", "1 when the guard was seen on in the newest round.", ("route", "guard"))
UNGUARDED = Gauge("sluice_probes_unguarded", "Guards of the newest round through which content passed: an alarm.")
UNAVAILABLE = Gauge("sluice_probes_unavailable", "Guards of the newest round of which there was no answer.")
UNTESTED = Gauge("sluice_probes_untested", "Guards of the newest round that could not be tried.")
RECALL = Gauge("sluice_probes_recall", "Seeded values found, of those sent since the start.", ("kind", "name_origin"))
ROUNDS = Counter("sluice_probes_rounds_total", "Rounds that ended, by the worst that they found.", ("worst",))
SECONDS = Histogram("sluice_probes_round_seconds", "Time of a round.", buckets=(0.25, 0.5, 1, 2, 5, 10, 20, 40, 80))

_KEY = re.compile(r"^sk-sluice-([a-z0-9][a-z0-9-]{0,30})-[0-9a-f]{64}$")


class Prober:
    """`run_one` is safe to call at any time: rounds never overlap."""

    def __init__(
        self,
        *,
        channel: Any,
        client: httpx.AsyncClient,
        publisher: EventPublisher,
        keys_at: Path,
        url: str,
        model: str,
        embedding_model: str,
        seconds: float,
        aliases_limit: int,
        first_number: int,
    ) -> None:
        self._channel, self._client, self._publisher = channel, client, publisher
        self._keys_at, self._url = keys_at, url
        self._model, self._embedding_model = model, embedding_model
        self._seconds, self._aliases_limit = seconds, aliases_limit
        self._number = first_number
        self._tally = Tally()
        self._one_at_a_time = asyncio.Lock()
        self.newest: pb.ProbeReport | None = None

    async def run_one(self) -> pb.ProbeReport:
        """Run a round and tell of it."""
        async with self._one_at_a_time:
            started = datetime.now(UTC)
            result = await self._round()
            ended = datetime.now(UTC)
            self._number += 1
            self._tally.add(result.detections)
            self._note(result, (ended - started).total_seconds())
            self.newest = report(result, self._tally.recalls(), started_at=started, ended_at=ended)
            await self._publisher.publish(measured(result, ended_at=ended, round_id=new_request_id()))
            return self.newest

    async def run_for_ever(self, interval: float) -> None:
        """A round, a pause, and again. What goes wrong with one round does not end the next."""
        while interval:
            try:
                await self.run_one()
            except Exception as error:
                log.error("probes.round_failed", error=type(error).__name__)
                ROUNDS.labels("failed").inc()
            await asyncio.sleep(interval)

    async def _round(self) -> Round:
        keys = await asyncio.to_thread(read_keys, self._keys_at)
        if not keys:
            log.warning("probes.no_key", file=str(self._keys_at))
            return Round("", _nothing_tried(self._model, "NO_API_KEY"), ())
        key = keys[self._number % len(keys)]
        doors = self._doors(key)
        aliases = [alias for alias in await self._chat_aliases(key) if alias != self._model]
        return await run_round(
            doors,
            number=self._number,
            key_id=_KEY.sub(r"\1", key),
            model=self._model,
            embedding_model=self._embedding_model,
            aliases=aliases[: self._aliases_limit],
        )

    async def _chat_aliases(self, key: str) -> list[str]:
        """Aliases that may chat; which do, only asking tells, so the embedding model of the probes is left out."""
        known = await GrpcDoor(self._channel, key, streamed=False, seconds=self._seconds).models()
        return [alias for alias in known if alias != self._embedding_model]

    def _doors(self, key: str) -> dict[str, Door]:
        grpc_doors = {
            route: GrpcDoor(self._channel, key, streamed=route.endswith("stream"), seconds=self._seconds)
            for route in ROUTES
            if route.startswith("grpc")
        }
        http_doors = {
            route: HttpDoor(self._client, self._url, key, streamed=route.endswith("stream"), seconds=self._seconds)
            for route in ROUTES
            if route.startswith("http")
        }
        return {**grpc_doors, **http_doors}

    def _note(self, result: Round, seconds: float) -> None:
        SECONDS.observe(seconds)
        states = [finding.state for finding in result.findings]
        for gauge, state in (
            (UNGUARDED, State.UNGUARDED),
            (UNAVAILABLE, State.UNAVAILABLE),
            (UNTESTED, State.UNTESTED),
        ):
            gauge.set(states.count(state))
        for route in ROUTES:
            for guard in guards_of(route):
                found = [f.state for f in result.findings if (f.route, f.guard) == (route, guard)]
                GUARD_ON.labels(route, guard).set(int(bool(found) and set(found) == {State.GUARDED}))
        for each in self._tally.recalls():
            RECALL.labels(each.kind, each.origin).set(each.value)
        order = (State.UNGUARDED, State.UNAVAILABLE, State.UNTESTED, State.GUARDED)
        ROUNDS.labels(next((state.value for state in order if state in states), "none")).inc()
        for finding in alarming(result.findings):
            log.error(
                "probes.unguarded",
                route=finding.route,
                guard=finding.guard,
                model=finding.model,
                reason=finding.reason,
                decision_ids=finding.decision_ids,
            )


def read_keys(path: Path) -> list[str]:
    """The keys of a file, at most 100; empty where there is none, or nothing that has a key's form."""
    try:
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
    return [line for line in lines[:100] if _KEY.match(line)]


def _nothing_tried(model: str, reason: str) -> tuple[Finding, ...]:
    return tuple(
        Finding(route, guard, model, State.UNTESTED, reason)
        for route in (*CHAT_ROUTES, *EMBED_ROUTES)
        for guard in guards_of(route)
    )
