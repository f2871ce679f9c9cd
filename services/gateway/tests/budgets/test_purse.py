"""The purse alone, on a fake clock: leases ahead, their end, and what happens while the cost service is away."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_gateway.domain.budgets import BudgetsAway, Caller, Grant, Reservation, Standing
from sluice_gateway.domain.chat import Usage
from sluice_gateway.domain.completion import Completion, Operation
from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.pricing import Price, cost_of, output_that_fits, worst_case
from sluice_gateway.domain.purse import Purse, PurseLimits
from sluice_gateway.domain.rejection import Kind, Rejection
from sluice_gateway.domain.size import Size

PRICE = Price("USD", 0, 0, 0, output=1_000_000, reasoning=1_000_000)  # one nano-unit an output token
ANNA = Caller("acme", "lab", "key", "small", "fake-1", subject_id="anna")
NOBODY = ANNA.anybody()
SIZE = Size(0, output_tokens=100, least_output_tokens=10)


class Desk:
    """Fits `Budgets`, in memory: what it counts is everything that may still be spent."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.budgeted, self.per_subject, self.away = True, False, False
        self.holds: dict[str, int] = {}
        self.leases: dict[str, int] = {}
        self.calls: list[str] = []
        self.asked_for: list[Caller] = []
        self.first_questions = 0

    @property
    def left(self) -> int:
        return self.limit - sum(self.holds.values()) - sum(self.leases.values())

    def _begin(self, name: str) -> None:
        if self.away:
            raise BudgetsAway
        self.calls.append(name)

    async def ask(self, caller: Caller, *, seconds: float, is_first: bool = False) -> Standing:
        self.first_questions += is_first
        self._begin("ask")
        self.asked_for.append(caller)
        if not self.budgeted:
            return Standing(seconds, unbudgeted=True, per_subject=self.per_subject)
        return Standing(seconds, price=PRICE, available=self.left, per_subject=self.per_subject)

    async def lease(self, caller: Caller, lease_id: str, *, amount: int, currency: str, seconds: float) -> Grant:
        self._begin("lease")
        self.leases[lease_id] = min(amount, self.left)
        return Grant(self.leases[lease_id], seconds, PRICE)

    async def give_back(self, caller: Caller, lease_id: str, *, spent: int, currency: str) -> None:
        self._begin("give_back")
        assert spent <= self.leases[lease_id], "more was spent than was leased, or than was said before"
        self.leases[lease_id] = spent

    async def reserve(self, caller: Caller, request_id: str, size: Size, *, seconds: float) -> Reservation:
        self._begin("reserve")
        tokens = min(size.output_tokens, self.left)
        if tokens < size.least_output_tokens:
            raise Rejection(Kind.EXHAUSTED, "spent", reason="BUDGET_EXHAUSTED", retry_after_seconds=60)
        self.holds[request_id] = tokens
        return Reservation(f"hold-{request_id}", tokens)

    async def settle(self, caller: Caller, request_id: str, usage: Usage | None, served_model: str) -> None:
        self._begin("settle")
        self.holds[request_id] = usage.output_tokens if usage else 0


class Counter:
    """A purse on a desk and a clock."""

    def __init__(self, limit: int = 1_000_000, name: str = "", **limits: Any) -> None:
        self.now = 0.0
        self.desk = Desk(limit)
        self._ids = (f"{name}{number}" for number in range(10**6))
        self.purse = Purse(
            self.desk,
            limits=PurseLimits(**limits),
            new_id=lambda: f"lease-{next(self._ids)}",
            clock=lambda: self.now,
        )

    async def serve(
        self, used: int | None = 100, *, caller: Caller = NOBODY, during: Callable[[], None] = lambda: None
    ) -> Completion:
        """One request that uses so many tokens. Raises what held() raises."""
        completion = new_completion()
        request_id = f"request-{next(self._ids)}"
        async with self.purse.held(
            caller, SIZE, completion, request_id=request_id, seconds=10, fail_open=False
        ) as hold:
            during()
            await asyncio.sleep(0)
            if used is not None:
                completion.usage = Usage(output_tokens=min(used, hold.output_tokens))
        return completion

    async def tend(self) -> None:
        """One look at the leases, and everything that it began."""
        self.purse.tend_once()
        for _ in range(20):
            await asyncio.sleep(0)

    async def be_busy(self) -> None:
        for _ in range(20):
            await self.serve()
        await self.tend()


