"""The servicer: the methods of the contract, each group in a file of its own."""

from collections.abc import Callable
from datetime import datetime

from sluice.cost.v1 import cost_service_pb2_grpc as pb_grpc

from sluice_cost.api.budgets import BudgetMethods
from sluice_cost.api.focus import FocusMethods
from sluice_cost.api.forecast import ForecastMethods
from sluice_cost.api.holds import HoldMethods
from sluice_cost.api.ledger import LedgerMethods
from sluice_cost.api.price_import import PriceImportMethods
from sluice_cost.api.prices import PriceMethods
from sluice_cost.api.spend import SpendMethods
from sluice_cost.domain.budget import BudgetStore
from sluice_cost.domain.chain import ChainVerifier
from sluice_cost.domain.corrections import Recomputer
from sluice_cost.domain.holds import HoldDesk
from sluice_cost.domain.ledger import EntryReader
from sluice_cost.domain.pricing import PriceStore
from sluice_cost.domain.spend import SpendReader


class CostServicer(
    SpendMethods,
    ForecastMethods,
    PriceMethods,
    PriceImportMethods,
    BudgetMethods,
    HoldMethods,
    LedgerMethods,
    FocusMethods,
    pb_grpc.CostServiceServicer,
):
    """CostService, made of its groups of methods; what they share stands here."""

    def __init__(
        self,
        *,
        spend: SpendReader,
        prices: PriceStore,
        budgets: BudgetStore,
        holds: HoldDesk,
        verifier: ChainVerifier,
        recomputer: Recomputer,
        entries: EntryReader,
        clock: Callable[[], datetime],
    ) -> None:
        self._spend, self._prices, self._budgets, self._holds, self._clock = spend, prices, budgets, holds, clock
        self._verifier, self._recomputer, self._entries = verifier, recomputer, entries
