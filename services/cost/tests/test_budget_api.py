"""Budgets, holds and leases over real gRPC: who may do what, what answers tell, and what errors say."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.cost.v1 import cost_service_pb2_grpc as pb_grpc
from sluice.types.v1 import money_pb2, usage_pb2
from sluice_cost.adapters import budget_tables
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.adapters.sql_holds import SqlHolds
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.api.budgets import BudgetMethods
from sluice_cost.api.holds import HoldMethods
from sluice_cost.domain.pricing import Price
from sluice_cost.settings import CostSettings
from sluice_kit.errors import SluiceError, from_rpc_error
from sluice_kit.server import GrpcServer
from sqlalchemy import update

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DIME = 100_000_000
ACME = (("x-sluice-tenant-id", "acme"), ("x-sluice-project-id", "shop"), ("x-sluice-subject-id", "anna"))


class Servicer(BudgetMethods, HoldMethods, pb_grpc.CostServiceServicer):
    """The methods under test, and no others."""

    def __init__(self, database: Database) -> None:
        self._clock = lambda: NOON
        self._budgets = SqlBudgets(database)
        grace = timedelta(hours=1)
        self._holds = SqlHolds(database, default_currency="USD", expired_grace=grace, clock=self._clock)


@pytest.fixture
async def stub(database: Database, make_price: Callable[..., Price], tmp_path: Any) -> AsyncIterator[Any]:
    price = make_price(reasoning=5_000_000_000)
    await SqlPrices(database, default_currency="USD").put(price, recorded_at=NOON)
    settings = CostSettings(home=tmp_path, grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=0)
    server = GrpcServer(service="cost", settings=settings)
    pb_grpc.add_CostServiceServicer_to_server(Servicer(database), server.grpc)
    await server.start(service_names=["sluice.cost.v1.CostService"])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield pb_grpc.CostServiceStub(channel)
    await server.stop()


def usd(nano_units: int) -> money_pb2.Money:
    return money_pb2.Money(currency_code="USD", nano_units=nano_units)


def budget(budget_id: str = "acme-day", **changes: Any) -> pb.PutBudgetRequest:
    values: dict[str, Any] = {
        "scope": pb.BUDGET_SCOPE_TENANT,
        "tenant_ids": ["acme"],
        "limit": usd(2 * DIME),
        "window": pb.BUDGET_WINDOW_DAY,
        "notify_percent": [80, 50],
        "approved_by": "finance",
    }
    return pb.PutBudgetRequest(budget=pb.Budget(budget_id=budget_id, **{**values, **changes}))


def reserve(number: int = 1, **changes: Any) -> pb.ReserveRequest:
    values: dict[str, Any] = {"model": "small", "max_output_tokens": 20_000, "api_key_id": "key-1"}
    return pb.ReserveRequest(request_id=f"request-{number}", **{**values, **changes})


async def refusal(call: Any) -> SluiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_budget_is_put_held_settled_and_told(stub: Any) -> None:
    put = (await stub.PutBudget(budget())).budget
    assert (put.version, list(put.notify_percent), put.enforcement) == (1, [50, 80], pb.BUDGET_ENFORCEMENT_HARD)
    hold = await stub.Reserve(reserve(), metadata=ACME)
    assert (hold.amount, hold.output_tokens, list(hold.budget_ids)) == (usd(DIME), 20_000, ["acme-day"])
    assert hold.expires_at.ToDatetime(tzinfo=UTC) == NOON + timedelta(minutes=10)
    standing = await stub.GetBudget(pb.GetBudgetRequest(budget_id="acme-day"))
    assert (standing.limit, standing.spent, standing.held) == (usd(2 * DIME), usd(0), usd(DIME))
    assert (standing.available, standing.budget) == (usd(DIME), put)
    assert standing.window_end.ToDatetime(tzinfo=UTC) == datetime(2026, 11, 25, tzinfo=UTC)
    usage = usage_pb2.TokenUsage(output_tokens=5_000)
    settled = await stub.Settle(
        pb.SettleRequest(request_id="request-1", usage=usage, served_model="small"), metadata=ACME
    )
    assert (settled.amount, settled.released) == (usd(DIME // 4), usd(DIME - DIME // 4))


async def test_without_a_budget_a_request_is_told_so(stub: Any) -> None:
    answer = await stub.Reserve(reserve(), metadata=ACME)
    assert (answer.unbudgeted, answer.hold_id, answer.output_tokens) == (True, "", 20_000)
    assert (await stub.AcquireLease(lease(), metadata=ACME)).unbudgeted


async def test_an_exhausted_budget_says_which_it_is_and_when_to_come_again_and_no_amounts(stub: Any) -> None:
    limits = {"limit": usd(DIME), "scope": pb.BUDGET_SCOPE_ORGANISATION, "scope_id": "holding"}
    await stub.PutBudget(budget("holding-day", **limits))
    await stub.Reserve(reserve(1), metadata=ACME)
    error = await refusal(stub.Reserve(reserve(2), metadata=ACME))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")
    assert error.metadata == {"budget_id": "holding-day", "scope": "organisation"}
    assert error.retry_after_seconds == 2  # only held: the request that runs may leave something
    assert not any(character.isdigit() for character in error.message)
    error = await refusal(stub.Reserve(reserve(3, max_output_tokens=30_000), metadata=ACME))
    assert error.retry_after_seconds == 12 * 3600  # more than there will be left today


async def test_what_cannot_be_held_says_why(stub: Any) -> None:
    await stub.PutBudget(budget())
    error = await refusal(stub.Reserve(reserve(model="unheard-of"), metadata=ACME))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_UNPRICED")
    await stub.Reserve(reserve(), metadata=ACME)
    error = await refusal(stub.Reserve(reserve(max_output_tokens=1), metadata=ACME))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "HOLD_CONFLICT")
    error = await refusal(stub.Settle(pb.SettleRequest(request_id="never-held"), metadata=ACME))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "HOLD_NOT_FOUND")


def lease(lease_id: str = "lease-1", **changes: Any) -> pb.AcquireLeaseRequest:
    return pb.AcquireLeaseRequest(lease_id=lease_id, **{"holder": "gateway/0", "model": "small", **changes})


async def test_a_lease_is_asked_about_taken_and_given_back(stub: Any) -> None:
    await stub.PutBudget(budget())
    question = await stub.AcquireLease(lease(), metadata=ACME)
    assert (question.unbudgeted, question.amount, question.available) == (False, usd(0), usd(2 * DIME))
    assert (question.price.output_per_million, question.per_subject) == ("5", False)
    taken = await stub.AcquireLease(lease(amount=usd(3 * DIME)), metadata=ACME)
    assert (taken.amount, taken.available, list(taken.budget_ids)) == (usd(2 * DIME), usd(0), ["acme-day"])
    assert taken.expires_at.ToDatetime(tzinfo=UTC) == NOON + timedelta(minutes=1)
    nothing = await stub.AcquireLease(lease("lease-2", amount=usd(1)), metadata=ACME)
    assert (nothing.amount, nothing.retry_at.ToDatetime(tzinfo=UTC)) == (usd(0), NOON + timedelta(seconds=2))
    back = await stub.ReturnLease(pb.ReturnLeaseRequest(lease_id="lease-1", spent=usd(DIME)), metadata=ACME)
    assert back.released == usd(DIME)
    standing = await stub.GetBudget(pb.GetBudgetRequest(budget_id="acme-day"), metadata=ACME)
    assert (standing.held, standing.leased, standing.available) == (usd(DIME), usd(DIME), usd(DIME))


async def test_a_tenant_sees_its_own_budgets_and_sets_none(stub: Any) -> None:
    both = ["acme", "umbrella"]
    await stub.PutBudget(budget("both", scope=pb.BUDGET_SCOPE_ORGANISATION, scope_id="holding", tenant_ids=both))
    await stub.PutBudget(budget("theirs", tenant_ids=["umbrella"]))
    await stub.PutBudget(budget("mine"))
    seen = await stub.ListBudgets(pb.ListBudgetsRequest(), metadata=ACME)
    assert [each.budget_id for each in seen.budgets] == ["mine"]
    assert len((await stub.ListBudgets(pb.ListBudgetsRequest())).budgets) == 3
    for hidden in ("both", "theirs", "never-put"):
        error = await refusal(stub.GetBudget(pb.GetBudgetRequest(budget_id=hidden), metadata=ACME))
        assert error.code is grpc.StatusCode.NOT_FOUND
    error = await refusal(stub.PutBudget(budget("mine"), metadata=ACME))
    assert error.code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_counter_that_is_not_what_the_ledger_and_the_holds_add_up_to_is_told(
    stub: Any, database: Database
) -> None:
    await stub.PutBudget(budget())
    await stub.Reserve(reserve(), metadata=ACME)
    answer = await stub.VerifyBudgets(pb.VerifyBudgetsRequest())
    assert (answer.account_count, list(answer.differences)) == (1, [])
    wrong = update(budget_tables.accounts).values(held_nano=budget_tables.accounts.c.held_nano + 7)
    await database.write(lambda connection: connection.execute(wrong))
    (found,) = (await stub.VerifyBudgets(pb.VerifyBudgetsRequest())).differences
    assert (found.budget_id, found.counter, found.counted, found.added_up) == (
        "acme-day",
        "held",
        usd(DIME + 7),
        usd(DIME),
    )
    error = await refusal(stub.VerifyBudgets(pb.VerifyBudgetsRequest(), metadata=ACME))
    assert error.code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_budget_of_every_person_is_asked_about_by_person(stub: Any) -> None:
    await stub.PutBudget(budget("person", scope=pb.BUDGET_SCOPE_SUBJECT))
    await stub.Reserve(reserve(), metadata=ACME)
    anna = await stub.GetBudget(pb.GetBudgetRequest(budget_id="person", subject_id="anna"))
    bert = await stub.GetBudget(pb.GetBudgetRequest(budget_id="person", subject_id="bert"))
    assert (anna.held, bert.held) == (usd(DIME), usd(0))
    error = await refusal(stub.GetBudget(pb.GetBudgetRequest(budget_id="person")))
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "subject_id")
    assert (await stub.AcquireLease(lease(), metadata=ACME)).per_subject


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scope": pb.BUDGET_SCOPE_UNSPECIFIED}, "budget.scope"),
        ({"scope": pb.BUDGET_SCOPE_PROJECT}, "budget.scope_id"),
        ({"scope": pb.BUDGET_SCOPE_SUBJECT, "scope_id": "maria@example.com"}, "budget.scope_id"),
        ({"tenant_ids": []}, "budget.tenant_ids"),
        ({"tenant_ids": ["No Such Tenant"]}, "budget.tenant_ids"),
        ({"tenant_ids": ["*"]}, "budget.tenant_ids"),
        ({"tenant_ids": ["acme", "umbrella"]}, "budget.tenant_ids"),
        ({"limit": usd(-1)}, "budget.limit"),
        ({"limit": money_pb2.Money(currency_code="usd")}, "budget.limit.currency_code"),
        ({"window": pb.BUDGET_WINDOW_UNSPECIFIED}, "budget.window"),
        ({"window": pb.BUDGET_WINDOW_ROLLING}, "budget.rolling_window"),
        ({"window": pb.BUDGET_WINDOW_ROLLING, "rolling_window": Duration(seconds=90)}, "budget.rolling_window"),
        ({"window": pb.BUDGET_WINDOW_ROLLING, "rolling_window": Duration(seconds=91 * 86400)}, "budget.rolling_window"),
        ({"rolling_window": Duration(seconds=60)}, "budget.rolling_window"),
        ({"notify_percent": [100]}, "budget.notify_percent"),
        ({"approved_by": " "}, "budget.approved_by"),
        ({"enforcement": 7}, "budget.enforcement"),
    ],
)
async def test_what_no_budget_can_be_is_refused_with_the_field(changes: Any, field: str, stub: Any) -> None:
    error = await refusal(stub.PutBudget(budget(**changes)))
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (("Reserve", pb.ReserveRequest(model="small")), "request_id"),
        (("Reserve", reserve(model="")), "model"),
        (("Reserve", reserve(prompt_tokens=10**9 + 1)), "prompt_tokens"),
        (("Reserve", reserve(max_output_tokens=1, min_output_tokens=2)), "min_output_tokens"),
        (("Reserve", reserve(expires_after=Duration(seconds=0))), "expires_after"),
        (("Reserve", reserve(api_key_id="k" * 129)), "api_key_id"),
        (("AcquireLease", lease("")), "lease_id"),
        (("AcquireLease", lease(amount=usd(-1))), "amount"),
        (("AcquireLease", lease(amount=money_pb2.Money(nano_units=1))), "amount"),
        (("ReturnLease", pb.ReturnLeaseRequest(lease_id="x", spent=usd(-1))), "spent"),
    ],
)
async def test_a_malformed_order_is_refused_with_the_field(call: tuple[str, Any], field: str, stub: Any) -> None:
    error = await refusal(getattr(stub, call[0])(call[1], metadata=ACME))
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_who_calls_is_refused_with_the_field_where_no_column_holds_it(stub: Any) -> None:
    await stub.PutBudget(budget())
    metadata = (("x-sluice-tenant-id", "acme"), ("x-sluice-project-id", "p" * 129))
    error = await refusal(stub.Reserve(reserve(), metadata=metadata))
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "project_id")


async def test_a_hold_is_always_a_tenants(stub: Any) -> None:
    error = await refusal(stub.Reserve(reserve()))
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "tenant_id")
