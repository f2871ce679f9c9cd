"""Windows that were published beside windows that were counted again from the same events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO

from google.protobuf.json_format import MessageToDict
from sluice.events.v1.quality_pb2 import QualityMeasured

_EXAMPLES = 10
Windows = Mapping[str, QualityMeasured]
"""By part key."""
Ends = Mapping[tuple[str, int], int]
"""Offset after the last that was read, by source topic and partition."""


@dataclass(frozen=True)
class WindowDifference:
    """Two sets of windows."""

    same: int = 0
    different: int = 0
    only_live: int = 0
    only_replayed: int = 0
    begun_before: int = 0
    """Windows of which the range holds only the end."""
    still_open: int = 0
    """Windows that the processor may not have published as they are, or that hold facts behind the range."""
    examples: tuple[str, ...] = ()

    @property
    def is_none(self) -> bool:
        """True when every window that can be compared is the same."""
        return not (self.different or self.only_live or self.only_replayed)


def content(event: QualityMeasured) -> QualityMeasured:
    """What was counted, without who published it, when, and as of which watermark."""
    bare = QualityMeasured()
    bare.CopyFrom(event)
    bare.ClearField("metadata")
    bare.part.ClearField("closed")
    bare.part.ClearField("complete_up_to")
    return bare


def newest(events: Iterable[QualityMeasured]) -> dict[str, QualityMeasured]:
    """The highest (revision, closed) of every part: what a reader of the topic holds to be true."""
    found: dict[str, QualityMeasured] = {}
    for event in events:
        known = found.get(event.part.part_key)
        if known is None or (event.part.revision, event.part.closed) > (known.part.revision, known.part.closed):
            found[event.part.part_key] = event
    return found


def compare(live: Windows, replayed: Windows, *, ends: Ends, whole_from_us: int, open_from_us: int) -> WindowDifference:
    """Window by window. Those that begin before `whole_from_us` are not whole in the range, those that end behind
    `open_from_us` may not be published yet."""
    counts = dict.fromkeys(("same", "different", "only_live", "only_replayed", "begun_before", "still_open"), 0)
    examples: list[str] = []
    for key in sorted(live.keys() | replayed.keys()):
        left, right = live.get(key), replayed.get(key)
        kind = _kind(left, right, ends=ends, whole_from_us=whole_from_us, open_from_us=open_from_us)
        counts[kind] += 1
        if kind in ("different", "only_live", "only_replayed") and len(examples) < _EXAMPLES:
            examples.append(f"{key}: {_what(left, right)}")
    return WindowDifference(**counts, examples=tuple(examples))


def write_dump(windows: Windows, file: IO[bytes]) -> str:
    """One JSON line a window, by key; returns the SHA-256 of what was written."""
    digest = hashlib.sha256()
    for key in sorted(windows):
        told = MessageToDict(content(windows[key]), preserving_proto_field_name=True)
        line = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
        digest.update(line)
        file.write(line)
    return digest.hexdigest()


def _kind(
    left: QualityMeasured | None, right: QualityMeasured | None, *, ends: Ends, whole_from_us: int, open_from_us: int
) -> str:
    either = left or right
    assert either is not None
    start = either.window.start.ToMicroseconds()
    if left is not None and right is not None and content(left) == content(right):
        return "same"
    if start < whole_from_us:
        return "begun_before"
    if start + either.window.length.ToMicroseconds() > open_from_us or (left is not None and _reaches_past(left, ends)):
        return "still_open"
    return "only_replayed" if left is None else "only_live" if right is None else "different"


def _reaches_past(event: QualityMeasured, ends: Ends) -> bool:
    partition = event.part.source_partition
    return any(offset >= ends.get((topic, partition), 0) for topic, offset in event.part.source_offsets.items())


def _what(left: QualityMeasured | None, right: QualityMeasured | None) -> str:
    if left is None or right is None:
        return f"only {'live' if left else 'replayed'}"
    one, other = (MessageToDict(content(event), preserving_proto_field_name=True) for event in (left, right))
    changed = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return f"{', '.join(changed)} differ (revision {left.part.revision} -> {right.part.revision})"
