"""The cost service, over gRPC: what stands over a caller, leases, holds."""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc.aio import AioRpcError
from prometheus_client import Counter, Histogram
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.cost.v1 import cost_service_pb2_grpc as rpc
from sluice.types.v1 import money_pb2
from sluice_kit import context
from sluice_kit.errors import SluiceError, from_rpc_error
from sluice_kit.events import new_event_id
from sluice_kit.telemetry import logger

from sluice_gateway.adapters.tokens import usage_message
from sluice_gateway.domain.budgets import BudgetsAway, Caller, Grant, Reservation, Standing
from sluice_gateway.domain.chat import Usage
from sluice_gateway.domain.pricing import Price
from sluice_gateway.domain.rejection import Kind, Rejection
from sluice_gateway.domain.size import Size

log = logger(__name__)
CALLS = Counter("sluice_gateway_budget_calls_total", "Calls to the cost service.", ["call", "result"])
RESERVE_SECONDS = Histogram(
    "sluice_gateway_reserve_seconds",
    "Time requests that fit no lease waited for a hold.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
WRONG_BOUNDS = Counter(
    "sluice_gateway_wrong_bounds_total",
    "Requests that cost more than their worst case: the constants of domain/size.py are too small for a model.",
    ["model"],
)
NANO_PER_UNIT = 10**9
# Longer holds and leases are refused.
MOST_SECONDS = 86_400
# What a wrong answer must not do: make the gateway ask at every request.
LEAST_SECONDS = 1.0
# Where the cost service does not say when a window ends.
RETRY_SECONDS = 60.0
Answer = TypeVar("Answer")


class GrpcBudgets:
    """Fits `Budgets`. No call waits longer than `timeout` seconds, the first question about a caller than `first_timeout`.

    A cost service that is not there is told at once in either case: only one that is slow, as all are while a mesh starts on a
    busy machine, is waited for.
    """

    def __init__(self, channel: grpc.aio.Channel, *, holder: str, timeout: float, first_timeout: float) -> None:
        self._stub = rpc.CostServiceStub(channel)
        self._holder, self._timeout, self._first_timeout = holder, timeout, first_timeout

    async def ask(self, caller: Caller, *, seconds: float, is_first: bool = False) -> Standing:
        request = self._lease_request(caller, new_event_id(), seconds)
        timeout = self._first_timeout if is_first else self._timeout
        try:
            answer = await self._call("ask", caller, self._stub.AcquireLease, request, timeout=timeout)
        except _NoBudgets:
            return Standing(seconds, unbudgeted=True)
        return Standing(
            _lifetime(answer, seconds),
            unbudgeted=answer.unbudgeted,
            per_subject=answer.per_subject,
            price=_price(answer.price) if answer.HasField("price") else None,
            available=answer.available.nano_units if answer.HasField("available") else None,
        )

    async def lease(self, caller: Caller, lease_id: str, *, amount: int, currency: str, seconds: float) -> Grant:
        request = self._lease_request(caller, lease_id, seconds)
        request.amount.CopyFrom(money_pb2.Money(currency_code=currency, nano_units=amount))
        answer = await self._call("lease", caller, self._stub.AcquireLease, request)
        if answer.unbudgeted or (answer.HasField("price") and answer.price.currency_code != currency):
            return Grant(0, seconds)
        price = _price(answer.price) if answer.HasField("price") else None
        return Grant(answer.amount.nano_units, _lifetime(answer, seconds), price)

    async def give_back(self, caller: Caller, lease_id: str, *, spent: int, currency: str) -> None:
        money = money_pb2.Money(currency_code=currency, nano_units=spent)
        request = pb.ReturnLeaseRequest(lease_id=lease_id, spent=money)
        with suppress(_NotKnown):
            await self._call("give_back", caller, self._stub.ReturnLease, request)

    async def reserve(self, caller: Caller, request_id: str, size: Size, *, seconds: float) -> Reservation:
        request = pb.ReserveRequest(
            request_id=request_id,
            model=caller.model,
            served_model=caller.target,
            prompt_tokens=size.prompt_tokens,
            max_output_tokens=size.output_tokens,
            min_output_tokens=size.least_output_tokens,
            api_key_id=caller.api_key_id,
            expires_after=_duration(seconds),
        )
        with RESERVE_SECONDS.time():
            try:
                answer = await self._call("reserve", caller, self._stub.Reserve, request)
            except _NoBudgets:
                return Reservation("", size.output_tokens)
        if answer.unbudgeted:
            return Reservation("", size.output_tokens)
        return Reservation(answer.hold_id, min(answer.output_tokens, size.output_tokens))

    async def settle(self, caller: Caller, request_id: str, usage: Usage | None, served_model: str) -> None:
        request = pb.SettleRequest(request_id=request_id, usage=usage_message(usage), served_model=served_model)
        with suppress(_NotKnown):
            await self._call("settle", caller, self._stub.Settle, request)

    def _lease_request(self, caller: Caller, lease_id: str, seconds: float) -> pb.AcquireLeaseRequest:
        return pb.AcquireLeaseRequest(
            lease_id=lease_id,
            holder=self._holder,
            model=caller.model,
            served_model=caller.target,
            api_key_id=caller.api_key_id,
            expires_after=_duration(seconds),
        )

    async def _call(
        self,
        name: str,
        caller: Caller,
        method: Callable[..., Awaitable[Answer]],
        request: object,
        *,
        timeout: float | None = None,
    ) -> Answer:
        here = context.RequestContext(
            request_id=context.current().request_id or context.new_request_id(),
            tenant_id=caller.tenant_id,
            project_id=caller.project_id,
            subject_id=caller.subject_id,
            traceparent=context.current().traceparent,
        )
        try:
            with context.use(here):
                call = method(request, timeout=timeout or self._timeout)
            answer = await call
        except AioRpcError as error:
            CALLS.labels(name, error.code().name.lower()).inc()
            raise _failure(error) from None
        CALLS.labels(name, "ok").inc()
        return answer


class _NotKnown(BudgetsAway):
    """There is no such hold or lease: nothing is counted for it, which is all that ending it is for."""


class _NoBudgets(BudgetsAway):
    """A cost service from before there were budgets."""


_CANNOT_HOLD = {
    "MODEL_UNPRICED": "nobody knows what this model costs",
    "CURRENCY_NOT_BUDGETED": "this model is priced in another currency",
    "CURRENCIES_MIXED": "this model is priced in several currencies",
}


def _failure(error: AioRpcError) -> Exception:
    told = from_rpc_error(error)
    match error.code():
        case grpc.StatusCode.RESOURCE_EXHAUSTED if told.reason == "BUDGET_EXHAUSTED":
            return _exhausted(told)
        case grpc.StatusCode.FAILED_PRECONDITION if told.reason in _CANNOT_HOLD:
            message = (
                f"A budget stands over you, and {_CANNOT_HOLD[told.reason]}; use another model, or ask an operator."
            )
            return Rejection(Kind.UNSUPPORTED, message, reason=told.reason, field="model")
        case grpc.StatusCode.NOT_FOUND if told.reason == "HOLD_NOT_FOUND":
            return _NotKnown()
        case grpc.StatusCode.UNIMPLEMENTED:
            return _NoBudgets()
    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        log.warning("budgets.refused", code=error.code().name, reason=told.reason)
    return BudgetsAway(error.code().name)


def _exhausted(told: SluiceError) -> Rejection:
    return Rejection(
        Kind.EXHAUSTED,
        "What this request may cost is more than what the budgets over its caller have left.",
        reason="BUDGET_EXHAUSTED",
        metadata={key: told.metadata[key] for key in ("budget_id",) if key in told.metadata},
        retry_after_seconds=told.retry_after_seconds or RETRY_SECONDS,
    )


def _lifetime(answer: pb.AcquireLeaseResponse, asked: float) -> float:
    """Seconds the answer holds, counted from before it was asked for: no clock but ours must be right for that."""
    if not answer.HasField("expires_at"):
        return asked
    told = answer.expires_at.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    return max(min(told.total_seconds(), asked), LEAST_SECONDS)


def _price(price: pb.Price) -> Price:
    uncached = _nano(price.input_per_million)
    output = _nano(price.output_per_million)
    return Price(
        currency=price.currency_code,
        uncached_input=uncached,
        cached_input=_nano(price.cached_input_per_million, uncached),
        cache_write=_nano(price.cache_write_per_million, uncached),
        output=output,
        reasoning=_nano(price.reasoning_per_million, output),
        per_request=_nano(price.per_request),
        minimum=_nano(price.minimum),
    )


def _nano(text: str, absent: int = 0) -> int:
    return int((Decimal(text) * NANO_PER_UNIT).to_integral_value(rounding=ROUND_HALF_EVEN)) if text else absent


def _duration(seconds: float) -> Duration:
    return Duration(seconds=min(math.ceil(seconds), MOST_SECONDS))
