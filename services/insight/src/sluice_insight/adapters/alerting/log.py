"""What the alerts' topic says: every alert's newest event, bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from sluice.events.v1.alert_pb2 import AlertRaised
from sluice_kit.consumer import ConsumedEvent

from sluice_insight.adapters.alerting.events import Told

MOST = 10_000
ORDER = {"pending": 0, "firing": 1, "resolved": 2}


class AlertLog:
    """Alerts by id. A copy of an event, or an older state of an alert, changes nothing."""

    def __init__(self, *, most: int = MOST, changed: Callable[[], None] = lambda: None) -> None:
        self._most, self._changed = most, changed
        self._told: OrderedDict[str, Told] = OrderedDict()

    async def handle(self, events: Sequence[ConsumedEvent]) -> None:
        """Takes a batch in."""
        for event in events:
            if isinstance(event.message, AlertRaised):
                self.take(event.message)

    def take(self, event: AlertRaised) -> bool:
        """False for what was known already. Raises ValueError for a state there is not."""
        if event.state not in ORDER or not event.alert_id:
            raise ValueError(f"an alert needs an id, and one of the states {', '.join(ORDER)}")
        known = self._told.get(event.alert_id)
        if known is not None and _rank(known.event) >= _rank(event):
            return False
        self._told[event.alert_id] = Told(event)
        self._told.move_to_end(event.alert_id)
        while len(self._told) > self._most:
            self._forget()
        self._changed()
        return True

    def _forget(self) -> None:
        # Resolved ones first: what is open must be resolved one day, and only what is known can be.
        oldest = next(
            (key for key, told in self._told.items() if told.event.state == "resolved"), next(iter(self._told))
        )
        del self._told[oldest]

    def get(self, alert_id: str) -> Told | None:
        """One alert."""
        return self._told.get(alert_id)

    def told(self) -> list[Told]:
        """In the order of their last change on the topic."""
        return list(self._told.values())

    def find(self, matches: Callable[[Told], bool]) -> list[Told]:
        """Newest first."""
        return sorted(filter(matches, self._told.values()), key=lambda told: (-told.changed_at, told.alert_id))


def _rank(event: AlertRaised) -> tuple[int, bool]:
    # It may fire silenced, and then fire on without the silence. The other way round it is not told of again.
    return ORDER[event.state], event.state == "firing" and not event.silenced_by
