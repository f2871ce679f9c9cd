"""The gateway's purse: requests are admitted against leases in memory, and the cost service is asked only where none has room."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from sluice_gateway.domain.account import Account
from sluice_gateway.domain.budgets import Budgets, BudgetsAway, Caller, Standing
from sluice_gateway.domain.completion import Completion
from sluice_gateway.domain.lease import Lease
from sluice_gateway.domain.pricing import worst_case
from sluice_gateway.domain.rejection import Kind, Rejection
from sluice_gateway.domain.size import Size

# A hold lasts this much longer than its request may: what settles it comes after the end.
HOLD_SLACK_SECONDS = 30.0
# What is being given back when the gateway stops may have changed meanwhile, or may have failed once.
CLOSING_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class PurseLimits:
    """How much and how long the gateway leases. Amounts are nano-units of a currency."""

    lease_seconds: float = 60.0
    """A lease's life; also how long it is believed that no budget stands over a caller."""
    request_seconds: float = 300.0
    """Longest a request may run."""
    most: int = 100 * 10**9
    """Largest lease."""
    busy_requests: float = 8.0
    """Fewer recent requests of a caller than this are held one by one."""
    comfort: int = 10
    """A lease is at most this part of what is left, and slices get too small to be taken: the end of a budget is not parcelled out."""
    idle_seconds: float = 5.0
    """A lease that no request began on for so long is given back."""
    person_seconds: float = 600.0
    """After so long without a request a person's account is forgotten."""
    stale_seconds: float = 86_400.0
    """How long it is believed that no budget stands over a caller when nobody can be asked."""
    retry_seconds: float = 1.0
    """After having asked in vain, how long until it is tried again in the background."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What a request was admitted on: a lease's or a hold's id, or nothing. The model must write no more than `output_tokens`."""

    id: str
    output_tokens: int
    is_limited: bool = False


class Memory(Protocol):
    """What outlives the process: over whom no budget stood."""

    def is_unbudgeted(self, caller: Caller) -> bool:
        """Whether an earlier answer said that no budget stands over anybody of this caller."""

    def note(self, caller: Caller, *, unbudgeted: bool) -> None:
        """Remember an answer."""


