"""The proof of the ledger and the pricing of the past anew, over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime

import grpc
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_kit import context
from sluice_kit.errors import InvalidInput, PermissionDenied, PreconditionFailed, Unavailable

from sluice_cost.adapters.cost_events import as_money, chain_name
from sluice_cost.api.reading import moment
from sluice_cost.domain.chain import Break, ChainVerifier, Head, Verification
from sluice_cost.domain.corrections import OtherPlan, Recomputation, Recomputer, Scope, largest_first
from sluice_cost.domain.ledger import LedgerUnavailable, Partition

_MOST_PUBLISHED = 100_000


class LedgerMethods:
    """VerifyLedger and Recompute."""

    _verifier: ChainVerifier
    _recomputer: Recomputer
    _clock: Callable[[], datetime]

    async def VerifyLedger(
        self, request: pb.VerifyLedgerRequest, _: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.VerifyLedgerResponse]:
        """Walks the chains."""
        _operators_only("The ledger is verified")
        published = _published(request.published)
        reports = _Reports(asyncio.get_running_loop())
        walk = asyncio.create_task(self._verifier.verify(published, reports.put))
        walk.add_done_callback(lambda _: reports.end())
        try:
            while (rows := await reports.get()) is not None:
                yield pb.VerifyLedgerResponse(row_count=rows)
            yield _verified(await walk)
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        finally:
            reports.caller_left = True

    async def Recompute(self, request: pb.RecomputeRequest, _: grpc.aio.ServicerContext) -> pb.RecomputeResponse:
        """Plans or enters corrections."""
        _operators_only("The past is priced anew")
        scope, approved_by = _scope(request), request.approved_by.strip()
        if not request.dry_run and (not 0 < len(approved_by) <= 200 or "\0" in approved_by):
            raise InvalidInput("Say who signs the corrections off, in 1 to 200 characters.", field="approved_by")
        try:
            if request.dry_run:
                return _recomputed(await self._recomputer.plan(scope))
            found = await self._recomputer.correct(
                scope, approved_by=approved_by, plan_digest=request.plan_digest, recorded_at=self._clock()
            )
        except OtherPlan:
            raise PreconditionFailed(
                "The differences are no longer those of plan_digest: look at them again with dry_run."
            ) from None
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None
        return _recomputed(found)


class _CallerLeft(Exception):
    """Nobody waits for the walk any more."""


class _Reports:
    """Carries the number of rows walked from the walking thread to the call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: asyncio.Queue[int | None] = asyncio.Queue()
        self.caller_left = False

    def put(self, rows: int) -> None:
        """From the thread; ends the walk when the caller is gone."""
        if self.caller_left:
            raise _CallerLeft
        self._loop.call_soon_threadsafe(self._queue.put_nowait, rows)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def get(self) -> int | None:
        """None after the last."""
        return await self._queue.get()


def _operators_only(what: str) -> None:
    if context.current().tenant_id:
        raise PermissionDenied(f"{what} by operators, not on behalf of a tenant.")


def _published(heads: Sequence[pb.ChainHead]) -> Mapping[Partition, Sequence[Head]]:
    if len(heads) > _MOST_PUBLISHED:
        raise InvalidInput(f"At most {_MOST_PUBLISHED} heads can be compared at once.", field="published")
    known: dict[Partition, list[Head]] = {}
    for i, head in enumerate(heads):
        topic, _, number = head.chain.rpartition("/")
        try:
            hash_ = bytes.fromhex(head.hash)
        except ValueError:
            hash_ = b""
        if not topic or not number.isdecimal() or len(hash_) != 32 or not head.row_count:
            raise InvalidInput(
                "A head is a chain (topic/partition), its number of rows and 64 hexadecimal digits.",
                field=f"published[{i}]",
            )
        known.setdefault(Partition(topic, int(number)), []).append(Head(head.row_count, hash_))
    return known


def _verified(found: Verification) -> pb.VerifyLedgerResponse:
    return pb.VerifyLedgerResponse(
        row_count=found.rows,
        finished=True,
        broken=_break(found.broken) if found.broken else None,
        heads=_heads(found.heads.items()),
        sums_agree=found.sums_agree,
    )


def _break(broken: Break) -> pb.LedgerBreak:
    return pb.LedgerBreak(
        chain=chain_name(broken.chain),
        row_number=broken.number,
        entry_id=broken.entry_id or 0,
        event_id=broken.event_id,
        reason=broken.reason,
    )


def _heads(heads: Iterable[tuple[Partition, Head]]) -> list[pb.ChainHead]:
    told = [pb.ChainHead(chain=chain_name(chain), row_count=head.number, hash=head.hash.hex()) for chain, head in heads]
    return sorted(told, key=lambda head: head.chain)


def _scope(request: pb.RecomputeRequest) -> Scope:
    if not request.HasField("from") or not request.HasField("until"):
        raise InvalidInput("Name the time, from and until.", field="from")
    scope = Scope(moment(getattr(request, "from"), "from"), moment(request.until, "until"), request.model)
    if scope.start > scope.end:
        raise InvalidInput("from must not be after until.", field="from")
    return scope


def _recomputed(found: Recomputation) -> pb.RecomputeResponse:
    return pb.RecomputeResponse(
        row_count=found.rows,
        correction_count=found.corrections,
        plan_digest=found.digest,
        groups=[
            pb.RecomputeGroup(
                tenant_id=tenant_id,
                model=model,
                correction_count=group.corrections,
                before=as_money(group.before, currency),
                after=as_money(group.after, currency),
            )
            for (tenant_id, model, currency), group in largest_first(found.groups)
        ],
    )
