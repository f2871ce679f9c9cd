"""Rounds one after the other: several tenants' keys, and what is told of each."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sluice.types.v1 import probe_pb2
from sluice_probes.adapters.key_file import MOST_KEYS
from sluice_probes.adapters.prober import Prober
from sluice_probes.domain.findings import CHAT_ROUTES, ROUTES, Answer, guards_of
from sluice_probes.domain.standing import MOST_STANDING
from structlog.testing import capture_logs

from .filtered import Filtered

CHECKS = sum(len(guards_of(route)) for route in ROUTES)


def key(name: str) -> str:
    return f"sk-sluice-{name}-{'0' * 64}"


@dataclass
class Mesh:
    """Gateway and publisher in one: each key's tenant has its own filters."""

    filters: dict[str, Any]
    told: list[Any] = field(default_factory=list)

    def doors(self, key: str) -> Mapping[str, Any]:
        return dict.fromkeys(ROUTES, self.filters[key.split("-")[2]])

    aliases: list[str] = field(default_factory=list)
    """None where they cannot be had."""

    async def models(self, key: str) -> list[str]:
        return ["sluice-embed", *self.aliases, "sluice-self-test"] if self.aliases else []

    async def publish(self, event: Any, /) -> None:
        self.told.append(event)


def prober(
    mesh: Mesh, keys_at: Path, *names: str, clock: Callable[[], float] = time.monotonic, aliases_limit: int = 0
) -> Prober:
    if names:
        keys_at.write_text("\n".join(map(key, names)))
    return Prober(
        gateway=mesh,
        publisher=mesh,
        keys_at=keys_at,
        model="sluice-self-test",
        embedding_model="sluice-embed",
        aliases_limit=aliases_limit,
        first_number=0,
        clock=clock,
    )


def unguarded(report: Any) -> set[str]:
    return {check.key_id for check in report.guards if check.state == probe_pb2.GUARD_STATE_UNGUARDED}


@pytest.fixture
def keys_at(tmp_path: Path) -> Path:
    return tmp_path / "probes.key"


OPEN = Filtered(off=frozenset({"output_moderation"}))


async def test_a_round_is_counted_by_the_worst_that_it_found(keys_at):
    def counted(worst: str) -> float:
        return REGISTRY.get_sample_value("sluice_probes_rounds_total", {"worst": worst}) or 0.0

    before = {worst: counted(worst) for worst in ("unguarded", "guarded")}
    probing = prober(Mesh({"a": OPEN, "b": Filtered()}), keys_at, "a", "b")
    for _ in range(3):
        await probing.run_one()
    assert {worst: counted(worst) - count for worst, count in before.items()} == {"unguarded": 2, "guarded": 1}


async def test_one_tenants_alarm_stands_while_anothers_filters_are_seen_on(keys_at):
    probing = prober(Mesh({"a": OPEN, "b": Filtered()}), keys_at, "a", "b")
    assert unguarded(await probing.run_one()) == {"a"}
    assert unguarded(await probing.run_one()) == {"a"}  # b's round
    assert REGISTRY.get_sample_value("sluice_probes_unguarded") == 4
    on = {"route": "http_chat", "guard": "output_moderation"}
    assert REGISTRY.get_sample_value("sluice_probes_guard_on", on) == 0


def recalled(policy: str, kind: str, origin: str = "") -> tuple[float | None, float | None]:
    """Recall, and of how many."""
    of = {"redaction_policy": policy, "kind": kind, "name_origin": origin}
    return REGISTRY.get_sample_value("sluice_probes_recall", of), REGISTRY.get_sample_value(
        "sluice_probes_recall_sought", of
    )


