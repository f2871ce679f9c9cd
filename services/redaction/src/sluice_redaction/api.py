"""RedactionService over gRPC: protobuf in, domain, protobuf out."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import grpc
from prometheus_client import Counter as Count
from prometheus_client import Histogram
from sluice.redaction.v1 import redaction_service_pb2 as pb
from sluice.redaction.v1 import redaction_service_pb2_grpc
from sluice_kit.context import current
from sluice_kit.errors import InvalidInput, NotFound, PreconditionFailed
from sluice_kit.health import HealthBoard
from sluice_kit.telemetry import logger

from sluice_redaction.adapters import messages
from sluice_redaction.adapters.listed import ListedDetector
from sluice_redaction.adapters.toolbox import Toolbox, decrypted_in
from sluice_redaction.adapters.workers import WorkerPool, Workers
from sluice_redaction.domain.across import across, chains
from sluice_redaction.domain.book import NoSuchPolicy, PolicyBook
from sluice_redaction.domain.detection import WHOLE_TEXT, SegmentedDetection
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.holding import Holding
from sluice_redaction.domain.kinds import KINDS
from sluice_redaction.domain.operators import Operation
from sluice_redaction.domain.policy import Direction, Policy
from sluice_redaction.domain.redaction import RedactingStream, redact
from sluice_redaction.domain.replacing import Replacing, Tools
from sluice_redaction.domain.restoring import Restored, reader_of, restore
from sluice_redaction.domain.summary import Journal, Summary
from sluice_redaction.domain.vault import Entry, Vault

log = logger(__name__)

FINDINGS = Count("sluice_redaction_findings", "Findings replaced.", ["kind", "direction"])
RESTORED = Count("sluice_redaction_restored", "Placeholders replaced by their values.")
CHARACTERS = Count("sluice_redaction_characters", "Code points searched.", ["direction"])
ANALYSIS_SECONDS = Histogram(
    "sluice_redaction_analysis_seconds",
    "Time from a call's texts to their findings.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
HELD_BACK_CHARACTERS = Histogram(
    "sluice_redaction_held_back_characters",
    "Most code points a stream held back at once.",
    buckets=(0, 20, 50, 100, 200, 400, 800, 1_600, 4_000, 10_000),
)
ADDED_TIME_TO_FIRST_TOKEN = Histogram(
    "sluice_redaction_added_time_to_first_token_seconds",
    "From the first text a stream received to the first it released.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
# A large push is taken apart: pieces change nothing in the output, and short buffers are cheap to cut.
_PIECE = 2_000
# As many are replaced or read in some milliseconds, made-up values being the slowest; more is no work for an event loop.
_MANY_FINDINGS = 50
_MANY_ENTRIES = 500
_MANY_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of one call, in texts, code points, code points of a stream, and vault entries."""

    texts: int = 2_000
    characters: int = 200_000
    stream_characters: int = 1_000_000
    vault_entries: int = 10_000


@asynccontextmanager
async def load_recognizers(
    pool: WorkerPool, health: HealthBoard, make_factory: Callable[[], Callable[[], ListedDetector]]
) -> AsyncIterator[None]:
    """Loads beside the running server, which is not SERVING until it is done; if it fails, it stays so and says why."""
    health.set("recognizers", False)

    async def load() -> None:
        begun = time.perf_counter()
        try:
            await pool.load(make_factory)
        except Exception as error:  # any library's; the service stays up to say what is wrong
            log.error("recognizers.failed", error=type(error).__name__, reason=str(error))
            return
        health.set("recognizers", True)
        log.info(
            "recognizers.loaded", load_seconds=round(time.perf_counter() - begun, 1), recognizers=len(pool.recognizers)
        )

    loading = asyncio.create_task(load())
    try:
        yield
    finally:
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading
        pool.close()


