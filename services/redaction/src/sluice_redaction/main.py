"""Wires the redaction service together and runs it."""

from sluice.redaction.v1 import redaction_service_pb2, redaction_service_pb2_grpc
from sluice_kit import process, settings, telemetry
from sluice_kit.publisher import EventPublisher
from sluice_kit.server import GrpcServer

from sluice_redaction.adapters.journal import EventJournal
from sluice_redaction.adapters.presidio import DetectorFactory
from sluice_redaction.adapters.workers import WorkerPool
from sluice_redaction.api import Limits, RedactionApi, load_recognizers
from sluice_redaction.domain.policy import Policy, policies
from sluice_redaction.settings import Settings, comma_separated


def main() -> None:
    given = settings.load(Settings)
    telemetry.configure("redaction", given)
    process.run(lambda: serve(given))


async def serve(given: Settings) -> None:
    default = Policy.of(
        comma_separated(given.kinds), min_score=given.min_score, allowed=comma_separated(given.allowed_words)
    )
    limits = Limits(given.max_texts, given.max_characters, given.max_stream_characters, given.max_vault_entries)
    pool = WorkerPool(threads=given.worker_threads, queue_limit=given.queue_limit)
    publisher = EventPublisher(producer=f"sluice-redaction/{given.instance}", settings=given)
    server = GrpcServer(service="redaction", settings=given)
    api = RedactionApi(pool, EventJournal(publisher), policies(default), limits)
    redaction_service_pb2_grpc.add_RedactionServiceServicer_to_server(api, server.grpc)
    regions, spacy = comma_separated(given.phone_regions), given.spacy
    await publisher.start()
    async with load_recognizers(pool, server.health, lambda: DetectorFactory(phone_regions=regions, spacy_names=spacy)):
        await server.run(
            service_names=[redaction_service_pb2.DESCRIPTOR.services_by_name["RedactionService"].full_name]
        )
    await publisher.stop()
