"""What was spent: sums over ledger entries, chosen and grouped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from sluice_cost.domain.ledger import Partition

HOUR = timedelta(hours=1)
MOST_GROUPS = 10_000


class Dimension(StrEnum):
    """What spend can be grouped and chosen by."""

    TENANT = "tenant_id"
    PROJECT = "project_id"
    MODEL = "model"
    API_KEY = "api_key_id"
    SUBJECT = "subject_id"
    DAY = "day"
    """UTC, as `2026-11-24`."""
    ROUTE = "route"
    CHARGE_KIND = "charge_kind"
    OUTCOME = "outcome"
    SERVED_MODEL = "served_model"
    PROMPT_VERSION = "prompt_version"
    EXPERIMENT_ARM = "experiment_arm"
    OPERATION = "operation"
    HOUR = "hour"
    """UTC, as `2026-11-24T13`."""


class TooManyGroups(ValueError):
    """The answer would have more than MOST_GROUPS groups."""


@dataclass(frozen=True, slots=True)
class SpendFilter:
    """Chooses entries whose `dimension` is one of `values`."""

    dimension: Dimension
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class SpendQuery:
    """Entries that happened in [start, end) and match every filter."""

    start: datetime
    end: datetime
    filters: Sequence[SpendFilter] = ()
    group_by: Sequence[Dimension] = ()
    callers_only: bool = False
    """Leave out what no caller asked for: the mesh's self-tests, and the judging of answers."""


@dataclass(slots=True)
class Spend:
    """Sums over some entries. The amount is in nano-units of one currency."""

    row_count: int = 0
    request_count: int = 0
    unpriced_request_count: int = 0
    estimated_request_count: int = 0
    amount_nano: int = 0
    uncached_input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cpu_us: int = 0
    accelerator_us: int = 0

    def add(self, other: "Spend") -> None:
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


SUMS = tuple(Spend.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class SpendGroup:
    """Which entries a sum is over: values in the order of `group_by`, one currency."""

    values: tuple[str, ...]
    currency: str


@dataclass(frozen=True, slots=True)
class SpendReport:
    """The groups with their sums, and how far the events were read when they were summed."""

    groups: Sequence[tuple[SpendGroup, Spend]]
    complete_up_to: Mapping[Partition, int]


def largest_first(groups: Mapping[SpendGroup, Spend]) -> list[tuple[SpendGroup, Spend]]:
    """Groups by falling amount, then by falling number of requests, then by name."""
    return sorted(
        groups.items(),
        key=lambda item: (-item[1].amount_nano, -item[1].request_count, item[0].values, item[0].currency),
    )


class SpendReader(Protocol):
    """Where spend is summed."""

    async def spend(self, query: SpendQuery) -> SpendReport:
        """Raises TooManyGroups, and LedgerUnavailable when the database cannot be reached."""
