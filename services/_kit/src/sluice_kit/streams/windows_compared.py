"""Windows that were published beside windows that were counted again from the same events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

_EXAMPLES = 10
DIFFERENT, ONLY_LIVE, ONLY_REPLAYED = "different", "only_live", "only_replayed"
_UNLIKE = (DIFFERENT, ONLY_LIVE, ONLY_REPLAYED)

Window = Any
"""An event with `metadata`, `window` (MetricWindow) and `part` (WindowPart), such as QualityMeasured."""
Windows = Mapping[str, Window]
"""By part key."""
Ends = Mapping[tuple[str, int], int]
"""Offset after the last that was read, by source topic and partition."""
Same = Callable[[Window, Window], bool]
WindowT = TypeVar("WindowT", bound=Message)


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


@dataclass(frozen=True, kw_only=True)
class Horizons:
    """What the range can tell. Times in microseconds."""

    ends: Ends
    whole_from_us: int
    """Windows that begin earlier are not whole in the range."""
    open_from_us: int
    """Windows that end later may not be published yet."""
    untold: Set[str] = field(default_factory=frozenset)
    """Keys of windows that depend on something before the range."""


def content(event: WindowT) -> WindowT:
    """What was counted, without who published it, when, and as of which watermark."""
    bare: Any = type(event)()
    bare.CopyFrom(event)
    bare.ClearField("metadata")
    bare.part.ClearField("closed")
    bare.part.ClearField("complete_up_to")
    return bare


def same(live: Window, replayed: Window) -> bool:
    """The same was counted. A window that a replay has corrected has a higher revision than it was counted to."""
    if live.part.revision < replayed.part.revision:
        return False
    left, right = content(live), content(replayed)
    right.part.revision = left.part.revision
    return left == right


def withdrawn(event: WindowT) -> WindowT:
    """The window with nothing in it."""
    empty: Any = type(event)()
    for name in ("series", "window", "part"):
        getattr(empty, name).CopyFrom(getattr(event, name))
    empty.part.ClearField("source_offsets")
    empty.metadata.tenant_id = event.metadata.tenant_id  # type: ignore[attr-defined]
    return empty


def newest(events: Iterable[Window]) -> dict[str, Window]:
    """The highest (revision, closed) of every part: what a reader of the topic holds to be true."""
    found: dict[str, Window] = {}
    for event in events:
        known = found.get(event.part.part_key)
        if known is None or (event.part.revision, event.part.closed) > (known.part.revision, known.part.closed):
            found[event.part.part_key] = event
    return found


def kinds(live: Windows, replayed: Windows, horizons: Horizons, *, alike: Same = same) -> dict[str, str]:
    """Window by window, by part key in order: a field of WindowDifference."""
    return {
        key: _kind(key, live.get(key), replayed.get(key), horizons, alike) for key in sorted(live.keys() | replayed)
    }


def difference(live: Windows, replayed: Windows, found: Mapping[str, str]) -> WindowDifference:
    """What `kinds` found, in numbers."""
    counts = dict.fromkeys(("same", *_UNLIKE, "begun_before", "still_open"), 0)
    for kind in found.values():
        counts[kind] += 1
    unlike = [key for key, kind in found.items() if kind in _UNLIKE][:_EXAMPLES]
    examples = tuple(f"{key}: {_what(live.get(key), replayed.get(key))}" for key in unlike)
    return WindowDifference(**counts, examples=examples)


def write_dump(windows: Windows, file: IO[bytes]) -> str:
    """One JSON line a window, by key; returns the SHA-256 of what was written."""
    digest = hashlib.sha256()
    for key in sorted(windows):
        told = MessageToDict(content(windows[key]), preserving_proto_field_name=True)
        line = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
        digest.update(line)
        file.write(line)
    return digest.hexdigest()


def end_of(event: Window) -> int:
    """Moment after the window, in microseconds."""
    return int(event.window.start.ToMicroseconds() + event.window.length.ToMicroseconds())


def _kind(key: str, left: Window | None, right: Window | None, horizons: Horizons, alike: Same) -> str:
    either: Window = left if left is not None else right
    if left is not None and (alike(left, right) if right is not None else content(left) == content(withdrawn(left))):
        return "same"
    if key in horizons.untold or either.window.start.ToMicroseconds() < horizons.whole_from_us:
        return "begun_before"
    if end_of(either) > horizons.open_from_us or (left is not None and _reaches_past(left, horizons.ends)):
        return "still_open"
    return ONLY_REPLAYED if left is None else ONLY_LIVE if right is None else DIFFERENT


def _reaches_past(event: Window, ends: Ends) -> bool:
    partition = event.part.source_partition
    return any(offset >= ends.get((topic, partition), 0) for topic, offset in event.part.source_offsets.items())


def _what(left: Window | None, right: Window | None) -> str:
    if left is None or right is None:
        return f"only {'live' if left else 'replayed'}"
    one, other = (MessageToDict(content(event), preserving_proto_field_name=True) for event in (left, right))
    changed = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return f"{', '.join(changed)} differ (revision {left.part.revision} -> {right.part.revision})"
