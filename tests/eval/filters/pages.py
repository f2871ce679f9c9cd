"""The pages that measurements write: docs/filters/<name>.md, with where, when and how they were made."""

import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs" / "filters"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers are given as strings already formatted."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)])


def share(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _commit() -> str:
    ran = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "services", "tests/eval"], cwd=ROOT, capture_output=True, text=True
    )
    return (ran.stdout.strip() or "unknown") + (" with changes" if changed.stdout.strip() else "")


def origin(command: str, packages: Iterable[str], **settings: object) -> str:
    """When, where and how a page was made."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    given = ", ".join(f"{name} {value}" for name, value in settings.items())
    return (
        f"Made {dt.datetime.now(dt.UTC):%d %B %Y %H:%M} UTC by `{command}` ({given}) at commit {_commit()}; Python {platform.python_version()}, "
        f"{versions}; {os.cpu_count()} cores ({_cpu()}), load average {load}. Do not edit: the command writes this page."
    )


def write(name: str, title: str, parts: Iterable[str], *, folder: Path = FOLDER) -> None:
    """Prints the page and writes it."""
    text = f"# {title}\n\n" + "\n\n".join(part.strip() for part in parts) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def summarise(service: str, name: str, text: str, *, root: Path = ROOT) -> None:
    """Puts the main numbers of a page between its marks in a service's README; raises ValueError if the marks are not there."""
    readme = root / "services" / service / "README.md"
    begin, end = f"<!-- {name}: written by a command -->", f"<!-- end of {name} -->"
    before, found, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(
            f"{readme} has no place for {name}: put the lines `{begin}` and `{end}` where its numbers belong"
        )
    told = (
        f"{text.strip()}\n\n{dt.datetime.now(dt.UTC):%d %B %Y}, [docs/filters/{name}.md](../../docs/filters/{name}.md)."
    )
    readme.write_text(f"{before}{begin}\n{told}\n{end}{after}", encoding="utf-8")
