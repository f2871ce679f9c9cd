"""The service over real gRPC, with detectors that tests can see through."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from sluice.redaction.v1 import redaction_service_pb2 as pb
from sluice.redaction.v1 import redaction_service_pb2_grpc
from sluice_kit.configuration_watch import WatchedConfiguration
from sluice_kit.context import REQUEST_ID, TENANT_ID
from sluice_kit.server import GrpcServer
from sluice_redaction.adapters.listed import Listed
from sluice_redaction.adapters.policy_files import Surroundings
from sluice_redaction.adapters.policy_folder import watched_policies
from sluice_redaction.adapters.toolbox import Toolbox
from sluice_redaction.adapters.workers import WorkerPool
from sluice_redaction.api import Limits, RedactionApi, load_recognizers
from sluice_redaction.domain.book import PolicyBook
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.summary import Summary
from sluice_redaction.settings import Settings

_SERVICE = "sluice.redaction.v1.RedactionService"
_PATTERNS = {
    "EMAIL_ADDRESS": re.compile(r"[\w.]{1,40}@[\w.]{1,40}\w"),
    "PERSON": re.compile(r"\b(?:Ann|Bob|Zoë|User\d+)(?: (?:Lee|Ray))?\b"),
}


class PatternDetector:
    """Finds what `_PATTERNS` and `more` say; slow on request."""

    def __init__(
        self, gate: Callable[[], None] = lambda: None, more: Mapping[str, re.Pattern[str]] | None = None
    ) -> None:
        self._gate = gate
        self._patterns = {**_PATTERNS, **(more or {})}

    def detect_patterns(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        return self.detect(text, kinds)

    def detect(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        self._gate()
        for kind, pattern in self._patterns.items():
            for match in pattern.finditer(text):
                yield Finding(*match.span(), kind, 0.9, "patterns", "test", confirmed=True)

    def listed(self) -> list[Listed]:
        return [Listed("patterns", sorted(_PATTERNS), "sha256:0")]


class Notes:
    """A journal that keeps what it is told."""

    def __init__(self) -> None:
        self.summaries: list[Summary] = []

    async def text_redacted(self, summary: Summary) -> None:
        self.summaries.append(summary)


class Running:
    """A served API."""

    def __init__(self, stub: Any, channel: grpc.aio.Channel) -> None:
        self.stub, self.channel, self.notes = stub, channel, Notes()
        self.policies: WatchedConfiguration[PolicyBook]

    async def redact(self, *texts: str, tenant: str = "", request_id: str = "r1", **fields: Any) -> Any:
        """The texts redacted for a tenant, in a request of that id."""
        segments = [pb.TextSegment(segment_id=str(number), text=text) for number, text in enumerate(texts)]
        metadata = ((TENANT_ID, tenant), (REQUEST_ID, request_id))
        return await self.stub.Redact(pb.RedactRequest(segments=segments, **fields), metadata=metadata)

    async def restore(self, redacted: pb.RedactResponse, *, tenant: str = "", **fields: Any) -> list[str]:
        """The texts of an answer that came back."""
        request = pb.RestoreRequest(segments=redacted.segments, **fields)
        return [one.text for one in (await self.stub.Restore(request, metadata=((TENANT_ID, tenant),))).segments]

    async def stream(self, *chunks: str, tenant: str = "", request_id: str = "r1", **fields: Any) -> str:
        """The chunks through RedactStream."""

        async def requests() -> AsyncIterator[pb.RedactStreamRequest]:
            yield pb.RedactStreamRequest(open=pb.RedactStreamOpen(**fields))
            for chunk in chunks:
                yield pb.RedactStreamRequest(text=chunk)
            yield pb.RedactStreamRequest(end=pb.RedactStreamEnd())

        metadata = ((TENANT_ID, tenant), (REQUEST_ID, request_id))
        return "".join([response.text async for response in self.stub.RedactStream(requests(), metadata=metadata)])


@asynccontextmanager
async def _serving(
    tmp_path: Path,
    *,
    make: Any = None,
    gate: Callable[[], None] = lambda: None,
    find: Mapping[str, re.Pattern[str]] | None = None,
    limits: Limits | None = None,
    queue_limit: int = 256,
    ready: bool = True,
    policies: Path | None = None,
    secrets: Sequence[bytes] = (),
) -> AsyncIterator[Running]:
    """make: a detector factory's maker. gate: called before every detection. find: kinds to find besides. policies: a folder of them."""
    watched = watched_policies(policies, Surroundings(has_key=bool(secrets)))
    given = Settings(home=tmp_path, grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=1)
    pool = WorkerPool(threads=2, queue_limit=queue_limit)
    server = GrpcServer(service="redaction", settings=given)
    notes = Notes()
    api = RedactionApi(pool, notes, lambda: watched.current, limits or Limits(), Toolbox(secrets))
    redaction_service_pb2_grpc.add_RedactionServiceServicer_to_server(api, server.grpc)
    await server.start(service_names=[_SERVICE])
    try:
        async with (
            load_recognizers(pool, server.health, make or (lambda: lambda: PatternDetector(gate, find))),
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            running = Running(redaction_service_pb2_grpc.RedactionServiceStub(channel), channel)
            running.notes, running.policies = notes, watched
            if ready:
                await until(lambda: bool(pool.recognizers))
            yield running
    finally:
        await server.stop()


async def until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline, "did not happen in 10 s"
        await asyncio.sleep(0.01)


@pytest.fixture
def serving() -> Callable[..., AbstractAsyncContextManager[Running]]:
    """Serves the API: `async with serving(tmp_path, ...) as running`."""
    return _serving


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Running]:
    async with _serving(tmp_path) as running:
        yield running
