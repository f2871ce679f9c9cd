"""Carries out orders and ledger postings on accounts and holds: the arithmetic of budgets, without a database.

Whoever uses it brings the accounts and holds that are touched, locked, and stores those named by `changed_...` afterwards.
What is refused changes nothing but the note that it was (`Account.was_refused`).
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta

from sluice_cost.domain.budget import Account, AccountKey, Budget, BudgetIndex, Caller
from sluice_cost.domain.holds import (
    Answer,
    BudgetExhausted,
    Crossing,
    CurrenciesMixed,
    CurrencyNotBudgeted,
    Ended,
    ExpireOrder,
    ExtendOrder,
    Hold,
    HoldConflict,
    HoldKind,
    HoldState,
    HoldUnknown,
    LeaseOrder,
    ModelUnpriced,
    Order,
    Posting,
    Reserved,
    ReserveOrder,
    ReturnOrder,
    SettleOrder,
    fingerprint,
)
from sluice_cost.domain.pricing import Price, PriceHistory, charge
from sluice_cost.domain.windows import WindowKind
from sluice_cost.domain.worst_case import PricesOfSeveralCurrencies, dearest_price, most_output_tokens, worst_case

HeldIn = Sequence[tuple[Budget, Account]]
# What is only held may be free again soon.
_HELD_RETRY_US = 2_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BudgetBooks:
    """Accounts and holds as they are locked for one transaction."""

    def __init__(
        self,
        budgets: BudgetIndex,
        prices: PriceHistory,
        *,
        accounts: Mapping[AccountKey, Account],
        holds: Iterable[Hold],
        now: int,
    ) -> None:
        self._budgets, self._prices, self._now = budgets, prices, now
        self._accounts = accounts
        self._holds = {hold.hold_id: hold for hold in holds}
        self.changed_accounts: set[AccountKey] = set()
        self.changed_holds: dict[str, Hold] = {}
        self.spent: dict[tuple[AccountKey, int], int] = {}
        """What is to be added to the buckets of accounts: (account, bucket) -> nano-units."""
        self.crossings: list[Crossing] = []

    def account(self, key: AccountKey) -> Account:
        return self._accounts[key]

    def carry_out(self, order: Order) -> Answer:
        """Raises a HoldRefused."""
        match order:
            case ReserveOrder():
                return self._reserve(order)
            case SettleOrder():
                return self._settle(order)
            case ExtendOrder():
                return self._extend(order)
            case LeaseOrder():
                return self._lease(order)
            case ReturnOrder():
                return self._give_back(order)
            case ExpireOrder():
                self._expire(order)
                return None

    def enter(self, posting: Posting) -> None:
        """Counts a ledger row as spent in its window, and relieves the hold it was admitted on."""
        for budget in self._budgets.over(posting.caller):
            if posting.amount and budget.currency == posting.currency:
                self._spend(budget, posting)
        hold = self._holds.get(posting.hold_id) if posting.hold_id else None
        if hold is not None and hold.caller.tenant_id == posting.caller.tenant_id:
            self._relieve(hold, posting)

    def _spend(self, budget: Budget, posting: Posting) -> None:
        key, bucket = budget.account_of(posting.caller), budget.bucket_of(posting.occurred_at)
        self.spent[key, bucket] = self.spent.get((key, bucket), 0) + posting.amount
        account = self._accounts[key]
        # Stored also for a cost of long ago: its bucket must never be taken off a window that did not have it.
        self.changed_accounts.add(key)
        is_in_window = (
            bucket >= account.window_start if budget.window is WindowKind.ROLLING else bucket == account.window_start
        )
        if is_in_window:
            account.spent += posting.amount
            for percent in account.crossed(budget, at=self._now):
                self._tell(account, percent, is_refusal=False)

    def _relieve(self, hold: Hold, posting: Posting) -> None:
        if posting.currency == hold.currency:
            hold.entered += posting.amount
        if hold.kind is HoldKind.REQUEST:
            hold.state = HoldState.CLOSED  # one request, one event
        self._close_if_entered(hold)
        self._restate(hold)

    def _reserve(self, order: ReserveOrder) -> Reserved:
        asked = fingerprint(order.caller, *order_content(order))
        if found := self._holds.get(order.hold_id):
            return Reserved(copy(_same(found, asked, "request_id")))
        held_in, price = self._held_in(order.caller, order.model, order.served_models, order.lasts)
        if price is None:
            return Reserved(None)
        tokens, amount = order.max_output_tokens, worst_case(price, order.prompt_tokens, order.max_output_tokens)
        left = self._left(held_in)
        if left is not None and amount > left:
            tokens = most_output_tokens(price, order.prompt_tokens, amount=left, at_most=order.max_output_tokens)
            if tokens < max(order.min_output_tokens, 0):
                least = worst_case(price, order.prompt_tokens, order.min_output_tokens)
                raise self._exhausted(held_in, least)
            amount = worst_case(price, order.prompt_tokens, tokens)
        hold = self._new_hold(order, HoldKind.REQUEST, held_in, price.currency, granted=amount, asked=asked)
        hold.request_id, hold.prompt_tokens, hold.output_tokens = order.request_id, order.prompt_tokens, tokens
        self._restate(hold)
        return Reserved(copy(hold), price)

    def _lease(self, order: LeaseOrder) -> Reserved:
        asked = fingerprint(order.caller, *order_content(order))
        is_by_person = self._budgets.is_by_person(order.caller.tenant_id)
        held_in, price = self._held_in(order.caller, order.model, order.served_models, order.lasts)
        if price is None:
            return Reserved(None, is_by_person=is_by_person)
        budgets = tuple(budget for budget, _ in held_in)
        if found := self._holds.get(order.hold_id):
            hold = copy(_same(found, asked, "lease_id"))
            return Reserved(hold, price, budgets, self._left(held_in), is_by_person)
        amount, retry_at = self._slice(order, price, held_in)
        if amount <= 0:
            return Reserved(None, price, budgets, self._left(held_in), is_by_person, retry_at)
        hold = self._new_hold(order, HoldKind.LEASE, held_in, price.currency, granted=amount, asked=asked)
        hold.holder = order.holder
        self._restate(hold)
        return Reserved(copy(hold), price, budgets, self._left(held_in), is_by_person)

    def _slice(self, order: LeaseOrder, price: Price, held_in: HeldIn) -> tuple[int, int | None]:
        """What a lease is of, and when to ask again where that is nothing."""
        if not order.amount:
            return 0, None  # only a question
        if order.currency != price.currency:
            raise CurrenciesMixed(f"the lease is asked for in {order.currency}; {order.model!r} costs {price.currency}")
        left = self._left(held_in)
        amount = order.amount if left is None else min(order.amount, left)
        return (amount, None) if amount > 0 else (0, self._exhausted(held_in, 1).retry_at)

    def _extend(self, order: ExtendOrder) -> Reserved:
        hold = self._found(order.hold_id, order.tenant_id, HoldKind.REQUEST)
        if hold.state is not HoldState.OPEN:
            raise HoldConflict("the hold has ended: a request cannot be extended after it was settled")
        tokens = (order.held_output_tokens or hold.output_tokens) + order.additional_output_tokens
        if tokens <= hold.output_tokens:
            return Reserved(copy(hold))
        price = self._price_of(hold, self._now, max(hold.expires_at, self._now))
        if price is None:
            raise ModelUnpriced(f"{hold.model!r} has no price any more")
        amount = max(worst_case(price, hold.prompt_tokens, tokens), hold.granted)
        held_in = [
            (budget, self._accounts[key])
            for key in hold.accounts
            if (budget := self._budgets.find(key.budget_id)) is not None and not budget.is_disabled
        ]
        left = self._left(held_in)
        if left is not None and amount - hold.held > left:
            raise self._exhausted(held_in, amount - hold.held)
        hold.output_tokens, hold.granted = tokens, amount
        self._restate(hold)
        return Reserved(copy(hold))

    def _settle(self, order: SettleOrder) -> Ended:
        hold = self._found(order.hold_id, order.tenant_id, HoldKind.REQUEST)
        return self._end(hold, fingerprint(order.usage, order.served_model), self._cost_of(hold, order))

    def _give_back(self, order: ReturnOrder) -> Ended:
        hold = self._found(order.hold_id, order.tenant_id, HoldKind.LEASE)
        if order.currency != hold.currency:
            raise HoldConflict(f"the lease is in {hold.currency}, what was spent in {order.currency}")
        if hold.ended_by and order.spent < hold.settled:
            # What was counted as still running when it was given back has ended cheaper.
            hold.settled, hold.ended_by = order.spent, fingerprint(order.spent)
            self._close_if_entered(hold)
            self._restate(hold)
        return self._end(hold, fingerprint(order.spent), order.spent)

    def _end(self, hold: Hold, ended_by: str, amount: int) -> Ended:
        if hold.ended_by and hold.ended_by != ended_by:
            raise HoldConflict("it has ended already, with another amount")
        if not hold.ended_by:
            hold.ended_by, hold.settled = ended_by, amount
            if hold.state is HoldState.OPEN:
                hold.state = HoldState.ENDED
                self._close_if_entered(hold)
            self._restate(hold)
        return Ended(hold.currency, hold.settled, hold.released)

    def _close_if_entered(self, hold: Hold) -> None:
        is_entered = hold.settled == 0 or (hold.kind is HoldKind.LEASE and hold.entered >= hold.settled)
        if hold.state is HoldState.ENDED and is_entered:
            hold.state = HoldState.CLOSED

    def _expire(self, order: ExpireOrder) -> None:
        hold = self._holds.get(order.hold_id)
        if hold is not None and hold.state is not HoldState.CLOSED:
            hold.state = HoldState.CLOSED
            self._restate(hold)

    def _cost_of(self, hold: Hold, order: SettleOrder) -> int:
        """What the ledger will charge, at most: at the dearest price since the hold was made."""
        if order.usage is None:
            return 0
        start, end = as_datetime(hold.created_at), as_datetime(max(self._now, hold.created_at))
        served = [order.served_model] if order.served_model else []
        try:
            price = dearest_price(self._prices, hold.model, served, start=start, end=end)
        except PricesOfSeveralCurrencies:
            price = None
        if price is None or price.currency != hold.currency:
            return hold.granted  # nobody knows better before the ledger has entered it
        return charge(order.usage, price, is_synthetic=False, currency=hold.currency).total

    def _held_in(
        self, caller: Caller, model: str, served_models: tuple[str, ...], lasts: int
    ) -> tuple[HeldIn, Price | None]:
        """The accounts a caller's request is held in, and the price it is held at; no price when nothing is to be held."""
        over = self._budgets.over(caller)
        hard = [budget for budget in over if budget.is_hard]
        if not over:
            return [], None
        try:
            price = dearest_price(
                self._prices, model, served_models, start=as_datetime(self._now), end=as_datetime(self._now + lasts)
            )
        except PricesOfSeveralCurrencies:
            if hard:
                raise CurrenciesMixed(f"the models behind {model!r} are priced in several currencies") from None
            return [], None
        if price is None and hard:
            raise ModelUnpriced(f"{model!r} has no price, and a hard budget stands over the caller")
        if price is None:
            return [], None
        if hard and not any(budget.currency == price.currency for budget in hard):
            raise CurrencyNotBudgeted(f"{model!r} costs {price.currency}; no budget of the caller is in it")
        found = [
            (budget, self._accounts[budget.account_of(caller)]) for budget in over if budget.currency == price.currency
        ]
        return found, price if found else None

    def _left(self, held_in: HeldIn) -> int | None:
        """What all hard budgets have left; None when there is none."""
        return min((account.available(budget) for budget, account in held_in if budget.is_hard), default=None)

    def _exhausted(self, held_in: HeldIn, least: int) -> BudgetExhausted:
        short = [(b, account) for b, account in held_in if b.is_hard and account.available(b) < least]
        for _, account in short:
            if account.was_refused(at=self._now):
                self.changed_accounts.add(account.key)
                self._tell(account, 100, is_refusal=True)
        budget, account = max(short, key=lambda pair: self._free_at(pair[0], pair[1], least))
        return BudgetExhausted(budget.budget_id, budget.scope, self._free_at(budget, account, least))

    def _free_at(self, budget: Budget, account: Account, least: int) -> int:
        if account.spent + least <= budget.limit_nano:
            return min(self._now + _HELD_RETRY_US, budget.window_end(self._now))
        return budget.window_end(self._now)

    def _new_hold(
        self,
        order: ReserveOrder | LeaseOrder,
        kind: HoldKind,
        held_in: HeldIn,
        currency: str,
        *,
        granted: int,
        asked: str,
    ) -> Hold:
        hold = Hold(
            order.hold_id,
            kind,
            order.caller,
            request_id="",
            holder="",
            model=order.model,
            served_models=order.served_models,
            currency=currency,
            accounts=tuple(account.key for _, account in held_in),
            fingerprint=asked,
            granted=granted,
            created_at=self._now,
            expires_at=self._now + order.lasts,
        )
        self._holds[hold.hold_id] = hold
        return hold

    def _restate(self, hold: Hold) -> None:
        """Brings what the accounts hold in line with the hold."""
        change, hold.held = hold.due() - hold.held, hold.due()
        self.changed_holds[hold.hold_id] = hold
        for key in hold.accounts if change else ():
            account = self._accounts[key]
            account.held += change
            account.leased += change if hold.kind is HoldKind.LEASE else 0
            self.changed_accounts.add(key)

    def _found(self, hold_id: str, tenant_id: str, kind: HoldKind) -> Hold:
        hold = self._holds.get(hold_id)
        if hold is None or hold.kind is not kind or (tenant_id and hold.caller.tenant_id != tenant_id):
            raise HoldUnknown("there is no such hold" if kind is HoldKind.REQUEST else "there is no such lease")
        return hold

    def _price_of(self, hold: Hold, start: int, end: int) -> Price | None:
        try:
            return dearest_price(
                self._prices, hold.model, hold.served_models, start=as_datetime(start), end=as_datetime(end)
            )
        except PricesOfSeveralCurrencies:
            return None

    def _tell(self, account: Account, percent: int, *, is_refusal: bool) -> None:
        self.crossings.append(
            Crossing(account.key, percent, is_refusal, self._now, account.window_start, account.spent, account.held)
        )


def order_content(order: ReserveOrder | LeaseOrder) -> tuple[object, ...]:
    """What must be the same when an order is repeated."""
    if isinstance(order, ReserveOrder):
        tokens = (order.prompt_tokens, order.max_output_tokens, order.min_output_tokens)
        return (order.model, order.served_models, *tokens)
    return (order.holder, order.model, order.served_models, order.amount, order.currency)


def as_datetime(moment: int) -> datetime:
    return _EPOCH + timedelta(microseconds=moment)


def _same(found: Hold, asked: str, name: str) -> Hold:
    if found.fingerprint != asked:
        raise HoldConflict(f"the {name} was used for something else already: use a new one")
    if found.state is not HoldState.OPEN:
        raise HoldConflict(f"what this {name} stands for has ended already: use a new one")
    return found
