"""Receivers that check what they are told: a webhook's signature, and Alertmanager's schema."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice_insight.adapters.alerting.delivery import Delivery, NotDelivered, Passing
from sluice_insight.adapters.alerting.receivers import Receiver, read_receivers
from sluice_kit.configuration import ConfigurationRefused
from sluice_kit.consumer import ConsumedEvent

from .alert_mesh import Far

NOW = 1_760_000_040
KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@pytest.fixture()
def far() -> Iterator[Far]:
    with Far().serving() as made:
        yield made


@pytest.fixture()
def secret_file(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return str(path)


def alert(state: str = "firing", *, severity: str = "critical", at: int = NOW) -> ConsumedEvent:
    event = AlertRaised(alert_id="r|tenant_id=acme|1", rule="r", state=state, severity=severity, summary="It fails.")
    event.metadata.event_id = f"event-{state}"
    event.labels["tenant_id"] = "acme"
    event.since.FromSeconds(at - 60)
    event.changed_at.FromSeconds(at)
    event.evidence.metric, event.evidence.value = "quality.failed_ratio", 0.25
    event.evidence.window.length.FromSeconds(60)
    return ConsumedEvent(
        message=event, topic="", partition=0, offset=0, key=b"", headers={}, event_id="", timestamp_ms=0
    )


async def deliver(receiver: Receiver, *events: ConsumedEvent) -> None:
    async with httpx2.AsyncClient() as client:
        delivery = Delivery(receiver, client, console_url="http://console/", now=lambda: NOW, first_pause_seconds=0.001)
        for event in events:
            await delivery.handle(event)


def webhook(far: Far, secret_file: str, **more: object) -> Receiver:
    return Receiver(receiver="hook", kind="webhook", url=far.url + "/in", secret_file=secret_file, **more)  # type: ignore[arg-type]


def is_signed(headers: dict[str, str], body: bytes) -> bool:
    """As the specification's text says, without the library that signed."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    told = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    return f"v1,{told}" in headers["webhook-signature"].split(" ")


async def test_a_webhook_is_signed_and_carries_the_evidence(far: Far, secret_file: str) -> None:
    await deliver(webhook(far, secret_file), alert())
    [(path, headers, body)] = far.got
    assert path == "/in"
    assert is_signed(headers, body)
    assert not is_signed(headers, body + b" ")
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("event-firing", str(NOW))
    told = json.loads(body)
    assert told["type"] == "alert.firing"
    assert told["data"]["evidence"]["value"] == 0.25
    assert told["data"]["labels"] == {"tenant_id": "acme"}
    # The row of the console's page, whatever stands in labels: `|`, `=` and `/` as they are would end the address in some readers.
    assert told["data"]["link"] == "http://console/alerts#r%7Ctenant_id%3Dacme%7C1"


async def test_an_alert_without_a_measurement_is_told_without_evidence(far: Far, secret_file: str) -> None:
    event = alert()
    event.message.ClearField("evidence")
    await deliver(webhook(far, secret_file), event)
    [(_, _, body)] = far.got
    assert "evidence" not in json.loads(body)["data"]


async def test_what_passes_is_tried_again_under_the_same_id(far: Far, secret_file: str) -> None:
    far.answers = [503, 429, 200]
    await deliver(webhook(far, secret_file), alert())
    assert [headers["webhook-id"] for _, headers, _ in far.got] == ["event-firing"] * 3
    assert all(is_signed(headers, body) for _, headers, body in far.got)


@pytest.mark.parametrize("trouble", ["no secret", "cancelled"])
async def test_what_went_wrong_in_any_other_way_is_no_copy_when_it_is_given_again(
    far: Far, secret_file: str, trouble: str
) -> None:
    """A secret that is being changed; a consumer whose partition is taken away while a receiver hangs."""
    secret = Path(secret_file)
    async with httpx2.AsyncClient() as client:
        delivery = Delivery(webhook(far, secret_file), client, now=lambda: NOW, first_pause_seconds=0.001)
        if trouble == "no secret":
            secret.rename(secret.with_suffix(".old"))
            with pytest.raises(OSError, match="secret"):
                await delivery.handle(alert())
            secret.with_suffix(".old").rename(secret)
        else:
            delivering = asyncio.ensure_future(delivery.handle(alert()))
            await asyncio.sleep(0)
            delivering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await delivering
        far.got.clear()
        await delivery.handle(alert())
        await delivery.handle(alert())
    assert [headers["webhook-id"] for _, headers, _ in far.got] == ["event-firing"]


