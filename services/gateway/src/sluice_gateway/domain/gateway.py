"""The recipe of one request: admit, check, guard, route, answer, tell. All four routes are this one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from sluice_gateway.domain import validation
from sluice_gateway.domain.admission import Admission
from sluice_gateway.domain.answer import HEAD_CHARACTERS, is_empty, is_refusal
from sluice_gateway.domain.api_key import ApiKey
from sluice_gateway.domain.chat import ChatRequest, EmbedRequest, FinishReason, Role, Usage, Vectors
from sluice_gateway.domain.completion import OUTCOME_OF, Completion, Operation, Outcome
from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.configuration import Configuration, ContentCapture, Deployment, Task, Tenant
from sluice_gateway.domain.lenient import LenientStream
from sluice_gateway.domain.neighbours import (
    ModelEnd,
    ModerationStream,
    Neighbours,
    Redaction,
    RedactionEnd,
    RedactionStream,
)
from sluice_gateway.domain.rejection import FilterUnavailable, Kind, Rejection, internal, invalid
from sluice_gateway.domain.relay import Audience, Relay, together
from sluice_gateway.domain.segments import Segment, can_be_cut, segments_of, with_texts
from sluice_gateway.domain.subject import pseudonym
from sluice_gateway.domain.verdict import Decision, Verdict

# Text of an event is cut here: an event must stay far below the broker's message limit (1 MB).
CAPTURE_CHARACTERS = 32_000
# A failure this close to the deadline is the deadline's: neighbours were given the same one.
DEADLINE_SLACK_SECONDS = 0.01


class ChatAudience(Audience, Protocol):
    """Gets the answer's text while it comes, and how it ended."""

    def begin(self, request: ChatRequest, completion: Completion) -> None:
        """The filters let the request pass; text may come now."""

    async def end(self, completion: Completion) -> None:
        """The answer is whole (or cut by a filter), and its completion is already durable."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, once the key was found."""

    key: ApiKey
    tenant: Tenant


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of a request before its body is read. Times are clock seconds."""

    request_id: str
    door: Door
    arrived_at: float
    deadline: float
    streamed: bool = False


class Gateway:
    """Serves requests. Holds no request's text beyond the request."""

    def __init__(
        self,
        neighbours: Neighbours,
        *,
        configuration: Callable[[], Configuration],
        admission: Admission,
        bounds: validation.Bounds,
        subject_key: bytes,
        filter_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._neighbours = neighbours
        self._configuration = configuration
        self._admission = admission
        self._bounds = bounds
        self._subject_key = subject_key
        self._filter_timeout = filter_timeout
        self._clock = clock
        self._untold = 0

    def authenticate(self, credential: str) -> Identity:
        """Raises Rejection (unauthenticated) for a key that is missing, malformed, unknown, wrong or disabled."""
        configuration = self._configuration()
        key = configuration.keyring.find(credential)
        if key is None:
            message = "The API key is not valid." if credential else "An API key is needed: Authorization: Bearer <key>"
            raise Rejection(Kind.UNAUTHENTICATED, message, reason="INVALID_API_KEY")
        return Identity(key, configuration.tenants[key.tenant_id])

    def deployments(self) -> list[Deployment]:
        """All models a caller may use, by alias."""
        return sorted(self._configuration().deployments.values(), key=lambda deployment: deployment.alias)

    @property
    def models_created_at(self) -> float:
        """When the models were configured, in Unix seconds."""
        return self._configuration().created_at

    def subject_of(self, identity: Identity, user: str) -> str:
        """The pseudonym of the person a request is for."""
        return pseudonym(self._subject_key, identity.tenant.id, user)

    async def chat(
        self, arrival: Arrival, identity: Identity, read: Callable[[], Awaitable[ChatRequest]], audience: ChatAudience
    ) -> None:
        """Answer a conversation. `read` takes the request off the wire. Raises Rejection; always publishes once."""
        self._neighbours.events.check_room()
        completion = _begin(arrival, identity, Operation.CHAT)
        async with self._told(completion, arrival):
            with self._admission.admit(identity.tenant):
                request = await read()
                completion.streamed = request.streamed
                completion.subject_id = self.subject_of(identity, request.user)
                await self._answer(request, identity.tenant, arrival, completion, audience)
        await audience.end(completion)

    async def embed(
        self, arrival: Arrival, identity: Identity, read: Callable[[], Awaitable[EmbedRequest]]
    ) -> tuple[Vectors, Completion]:
        """Vectors of guarded texts. Raises Rejection; always publishes once."""
        self._neighbours.events.check_room()
        completion = _begin(arrival, identity, Operation.EMBED)
        async with self._told(completion, arrival):
            with self._admission.admit(identity.tenant):
                request = await read()
                completion.subject_id = self.subject_of(identity, request.user)
                vectors = await self._embed(request, identity.tenant, arrival, completion)
        return vectors, completion

    @asynccontextmanager
    async def _told(self, completion: Completion, arrival: Arrival) -> AsyncIterator[None]:
        """Run the block until the deadline, and publish how it ended: once, whatever happens.

        The completion is durable before the caller gets the last frame, so a gateway that is killed has either
        told of an answer or not finished giving it.
        """
        limit = asyncio.timeout(max(arrival.deadline - self._clock(), 0.0))
        self._untold += 1
        try:
            async with limit:
                yield
        except (Exception, asyncio.CancelledError) as error:
            rejection = self._why(error, late=limit.expired() or self._is_late(arrival))
            completion.outcome, completion.reason = OUTCOME_OF[rejection.kind], rejection.reason
            completion.rejection = rejection.kind
            with suppress(Rejection):  # the caller is told why the request failed, not that its event did too
                await self._publish(completion)
            if isinstance(error, asyncio.CancelledError):
                raise
            if rejection is error:
                raise
            raise rejection from error
        await self._publish(completion)

    def _is_late(self, arrival: Arrival) -> bool:
        return self._clock() >= arrival.deadline - DEADLINE_SLACK_SECONDS

    def _why(self, error: BaseException, *, late: bool) -> Rejection:
        if isinstance(error, Rejection) and error.kind not in (Kind.UNAVAILABLE, Kind.INTERNAL, Kind.CANCELLED):
            return error
        if late:
            return Rejection(Kind.DEADLINE, "The deadline passed before the answer was whole.", reason="DEADLINE")
        if isinstance(error, asyncio.CancelledError):
            return Rejection(Kind.CANCELLED, "The caller went away.", reason="CALLER_GONE")
        return error if isinstance(error, Rejection) else internal()

    async def _publish(self, completion: Completion) -> None:
        completion.ended_at = self._clock()
        telling = asyncio.ensure_future(self._neighbours.events.completed(completion))
        telling.add_done_callback(self._count_told)
        # A task of its own under a shield: a cancellation that arrives now must neither lose nor double the event.
        await asyncio.shield(telling)

    def _count_told(self, _: object) -> None:
        self._untold -= 1

    async def all_told(self, seconds: float) -> bool:
        """Wait until every request that began has its event, at most so long. False when some have not."""
        deadline = self._clock() + seconds
        while self._untold and self._clock() < deadline:
            await asyncio.sleep(0.01)
        return not self._untold

    async def _answer(
        self, request: ChatRequest, tenant: Tenant, arrival: Arrival, completion: Completion, audience: ChatAudience
    ) -> None:
        deployment = self._route(request.model, Task.CHAT, completion)
        validation.check_chat(request, self._bounds)
        most = validation.tokens_allowed(
            request.stopping.max_tokens, deployment.max_output_tokens, tenant.limits.max_tokens
        )
        request = replace(request, stopping=replace(request.stopping, max_tokens=most))
        completion.message_count = len(request.messages)
        redaction = await self._guard(segments_of(request), tenant, arrival, completion)
        guarded = _guarded(request, redaction)
        audience.begin(request, completion)
        completion.generation_began_at = self._clock()
        relay = Relay(
            self._neighbours.model.generate(
                guarded, target=deployment.target, request_id=arrival.request_id, timeout=self._left(arrival)
            ),
            self._moderation_stream(tenant, arrival, completion),
            self._redaction_stream(tenant, arrival, completion, redaction, as_json=_answers_json(request)),
            completion=completion,
            filter_timeout=self._filter_timeout,
            clock=self._clock,
            may_skip=tenant.fail_open,
        )
        try:
            end = await relay.run(audience)
        except BaseException:
            if completion.served_model:  # the model had begun, so something was used
                completion.usage = _estimate(guarded, relay.tokens_seen)
            raise
        _conclude(completion, end, relay, guarded)
        await self._capture(guarded, relay, redaction, tenant, arrival, completion)

    async def _embed(self, request: EmbedRequest, tenant: Tenant, arrival: Arrival, completion: Completion) -> Vectors:
        deployment = self._route(request.model, Task.EMBED, completion)
        validation.check_embed(request, self._bounds)
        segments = tuple(Segment(f"input[{i}]", text) for i, text in enumerate(request.texts))
        redaction = await self._guard(segments, tenant, arrival, completion)
        completion.generation_began_at = self._clock()
        vectors = await self._neighbours.model.embed(
            replace(request, texts=redaction.texts), target=deployment.target, timeout=self._left(arrival)
        )
        completion.generation_ended_at = self._clock()
        completion.served_model, completion.usage = vectors.model, vectors.usage
        completion.outcome, completion.finish_reason = Outcome.COMPLETED, FinishReason.STOP
        return vectors

    def _route(self, alias: str, task: Task, completion: Completion) -> Deployment:
        deployment = self._configuration().deployment(alias, task)
        if deployment is None:
            raise Rejection(
                Kind.NOT_FOUND,
                f"There is no such model for this ({task.value}); GET /v1/models or ListModels tells which there are.",
                reason="MODEL_NOT_FOUND",
                field="model",
            )
        completion.model, completion.route = deployment.alias, deployment.route
        return deployment

    async def _guard(
        self, segments: tuple[Segment, ...], tenant: Tenant, arrival: Arrival, completion: Completion
    ) -> Redaction:
        """Redact and judge all texts at once. Raises Rejection when they are blocked or a filter is away."""
        validation.check_size((segment.text for segment in segments), self._bounds)
        completion.input_characters = sum(len(segment.text) for segment in segments)
        began_at = self._clock()
        timeout = min(self._filter_timeout, self._left(arrival))
        try:
            async with together() as group:
                judging = group.create_task(self._moderate(segments, tenant, timeout, completion))
                redaction = await self._redact(segments, tenant, timeout, completion)
            verdict = judging.result()
            completion.note_input(verdict)
            _refuse_withheld(verdict, completion)
            if verdict.decision is Decision.REDACT:
                # The sentences are gone, and with them offsets and placeholders: redaction looks at what is left.
                left = min(self._filter_timeout, self._left(arrival))
                redaction = await self._redact(_cut(segments, verdict, completion), tenant, left, completion)
        finally:
            completion.input_filter_seconds = self._clock() - began_at
        completion.redacted_input = redaction.counts
        return redaction

    async def _moderate(
        self, segments: tuple[Segment, ...], tenant: Tenant, timeout: float, completion: Completion
    ) -> Verdict:
        try:
            verdict = await self._neighbours.moderator.moderate(
                segments, policy=tenant.moderation_policy, timeout=timeout, fail_closed=not tenant.fail_open
            )
        except FilterUnavailable:
            if not tenant.fail_open:
                raise
            completion.skip("moderation")
            return Verdict(decision_id="")
        if verdict.is_unchecked:
            if not tenant.fail_open:
                raise FilterUnavailable("moderation", "not_checked")
            completion.skip("moderation")
        return verdict

    async def _redact(
        self, segments: tuple[Segment, ...], tenant: Tenant, timeout: float, completion: Completion
    ) -> Redaction:
        try:
            redaction = await self._neighbours.redactor.redact(
                segments, policy=tenant.redaction_policy, timeout=timeout
            )
        except FilterUnavailable:
            if not tenant.fail_open:
                raise
            completion.skip("redaction")
            return Redaction(tuple(segment.text for segment in segments))
        if len(redaction.texts) != len(segments):
            raise FilterUnavailable("redaction", "wrong_number_of_texts")
        return redaction

    def _moderation_stream(self, tenant: Tenant, arrival: Arrival, completion: Completion) -> ModerationStream:
        stream = self._neighbours.moderator.stream(
            policy=tenant.moderation_policy, timeout=self._left(arrival), fail_closed=not tenant.fail_open
        )
        if not tenant.fail_open:
            return stream
        return LenientStream(
            stream, end_if_skipped=Verdict(decision_id=""), on_skip=lambda: completion.skip("moderation")
        )

    def _redaction_stream(
        self, tenant: Tenant, arrival: Arrival, completion: Completion, redaction: Redaction, *, as_json: bool
    ) -> RedactionStream:
        stream = self._neighbours.redactor.stream(
            policy=tenant.redaction_policy, vault=redaction.vault, timeout=self._left(arrival), as_json=as_json
        )
        if not tenant.fail_open:
            return stream
        return LenientStream(stream, end_if_skipped=RedactionEnd(), on_skip=lambda: completion.skip("redaction"))

    async def _capture(
        self,
        guarded: ChatRequest,
        relay: Relay,
        redaction: Redaction,
        tenant: Tenant,
        arrival: Arrival,
        completion: Completion,
    ) -> None:
        """Put redacted text into the event, where the tenant wants it and redaction really ran both ways.

        The judged text still has placeholders for the caller's values, but the model may have made up personal data of
        its own, or have written a value of the caller's that it never saw ("Paris"): either way it is redacted once
        more, whole, before it is cut. Capture is no reason to fail: without redaction there is no text.
        """
        if tenant.content_capture is not ContentCapture.REDACTED or "redaction" in completion.skipped_filters:
            return
        answer = "".join(relay.judged)
        if answer and (completion.redacted_input or completion.redacted_output):
            try:
                again = await self._neighbours.redactor.redact(
                    (Segment("answer", answer),),
                    policy=tenant.redaction_policy,
                    timeout=min(self._filter_timeout, self._left(arrival)),
                    vault=redaction.vault,
                )
            except Rejection:
                return
            answer = again.texts[0]
        last = next((m.content for m in reversed(guarded.messages) if m.role is Role.USER), "")
        completion.redacted_prompt = last[:CAPTURE_CHARACTERS]
        completion.redacted_answer = answer[:CAPTURE_CHARACTERS]

    def _left(self, arrival: Arrival) -> float:
        return max(arrival.deadline - self._clock(), 0.001)


def _begin(arrival: Arrival, identity: Identity, operation: Operation) -> Completion:
    return Completion(
        operation=operation,
        protocol=arrival.door,
        arrived_at=arrival.arrived_at,
        api_key_id=identity.key.id,
        tenant_id=identity.tenant.id,
        project_id=identity.key.project_id,
        streamed=arrival.streamed,
    )


def _answers_json(request: ChatRequest) -> bool:
    """Whether restored values stand inside JSON strings and must be escaped."""
    return request.guide is not None and request.guide.kind in ("json_object", "json_schema")


def _refuse_withheld(verdict: Verdict, completion: Completion) -> None:
    if not verdict.is_withheld:
        return
    if verdict.is_unjudged:
        raise FilterUnavailable("moderation", verdict.unmade)
    completion.finish_reason = FinishReason.CONTENT_FILTER
    done = "is held until a person has looked at it" if verdict.decision is Decision.HOLD else "was blocked"
    raise _withheld(verdict, f"The request {done} by policy {verdict.policy} for {_named(verdict)}", verdict.reason)


def _cut(segments: tuple[Segment, ...], verdict: Verdict, completion: Completion) -> tuple[Segment, ...]:
    """The segments with moderation's replacements in the place of their texts. Raises Rejection for what cannot be cut."""
    if not verdict.replaced or not verdict.replaced.keys() <= {segment.id for segment in segments}:
        raise FilterUnavailable("moderation", "no_replacement")
    whole = sorted(name for name in verdict.replaced if not can_be_cut(name))
    if whole:
        completion.finish_reason = FinishReason.CONTENT_FILTER
        completion.blocked_categories, completion.withheld_reason = verdict.categories, "CONTENT_BLOCKED"
        message = (
            f"Policy {verdict.policy} takes sentences out for {_named(verdict)}, which {whole[0]} would not survive"
        )
        raise _withheld(verdict, message, "CONTENT_BLOCKED")
    return tuple(replace(segment, text=verdict.replaced.get(segment.id, segment.text)) for segment in segments)


def _named(verdict: Verdict) -> str:
    return ", ".join(verdict.categories) or "its content"


def _withheld(verdict: Verdict, message: str, reason: str) -> Rejection:
    return Rejection(
        Kind.BLOCKED,
        f"{message}; decision {verdict.decision_id} can be explained.",
        reason=reason,
        metadata={
            "decision_id": verdict.decision_id,
            "categories": ",".join(verdict.categories),
            "policy": verdict.policy,
        },
    )


def _guarded(request: ChatRequest, redaction: Redaction) -> ChatRequest:
    """The request as the model may see it."""
    guarded = with_texts(request, redaction.texts)
    if guarded.guide and guarded.guide.kind == "json_schema" and guarded.guide != request.guide:
        # A placeholder fits into a JSON string, but not where a bare number stood.
        try:
            validation.check_json("response_format", guarded.guide.texts[0])
        except Rejection:
            raise invalid(
                "response_format", "Personal data stands in the JSON schema outside of a string; take it out."
            ) from None
    return guarded


def _conclude(completion: Completion, end: ModelEnd, relay: Relay, guarded: ChatRequest) -> None:
    blocked = end.finish_reason is FinishReason.CONTENT_FILTER
    completion.outcome = Outcome.BLOCKED_OUTPUT if blocked else Outcome.COMPLETED
    completion.reason = completion.withheld_reason
    completion.finish_reason = end.finish_reason
    completion.usage = end.usage or _estimate(guarded, relay.tokens_seen)
    if not blocked:
        head = _head(relay.judged)
        completion.refusal, completion.empty_answer = is_refusal(head), is_empty(head)


def _head(pieces: list[str]) -> str:
    head = ""
    for piece in pieces:
        head += piece
        if len(head) >= HEAD_CHARACTERS and not is_empty(head):
            break
    return head


def _estimate(request: ChatRequest, tokens_seen: int) -> Usage:
    """What was used when the model was stopped before it said so: four characters a token, as English has."""
    characters = sum(len(segment.text) for segment in segments_of(request))
    return Usage(uncached_input_tokens=-(-characters // 4), output_tokens=tokens_seen, estimated=True)
