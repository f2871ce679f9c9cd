"""A schema registry with Confluent's interface (Confluent, Karapace, Apicurio): registers the protos of events with what they import."""

import asyncio
import base64
import functools
import json
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

from google.protobuf.descriptor import FileDescriptor
from sluice_events.framing import prefix

from sluice_kit.events import TopicSpec, event_topics
from sluice_kit.settings import MeshSettings
from sluice_kit.telemetry import logger

log = logger(__name__)

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
TIMEOUT_SECONDS = 10.0
# Every registry and every protobuf library has these.
_KNOWN_EVERYWHERE = "google/protobuf/"


class SchemaRegistryError(Exception):
    """The registry is away, or does not take a schema. The message says which subject and why, and holds nothing of an event."""


class SchemaRegistry:
    """Gives the frame of an event's values; without a registry in the settings there is none."""

    def __init__(self, settings: MeshSettings) -> None:
        self._url = settings.kafka_schema_registry_url.rstrip("/")
        self._opener = _opener(settings) if self._url else None
        self._headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE, **_authorization(settings)}
        self._versions: dict[str, int] = {}

    async def frame(self, topic: str) -> bytes:
        """What stands before every value of this topic; registers its schema as `<topic>-value`. SchemaRegistryError."""
        if not self._url:
            return b""
        try:
            return await asyncio.to_thread(self._frame, topic)
        except SchemaRegistryError as error:
            log.warning("schema_registry.refused", topic=topic, reason=str(error))
            raise

    async def register_all(self) -> int:
        """Register the schemas of all events; how many. SchemaRegistryError."""
        topics = event_topics() if self._url else ()
        for spec in topics:
            await self.frame(spec.name)
        return len(topics)

    def _frame(self, topic: str) -> bytes:
        spec = _spec(topic)
        if spec is None or spec.message_class is None:
            return b""  # a dead-letter topic: its records are passed on as they came
        descriptor: Any = spec.message_class.DESCRIPTOR
        return prefix(self._register(descriptor.file, f"{topic}-value")["id"], descriptor)

    def _register(self, file: FileDescriptor, subject: str) -> dict[str, Any]:
        """What the registry says of the schema: `id`, `version`. What the file imports is registered first, under its path."""
        body = {
            "schemaType": "PROTOBUF",
            "schema": base64.b64encode(file.serialized_pb).decode(),
            "references": [
                {"name": imported.name, "subject": imported.name, "version": self._version(imported)}
                for imported in file.dependencies
                if not imported.name.startswith(_KNOWN_EVERYWHERE)
            ],
        }
        path = f"/subjects/{quote(subject, safe='')}"
        self._post(f"{path}/versions", body, subject)
        return self._post(path, body, subject)

    def _version(self, file: FileDescriptor) -> int:
        if file.name not in self._versions:
            self._versions[file.name] = self._register(file, file.name)["version"]
        return self._versions[file.name]

    def _post(self, path: str, body: dict[str, Any], subject: str) -> dict[str, Any]:
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), self._headers)  # noqa: S310 - the operator's own URL
        assert self._opener is not None
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                told: dict[str, Any] = json.load(response)
                return told
        except urllib.error.HTTPError as error:
            with error:
                raise SchemaRegistryError(f"{subject}: the registry refuses the schema ({error.code})") from None
        except (OSError, ValueError) as error:
            raise SchemaRegistryError(f"{subject}: the registry does not answer ({type(error).__name__})") from None


@functools.cache
def _spec(topic: str) -> TopicSpec | None:
    return next((spec for spec in event_topics() if spec.name == topic), None)


def _opener(settings: MeshSettings) -> urllib.request.OpenerDirector:
    authority = settings.kafka_schema_registry_ca_file
    return urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=authority))
    )


def _authorization(settings: MeshSettings) -> dict[str, str]:
    if settings.kafka_schema_registry_username is None:
        return {}
    file = settings.kafka_schema_registry_password_file
    password = file.read_text(encoding="utf-8").strip() if file else ""
    pair = f"{settings.kafka_schema_registry_username}:{password}".encode()
    return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
