"""What is to be told once the transaction is committed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from sluice_cost.adapters import tables
from sluice_cost.adapters.bulk import insert_all


@dataclass(frozen=True, slots=True)
class Telling:
    """An event that waits."""

    event_id: str
    event_type: str
    """Name of its message, such as `CostRecorded`."""
    payload: bytes


def tell(connection: Connection, tellings: Sequence[Telling]) -> None:
    """Puts events into the outbox. Their ids must be new."""
    if tellings:
        names = ("cost_event_id", "event_type", "payload")
        insert_all(connection, tables.outbox, names, [(one.event_id, one.event_type, one.payload) for one in tellings])
