"""Starts the moderation service."""

from __future__ import annotations

from importlib.metadata import version

from sluice.moderation.v1 import moderation_service_pb2 as pb
from sluice.moderation.v1 import moderation_service_pb2_grpc
from sluice_kit import process, telemetry
from sluice_kit.process import StartFailed
from sluice_kit.publisher import EventPublisher
from sluice_kit.server import GrpcServer
from sluice_kit.settings import load

from sluice_moderation.adapters import detectors
from sluice_moderation.adapters.evidence_sqlite import EvidenceUnavailable, SqliteEvidence
from sluice_moderation.adapters.policy_files import SHIPPED, PolicyMistake, load_policies
from sluice_moderation.adapters.scoring import ScoringPool
from sluice_moderation.api import Limits, ModerationService
from sluice_moderation.settings import Settings

SERVICE = "moderation"


async def serve(settings: Settings) -> None:
    """Wire everything and serve until told to stop."""
    evidence_path = settings.home / "moderation" / f"evidence-{settings.instance}.db"
    try:
        policies = load_policies(SHIPPED, *([settings.policies] if settings.policies else []))
        evidence = SqliteEvidence(evidence_path, max_rows=settings.evidence_rows, max_days=settings.evidence_days)
    except (PolicyMistake, EvidenceUnavailable) as mistake:
        raise StartFailed(str(mistake)) from None
    loaded = detectors.load()
    pool = ScoringPool(loaded.panel, threads=settings.threads, queue_windows=settings.queue_windows)
    publisher = EventPublisher(producer=f"sluice-{SERVICE}/{settings.instance}", settings=settings)
    service = ModerationService(
        policies=policies, panel=loaded.panel, pool=pool, explainer=loaded.injection, evidence=evidence, publisher=publisher,
        limits=Limits(characters=settings.max_characters, segments=settings.max_segments),
    )  # fmt: skip
    server = GrpcServer(service=SERVICE, settings=settings)
    moderation_service_pb2_grpc.add_ModerationServiceServicer_to_server(service, server.grpc)
    await publisher.start()
    try:
        await server.run(service_names=[pb.DESCRIPTOR.services_by_name["ModerationService"].full_name])
    finally:
        await service.finish()
        await publisher.stop()
        pool.close()
        evidence.close()


def main() -> None:
    """Console script `sluice-moderation`."""
    settings = load(Settings)
    telemetry.configure(SERVICE, settings)
    telemetry.logger(__name__).info("service.starting", version=version("sluice-moderation"))
    process.run(lambda: serve(settings))
