"""Budgets, holds and leases, over gRPC."""

import grpc
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice_kit.errors import Unimplemented


class BudgetMethods:
    """Reserve, Settle, Extend, AcquireLease, ReturnLease, PutBudget, ListBudgets, GetBudget."""

    async def Reserve(self, request: pb.ReserveRequest, _: grpc.aio.ServicerContext) -> pb.ReserveResponse:
        raise _not_yet("Reserve")

    async def Settle(self, request: pb.SettleRequest, _: grpc.aio.ServicerContext) -> pb.SettleResponse:
        raise _not_yet("Settle")

    async def Extend(self, request: pb.ExtendRequest, _: grpc.aio.ServicerContext) -> pb.ExtendResponse:
        raise _not_yet("Extend")

    async def AcquireLease(
        self, request: pb.AcquireLeaseRequest, _: grpc.aio.ServicerContext
    ) -> pb.AcquireLeaseResponse:
        raise _not_yet("AcquireLease")

    async def ReturnLease(self, request: pb.ReturnLeaseRequest, _: grpc.aio.ServicerContext) -> pb.ReturnLeaseResponse:
        raise _not_yet("ReturnLease")

    async def PutBudget(self, request: pb.PutBudgetRequest, _: grpc.aio.ServicerContext) -> pb.PutBudgetResponse:
        raise _not_yet("PutBudget")

    async def ListBudgets(self, request: pb.ListBudgetsRequest, _: grpc.aio.ServicerContext) -> pb.ListBudgetsResponse:
        raise _not_yet("ListBudgets")

    async def GetBudget(self, request: pb.GetBudgetRequest, _: grpc.aio.ServicerContext) -> pb.GetBudgetResponse:
        raise _not_yet("GetBudget")


def _not_yet(rpc: str) -> Unimplemented:
    return Unimplemented(f"{rpc} is not served yet: this version keeps no budgets and no holds.")
