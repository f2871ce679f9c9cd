"""The README names what the code reads and answers."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from sluice.events.v1.alert_pb2 import AlertRaised
from sluice_insight.adapters.alerting.interventions import INTERVENTIONS
from sluice_insight.adapters.stories.events import STORY_EVENTS
from sluice_insight.consumer import EVENTS
from sluice_insight.domain.catalogue import METRICS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
_BRACES = re.compile(r"\{([^}]*)\}")


def expanded(name: str) -> list[str]:
    """`a.{b,c}.d` as `a.b.d`, `a.c.d`."""
    parts = _BRACES.split(name)
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]


def test_every_event_that_is_read_is_named() -> None:
    [row] = [line for line in README.splitlines() if line.startswith("| reads |")]
    read = {event.DESCRIPTOR.name for event in (*EVENTS, *STORY_EVENTS, *INTERVENTIONS, AlertRaised)}
    assert set(re.findall(r"`([A-Z]\w+)`", row)) == read


def test_every_metric_of_drift_is_named_and_no_other() -> None:
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `drift.")]
    named = {one for row in rows for token in re.findall(r"`(drift[^`]*)`", row) for one in expanded(token)}
    assert named == {name for name in METRICS if name.startswith("drift.")}
