"""A console between real gRPC servers that play insight and cost, and a real browser."""

import asyncio
import contextlib
import hashlib
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx2
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from playwright.async_api import Browser, async_playwright
from sluice.cost.v1 import cost_service_pb2 as cost
from sluice.cost.v1 import cost_service_pb2_grpc as cost_rpc
from sluice.events.v1 import drift_pb2, fairness_pb2, gateway_pb2
from sluice.insight.v1 import alert_service_pb2 as alert
from sluice.insight.v1 import alert_service_pb2_grpc as alert_rpc
from sluice.insight.v1 import comparison_service_pb2 as comparison
from sluice.insight.v1 import comparison_service_pb2_grpc as comparison_rpc
from sluice.insight.v1 import insight_service_pb2 as insight
from sluice.insight.v1 import insight_service_pb2_grpc as insight_rpc
from sluice.insight.v1 import request_service_pb2 as story
from sluice.insight.v1 import request_service_pb2_grpc as story_rpc
from sluice.types.v1 import feedback_pb2, metric_pb2, money_pb2, usage_pb2, verdict_pb2
from sluice_console.adapters.alert_desk import AlertDesk
from sluice_console.adapters.comparisons import ComparisonReader
from sluice_console.adapters.cost import Cost
from sluice_console.adapters.insight import Insight
from sluice_console.adapters.stories import StoryReader
from sluice_console.api.application import application
from sluice_console.api.site import Site
from sluice_console.domain.people import ConsoleKey, Keyring, Person, Role
from sluice_console.domain.sessions import Sessions, Throttle
from sluice_console.main import assets_version
from sluice_kit.channel import connect
from sluice_kit.http_listener import HttpListener
from sluice_kit.settings import MeshSettings

KEYS = {
    "olga": ("key-of-olga", Person("olga", Role.OPERATOR)),
    "rita": ("key-of-rita", Person("rita", Role.REVIEWER)),
    "anna": ("key-of-anna", Person("anna", Role.AUDITOR, "acme")),
}
EPOCH = datetime.fromtimestamp(0, tz=UTC)


def stamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made


def span(length: timedelta) -> Duration:
    made = Duration()
    made.FromTimedelta(length)
    return made


