"""Tells receivers: signed webhooks (standardwebhooks.com) and Alertmanager's API v2."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx2
from google.protobuf.json_format import MessageToDict
from prometheus_client import Counter
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.events import SeenIds
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from sluice_insight.adapters.alerting.events import Told
from sluice_insight.adapters.alerting.receivers import Receiver, signer

DELIVERIES = Counter(
    "sluice_insight_alert_deliveries", "Alerts by receiver and `delivered`, `failed` (tried again, in the end a dead letter), `too_old`, `silenced`.",
    ("receiver", "result"),
)  # fmt: skip
ATTEMPTS = 4
MOST_SEEN = 10_000
SECONDS = 10.0
OLDEST_SECONDS = 6 * 3600
"""News that is older is no news: a new receiver is not told of three months of alerts."""
OPEN_END = timedelta(days=30)
"""Alertmanager takes an alert for resolved at its end. It is told so when it is; this is for the one that never is."""
_PASSING = frozenset({408, 425, 429, *range(500, 600)})


class NotDelivered(Exception):
    """A receiver did not take an alert. The message has no address: it may hold a secret."""


class Passing(NotDelivered):
    """It may take it later."""


@dataclass
class Delivery:
    """One receiver's; the consumer that calls it retries, and puts on the dead letters what is never taken."""

    receiver: Receiver
    client: httpx2.AsyncClient
    console_url: str = ""
    is_silenced: Callable[[AlertRaised], Awaitable[bool]] | None = None
    """Asked of alerts that others judge, which say nothing of silences. Raises Unavailable while it is not known."""
    now: Callable[[], float] = time.time
    first_pause_seconds: float = 0.5
    _seen: SeenIds = field(default_factory=lambda: SeenIds(MOST_SEEN))

    async def handle(self, event: ConsumedEvent) -> None:
        """Delivers one change. Raises NotDelivered."""
        alert = event.message
        assert isinstance(alert, AlertRaised)
        is_news = alert.state != "pending" and not alert.never_fired
        if not is_news or not self.receiver.wants(rule=alert.rule, severity=alert.severity):
            return
        if alert.silenced_by or (self.is_silenced is not None and await self.is_silenced(alert)):
            DELIVERIES.labels(self.receiver.receiver, "silenced").inc()
            return
        if self.now() - Told(alert).changed_at / 1e6 > OLDEST_SECONDS:
            DELIVERIES.labels(self.receiver.receiver, "too_old").inc()
            return
        if not self._seen.is_new(alert.metadata.event_id):
            return  # a copy: an outbox whose process was killed sends what it does not know to be on the topic
        result = "failed"
        try:
            await self._retried(alert)
            result = "delivered"
        finally:
            # Whatever went wrong, a cancellation too: it is given again, and must not pass for a copy then.
            if result == "failed":
                self._seen.forget(alert.metadata.event_id)
            DELIVERIES.labels(self.receiver.receiver, result).inc()

    async def _retried(self, alert: AlertRaised) -> None:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(Passing),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(multiplier=self.first_pause_seconds, max=5, jitter=self.first_pause_seconds),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                await self._send(alert)

    async def _send(self, alert: AlertRaised) -> None:
        address, body, headers = self._webhook(alert) if self.receiver.secret_file else self._alertmanager(alert)
        headers["content-type"] = "application/json"
        try:
            answer = await self.client.post(address, content=body, headers=headers, timeout=SECONDS)
        except httpx2.TransportError as error:
            raise Passing(f"{self.receiver.receiver} cannot be reached ({type(error).__name__})") from None
        if answer.status_code // 100 != 2:
            kind = Passing if answer.status_code in _PASSING else NotDelivered
            raise kind(f"{self.receiver.receiver} answered {answer.status_code}")

    def _webhook(self, alert: AlertRaised) -> tuple[str, str, dict[str, str]]:
        assert self.receiver.secret_file is not None
        at = datetime.fromtimestamp(int(self.now()), UTC)
        body = json.dumps(webhook_body(alert, console_url=self.console_url), ensure_ascii=False)
        # The same id at every try: receivers know by it what they have. Read anew at every try: a secret may be changed.
        message_id = alert.metadata.event_id
        signature = signer(self.receiver.secret_file).sign(message_id, at, body)
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signature,
        }
        return self.receiver.url, body, headers

    def _alertmanager(self, alert: AlertRaised) -> tuple[str, str, dict[str, str]]:
        address = self.receiver.url.rstrip("/") + "/api/v2/alerts"
        return address, json.dumps([alertmanager_alert(alert, console_url=self.console_url)]), {}


def webhook_body(alert: AlertRaised, *, console_url: str) -> dict[str, Any]:
    """Type, time and data, as the specification advises. Names, numbers and the rule's own sentence; never a text."""
    data: dict[str, Any] = {
        "alert_id": alert.alert_id,
        "rule": alert.rule,
        "state": alert.state,
        "severity": alert.severity,
        "summary": alert.summary,
        "runbook": alert.runbook,
        "labels": dict(alert.labels),
        "causes": dict(alert.causes),
        "since": _iso(Told(alert).since),
    }
    if alert.HasField("evidence"):
        data["evidence"] = MessageToDict(alert.evidence, preserving_proto_field_name=True)
    if console_url:
        data["link"] = _link(console_url, alert)
    return {"type": f"alert.{alert.state}", "timestamp": _iso(Told(alert).changed_at), "data": data}


def alertmanager_alert(alert: AlertRaised, *, console_url: str) -> dict[str, Any]:
    """A PostableAlert of Alertmanager's API v2."""
    told = Told(alert)
    labels = {"alertname": alert.rule, **dict(alert.labels), "severity": alert.severity}
    annotations = {"summary": alert.summary, "runbook_url": alert.runbook, "alert_id": alert.alert_id}
    ends = told.changed_at if alert.state == "resolved" else told.changed_at + int(OPEN_END.total_seconds()) * 1_000_000
    found: dict[str, Any] = {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": _iso(told.since),
        "endsAt": _iso(ends),
    }
    if console_url:
        found["generatorURL"] = _link(console_url, alert)
    return found


def _link(console_url: str, alert: AlertRaised) -> str:
    """The alert's own row on the console's page, which links where its evidence is seen."""
    return f"{console_url.rstrip('/')}/alerts#{quote(alert.alert_id, safe='')}"


def _iso(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat().replace("+00:00", "Z")
