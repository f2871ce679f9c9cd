"""Asks a service of the mesh over gRPC, and tells in the words of a page when there is no answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from sluice_kit import context

from sluice_console.domain.answers import Away, NotThere

_SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One service, as it is told of and waited for."""

    name: str
    keeps: str
    """What people miss when it is away, such as `the ledger`."""
    seconds: float

    async def ask(self, method: Any, request: Any, *, tenant: str = "") -> Any:
        """The answer to a question asked for one tenant, or for all. Raises Away, and NotThere for NOT_FOUND."""
        try:
            return await method(request, timeout=self.seconds, metadata=on_behalf_of(tenant))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise NotThere from None
            raise self.away(error) from None

    def away(self, error: grpc.aio.AioRpcError) -> Away:
        """What a failed call is on a page. A neighbour's own words are told only where it says what is wrong with the question."""
        code = error.code()
        if code in _SILENT:
            return Away(self.name, f"{self.name}, which keeps {self.keeps}, does not answer.")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Away(self.name, f"{self.name} has too many readers; try again in a minute.")
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            return Away(self.name, f"{self.name} refused the question: {error.details()}")
        return Away(self.name, f"{self.name} refused the question ({code.name}).")


def on_behalf_of(tenant: str) -> tuple[tuple[str, str], ...]:
    """The header by which a service gives that tenant's answers only; none for who may see all."""
    return ((context.TENANT_ID, tenant),) if tenant else ()
