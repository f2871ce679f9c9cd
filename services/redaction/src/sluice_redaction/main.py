"""Wires the redaction service together and runs it."""

import asyncio
import sys
from pathlib import Path

from sluice.redaction.v1 import redaction_service_pb2, redaction_service_pb2_grpc
from sluice_kit import process, settings, telemetry
from sluice_kit.publisher import EventPublisher
from sluice_kit.server import GrpcServer

from sluice_redaction.adapters.detector import DetectorFactory
from sluice_redaction.adapters.findings_cache import FindingsCache
from sluice_redaction.adapters.journal import EventJournal
from sluice_redaction.adapters.keys import BadKey, read_keys
from sluice_redaction.adapters.policy_files import Surroundings
from sluice_redaction.adapters.policy_folder import check, watched_policies
from sluice_redaction.adapters.toolbox import Toolbox
from sluice_redaction.adapters.workers import WorkerPool
from sluice_redaction.api import Limits, RedactionApi, load_recognizers
from sluice_redaction.settings import Settings, comma_separated


def main() -> None:
    """`sluice-redaction` serves; `sluice-redaction check FOLDER` says whether its policies would be taken."""
    match sys.argv[1:]:
        case []:
            given = settings.load(Settings)
            telemetry.configure("redaction", given)
            process.run(lambda: serve(given))
        case ["check", folder]:
            raise SystemExit(check(Path(folder), sys.stdout))
        case _:
            raise SystemExit("usage: sluice-redaction [check FOLDER]")


async def serve(given: Settings) -> None:
    try:
        secrets = read_keys(given.key_file) if given.key_file else ()
    except BadKey as error:
        raise process.StartFailed(f"SLUICE_REDACTION_KEY_FILE: {error}.") from None
    surroundings = Surroundings(
        bool(secrets), comma_separated(given.kinds), given.min_score, comma_separated(given.allowed_words)
    )
    policies = watched_policies(given.policies, surroundings)
    limits = Limits(given.max_texts, given.max_characters, given.max_stream_characters, given.max_vault_entries)
    pool = WorkerPool(threads=given.worker_threads, queue_limit=given.queue_limit)
    publisher = EventPublisher(producer=f"sluice-redaction/{given.instance}", settings=given)
    server = GrpcServer(service="redaction", settings=given)
    api = RedactionApi(pool, EventJournal(publisher), lambda: policies.current, limits, Toolbox(secrets))
    redaction_service_pb2_grpc.add_RedactionServiceServicer_to_server(api, server.grpc)
    cache = FindingsCache(size=given.cache_mebibytes * 2**20) if given.cache_mebibytes else None
    regions = comma_separated(given.phone_regions)
    watching = asyncio.create_task(policies.watch(poll_seconds=given.policies_poll_seconds))
    await publisher.start()
    async with load_recognizers(
        pool, server.health, lambda: DetectorFactory(phone_regions=regions, ner=given.ner, cache=cache)
    ):
        await server.run(
            service_names=[redaction_service_pb2.DESCRIPTOR.services_by_name["RedactionService"].full_name]
        )
    watching.cancel()
    await publisher.stop()