def new_completion() -> Completion:
    return Completion(Operation.CHAT, Door.GRPC, 0.0, "key", "acme", "lab")


async def test_a_busy_caller_runs_on_leases_without_any_call() -> None:
    counter = Counter()
    await counter.be_busy()
    counter.desk.calls.clear()
    completions = [await counter.serve() for _ in range(8)]
    assert {completion.cost_hold_id for completion in completions} == {"lease-20"}
    assert counter.desk.calls == []


async def test_the_next_lease_is_taken_before_the_last_one_is_used_up() -> None:
    counter = Counter()
    await counter.be_busy()
    counter.desk.calls.clear()
    for _ in range(200):
        await counter.serve()
        await counter.tend()
    assert "reserve" not in counter.desk.calls
    assert counter.desk.calls.count("lease") < 40


async def test_a_caller_who_comes_now_and_then_leases_nothing() -> None:
    counter = Counter()
    for _ in range(50):
        await counter.serve()
        await counter.tend()
        counter.now += 3
    assert "lease" not in counter.desk.calls


async def test_the_end_of_a_budget_is_not_parcelled_out() -> None:
    counter = Counter(limit=50 * 100)
    refused = 0
    for _ in range(100):
        try:
            await counter.serve()
        except Rejection:
            refused += 1
        await counter.tend()
    assert refused == 50
    assert "lease" not in counter.desk.calls


async def test_two_gateways_share_a_budget_to_the_last_cent() -> None:
    one, two = Counter(limit=30_000, name="one-"), Counter(name="two-")
    two.purse._budgets = two.desk = one.desk
    served = 0
    for number in range(1000):
        counter = (one, two)[number % 2]
        try:
            await counter.serve()
            served += 1
        except Rejection:
            pass
        await counter.tend()
        one.now = two.now = number * 0.01
        assert one.desk.left >= 0
    one.now = two.now = 1000.0
    await one.tend()
    await two.tend()
    # Every lease was used up, but for what no whole request fitted into: that was cut to what fitted.
    assert 300 <= served <= 310
    assert one.desk.left < SIZE.least_output_tokens


async def test_an_idle_lease_is_given_back_less_what_was_spent_on_it() -> None:
    counter = Counter()
    await counter.be_busy()
    await counter.serve()
    counter.now = 6.0
    await counter.tend()
    assert list(counter.desk.leases.values()) == [100]


async def test_no_request_begins_on_a_lease_whose_time_is_over() -> None:
    counter = Counter(lease_seconds=60)
    await counter.be_busy()
    counter.now = 60.0
    completion = await counter.serve()
    assert completion.cost_hold_id.startswith("hold-")


async def test_a_request_that_outlives_its_lease_stays_counted_and_what_it_did_not_use_is_told_later() -> None:
    counter = Counter()
    await counter.be_busy()
    stop = asyncio.Event()

    async def long_request() -> None:
        completion = new_completion()
        async with counter.purse.held(NOBODY, SIZE, completion, request_id="long", seconds=500, fail_open=False):
            await stop.wait()
            completion.usage = Usage(output_tokens=7)

    task = asyncio.create_task(long_request())
    await counter.tend()
    counter.now = 61.0
    await counter.tend()
    assert list(counter.desk.leases.values()) == [100]
    stop.set()
    await task
    await counter.tend()
    assert list(counter.desk.leases.values()) == [7]


async def test_what_cannot_be_given_back_at_once_is_given_back_later() -> None:
    counter = Counter()
    await counter.be_busy()
    counter.now, counter.desk.away = 6.0, True
    await counter.tend()
    counter.now, counter.desk.away = 70.0, False
    await counter.tend()
    assert list(counter.desk.leases.values()) == [0]


async def test_a_lease_that_nobody_answered_for_is_given_back_when_somebody_does() -> None:
    counter = Counter()
    lease = counter.desk.lease

    async def given_but_not_told(*arguments: Any, **options: Any) -> Grant:
        await lease(*arguments, **options)
        counter.desk.away = True
        raise BudgetsAway

    counter.desk.lease = given_but_not_told  # type: ignore[method-assign]
    await counter.be_busy()
    assert sum(counter.desk.leases.values()) > 0
    await counter.tend()
    counter.desk.away = False
    counter.now = 6.0
    await counter.tend()
    assert list(counter.desk.leases.values()) == [0]


