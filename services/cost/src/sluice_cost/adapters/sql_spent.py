"""What the ledger enters is spent: budgets' counters and holds follow in the ledger's own transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection

from sluice_cost.adapters.budget_events import put_crossings
from sluice_cost.adapters.sql_books import Terms, close_books, guard, open_books
from sluice_cost.domain.holds import Posting


def count_spent(connection: Connection, postings: Sequence[Posting], terms: Terms, *, now: int) -> bool:
    """Counts new ledger rows in the budgets over their callers and relieves their holds; True when something is to be told.

    To be called once a transaction, after all other writes: it locks accounts until the transaction ends.
    Raises BeginAgain.
    """
    if not postings:
        return False
    guard(connection)
    budgets, prices = terms.read(connection)
    hold_ids = {posting.hold_id for posting in postings if posting.hold_id}
    keys = {
        budget.account_of(posting.caller)
        for posting in postings
        for budget in budgets.over(posting.caller)
        if budget.currency == posting.currency
    }
    books = open_books(connection, budgets, prices, keys=keys, hold_ids=hold_ids, now=now)
    for posting in postings:
        books.enter(posting)
    close_books(connection, books)
    put_crossings(connection, books.crossings, budgets)
    return bool(books.crossings)
