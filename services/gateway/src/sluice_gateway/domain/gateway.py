"""The recipe of one request: admit, check, guard, route, answer, tell. All four routes are this one."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

from sluice_gateway.domain import validation
from sluice_gateway.domain.admission import Admission
from sluice_gateway.domain.answer import LanguageDetector, judge
from sluice_gateway.domain.arrival import Arrival, Identity, begin
from sluice_gateway.domain.budgets import Caller
from sluice_gateway.domain.chat import ChatRequest, EmbedRequest, FinishReason, Usage, Vectors
from sluice_gateway.domain.cohorts import cohorts_of
from sluice_gateway.domain.completion import Completion, Operation, Outcome
from sluice_gateway.domain.configuration import Configuration, Deployment, Task, Tenant
from sluice_gateway.domain.guard import Guard
from sluice_gateway.domain.guard import guarded as guarded_request
from sluice_gateway.domain.neighbours import ModelEnd, Neighbours, Redaction
from sluice_gateway.domain.purse import Hold, Purse
from sluice_gateway.domain.rejection import Kind, Rejection
from sluice_gateway.domain.relay import Audience, Relay
from sluice_gateway.domain.segments import Segment, segments_of
from sluice_gateway.domain.size import Size, size_of_chat, size_of_embed
from sluice_gateway.domain.subject import pseudonym
from sluice_gateway.domain.telling import Telling
from sluice_gateway.domain.variants import allowed_variant


class ChatAudience(Audience, Protocol):
    """Gets the answer's text while it comes, and how it ended."""

    def begin(self, request: ChatRequest, completion: Completion) -> None:
        """The filters let the request pass; text may come now."""

    async def end(self, completion: Completion) -> None:
        """The answer is whole (or cut by a filter), and its completion is already durable."""


