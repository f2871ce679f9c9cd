"""The moderation service, over gRPC."""

from collections.abc import Mapping, Sequence
from functools import partial

import grpc
from grpc.aio import AioRpcError
from sluice.moderation.v1 import moderation_service_pb2 as pb
from sluice.moderation.v1 import moderation_service_pb2_grpc as rpc
from sluice.types.v1 import verdict_pb2

from sluice_gateway.adapters import failures
from sluice_gateway.adapters.streams import Duplex
from sluice_gateway.domain.rejection import FilterUnavailable
from sluice_gateway.domain.segments import Segment
from sluice_gateway.domain.verdict import Decision, Verdict

_DECISIONS: Mapping[int, Decision] = {
    verdict_pb2.ACTION_ALLOW: Decision.ALLOW,
    verdict_pb2.ACTION_FLAG: Decision.FLAG,
    verdict_pb2.ACTION_REDACT: Decision.REDACT,
    verdict_pb2.ACTION_HOLD: Decision.HOLD,
    verdict_pb2.ACTION_BLOCK: Decision.BLOCK,
    verdict_pb2.ACTION_SKIPPED: Decision.SKIPPED,
}
_UNMADE = frozenset({"detector_error", "detector_unavailable", "deadline"})
_failure = partial(failures.of_filter, "moderation")


class GrpcModerator:
    """Fits `Moderator`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = rpc.ModerationServiceStub(channel)

    async def moderate(self, segments: Sequence[Segment], *, policy: str, timeout: float, fail_closed: bool) -> Verdict:
        request = pb.ModerateRequest(
            segments=[pb.ModeratedText(segment_id=s.id, text=s.text, writer=s.writer) for s in segments],
            direction=verdict_pb2.DIRECTION_INPUT,
            policy_id=policy,
            fail_closed=fail_closed,
        )
        try:
            response = await self._stub.Moderate(request, timeout=timeout)
        except AioRpcError as error:
            raise _failure(error) from None
        return _verdict(response.verdict, {segment.segment_id: segment.text for segment in response.replaced_segments})

    def stream(self, *, policy: str, timeout: float, fail_closed: bool) -> "GrpcModerationStream":
        call = self._stub.ModerateStream(timeout=timeout)  # type: ignore[call-arg]
        opening = pb.ModerateStreamOpen(
            direction=verdict_pb2.DIRECTION_OUTPUT, policy_id=policy, fail_closed=fail_closed
        )
        return GrpcModerationStream(Duplex("moderation", call, pb.ModerateStreamRequest(open=opening), _failure))


class GrpcModerationStream:
    """Fits `ModerationStream`."""

    def __init__(self, duplex: "Duplex[pb.ModerateStreamRequest, pb.ModerateStreamResponse]") -> None:
        self._duplex = duplex
        self.cancel = duplex.cancel

    async def send(self, text: str) -> None:
        await self._duplex.write(pb.ModerateStreamRequest(text=text))

    async def finish(self) -> None:
        await self._duplex.write(pb.ModerateStreamRequest(end=pb.ModerateStreamEnd()))
        await self._duplex.half_close()

    async def receive(self) -> str | Verdict:
        response = await self._duplex.read()
        if response.HasField("verdict"):
            return _verdict(response.verdict)
        return response.text


def _verdict(verdict: verdict_pb2.Verdict, replaced: Mapping[str, str] | None = None) -> Verdict:
    """Raises FilterUnavailable for an action that is not known here: it is no leave to pass."""
    decision = _DECISIONS.get(verdict.action)
    if decision is None:
        raise FilterUnavailable("moderation", "no_verdict")
    categories = tuple(
        score.category for score in verdict.scores if score.score >= score.threshold and score.action == verdict.action
    )
    unmade = next((check.reason for check in verdict.skipped if check.reason in _UNMADE), "")
    return Verdict(
        decision_id=verdict.decision_id,
        decision=decision,
        categories=categories,
        unmade=unmade,
        policy=f"{verdict.policy_id}@{verdict.policy_version}",
        replaced=replaced or {},
    )
