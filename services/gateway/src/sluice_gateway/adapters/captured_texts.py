"""Puts captured texts into the event: sealed with the subject's key, so that they can be erased; left out when that cannot be had."""

from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.events import new_event_id, now
from sluice_kit.sealing.keys import KeyStoreUnavailable
from sluice_kit.sealing.text import LEFT_OUT, Place, TextSealer
from sluice_kit.telemetry import logger

from sluice_gateway.domain.completion import Completion

log = logger(__name__)

KEY_STORE_UNAVAILABLE = "KEY_STORE_UNAVAILABLE"


class CapturedTexts:
    """Seals what a completion captured."""

    def __init__(self, sealer: TextSealer | None) -> None:
        self._sealer = sealer
        self._logged: KeyStoreUnavailable | None = None

    async def put_into(self, event: RequestCompleted, completion: Completion) -> None:
        """Fill in the texts of an event, or say why there are none. Never fails: an answer does not hang on its record's words."""
        if completion.redacted_prompt is not None and completion.redacted_answer is not None:
            await self._put(event, completion.redacted_prompt, completion.redacted_answer)
        if event.text_left_out:
            LEFT_OUT.labels(event.text_left_out).inc()

    async def _put(self, event: RequestCompleted, prompt: str, answer: str) -> None:
        if self._sealer is None:
            event.redacted_prompt, event.redacted_answer = prompt, answer
            return
        event.metadata.event_id = new_event_id()  # here and not in the publisher: the texts are bound to it
        moment = now()
        event.metadata.occurred_at.FromDatetime(moment)
        owners = [event.metadata.subject_id or f"anonymous-{moment:%Y-%m-%d}"]
        try:
            for field, text in (("encrypted_prompt", prompt), ("encrypted_answer", answer)):
                sealed = await self._sealer.seal(text, owners=owners, place=Place.in_event(event, field))
                getattr(event, field).CopyFrom(sealed)
        except KeyStoreUnavailable as error:
            event.ClearField("encrypted_prompt")
            event.text_left_out = KEY_STORE_UNAVAILABLE
            if error is not self._logged:  # the same one is raised for every request of some seconds
                log.error("capture.key_store_unavailable", what=str(error))
                self._logged = error
