"""A gateway with both doors open, between real gRPC servers that play its neighbours."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from sluice.events.v1 import gateway_pb2
from sluice.gateway.v1 import gateway_service_pb2_grpc
from sluice.inference.v1 import inference_service_pb2 as inference
from sluice.inference.v1 import inference_service_pb2_grpc as inference_rpc
from sluice.moderation.v1 import moderation_service_pb2 as moderation
from sluice.moderation.v1 import moderation_service_pb2_grpc as moderation_rpc
from sluice.redaction.v1 import redaction_service_pb2 as redaction
from sluice.redaction.v1 import redaction_service_pb2_grpc as redaction_rpc
from sluice.types.v1 import finish_reason_pb2, usage_pb2, verdict_pb2
from sluice_gateway.adapters.budgets import GrpcBudgets
from sluice_gateway.adapters.events import PublishedCompletions
from sluice_gateway.adapters.inference import GrpcModel
from sluice_gateway.adapters.languages import detector
from sluice_gateway.adapters.moderation import GrpcModerator
from sluice_gateway.adapters.redaction import GrpcRedactor
from sluice_gateway.api import grpc as grpc_door
from sluice_gateway.api import http as http_door
from sluice_gateway.domain.admission import Admission
from sluice_gateway.domain.api_key import ApiKey, Keyring, mint
from sluice_gateway.domain.configuration import Configuration, Deployment, Limits, Task, Tenant
from sluice_gateway.domain.gateway import Gateway
from sluice_gateway.domain.neighbours import Neighbours
from sluice_gateway.domain.purse import Purse, PurseLimits
from sluice_gateway.domain.validation import Bounds
from sluice_kit.channel import connect
from sluice_kit.events import new_event_id
from sluice_kit.http_listener import HttpListener
from sluice_kit.interceptor import CallInterceptor
from sluice_kit.settings import MeshSettings, settings_config

EMAIL = re.compile(r"[\w.]+@[\w.]+\w")
PLACEHOLDER = re.compile(r"<[A-Z_]+_\d+>")


class _Settings(MeshSettings):
    model_config = settings_config("gateway")


class _Neighbour:
    """What every fake can be told to do: be away, or keep silent."""

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.away_as = grpc.StatusCode.UNAVAILABLE
        self.silent: set[str] = set()
        self.seen: list[str] = []
        self.metadata: list[dict[str, Any]] = []

    async def begin(self, rpc: str, context: grpc.aio.ServicerContext) -> None:
        self.metadata.append(dict(context.invocation_metadata() or ()))
        if rpc in self.away:
            await context.abort(self.away_as, "away")
        if rpc in self.silent:
            await asyncio.Event().wait()


class FakeRedaction(_Neighbour, redaction_rpc.RedactionServiceServicer):
    """E-mail addresses are personal data; words are looked at once their end is known."""

    def __init__(self) -> None:
        super().__init__()
        self.formats: list[int] = []
        self.made_up = False  # surrogates instead of placeholders
        self.directions: list[int] = []

    async def Redact(self, request, context):  # type: ignore[no-untyped-def]
        await self.begin("unary", context)
        self.directions.append(request.direction)
        vault = redaction.Vault()
        vault.CopyFrom(request.vault)
        known = {entry.value: entry.placeholder for entry in vault.entries}
        segments = []
        for segment in request.segments:
            self.seen.append(segment.text)
            segments.append(
                redaction.TextSegment(segment_id=segment.segment_id, text=self._redact(segment.text, known, vault))
            )
        counts = [{"kind": "EMAIL_ADDRESS", "count": len(known)}] if known else []
        return redaction.RedactResponse(
            segments=segments, vault=vault, counts=counts, policy_id="strict", policy_version=3
        )

    def _redact(self, text: str, known: dict[str, str], vault: redaction.Vault) -> str:
        def take(match: re.Match[str]) -> str:
            if match[0] in known.values():
                return match[0]
            if match[0] not in known:
                number = len(known) + 1
                known[match[0]] = f"maria{number}@example.net" if self.made_up else f"<EMAIL_ADDRESS_{number}>"
                operator = "surrogate" if self.made_up else "replace"
                vault.entries.add(placeholder=known[match[0]], value=match[0], kind="EMAIL_ADDRESS", operator=operator)
            return known[match[0]]

        return EMAIL.sub(take, text)

    async def RedactStream(self, requests, context):  # type: ignore[no-untyped-def]
        await self.begin("stream", context)
        held, values, found = "", {}, 0
        async for request in requests:
            event = request.WhichOneof("event")
            if event == "open":
                assert request.open.restore
                values = {entry.placeholder: entry.value for entry in request.open.vault.entries}
                self.formats.append(request.open.format)
                continue
            if event == "text":
                held += request.text
                cut = max(held.rfind(" "), held.rfind("\n")) + 1
            else:
                cut = len(held)
            ready, held = held[:cut], held[cut:]
            # As the real service does: what is the caller's own is neither hidden from the caller nor counted.
            fresh = {value for value in EMAIL.findall(ready) if value not in values.values() and value not in values}
            found += len(fresh)
            ready = EMAIL.sub(lambda match, new=fresh: "<EMAIL_ADDRESS_99>" if match[0] in new else match[0], ready)
            for token in (PLACEHOLDER, EMAIL):
                ready = token.sub(lambda match, known=values: known.get(match[0], match[0]), ready)
            if ready:
                yield redaction.RedactStreamResponse(text=ready)
            if event == "end":
                counts = [{"kind": "EMAIL_ADDRESS", "count": found}] if found else []
                yield redaction.RedactStreamResponse(finished=redaction.RedactStreamFinished(counts=counts))
                return


ACTIONS = {
    "FORBIDDEN": verdict_pb2.ACTION_BLOCK,
    "ABUSE": verdict_pb2.ACTION_BLOCK,
    "DOUBTFUL": verdict_pb2.ACTION_HOLD,
    "RUDE": verdict_pb2.ACTION_REDACT,
    "UNREAD": verdict_pb2.ACTION_SKIPPED,
    "HALFREAD": verdict_pb2.ACTION_FLAG,
    "UNSCORED": verdict_pb2.ACTION_BLOCK,
}
WITHHELD = (verdict_pb2.ACTION_BLOCK, verdict_pb2.ACTION_HOLD)
MARKER = "[removed: toxicity] "


class FakeModeration(_Neighbour, moderation_rpc.ModerationServiceServicer):
    """Acts on the words of ACTIONS; an answer is judged sentence by sentence, a RUDE sentence becomes a marker."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[str] = []
        self.unscored = self.unmade = False

    async def Moderate(self, request, context):  # type: ignore[no-untyped-def]
        await self.begin("unary", context)
        self.seen.extend(segment.text for segment in request.segments)
        self.writers.extend(segment.writer for segment in request.segments)
        self.unmade = False
        action = self._action(" ".join(segment.text for segment in request.segments), request.fail_closed)
        replaced = [
            moderation.ModeratedText(segment_id=segment.segment_id, text=self._cut(segment.text))
            for segment in request.segments
            if action == verdict_pb2.ACTION_REDACT and "RUDE" in segment.text
        ]
        return moderation.ModerateResponse(verdict=self._verdict("in", action), replaced_segments=replaced)

    async def ModerateStream(self, requests, context):  # type: ignore[no-untyped-def]
        await self.begin("stream", context)
        held, worst, self.unmade = "", verdict_pb2.ACTION_ALLOW, False
        async for request in requests:
            event = request.WhichOneof("event")
            if event == "open":
                fail_closed = request.open.fail_closed
                continue
            held += request.text if event == "text" else ""
            cut = held.rfind(". ") + 2 if event == "text" and ". " in held else len(held) if event == "end" else 0
            ready, held = held[:cut], held[cut:]
            action = self._action(ready, fail_closed)
            worst = action if action != verdict_pb2.ACTION_ALLOW else worst
            if action in WITHHELD:
                yield moderation.ModerateStreamResponse(verdict=self._verdict("out", action))
                return
            if ready:
                yield moderation.ModerateStreamResponse(text=self._cut(ready))
            if event == "end":
                yield moderation.ModerateStreamResponse(verdict=self._verdict("out", worst))
                return

    def _action(self, text: str, fail_closed: bool) -> int:
        here = any(word in text for word in ("UNSCORED", "UNREAD", "HALFREAD"))
        self.unmade = self.unmade or here
        self.unscored = "UNSCORED" in text or (fail_closed and here)
        action = next((action for word, action in ACTIONS.items() if word in text), verdict_pb2.ACTION_ALLOW)
        return verdict_pb2.ACTION_BLOCK if self.unscored else action

    def _cut(self, text: str) -> str:
        return re.sub(r"[^.]*RUDE[^.]*\.? ?", MARKER, text)

    def _verdict(self, name: str, action: int) -> verdict_pb2.Verdict:
        score = {
            "category": "toxicity",
            "score": 0.1 if action == verdict_pb2.ACTION_ALLOW else 0.9,
            "threshold": 0.5,
            "action": verdict_pb2.ACTION_BLOCK if action == verdict_pb2.ACTION_ALLOW else action,
        }
        skipped = [verdict_pb2.SkippedCheck(check="threat", reason="deadline")] if self.unmade else []
        return verdict_pb2.Verdict(
            decision_id=f"decision-{name}",
            action=action,
            policy_id="general",
            policy_version=3,
            scores=[] if self.unscored else [score],
            skipped=skipped,
        )


