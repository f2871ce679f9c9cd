"""Tells the mesh where budgets stand: makes BudgetChanged and puts it into the outbox."""

from collections.abc import Sequence

from sqlalchemy import Connection

from sluice_cost.domain.budget import BudgetIndex
from sluice_cost.domain.holds import Crossing


def put_crossings(connection: Connection, crossings: Sequence[Crossing], budgets: BudgetIndex) -> None:
    """Puts an event a crossing into the outbox."""
