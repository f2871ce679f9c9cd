"""The broker: how clients reach it, what topics it must have, and the guard the embedded one needs."""

import asyncio
import contextlib
import functools
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from sluice_kit.events import TopicSpec, all_topics
from sluice_kit.process import StartFailed, run
from sluice_kit.retention import Retention, read_retention
from sluice_kit.schema_registry import SchemaRegistry, SchemaRegistryError
from sluice_kit.settings import MeshSettings, load
from sluice_kit.telemetry import configure, logger

log = logger(__name__)

# The embedded broker holds every record in memory and rewrites its file whole: its topics stay small (kafka-faust.md 1.4).
HOUR_MS = 3_600_000
EMBEDDED_RETENTION_MS = HOUR_MS
EMBEDDED_RETENTION_BYTES = 20_000_000
# DescribeConfigs, `config_source`: DYNAMIC_TOPIC_CONFIG.
_SET_ON_TOPIC = 1
GUARD_PAUSE_SECONDS = 0.05
GUARD_EMPTY_WITHIN_SECONDS = 0.01


def client_options(settings: MeshSettings) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes: bootstrap servers and security."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "security_protocol": settings.kafka_security_protocol,
    }
    if "SSL" in settings.kafka_security_protocol:
        options["ssl_context"] = ssl.create_default_context(cafile=settings.kafka_ca_file)
    if settings.kafka_security_protocol.startswith("SASL"):
        password = (
            settings.kafka_password_file.read_text(encoding="utf-8").strip() if settings.kafka_password_file else ""
        )
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": password,
        }
    return options


def install_empty_fetch_guard(settings: MeshSettings, *, forced: bool = False) -> None:
    """Make consumers of this process pause after an empty fetch when the broker is the embedded one, or is found to be like it.

    The embedded broker has no long poll: without the pause an idle consumer spins at 83 % of a core (kafka-faust.md 1.2).
    """
    if (settings.kafka_embedded or forced) and not hasattr(Fetcher._proc_fetch_request, "__wrapped__"):
        Fetcher._proc_fetch_request = _guarded(Fetcher._proc_fetch_request)


def _guarded(fetch: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
    @functools.wraps(fetch)
    async def guarded(*arguments: Any) -> bool:
        begun = time.monotonic()
        added = await fetch(*arguments)
        if not added and time.monotonic() - begun < GUARD_EMPTY_WITHIN_SECONDS:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(GUARD_PAUSE_SECONDS)
        return added

    return guarded


async def ensure_topics(settings: MeshSettings, *, wait_seconds: float = 60.0) -> list[str]:
    """Create the topics that are missing; waits for the broker. Returns the names created. Raises StartFailed when it stays away."""
    attempts = AsyncRetrying(
        retry=retry_if_exception_type((KafkaError, OSError)),
        stop=stop_after_delay(wait_seconds),
        wait=wait_exponential_jitter(multiplier=0.1, max=2),
        reraise=True,
    )
    try:
        async for attempt in attempts:
            with attempt:
                return await _create_missing(settings)
    except (KafkaError, OSError) as error:
        away = (
            f"Kafka at {settings.kafka_bootstrap} did not answer within {wait_seconds:.0f} s ({type(error).__name__})"
        )
        raise StartFailed(f"{away}: start it or set SLUICE_KAFKA_BOOTSTRAP.") from None
    return []


async def _create_missing(settings: MeshSettings) -> list[str]:
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=20_000)
    await admin.start()
    try:
        retention = read_retention(settings.topic_retention_file)
        existing = set(await admin.list_topics())
        replicas = await _replicas(admin, settings)
        missing = [
            _new_topic(spec, replicas, settings, retention.of(spec))
            for spec in all_topics()
            if spec.name not in existing
        ]
        if missing:
            _raise_on_error(await admin.create_topics(missing))
        await _keep_for(admin, settings, retention, existing)
        return [topic.name for topic in missing]
    finally:
        await admin.close()


async def _replicas(admin: AIOKafkaAdminClient, settings: MeshSettings) -> int:
    if settings.kafka_replication:
        return settings.kafka_replication
    brokers = (await admin.describe_cluster())["brokers"]
    return 3 if len(brokers) >= 3 else 1


async def _keep_for(
    admin: AIOKafkaAdminClient, settings: MeshSettings, retention: Retention, existing: Collection[str]
) -> None:
    """Make topics that are there already keep their records as long as they should. (The embedded broker keeps its own rule.)"""
    specs = [spec for spec in all_topics() if spec.name in existing and spec.cleanup_policy != "compact"]
    if settings.kafka_embedded or not specs:
        return
    now = await topic_options(admin, [spec.name for spec in specs])
    for spec in specs:
        before, wanted = now[spec.name].get("retention.ms"), str(retention.of(spec))
        if before == wanted:
            continue
        # AlterConfigs replaces everything that is set on the topic: what is set stays.
        options = now[spec.name] | {"retention.ms": wanted, "segment.ms": str(_segment_ms(spec, retention.of(spec)))}
        for response in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name, options)]):
            for code, *_ in response.resources:
                if code:
                    raise for_code(code)(spec.name)
        log.info("topics.retention_changed", topic=spec.name, before_ms=before, now_ms=wanted)


async def topic_options(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """What is set on topics themselves, by topic; defaults of the broker are left out. Raises KafkaError."""
    found: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
        for code, _, _, name, entries, *_ in response.resources:
            if code:
                raise for_code(code)(name)
            found[name] = {entry[0]: entry[1] for entry in entries if entry[3] == _SET_ON_TOPIC}
    return found


def _segment_ms(spec: TopicSpec, retention_ms: int) -> int:
    """How long a segment is written to: only whole ones are compacted, and deleted when their last record is old enough."""
    if spec.compacted:
        return HOUR_MS  # with Kafka's default of a week nothing compacts (kafka-faust.md 1.1)
    return max(HOUR_MS, min(7 * 24 * HOUR_MS, retention_ms // 8))


def _new_topic(spec: TopicSpec, replicas: int, settings: MeshSettings, retention_ms: int) -> NewTopic:
    options = {
        "cleanup.policy": spec.cleanup_policy,
        "retention.ms": str(retention_ms),
        "segment.ms": str(_segment_ms(spec, retention_ms)),
    }
    if settings.kafka_embedded:
        options |= {"retention.ms": str(EMBEDDED_RETENTION_MS), "retention.bytes": str(EMBEDDED_RETENTION_BYTES)}
    if replicas >= 3:
        options["min.insync.replicas"] = "2"
    return NewTopic(name=spec.name, num_partitions=spec.partitions, replication_factor=replicas, topic_configs=options)


def _raise_on_error(response: Any) -> None:
    for topic, code, *_ in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(topic)


class TopicsSettings(MeshSettings):
    """Settings of `sluice-topics`."""


def main() -> None:
    """`sluice-topics`: create the mesh's topics on the broker and end."""
    settings = load(TopicsSettings)
    configure("topics", settings)

    async def create() -> None:
        log.info("topics.created", created=len(await ensure_topics(settings)), topics=len(all_topics()))
        try:
            log.info("schemas.registered", schemas=await SchemaRegistry(settings).register_all())
        except SchemaRegistryError as error:
            raise StartFailed(f"{error}: see SLUICE_KAFKA_SCHEMA_REGISTRY_URL.") from None

    run(create)
