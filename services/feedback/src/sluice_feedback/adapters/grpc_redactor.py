"""Has texts redacted by the redaction service."""

import grpc
from sluice.redaction.v1 import redaction_service_pb2 as pb
from sluice.redaction.v1 import redaction_service_pb2_grpc as pb_grpc

from sluice_feedback.domain.feedback import RedactionUnavailable

_SEGMENT = "feedback"


class GrpcRedactor:
    """Fits domain.feedback.Redactor. The vault of the answer is dropped: nobody can restore what was taken out."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float) -> None:
        self._stub = pb_grpc.RedactionServiceStub(channel)
        self._timeout_seconds = timeout_seconds

    async def redact(self, text: str) -> str:
        """Raises RedactionUnavailable for every failure: text that was not redacted goes nowhere."""
        request = pb.RedactRequest(segments=[pb.TextSegment(segment_id=_SEGMENT, text=text)])
        try:
            response = await self._stub.Redact(request, timeout=self._timeout_seconds)
        except grpc.RpcError as error:
            # The status text is left out: it is somebody else's, and may quote the request.
            raise RedactionUnavailable(str(error.code().name)) from None
        if [segment.segment_id for segment in response.segments] != [_SEGMENT]:
            raise RedactionUnavailable("malformed answer")
        return response.segments[0].text
