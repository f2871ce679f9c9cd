"""Starts the moderation service."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from sluice.moderation.v1 import moderation_service_pb2 as pb
from sluice.moderation.v1 import moderation_service_pb2_grpc
from sluice_kit import process, telemetry
from sluice_kit.configuration import ConfigurationRefused
from sluice_kit.configuration_watch import WatchedConfiguration
from sluice_kit.process import StartFailed
from sluice_kit.publisher import EventPublisher
from sluice_kit.server import GrpcServer
from sluice_kit.settings import load

from sluice_moderation.adapters import detectors
from sluice_moderation.adapters.chosen import chosen_detectors
from sluice_moderation.adapters.evidence_apart import EvidenceApart
from sluice_moderation.adapters.evidence_sqlite import EvidenceUnavailable
from sluice_moderation.adapters.guard import GuardSettings
from sluice_moderation.adapters.onnx_classifier import ModelUnavailable
from sluice_moderation.adapters.policy_check import checked
from sluice_moderation.adapters.policy_files import SHIPPED, policy_set
from sluice_moderation.adapters.scoring import ScoringPool
from sluice_moderation.api import Limits, ModerationService
from sluice_moderation.domain.panel import Panel
from sluice_moderation.domain.policies import PolicySet
from sluice_moderation.settings import Settings

SERVICE = "moderation"


def watched_policies(folders: Sequence[Path], panel: Panel) -> WatchedConfiguration[PolicySet]:
    """The policies of some folders, read again whenever they change."""
    scored = panel.detector_of()
    return WatchedConfiguration(folders, lambda sources: policy_set(sources, scored=scored), service=SERVICE)


async def serve(settings: Settings) -> None:
    """Wire everything and serve until told to stop."""
    try:
        guard = GuardSettings(settings.guard_target, settings.guard_model, settings.guard_timeout_seconds)
        chosen = chosen_detectors(onnx_model=settings.onnx_model, guard=guard if guard.target else None)
        panel = detectors.load(chosen).panel
        policies = watched_policies([SHIPPED, *([settings.policies] if settings.policies else [])], panel)
        evidence = EvidenceApart.opened(
            settings.home / "moderation", settings.instance, max_rows=settings.evidence_rows, max_days=settings.evidence_days
        )  # fmt: skip
    except (ConfigurationRefused, EvidenceUnavailable, ModelUnavailable) as mistake:
        raise StartFailed(str(mistake)) from None
    pool = ScoringPool(
        panel, threads=settings.threads, queue_windows=settings.queue_windows, cache_windows=settings.cache_windows
    )
    publisher = EventPublisher(producer=f"sluice-{SERVICE}/{settings.instance}", settings=settings)
    service = ModerationService(
        policies=lambda: policies.current, panel=panel, pool=pool, evidence=evidence, publisher=publisher,
        limits=Limits(characters=settings.max_characters, segments=settings.max_segments),
    )  # fmt: skip
    server = GrpcServer(service=SERVICE, settings=settings)
    moderation_service_pb2_grpc.add_ModerationServiceServicer_to_server(service, server.grpc)
    await publisher.start()
    watching = asyncio.create_task(policies.watch())
    try:
        await server.run(service_names=[pb.DESCRIPTOR.services_by_name["ModerationService"].full_name])
    finally:
        watching.cancel()
        await service.finish()
        await publisher.stop()
        pool.close()
        evidence.close()


def main() -> None:
    """Console script `sluice-moderation`: without arguments the service; `check FOLDER` looks at a folder of policies."""
    if len(sys.argv) > 1:
        raise SystemExit(checked(sys.argv[1:], scored=detectors.load().panel.detector_of()))
    settings = load(Settings)
    telemetry.configure(SERVICE, settings)
    telemetry.logger(__name__).info("service.starting", version=version("sluice-moderation"))
    process.run(lambda: serve(settings))
