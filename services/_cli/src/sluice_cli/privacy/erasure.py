"""Erases a person: destroys the keys of their texts, and tells the mesh."""

import asyncio
import contextlib
import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from uuid import UUID, uuid5

from sluice.events.v1 import privacy_pb2
from sluice_kit.process import StartFailed
from sluice_kit.publisher import EventPublisher
from sluice_kit.sealing.keys import Destruction, KeyStore, KeyStoreUnavailable
from sluice_kit.sealing.opening import key_store_of, seals_texts
from sluice_kit.sealing.text import key_id, key_name
from sluice_kit.settings import MeshSettings

from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.privacy.subjects import Subject

# Fixed for ever: the same erasure told again has the same event id.
_EVENT_NAMESPACE = UUID("3f0f1f0e-3c0b-5d0a-9a39-5b0c6f8e4b11")
_CODE = re.compile(r"[A-Za-z0-9_.:#/-]{0,64}", re.ASCII)
DELIVERY_SECONDS = 20.0


def own_id() -> str:
    """Who asks, where nothing else is said: the number of the user, not the name."""
    return f"operator:{os.getuid()}"


def check_code(option: str, told: str) -> str:
    """A code or a ticket's number. MeshProblem for prose, in which a name would stand."""
    if not _CODE.fullmatch(told):
        raise MeshProblem(
            f"{option} must be a code or the number of a ticket (at most 64 of A-Z a-z 0-9 _ . : # / -): it is published, so no"
            " names and no e-mail addresses."
        )
    return told


def opened_store(settings: MeshSettings) -> KeyStore | None:
    """The key store; None where encryption is switched off. MeshProblem when it cannot be used."""
    if not seals_texts(settings):
        return None
    try:
        return key_store_of(settings, make=False)()
    except KeyStoreUnavailable as error:
        raise MeshProblem(f"The key store cannot be used: {error}") from None


def destroy_keys(store: KeyStore | None, subject: Subject) -> Destruction:
    """Every key of the subject, for ever. Done again it does nothing. MeshProblem when the store cannot be asked."""
    if store is None:
        return Destruction((), ())
    try:
        return store.destroy(key_name(subject.tenant_id, subject.id))
    except KeyStoreUnavailable as error:
        raise MeshProblem(f"Nothing was erased: {error}") from None


def receipt_of(
    subject: Subject,
    destroyed: Destruction,
    *,
    key_store: str,
    at: datetime,
    requested_by: str,
    reason: str,
) -> privacy_pb2.SubjectErased:
    """What the mesh and the operator are told."""
    versions = sorted((*destroyed.before, *destroyed.now))
    name = key_name(subject.tenant_id, subject.id)
    event = privacy_pb2.SubjectErased(
        scope=subject.scope,
        key_ids=[key_id(name, version) for version in versions],
        destroyed_keys=len(destroyed.now),
        key_store=key_store,
        requested_by=requested_by,
        reason=reason,
    )
    # Without a key there is nothing that says which erasure it is but its moment.
    which = str(versions[-1]) if versions else at.isoformat()
    event.metadata.event_id = str(uuid5(_EVENT_NAMESPACE, json.dumps([key_store, name, which])))
    event.metadata.tenant_id, event.metadata.subject_id = subject.tenant_id, subject.id
    event.metadata.occurred_at.FromDatetime(at)
    return event


async def tell(settings: MeshSettings, receipt: privacy_pb2.SubjectErased) -> bool:
    """Publish; durable when this returns. False when Kafka has not taken it yet: the next run of the command sends it."""
    try:
        publisher = EventPublisher(producer=f"sluice-privacy/{settings.instance}", settings=settings)
    except StartFailed as error:
        raise MeshProblem(f"The keys are destroyed, but the receipt cannot be kept: {error}") from None
    await publisher.start()
    try:
        await publisher.publish(receipt)
        deadline = time.monotonic() + DELIVERY_SECONDS
        while publisher.depth and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return not publisher.depth
    finally:
        await publisher.stop()


def erase(
    settings: MeshSettings, subject: Subject, *, requested_by: str, reason: str
) -> tuple[privacy_pb2.SubjectErased, bool]:
    """Destroys the keys, then tells. Returns the receipt, and whether it was delivered."""
    store = opened_store(settings)
    destroyed = destroy_keys(store, subject)
    receipt = receipt_of(
        subject,
        destroyed,
        key_store=store.id if store else "",
        at=datetime.now(UTC),
        requested_by=requested_by,
        reason=reason,
    )
    with contextlib.redirect_stdout(sys.stderr):  # what the publisher logs is not part of the receipt
        return receipt, asyncio.run(tell(settings, receipt))
