"""Captured texts: sealed in the event, left out rather than in clear, and not taken from who declines."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sluice.events.v1 import gateway_pb2
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.types.v1 import chat_pb2
from sluice_gateway.adapters.captured_texts import CapturedTexts
from sluice_gateway.domain.configuration import ContentCapture
from sluice_kit.sealing.file_keys import FileKeyStore
from sluice_kit.sealing.keys import KeyStore, KeyStoreUnavailable
from sluice_kit.sealing.text import Place, TextErased, TextReader, TextSealer, sealed_texts

pytestmark = pytest.mark.asyncio(loop_scope="module")
CANARY = "the canary sings"


class Keys:
    """A key store that can be away."""

    def __init__(self, folder: Path) -> None:
        self.store = FileKeyStore(folder)
        self.away = False

    def __call__(self) -> KeyStore:
        if self.away:
            raise KeyStoreUnavailable("the key store is away: see to it.")
        return self.store


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


@pytest_asyncio.fixture(loop_scope="module")
async def sealing(mesh: Any, keys: Keys) -> AsyncIterator[Any]:
    """The gateway with a key store, and a tenant that captures."""
    events = mesh.gateway._telling._events
    before, events._texts = events._texts, CapturedTexts(TextSealer(keys))
    mesh.set_tenant(content_capture=ContentCapture.REDACTED)
    mesh.inference.script = [f"You said {CANARY}."]
    yield mesh
    events._texts = before


async def chat(mesh: Any, *, user: str = "", declined: bool = False) -> gateway_pb2.RequestCompleted:
    number = len(mesh.published.events) + 1
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=CANARY)
    spec = pb.ChatSpec(model="small", messages=[message], user=user, capture_declined=declined)
    await mesh.stub().Chat(pb.ChatRequest(spec=spec), metadata=mesh.credentials(), timeout=10)
    event: gateway_pb2.RequestCompleted = await mesh.event(number)
    return event


def read(event: gateway_pb2.RequestCompleted, keys: Keys) -> dict[str, str]:
    reader = TextReader(keys)
    return {name: reader.open(sealed, Place.in_event(event, name)) for name, sealed in sealed_texts(event)}


async def test_a_captured_text_is_read_with_the_key_and_stands_nowhere_in_clear(sealing: Any, keys: Keys) -> None:
    event = await chat(sealing, user="maria")
    assert b"canary" not in event.SerializeToString()
    assert not event.HasField("redacted_prompt")
    assert not event.HasField("redacted_answer")
    assert read(event, keys) == {"encrypted_prompt": CANARY, "encrypted_answer": f"You said {CANARY}."}
    assert (event.text_left_out, event.content_capture) == ("", gateway_pb2.CONTENT_CAPTURE_REDACTED)


async def test_the_key_is_the_subjects_so_that_erasing_one_leaves_the_others(sealing: Any, keys: Keys) -> None:
    marias, pauls = await chat(sealing, user="maria"), await chat(sealing, user="paul")
    assert list(marias.encrypted_prompt.key_ids) == [f"acme/{marias.metadata.subject_id}@1"]
    keys.store.destroy(f"acme/{marias.metadata.subject_id}")
    with pytest.raises(TextErased):
        read(marias, keys)
    assert read(pauls, keys)["encrypted_prompt"] == CANARY


async def test_a_request_without_a_person_has_the_key_of_its_tenant_and_day(sealing: Any) -> None:
    event = await chat(sealing)
    day = event.metadata.occurred_at.ToDatetime()
    assert list(event.encrypted_prompt.key_ids) == [f"acme/anonymous-{day:%Y-%m-%d}@1"]


async def test_without_the_key_store_the_request_is_answered_and_its_text_left_out(sealing: Any, keys: Keys) -> None:
    keys.away = True
    event = await chat(sealing, user="maria")
    assert event.outcome == gateway_pb2.REQUEST_OUTCOME_COMPLETED
    assert event.text_left_out == "KEY_STORE_UNAVAILABLE"
    assert list(sealed_texts(event)) == []
    assert b"canary" not in event.SerializeToString()


async def test_a_request_that_declines_capture_is_not_captured(sealing: Any) -> None:
    event = await chat(sealing, declined=True)
    assert event.text_left_out == "CALLER_DECLINED"
    assert list(sealed_texts(event)) == []
    assert b"canary" not in event.SerializeToString()


@pytest.mark.parametrize("stream", [False, True])
async def test_store_false_of_the_http_door_declines_capture(sealing: Any, stream: bool) -> None:
    body = {"model": "small", "messages": [{"role": "user", "content": CANARY}], "store": False, "stream": stream}
    async with httpx.AsyncClient() as client:
        url = f"{sealing.http_url}/v1/chat/completions"
        answer = await client.post(url, json=body, headers={"x-api-key": sealing.key}, timeout=10)
    assert answer.status_code == 200
    event = await sealing.event()
    assert event.text_left_out == "CALLER_DECLINED"
    assert b"canary" not in event.SerializeToString()


async def test_a_tenant_that_captures_nothing_has_no_text_not_even_sealed(sealing: Any, keys: Keys) -> None:
    sealing.set_tenant(content_capture=ContentCapture.NONE)
    event = await chat(sealing, user="maria")
    assert list(sealed_texts(event)) == []
    assert (event.text_left_out, event.content_capture) == ("", gateway_pb2.CONTENT_CAPTURE_NONE)
    assert keys.store.names() == []


async def test_text_that_could_not_be_redacted_is_left_out_and_says_so(sealing: Any) -> None:
    sealing.set_tenant(content_capture=ContentCapture.REDACTED, fail_open=True)
    sealing.redaction.away.add("unary")
    event = await chat(sealing)
    assert event.text_left_out == "NOT_REDACTED"
    assert b"canary" not in event.SerializeToString()
