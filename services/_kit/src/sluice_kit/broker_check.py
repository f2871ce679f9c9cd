"""Looks once at what kind of broker a process is connected to, and says so where the settings say otherwise.

The embedded broker has no name in its protocol. It is known by what it lacks: it answers a fetch that finds nothing at once, where
Kafka holds it for fetch.max.wait. A broker like that is also taken to be one that acknowledges before it has written.
"""

import asyncio
import time
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest

from sluice_kit.addresses import is_loopback
from sluice_kit.broker import client_options, install_empty_fetch_guard
from sluice_kit.events import all_topics
from sluice_kit.kafka_client import closed
from sluice_kit.settings import MeshSettings
from sluice_kit.telemetry import logger

log = logger(__name__)

WAIT_MS = 400
ATTEMPTS = 3
LOOK_SECONDS = 15.0
AGAIN_SECONDS = 30.0
_looked_at: set[str] = set()


@dataclass(frozen=True)
class BrokerKind:
    """What was seen of a broker."""

    long_poll: bool | None
    """Whether a fetch that finds nothing is held; None when there was always something, or no topic to look at."""
    hosts: tuple[str, ...]
    """Where it says that it is."""

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can follow it."""
        return all(is_loopback(host) for host in self.hosts)


async def check_broker(settings: MeshSettings) -> None:
    """Look at the broker as soon as it answers, once in a process; log a line where it is not what SLUICE_KAFKA_EMBEDDED says.

    Run it beside the work: it takes a second, and longer while the broker is away.
    """
    if settings.kafka_bootstrap in _looked_at:
        return
    _looked_at.add(settings.kafka_bootstrap)
    try:
        judge(await _as_soon_as_it_answers(settings), settings)
    except asyncio.CancelledError:
        _looked_at.discard(settings.kafka_bootstrap)
        raise


async def _as_soon_as_it_answers(settings: MeshSettings) -> BrokerKind:
    while True:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await look_at_broker(settings)
        except (KafkaError, OSError, TimeoutError) as error:
            log.debug("broker.not_looked_at", error=type(error).__name__)
            await asyncio.sleep(AGAIN_SECONDS)


def judge(kind: BrokerKind, settings: MeshSettings) -> str:
    """Log what an operator should know of this broker. Returns the event that was logged; empty when all is as said."""
    if settings.kafka_embedded and not kind.on_loopback:
        return _warn("broker.embedded_is_not_on_loopback", settings, hosts=kind.hosts, lacks="authentication")
    if settings.kafka_embedded and kind.long_poll:
        return _warn("broker.is_not_the_embedded_one", settings, unset="SLUICE_KAFKA_EMBEDDED")
    if kind.long_poll is False and not settings.kafka_embedded:
        install_empty_fetch_guard(settings, forced=True)
        return _warn(
            "broker.has_no_long_poll", settings, lacks="durable acknowledgements", set="SLUICE_KAFKA_EMBEDDED=true"
        )
    if settings.kafka_embedded:
        return _warn("broker.is_embedded", settings, lacks="durable acknowledgements, failover, authentication")
    return ""


def _warn(event: str, settings: MeshSettings, **told: object) -> str:
    log.warning(event, bootstrap=settings.kafka_bootstrap, **told)
    return event


async def look_at_broker(settings: MeshSettings) -> BrokerKind:
    """Ask the broker for records where there are none. Raises KafkaError or OSError when it does not answer."""
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    try:
        await consumer.start()
        return BrokerKind(await _holds_fetches(consumer), tuple(b.host for b in consumer._client.cluster.brokers()))
    finally:
        await closed(consumer)


async def _holds_fetches(consumer: AIOKafkaConsumer) -> bool | None:
    present = await consumer.topics()
    quiet = [spec.name for spec in all_topics() if spec.message_class is None and spec.name in present]
    for topic in quiet[:ATTEMPTS]:
        place = TopicPartition(topic, 0)
        end = (await consumer.end_offsets([place]))[place]
        held = await _held(consumer, place, end)
        if held is not None:
            return held
    return None


async def _held(consumer: AIOKafkaConsumer, place: TopicPartition, end: int) -> bool | None:
    request = FetchRequest(WAIT_MS, 1, 1 << 20, 0, [(place.topic, [(place.partition, end, 1 << 20)])])
    begun = time.monotonic()
    await consumer._client.send(consumer._client.cluster.leader_for_partition(place), request)
    waited = time.monotonic() - begun
    # A record that was just written ends the wait early: then it is seen by the end having moved.
    moved = (await consumer.end_offsets([place]))[place] != end
    return None if moved else waited > WAIT_MS / 2000