class Purse:
    """All callers' accounts."""

    def __init__(
        self,
        budgets: Budgets,
        *,
        limits: PurseLimits,
        new_id: Callable[[], str],
        clock: Callable[[], float],
        memory: Memory | None = None,
        on_wrong_bound: Callable[[Caller], None] = lambda caller: None,
    ) -> None:
        self._budgets, self._limits = budgets, limits
        self._new_id, self._clock = new_id, clock
        self._memory, self._on_wrong_bound = memory, on_wrong_bound
        self._accounts: dict[Caller, Account] = {}
        self._errands: set[asyncio.Task[None]] = set()

    def expect(self, caller: Caller) -> None:
        """Begin to find out what stands over a caller, while its request is still being checked."""
        account = self._account(caller)
        account.used_at = self._clock()
        if not account.is_fresh(account.used_at):
            self._ask(account)

    @asynccontextmanager
    async def held(
        self, caller: Caller, size: Size, completion: Completion, *, request_id: str, seconds: float, fail_open: bool
    ) -> AsyncIterator[Hold]:
        """Hold a request's worst case for the length of the block, and count what the completion says was used after it.

        Raises Rejection when too little is left, or when that cannot be known and the tenant did not choose to go on.
        """
        try:
            lease, hold = await self._take(caller, size, request_id=request_id, seconds=seconds)
        except BudgetsAway:
            if not fail_open:
                raise _unavailable() from None
            completion.budget_unchecked = True
            yield Hold("", size.output_tokens)
            return
        completion.cost_hold_id = hold.id
        try:
            yield hold
        finally:
            if lease is not None:
                if not lease.end(request_id, completion.usage):
                    self._on_wrong_bound(caller)
            elif hold.id:
                self._run(self._budgets.settle(caller, request_id, completion.usage, completion.served_model))

    async def _take(self, caller: Caller, size: Size, *, request_id: str, seconds: float) -> tuple[Lease | None, Hold]:
        account = await self._known(caller)
        standing = account.standing
        assert standing is not None
        if standing.unbudgeted:
            return None, Hold("", size.output_tokens)
        now = self._clock()
        if standing.price is not None:
            worst = worst_case(standing.price, prompt_tokens=size.prompt_tokens, output_tokens=size.output_tokens)
            account.demand.note(worst, now)
        if found := account.lease_for(size, now, whole=True):
            return self._begin(*found, request_id, size)
        try:
            return None, await self._reserve(account.caller, size, request_id=request_id, seconds=seconds)
        except BudgetsAway:
            # Part of an answer from what is leased is better than none: nobody knows when the cost service is back.
            if found := account.lease_for(size, self._clock(), whole=False):
                return self._begin(*found, request_id, size)
            raise

    def _begin(self, lease: Lease, output_tokens: int, request_id: str, size: Size) -> tuple[Lease, Hold]:
        lease.begin(request_id, size, output_tokens, self._clock())
        return lease, Hold(lease.id, output_tokens, is_limited=output_tokens < size.output_tokens)

    async def _reserve(self, caller: Caller, size: Size, *, request_id: str, seconds: float) -> Hold:
        try:
            held = await self._budgets.reserve(caller, request_id, size, seconds=seconds + HOLD_SLACK_SECONDS)
        except Rejection:
            raise
        except BaseException:
            # Away, too slow, or the caller left: it may have been held all the same, and nothing will be used.
            self._run(self._budgets.settle(caller, request_id, None, ""))
            raise
        output_tokens = held.output_tokens if held.id else size.output_tokens
        return Hold(held.id, output_tokens, is_limited=output_tokens < size.output_tokens)

    # --- what stands over a caller ---

    async def _known(self, caller: Caller) -> Account:
        """The caller's account, with something believable in it. Raises BudgetsAway or Rejection."""
        account = self._account(caller)
        while not account.is_fresh(now := self._clock()):
            asking = self._ask(account)
            if account.failed_at > account.known_at and self._may_be_believed(account, now):
                break  # the cost service is away: nobody waits for it a second time
            try:
                await asyncio.shield(asking)
            except BudgetsAway:
                if not self._may_be_believed(account, now):
                    raise
                break
            account = self._account(caller)  # it may have turned out that persons are told apart, or are not
        account.used_at = self._clock()
        return account

    def _may_be_believed(self, account: Account, now: float) -> bool:
        return account.may_be_believed(now, stale_seconds=self._limits.stale_seconds)

    def _account(self, caller: Caller) -> Account:
        """The account of everybody where persons are not told apart, else the person's own."""
        shared = self._accounts.get(caller.anybody())
        if shared is not None and not (caller.subject_id and shared.standing and shared.standing.per_subject):
            return shared
        return self._accounts.get(caller) or self._opened(caller)

    def _opened(self, caller: Caller) -> Account:
        account = self._accounts[caller] = Account(caller)
        if self._memory is not None and self._memory.is_unbudgeted(caller.anybody()):
            account.standing, account.known_at = Standing(0.0, unbudgeted=True), self._clock()
        return account

    def _ask(self, account: Account) -> "asyncio.Task[Standing]":
        if account.asking is None or account.asking.done():
            account.asking = asyncio.create_task(self._answer(account))
            # Nobody may be waiting for it any more when it fails.
            account.asking.add_done_callback(_seen)
        return account.asking

    async def _answer(self, account: Account) -> Standing:
        caller = account.caller
        try:
            standing = await self._budgets.ask(
                caller, seconds=self._limits.lease_seconds, is_first=account.was_never_asked_about
            )
        except BudgetsAway:
            account.failed_at = self._clock()
            raise
        if self._memory is not None:
            self._memory.note(caller.anybody(), unbudgeted=standing.unbudgeted and not standing.per_subject)
        account.standing, account.known_at = standing, self._clock()
        if caller.subject_id:
            self._share(account, standing)
        return standing

    def _share(self, account: Account, standing: Standing) -> None:
        """What was learnt in asking for one person says of the others at least whether they are told apart.

        Nobody has fewer budgets than who is nobody in particular, so it is never too little for those.
        """
        anybody = account.caller.anybody()
        shared = self._accounts.get(anybody) or self._opened(anybody)
        shared.standing, shared.known_at = standing, account.known_at
        if not standing.per_subject and self._accounts.pop(account.caller, None) is not None:
            shared.leases.extend(account.leases)

    # --- leases ---

    async def tend(self, every_seconds: float) -> None:
        """Keep leases in order until cancelled."""
        while True:
            self.tend_once()
            await asyncio.sleep(every_seconds)

    def tend_once(self) -> None:
        """Give back what is old or idle, take what will be needed, ask again what is nearly stale. Waits for nothing."""
        now = self._clock()
        for account in list(self._accounts.values()):
            for lease in account.leases:
                lease.is_closed = lease.is_closed or self._is_over(lease, now)
            self._return_closed(account, now)
            is_used = now < account.used_at + self._limits.lease_seconds
            if is_used and account.is_nearly_stale(now) and now >= account.failed_at + self._limits.retry_seconds:
                self._ask(account)
            if account.leasing is None or account.leasing.done():
                self._lease_ahead(account, now)
            self._forget(account, now)

    def _forget(self, account: Account, now: float) -> None:
        # Of persons there are many, and anybody can name new ones.
        keep = self._limits.person_seconds if account.caller.subject_id else self._limits.stale_seconds
        if not account.leases and now > account.used_at + keep:
            self._accounts.pop(account.caller, None)

    def _is_over(self, lease: Lease, now: float) -> bool:
        return not lease.is_open(now) or (not lease.running and now >= lease.used_at + self._limits.idle_seconds)

    def _lease_ahead(self, account: Account, now: float) -> None:
        """Take a lease before the ones there are run low."""
        standing = account.standing
        if standing is None or standing.unbudgeted or standing.price is None or not account.is_fresh(now):
            return
        if now >= account.used_at + self._limits.idle_seconds:
            return
        requests, worst = account.demand.recent(now)
        wish = min(int(worst), self._limits.most)
        if requests < self._limits.busy_requests or wish <= 0:
            return
        if account.room(now, until=now + self._limits.lease_seconds / 4) * 2 < wish:
            least = int(worst / requests * self._limits.busy_requests)
            account.leasing = self._run(self._lease(account, wish, least))

    async def _lease(self, account: Account, wish: int, least: int) -> None:
        """Lease what is wished for, or less, but no less than what is worth a call."""
        caller, began_at = account.caller, self._clock()
        # How much is left is known from the last answer only: ask first, so that the end of a budget is not parcelled out.
        standing = await self._ask(account)
        if standing.unbudgeted or standing.price is None:
            return
        if standing.available is not None:
            wish = min(wish, standing.available // self._limits.comfort)
        if wish < least:
            return
        lease_id, currency = self._new_id(), standing.price.currency
        # No request begins on it after its time, but one may still run, and is charged at the price of the day it ends: the lease,
        # and with it its price, are asked for until then.
        seconds = self._limits.lease_seconds + self._limits.request_seconds
        ends_at = began_at + self._limits.lease_seconds
        lease = Lease(lease_id, wish, standing.price, ends_at, used_at=began_at, is_closed=True)
        try:
            grant = await self._budgets.lease(caller, lease_id, amount=wish, currency=currency, seconds=seconds)
        except BaseException:
            account.leases.append(lease)  # nobody answered, and it may have been given: it must be given back
            raise
        lease.price, lease.amount = grant.price or standing.price, grant.amount
        lease.expires_at = min(ends_at, began_at + grant.seconds)
        # Given less: others take from the same budgets, and little is left. It stays closed, and goes back at once.
        lease.is_closed = grant.amount < wish
        account.leases.append(lease)

    def _return_closed(self, account: Account, now: float) -> None:
        """Tell what closed leases cost or may still cost: when they are closed, and again when their requests have ended."""
        account.leases = [
            lease for lease in account.leases if not lease.is_closed or lease.running or lease.must_be_told(now)
        ]
        untold = [lease for lease in account.leases if lease.must_be_told(now)]
        if untold and (account.returning is None or account.returning.done()):
            account.returning = self._run(self._return(account.caller, untold))

    async def _return(self, caller: Caller, leases: list[Lease]) -> None:
        for lease in leases:
            committed = lease.committed
            await self._budgets.give_back(caller, lease.id, spent=committed, currency=lease.price.currency)
            lease.told = committed

    # --- errands: what is told to the cost service beside the requests ---

    def _run(self, errand: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(_quietly(errand))
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    async def close(self, seconds: float) -> None:
        """Give everything back, waiting at most so long. What is not given back stays counted until it expires."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for _ in range(CLOSING_ROUNDS):
                    for account in self._accounts.values():
                        for lease in account.leases:
                            lease.is_closed = True
                        self._return_closed(account, self._clock())
                    while self._errands:
                        await asyncio.wait(set(self._errands))
        for task in self._errands:
            task.cancel()


def _seen(asking: "asyncio.Task[Standing]") -> None:
    if not asking.cancelled():
        asking.exception()


async def _quietly(errand: Coroutine[Any, Any, None]) -> None:
    """Holds and leases end by themselves where this does not reach the cost service, and Rejections are nobody's here."""
    with suppress(BudgetsAway, Rejection):
        await errand


def _unavailable() -> Rejection:
    return Rejection(
        Kind.UNAVAILABLE,
        "It cannot be known now what is left of the budgets, so nothing is begun; try again later.",
        reason="BUDGET_UNAVAILABLE",
        retry_after_seconds=1,
    )
