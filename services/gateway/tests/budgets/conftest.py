"""A cost service in memory, over real gRPC, whose every call can be counted, refused, delayed or left unanswered."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest_asyncio
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.cost.v1 import cost_service_pb2_grpc as rpc
from sluice.types.v1 import money_pb2
from sluice_gateway.adapters.budgets import GrpcBudgets
from sluice_gateway.domain.purse import Purse, PurseLimits
from sluice_kit.channel import connect
from sluice_kit.errors import PreconditionFailed, ResourceExhausted
from sluice_kit.events import new_event_id
from sluice_kit.interceptor import CallInterceptor
from sluice_kit.settings import MeshSettings, settings_config

NANO = 10**9
MILLION = 1_000_000


class _Settings(MeshSettings):
    model_config = settings_config("gateway")


@dataclass
class Till(rpc.CostServiceServicer):
    """One budget over everybody. Prices are nano-units a token; a hold or lease counts in full until it is ended."""

    limit: int = 0
    budgeted: bool = True
    per_subject: bool = False
    input_price: int = 0
    output_price: int = 0
    per_request: int = 0
    unpriced: bool = False
    away: bool = False
    silent: bool = False
    slow: asyncio.Event | None = None
    seconds: float = 60.0
    retry_after_seconds: float = 3600
    holds: dict[str, int] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    settled: dict[str, pb.SettleRequest] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    most_counted: int = 0

    @property
    def available(self) -> int:
        return self.limit - sum(self.holds.values()) - sum(self.leases.values())

    def _set(self, kept: dict[str, int], name: str, amount: int) -> None:
        kept[name] = amount
        self.most_counted = max(self.most_counted, self.limit - self.available)

    async def _begin(self, name: str, context: grpc.aio.ServicerContext) -> None:
        self.metadata.append(dict(context.invocation_metadata() or ()))
        if self.silent:
            await asyncio.Event().wait()
        if self.slow is not None:
            await self.slow.wait()
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        self.calls.append(name)
        if self.unpriced:
            raise PreconditionFailed("no price", reason="MODEL_UNPRICED")

    async def AcquireLease(self, request, context):  # type: ignore[no-untyped-def]
        await self._begin("lease" if request.amount.nano_units else "ask", context)
        answer = pb.AcquireLeaseResponse(lease_id=request.lease_id, per_subject=self.per_subject)
        answer.expires_at.FromNanoseconds(int((time.time() + self.seconds) * NANO))
        if not self.budgeted:
            answer.unbudgeted = True
            return answer
        if amount := min(request.amount.nano_units, self.available):
            self._set(self.leases, request.lease_id, amount)
        answer.amount.CopyFrom(_money(amount))
        answer.available.CopyFrom(_money(self.available))
        answer.price.CopyFrom(self._price())
        return answer

    def _price(self) -> pb.Price:
        return pb.Price(
            currency_code="USD",
            input_per_million=str(self.input_price * MILLION / NANO),
            output_per_million=str(self.output_price * MILLION / NANO),
            per_request=str(self.per_request / NANO),
        )

    async def Reserve(self, request, context):  # type: ignore[no-untyped-def]
        await self._begin("reserve", context)
        if not self.budgeted:
            return pb.ReserveResponse(unbudgeted=True)
        base = self.per_request + request.prompt_tokens * self.input_price
        least = request.min_output_tokens or request.max_output_tokens
        tokens = request.max_output_tokens
        if self.output_price:
            tokens = min(tokens, (self.available - base) // self.output_price)
        if tokens < least or base > self.available:
            raise ResourceExhausted("spent", reason="BUDGET_EXHAUSTED", retry_after_seconds=self.retry_after_seconds)
        self._set(self.holds, request.request_id, base + tokens * self.output_price)
        return pb.ReserveResponse(hold_id="hold-" + request.request_id, output_tokens=tokens)

    async def Settle(self, request, context):  # type: ignore[no-untyped-def]
        await self._begin("settle", context)
        self.settled[request.request_id] = request
        if request.request_id in self.holds:
            self.holds[request.request_id] = self.cost_of(request.usage)
        return pb.SettleResponse()

    async def ReturnLease(self, request, context):  # type: ignore[no-untyped-def]
        await self._begin("give_back", context)
        if request.lease_id in self.leases:
            assert request.spent.nano_units <= self.leases[request.lease_id]
            self.leases[request.lease_id] = request.spent.nano_units
        return pb.ReturnLeaseResponse()

    def cost_of(self, usage: Any) -> int:
        """What the ledger charges for so many tokens."""
        inputs = usage.uncached_input_tokens + usage.cached_input_tokens
        if not inputs + usage.output_tokens:
            return 0
        return self.per_request + inputs * self.input_price + usage.output_tokens * self.output_price


def _money(nano_units: int) -> money_pb2.Money:
    return money_pb2.Money(currency_code="USD", nano_units=nano_units)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_till() -> AsyncIterator[tuple[Till, Any]]:
    till = Till()
    server = grpc.aio.server(interceptors=[CallInterceptor()])
    rpc.add_CostServiceServicer_to_server(till, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = connect(f"127.0.0.1:{port}", _Settings())
    yield till, channel
    await channel.close()
    await server.stop(0)


@pytest_asyncio.fixture(loop_scope="module")
async def till(running_till: tuple[Till, Any], mesh: Any, new_purse: Any) -> AsyncIterator[Till]:
    """The cost service of the running mesh, as new; what is held is given back in the end."""
    till, _ = running_till
    till.__init__()  # type: ignore[misc]
    before, mesh.gateway._purse = mesh.gateway._purse, new_purse()
    yield till
    till.away = till.silent = False
    await mesh.gateway._purse.close(seconds=2)
    mesh.gateway._purse = before


@pytest_asyncio.fixture(loop_scope="module")
async def new_purse(running_till: tuple[Till, Any]) -> Any:
    """Makes a purse on that cost service, as a gateway's start does."""
    _, channel = running_till

    def make(**options: Any) -> Purse:
        limits = PurseLimits(**options.pop("limits", {}))
        timeout = options.pop("timeout", 2.0)
        first = options.pop("first_timeout", timeout)
        budgets = GrpcBudgets(channel, holder="sluice-gateway/0", timeout=timeout, first_timeout=first)
        return Purse(budgets, limits=limits, new_id=new_event_id, clock=options.pop("clock", time.monotonic), **options)

    return make