@dataclass
class Mesh(
    insight_rpc.InsightServiceServicer,
    alert_rpc.AlertServiceServicer,
    comparison_rpc.ComparisonServiceServicer,
    story_rpc.RequestServiceServicer,
    cost_rpc.CostServiceServicer,
):
    """Plays insight and cost: answers from what a test put in, and remembers what was asked."""

    requests: dict[str, int] = field(default_factory=dict)
    """Tenant to requests a minute."""
    series: metric_pb2.MetricSeries | None = None
    """Whose every value is; None: the tenant's, where values are split by it."""
    drift: list[drift_pb2.DriftMeasured] = field(default_factory=list)
    drift_earlier: list[drift_pb2.DriftMeasured] = field(default_factory=list)
    fairness: list[fairness_pb2.FairnessMeasured] = field(default_factory=list)
    """The newest of every group."""
    earlier: list[fairness_pb2.FairnessMeasured] = field(default_factory=list)
    """Of the windows before."""
    drift_next_page: str = ""
    alerts: list[insight.Alert] = field(default_factory=list)
    silences: list[alert.Silence] = field(default_factory=list)
    fairness_page: int = 5_000
    refuses: str = ""
    """What insight says to every action; empty while it does as it is told."""
    is_late: bool = False
    """Insight does as it is told, and says so too late."""
    complete_up_to: datetime | None = None
    """What alerts and comparisons say of themselves."""
    sources: list[insight.Source] = field(default_factory=list)
    spend: list[cost.SpendGroup] = field(default_factory=list)
    forecasts: list[cost.SpendForecast] = field(default_factory=list)
    budgets: list[cost.Budget] = field(default_factory=list)
    largest_page: int = 10_000
    """Points insight gives at once."""
    away: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    asked: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    stories: dict[str, story.GetRequestResponse] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def _note(self, name: str, request: Any, context: grpc.aio.ServicerContext) -> None:
        self.asked.append((name, request, dict(context.invocation_metadata() or ())))
        if name in self.slow:
            await asyncio.sleep(60)  # longer than the console waits
        if name in self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "secret detail of a neighbour")

    async def QueryMetrics(self, request, context):
        await self._note("insight", request, context)
        only = {
            value for one in request.query.filters if one.dimension == insight.DIMENSION_TENANT for value in one.values
        }
        is_split = insight.DIMENSION_TENANT in request.query.group_by
        end = request.end_time.ToDatetime(tzinfo=UTC).replace(second=0, microsecond=0)
        points = []
        for tenant, count in self.requests.items():
            if only and tenant not in only:
                continue
            for name in request.query.metrics:
                value = float(count) if name in ("quality.requests", "quality.succeeded") else 0.25
                points.append(
                    metric_pb2.MetricPoint(
                        metric=name,
                        series=self.series or metric_pb2.MetricSeries(tenant_id=tenant if is_split else ""),
                        window=metric_pb2.MetricWindow(start=stamp(end), length=request.query.window),
                        value=value,
                        sample_count=count,
                        closed=True,
                    )
                )
        first = int(request.page_token or 0)
        last = first + min(request.page_size, self.largest_page)
        return insight.QueryMetricsResponse(
            points=points[first:last],
            complete_up_to=stamp(end),
            next_page_token=str(last) if last < len(points) else "",
        )

    async def WatchMetrics(self, request, context):
        await self._note("insight", request, context)
        while True:
            await self.changed.wait()
            self.changed.clear()
            yield insight.WatchMetricsResponse(update=insight.MetricUpdate())

    async def ListAlerts(self, request, context):
        await self._note("insight", request, context)
        return insight.ListAlertsResponse(alerts=self.alerts, complete_up_to=self._complete())

    async def ListSilences(self, request, context):
        await self._note("insight", request, context)
        return alert.ListSilencesResponse(silences=self.silences)

    async def _act(self, request, context):
        await self._note("insight", request, context)
        if self.refuses:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refuses)

    async def CreateSilence(self, request, context):
        await self._act(request, context)
        made = alert.Silence(
            silence_id=request.silence_id or f"s-{len(self.silences)}", rule=request.rule, labels=request.labels,
            starts_at=stamp(datetime.now(UTC)), ends_at=request.ends_at, set_by=request.set_by, reason=request.reason,
            state=alert.SILENCE_STATE_ACTIVE,
        )  # fmt: skip
        if made.silence_id in {one.silence_id for one in self.silences}:  # of another end: it is asked for later
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "there is another silence of this id")
        self.silences.append(made)
        if self.is_late:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "secret detail of a neighbour")
        return alert.CreateSilenceResponse(silence=made)

    async def ExpireSilence(self, request, context):
        await self._act(request, context)
        self.silences = [one for one in self.silences if one.silence_id != request.silence_id]
        return alert.ExpireSilenceResponse(silence=alert.Silence(silence_id=request.silence_id))

    async def AcknowledgeAlert(self, request, context):
        await self._act(request, context)
        for one in self.alerts:
            if one.alert_id == request.alert_id:
                one.acknowledgement.by, one.acknowledgement.reason = request.acknowledged_by, request.reason
        return alert.AcknowledgeAlertResponse()

    async def ListSources(self, request, context):
        await self._note("insight", request, context)
        return insight.ListSourcesResponse(sources=self.sources)

    async def ListDrift(self, request, context):
        await self._note("insight", request, context)
        since = request.start_time.ToMicroseconds() if request.HasField("start_time") else 0
        found = [one for one in self.drift if one.window.start.ToMicroseconds() >= since]
        kept = self.drift + self.drift_earlier
        if request.HasField("window_start"):
            found = [one for one in kept if one.window.start == request.window_start]
        starts = sorted({one.window.start.ToMicroseconds() for one in kept}, reverse=True)
        return comparison.ListDriftResponse(
            comparisons=found,
            left_out=3 if self.drift_next_page else 0,
            next_page_token=self.drift_next_page,
            older_count=max(0, len(self.drift) - len(found)),
            complete_up_to=self._complete(),
            windows=[
                comparison.DriftWindow(start=stamp(EPOCH + timedelta(microseconds=start)), drifted_count=1)
                for start in starts
            ],
        )

    async def ListFairness(self, request, context):
        await self._note("insight", request, context)
        kept = [] if request.metric == "pii_recall_by_name_origin" else self.fairness + self.earlier
        starts = sorted({one.window.start.ToMicroseconds() for one in kept}, reverse=True)
        found = self.fairness
        if request.HasField("window_start"):
            found = [one for one in kept if one.window.start == request.window_start]
        first = int(request.page_token or 0)
        last = min(first + min(request.page_size, self.fairness_page), len(found))
        windows = [comparison.FairnessWindow(start=stamp(EPOCH + timedelta(microseconds=start))) for start in starts]
        for window in windows:
            window.disparate_count = sum(
                one.window.start == window.start and one.verdict == fairness_pb2.FAIRNESS_VERDICT_DISPARATE
                for one in kept
            )
        return comparison.ListFairnessResponse(
            measurements=found[first:last],
            left_out=len(found) - last,
            next_page_token=str(last) if last < len(found) else "",
            windows=[] if first else windows,
            complete_up_to=self._complete(),
        )

    def _complete(self):
        return stamp(self.complete_up_to) if self.complete_up_to else None

    async def ListRequests(self, request, context):
        await self._note("insight", request, context)
        lines = [one.summary for one in self.stories.values()]
        first = int(request.page_token or 0)
        more = str(first + 50) if len(lines) > first + 50 else ""
        return story.ListRequestsResponse(requests=lines[first : first + 50], next_page_token=more)

    async def GetRequest(self, request, context):
        await self._note("insight", request, context)
        found = self.stories.get(request.request_id)
        tenant = dict(context.invocation_metadata()).get("x-sluice-tenant-id")
        if found is None or tenant not in (None, found.summary.tenant_id):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no")
        return found

    async def GetSpend(self, request, context):
        await self._note("cost", request, context)
        groups = self.spend if request.group_by else self.spend[:1]
        return cost.GetSpendResponse(groups=groups)

    async def ListBudgets(self, request, context):
        await self._note("cost", request, context)
        return cost.ListBudgetsResponse(budgets=self.budgets)

    async def GetBudget(self, request, context):
        await self._note("cost", request, context)
        dollar = money_pb2.Money(currency_code="USD", nano_units=10**9)
        return cost.GetBudgetResponse(budget_id=request.budget_id, spent=dollar, held=dollar, available=dollar)

    async def ForecastSpend(self, request, context):
        await self._note("cost", request, context)
        return cost.ForecastSpendResponse(forecasts=self.forecasts)

    def fill(self, tenants: int = 2) -> None:
        """A mesh in which things happen."""
        names = ["acme", "globex", *(f"tenant-{i:04}" for i in range(tenants - 2))][:tenants]
        self.requests = {name: 40 + i for i, name in enumerate(names)}
        self.spend = [spent(name, 1_234_567 * (i + 1)) for i, name in enumerate(names)]
        self.drift = [*(drifted(name) for name in names), without_texts("chat")]
        self.fairness = [measured(group, value) for group, value in (("none", 0.97), ("religion", 0.71), ("age", 0.95))]
        self.fairness += [cohort(group, value) for group, value in (("free", 0.71), ("pro", 0.96))]
        self.earlier = [
            measured(group, value, hours_ago(hours))
            for hours in range(2, 40)
            for group, value in (("none", 0.98), ("age", 0.96))
        ]
        now = datetime.now(UTC)
        self.alerts = [
            insight.Alert(
                alert_id="a1",
                rule="blocked_ratio_jump",
                state=insight.ALERT_STATE_FIRING,
                since=stamp(now),
                severity="critical",
                summary="Three times as much is blocked as an hour ago.",
                causes={"prompt_version=greeting@3": 0.8},
                labels={"tenant_id": "acme", "model": "sluice-small"},
                silenced_by=["s-0"],
                acknowledgement=insight.Acknowledgement(by="rita", reason="INC-3", at=stamp(now)),
            ),
            insight.Alert(
                alert_id="a2",
                rule="drift",
                state=insight.ALERT_STATE_RESOLVED,
                since=stamp(now - timedelta(hours=2)),
                evidence=metric_pb2.MetricPoint(
                    metric="drift.drifted", series=metric_pb2.MetricSeries(tenant_id="acme"), value=1
                ),
            ),
        ]
        self.silences = [
            alert.Silence(
                silence_id=f"s-{i}",
                rule="blocked_ratio_jump",
                labels={"tenant_id": names[i]},
                starts_at=stamp(now),
                ends_at=stamp(now + timedelta(hours=2)),
                set_by="olga",
                reason="OPS-7",
                state=alert.SILENCE_STATE_ACTIVE,
            )
            for i in range(tenants)
        ]
        self.sources = [
            insight.Source(topic="sluice.quality.quality_measured.v1", producer="sluice-quality/0#1", missing_count=2)
        ]
        self.stories = {f"request-{i:04}": blocked_story(f"request-{i:04}", names[i % 2]) for i in range(tenants * 2)}
        self.budgets = [
            cost.Budget(
                budget_id="acme-day",
                scope=cost.BUDGET_SCOPE_TENANT,
                tenant_ids=["acme"],
                limit=money_pb2.Money(currency_code="USD", nano_units=5 * 10**9),
                window=cost.BUDGET_WINDOW_DAY,
            )
        ]


