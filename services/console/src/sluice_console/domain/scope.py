"""What part of the picture a page shows: whose, since when, split by what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sluice_console.domain.people import Person

RANGES: Mapping[str, tuple[timedelta, timedelta]] = {
    "15m": (timedelta(minutes=15), timedelta(minutes=1)),
    "1h": (timedelta(hours=1), timedelta(minutes=1)),
    "6h": (timedelta(hours=6), timedelta(minutes=5)),
    "24h": (timedelta(hours=24), timedelta(minutes=30)),
    "7d": (timedelta(days=7), timedelta(hours=3)),
    "30d": (timedelta(days=30), timedelta(days=1)),
}
"""Name to length of the range and of its windows: at most 73 windows are drawn. Beyond a day windows are of whole hours, for insight's history is."""
RANGE_NAMES: Mapping[str, str] = {"15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 d", "30d": "30 d"}
"""Name to the words of its tab, the shortest first."""
SLICES: Mapping[str, str] = {
    "tenant": "tenant",
    "model": "model",
    "prompt_version": "prompt version",
    "route": "route",
    "project": "project",
    "experiment_arm": "experiment arm",
}
_DEFAULT_RANGE = "1h"
_VALUE = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_TENANT = re.compile(r"[\x20-\x7e]{1,200}")
"""A tenant's id goes into a header of every question, where nothing but ASCII may stand."""
_FILTERS = ("tenant", "model", "prompt_version", "route", "project", "experiment_arm")


class BadScope(ValueError):
    """A query that a page of ours does not make; the message names the field."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is shown."""

    range: str
    by: str
    filters: Mapping[str, str]

    @property
    def length(self) -> timedelta:
        return RANGES[self.range][0]

    @property
    def window(self) -> timedelta:
        return RANGES[self.range][1]

    @property
    def settle_seconds(self) -> float:
        """A page is drawn at most so often, however fast numbers change: a month is read from a disk, and moves slowly."""
        return 2.0 if self.length <= timedelta(days=1) else 60.0

    @property
    def tenant(self) -> str:
        """The one tenant shown; empty means all that the person may see."""
        return self.filters.get("tenant", "")

    def start(self, now: datetime) -> datetime:
        """First moment shown."""
        return now - self.length


def scope_of(query: Mapping[str, str], person: Person) -> Scope:
    """Reads a page's query. Whoever is bound to a tenant sees that one, whatever the query says. Raises BadScope."""
    range_ = query.get("range") or _DEFAULT_RANGE
    if range_ not in RANGES:
        raise BadScope(f"range must be one of {', '.join(RANGES)}")
    by = query.get("by") or ("model" if person.tenant_id else "tenant")
    if by not in SLICES:
        raise BadScope(f"by must be one of {', '.join(SLICES)}")
    filters: dict[str, str] = {}
    for name in _FILTERS:
        value = query.get(name, "").strip()
        if not value:
            continue
        if not _VALUE.fullmatch(value):
            raise BadScope(f"{name} must be 1 to 200 printable characters")
        if name == "tenant" and not _TENANT.fullmatch(value):
            raise BadScope("tenant must be of ASCII letters, digits and signs")
        filters[name] = value
    if person.tenant_id:
        filters["tenant"] = person.tenant_id
    return Scope(range_, by, filters)
