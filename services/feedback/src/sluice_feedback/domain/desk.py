"""Takes feedback in: whose it is, redacted, sealed, stored; and shows it again."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from sluice_feedback.domain.feedback import (
    REQUEST_OWNER,
    CaptureRefused,
    ContentDiffers,
    Feedback,
    KeysUnavailable,
    ReadFeedback,
    StoredFeedback,
    TextGone,
)
from sluice_feedback.domain.known_requests import RequestFacts


class Redactor(Protocol):
    """Takes personal data out of a text."""

    async def redact(self, text: str) -> str:
        """Raises RedactionUnavailable."""


class TextSafe(Protocol):
    """Encrypts texts so that they can be erased."""

    async def seal(self, text: str, feedback: Feedback, *, owners: Sequence[str]) -> bytes:
        """The text of this piece of feedback, readable only while the keys of all owners exist. Raises KeysUnavailable."""

    async def open(self, feedback: Feedback) -> str:
        """The sealed text of feedback. Raises TextGone."""


class FeedbackStore(Protocol):
    """Where feedback is kept. Every method raises StoreUnavailable when the database cannot be reached."""

    async def add(self, feedback: Feedback, *, received_at: datetime) -> tuple[StoredFeedback, bool]:
        """Stores feedback and its event, once. Returns it as stored, and whether its request is known.

        Raises ForeignRequest, ContentDiffers, TooMuchFeedback.
        """

    async def retract(self, tenant_id: str, feedback_id: str, *, at: datetime) -> StoredFeedback:
        """Takes feedback back, once. Raises UnknownFeedback."""

    async def of_request(self, tenant_id: str, request_id: str) -> tuple[Sequence[StoredFeedback], bool]:
        """The tenant's feedback of a request, oldest first, and whether the request is known. Raises ForeignRequest."""

    async def check_owner(self, tenant_id: str, request_ids: Sequence[str]) -> RequestFacts:
        """What is known of the first of the requests. Raises ForeignRequest when one of them is known to be another tenant's."""


class Desk:
    """Takes feedback in."""

    def __init__(self, store: FeedbackStore, redactor: Redactor, safe: TextSafe | None = None) -> None:
        """Without a safe encryption is switched off: redacted texts are stored in clear."""
        self._store, self._redactor, self._safe = store, redactor, safe

    async def submit(self, feedback: Feedback, *, received_at: datetime) -> tuple[StoredFeedback, bool]:
        """Stores checked feedback with its text redacted and sealed; nothing is stored when that cannot be done.

        Raises what FeedbackStore.add raises, RedactionUnavailable, KeysUnavailable and CaptureRefused.
        """
        # Asked before the text goes anywhere, and again in the transaction that stores it.
        facts = await self._store.check_owner(feedback.tenant_id, feedback.request_ids)
        if feedback.value.text is None:
            return await self._store.add(feedback, received_at=received_at)
        if not facts.captures_text:
            raise CaptureRefused
        text = await self._redactor.redact(feedback.value.text)
        if self._safe is None:
            return await self._store.add(feedback.with_text(text), received_at=received_at)
        sealed = feedback.with_sealed_text(await self._safe.seal(text, feedback, owners=owners_of(feedback, facts)))
        stored, is_known = await self._store.add(sealed, received_at=received_at)
        if stored.feedback.value.sealed_text != sealed.value.sealed_text:
            await self._check_same_text(stored.feedback, text)
        return stored, is_known

    async def of_request(self, tenant_id: str, request_id: str) -> tuple[Sequence[ReadFeedback], bool]:
        """The tenant's feedback of a request with its texts opened, oldest first, and whether the request is known.

        Raises ForeignRequest.
        """
        found, is_known = await self._store.of_request(tenant_id, request_id)
        return [await self._read(stored) for stored in found], is_known

    async def _read(self, stored: StoredFeedback) -> ReadFeedback:
        feedback = stored.feedback
        if feedback.value.sealed_text is None:
            is_erased = feedback.value.has_text and feedback.value.text is None
            return ReadFeedback(stored, left_out="ERASED" if is_erased else "")
        try:
            text = await self._opened(feedback)
        except TextGone as gone:
            return ReadFeedback(stored, left_out=str(gone))
        return ReadFeedback(replace(stored, feedback=feedback.with_text(text)))

    async def _check_same_text(self, before: Feedback, text: str) -> None:
        """A feedback id came again. Raises ContentDiffers for another text, also when the first one cannot be read any more."""
        if before.value.sealed_text is None:
            raise ContentDiffers
        try:
            is_same = await self._opened(before) == text
        except TextGone as gone:
            if str(gone) == "KEY_STORE_UNAVAILABLE":
                raise KeysUnavailable from None
            raise ContentDiffers from None
        if not is_same:
            raise ContentDiffers

    async def _opened(self, feedback: Feedback) -> str:
        if self._safe is None:
            raise TextGone("UNREADABLE")  # sealed before encryption was switched off
        return await self._safe.open(feedback)


def owners_of(feedback: Feedback, facts: RequestFacts) -> list[str]:
    """Whose keys seal a text: each of them can have it erased.

    Of a request that is not known yet, the request itself too: it may turn out to be somebody's, or of a tenant that captures
    nothing.
    """
    people = [subject for subject in dict.fromkeys((feedback.subject_id, facts.subject_id)) if subject]
    return people if people and facts.is_known else [*people, f"{REQUEST_OWNER}{feedback.request_id}"]
