"""What the producers' outboxes on this machine still hold: events that wait to be sent, and those that Kafka refused."""

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sluice_kit.completeness import Intervals, Range

from sluice_cli.mesh.problem import MeshProblem


@dataclass(frozen=True)
class Kept:
    """Numbers of one producer on one topic that are not in Kafka, and known not to be."""

    waiting: tuple[Range, ...] = ()
    refused: tuple[Range, ...] = ()


_TABLES = {"waiting": "outbox", "refused": "refused"}


def kept(home: Path) -> Mapping[tuple[str, str], Kept]:
    """By topic and producer, from every outbox below a home; empty when the mesh runs elsewhere."""
    numbers: defaultdict[tuple[str, str], dict[str, Intervals]] = defaultdict(
        lambda: {"waiting": Intervals(), "refused": Intervals()}
    )
    for path in sorted({*home.glob("outbox/*.db"), *home.glob("*/outbox-*.db")}):
        for kind, topic, producer, number in _rows(path):
            numbers[topic, producer][kind].add(number)
    return {
        place: Kept(waiting=tuple(found["waiting"]), refused=tuple(found["refused"]))
        for place, found in numbers.items()
    }


def _rows(path: Path) -> list[tuple[str, str, str, int]]:
    """(kind, topic, producer, number) of an outbox, read without disturbing its owner."""
    found = []
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as outbox:
            for kind, table in _TABLES.items():
                for topic, headers in outbox.execute(f"SELECT topic, headers FROM {table}"):  # noqa: S608 - two fixed names
                    told = dict(json.loads(headers))
                    if told.get("ce_sequence", "").isdecimal():
                        found.append((kind, topic, told.get("ce_source", ""), int(told["ce_sequence"])))
    except sqlite3.Error as error:
        raise MeshProblem(f"The outbox {path} cannot be read ({type(error).__name__}).") from None
    return found