async def test_a_lease_is_not_given_back_while_it_is_being_given() -> None:
    counter = Counter()
    lease, answer = counter.desk.lease, asyncio.Event()

    async def given_slowly(*arguments: Any, **options: Any) -> Grant:
        grant = await lease(*arguments, **options)
        await answer.wait()
        return grant

    counter.desk.lease = given_slowly  # type: ignore[method-assign]
    await counter.be_busy()
    for _ in range(5):
        await counter.tend()
    assert counter.desk.calls.count("lease") == 1
    assert "give_back" not in counter.desk.calls
    answer.set()
    await counter.tend()
    assert (await counter.serve()).cost_hold_id.startswith("lease-")


async def test_a_lease_of_less_than_was_wished_for_goes_back() -> None:
    counter = Counter(limit=1_000_000)
    lease = counter.desk.lease

    async def given_little(*arguments: Any, amount: int, **options: Any) -> Grant:
        return await lease(*arguments, amount=amount // 2, **options)

    counter.desk.lease = given_little  # type: ignore[method-assign]
    await counter.be_busy()
    assert (await counter.serve()).cost_hold_id.startswith("hold-")
    await counter.purse.close(seconds=1)
    assert set(counter.desk.leases.values()) == {0}


async def test_stopping_gives_back_everything_that_is_not_spent() -> None:
    counter = Counter()
    await counter.be_busy()
    await counter.serve()
    await counter.purse.close(seconds=1)
    assert list(counter.desk.leases.values()) == [100]


async def test_without_the_cost_service_a_caller_runs_on_what_is_leased_and_then_is_refused() -> None:
    counter = Counter()
    await counter.be_busy()
    counter.desk.away = True
    leased = sum(counter.desk.leases.values())
    used = 0
    with pytest.raises(Rejection) as caught:
        while used <= leased:
            completion = await counter.serve()
            assert completion.usage is not None
            used += completion.usage.output_tokens
    assert caught.value.reason == "BUDGET_UNAVAILABLE"
    # The last answer was cut to what was left; less than is of use remains.
    assert leased - SIZE.least_output_tokens < used <= leased


async def test_a_hold_that_nobody_answered_for_is_ended() -> None:
    counter = Counter()
    await counter.serve()
    reserve = counter.desk.reserve

    async def held_but_not_told(*arguments: Any, **options: Any) -> Reservation:
        await reserve(*arguments, **options)
        raise BudgetsAway

    counter.desk.reserve = held_but_not_told  # type: ignore[method-assign]
    with pytest.raises(Rejection):
        await counter.serve()
    await counter.tend()
    assert sorted(counter.desk.holds.values()) == [0, 100]


async def test_a_request_that_used_nothing_is_counted_as_nothing() -> None:
    counter = Counter()
    await counter.be_busy()
    for _ in range(100):
        await counter.serve(used=None)
    counter.now = 6.0
    await counter.tend()
    assert list(counter.desk.leases.values()) == [0]


async def test_persons_are_not_told_apart_where_no_budget_is_by_person() -> None:
    counter = Counter()
    counter.desk.budgeted = False
    for number in range(10):
        await counter.serve(caller=Caller("acme", "lab", "key", "small", "fake-1", subject_id=f"person-{number}"))
    assert counter.desk.calls == ["ask"]


async def test_persons_are_asked_about_each_for_themselves_where_a_budget_is_by_person() -> None:
    counter = Counter()
    counter.desk.budgeted, counter.desk.per_subject = False, True
    callers = [Caller("acme", "lab", "key", "small", "fake-1", subject_id=f"person-{number}") for number in range(5)]
    for caller in callers * 2:
        await counter.serve(caller=caller)
    assert [caller for caller in counter.desk.asked_for if caller.subject_id] == callers


async def test_a_lease_of_one_person_is_not_used_for_another() -> None:
    counter = Counter()
    counter.desk.per_subject = True
    for _ in range(20):
        await counter.serve(caller=ANNA)
    await counter.tend()
    assert counter.desk.leases
    completion = await counter.serve(caller=Caller("acme", "lab", "key", "small", "fake-1", subject_id="bert"))
    assert completion.cost_hold_id.startswith("hold-")


async def test_a_new_budget_counts_when_the_last_answer_is_over() -> None:
    counter = Counter(limit=0, lease_seconds=60)
    counter.desk.budgeted = False
    await counter.serve()
    counter.desk.budgeted, counter.now = True, 60.0
    with pytest.raises(Rejection) as caught:
        await counter.serve()
    assert caught.value.reason == "BUDGET_EXHAUSTED"


async def test_nobody_waits_twice_for_a_cost_service_that_is_away() -> None:
    counter = Counter(lease_seconds=60)
    counter.desk.budgeted = False
    await counter.serve()
    counter.now, counter.desk.away = 60.0, True
    await counter.serve()
    asked = asyncio.Event()

    async def never(caller: Caller, *, seconds: float, is_first: bool) -> Standing:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    counter.desk.ask = never  # type: ignore[method-assign]
    counter.now = 62.0
    await asyncio.wait_for(counter.serve(), 5)
    await asyncio.wait_for(asked.wait(), 5)


async def test_no_budget_is_not_believed_for_ever() -> None:
    counter = Counter(stale_seconds=1000)
    counter.desk.budgeted = False
    await counter.serve()
    counter.now, counter.desk.away = 1001.0, True
    with pytest.raises(Rejection) as caught:
        await counter.serve()
    assert caught.value.reason == "BUDGET_UNAVAILABLE"


async def test_a_stranger_is_refused_while_nobody_can_tell() -> None:
    counter = Counter()
    counter.desk.away = True
    with pytest.raises(Rejection) as caught:
        await counter.serve()
    assert (caught.value.kind, caught.value.reason) == (Kind.UNAVAILABLE, "BUDGET_UNAVAILABLE")


async def test_only_the_first_question_about_a_caller_may_take_long() -> None:
    counter = Counter(lease_seconds=60)
    await counter.serve()
    counter.now = 60.0
    await counter.serve()
    assert (counter.desk.calls.count("ask"), counter.desk.first_questions) == (2, 1)


async def test_who_was_asked_about_in_vain_waits_no_second_time_for_long() -> None:
    counter = Counter()
    counter.desk.away = True
    for _ in range(2):
        with pytest.raises(Rejection):
            await counter.serve()
    assert counter.desk.first_questions == 1


async def test_a_thousand_requests_at_once_never_exceed_a_lease() -> None:
    counter = Counter(limit=100_000)
    await counter.be_busy()
    (leased,) = counter.desk.leases.values()
    counter.desk.away = True
    results = await asyncio.gather(*(counter.serve() for _ in range(1000)), return_exceptions=True)
    used = sum(r.usage.output_tokens for r in results if isinstance(r, Completion) and r.usage)
    assert 0 < used <= leased


@given(
    prices=st.tuples(*(st.integers(0, 5 * 10**9) for _ in range(7))),
    tokens=st.tuples(*(st.integers(0, 5000) for _ in range(5))),
)
def test_no_split_of_the_tokens_costs_more_than_the_worst_case(
    prices: tuple[int, ...], tokens: tuple[int, ...]
) -> None:
    price = Price("USD", *prices)
    usage = Usage(*tokens)
    worst = worst_case(
        price, prompt_tokens=usage.input_tokens, output_tokens=usage.output_tokens + usage.reasoning_tokens
    )
    assert cost_of(usage, price) <= worst


@given(
    nano_per_million=st.sampled_from([500_000, 1_500_000, 2_500_000, 1_500_001, 1_499_999]),
    tokens=st.tuples(*(st.integers(0, 4) for _ in range(5))),
)
def test_few_tokens_whose_roundings_add_up_cost_no_more_than_the_worst_case(
    nano_per_million: int, tokens: tuple[int, ...]
) -> None:
    # Halves of a nano-unit a token, each bucket rounded by itself: this is where a bound without its slack is too small.
    price, usage = Price("USD", *(nano_per_million,) * 5), Usage(*tokens)
    worst = worst_case(price, prompt_tokens=sum(tokens[:3]), output_tokens=sum(tokens[3:]))
    assert cost_of(usage, price) <= worst


@given(
    prices=st.tuples(*(st.integers(0, 5 * 10**9) for _ in range(7))),
    room=st.integers(0, 10**8),
    prompt=st.integers(0, 5000),
)
def test_as_many_tokens_are_let_as_fit_and_not_one_more(prices: tuple[int, ...], room: int, prompt: int) -> None:
    price = Price("USD", *prices)
    fitting = output_that_fits(price, room, prompt_tokens=prompt, most=4000)
    if fitting >= 0:
        assert worst_case(price, prompt_tokens=prompt, output_tokens=fitting) <= room
    if fitting < 4000:
        assert worst_case(price, prompt_tokens=prompt, output_tokens=fitting + 1) > room
