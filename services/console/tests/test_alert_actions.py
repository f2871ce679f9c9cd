"""Acting on alerts over HTTP: who may, by which forms, and what is told when it is not done."""

import re
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from sluice.insight.v1 import alert_service_pb2 as alert_pb
from sluice_console.adapters.insight import DIMENSIONS
from sluice_console.domain.answers import DIMENSIONS as ALERT_DIMENSIONS
from sluice_console.domain.people import Person, Role

from .conftest import Console


async def token_of(client: httpx2.AsyncClient) -> str:
    return re.search(r'name="csrf_token" value="([^"]+)"', (await client.get("/alerts")).text)[1]  # type: ignore[index]


def silence_form(page: str) -> dict[str, str]:
    """What the first alert's form for a silence holds without being filled in."""
    row = re.search(r'action="/alerts/silence">(.*?)</form>', page, re.DOTALL)[1]  # type: ignore[index]
    return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', row))


def acted(console: Console) -> list[str]:
    wanted = (alert_pb.CreateSilenceRequest, alert_pb.ExpireSilenceRequest, alert_pb.AcknowledgeAlertRequest)
    return [type(request).__name__ for _, request, _ in console.mesh.asked if isinstance(request, wanted)]


async def test_an_operator_takes_an_alert_on_silences_it_and_ends_the_silence(console: Console) -> None:
    console.mesh.fill()
    console.mesh.silences = []
    async with console.signed_in() as client:
        form = {"csrf_token": await token_of(client)}
        about = {"rule": "blocked_ratio_jump", "label.tenant_id": "acme", "lasts": "8h", "reason": "OPS-9"}
        for path, fields in (
            ("/alerts/acknowledge", {"alert": "a1", "reason": "INC-4"}),
            ("/alerts/silence", about),
        ):
            assert (await client.post(path, data=form | fields)).status_code == 303
        page = (await client.get("/alerts")).text
        for part in ("olga has it (INC-4)", "OPS-9", "for 8 h"):
            assert part in page
        [silence] = console.mesh.silences
        assert (silence.rule, dict(silence.labels), silence.set_by) == (
            "blocked_ratio_jump",
            {"tenant_id": "acme"},
            "olga",
        )
        length = silence.ends_at.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
        assert timedelta(hours=7, minutes=58) < length <= timedelta(hours=8)
        assert (await client.post("/alerts/expire", data=form | {"silence": silence.silence_id})).status_code == 303
        assert "Nothing is silenced." in (await client.get("/alerts")).text


async def test_a_silence_from_an_alerts_row_is_of_that_alert_alone(console: Console) -> None:
    console.mesh.fill()
    console.mesh.silences = []
    async with console.signed_in() as client:
        fields = silence_form((await client.get("/alerts")).text) | {"lasts": "2h", "reason": "OPS-9"}
        assert (await client.post("/alerts/silence", data=fields)).status_code == 303
        assert "of no one experiment arm, project, prompt version, redaction policy, route" in " ".join(
            (await client.get("/alerts")).text.split()
        )
    [silence] = console.mesh.silences
    others = dict.fromkeys(("project_id", "route", "prompt_version", "experiment_arm", "redaction_policy"), "")
    assert dict(silence.labels) == others | {"tenant_id": "acme", "model": "sluice-small"}


def test_a_silence_can_name_whatever_a_series_is_of() -> None:
    assert {name for _, name in DIMENSIONS.values()} == set(ALERT_DIMENSIONS)


@pytest.mark.parametrize("who", ["rita", "anna", "tom"])
async def test_nobody_but_an_operator_of_the_whole_mesh_acts_on_alerts(console: Console, who: str) -> None:
    console.mesh.fill()
    console.keys["tom"] = ("key-of-tom", Person("tom", Role.OPERATOR, "acme"))
    async with console.signed_in(who) as client:
        page = (await client.get("/alerts")).text
        assert "/alerts/silence" not in page
        # Silences name tenants: who is bound to one sees none; the others see them all.
        assert ("OPS-7" in page) is (who == "rita")
        form = {"csrf_token": await token_of(client), "alert": "a1", "lasts": "2h", "reason": "x", "silence": "s-0"}
        for path in ("/alerts/acknowledge", "/alerts/silence", "/alerts/expire"):
            assert (await client.post(path, data=form)).status_code == 403
    assert acted(console) == []


async def test_acting_on_alerts_takes_a_form_of_ours(console: Console) -> None:
    console.mesh.fill()
    async with console.signed_in() as client:
        token = await token_of(client)
        fields = {"alert": "a1", "lasts": "2h", "reason": "x", "silence": "s-0", "rule": "r"}
        for path in ("/alerts/acknowledge", "/alerts/silence", "/alerts/expire"):
            for csrf in ({}, {"csrf_token": "guess"}):
                assert (await client.post(path, data=fields | csrf)).status_code == 403
            cross = {"sec-fetch-site": "cross-site"}
            assert (await client.post(path, data=fields | {"csrf_token": token}, headers=cross)).status_code == 403
    async with console.client() as stranger:
        assert (await stranger.post("/alerts/silence", data=fields)).status_code == 401
    assert acted(console) == []


async def test_a_form_that_is_sent_again_after_no_answer_came_makes_no_second_silence(console: Console) -> None:
    console.mesh.fill()
    console.mesh.silences = []
    async with console.signed_in() as client:
        fields = silence_form((await client.get("/alerts")).text) | {"lasts": "2h", "reason": "OPS-9"}
        console.mesh.is_late = True
        late = await client.post("/alerts/silence", data=fields)
        assert (late.status_code, "It may have been done" in late.text) == (503, True)
        assert "Nothing was done" not in late.text
        assert "secret detail" not in late.text
        console.mesh.is_late = False
        assert (await client.post("/alerts/silence", data=fields)).status_code == 303
        assert len(console.mesh.silences) == 1
        other = await client.post("/alerts/silence", data=fields | {"lasts": "8h"})
        assert (other.status_code, "has set another silence before" in other.text) == (400, True)
        console.mesh.silences[0].ends_at.GetCurrentTime()
        again = await client.post("/alerts/silence", data=fields)
        assert (again.status_code, "open the page again" in again.text) == (400, True)
        # Another row, or the page opened again, is another silence.
        assert silence_form((await client.get("/alerts")).text)["silence"] != fields["silence"]


async def test_what_insight_refuses_or_cannot_answer_is_told_and_nothing_is_claimed(console: Console) -> None:
    console.mesh.fill()
    console.mesh.refuses = "reason must be a code"
    async with console.signed_in() as client:
        form = {"csrf_token": await token_of(client), "rule": "r", "lasts": "2h", "reason": "Maria said so"}
        refused = await client.post("/alerts/silence", data=form)
        assert (refused.status_code, "reason must be a code." in refused.text) == (400, True)
        odd = await client.post("/alerts/silence", data=form | {"lasts": "for ever"})
        assert (odd.status_code, "Choose how long" in odd.text) == (400, True)
        console.mesh.away = {"insight"}
        away = await client.post("/alerts/silence", data=form)
        assert (away.status_code, "Nothing was done" in away.text) == (503, True)
        assert "secret detail" not in away.text
