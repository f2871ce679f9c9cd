"""The FOCUS export, over gRPC."""

from typing import Any

import grpc
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_kit.errors import Unimplemented


class FocusMethods:
    """ExportFocus."""

    async def ExportFocus(self, request: pb.ExportFocusRequest, _: grpc.aio.ServicerContext) -> Any:
        raise Unimplemented("ExportFocus is not served yet: this version exports nothing.")
        yield  # a stream, though an empty one
