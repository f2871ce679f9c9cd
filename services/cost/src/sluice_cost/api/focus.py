"""The FOCUS export, over gRPC."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import grpc
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_kit import context
from sluice_kit.errors import InvalidInput, Unavailable

from sluice_cost.api.reading import moment
from sluice_cost.domain.focus import focus_rows
from sluice_cost.domain.ledger import EntryReader, LedgerUnavailable

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class FocusMethods:
    """ExportFocus."""

    _entries: EntryReader
    _clock: Callable[[], datetime]

    async def ExportFocus(
        self, request: pb.ExportFocusRequest, _: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ExportFocusResponse]:
        """Streams the rows by time. A caller with a tenant gets its own."""
        start = moment(getattr(request, "from"), "from") if request.HasField("from") else _BEGINNING
        end = moment(request.until, "until") if request.HasField("until") else self._clock() + timedelta(hours=1)
        if start > end:
            raise InvalidInput("from must not be after until.", field="from")
        try:
            async for page in self._entries.entries(start, end, tenant_id=context.current().tenant_id):
                for entry in page:
                    for columns in focus_rows(entry):
                        yield pb.ExportFocusResponse(columns=columns)
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
