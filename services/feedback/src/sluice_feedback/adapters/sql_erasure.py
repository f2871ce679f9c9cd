"""Which texts of feedback must go, and how they go: queries that run in the transaction that learns of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from sluice_feedback.adapters import tables
from sluice_feedback.adapters.moments import to_microseconds
from sluice_feedback.domain.known_requests import DoomedText, Erasure, KnownRequest

_Persons = Mapping[tuple[str, str], int]
"""Tenant and subject to the moment of the erasure, in microseconds."""


def doomed(connection: Connection, requests: Sequence[KnownRequest], erasures: Sequence[Erasure]) -> list[DoomedText]:
    """Texts of erased persons or about their requests that came before the erasure, and of tenants that capture none."""
    told = {(one.tenant_id, one.subject_id): to_microseconds(one.erased_at) for one in erasures}
    found = [row for person, erased_at in told.items() for row in _texts_of(connection, person, erased_at)]
    known = {request.request_id: request for request in requests}
    erased = _erased_before(connection, requests) | told
    found += [row for row in _texts_about(connection, list(known)) if _must_go(row, known[row.request_id], erased)]
    return [
        DoomedText(row.entry_id, row.tenant_id, row.sealed_text)
        for row in {row.entry_id: row for row in found}.values()
    ]


def erase(connection: Connection, texts: Sequence[DoomedText]) -> None:
    """Takes the texts out, and the digests that a short text in clear could be guessed from."""
    c = tables.feedback.c
    ids = [text.entry_id for text in texts]
    if ids:
        gone = {"text": None, "sealed_text": None, "digest": ""}
        connection.execute(update(tables.feedback).where(c.entry_id.in_(ids)).values(gone))


def adopt(connection: Connection, requests: Sequence[KnownRequest]) -> None:
    """Notes on feedback that came before its request whose request it was."""
    c = tables.feedback.c
    for request in requests:
        if request.subject_id:
            mine = and_(c.request_id == request.request_id, c.tenant_id == request.tenant_id)
            connection.execute(update(tables.feedback).where(mine).values(request_subject_id=request.subject_id[:128]))


def remember(connection: Connection, insert: Callable[..., Any], erasures: Sequence[Erasure]) -> None:
    """Keeps who was erased when: the completion of a request may come after the erasure of its person."""
    for one in erasures:
        at = to_microseconds(one.erased_at)
        row = insert(tables.erasures).values(tenant_id=one.tenant_id, subject_id=one.subject_id, erased_at_us=at)
        c = tables.erasures.c
        connection.execute(
            row.on_conflict_do_update(
                index_elements=["tenant_id", "subject_id"],
                set_={"erased_at_us": row.excluded.erased_at_us},
                where=c.erased_at_us < row.excluded.erased_at_us,
            )
        )


def _must_go(row: Any, request: KnownRequest, erased: _Persons) -> bool:
    if row.tenant_id != request.tenant_id:
        return True  # feedback on somebody else's request, which is being rejected
    return not request.captures_text or row.received_at_us <= erased.get((request.tenant_id, request.subject_id), -1)


def _texts_of(connection: Connection, person: tuple[str, str], erased_at_us: int) -> Sequence[Any]:
    c = tables.feedback.c
    tenant_id, subject_id = person
    theirs = or_(c.subject_id == subject_id, c.request_subject_id == subject_id)
    return _texts(connection, and_(c.tenant_id == tenant_id, theirs, c.received_at_us <= erased_at_us))


def _texts_about(connection: Connection, request_ids: Sequence[str]) -> Sequence[Any]:
    return _texts(connection, tables.feedback.c.request_id.in_(request_ids)) if request_ids else []


def _texts(connection: Connection, which: Any) -> Sequence[Any]:
    c = tables.feedback.c
    columns = (c.entry_id, c.tenant_id, c.request_id, c.received_at_us, c.sealed_text)
    has_text = or_(c.text.is_not(None), c.sealed_text.is_not(None))
    return connection.execute(select(*columns).where(has_text, which)).all()


def _erased_before(connection: Connection, requests: Sequence[KnownRequest]) -> dict[tuple[str, str], int]:
    subjects = {request.subject_id for request in requests if request.subject_id}
    if not subjects:
        return {}
    c = tables.erasures.c
    rows = connection.execute(select(tables.erasures).where(c.subject_id.in_(subjects))).all()
    return {(row.tenant_id, row.subject_id): row.erased_at_us for row in rows}