async def test_recall_is_told_by_redaction_policy_over_the_last_hour(keys_at):
    now = 0.0
    blind = Filtered(policy="blind@2", blind_to=frozenset({"hispanic"}))
    mesh = Mesh({"a": blind, "b": Filtered(policy="seeing@7")})
    probing = prober(mesh, keys_at, "a", "b", clock=lambda: now)
    for _ in range(2):
        report = await probing.run_one()
    assert recalled("blind@2", "PERSON", "hispanic") == (0, 4)
    assert recalled("blind@2", "IBAN_CODE") == recalled("seeing@7", "PERSON", "hispanic") == (1, 4)
    told = {(each.redaction_policy, each.name_origin): each.found for each in report.recalls if each.kind == "PERSON"}
    assert (told["blind@2", "hispanic"], told["seeing@7", "hispanic"]) == (0, 4)
    assert {count.redaction_policy for count in mesh.told[0].detections} == {"blind@2"}
    mesh.filters["a"] = Filtered(policy="blind@2")
    now = 3600.0
    await probing.run_one()
    assert recalled("blind@2", "PERSON", "hispanic") == (1, 4)
    assert recalled("seeing@7", "PERSON", "hispanic") == (None, None), "nothing was sent for an hour"


async def test_an_alarm_ends_with_the_next_round_of_its_own_key(keys_at):
    mesh = Mesh({"a": OPEN, "b": Filtered()})
    probing = prober(mesh, keys_at, "a", "b")
    await probing.run_one()
    mesh.filters["a"] = Filtered()
    await probing.run_one()
    ended = await probing.run_one()
    assert not unguarded(ended)
    assert len(ended.guards) == 2 * CHECKS
    assert REGISTRY.get_sample_value("sluice_probes_unguarded") == 0


async def test_a_tenant_that_was_not_tried_yet_is_not_taken_for_guarded(keys_at):
    first = await prober(Mesh({"a": Filtered(), "b": Filtered()}), keys_at, "a", "b").run_one()
    assert {(check.key_id, check.state, check.reason) for check in first.guards} == {
        ("a", probe_pb2.GUARD_STATE_GUARDED, ""),
        ("b", probe_pb2.GUARD_STATE_UNTESTED, "NOT_TRIED_YET"),
    }


async def test_an_alarm_outlives_the_key_file_and_not_its_own_key(keys_at):
    probing = prober(Mesh({"a": OPEN, "b": Filtered()}), keys_at, "a")
    await probing.run_one()
    keys_at.unlink()
    assert unguarded(await probing.run_one()) == {"a"}
    keys_at.write_text(key("b"))
    assert {check.key_id for check in (await probing.run_one()).guards} == {"b"}


class Broken(Filtered):
    """A door that raises, which none should."""

    async def chat(self, model: str, system: str, text: str, *, most_tokens: int) -> Answer:
        raise RuntimeError("no answer is like this one")


async def test_a_round_that_fails_is_not_repeated_with_the_same_key_for_ever(keys_at):
    probing = prober(Mesh({"a": Broken(), "b": OPEN}), keys_at, "a", "b")
    with pytest.raises(ExceptionGroup):
        await probing.run_one()
    assert unguarded(await probing.run_one()) == {"b"}