def spent(name: str, nano: int, *, currency: str = "USD") -> cost.SpendGroup:
    return cost.SpendGroup(
        values=[name],
        amount=money_pb2.Money(currency_code=currency, nano_units=nano),
        row_count=9,
        request_count=7,
        unpriced_request_count=1,
        usage=usage_pb2.TokenUsage(uncached_input_tokens=900, output_tokens=100, estimated=True),
    )


def without_texts(alias: str, requests: int = 12) -> drift_pb2.DriftMeasured:
    """Of an alias whose requests reached no model: only how they ended is known."""
    now = stamp(datetime.now(UTC))
    return drift_pb2.DriftMeasured(
        series=metric_pb2.MetricSeries(tenant_id="acme", model=alias),
        window=metric_pb2.MetricWindow(start=now, length=span(timedelta(minutes=5))),
        reference=drift_pb2.DriftReference(
            version=1, requests=41, first_observed_at=now, last_observed_at=now
        ),
        verdict=drift_pb2.DRIFT_VERDICT_INSUFFICIENT,
        false_alarm_rate=0.01,
        features=[
            drift_pb2.FeatureDrift(
                feature="request.outcome", statistic="chi_squared", verdict=drift_pb2.DRIFT_VERDICT_INSUFFICIENT,
                observations=requests, bins=["blocked_input"], bin_counts=[requests], reference_bin_counts=[41],
            )
        ] if requests else [],
    )  # fmt: skip


