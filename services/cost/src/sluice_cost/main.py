"""Starts the cost service."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

from sluice.cost.v1 import cost_service_pb2, cost_service_pb2_grpc
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.events.v1.quality_pb2 import AnswerJudged
from sluice.events.v1.redaction_pb2 import TextRedacted
from sluice_kit.configuration import ConfigurationRefused
from sluice_kit.consumer import EventConsumer
from sluice_kit.process import StartFailed, run
from sluice_kit.publisher import EventPublisher
from sluice_kit.server import GrpcServer
from sluice_kit.settings import load
from sluice_kit.telemetry import configure

from sluice_cost.adapters.budget_file import WatchedBudgets
from sluice_cost.adapters.cost_events import CostRelay, encode
from sluice_cost.adapters.database import Database, open_database
from sluice_cost.adapters.head_events import HeadTeller
from sluice_cost.adapters.price_file import load_price_book
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.adapters.sql_chain import SqlChainVerifier
from sluice_cost.adapters.sql_holds import SqlHolds, sweep_for_ever
from sluice_cost.adapters.sql_idle import SqlIdle, close_for_ever
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.adapters.sql_recompute import SqlRecomputer
from sluice_cost.adapters.sql_rows import SqlEntries
from sluice_cost.adapters.sql_spend import SqlSpend
from sluice_cost.api import CostServicer
from sluice_cost.consumer import CompletionConsumer
from sluice_cost.domain.ledger import LedgerUnavailable
from sluice_cost.domain.price_book import PriceBook, PriceBookMistakes
from sluice_cost.settings import CostSettings

SERVICE_NAME = cost_service_pb2.DESCRIPTOR.services_by_name["CostService"].full_name


def main() -> None:
    settings = load(CostSettings)
    configure("cost", settings)
    run(partial(serve, settings))


async def serve(settings: CostSettings) -> None:
    try:
        book = load_price_book(settings.price_book_file)
        database = await asyncio.to_thread(open_database, settings.database)
        await SqlPrices(database, default_currency=book.currency).load(book, recorded_at=now())
        budgets = await budgets_of(settings, database)
    except PriceBookMistakes as error:
        raise StartFailed(f"{error}. Mend it, or unset SLUICE_COST_PRICE_BOOK_FILE.") from None
    except LedgerUnavailable as error:
        raise StartFailed(f"{error}: see to it, or set SLUICE_COST_DATABASE_URL.") from None
    except ConfigurationRefused as error:
        raise StartFailed(f"{error}\nMend it, or unset SLUICE_COST_BUDGETS_FILE.") from None
    try:
        await serve_with(settings, database, book, budgets)
    finally:
        await database.close()


async def budgets_of(settings: CostSettings, database: Database) -> WatchedBudgets | None:
    if settings.budgets_file is None:
        return None
    watched = WatchedBudgets(settings.budgets_file, SqlBudgets(database), clock=now)
    await watched.store()
    return watched


async def serve_with(
    settings: CostSettings, database: Database, book: PriceBook, budgets: WatchedBudgets | None
) -> None:
    server = GrpcServer(service="cost", settings=settings)
    publisher = EventPublisher(producer=f"sluice-cost/{settings.instance}", settings=settings)
    ledger = SqlLedger(database, default_currency=book.currency)
    relay = CostRelay(ledger, publisher)
    entering = CompletionConsumer(
        ledger, encode=encode, on_appended=relay.wake, report_health=server.health.set, clock=now
    )
    consumer = EventConsumer(
        service="cost",
        group="sluice-cost",
        events=[RequestCompleted, InferenceMeasured, ContentModerated, TextRedacted, AnswerJudged],
        handle=entering.handle,
        settings=settings,
        starting_offsets=entering.starting_offsets,
    )
    holds = SqlHolds(
        database,
        default_currency=book.currency,
        expired_grace=timedelta(seconds=settings.expired_grace_seconds),
        clock=now,
        on_told=relay.wake,
    )
    idle = SqlIdle(
        database,
        default_currency=book.currency,
        encode=encode,
        lateness=timedelta(seconds=settings.idle_lateness_seconds),
    )
    verifier = SqlChainVerifier(database)
    servicer = CostServicer(
        spend=SqlSpend(database),
        prices=SqlPrices(database, default_currency=book.currency),
        budgets=SqlBudgets(database),
        holds=holds,
        verifier=verifier,
        recomputer=SqlRecomputer(database, default_currency=book.currency, encode=encode),
        entries=SqlEntries(database),
        clock=now,
    )
    cost_service_pb2_grpc.add_CostServiceServicer_to_server(servicer, server.grpc)
    await publisher.start()
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(consumer.run(stop))
            tasks.create_task(relay.run(stop))
            tasks.create_task(sweep_for_ever(holds, stop))
            if budgets is not None:
                tasks.create_task(budgets.run(stop))
            tasks.create_task(close_for_ever(idle, stop, clock=now, told=relay.wake))
            tasks.create_task(HeadTeller(verifier, publisher, every_seconds=settings.seal_seconds).run(stop))
            await server.run(service_names=[SERVICE_NAME])
            stop.set()
            relay.wake()
    finally:
        await publisher.stop()


def now() -> datetime:
    return datetime.now(UTC)
