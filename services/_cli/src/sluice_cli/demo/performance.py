"""The whole demonstration: compose, send, wait until the mesh has counted, show."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

import grpc
from rich.console import Console
from rich.progress import Progress
from sluice.events.v1 import gateway_pb2
from sluice.insight.v1 import insight_service_pb2
from sluice.types.v1 import metric_pb2

from sluice_cli import events
from sluice_cli.demo import show
from sluice_cli.demo.conversations import Conversation, compose
from sluice_cli.demo.sending import Caller, Outcome, of_status
from sluice_cli.demo.witness import Books, EventWitness, kinds
from sluice_cli.mesh import demo_env
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem

CATCH_UP_SECONDS = 45.0
QUALITY: tuple[str, ...] = (
    "quality.requests",
    "quality.latency_seconds.p50",
    "quality.latency_seconds.p95",
    "quality.tokens_per_second.p50",
)
QUALITY += ("quality.blocked_ratio", "quality.redacted_ratio", "quality.feedback_score")
DRIFT = ("drift.observations", "drift.reference_observations", "drift.drifted")


async def perform(home: Home, console: Console, *, count: int, seed: int, concurrency: int) -> bool:
    """Sends that many conversations; True when all counts agree. MeshProblem when the mesh does not run."""
    environment = demo_env.read(home)
    settings = events.connection(home)
    keys = demo_env.tenant_keys(environment)
    conversations = compose(count, seed, tuple(keys))
    console.print(
        f"\n[bold]{count} conversations[/] of {' and '.join(keys)}, over HTTP and gRPC ([bold]≈[/] streamed), {concurrency} at a time\n"
    )
    callers = Caller(environment, keys, declaring=demo_env.tenants_with_variants(home))
    async with EventWitness(settings) as witness, callers as caller, Books(environment) as books:
        try:
            with console.status("[dim]looking at what was there before[/]"):
                since, before = await books.settled()
            outcomes = await _send_all(conversations, caller, console, concurrency)
            return await _report(outcomes, witness, books, console, since=since, measured_before=before)
        except grpc.aio.AioRpcError as error:
            raise MeshProblem(f"A service does not answer ({error.code().name}): see `sluice mesh status`.") from None


async def _send_all(
    conversations: Sequence[Conversation], caller: Caller, console: Console, concurrency: int
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    gate = asyncio.Semaphore(concurrency)
    with show.progress(console) as bar:
        task = bar.add_task("talking", total=len(conversations), tally="")

        async def send(conversation: Conversation) -> None:
            async with gate:
                outcome = await caller.send(conversation)
                outcomes.append(outcome)
                _advance(bar, task, outcomes)

        async with asyncio.TaskGroup() as group:
            for conversation in conversations:
                group.create_task(send(conversation))
    return outcomes


def _advance(bar: Progress, task: object, outcomes: Sequence[Outcome]) -> None:
    bar.console.print(show.line(outcomes[-1], bar.console.width), highlight=False, no_wrap=True, overflow="ellipsis")
    bar.update(task, advance=1, tally=show.tally(outcomes))  # type: ignore[arg-type]


async def _report(
    outcomes: Sequence[Outcome],
    witness: EventWitness,
    books: Books,
    console: Console,
    *,
    since: float,
    measured_before: int,
) -> bool:
    ids = {
        request_id for outcome in outcomes for request_id in (outcome.request_id, *outcome.earlier_ids) if request_id
    }
    judged = sum(1 for outcome in outcomes if outcome.feedback)
    with console.status("[dim]waiting until the mesh has counted it all[/]"):
        wanted = {"RequestCompleted": len(ids), "CostRecorded": len(ids), "FeedbackReceived": judged}
        await witness.wait_for(wanted, ids, CATCH_UP_SECONDS)
        measured = await books.wait_for_requests(measured_before + len(ids), since, CATCH_UP_SECONDS) - measured_before
    ledger = await books.spend(since)
    counted = [(f"{name} events", len(witness.about(name, ids)), number) for name, number in wanted.items()]
    rows = [
        (
            "conversations with an answer or a verdict",
            len(outcomes) - len(of_status(outcomes, "failed")),
            len(outcomes),
        ),
        ("requests they took", len(ids), len(ids)),
        *counted,
        ("ledger rows (GetSpend)", sum(row.requests for row in ledger), len(ids)),
        ("requests in quality windows", measured, len(ids)),
    ]
    console.print(_summary(outcomes, witness, ids))
    console.print(show.spend(ledger))
    console.print(await _quality(books, since))
    console.print(await _drift(books, since))
    console.print(show.checks(rows))
    away, unanswered = sum(len(o.earlier_ids) for o in outcomes), sum(o.unanswered for o in outcomes)
    if away or unanswered:
        console.print(
            f"  [dim]Asked again: {away} times a service was away, {unanswered} times no gateway answered.[/]"
        )
    if any(count > number for _, count, number in rows):
        console.print("  [dim]More than sent: others use this mesh at the same time.[/]")
    console.print(
        "  [dim]Marked self-tests try every filter on every route all the while, and count nowhere: `sluice probe`.[/]"
    )
    return not of_status(outcomes, "failed") and all(count == number for _, count, number in rows)


def _summary(outcomes: Sequence[Outcome], witness: EventWitness, ids: set[str]) -> show.Columns:
    completed = witness.about("RequestCompleted", ids)
    ends = Counter(
        gateway_pb2.RequestOutcome.Name(event.outcome).removeprefix("REQUEST_OUTCOME_") for event in completed
    )
    reasons = Counter(category for event in completed for category in event.blocked_categories)
    return show.side_by_side(
        show.bars("How they ended", ends, "green"),
        show.bars("Personal data hidden", kinds(completed, "redacted_input", "redacted_output"), "cyan"),
        show.bars("Blocked because of", reasons, "red"),
    )


async def _quality(books: Books, since: float) -> show.Panel:
    points = await books.metrics(QUALITY, since, by=[insight_service_pb2.DIMENSION_TENANT])
    rows = [
        [show.clock(start), tenant, *(_value(values.get(name)) for name in QUALITY)]
        for (start, tenant), values in _by_window(points).items()
        if values.get(QUALITY[0])
    ]
    columns = ("", "tenant", "n", "p50", "p95", "tokens/s", "blocked", "redacted", "feedback")
    return show.windows("Quality", "InsightService.QueryMetrics", columns, rows)


async def _drift(books: Books, since: float) -> show.Panel:
    points = await books.metrics(DRIFT, since - 300, by=[insight_service_pb2.DIMENSION_TENANT])
    verdicts = {
        (point.window.start.seconds, point.series.tenant_id): point.verdict for point in points if point.verdict
    }
    rows = [
        [
            show.clock(start),
            tenant,
            *(_value(values.get(name)) for name in DRIFT[:2]),
            verdicts.get((start, tenant), ""),
        ]
        for (start, tenant), values in _by_window(points).items()
    ]
    columns = ("", "tenant", "observations", "reference", "verdict")
    return show.windows("Drift", "InsightService.QueryMetrics", columns, rows)


def _by_window(points: Sequence[metric_pb2.MetricPoint]) -> Mapping[tuple[int, str], dict[str, metric_pb2.MetricPoint]]:
    found: dict[tuple[int, str], dict[str, metric_pb2.MetricPoint]] = {}
    for point in points:
        found.setdefault((point.window.start.seconds, point.series.tenant_id), {})[point.metric] = point
    return dict(sorted(found.items()))


def _value(point: metric_pb2.MetricPoint | None) -> str:
    if point is None or not point.HasField("value"):
        return "-"
    if point.unit == "ratio":
        return f"{point.value:.0%}"
    if point.unit == "seconds":
        return f"{point.value:.2f} s"
    return f"{point.value:.0f}" if point.unit == "1" else f"{point.value:.1f}"