class FakeInference(_Neighbour, inference_rpc.InferenceServiceServicer):
    """Says its script."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[str] = ["Hello ", "there. ", "All is well."]
        self.pause_after: int | None = None
        self.fail_after: int | None = None
        self.may_fail = asyncio.Event()
        self.finish = finish_reason_pb2.FINISH_REASON_STOP
        self.refuse: grpc.StatusCode | None = None
        self.refuse_because = ""
        self.specs: list[inference.GenerationSpec] = []
        self.running = 0
        self.cancelled = 0

    async def GenerateStream(self, request, context):  # type: ignore[no-untyped-def]
        await self.begin("stream", context)
        self.specs.append(request.spec)
        self.seen.append(str(request.spec))
        if self.refuse:
            if self.refuse_because:
                told = status_pb2.Status(code=self.refuse.value[0], message="the model says no")
                told.details.add().Pack(error_details_pb2.ErrorInfo(reason=self.refuse_because, domain="sluice"))
                context.set_trailing_metadata((("grpc-status-details-bin", told.SerializeToString()),))
            await context.abort(self.refuse, "the model says no")
        self.running += 1
        try:
            yield inference.GenerateStreamResponse(started=inference.GenerationStarted(model="fake-1"))
            for i, text in enumerate(self.script):
                if i == self.pause_after:
                    await asyncio.Event().wait()
                if i == self.fail_after:
                    await self.may_fail.wait()
                    error = inference.GenerationError(code=14, message="lost a device")
                    yield inference.GenerateStreamResponse(error=error)
                    return
                yield inference.GenerateStreamResponse(token=inference.TokenDelta(text=text, token_count=1))
            finished = inference.GenerationFinished(
                outputs=[inference.OutputFinished(finish_reason=self.finish)],
                usage=usage_pb2.TokenUsage(
                    uncached_input_tokens=7, cached_input_tokens=2, output_tokens=len(self.script)
                ),
            )
            yield inference.GenerateStreamResponse(finished=finished)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def Embed(self, request, context):  # type: ignore[no-untyped-def]
        await self.begin("embed", context)
        self.seen.extend(request.texts)
        return inference.EmbedResponse(
            model="fake-embed", embeddings=[inference.Embedding(values=[0.6, 0.8]) for _ in request.texts],
            usage=usage_pb2.TokenUsage(uncached_input_tokens=3),
        )  # fmt: skip


class RecordingPublisher:
    """Stands in for the outbox: keeps what was published, and refuses when it is full."""

    def __init__(self) -> None:
        self.events: list[gateway_pb2.RequestCompleted] = []
        self.full = False
        self.nearly_full = False

    @property
    def has_room(self) -> bool:
        return not self.nearly_full

    async def publish(self, *events: Message) -> None:
        await asyncio.sleep(0)
        if self.full:
            from sluice_kit.errors import ResourceExhausted

            raise ResourceExhausted("full", reason="OUTBOX_FULL")
        for event in events:
            assert isinstance(event, gateway_pb2.RequestCompleted)
            self.events.append(event)


@dataclass
class Mesh:
    """The gateway under test and all that stands round it."""

    redaction: FakeRedaction
    moderation: FakeModeration
    inference: FakeInference
    published: RecordingPublisher
    configuration: Configuration
    key: str
    admission: Admission
    gateway: Gateway | None = None
    http_url: str = ""
    grpc_target: str = ""
    _channels: list[Any] = field(default_factory=list)

    def stub(self) -> Any:
        channel = grpc.aio.insecure_channel(self.grpc_target)
        self._channels.append(channel)
        return gateway_service_pb2_grpc.GatewayServiceStub(channel)

    def credentials(self, key: str | None = None) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {key or self.key}")]

    def set_tenant(self, **changes: Any) -> None:
        tenant = replace(self.configuration.tenants["acme"], **changes)
        self.configuration = replace(self.configuration, tenants={"acme": tenant})

    def be_impatient_with_filters(self) -> None:
        assert self.gateway is not None
        self.gateway._guard.filter_timeout = 0.3

    async def event(self, number: int = 1) -> gateway_pb2.RequestCompleted:
        """The last of `number` events, once it is there; fails when there are more."""
        await until(lambda: len(self.published.events) >= number)
        assert len(self.published.events) == number
        return self.published.events[-1]


async def until(holds: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for something to become true, by polling with a deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.005)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return until


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """Everything started, once for a module: starting and stopping servers takes longer than most tests."""
    settings = _Settings(home=tmp_path_factory.mktemp("home"))
    admission = Admission(max_in_flight=64, clock=time.monotonic)
    configuration, key = _configuration()
    mesh = Mesh(FakeRedaction(), FakeModeration(), FakeInference(), RecordingPublisher(), configuration, key, admission)
    neighbours, targets = await _start_neighbours(mesh)
    channels = {name: connect(target, settings) for name, target in targets.items()}
    mesh.gateway = gateway = _gateway(mesh, channels)
    server = grpc.aio.server(interceptors=[CallInterceptor()])
    grpc_door.add_to_server(gateway, server, request_seconds=20)
    port = server.add_insecure_port("127.0.0.1:0")
    app = http_door.application(gateway, http_door.HttpLimits(100_000, 2, 20), healthy=lambda: True)
    listener = HttpListener(app, "127.0.0.1:0", variable="the address", drain_seconds=1)
    await server.start()
    await listener.start()
    mesh.http_url, mesh.grpc_target = f"http://127.0.0.1:{listener.port}", f"127.0.0.1:{port}"
    yield mesh
    await asyncio.gather(server.stop(1), listener.stop())
    for channel in channels.values():
        await channel.close()
    await asyncio.gather(*(neighbour.stop(0) for neighbour in neighbours))


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(running_mesh: Mesh) -> AsyncIterator[Mesh]:
    """The running mesh as new; filters may take 2 s. Fails a test that leaves a request running."""
    mesh = running_mesh
    for fake in (mesh.redaction, mesh.moderation, mesh.inference, mesh.published):
        fake.__init__()  # type: ignore[misc]
    mesh.configuration, mesh.key = _configuration()
    mesh.admission._meters.clear()
    assert mesh.gateway is not None
    mesh.gateway._guard.filter_timeout = 2.0
    yield mesh
    for channel in mesh._channels:
        await channel.close()
    mesh._channels.clear()
    await until(lambda: mesh.admission.in_flight == 0 and mesh.inference.running == 0)
    assert await mesh.gateway.all_told(5)


def _configuration() -> tuple[Configuration, str]:
    key, sha256 = mint("test")
    configuration = Configuration(
        tenants={"acme": Tenant("acme", limits=Limits(requests_per_minute=100_000, max_tokens=1000))},
        keyring=Keyring([ApiKey("test", sha256, "acme", "lab")]),
        deployments={
            "small": Deployment("small", "fake-1", owned_by="us", max_output_tokens=64),
            "vectors": Deployment("vectors", "fake-embed", tasks=frozenset({Task.EMBED})),
        },
        created_at=1_700_000_000,
    )
    return configuration, key


def _gateway(mesh: Mesh, channels: dict[str, Any]) -> Gateway:
    return Gateway(
        Neighbours(
            model=GrpcModel(channels["inference"]),
            moderator=GrpcModerator(channels["moderation"]),
            redactor=GrpcRedactor(channels["redaction"]),
            events=PublishedCompletions(mesh.published),
        ),
        configuration=lambda: mesh.configuration,
        admission=mesh.admission,
        # Nobody serves CostService there, as in a mesh from before there were budgets: tests/budgets has one that does.
        purse=Purse(
            GrpcBudgets(channels["inference"], holder="sluice-gateway/0", timeout=2, first_timeout=2),
            limits=PurseLimits(),
            new_id=new_event_id,
            clock=time.monotonic,
        ),
        bounds=Bounds(messages=100, characters=10_000),
        subject_key=b"k" * 32,
        filter_timeout=2.0,
        least_output_tokens=4,
        languages=detector(),
        clock=time.monotonic,
    )


async def _start_neighbours(mesh: Mesh) -> tuple[list[grpc.aio.Server], dict[str, str]]:
    servers, targets = [], {}
    for name, add, servicer in (
        ("redaction", redaction_rpc.add_RedactionServiceServicer_to_server, mesh.redaction),
        ("moderation", moderation_rpc.add_ModerationServiceServicer_to_server, mesh.moderation),
        ("inference", inference_rpc.add_InferenceServiceServicer_to_server, mesh.inference),
    ):
        server = grpc.aio.server()
        add(servicer, server)  # type: ignore[operator]
        targets[name] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        servers.append(server)
    return servers, targets
