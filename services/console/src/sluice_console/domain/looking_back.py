"""Which window of fairness or drift a page shows, of those that can be looked back to, and how an address names it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sluice_console.domain.scope import BadScope

_NAME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z")


@dataclass(frozen=True, slots=True)
class KeptWindow:
    """A window that can be looked back to."""

    start: datetime
    found: int
    """Groups that were treated differently in it, in all attributes; of drift series that had drifted."""

    @property
    def name(self) -> str:
        """As an address has it."""
        return name_of(self.start)

    @property
    def time(self) -> str:
        """Of its day."""
        return self.start.astimezone(UTC).strftime("%H:%M:%S" if self.start.second else "%H:%M")


@dataclass(frozen=True, slots=True)
class LookingBack:
    """The windows that are kept, the newest first, and the one that is asked for; None asks for the newest of every group, or series."""

    kept: Sequence[KeptWindow]
    start: datetime | None = None

    @property
    def is_known(self) -> bool:
        """Whether what is asked for is there. The newest is, even where there is none yet."""
        return self.start is None or any(one.start == self.start for one in self.kept)

    @property
    def older(self) -> KeptWindow | None:
        """The one before; before the newest, where none is named."""
        if self.start is None:
            return self.kept[1] if len(self.kept) > 1 else None
        return next((one for one in self.kept if one.start < self.start), None)

    @property
    def newer(self) -> KeptWindow | None:
        """The one after."""
        if self.start is None:
            return None
        return next((one for one in reversed(self.kept) if one.start > self.start), None)


def name_of(start: datetime) -> str:
    """2026-11-26T12:00Z; with seconds where there are any."""
    at = start.astimezone(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ" if at.second else "%Y-%m-%dT%H:%MZ")


def named(text: str) -> datetime | None:
    """The start of the window that an address names; None where it names none. Raises BadScope."""
    if not text:
        return None
    try:
        if _NAME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:  # no such day, or hour
        pass
    raise BadScope("window must be the beginning of one, such as 2026-11-26T12:00Z")
