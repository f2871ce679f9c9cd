"""The filters round the model: what goes in is redacted and judged, what comes out streams through both."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from sluice_gateway.domain import validation
from sluice_gateway.domain.arrival import Arrival
from sluice_gateway.domain.chat import ChatRequest, FinishReason, Role
from sluice_gateway.domain.completion import Completion
from sluice_gateway.domain.configuration import ContentCapture, Tenant
from sluice_gateway.domain.lenient import LenientStream
from sluice_gateway.domain.neighbours import (
    ModerationStream,
    Moderator,
    Redaction,
    RedactionEnd,
    RedactionStream,
    Redactor,
)
from sluice_gateway.domain.rejection import FilterUnavailable, Kind, Rejection, invalid
from sluice_gateway.domain.relay import together
from sluice_gateway.domain.segments import Segment, can_be_cut, with_texts
from sluice_gateway.domain.verdict import Decision, Verdict

# Text of an event is cut here: an event must stay far below the broker's message limit (1 MB).
CAPTURE_CHARACTERS = 32_000


class Guard:
    """Both filters, and what their absence means for a tenant."""

    def __init__(
        self,
        moderator: Moderator,
        redactor: Redactor,
        *,
        bounds: validation.Bounds,
        filter_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._moderator, self._redactor = moderator, redactor
        self._bounds, self._clock = bounds, clock
        self.filter_timeout = filter_timeout

    async def check(
        self, segments: tuple[Segment, ...], tenant: Tenant, arrival: Arrival, completion: Completion
    ) -> Redaction:
        """Redact and judge all texts at once. Raises Rejection when they are blocked or a filter is away."""
        validation.check_size((segment.text for segment in segments), self._bounds)
        completion.input_characters = sum(len(segment.text) for segment in segments)
        began_at = self._clock()
        timeout = min(self.filter_timeout, arrival.seconds_left(self._clock()))
        try:
            async with together() as group:
                judging = group.create_task(self._moderate(segments, tenant, timeout, completion))
                redaction = await self._redact(segments, tenant, timeout, completion)
            verdict = judging.result()
            completion.note_input(verdict)
            _refuse_withheld(verdict, completion)
            if verdict.decision is Decision.REDACT:
                # The sentences are gone, and with them offsets and placeholders: redaction looks at what is left.
                left = min(self.filter_timeout, arrival.seconds_left(self._clock()))
                redaction = await self._redact(_cut(segments, verdict, completion), tenant, left, completion)
        finally:
            completion.input_filter_seconds = self._clock() - began_at
        completion.redacted_input, completion.redaction_policy = redaction.counts, redaction.policy
        return redaction

    async def _moderate(
        self, segments: tuple[Segment, ...], tenant: Tenant, timeout: float, completion: Completion
    ) -> Verdict:
        try:
            verdict = await self._moderator.moderate(
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
            redaction = await self._redactor.redact(segments, policy=tenant.redaction_policy, timeout=timeout)
        except FilterUnavailable:
            if not tenant.fail_open:
                raise
            completion.skip("redaction")
            return Redaction(tuple(segment.text for segment in segments))
        if len(redaction.texts) != len(segments):
            raise FilterUnavailable("redaction", "wrong_number_of_texts")
        return redaction

    def moderation_stream(self, tenant: Tenant, arrival: Arrival, completion: Completion) -> ModerationStream:
        stream = self._moderator.stream(
            policy=tenant.moderation_policy,
            timeout=arrival.seconds_left(self._clock()),
            fail_closed=not tenant.fail_open,
        )
        if not tenant.fail_open:
            return stream
        return LenientStream(
            stream, end_if_skipped=Verdict(decision_id=""), on_skip=lambda: completion.skip("moderation")
        )

    def redaction_stream(
        self, tenant: Tenant, arrival: Arrival, completion: Completion, redaction: Redaction, *, as_json: bool
    ) -> RedactionStream:
        stream = self._redactor.stream(
            policy=tenant.redaction_policy,
            vault=redaction.vault,
            timeout=arrival.seconds_left(self._clock()),
            as_json=as_json,
        )
        if not tenant.fail_open:
            return stream
        return LenientStream(stream, end_if_skipped=RedactionEnd(), on_skip=lambda: completion.skip("redaction"))

    async def capture(
        self,
        guarded: ChatRequest,
        judged: Sequence[str],
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
        if tenant.content_capture is not ContentCapture.REDACTED:
            return
        if guarded.capture_declined:
            completion.text_left_out = "CALLER_DECLINED"
            return
        if "redaction" in completion.skipped_filters:
            completion.text_left_out = "NOT_REDACTED"
            return
        answer = "".join(judged)
        if answer and (completion.redacted_input or completion.redacted_output):
            try:
                again = await self._redactor.redact(
                    (Segment("answer", answer),),
                    policy=tenant.redaction_policy,
                    timeout=min(self.filter_timeout, arrival.seconds_left(self._clock())),
                    vault=redaction.vault,
                )
            except Rejection:
                completion.text_left_out = "NOT_REDACTED"
                return
            answer = again.texts[0]
        last = next((m.content for m in reversed(guarded.messages) if m.role is Role.USER), "")
        completion.redacted_prompt = last[:CAPTURE_CHARACTERS]
        completion.redacted_answer = answer[:CAPTURE_CHARACTERS]


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


def guarded(request: ChatRequest, redaction: Redaction) -> ChatRequest:
    """The request as the model may see it."""
    redacted = with_texts(request, redaction.texts)
    if redacted.guide and redacted.guide.kind == "json_schema" and redacted.guide != request.guide:
        # A placeholder fits into a JSON string, but not where a bare number stood.
        try:
            validation.check_json("response_format", redacted.guide.texts[0])
        except Rejection:
            raise invalid(
                "response_format", "Personal data stands in the JSON schema outside of a string; take it out."
            ) from None
    return redacted
