"""Replays: projections rebuilt from the topics by the services that own them, as processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sluice_cli.mesh import demo_env
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.mesh.supervisor import Supervisor

# What a service answers when the rebuilt projection is not the live one: no failure of the replay.
DIFFERENT = 3


@dataclass(frozen=True)
class Projection:
    """Something that a service derives from events."""

    service: str
    module: str
    """Run as `python -m`: the command may not import a service."""
    is_exchanged: bool
    """True where a switch puts another store in the live one's place, for which the service must be stopped."""


PROJECTIONS = {
    "ledger": Projection("cost", "sluice_cost.replay", is_exchanged=True),
    "metrics": Projection("quality", "sluice_quality.replay", is_exchanged=False),
    "feedback": Projection("feedback", "sluice_feedback.replay", is_exchanged=True),
    "drift": Projection("drift", "sluice_drift.replay", is_exchanged=False),
    "insight": Projection("insight", "sluice_insight.replay", is_exchanged=False),
}
REFUSED = {
    "fairness": "The windows of fairness cannot be replayed yet; another SLUICE_FAIRNESS_GROUP counts everything anew.",
}


def projection(name: str) -> Projection:
    """The projection of this name; MeshProblem for one that cannot be replayed, saying why."""
    if name in REFUSED:
        raise MeshProblem(REFUSED[name])
    if name not in PROJECTIONS:
        known = ", ".join([*PROJECTIONS, *REFUSED])
        raise MeshProblem(f"There is no projection {name}; there are {known}.")
    return PROJECTIONS[name]


def build(found: Projection, home: Home, *, into: str, begin: str, export: Path | None) -> dict[str, Any]:
    """Rebuild beside the live one; the service's report."""
    export_to = ["--export", str(export.absolute())] if export else []
    return _run(found, home, ["--into", into, *(["--from", begin] if begin else []), *export_to])


def switch(found: Projection, home: Home, *, into: str, accept_differences: bool) -> dict[str, Any]:
    """Exchange, with the service stopped where this home's supervisor runs it; or publish windows corrected."""
    arguments = ["--into", into, "--switch", *(["--accept-differences"] if accept_differences else [])]
    if not found.is_exchanged:
        return _run(found, home, arguments)
    with Supervisor(home).without(found.service):
        return _run(found, home, arguments)


def show(report: Mapping[str, Any], console: Console) -> None:
    """What was replayed, and how it differs."""
    difference = report["difference"]
    for span in report["spans"]:
        topic = f"{span['topic']} " if "topic" in span else ""
        _line(console, f"{topic}partition {span['partition']}: offsets {span['from']} to {span['until']}")
    for partition, offset in report["deleted_before"].items():
        _line(
            console,
            f"partition {partition} begins at {offset}: what was before is deleted, and stands only in the live one",
        )
    for reason, count in report["skipped"].items():
        _line(console, f"{count} records can never be entered ({reason})")
    _line(console, f"{report['events']} events into `{report['into']}`, sha256 {report['sha256']}")
    _line(console, _told(difference) + _whole(report, "sums") + _whole(report, "chains"))
    for example in difference["examples"]:
        _line(console, f"  {example}")
    for remark in report.get("unlike", ()):
        _line(console, f"  {remark}")
    if report.get("corrected") or report.get("held"):
        _line(
            console,
            f"{report['corrected']} windows published as they were counted here; {report['held']} left alone, because the processor "
            "still restates them",
        )
    if report["kept_as"]:
        _line(console, f"Switched. The former one is kept: {report['kept_as']}")


_KINDS = {
    "same": "the same",
    "different": "different",
    "only_live": "only live",
    "only_replayed": "only replayed",
    "corrected": "the same once corrected",
    "begun_before": "begun before the range",
    "still_open": "still open",
    "forgotten": "forgotten by the live one",
    "under_way": "under way",
}
_ALWAYS = 4


def _told(difference: Mapping[str, Any]) -> str:
    """The first four kinds always, the others where there are any."""
    counts = [(difference.get(kind, 0), words) for kind, words in _KINDS.items()]
    return ", ".join(f"{count} {words}" for at, (count, words) in enumerate(counts) if count or at < _ALWAYS)


def _whole(report: Mapping[str, Any], name: str) -> str:
    same = report.get(f"{name}_same")
    if same is None:
        return ""
    return f"; {name} the same" if same else f"; {name.upper()} DIFFERENT"


def _run(found: Projection, home: Home, arguments: Sequence[str]) -> dict[str, Any]:
    known = demo_env.read(home) if home.demo_env.exists() else {}
    # The environment of the caller wins, as it does for the services themselves.
    environment = {"SLUICE_HOME": str(home.path)} | known | dict(os.environ)
    command = [sys.executable, "-m", found.module, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, DIFFERENT):
        told = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise MeshProblem(told[-1] if told else f"{found.module} ended with exit code {done.returncode}.")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
