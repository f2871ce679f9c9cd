"""Who publishes an event and who reads it, found in the code: a service that makes one publishes it, one that names it otherwise reads it."""

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

from contracts.sources import ROOT, Event


@dataclass(frozen=True)
class Mentions:
    """Class names in the source of a service."""

    made: frozenset[str]
    """Called: `gateway_pb2.RequestCompleted(...)`."""
    named: frozenset[str]
    """Named at all, imports left aside."""


@functools.cache
def services() -> dict[str, Mentions]:
    """Service to what its source mentions. The kit, the library and the command line are no services."""
    folders = sorted(path for path in (ROOT / "services").glob("[a-z]*/src"))
    return {folder.parent.name: _mentions(folder) for folder in folders}


def _mentions(folder: Path) -> Mentions:
    made, named = set(), set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name | ast.Attribute):
                named.add(_last(node))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                made.add(_last(node.func))
    return Mentions(frozenset(made), frozenset(named))


def _last(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def publisher(event: Event) -> str:
    """The service, `sluice` for the command line, or nothing for an event that is declared and that nobody makes yet."""
    mentions = services().get(event.service)
    if mentions is not None and event.name in mentions.made:
        return event.service
    return "sluice" if event.name in _command_line().made else ""


@functools.cache
def _command_line() -> Mentions:
    return _mentions(ROOT / "services" / "_cli" / "src")


def readers(event: Event) -> list[str]:
    """Services that consume it."""
    others = {name: mentions for name, mentions in services().items() if name != event.service}
    return [name for name, mentions in others.items() if event.name in mentions.named - mentions.made]
