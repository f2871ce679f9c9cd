"""Starts the gateway: settings, neighbours, the recipe, and its two doors."""

import asyncio
import time

from sluice_kit import process, telemetry
from sluice_kit.channel import connect
from sluice_kit.events import new_event_id
from sluice_kit.http_listener import HttpListener
from sluice_kit.publisher import EventPublisher
from sluice_kit.sealing.opening import sealer_of
from sluice_kit.server import GrpcServer, stop_on_signals
from sluice_kit.settings import load, target_of

from sluice_gateway.adapters import subject_key
from sluice_gateway.adapters.budgets import NANO_PER_UNIT, WRONG_BOUNDS, GrpcBudgets
from sluice_gateway.adapters.configuration_file import ConfigurationFile
from sluice_gateway.adapters.events import PublishedCompletions
from sluice_gateway.adapters.inference import GrpcModel
from sluice_gateway.adapters.known_unbudgeted import KnownUnbudgeted
from sluice_gateway.adapters.languages import detector
from sluice_gateway.adapters.moderation import GrpcModerator
from sluice_gateway.adapters.redaction import GrpcRedactor
from sluice_gateway.api import grpc, http
from sluice_gateway.domain.admission import Admission
from sluice_gateway.domain.budgets import NoBudgets
from sluice_gateway.domain.configuration import ConfigurationError
from sluice_gateway.domain.gateway import Gateway
from sluice_gateway.domain.neighbours import Neighbours
from sluice_gateway.domain.purse import Purse, PurseLimits
from sluice_gateway.domain.validation import Bounds
from sluice_gateway.settings import Settings

# How often leases are looked after: a slow gateway must not run a lease dry between two looks.
TEND_SECONDS = 0.25


def main() -> None:
    """Console script `sluice-gateway`."""
    settings = load(Settings)
    telemetry.configure("gateway", settings)
    process.run(lambda: serve(settings))


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    configuration = _configuration(settings)
    publisher = EventPublisher(producer=f"sluice-gateway/{settings.instance}", settings=settings)
    purse = _purse(settings)
    gateway = Gateway(
        Neighbours(
            model=GrpcModel(connect(target_of(settings, "inference"), settings)),
            moderator=GrpcModerator(connect(target_of(settings, "moderation"), settings)),
            redactor=GrpcRedactor(connect(target_of(settings, "redaction"), settings)),
            events=PublishedCompletions(publisher, sealer_of(settings)),
        ),
        configuration=configuration.current,
        admission=Admission(max_in_flight=settings.max_in_flight, clock=time.monotonic),
        purse=purse,
        bounds=Bounds(messages=settings.max_messages, characters=settings.max_characters),
        subject_key=subject_key.load_or_make(settings.home / "gateway-subject.key"),
        filter_timeout=settings.filter_seconds,
        least_output_tokens=settings.budget_least_output_tokens,
        languages=detector(),
        clock=time.monotonic,
    )
    server = GrpcServer(service="gateway", settings=settings)
    grpc.add_to_server(gateway, server.grpc, request_seconds=settings.request_seconds)
    limits = http.HttpLimits(settings.max_message_bytes, settings.body_seconds, settings.request_seconds)
    listener = HttpListener(
        http.application(gateway, limits, healthy=lambda: server.health.serving),
        settings.http_listen,
        variable="SLUICE_GATEWAY_HTTP_LISTEN",
        drain_seconds=settings.drain_seconds,
        cert_file=settings.tls_cert_file,
        key_file=settings.tls_key_file,
    )
    await _run(configuration, publisher, gateway, purse, server, listener)


async def _run(
    configuration: ConfigurationFile,
    publisher: EventPublisher,
    gateway: Gateway,
    purse: Purse,
    server: GrpcServer,
    listener: HttpListener,
) -> None:
    stop = stop_on_signals()
    watching = [asyncio.create_task(configuration.watch()), asyncio.create_task(purse.tend(TEND_SECONDS))]
    await publisher.start()
    try:
        await listener.start()
        await server.start(service_names=[grpc.SERVICE_NAME])
        await stop.wait()
    finally:
        await asyncio.gather(server.stop(), listener.stop())
        # Requests that outlasted the drain were cancelled just now: their events must be in the outbox before it closes.
        await gateway.all_told(seconds=2)
        for task in watching:
            task.cancel()
        await purse.close(seconds=2)
        await publisher.stop()


def _purse(settings: Settings) -> Purse:
    limits = PurseLimits(
        lease_seconds=settings.lease_seconds,
        request_seconds=settings.request_seconds,
        most=round(settings.lease_most * NANO_PER_UNIT),
        stale_seconds=settings.budget_stale_seconds,
    )
    if not settings.budgets:
        return Purse(NoBudgets(), limits=limits, new_id=new_event_id, clock=time.monotonic)
    memory = settings.home / f"gateway-unbudgeted-{settings.instance}.json"
    return Purse(
        GrpcBudgets(
            connect(target_of(settings, "cost"), settings),
            holder=f"sluice-gateway/{settings.instance}",
            timeout=settings.budget_seconds,
            first_timeout=max(settings.budget_seconds, settings.budget_first_seconds),
        ),
        limits=limits,
        new_id=new_event_id,
        clock=time.monotonic,
        memory=KnownUnbudgeted(memory, stale_seconds=settings.budget_stale_seconds),
        on_wrong_bound=lambda caller: WRONG_BOUNDS.labels(caller.model).inc(),
    )


def _configuration(settings: Settings) -> ConfigurationFile:
    assert settings.config_file is not None
    try:
        return ConfigurationFile(settings.config_file)
    except ConfigurationError as error:
        raise process.StartFailed("\n".join(error.mistakes)) from None
