"""Holds and leases, over gRPC."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_kit import context
from sluice_kit.errors import AlreadyExists, InvalidInput, NotFound, PreconditionFailed, ResourceExhausted, Unavailable

from sluice_cost.adapters.cost_events import as_money
from sluice_cost.adapters.moments import from_microseconds, to_microseconds
from sluice_cost.api.prices import price_message
from sluice_cost.domain.budget import Caller
from sluice_cost.domain.budget_rules import LARGEST_LIMIT_NANO
from sluice_cost.domain.holds import (
    BudgetExhausted,
    CurrenciesMixed,
    CurrencyNotBudgeted,
    Ended,
    ExtendOrder,
    HoldConflict,
    HoldDesk,
    HoldRefused,
    HoldUnknown,
    LeaseOrder,
    ModelUnpriced,
    Order,
    Reserved,
    ReserveOrder,
    ReturnOrder,
    SettleOrder,
)
from sluice_cost.domain.ledger import LedgerUnavailable
from sluice_cost.domain.price_book import is_currency
from sluice_cost.domain.usage import LARGEST_TOKEN_COUNT, TOKEN_BUCKETS, AbsurdUsage, Usage

_SECOND_US = 1_000_000
_HOLD_LASTS_US = 600 * _SECOND_US
_LEASE_LASTS_US = 60 * _SECOND_US
_LONGEST_US = 86_400 * _SECOND_US


class HoldMethods:
    """Reserve, Settle, Extend, AcquireLease, ReturnLease."""

    _holds: HoldDesk
    _clock: Callable[[], datetime]

    async def Reserve(self, request: pb.ReserveRequest, _: grpc.aio.ServicerContext) -> pb.ReserveResponse:
        """Holds the worst case of a request."""
        order = ReserveOrder(
            _caller(request.api_key_id),
            _id(request.request_id, "request_id"),
            _model(request.model),
            (request.served_model,) if request.served_model else (),
            _tokens(request.prompt_tokens, "prompt_tokens"),
            _tokens(request.max_output_tokens, "max_output_tokens"),
            _least(request),
            _lasts(request, absent=_HOLD_LASTS_US),
        )
        reserved: Reserved = await self._submit(order)
        hold = reserved.hold
        if hold is None:
            return pb.ReserveResponse(unbudgeted=True, output_tokens=request.max_output_tokens)
        return pb.ReserveResponse(
            hold_id=hold.hold_id,
            amount=as_money(hold.granted, hold.currency),
            expires_at=_stamp(hold.expires_at),
            output_tokens=hold.output_tokens,
            budget_ids=[key.budget_id for key in hold.accounts],
        )

    async def Settle(self, request: pb.SettleRequest, _: grpc.aio.ServicerContext) -> pb.SettleResponse:
        """Ends a hold."""
        usage = _usage(request.usage) if request.HasField("usage") else None
        order = SettleOrder(
            _tenant(), _id(request.request_id, "request_id"), usage, _short(request.served_model, "served_model")
        )
        ended: Ended = await self._submit(order)
        return pb.SettleResponse(
            amount=as_money(ended.amount, ended.currency), released=as_money(ended.released, ended.currency)
        )

    async def Extend(self, request: pb.ExtendRequest, _: grpc.aio.ServicerContext) -> pb.ExtendResponse:
        """Makes a hold larger."""
        order = ExtendOrder(
            _tenant(),
            _id(request.request_id, "request_id"),
            _tokens(request.additional_output_tokens, "additional_output_tokens"),
            _tokens(request.held_output_tokens, "held_output_tokens"),
        )
        hold: Any = (await self._submit(order)).hold
        return pb.ExtendResponse(amount=as_money(hold.granted, hold.currency), output_tokens=hold.output_tokens)

    async def AcquireLease(
        self, request: pb.AcquireLeaseRequest, _: grpc.aio.ServicerContext
    ) -> pb.AcquireLeaseResponse:
        """Takes a slice of the budgets over a caller, or only tells what stands over it."""
        order = LeaseOrder(
            _caller(request.api_key_id),
            _id(request.lease_id, "lease_id", longest=64),
            _short(request.holder, "holder", longest=128),
            _model(request.model),
            (request.served_model,) if request.served_model else (),
            _amount(request, "amount"),
            request.amount.currency_code,
            _lasts(request, absent=_LEASE_LASTS_US),
        )
        reserved: Reserved = await self._submit(order)
        ends = to_microseconds(self._clock()) + order.lasts
        answer = pb.AcquireLeaseResponse(
            lease_id=order.lease_id,
            per_subject=reserved.is_by_person,
            unbudgeted=reserved.price is None,
            expires_at=_stamp(reserved.hold.expires_at if reserved.hold else ends),
        )
        if reserved.price is not None:
            _fill_in(answer, reserved)
        return answer

    async def ReturnLease(self, request: pb.ReturnLeaseRequest, _: grpc.aio.ServicerContext) -> pb.ReturnLeaseResponse:
        """Gives a lease back."""
        lease_id = _id(request.lease_id, "lease_id", longest=64)
        order = ReturnOrder(_tenant(), lease_id, _amount(request, "spent") or 0, request.spent.currency_code)
        ended: Ended = await self._submit(order)
        return pb.ReturnLeaseResponse(released=as_money(ended.released, ended.currency))

    async def _submit(self, order: Order) -> Any:
        try:
            return await self._holds.submit(order)
        except BudgetExhausted as error:
            raise self._exhausted(error) from None
        except ModelUnpriced as error:
            raise _refused(error, "MODEL_UNPRICED", "put a price, or make the budget soft") from None
        except CurrencyNotBudgeted as error:
            raise _refused(error, "CURRENCY_NOT_BUDGETED", "put a budget in that currency") from None
        except CurrenciesMixed as error:
            raise _refused(error, "CURRENCIES_MIXED", "name amounts and prices in one currency") from None
        except HoldUnknown as error:
            raise NotFound(f"{error}.", reason="HOLD_NOT_FOUND") from None
        except HoldConflict as error:
            raise AlreadyExists(f"{error}.", reason="HOLD_CONFLICT") from None
        except LedgerUnavailable as error:
            raise Unavailable(str(error), retry_after_seconds=1) from None

    def _exhausted(self, error: BudgetExhausted) -> ResourceExhausted:
        seconds = max(error.retry_at - to_microseconds(self._clock()), _SECOND_US) / _SECOND_US
        return ResourceExhausted(
            f"{error}: ask for less, or try again later.",
            reason="BUDGET_EXHAUSTED",
            metadata={"budget_id": error.budget_id, "scope": error.scope.value},
            retry_after_seconds=seconds,
        )


def _refused(error: HoldRefused, reason: str, remedy: str) -> PreconditionFailed:
    return PreconditionFailed(f"{error}: {remedy}.", reason=reason)


def _fill_in(answer: pb.AcquireLeaseResponse, reserved: Reserved) -> None:
    assert reserved.price is not None
    currency, granted = reserved.price.currency, reserved.hold.granted if reserved.hold else 0
    answer.amount.CopyFrom(as_money(granted, currency))
    answer.price.CopyFrom(price_message(reserved.price))
    answer.budget_ids.extend(budget.budget_id for budget in reserved.held_in)
    # Soft budgets let everything through: as much as anybody may ask for is left.
    left = LARGEST_LIMIT_NANO if reserved.left is None else max(reserved.left, 0)
    answer.available.CopyFrom(as_money(left, currency))
    if reserved.retry_at is not None:
        answer.retry_at.CopyFrom(_stamp(reserved.retry_at))


def _tenant() -> str:
    tenant_id = context.current().tenant_id
    if not tenant_id:
        raise InvalidInput(
            "Holds are a tenant's: name it in the call's metadata (x-sluice-tenant-id).", field="tenant_id"
        )
    return _short(tenant_id, "tenant_id", longest=128)


def _caller(api_key_id: str) -> Caller:
    current = context.current()
    return Caller(
        _tenant(),
        _short(current.project_id, "project_id", longest=128),
        _short(api_key_id, "api_key_id", longest=128),
        _short(current.subject_id, "subject_id", longest=128),
    )


def _id(text: str, field: str, *, longest: int = 128) -> str:
    if not text:
        raise InvalidInput(f"{field} must be given.", field=field)
    return _short(text, field, longest=longest)


def _short(text: str, field: str, *, longest: int = 200) -> str:
    if len(text) > longest or "\0" in text:
        raise InvalidInput(f"{field} must have at most {longest} characters, and no NUL.", field=field)
    return text


def _model(model: str) -> str:
    return _id(model, "model", longest=200)


def _tokens(count: int, field: str) -> int:
    if count > LARGEST_TOKEN_COUNT:
        raise InvalidInput(f"{field} is {count}; it must be 0 to {LARGEST_TOKEN_COUNT}.", field=field)
    return count


def _least(request: pb.ReserveRequest) -> int:
    if request.min_output_tokens > request.max_output_tokens:
        raise InvalidInput("min_output_tokens must not be more than max_output_tokens.", field="min_output_tokens")
    return request.min_output_tokens or request.max_output_tokens


def _lasts(request: Any, *, absent: int) -> int:
    if not request.HasField("expires_after"):
        return absent
    duration: Duration = request.expires_after
    microseconds = duration.seconds * _SECOND_US + duration.nanos // 1000
    if not 0 < microseconds <= _LONGEST_US:
        raise InvalidInput("expires_after must be more than nothing and at most a day.", field="expires_after")
    return microseconds


def _amount(request: Any, field: str) -> int | None:
    if not request.HasField(field):
        return None
    money = getattr(request, field)
    if not 0 <= money.nano_units <= LARGEST_LIMIT_NANO or not (
        is_currency(money.currency_code) or not money.nano_units
    ):
        raise InvalidInput(f"{field} must be an amount of 0 or more with an ISO 4217 code such as USD.", field=field)
    return int(money.nano_units)


def _usage(usage: Any) -> Usage:
    try:
        return Usage(**{bucket: getattr(usage, bucket) for bucket in TOKEN_BUCKETS}, is_estimated=usage.estimated)
    except AbsurdUsage as error:
        raise InvalidInput(f"usage.{error}.", field="usage") from None


def _stamp(microseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(from_microseconds(microseconds))
    return stamp
