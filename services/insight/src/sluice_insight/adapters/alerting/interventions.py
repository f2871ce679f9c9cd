"""What people did about alerts, as its topics say: silences, and who has taken an alert on. Bounded."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from google.protobuf.message import Message
from sluice.events.v1.alert_pb2 import AlertAcknowledged, AlertSilenced
from sluice_kit.consumer import ConsumedEvent

from sluice_insight.adapters.alerting.events import moment
from sluice_insight.domain.alerting.silences import Silence, covering

INTERVENTIONS: Sequence[type[Message]] = (AlertSilenced, AlertAcknowledged)
MOST_SILENCES = 1_000
"""More that are not over are refused."""
MOST_KEPT = 10_000


class Interventions:
    """The newest of every silence and of every acknowledgement."""

    def __init__(self, *, most: int = MOST_KEPT, changed: Callable[[], None] = lambda: None) -> None:
        self._most, self._changed = most, changed
        self._silences: OrderedDict[str, Silence] = OrderedDict()
        self._version, self._by_end = 0, (0, list[Silence]())
        self._acknowledged: OrderedDict[str, AlertAcknowledged] = OrderedDict()
        self.positions: dict[tuple[str, int], int] = {}
        """The offset after the last that was read, by topic and partition."""

    async def handle(self, events: Sequence[ConsumedEvent]) -> None:
        """Takes a batch in."""
        for event in events:
            self.take(event.message)
            self.positions[event.topic, event.partition] = event.offset + 1

    def take(self, event: Message) -> None:
        """What is older than what is known changes nothing: copies come again."""
        if isinstance(event, AlertSilenced):
            self._silence(silence_of(event))
        elif isinstance(event, AlertAcknowledged):
            self._acknowledge(event)

    def _silence(self, silence: Silence) -> None:
        known = self._silences.get(silence.silence_id)
        if known is None or known.told_at < silence.told_at:
            self._silences[silence.silence_id] = silence
            while len(self._silences) > self._most:
                del self._silences[min(self._silences.values(), key=lambda one: one.ends_at).silence_id]
            self._version += 1
            self._changed()

    def _acknowledge(self, event: AlertAcknowledged) -> None:
        known = self._acknowledged.get(event.alert_id)
        if known is None or moment(known.metadata.occurred_at) < moment(event.metadata.occurred_at):
            self._acknowledged[event.alert_id] = event
            self._acknowledged.move_to_end(event.alert_id)
            while len(self._acknowledged) > self._most:
                self._acknowledged.popitem(last=False)
            self._changed()

    def silence(self, silence_id: str) -> Silence | None:
        """One silence."""
        return self._silences.get(silence_id)

    def silences(self) -> list[Silence]:
        """Those that end last first."""
        return sorted(self._silences.values(), key=lambda one: (-one.ends_at, one.silence_id))

    def silencing(self, rule: str, labels: dict[str, str], *, at: int) -> tuple[str, ...]:
        """Ids of the silences that hold for an alert at this moment. Asked for each alert by each watcher: those that are over are not looked at."""
        by_end = self._sorted()
        return covering(by_end[bisect_right(by_end, at, key=lambda one: one.ends_at) :], rule, labels, at=at)

    def _sorted(self) -> list[Silence]:
        """By their ends. A new list whenever one was taken in: the rules are judged in another thread."""
        version, by_end = self._by_end
        if version != self._version:
            version = self._version
            by_end = sorted(self._silences.values(), key=lambda one: one.ends_at)
            self._by_end = version, by_end
        return by_end

    def acknowledgement(self, alert_id: str) -> AlertAcknowledged | None:
        """Who has taken an alert on."""
        return self._acknowledged.get(alert_id)


def silence_of(event: AlertSilenced) -> Silence:
    """The silence that an event tells of."""
    return Silence(
        silence_id=event.silence_id, rule=event.rule, labels=dict(event.labels), starts_at=moment(event.starts_at),
        ends_at=moment(event.ends_at), set_by=event.set_by, reason=event.reason, expired_by=event.expired_by,
        told_at=moment(event.metadata.occurred_at),
    )  # fmt: skip


def silenced(silence: Silence) -> AlertSilenced:
    """The event that tells of a silence."""
    event = AlertSilenced(
        silence_id=silence.silence_id, rule=silence.rule, labels=silence.labels, set_by=silence.set_by,
        reason=silence.reason, expired_by=silence.expired_by,
    )  # fmt: skip
    event.starts_at.FromMicroseconds(silence.starts_at)
    event.ends_at.FromMicroseconds(silence.ends_at)
    event.metadata.occurred_at.FromMicroseconds(silence.told_at)
    return event


def ended(silence: Silence, *, by: str, now: int) -> Silence:
    """The silence, ended now. Newer than what it ends whatever another instance's clock said."""
    return replace(silence, ends_at=min(silence.ends_at, now), expired_by=by, told_at=max(now, silence.told_at + 1))
