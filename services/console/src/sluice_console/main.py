"""Wires the console and serves it."""

from __future__ import annotations

import asyncio
import hashlib
import time

from sluice_kit import process, settings, telemetry
from sluice_kit.channel import connect
from sluice_kit.configuration import ConfigurationRefused
from sluice_kit.configuration_watch import WatchedConfiguration
from sluice_kit.health import HealthBoard
from sluice_kit.http_listener import HttpListener
from sluice_kit.metrics import MetricsServer
from sluice_kit.server import stop_on_signals
from sluice_kit.settings import target_of

from sluice_console.adapters.alert_desk import AlertDesk
from sluice_console.adapters.comparisons import ComparisonReader
from sluice_console.adapters.cost import Cost
from sluice_console.adapters.insight import Insight
from sluice_console.adapters.key_files import keyring_of
from sluice_console.adapters.stories import StoryReader
from sluice_console.api.application import application
from sluice_console.api.site import STATIC, Site
from sluice_console.domain.people import Keyring
from sluice_console.domain.sessions import Sessions, Throttle
from sluice_console.settings import ConsoleSettings

SESSIONS_LIMIT = 10_000
WRONG_KEYS, WRONG_KEYS_SECONDS = 10, 60.0


async def serve(configured: ConsoleSettings) -> None:
    """Serve until a signal."""
    keys = _keys(configured)
    seconds = configured.answer_seconds
    insight = connect(target_of(configured, "insight"), configured)
    is_https = configured.secure_cookies or configured.tls_cert_file is not None
    site = Site(
        insight=Insight(insight, seconds=seconds),
        comparisons=ComparisonReader(insight, seconds=seconds),
        cost=Cost(connect(target_of(configured, "cost"), configured), seconds=seconds),
        stories=StoryReader(insight, seconds=seconds),
        desk=AlertDesk(insight, seconds=seconds),
        keyring=lambda: keys.current,
        sessions=Sessions(
            seconds=configured.session_hours * 3600,
            idle_seconds=configured.idle_minutes * 60,
            limit=SESSIONS_LIMIT,
            now=time.time,
        ),
        throttle=Throttle(failures=WRONG_KEYS, seconds=WRONG_KEYS_SECONDS, limit=10_000, now=time.time),
        streams_limit=configured.streams_limit,
        secure_cookies=is_https,
        version=assets_version(),
    )
    health = HealthBoard()
    listener = HttpListener(
        application(site, healthy=lambda: health.serving),
        configured.http_listen,
        variable="SLUICE_CONSOLE_HTTP_LISTEN",
        drain_seconds=configured.drain_seconds,
        cert_file=configured.tls_cert_file,
        key_file=configured.tls_key_file,
    )
    await _run(listener, health, keys, configured)


async def _run(
    listener: HttpListener, health: HealthBoard, keys: WatchedConfiguration[Keyring], configured: ConsoleSettings
) -> None:
    stop = stop_on_signals()
    metrics = MetricsServer(configured.metrics_listen, health, variable="SLUICE_CONSOLE_METRICS_LISTEN")
    watching = asyncio.create_task(keys.watch())
    try:
        await listener.start()
        health.start(())
        await stop.wait()
    finally:
        health.stop()
        await listener.stop()
        watching.cancel()
        await asyncio.to_thread(metrics.stop)


def _keys(configured: ConsoleSettings) -> WatchedConfiguration[Keyring]:
    folder = configured.keys_folder
    assert folder is not None
    if not folder.is_dir() or not any(folder.glob("*.yaml")):
        raise process.StartFailed(
            f"Nobody could sign in: put a YAML file with keys into {folder}, or set SLUICE_CONSOLE_KEYS_FOLDER"
            " (services/console/README.md shows one; `make run` makes one)."
        )
    try:
        return WatchedConfiguration([folder], keyring_of, service="console")
    except ConfigurationRefused as refused:
        raise process.StartFailed(str(refused)) from None


def assets_version() -> str:
    """Changes when any static file does: their addresses hold it."""
    whole = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            whole.update(path.read_bytes())
    return whole.hexdigest()[:12]


def main() -> None:
    """Entry point of `sluice-console`."""
    configured = settings.load(ConsoleSettings)
    telemetry.configure("console", configured)
    process.run(lambda: serve(configured))