def drifted(tenant: str, start: datetime | None = None) -> drift_pb2.DriftMeasured:
    now = start or datetime.now(UTC)
    return drift_pb2.DriftMeasured(
        series=metric_pb2.MetricSeries(tenant_id=tenant, model="sluice-small"),
        window=metric_pb2.MetricWindow(start=stamp(now), length=span(timedelta(minutes=5))),
        reference=drift_pb2.DriftReference(
            version=1, observations=200, pinned=True, first_observed_at=stamp(now), last_observed_at=stamp(now)
        ),
        observations=60,
        verdict=drift_pb2.DRIFT_VERDICT_DRIFTED,
        false_alarm_rate=0.01,
        causes=[
            drift_pb2.DriftCause(
                feature="prompt.language",
                dimension="prompt_version",
                slice="greeting@3",
                share=0.97,
                mix_share=0.97,
                within_share=0.0,
                window_share=0.6,
                reference_share=0.0,
                explained=0.9,
            )
        ],
        features=[
            drift_pb2.FeatureDrift(
                feature="prompt.language",
                statistic="chi_squared",
                value=31.5,
                p_value=0.0002,
                verdict=drift_pb2.DRIFT_VERDICT_DRIFTED,
                population_stability_index=0.61,
                jensen_shannon_divergence=0.11,
                observations=60,
                reference_observations=200,
                bins=["en", "de", ""],
                bin_counts=[20, 38, 2],
                reference_bin_counts=[180, 15, 5],
                largest_change="de",
            ),
            drift_pb2.FeatureDrift(feature="prompt.embedding", statistic="mean_shift", value=0.4),
        ],
    )


