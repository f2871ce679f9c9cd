"""Opens the encrypted texts of events for an operator who has the key store."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from google.protobuf.message import Message
from sluice_kit.sealing.keys import KeyStoreUnavailable
from sluice_kit.sealing.opening import reader_of
from sluice_kit.sealing.text import Place, TextErased, TextReader, TextUnreadable, sealed_texts
from sluice_kit.settings import MeshSettings

from sluice_cli import events as event_stream
from sluice_cli.events import SeenEvent
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.privacy.subjects import Subject

Open = Callable[[Message], dict[str, Any]]


def opener(settings: MeshSettings) -> Open:
    """Makes of an event what to show in the place of its encrypted fields: the text, or why it cannot be read."""
    reader = reader_of(settings)
    return lambda message: {
        name: _opened(reader, sealed, Place.in_event(message, name)) for name, sealed in sealed_texts(message)
    }


def _opened(reader: TextReader, sealed: Any, place: Place) -> dict[str, Any]:
    keys = {"key_ids": list(sealed.key_ids)}
    try:
        return {"text": reader.open(sealed, place)} | keys
    except TextErased:
        return {"left_out": "ERASED"} | keys
    except TextUnreadable as error:
        return {"left_out": "UNREADABLE", "why": str(error)} | keys
    except KeyStoreUnavailable as error:
        raise MeshProblem(f"The texts cannot be decrypted: {error}") from None


async def of_subject(settings: MeshSettings, subject: Subject) -> AsyncGenerator[SeenEvent, None]:
    """Every event of a person that is there now, and those of others about their requests."""
    requests = {
        _metadata(seen.message).request_id
        async for seen in _there_now(settings, ["RequestCompleted"])
        if _is_of(seen.message, subject)
    }
    async with contextlib.aclosing(_there_now(settings, [])) as found:
        async for seen in found:
            if _is_of(seen.message, subject) or _is_about(seen.message, subject, requests):
                yield seen


async def _there_now(settings: MeshSettings, names: list[str]) -> AsyncGenerator[SeenEvent, None]:
    topics = event_stream.topics_named(names)
    async with contextlib.aclosing(event_stream.follow(settings, topics, from_beginning=True, live=False)) as seen:
        async for event in seen:
            yield event


def _is_about(message: Message | None, subject: Subject, requests: set[str]) -> bool:
    if message is None:
        return False
    metadata = _metadata(message)
    return metadata.tenant_id == subject.tenant_id and metadata.request_id in requests


def _is_of(message: Message | None, subject: Subject) -> bool:
    if message is None:
        return False
    metadata = _metadata(message)
    return (metadata.tenant_id, metadata.subject_id) == (subject.tenant_id, subject.id)


def _metadata(message: Any) -> Any:
    return message.metadata
