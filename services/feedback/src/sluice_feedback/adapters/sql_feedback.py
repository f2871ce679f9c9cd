"""Feedback in SQL: every change and the event that tells of it in one transaction."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from sluice_feedback.adapters import sql_erasure, tables
from sluice_feedback.adapters.database import Database
from sluice_feedback.adapters.moments import from_microseconds, to_microseconds
from sluice_feedback.domain.feedback import (
    MOST_PER_REQUEST,
    ContentDiffers,
    Feedback,
    ForeignRequest,
    Kind,
    Preference,
    Source,
    Standing,
    StoredFeedback,
    Thumb,
    TooMuchFeedback,
    UnknownFeedback,
    Value,
)
from sluice_feedback.domain.known_requests import DoomedText, Erasure, KnownRequest, Partition, RequestFacts

Encode = Callable[[StoredFeedback], bytes]


class SqlFeedback:
    """Fits domain.feedback.FeedbackStore and RequestRegister, and keeps the outbox of what is to be told."""

    def __init__(self, database: Database, *, encode: Encode) -> None:
        self._database, self._encode = database, encode
        self._insert: Callable[..., Any] = postgresql.insert if database.dialect == "postgresql" else sqlite.insert

    # --- FeedbackStore ---

    async def add(self, feedback: Feedback, *, received_at: datetime) -> tuple[StoredFeedback, bool]:
        """Stores feedback and its event, once."""

        def work(connection: Connection) -> tuple[StoredFeedback, bool]:
            _lock(connection, feedback.request_ids)
            is_known = _check_owner(connection, feedback.tenant_id, feedback.request_ids)
            stored = StoredFeedback(feedback, received_at)
            row = as_row(stored) | {"request_subject_id": _facts(connection, feedback.request_id).subject_id}
            added = self._insert(tables.feedback).values(row).on_conflict_do_nothing()
            if connection.execute(added.returning(tables.feedback.c.entry_id)).first() is None:
                return _same_as_stored(connection, feedback), is_known
            if _count(connection, feedback) > MOST_PER_REQUEST:
                raise TooMuchFeedback  # rolls the transaction back
            self._tell(connection, stored)
            return stored, is_known

        return await self._database.write(work)

    async def retract(self, tenant_id: str, feedback_id: str, *, at: datetime) -> StoredFeedback:
        """Takes feedback back, once."""

        def work(connection: Connection) -> StoredFeedback:
            self._end(connection, _is(tenant_id, feedback_id), Standing.RETRACTED, at)
            found = _find(connection, tenant_id, feedback_id)
            if found is None or found.standing is Standing.REJECTED:
                raise UnknownFeedback
            return found

        return await self._database.write(work)

    async def of_request(self, tenant_id: str, request_id: str) -> tuple[Sequence[StoredFeedback], bool]:
        """The tenant's feedback of a request, oldest first, and whether the request is known."""
        c = tables.feedback.c
        query = select(tables.feedback).where(
            c.request_id == request_id, c.tenant_id == tenant_id, c.standing != Standing.REJECTED.value
        )

        def work(connection: Connection) -> tuple[Sequence[StoredFeedback], bool]:
            is_known = _check_owner(connection, tenant_id, [request_id])
            rows = connection.execute(query.order_by(c.entry_id).limit(MOST_PER_REQUEST)).all()
            return [_as_stored(row) for row in rows], is_known

        return await self._database.read(work)

    async def check_owner(self, tenant_id: str, request_ids: Sequence[str]) -> RequestFacts:
        """What is known of the first of the requests. Raises ForeignRequest when one is another tenant's."""

        def work(connection: Connection) -> RequestFacts:
            _check_owner(connection, tenant_id, request_ids)
            return _facts(connection, request_ids[0])

        return await self._database.read(work)

    # --- RequestRegister ---

    async def learn(
        self,
        requests: Sequence[KnownRequest],
        next_offsets: Mapping[Partition, int],
        *,
        at: datetime,
        erasures: Sequence[Erasure] = (),
    ) -> int:
        """Remembers requests, rejects feedback that another tenant gave on them, erases texts, keeps the offsets."""
        owners = {request.request_id: request for request in requests}

        def work(connection: Connection) -> int:
            _lock(connection, owners)
            self._remember(connection, owners)
            rejected = self._reject_foreign(connection, owners, at)
            sql_erasure.erase(connection, sql_erasure.doomed(connection, requests, erasures))
            sql_erasure.adopt(connection, requests)
            sql_erasure.remember(connection, self._insert, erasures)
            self._keep_offsets(connection, next_offsets)
            return rejected

        return await self._database.write(work)

    async def doomed(self, requests: Sequence[KnownRequest], erasures: Sequence[Erasure]) -> Sequence[DoomedText]:
        """The texts that `learn` will erase."""
        return await self._database.read(lambda connection: sql_erasure.doomed(connection, requests, erasures))

    async def texts_in_clear(self, *, limit: int) -> Sequence[tuple[StoredFeedback, str]]:
        """Feedback whose text is not sealed, oldest first, each with the subject of its request."""
        c = tables.feedback.c
        query = select(tables.feedback).where(c.text.is_not(None)).order_by(c.entry_id).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [(_as_stored(row), row.request_subject_id) for row in rows]

    async def put_sealed(self, sealed: Sequence[Feedback]) -> None:
        """Puts sealed texts in the place of those in clear."""

        def work(connection: Connection) -> None:
            for one in sealed:
                values = {"text": None, "sealed_text": one.value.sealed_text, "digest": one.digest()}
                connection.execute(update(tables.feedback).where(_is(one.tenant_id, one.feedback_id)).values(values))

        await self._database.write(work)

    async def scrub(self) -> None:
        """Leaves no copy of what was overwritten, as far as the database lets us."""
        await self._database.scrub()

    async def forget(self, *, before: datetime, keep_at_most: int) -> int:
        """Drops what completed before a moment, and the oldest beyond a number."""
        c = tables.known_requests.c
        beyond = select(c.completed_at_us).order_by(c.completed_at_us.desc()).offset(keep_at_most).limit(1)

        def work(connection: Connection) -> int:
            newest_beyond = connection.execute(beyond).scalar()
            too_old = c.completed_at_us < to_microseconds(before)
            which = too_old if newest_beyond is None else or_(too_old, c.completed_at_us <= newest_beyond)
            return connection.execute(delete(tables.known_requests).where(which)).rowcount

        return await self._database.write(work)

    async def next_offsets(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """The offset to read next of those of `partitions` that were read before."""
        rows = await self._database.read(lambda connection: connection.execute(select(tables.consumer_offsets)).all())
        positions = {Partition(row.topic, row.partition_number): row.next_offset for row in rows}
        return {partition: positions[partition] for partition in partitions if partition in positions}

    # --- outbox ---

    async def hand_over(self, deliver: Callable[[Sequence[bytes]], None], *, limit: int) -> int:
        """Gives the oldest waiting events to `deliver` and takes them out of the outbox when it returns.

        Runs `deliver` in a thread; nobody who gives feedback waits for it. When it raises, or the process ends before they
        are taken out, the events wait on, and are sent again with the same ids. Returns how many went.
        """
        oldest = select(tables.outbox).order_by(tables.outbox.c.outbox_id).limit(limit)
        if self._database.dialect == "sqlite":
            # Its one writer must not be kept while Kafka is waited for: two short steps.
            rows = await self._database.read(lambda connection: connection.execute(oldest).all())
            if rows:
                await asyncio.to_thread(deliver, [row.payload for row in rows])
                await self._database.write(lambda connection: _take_out(connection, rows))
            return len(rows)

        def work(connection: Connection) -> int:
            # Other replicas take other rows meanwhile.
            rows = connection.execute(oldest.with_for_update(skip_locked=True)).all()
            if rows:
                deliver([row.payload for row in rows])
                _take_out(connection, rows)
            return len(rows)

        return await self._database.write_apart(work)

    # --- parts ---

    def _remember(self, connection: Connection, owners: Mapping[str, KnownRequest]) -> None:
        if not owners:
            return
        rows = [
            {
                "request_id": key,
                "tenant_id": one.tenant_id,
                "completed_at_us": to_microseconds(one.completed_at),
                "subject_id": one.subject_id[:128],
                "captures_text": int(one.captures_text),
            }
            for key, one in sorted(owners.items())
        ]
        connection.execute(self._insert(tables.known_requests).on_conflict_do_nothing(), rows)

    def _reject_foreign(self, connection: Connection, owners: Mapping[str, KnownRequest], at: datetime) -> int:
        c, known = tables.feedback.c, tables.known_requests.c
        speaks_of = or_(c.request_id == known.request_id, c.other_request_id == known.request_id)
        foreign = (
            select(c.entry_id)
            .join(tables.known_requests, and_(speaks_of, known.tenant_id != c.tenant_id))
            .where(known.request_id.in_(list(owners)))
        )
        return self._end(connection, c.entry_id.in_(foreign), Standing.REJECTED, at)

    def _end(self, connection: Connection, which: Any, standing: Standing, at: datetime) -> int:
        """Ends feedback that stands, and tells the readers of its event to undo it."""
        accepted = and_(which, tables.feedback.c.standing == Standing.ACCEPTED.value)
        ending = update(tables.feedback).where(accepted).values(standing=standing, ended_at_us=to_microseconds(at))
        rows = connection.execute(ending.returning(*tables.feedback.c)).all()
        for row in rows:
            self._tell(connection, _as_stored(row))
        return len(rows)

    def _tell(self, connection: Connection, stored: StoredFeedback) -> None:
        event_id = stored.feedback.event_id(is_retraction=stored.standing is not Standing.ACCEPTED)
        connection.execute(insert(tables.outbox).values(event_id=event_id, payload=self._encode(stored)))

    def _keep_offsets(self, connection: Connection, next_offsets: Mapping[Partition, int]) -> None:
        rows = [
            {"topic": partition.topic, "partition_number": partition.number, "next_offset": next_offset}
            for partition, next_offset in sorted(next_offsets.items(), key=lambda item: (item[0].topic, item[0].number))
        ]
        if not rows:
            return
        statement = self._insert(tables.consumer_offsets)
        # Not the greatest of old and new: a topic that was made anew starts at 0, and a replay is harmless.
        keep = statement.on_conflict_do_update(
            index_elements=["topic", "partition_number"], set_={"next_offset": statement.excluded.next_offset}
        )
        connection.execute(keep, rows)


def _take_out(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    connection.execute(delete(tables.outbox).where(tables.outbox.c.outbox_id.in_([row.outbox_id for row in rows])))


def _lock(connection: Connection, request_ids: Any) -> None:
    """Makes feedback on a request and the news of its completion pass one after the other, so that neither misses the other."""
    if connection.dialect.name != "postgresql":
        return  # SQLite has one writer
    ids = sorted(set(request_ids))  # always in one order, so that two never wait for each other
    statement = text(
        "SELECT pg_advisory_xact_lock(hashtext('feedback'), hashtext(id)) FROM unnest(CAST(:ids AS text[])) AS id"
    )
    connection.execute(statement, {"ids": ids})


def _check_owner(connection: Connection, tenant_id: str, request_ids: Sequence[str]) -> bool:
    """Whether all requests are known. Raises ForeignRequest when one is another tenant's."""
    known = tables.known_requests.c
    query = select(known.request_id, known.tenant_id).where(known.request_id.in_(request_ids))
    owners = {row.request_id: row.tenant_id for row in connection.execute(query)}
    if any(owner != tenant_id for owner in owners.values()):
        raise ForeignRequest
    return len(owners) == len(set(request_ids))


def _facts(connection: Connection, request_id: str) -> RequestFacts:
    c = tables.known_requests.c
    row = connection.execute(select(c.subject_id, c.captures_text).where(c.request_id == request_id)).first()
    return RequestFacts(True, row.subject_id, bool(row.captures_text)) if row is not None else RequestFacts()


def _count(connection: Connection, feedback: Feedback) -> int:
    c = tables.feedback.c
    query = select(func.count()).where(c.request_id == feedback.request_id, c.tenant_id == feedback.tenant_id)
    return connection.execute(query).scalar_one()


def _is(tenant_id: str, feedback_id: str) -> Any:
    return and_(tables.feedback.c.tenant_id == tenant_id, tables.feedback.c.feedback_id == feedback_id)


def _find(connection: Connection, tenant_id: str, feedback_id: str) -> StoredFeedback | None:
    row = connection.execute(select(tables.feedback).where(_is(tenant_id, feedback_id))).first()
    return _as_stored(row) if row is not None else None


def _same_as_stored(connection: Connection, feedback: Feedback) -> StoredFeedback:
    stored = _find(connection, feedback.tenant_id, feedback.feedback_id)
    if stored is None or stored.feedback.digest() != feedback.digest():
        raise ContentDiffers
    return stored


def as_row(stored: StoredFeedback) -> dict[str, Any]:
    """The columns of feedback as it stands, but for what is known of its request."""
    feedback, value = stored.feedback, stored.feedback.value
    return {
        "tenant_id": feedback.tenant_id,
        "feedback_id": feedback.feedback_id,
        "request_id": feedback.request_id,
        "project_id": feedback.project_id,
        "subject_id": feedback.subject_id,
        "traceparent": feedback.traceparent,
        "is_synthetic": int(feedback.is_synthetic),
        "kind": value.kind.value,
        "thumb": value.thumb,
        "rating": value.rating,
        "text": value.text,
        "sealed_text": value.sealed_text,
        "other_request_id": value.other_request_id,
        "preference": value.preference,
        "source": feedback.source.value,
        "tags": json.dumps(feedback.tags),
        "digest": feedback.digest(),
        "standing": stored.standing.value,
        "received_at_us": to_microseconds(stored.received_at),
    }


def _as_stored(row: Row[Any]) -> StoredFeedback:
    value = Value(
        Kind(row.kind),
        thumb=Thumb(row.thumb) if row.thumb else None,
        rating=row.rating,
        text=row.text,
        other_request_id=row.other_request_id,
        preference=Preference(row.preference) if row.preference else None,
        sealed_text=row.sealed_text,
    )
    feedback = Feedback(
        row.feedback_id,
        row.request_id,
        row.tenant_id,
        value,
        source=Source(row.source),
        tags=tuple(json.loads(row.tags)),
        project_id=row.project_id,
        subject_id=row.subject_id,
        traceparent=row.traceparent,
        is_synthetic=bool(row.is_synthetic),
    )
    ended_at = from_microseconds(row.ended_at_us) if row.ended_at_us is not None else None
    return StoredFeedback(feedback, from_microseconds(row.received_at_us), Standing(row.standing), ended_at)