class Gateway:
    """Serves requests. Holds no request's text beyond the request."""

    def __init__(
        self,
        neighbours: Neighbours,
        *,
        configuration: Callable[[], Configuration],
        admission: Admission,
        purse: Purse,
        bounds: validation.Bounds,
        subject_key: bytes,
        filter_timeout: float,
        least_output_tokens: int,
        languages: LanguageDetector,
        clock: Callable[[], float],
    ) -> None:
        """`least_output_tokens`: shorter answers than that are refused and not cut, where budgets have too little left."""
        self._purse, self._least_output_tokens = purse, least_output_tokens
        self._model, self._languages = neighbours.model, languages
        self._guard = Guard(
            neighbours.moderator, neighbours.redactor, bounds=bounds, filter_timeout=filter_timeout, clock=clock
        )
        self._telling = Telling(neighbours.events, clock=clock)
        self._configuration = configuration
        self._admission = admission
        self._bounds = bounds
        self._subject_key = subject_key
        self._clock = clock

    def authenticate(self, credential: str) -> Identity:
        """Raises Rejection (unauthenticated) for a key that is missing, malformed, unknown, wrong or disabled."""
        configuration = self._configuration()
        key = configuration.keyring.find(credential)
        if key is None:
            message = "The API key is not valid." if credential else "An API key is needed: Authorization: Bearer <key>"
            raise Rejection(Kind.UNAUTHENTICATED, message, reason="INVALID_API_KEY")
        return Identity(key, configuration.tenants[key.tenant_id])

    def deployments(self, identity: Identity) -> list[Deployment]:
        """All models this caller may use, by alias."""
        configured = self._configuration().deployments.values()
        usable = [each for each in configured if identity.key.synthetic or not each.synthetic]
        return sorted(usable, key=lambda deployment: deployment.alias)

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
        self._telling.check_room()
        completion = begin(arrival, identity, Operation.CHAT)
        async with self._telling.told(completion, arrival):
            with self._admission.admit(identity.tenant, synthetic=identity.key.synthetic):
                request = await read()
                completion.streamed = request.streamed
                completion.subject_id = self.subject_of(identity, request.user)
                await self._answer(request, identity, arrival, completion, audience)
        await audience.end(completion)

    async def embed(
        self, arrival: Arrival, identity: Identity, read: Callable[[], Awaitable[EmbedRequest]]
    ) -> tuple[Vectors, Completion]:
        """Vectors of guarded texts. Raises Rejection; always publishes once."""
        self._telling.check_room()
        completion = begin(arrival, identity, Operation.EMBED)
        async with self._telling.told(completion, arrival):
            with self._admission.admit(identity.tenant, synthetic=identity.key.synthetic):
                request = await read()
                completion.subject_id = self.subject_of(identity, request.user)
                vectors = await self._embed(request, identity, arrival, completion)
        return vectors, completion

    async def all_told(self, seconds: float) -> bool:
        """Wait until every request that began has its event, at most so long. False when some have not."""
        return await self._telling.all_told(seconds)

    async def _answer(
        self, request: ChatRequest, identity: Identity, arrival: Arrival, completion: Completion, audience: ChatAudience
    ) -> None:
        tenant = identity.tenant
        completion.cohorts = cohorts_of(
            request.cohorts, identity.key.cohorts, allowed=tenant.cohorts, door=completion.protocol
        )
        completion.variant = allowed_variant(request.variant, tenant, door=completion.protocol)
        deployment = self._route(request.model, Task.CHAT, completion)
        validation.check_chat(request, self._bounds)
        most = validation.tokens_allowed(
            request.stopping.max_tokens,
            deployment.max_output_tokens,
            tenant.limits.max_tokens,
            identity.key.most_tokens(deployment.alias),
        )
        caller = self._expect(deployment, identity, completion)
        completion.message_count = len(request.messages)
        redaction = await self._guard.check(segments_of(request), tenant, arrival, completion)
        guarded = guarded_request(request, redaction)
        size = size_of_chat(guarded, output_tokens=most, least_output_tokens=self._least_output_tokens)
        async with self._held(caller, size, tenant, arrival, completion) as hold:
            guarded = _limited(guarded, hold.output_tokens)
            relay = await self._relay(guarded, redaction, deployment, tenant, arrival, completion, audience)
            completion.budget_limited = hold.is_limited and completion.finish_reason is FinishReason.LENGTH
        await self._guard.capture(guarded, relay.judged, redaction, tenant, arrival, completion)

    async def _relay(
        self,
        guarded: ChatRequest,
        redaction: Redaction,
        deployment: Deployment,
        tenant: Tenant,
        arrival: Arrival,
        completion: Completion,
        audience: ChatAudience,
    ) -> Relay:
        """Carry the model's answer to the caller, and note how it ended and what it used."""
        audience.begin(guarded, completion)
        completion.generation_began_at = self._clock()
        relay = Relay(
            self._model.generate(
                guarded,
                target=deployment.target,
                request_id=arrival.request_id,
                timeout=arrival.seconds_left(self._clock()),
                labels=completion.labels,
            ),
            self._guard.moderation_stream(tenant, arrival, completion),
            self._guard.redaction_stream(tenant, arrival, completion, redaction, as_json=_answers_json(guarded)),
            completion=completion,
            filter_timeout=self._guard.filter_timeout,
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
        if completion.outcome is Outcome.COMPLETED:
            judge(guarded, relay.judged, completion, self._languages)
        return relay

    async def _embed(
        self, request: EmbedRequest, identity: Identity, arrival: Arrival, completion: Completion
    ) -> Vectors:
        tenant = identity.tenant
        deployment = self._route(request.model, Task.EMBED, completion)
        validation.check_embed(request, self._bounds)
        caller = self._expect(deployment, identity, completion)
        segments = tuple(Segment(f"input[{i}]", text) for i, text in enumerate(request.texts))
        redaction = await self._guard.check(segments, tenant, arrival, completion)
        guarded = replace(request, texts=redaction.texts)
        async with self._held(caller, size_of_embed(guarded), tenant, arrival, completion):
            completion.generation_began_at = self._clock()
            vectors = await self._model.embed(
                guarded, target=deployment.target, timeout=arrival.seconds_left(self._clock())
            )
            completion.served_model, completion.usage = vectors.model, vectors.usage
        completion.generation_ended_at = self._clock()
        completion.outcome, completion.finish_reason = Outcome.COMPLETED, FinishReason.STOP
        return vectors

    def _expect(self, deployment: Deployment, identity: Identity, completion: Completion) -> Caller | None:
        """Whose budgets the request is on; none for a self-test, which nobody is charged for."""
        if identity.key.synthetic:
            return None
        caller = Caller(
            tenant_id=identity.tenant.id,
            project_id=identity.key.project_id,
            api_key_id=identity.key.id,
            model=deployment.alias,
            target=deployment.target,
            subject_id=completion.subject_id,
        )
        self._purse.expect(caller)
        return caller

    def _held(
        self, caller: Caller | None, size: Size, tenant: Tenant, arrival: Arrival, completion: Completion
    ) -> AbstractAsyncContextManager[Hold]:
        if caller is None:
            return nullcontext(Hold("", size.output_tokens))
        return self._purse.held(
            caller,
            size,
            completion,
            request_id=arrival.request_id,
            seconds=arrival.seconds_left(self._clock()),
            fail_open=tenant.budget_fail_open,
        )

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


def _limited(request: ChatRequest, output_tokens: int) -> ChatRequest:
    """The request with the bound that the model is held to: what is paid for, and no more."""
    least = request.stopping.min_tokens
    stopping = replace(
        request.stopping, max_tokens=output_tokens, min_tokens=None if least is None else min(least, output_tokens)
    )
    return replace(request, stopping=stopping)


def _answers_json(request: ChatRequest) -> bool:
    """Whether restored values stand inside JSON strings and must be escaped."""
    return request.guide is not None and request.guide.kind in ("json_object", "json_schema")


def _conclude(completion: Completion, end: ModelEnd, relay: Relay, guarded: ChatRequest) -> None:
    blocked = end.finish_reason is FinishReason.CONTENT_FILTER
    completion.outcome = Outcome.BLOCKED_OUTPUT if blocked else Outcome.COMPLETED
    completion.reason = completion.withheld_reason
    completion.finish_reason = end.finish_reason
    completion.usage = end.usage or _estimate(guarded, relay.tokens_seen)


def _estimate(request: ChatRequest, tokens_seen: int) -> Usage:
    """What was used when the model was stopped before it said so: four characters a token, as English has."""
    characters = sum(len(segment.text) for segment in segments_of(request))
    return Usage(uncached_input_tokens=-(-characters // 4), output_tokens=tokens_seen, estimated=True)
