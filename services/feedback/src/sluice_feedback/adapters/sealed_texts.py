"""Seals and opens the texts of feedback, destroys keys that stand for requests, and seals what former versions left in clear."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.types.v1.encrypted_text_pb2 import EncryptedText
from sluice_kit.sealing.keys import KeyStore, KeyStoreUnavailable
from sluice_kit.sealing.text import Place, TextErased, TextReader, TextSealer, TextUnreadable, key_name
from sluice_kit.telemetry import logger

from sluice_feedback.adapters.sql_feedback import SqlFeedback
from sluice_feedback.domain.desk import owners_of
from sluice_feedback.domain.feedback import REQUEST_OWNER, Feedback, KeysUnavailable, StoreUnavailable, TextGone
from sluice_feedback.domain.known_requests import DoomedText, RequestFacts

log = logger(__name__)

_BATCH = 200
_AGAIN_SECONDS = 15.0
_FIELD = FeedbackReceived.DESCRIPTOR.fields_by_name["encrypted_text"].full_name


class SealedTexts:
    """Fits domain.desk.TextSafe and consumer.Keys. A text stands sealed in the store exactly as in its event."""

    def __init__(self, sealer: TextSealer, open_store: Callable[[], KeyStore]) -> None:
        self._sealer, self._reader, self._open_store = sealer, TextReader(open_store), open_store

    async def seal(self, text: str, feedback: Feedback, *, owners: Sequence[str]) -> bytes:
        """Raises KeysUnavailable."""
        try:
            return (await self._sealer.seal(text, owners=owners, place=_place(feedback))).SerializeToString()
        except KeyStoreUnavailable as error:
            log.error("feedback.key_store_unavailable", what=str(error))
            raise KeysUnavailable from None

    async def open(self, feedback: Feedback) -> str:
        """Raises TextGone."""
        sealed = EncryptedText.FromString(feedback.value.sealed_text or b"")
        try:
            return await asyncio.to_thread(self._reader.open, sealed, _place(feedback))
        except TextErased:
            raise TextGone("ERASED") from None
        except TextUnreadable:
            raise TextGone("UNREADABLE") from None
        except KeyStoreUnavailable:
            raise TextGone("KEY_STORE_UNAVAILABLE") from None

    def forget(self, tenant_id: str, subject_id: str) -> None:
        """Keep no data key of this person: it was erased."""
        self._sealer.forget(tenant_id, subject_id)
        self._reader.forget(tenant_id, subject_id)

    async def destroy_of(self, texts: Sequence[DoomedText]) -> None:
        """Destroy every request's key that sealed one of the texts. Raises KeysUnavailable, so that it is tried again."""
        names = sorted({name for text in texts for name in _request_keys(text)})
        if not names:
            return
        try:
            await asyncio.to_thread(self._destroy, names)
        except KeyStoreUnavailable as error:
            raise KeysUnavailable(str(error)) from None

    def _destroy(self, names: Sequence[str]) -> None:
        store = self._open_store()
        for name in names:
            store.destroy(name)


class ClearTexts:
    """Seals the texts that a version without encryption stored in clear."""

    def __init__(self, store: SqlFeedback, safe: SealedTexts) -> None:
        self._store, self._safe = store, safe

    async def seal_all(self, stop: asyncio.Event) -> None:
        """Seal until there is none, or `stop`; waits for the key store and the database."""
        sealed = 0
        while not stop.is_set():
            try:
                done = await self._seal_some()
            except (KeysUnavailable, StoreUnavailable) as error:
                log.warning("feedback.texts_in_clear_wait", error=type(error).__name__)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _AGAIN_SECONDS)
                continue
            sealed += done
            if not done:
                if sealed:
                    await self._store.scrub()
                    log.info("feedback.texts_sealed", count=sealed)
                return

    async def _seal_some(self) -> int:
        found = await self._store.texts_in_clear(limit=_BATCH)
        sealed = []
        for stored, request_subject_id in found:
            feedback = stored.feedback
            owners = owners_of(feedback, RequestFacts(bool(request_subject_id), request_subject_id))
            text = await self._safe.seal(feedback.value.text or "", feedback, owners=owners)
            sealed.append(feedback.with_sealed_text(text))
        if sealed:
            await self._store.put_sealed(sealed)
        return len(sealed)


def _place(feedback: Feedback) -> Place:
    return Place(feedback.tenant_id, feedback.event_id(is_retraction=False), _FIELD)


def _request_keys(text: DoomedText) -> list[str]:
    told = EncryptedText.FromString(text.sealed_text or b"").key_ids
    names = (key.rpartition("@")[0] for key in told)
    return [name for name in names if name.startswith(key_name(text.tenant_id, REQUEST_OWNER))]