async def test_a_refusal_is_not_tried_again_and_an_outage_not_for_ever(far: Far, secret_file: str) -> None:
    far.answers = [410]
    with pytest.raises(NotDelivered, match="hook answered 410"):
        await deliver(webhook(far, secret_file), alert())
    assert len(far.got) == 1
    far.answers = [500] * 9
    with pytest.raises(Passing, match="hook answered 500"):
        await deliver(webhook(far, secret_file), alert())
    assert len(far.got) == 5


async def test_pending_old_and_unwanted_alerts_are_not_delivered(far: Far, secret_file: str) -> None:
    receiver = webhook(far, secret_file, severities=("critical",), rules=("r",))
    await deliver(receiver, alert("pending"), alert(severity="info"), alert(at=NOW - 7 * 3600))
    never_fired = alert("resolved")
    never_fired.message.never_fired = True  # type: ignore[attr-defined]
    await deliver(receiver, never_fired)
    assert far.got == []
    await deliver(receiver, alert("resolved"), alert(severity=""))
    assert len(far.got) == 2


async def test_a_silenced_alert_is_not_delivered_and_one_that_others_judge_neither(far: Far, secret_file: str) -> None:
    silenced, others = alert(), alert("resolved")
    silenced.message.silenced_by.append("s-1")  # type: ignore[attr-defined]
    receiver = webhook(far, secret_file)

    async def is_silenced(event: AlertRaised) -> bool:
        return event.state == "resolved"

    async with httpx2.AsyncClient() as client:
        delivery = Delivery(receiver, client, is_silenced=is_silenced, now=lambda: NOW)
        await delivery.handle(silenced)
        await delivery.handle(others)
        assert far.got == []
        await delivery.handle(alert())
    assert len(far.got) == 1


async def test_a_copy_of_what_was_delivered_is_not_delivered_again(far: Far, secret_file: str) -> None:
    await deliver(webhook(far, secret_file), alert(), alert(), alert("resolved"), alert())
    assert [headers["webhook-id"] for _, headers, _ in far.got] == ["event-firing", "event-resolved"]


async def test_nobody_there_is_told_without_the_address(secret_file: str) -> None:
    receiver = Receiver(receiver="gone", kind="webhook", url="http://127.0.0.1:9/token", secret_file=secret_file)
    with pytest.raises(Passing) as caught:
        await deliver(receiver, alert())
    assert str(caught.value) == "gone cannot be reached (ConnectError)"


async def test_alertmanager_gets_what_its_schema_asks_for(far: Far) -> None:
    receiver = Receiver(receiver="am", kind="alertmanager", url=far.url + "/")
    await deliver(receiver, alert(), alert("resolved", at=NOW + 60))
    assert [path for path, _, _ in far.got] == ["/api/v2/alerts"] * 2
    firing, resolved = (json.loads(body)[0] for _, _, body in far.got)
    assert firing["labels"] == {"alertname": "r", "severity": "critical", "tenant_id": "acme"}
    assert firing["labels"] == resolved["labels"], "Alertmanager knows an alert by its labels"
    assert firing["annotations"] == {"summary": "It fails.", "alert_id": "r|tenant_id=acme|1"}
    assert firing["generatorURL"] == resolved["generatorURL"] == "http://console/alerts#r%7Ctenant_id%3Dacme%7C1"
    assert resolved["endsAt"] == "2025-10-09T08:55:00Z"
    assert firing["endsAt"] > resolved["endsAt"]


def test_mistakes_of_receivers_are_told_with_their_line_and_without_the_secret(tmp_path: Path) -> None:
    secret, file = tmp_path / "secret", tmp_path / "receivers.yaml"
    secret.write_text("hunter2 is no base64!")
    file.write_text(
        f"receivers:\n  - {{receiver: a, kind: webhook, url: http://x, secret_file: {secret}}}\n"
        "  - {receiver: a, kind: alertmanager, url: http://x}\n"
    )
    with pytest.raises(ConfigurationRefused) as caught:
        read_receivers(file)
    assert [mistake.line for mistake in caught.value.mistakes] == [2, 3]
    assert "hunter2" not in str(caught.value)
    file.write_text("receivers:\n  - {receiver: a, kind: webhook, url: http://x}\n")
    with pytest.raises(ConfigurationRefused, match=r"receivers\.yaml:2:.*needs secret_file"):
        read_receivers(file)
    assert read_receivers(None) == ()
