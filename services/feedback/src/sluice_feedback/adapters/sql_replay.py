"""Enters feedback from its events into a new version of the database, and carries over what the topics do not hold."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, update

from sluice_feedback.adapters import tables
from sluice_feedback.adapters.database import Database
from sluice_feedback.adapters.moments import from_microseconds, to_microseconds
from sluice_feedback.adapters.sql_feedback import SqlFeedback, as_row
from sluice_feedback.domain.feedback import Standing, StoredFeedback
from sluice_feedback.domain.known_requests import Erasure, KnownRequest, Partition

_KEYS = {
    tables.feedback: ("tenant_id", "feedback_id"),
    tables.known_requests: ("request_id",),
    tables.erasures: ("tenant_id", "subject_id"),
}
_TEXTS = ("text", "sealed_text", "digest")


class ReplayedFeedback:
    """A version of the feedback database that is being filled from events, by the store's own rules."""

    def __init__(self, database: Database, *, encode: Callable[[StoredFeedback], bytes]) -> None:
        self._database, self.register = database, SqlFeedback(database, encode=encode)

    async def enter(self, told: Sequence[StoredFeedback], *, at: datetime) -> None:
        """Feedback as its events tell of it, in their order; then what the register knows of it already."""
        await self._database.write(partial(_enter, told=told))
        requests, erasures = await self._database.read(partial(_known_of, told=told))
        await self.register.learn(requests, {}, at=at, erasures=erasures)

    async def positions(self) -> dict[Partition, int]:
        """The offset to read next of every partition that was read."""
        return await self._database.read(positions)

    async def forget_outbox(self) -> None:
        """The live service has told or will tell of everything."""
        await self._database.write(lambda connection: connection.execute(delete(tables.outbox)))


def positions(connection: Connection) -> dict[Partition, int]:
    """The offset to read next of every partition that was read."""
    rows = connection.execute(select(tables.consumer_offsets))
    return {Partition(row.topic, row.partition_number): row.next_offset for row in rows}


def take_over_erasures(live: Connection, target: Connection) -> None:
    """Who was erased stays erased, also when the topic no longer tells of it."""
    _add_missing(live, target, tables.erasures)


def carry_over(live: Connection, target: Connection) -> None:
    """What a switch takes from the live database: what the topics hold no more or not yet, texts as they are, the outbox."""
    for table in _KEYS:
        _add_missing(live, target, table)
    # A text may have been erased or sealed since its event was written; it is never brought back.
    c = tables.feedback.c
    for row in live.execute(select(c.tenant_id, c.feedback_id, *(c[name] for name in _TEXTS))):
        mine = and_(c.tenant_id == row.tenant_id, c.feedback_id == row.feedback_id)
        target.execute(update(tables.feedback).where(mine).values({name: getattr(row, name) for name in _TEXTS}))
    target.execute(delete(tables.outbox))
    c = tables.outbox.c
    rows = [row._asdict() for row in live.execute(select(c.event_id, c.payload).order_by(c.outbox_id))]
    if rows:
        target.execute(insert(tables.outbox), rows)


def _add_missing(live: Connection, target: Connection, table: Any) -> None:
    names = _KEYS[table]
    held = {tuple(row) for row in target.execute(select(*(table.c[name] for name in names)))}
    columns = [column for column in table.c if column.name != "entry_id"]
    for row in live.execute(select(*columns)):
        if tuple(getattr(row, name) for name in names) not in held:
            target.execute(insert(table).values(row._asdict()))


def _enter(connection: Connection, told: Sequence[StoredFeedback]) -> None:
    for stored in told:
        if stored.standing is Standing.ACCEPTED:
            _begin(connection, stored)
        else:
            _end(connection, stored)


def _begin(connection: Connection, stored: StoredFeedback) -> None:
    feedback = stored.feedback
    c = tables.feedback.c
    held = select(c.entry_id).where(c.tenant_id == feedback.tenant_id, c.feedback_id == feedback.feedback_id)
    if connection.execute(held).first() is None:  # an event may come twice
        connection.execute(insert(tables.feedback).values(as_row(stored) | {"request_subject_id": ""}))


def _end(connection: Connection, stored: StoredFeedback) -> None:
    """The event of an end says when, and not why: it was rejected where a request of it is another tenant's."""
    feedback, c, known = stored.feedback, tables.feedback.c, tables.known_requests.c
    foreign = select(known.request_id).where(
        known.request_id.in_(feedback.request_ids), known.tenant_id != feedback.tenant_id
    )
    standing = Standing.RETRACTED if connection.execute(foreign).first() is None else Standing.REJECTED
    mine = and_(c.tenant_id == feedback.tenant_id, c.feedback_id == feedback.feedback_id)
    at = to_microseconds(stored.ended_at or stored.received_at)
    connection.execute(update(tables.feedback).where(mine).values(standing=standing.value, ended_at_us=at))


def _known_of(connection: Connection, told: Sequence[StoredFeedback]) -> tuple[list[KnownRequest], list[Erasure]]:
    ids = {id_ for stored in told for id_ in stored.feedback.request_ids}
    rows = connection.execute(select(tables.known_requests).where(tables.known_requests.c.request_id.in_(ids))).all()
    requests = [
        KnownRequest(
            row.request_id,
            row.tenant_id,
            from_microseconds(row.completed_at_us),
            row.subject_id,
            bool(row.captures_text),
        )
        for row in rows
    ]
    people = {(stored.feedback.tenant_id, stored.feedback.subject_id) for stored in told}
    c = tables.erasures.c
    erased = connection.execute(select(tables.erasures).where(c.subject_id.in_({subject for _, subject in people})))
    erasures = [
        Erasure(row.tenant_id, row.subject_id, from_microseconds(row.erased_at_us))
        for row in erased
        if (row.tenant_id, row.subject_id) in people
    ]
    return requests, erasures
