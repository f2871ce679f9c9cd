"""The redaction service, over gRPC."""

from collections.abc import Iterable, Sequence
from functools import partial

import grpc
from grpc.aio import AioRpcError
from sluice.redaction.v1 import redaction_service_pb2 as pb
from sluice.redaction.v1 import redaction_service_pb2_grpc as rpc
from sluice.types.v1 import personal_data_pb2, verdict_pb2

from sluice_gateway.adapters import failures
from sluice_gateway.adapters.streams import Duplex
from sluice_gateway.domain.completion import KindCount
from sluice_gateway.domain.neighbours import Redaction, RedactionEnd
from sluice_gateway.domain.segments import Segment

_failure = partial(failures.of_filter, "redaction")


class GrpcRedactor:
    """Fits `Redactor`; the vault it hands out is the service's own message."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = rpc.RedactionServiceStub(channel)

    async def redact(
        self, segments: Sequence[Segment], *, policy: str, timeout: float, vault: object = None
    ) -> Redaction:
        # What comes with a vault has been to the model and is to be captured: kinds of either direction are taken out.
        before_the_model = _vault(vault) is None
        request = pb.RedactRequest(
            segments=[pb.TextSegment(segment_id=segment.id, text=segment.text) for segment in segments],
            policy_id=policy,
            vault=_vault(vault),
            direction=verdict_pb2.DIRECTION_INPUT if before_the_model else verdict_pb2.DIRECTION_UNSPECIFIED,
        )
        try:
            response = await self._stub.Redact(request, timeout=timeout)
        except AioRpcError as error:
            raise _failure(error) from None
        return Redaction(
            texts=tuple(segment.text for segment in response.segments),
            vault=response.vault,
            counts=_counts(response.counts),
            policy=f"{response.policy_id}@{response.policy_version}" if response.policy_id else "",
        )

    def stream(self, *, policy: str, vault: object, timeout: float, as_json: bool) -> "GrpcRedactionStream":
        call = self._stub.RedactStream(timeout=timeout)  # type: ignore[call-arg]
        opening = pb.RedactStreamOpen(
            policy_id=policy,
            direction=verdict_pb2.DIRECTION_OUTPUT,
            vault=_vault(vault),
            restore=True,
            format=pb.TEXT_FORMAT_JSON if as_json else pb.TEXT_FORMAT_PLAIN,
        )
        return GrpcRedactionStream(Duplex("redaction", call, pb.RedactStreamRequest(open=opening), _failure))


class GrpcRedactionStream:
    """Fits `RedactionStream`."""

    def __init__(self, duplex: "Duplex[pb.RedactStreamRequest, pb.RedactStreamResponse]") -> None:
        self._duplex = duplex
        self.cancel = duplex.cancel

    async def send(self, text: str) -> None:
        await self._duplex.write(pb.RedactStreamRequest(text=text))

    async def finish(self) -> None:
        await self._duplex.write(pb.RedactStreamRequest(end=pb.RedactStreamEnd()))
        await self._duplex.half_close()

    async def receive(self) -> str | RedactionEnd:
        response = await self._duplex.read()
        if response.HasField("finished"):
            return RedactionEnd(_counts(response.finished.counts))
        return response.text


def _vault(vault: object) -> pb.Vault | None:
    return vault if isinstance(vault, pb.Vault) else None


def _counts(counts: Iterable[personal_data_pb2.KindCount]) -> tuple[KindCount, ...]:
    return tuple(KindCount(found.kind, found.count) for found in counts)