class RedactionApi(redaction_service_pb2_grpc.RedactionServiceServicer):
    """Keeps nothing between calls: each has its own vault, which ends with it."""

    def __init__(
        self,
        workers: Workers,
        journal: Journal,
        policies: Callable[[], PolicyBook],
        limits: Limits,
        toolbox: Toolbox | None = None,
    ) -> None:
        """policies: those in force now; asked once for each call, so that a call has one policy throughout."""
        self._workers = workers
        self._journal = journal
        self._policies = policies
        self._limits = limits
        self._toolbox = toolbox or Toolbox()

    async def Detect(self, request: pb.DetectRequest, context: grpc.aio.ServicerContext) -> pb.DetectResponse:
        direction = messages.direction_of(request.direction)
        policy = self._policy(request.policy_id, request.language).toward(direction)
        texts = self._texts(request.segments)
        replacing = Replacing(policy, Vault(), self._tools(policy))
        return messages.detect_response(request.segments, await self._findings(texts, policy, replacing), policy)

    async def Redact(self, request: pb.RedactRequest, context: grpc.aio.ServicerContext) -> pb.RedactResponse:
        begun = time.perf_counter()
        direction = messages.direction_of(request.direction)
        policy = self._policy(request.policy_id, request.language).toward(direction)
        texts = self._texts(request.segments)
        vault = self._vault(request.vault)
        replacing = Replacing(policy, vault, self._tools(policy))
        found = await self._findings(texts, policy, replacing)
        if sum(map(len, found)) > _MANY_FINDINGS or _is_long(texts, vault):
            redaction = await self._workers.run(lambda _: redact(texts, found, vault, replacing))
        else:
            redaction = redact(texts, found, vault, replacing)
        replaced = [pair for redacted in redaction.texts for pair in redacted.replaced()]
        counts = Counter(finding.kind for finding, _ in replaced)
        response = messages.redact_response(request.segments, redaction.texts, vault, policy)
        response.counts.extend(messages.kind_counts(counts))
        await self._record(
            Summary(
                policy,
                outgoing=direction is Direction.OUTPUT,
                streamed=False,
                counts=counts,
                recognizer_counts=Counter(finding.recognizer for finding, _ in replaced),
                operator_counts=Counter(str(replacement.operation) for _, replacement in replaced),
                segments=len(texts),
                characters=sum(map(len, texts)),
                latency_seconds=time.perf_counter() - begun,
            )
        )
        return response

    async def Restore(self, request: pb.RestoreRequest, context: grpc.aio.ServicerContext) -> pb.RestoreResponse:
        texts = self._texts(request.segments)
        vault = self._vault(request.vault)
        if request.decrypt:
            self._decrypt(texts, vault)
        json_text = messages.is_json(request.format)

        def restore_all() -> list[Restored]:
            reader = reader_of(vault)
            return [restore(text, reader, json_text=json_text) for text in texts]

        # Not by the pool: restoring needs no recognizers, and answers also while they are being loaded.
        restored = await asyncio.to_thread(restore_all) if _is_long(texts, vault) else restore_all()
        count = sum(one.replaced for one in restored)
        RESTORED.inc(count)
        return pb.RestoreResponse(
            segments=[
                pb.TextSegment(segment_id=segment.segment_id, text=one.text)
                for segment, one in zip(request.segments, restored, strict=True)
            ],
            restored_count=count,
        )

    def _decrypt(self, texts: Sequence[str], vault: Vault) -> None:
        """Encrypted tokens of the caller's tenant come into the vault."""
        keys = self._toolbox.keys(current().tenant_id)
        if keys is None:
            raise PreconditionFailed(
                "this service has no key to decrypt with; set SLUICE_REDACTION_KEY_FILE", reason="NO_KEY"
            )
        for text in texts:
            for token, value, kind in decrypted_in(text, keys):
                vault.adopt(Entry(token, value, kind, Operation.ENCRYPT))

    async def RedactStream(
        self, requests: AsyncIterator[pb.RedactStreamRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.RedactStreamResponse]:
        begun = time.perf_counter()
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("event") != "open":
            raise InvalidInput("the first message of a stream must be `open`", field="open")
        opening = first.open
        direction = messages.direction_of(opening.direction) or Direction.OUTPUT
        policy = self._policy(opening.policy_id, opening.language).toward(direction)
        vault = self._vault(opening.vault)
        opened = partial(
            RedactingStream,
            policy,
            vault,
            restoring=opening.restore,
            json_text=messages.is_json(opening.format),
            tools=self._tools(policy),
        )
        stream = await asyncio.to_thread(opened) if _is_long((), vault) else opened()
        holding = Holding()
        try:
            async for text in self._released(self._pieces(requests, stream), stream, holding):
                holding.released(time.perf_counter())
                yield pb.RedactStreamResponse(text=text)
            yield pb.RedactStreamResponse(finished=messages.finished(stream, policy, holding))
        finally:
            # Also for a caller that went away: what was found until then was found.
            outgoing = direction is Direction.OUTPUT
            await self._record(_stream_summary(stream, policy, outgoing, holding, time.perf_counter() - begun))

    async def _released(
        self, pieces: AsyncIterator[str], stream: RedactingStream, holding: Holding
    ) -> AsyncIterator[str]:
        """The filtered text, as soon as it is decided; never empty."""
        async for piece in pieces:
            holding.received(time.perf_counter())
            stream.push(piece)
            while stream.has_work():
                if text := (await self._workers.run(stream.step)).text:
                    yield text
            holding.held(stream.held_characters)
        while stream.has_work(final=True):
            if text := (await self._workers.run(lambda detector: stream.step(detector, final=True))).text:
                yield text
        if rest := stream.finish().text:
            yield rest

    async def ListRecognizers(
        self, request: pb.ListRecognizersRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListRecognizersResponse:
        return messages.listing(self._workers.recognizers, self._policy(request.policy_id, ""))

    async def _findings(self, texts: Sequence[str], policy: Policy, replacing: Replacing) -> list[list[Finding]]:
        """Findings of each text. At most two texts of a call are analysed at once, so that no call fills the queue."""
        turn = asyncio.Semaphore(2)

        async def one(text: str) -> list[Finding]:
            async with turn:
                return await self._detect(text, SegmentedDetection(policy, WHOLE_TEXT, own_tokens=replacing.own_tokens))

        try:
            with ANALYSIS_SECONDS.time():
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(text)) for text in texts]
        except ExceptionGroup as several:
            # The first is why the others were cancelled, and it is the one that has a status.
            raise several.exceptions[0] from None
        found = [task.result() for task in tasks]
        if chains(texts):
            own = replacing.own_tokens
            return await self._workers.run(lambda one: across(texts, found, one, policy, own_tokens=own))
        return found

    async def _detect(self, text: str, detection: SegmentedDetection) -> list[Finding]:
        """A worker's turn for every segment, so that a long text does not keep the others waiting."""
        detection.push(text)
        findings: list[Finding] = []
        offset = 0
        while detection.has_work(final=True):
            segment = await self._workers.run(lambda detector: detection.step(detector, final=True))
            if segment is not None:
                findings.extend(finding.shifted(offset) for finding in segment.findings)
                offset += len(segment.text)
        return findings

    async def _pieces(
        self, requests: AsyncIterator[pb.RedactStreamRequest], stream: RedactingStream
    ) -> AsyncIterator[str]:
        """The text of a stream in short pieces, until `end` or until the caller closes its half."""
        async for request in requests:
            match request.WhichOneof("event"):
                case "text":
                    total = stream.characters + len(request.text)
                    if total > self._limits.stream_characters:
                        raise InvalidInput(
                            f"the stream has more than {self._limits.stream_characters} characters; split the text",
                            field="text",
                            reason="STREAM_TOO_LONG",
                        )
                    for start in range(0, len(request.text), _PIECE):
                        yield request.text[start : start + _PIECE]
                case "end":
                    return
                case "open":
                    raise InvalidInput("`open` may be sent once only, as the first message", field="open")

    async def _record(self, summary: Summary) -> None:
        direction = "output" if summary.outgoing else "input"
        CHARACTERS.labels(direction).inc(summary.characters)
        for kind, count in summary.counts.items():
            # A value of the caller's vault has the kind that the caller gives it: no label for each.
            known = kind in KINDS or kind in summary.policy.custom_kinds
            FINDINGS.labels(kind if known else "OTHER", direction).inc(count)
        if summary.streamed:
            HELD_BACK_CHARACTERS.observe(summary.held_back)
            RESTORED.inc(summary.restored)
            if summary.first_text_seconds is not None:
                ADDED_TIME_TO_FIRST_TOKEN.observe(summary.first_text_seconds)
        await self._journal.text_redacted(summary)

    def _policy(self, policy_id: str, language: str) -> Policy:
        """Raises NotFound: for a policy of another tenant too."""
        try:
            policy = self._policies().find(policy_id, tenant=current().tenant_id)
        except NoSuchPolicy as error:
            raise NotFound(str(error), field="policy_id", reason="NO_SUCH_POLICY") from None
        if language and language not in policy.languages:
            raise InvalidInput(
                f"policy {policy.id} is for {', '.join(policy.languages)}; leave language empty or give one of them",
                field="language",
            )
        return policy

    def _tools(self, policy: Policy) -> Tools:
        context = current()
        return self._toolbox.tools(policy, tenant=context.tenant_id, request_id=context.request_id)

    def _texts(self, segments: Sequence[pb.TextSegment]) -> list[str]:
        limits = self._limits
        if len(segments) > limits.texts:
            raise InvalidInput(
                f"{len(segments)} texts were sent; {limits.texts} are allowed in one call", field="segments"
            )
        if len({segment.segment_id for segment in segments}) < len(segments):
            raise InvalidInput("two texts have the same segment_id; each must be unique in the call", field="segments")
        texts = [segment.text for segment in segments]
        characters = sum(map(len, texts))
        if characters > limits.characters:
            raise InvalidInput(
                f"the texts have {characters} characters; {limits.characters} are allowed in one call",
                field="segments",
                reason="TEXT_TOO_LONG",
            )
        return texts

    def _vault(self, message: pb.Vault) -> Vault:
        if len(message.entries) > self._limits.vault_entries:
            raise InvalidInput(
                f"the vault has {len(message.entries)} entries; {self._limits.vault_entries} are allowed",
                field="vault.entries",
            )
        try:
            return messages.vault_from(message)
        except ValueError as mistake:
            raise InvalidInput(str(mistake), field="vault.entries") from None


def _is_long(texts: Sequence[str], vault: Vault) -> bool:
    """Whether even a look at every word and every entry would keep an event loop busy."""
    return len(vault) > _MANY_ENTRIES or sum(map(len, texts)) > _MANY_CHARACTERS


def _stream_summary(
    stream: RedactingStream, policy: Policy, outgoing: bool, holding: Holding, latency_seconds: float
) -> Summary:
    return Summary(
        policy,
        outgoing=outgoing,
        streamed=True,
        counts=stream.counts,
        recognizer_counts=stream.recognizer_counts,
        operator_counts=stream.operator_counts,
        segments=1,
        characters=stream.characters,
        latency_seconds=latency_seconds,
        restored=stream.restored,
        held_back=holding.most_characters,
        first_text_seconds=holding.first_text_seconds,
    )
