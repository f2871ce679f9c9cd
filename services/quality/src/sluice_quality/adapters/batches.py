"""Which events are decoded together, and which one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.events import topic_of
from sluice_kit.streams.source import SourceEvent
from sluice_kit.telemetry import logger

from sluice_quality.domain.facts import Fact

if TYPE_CHECKING:  # numpy comes with an extra
    from sluice_quality.domain.columns import CompletionColumns

log = logger(__name__)

WORTH_IT = 1000
"""Fewer events of a partition gain little: then a second's windows are what costs. And a worker below 4,000 events/s never loads
the 100 MiB of Arrow."""

Found = tuple[list[Fact | None], list[int]]
_COMPLETED = topic_of(RequestCompleted).name


def together(events: Sequence[SourceEvent]) -> CompletionColumns | Found:
    """A batch of one topic as columns; or its facts by their place, and the places of those that must be read one by one."""
    read = _columns() if len(events) >= WORTH_IT and events[0].message.topic == _COMPLETED else None
    return read(events) if read else ([None] * len(events), list(range(len(events))))


@cache
def _columns() -> Callable[[Sequence[SourceEvent]], CompletionColumns | Found] | None:
    """None without the extra `sluice-quality[columns]`, or with a broken one: slower, and the same facts."""
    try:
        from sluice_quality.adapters.columns import read_together
    except ImportError as error:
        log.warning("columns.off", reason=str(error), mend="install sluice-quality[columns]")
        return None
    log.info("columns.on")
    return read_together