@dataclass(frozen=True)
class Slow(Filtered):
    """Answers once the gate is open."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def chat(self, model: str, system: str, text: str, *, most_tokens: int) -> Answer:
        self.asked.set()
        await self.gate.wait()
        return await super().chat(model, system, text, most_tokens=most_tokens)


async def test_who_asks_while_a_round_runs_waits_for_it_and_begins_no_other(keys_at):
    slow = Slow()
    mesh = Mesh({"a": slow})
    probing = prober(mesh, keys_at, "a")
    async with asyncio.TaskGroup() as callers:
        first = callers.create_task(probing.run_one())
        await slow.asked.wait()
        second = callers.create_task(probing.run_one())
        slow.gate.set()
    assert first.result() is second.result()
    assert len(mesh.told) == 1
    await probing.run_one()
    assert len(mesh.told) == 2


async def test_a_caller_that_goes_away_ends_no_round(keys_at):
    slow = Slow()
    mesh = Mesh({"a": slow})
    probing = prober(mesh, keys_at, "a")
    gone = asyncio.create_task(probing.run_one())
    await slow.asked.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    waiting = asyncio.create_task(probing.run_one())
    slow.gate.set()
    assert await waiting is probing.newest
    assert len(mesh.told) == 1


async def test_a_round_ends_with_the_service(keys_at):
    slow = Slow()
    mesh = Mesh({"a": slow})
    probing = prober(mesh, keys_at, "a")
    asking = asyncio.create_task(probing.run_one())
    await slow.asked.wait()
    await probing.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not mesh.told


async def test_a_key_file_that_cannot_be_read_is_told_with_the_reason_and_nothing_is_tried(tmp_path):
    keys_at = tmp_path / "probes.key"
    keys_at.mkdir()  # what Docker makes of a mounted file that is not there
    probing = prober(Mesh({}), keys_at)
    with capture_logs() as logs:
        assert {check.reason for check in (await probing.run_one()).guards} == {"NO_API_KEY"}
    assert ("probes.key_file_unreadable", "IsADirectoryError") in {(line["event"], line.get("error")) for line in logs}


async def test_an_event_tells_of_its_own_key_alone(keys_at):
    mesh = Mesh({"a": OPEN, "b": Filtered()})
    probing = prober(mesh, keys_at, "a", "b")
    for _ in range(2):
        await probing.run_one()
    assert [(event.key_id, len(event.guards), unguarded(event)) for event in mesh.told] == [
        ("a", CHECKS, {""}),
        ("b", CHECKS, set()),
    ]


async def test_no_round_begins_before_the_mesh_is_ready(keys_at):
    mesh, ready = Mesh({"a": Filtered()}), asyncio.Event()
    waited = asyncio.Event()

    async def wait() -> None:
        waited.set()
        await ready.wait()

    probing = prober(mesh, keys_at, "a")
    running = asyncio.create_task(probing.run_for_ever(3600, ready=wait))
    try:
        await waited.wait()
        assert probing.newest is None
        ready.set()
        await told(mesh, 1)
    finally:
        await ended(running)


async def test_rounds_begin_also_where_readiness_cannot_be_known(keys_at):
    async def fail() -> None:
        raise RuntimeError("no such answer")

    mesh = Mesh({"a": OPEN})
    probing = prober(mesh, keys_at, "a")
    with capture_logs() as logs:
        running = asyncio.create_task(probing.run_for_ever(3600, ready=fail))
        try:
            await told(mesh, 1)
        finally:
            await ended(running)
    assert probing.newest is not None
    assert unguarded(probing.newest) == {"a"}
    assert "probes.readiness_unknown" in {line["event"] for line in logs}


async def test_where_rounds_are_turned_off_nothing_is_waited_for(keys_at):
    async def wait() -> None:
        raise AssertionError("asked")

    with capture_logs() as logs:
        await prober(Mesh({}), keys_at).run_for_ever(0, ready=wait)
    assert logs == []


async def told(mesh: Mesh, count: int) -> None:
    async with asyncio.timeout(30):
        while len(mesh.told) < count:
            await asyncio.sleep(0.01)


async def ended(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


ALIASES = [f"m{number:02}" for number in range(20)]


def tried(told: Any) -> set[str]:
    return {check.model for check in told.guards if check.model in ALIASES}


def waiting(report: Any, key_id: str = "a") -> set[str]:
    return {
        check.model
        for check in report.guards
        if (check.key_id, check.state, check.reason) == (key_id, probe_pb2.GUARD_STATE_UNTESTED, "NOT_TRIED_YET")
    }


async def test_all_other_aliases_are_tried_in_turn_and_those_that_were_not_yet_are_told(keys_at):
    mesh = Mesh({"a": Filtered(chatting=frozenset(ALIASES))}, aliases=ALIASES)
    probing = prober(mesh, keys_at, "a", aliases_limit=8)
    reports = [await probing.run_one() for _ in range(3)]
    pieces = [tried(event) for event in mesh.told]
    assert [len(piece) for piece in pieces] == [8, 8, 8]
    assert set().union(*pieces) == set(ALIASES)
    assert [waiting(each) for each in reports] == [set(ALIASES) - pieces[0], set(ALIASES[16:]), set()]
    assert {check.route for check in reports[0].guards if check.model == "m19"} == set(CHAT_ROUTES)


async def test_what_stands_of_very_many_aliases_is_bounded_with_the_alarms_first(keys_at):
    many = [f"n{number:03}" for number in range(300)]
    mesh = Mesh({"a": Filtered(chatting=frozenset(many), open_to=frozenset({"n001"}))}, aliases=many)
    probing = prober(mesh, keys_at, "a", aliases_limit=8)
    await probing.run_one()
    report = await probing.run_one()
    assert len(report.guards) == CHECKS + 8 * len(CHAT_ROUTES) + MOST_STANDING
    alarms = {check.model for check in report.guards if check.state == probe_pb2.GUARD_STATE_UNGUARDED}
    assert alarms == {"n001"}


async def test_each_of_several_tenants_has_every_alias_tried(keys_at):
    doors = Filtered(chatting=frozenset(ALIASES))
    mesh = Mesh({"a": doors, "b": doors}, aliases=ALIASES)
    probing = prober(mesh, keys_at, "a", "b", aliases_limit=8)
    for _ in range(6):
        await probing.run_one()
    for key_id in ("a", "b"):
        assert set().union(*(tried(event) for event in mesh.told if event.key_id == key_id)) == set(ALIASES)


async def test_the_alarm_of_an_alias_stands_until_its_own_next_turn(keys_at):
    open_ = Filtered(chatting=frozenset(ALIASES), open_to=frozenset({"m03"}))
    mesh = Mesh({"a": open_}, aliases=ALIASES)
    probing = prober(mesh, keys_at, "a", aliases_limit=8)
    assert unguarded(await probing.run_one()) == {"a"}
    mesh.filters["a"] = Filtered(chatting=frozenset(ALIASES))
    assert unguarded(await probing.run_one()) == {"a"}, "only the others were tried"
    mesh.aliases = []  # that they cannot be listed is no proof
    assert unguarded(await probing.run_one()) == {"a"}
    mesh.aliases = ALIASES
    reports = [await probing.run_one() for _ in range(3)]
    assert not unguarded(reports[-1])


async def test_an_alias_that_is_no_more_has_no_alarm(keys_at):
    mesh = Mesh({"a": Filtered(chatting=frozenset(ALIASES), open_to=frozenset({"m03"}))}, aliases=ALIASES)
    probing = prober(mesh, keys_at, "a", aliases_limit=8)
    assert unguarded(await probing.run_one()) == {"a"}
    mesh.aliases = [each for each in ALIASES if each != "m03"]
    assert not unguarded(await probing.run_one())


def counted_keys() -> dict[str, float | None]:
    return {
        state: REGISTRY.get_sample_value("sluice_probes_keys", {"state": state})
        for state in ("used", "too_many", "malformed")
    }


async def test_keys_beyond_the_hundredth_are_told_of_and_do_not_pass_for_guarded(keys_at):
    names = [f"k{number:03}" for number in range(MOST_KEYS + 2)]
    probing = prober(Mesh({name: Filtered() for name in names}), keys_at, *names)
    with capture_logs() as logs:
        told = [await probing.run_one() for _ in range(2)][-1]
    assert counted_keys() == {"used": 100, "too_many": 2, "malformed": 0}
    reasons = {check.key_id: check.reason for check in told.guards}
    assert set(reasons) == {*names[:MOST_KEYS], names[MOST_KEYS]}, "one stands for all that are left out"
    assert reasons["k100"] == "TOO_MANY_KEYS"
    assert [(line["too_many"], line["most"]) for line in logs if line["event"] == "probes.keys_not_used"] == [(2, 100)]
    keys_at.write_text("\n".join(map(key, names[:MOST_KEYS])))
    assert "k100" not in {check.key_id for check in (await probing.run_one()).guards}
    assert counted_keys()["too_many"] == 0


async def test_every_one_of_a_hundred_keys_has_its_round(keys_at):
    names = [f"k{number:03}" for number in range(MOST_KEYS)]
    mesh = Mesh({name: Filtered() for name in names})
    probing = prober(mesh, keys_at, *names)
    for _ in names:
        await probing.run_one()
    assert {event.key_id for event in mesh.told} == set(names)


async def test_what_has_no_keys_form_is_counted_and_never_told(keys_at):
    slip = key("a")[:-1]
    keys_at.write_text(f"{key('a')}\n{slip}\n\n{key('a')}\n")
    probing = prober(Mesh({"a": Filtered()}), keys_at)
    with capture_logs() as logs:
        report = await probing.run_one()
    assert {check.key_id for check in report.guards} == {"a"}
    assert counted_keys() == {"used": 1, "too_many": 0, "malformed": 1}
    [told] = [line for line in logs if line["event"] == "probes.keys_not_used"]
    assert told["malformed"] == 1
    assert slip not in str(logs)