def hours_ago(hours: int) -> datetime:
    """The beginning of an hour that is over."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)


def cohort(value: str, rate: float, start: datetime | None = None) -> fairness_pb2.FairnessMeasured:
    made = measured(value, rate, start)
    made.attribute, made.reference_group = "input_cohort.plan", "others"
    return made


def measured(group: str, value: float, start: datetime | None = None) -> fairness_pb2.FairnessMeasured:
    is_reference = group == "none"
    verdict = (
        fairness_pb2.FAIRNESS_VERDICT_DISPARATE if group == "religion" else fairness_pb2.FAIRNESS_VERDICT_COMPARABLE
    )
    made = fairness_pb2.FairnessMeasured(
        series=metric_pb2.MetricSeries(tenant_id="acme", project_id="lab", model="sluice-small"),
        window=metric_pb2.MetricWindow(start=stamp(start or hours_ago(1)), length=span(timedelta(hours=1))),
        metric="selection_rate",
        attribute="input_terms",
        group=group,
        value=value,
        lower=value - 0.05,
        upper=min(1.0, value + 0.05),
        sample_count=300,
        policy="general@3",
        verdict=fairness_pb2.FAIRNESS_VERDICT_UNSPECIFIED if is_reference else verdict,
        below_four_fifths=group == "religion",
    )
    if not is_reference:
        made.difference, made.ratio, made.adjusted_p_value = value - 0.97, value / 0.97, 0.001
        made.trend_per_hour, made.trend_lower, made.trend_upper = -0.125, -0.25, -0.0625
    return made


def blocked_story(request_id: str, tenant: str) -> story.GetRequestResponse:
    """A request whose input was blocked, with all that can be known of one."""
    now = datetime.now(UTC)
    told = story.GetRequestResponse()

    def described(event: Any, seconds: float) -> None:
        event.metadata.request_id, event.metadata.tenant_id = request_id, tenant
        event.metadata.occurred_at.FromDatetime(now + timedelta(seconds=seconds))
        event.metadata.traceparent = "00-7783e46e4ef63afd72e020a942c8c686-0000000000000001-01"

    done = told.completed
    done.outcome, done.model, done.reason = gateway_pb2.REQUEST_OUTCOME_BLOCKED_INPUT, "sluice-small", "CONTENT_BLOCKED"
    done.latency.FromMilliseconds(120)
    done.redacted_input.add(kind="EMAIL_ADDRESS", count=2)
    described(done, 0)
    decision = told.decisions.add(direction=verdict_pb2.DIRECTION_INPUT)
    decision.verdict.CopyFrom(
        verdict_pb2.Verdict(
            decision_id="d-1", action=verdict_pb2.ACTION_BLOCK, policy_id="general", policy_version=4,
            scores=[
                verdict_pb2.CategoryScore(category="prompt_injection", score=0.97, threshold=0.9, action=verdict_pb2.ACTION_BLOCK),
                verdict_pb2.CategoryScore(category="toxicity", score=0.01, threshold=0.9, action=verdict_pb2.ACTION_BLOCK),
            ],
            skipped=[verdict_pb2.SkippedCheck(check="guard", reason="unavailable")],
        )
    )  # fmt: skip
    decision.latency.FromMilliseconds(30)
    described(decision, -0.02)
    row = told.costs.add(charge_kind="inference", amount=money_pb2.Money(currency_code="USD", nano_units=42))
    row.lines.add(bucket="input", quantity=10, unit_price="0.05", amount=row.amount)
    described(row, 1)
    thumb = told.feedback.add(thumb=feedback_pb2.THUMB_DOWN, feedback_id="f1")
    described(thumb, 60)
    told.summary.CopyFrom(
        story.RequestSummary(
            request_id=request_id, tenant_id=tenant, project_id="lab", ended_at=stamp(now), outcome=done.outcome, reason=done.reason,
            model=done.model, latency=done.latency, costs=[row.amount], kinds=["EMAIL_ADDRESS"], blocked_categories=["prompt_injection"],
            verdicts=[verdict_pb2.ACTION_BLOCK], categories=["prompt_injection"], feedback_count=1, thumbs=-1, decisions_awaiting_review=["d-1"],
        )
    )  # fmt: skip
    return told


@dataclass
class Console:
    """The console under test."""

    url: str
    mesh: Mesh
    site: Site
    keys: dict[str, tuple[str, Person]]
    clock: list[float]
    listener: HttpListener

    async def restart(self, *, pause: float) -> None:
        """The console ends, is away for `pause` seconds, and starts again at the same address: without sessions, which are in memory."""
        await self.listener.stop()
        await asyncio.sleep(pause)
        self.site.sessions = sessions_of(self.clock)
        self.listener = listener_of(self.site, self.url.removeprefix("http://"))
        await self.listener.start()

    def client(self) -> httpx2.AsyncClient:
        """A browser without JavaScript."""
        return httpx2.AsyncClient(base_url=self.url, trust_env=False, timeout=30, headers={"accept": "text/html"})

    @contextlib.asynccontextmanager
    async def signed_in(self, who: str = "olga") -> AsyncIterator[httpx2.AsyncClient]:
        async with self.client() as client:
            answer = await client.post("/signin", data={"key": self.keys[who][0]})
            assert answer.status_code == 303, answer.text
            yield client


def sessions_of(clock: list[float]) -> Sessions:
    return Sessions(seconds=3600, idle_seconds=600, limit=100, now=lambda: clock[0])


def listener_of(site: Site, address: str) -> HttpListener:
    app = application(site, healthy=lambda: True)
    return HttpListener(app, address, variable="the address", drain_seconds=1)


@pytest_asyncio.fixture
async def console() -> AsyncIterator[Console]:
    mesh = Mesh()
    server = grpc.aio.server()
    insight_rpc.add_InsightServiceServicer_to_server(mesh, server)
    alert_rpc.add_AlertServiceServicer_to_server(mesh, server)
    comparison_rpc.add_ComparisonServiceServicer_to_server(mesh, server)
    story_rpc.add_RequestServiceServicer_to_server(mesh, server)
    cost_rpc.add_CostServiceServicer_to_server(mesh, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = connect(f"127.0.0.1:{port}", MeshSettings())
    keys = dict(KEYS)
    clock = [time.time()]

    def keyring() -> Keyring:
        return Keyring([ConsoleKey(hashlib.sha256(key.encode()).hexdigest(), person) for key, person in keys.values()])

    def now() -> float:
        return clock[0]

    site = Site(
        insight=Insight(channel, seconds=10, silent_seconds=3),
        comparisons=ComparisonReader(channel, seconds=10),
        cost=Cost(channel, seconds=10),
        stories=StoryReader(channel, seconds=10),
        desk=AlertDesk(channel, seconds=10),
        keyring=keyring,
        sessions=sessions_of(clock),
        throttle=Throttle(failures=5, seconds=60, limit=100, now=now),
        streams_limit=3,
        secure_cookies=False,
        version=assets_version(),
    )
    listener = listener_of(site, "127.0.0.1:0")
    await listener.start()
    made = Console(f"http://127.0.0.1:{listener.port}", mesh, site, keys, clock, listener)
    yield made
    await made.listener.stop()
    await channel.close()
    await server.stop(None)


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium, headless: Debian's. `make test` installs it where it may."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium: install Debian's `chromium` (`make test-console` does as root)")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield launched
        await launched.close()
