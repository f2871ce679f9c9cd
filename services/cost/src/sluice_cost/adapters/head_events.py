"""Tells the outside where the ledger's hash chains end, so that rows cut off later are missed."""

import asyncio
import contextlib
from collections.abc import Mapping
from uuid import UUID, uuid5

from sluice.events.v1 import cost_pb2
from sluice_kit.errors import SluiceError
from sluice_kit.process import describe
from sluice_kit.publisher import EventPublisher
from sluice_kit.telemetry import logger

from sluice_cost.adapters.cost_events import chain_name
from sluice_cost.domain.chain import ChainVerifier, Head
from sluice_cost.domain.ledger import LedgerUnavailable, Partition

log = logger(__name__)

# Fixed for ever: the same head has the same event id, whichever replica tells it.
_LEDGER_SEALED_NAMESPACE = UUID("0f1c0b3e-6f0e-5f0b-8a57-6b2f4c1f9f31")


def ledger_sealed(chain: Partition, head: Head) -> cost_pb2.LedgerSealed:
    """The event of a chain's end."""
    event = cost_pb2.LedgerSealed(chain=chain_name(chain), row_count=head.number, head_hash=head.hash.hex())
    event.metadata.event_id = str(uuid5(_LEDGER_SEALED_NAMESPACE, f"{event.chain}|{head.number}|{event.head_hash}"))
    return event


class HeadTeller:
    """Publishes the heads that moved, every so often and at the end."""

    def __init__(self, verifier: ChainVerifier, publisher: EventPublisher, *, every_seconds: float) -> None:
        self._verifier, self._publisher, self._every_seconds = verifier, publisher, every_seconds
        self._told: Mapping[Partition, Head] = {}

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._every_seconds)
            await self.tell()

    async def tell(self) -> None:
        """Publishes what moved since the last time."""
        try:
            heads = await self._verifier.heads()
            moved = [ledger_sealed(chain, head) for chain, head in heads.items() if self._told.get(chain) != head]
            await self._publisher.publish(*moved)
        except (LedgerUnavailable, SluiceError) as error:
            log.warning("cost.heads_wait", **describe(error))
        else:
            self._told = heads
