"""Shows dead letters: many in a table, one whole. Never bytes that could not be read, but as hex when asked for."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.table import Table
from sluice_kit.completeness import REPLAYED_FROM
from sluice_kit.dead_letters import RESERVED
from sluice_kit.events import UndecodableEvent, decode

from sluice_cli.dead_letters.letters import Letter

# What may be shown as text of a record that could not be read: names that we or CloudEvents give, short by nature.
_SHOWN = RESERVED | {REPLAYED_FROM, "content-type", "traceparent"}


@dataclass(frozen=True)
class Group:
    """Letters of one topic and reason."""

    topic: str
    reason: str
    count: int
    oldest: datetime
    newest: datetime
    first_offset: int
    last_offset: int
    groups: tuple[str, ...]
    """Consumer groups that gave them up."""

    def with_letter(self, letter: Letter) -> "Group":
        """And one more."""
        offset, told = letter.record.offset, letter.told.group if letter.told else ""
        return replace(
            self,
            count=self.count + 1,
            oldest=min(self.oldest, letter.at),
            newest=max(self.newest, letter.at),
            first_offset=min(self.first_offset, offset),
            last_offset=max(self.last_offset, offset),
            groups=tuple(sorted({*self.groups, told} - {""})),
        )


def grouped(groups: dict[tuple[str, str], Group], letter: Letter) -> None:
    """Count a letter."""
    key = letter.topic, letter.reason
    offset = letter.record.offset
    begun = Group(*key, 0, letter.at, letter.at, offset, offset, ())
    groups[key] = groups.get(key, begun).with_letter(letter)


def show_groups(groups: Sequence[Group], console: Console, *, as_json: bool) -> None:
    """A line a topic and reason."""
    if as_json:
        told = [vars(group) | {"oldest": _time(group.oldest), "newest": _time(group.newest)} for group in groups]
        console.out(json.dumps(told, indent=2), highlight=False)
        return
    if not groups:
        console.print("No dead letters.")
        return
    table = Table("topic", "reason", "letters", "oldest", "newest", "offsets", "given up by", box=None)
    for group in groups:
        table.add_row(
            group.topic,
            group.reason,
            str(group.count),
            _time(group.oldest),
            _time(group.newest),
            f"{group.first_offset}-{group.last_offset}",
            ", ".join(group.groups),
        )
    console.print(table)


def describe(letter: Letter, *, raw: bool) -> dict[str, Any]:
    """One letter whole. The event when it can be read; else sizes; the bytes as hex only with `raw`."""
    record, told = letter.record, letter.told
    shown: dict[str, Any] = {"letter": letter.place, "reason": letter.reason, "given_up_at": _time(letter.at)}
    if told:
        shown |= {
            "source": f"{told.source_topic}/{told.source_partition}/{told.source_offset}",
            "group": told.group,
            "attempts": told.attempts,
        }
    shown["headers"] = dict(_header(name, value) for name, value in record.headers if name not in RESERVED)
    shown |= {"key_bytes": len(record.key or b""), "value_bytes": len(record.value or b"")} | _content(letter)
    if raw:
        shown |= {"key_hex": (record.key or b"").hex(), "value_hex": (record.value or b"").hex()}
    return shown


def _content(letter: Letter) -> dict[str, Any]:
    if letter.told and letter.told.value_omitted:
        return {"event": None, "why": "the record was too large for a letter: it stands at its source"}
    try:
        message = decode(letter.topic, letter.record.value, dict(letter.record.headers))
    except UndecodableEvent as error:
        return {"event": None, "why": f"cannot be read ({error.reason}); --raw shows the bytes as hex"}
    return {"event": MessageToDict(message, preserving_proto_field_name=True)}


def _header(name: str, value: bytes) -> tuple[str, str]:
    known = name in _SHOWN or name.startswith("ce_")
    text = (
        value.decode(errors="replace") if known and value.isascii() and len(value) <= 200 else f"({len(value)} bytes)"
    )
    return name, text


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
