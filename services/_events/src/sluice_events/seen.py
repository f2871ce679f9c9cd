"""Which ids were seen lately: idempotence for readers without a database."""


class SeenIds:
    """Remembers the last `capacity` ids. An id that comes again after more than that many others counts as new.

    In memory: after a restart nothing is remembered, and what was not committed comes again. A reader with a database does
    better with a unique key on the event's id, written in the transaction that does the work.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; it must be 1 or more")
        self._capacity = capacity
        self._ids: dict[str, None] = {}  # in the order of their last coming

    def __len__(self) -> int:
        return len(self._ids)

    def is_new(self, event_id: str) -> bool:
        """True the first time, False again. Ask when the event is taken up: an event that then fails is not new any more."""
        known = event_id in self._ids
        if known:
            del self._ids[event_id]
        self._ids[event_id] = None
        if len(self._ids) > self._capacity:
            del self._ids[next(iter(self._ids))]
        return not known

    def forget(self, event_id: str) -> None:
        """Let it be new again, because the work on it failed."""
        self._ids.pop(event_id, None)
