"""Many records of one topic decoded at once, into columns: one by one a protobuf message costs ten times as much to read in Python.

Needs the extra `sluice-kit[columns]`. What is doubtful about a record is left to its reader, who decodes it by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as compute
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from ptars import HandlerPool

from sluice_kit.events import CONTENT_TYPE
from sluice_kit.streams.source import SourceEvent
from sluice_kit.streams.times import LONGEST_SPAN_SECONDS, MAX_SKEW_MICROSECONDS

_MICRO = 1_000_000
_NANOS = 1_000_000_000
_LAST_SECOND = 253_402_300_799
# Arrow's own times saturate, and would hide what is no time: seconds and nanoseconds are read as the numbers they are.
_TIMES = {".google.protobuf.Timestamp", ".google.protobuf.Duration"}
_PAIR = ".sluice.columns.Pair"


@cache
def _decoder(message_class: type[Message]) -> Any:
    pool = DescriptorPool()
    pair = FileDescriptorProto(name="sluice/columns.proto", package="sluice.columns", syntax="proto3")
    made = pair.message_type.add(name="Pair")
    made.field.add(name="seconds", number=1, type="TYPE_INT64", label="LABEL_OPTIONAL")
    made.field.add(name="nanos", number=2, type="TYPE_INT32", label="LABEL_OPTIONAL")
    pool.Add(pair)
    descriptor = message_class.DESCRIPTOR
    for file in _with_imports(descriptor.file):
        pool.Add(_without_times(file))
    clone = pool.FindMessageTypeByName(descriptor.full_name)
    return HandlerPool([clone.file]).get_for_message(clone)


def _with_imports(file: Any, seen: set[str] | None = None) -> Iterable[Any]:
    """A file after all that it imports."""
    seen = set() if seen is None else seen
    if file.name in seen:
        return
    seen.add(file.name)
    for each in file.dependencies:
        yield from _with_imports(each, seen)
    yield file


def _without_times(file: Any) -> FileDescriptorProto:
    copied = FileDescriptorProto.FromString(file.serialized_pb)
    for message in _with_nested(copied.message_type):
        for field in message.field:
            if field.type_name in _TIMES:
                field.type_name = _PAIR
    copied.dependency.append("sluice/columns.proto")
    return copied


def _with_nested(messages: Iterable[DescriptorProto]) -> Iterable[DescriptorProto]:
    """Messages, and those declared in them, as the entries of a map are."""
    for message in messages:
        yield message
        yield from _with_nested(message.nested_type)


def decode_columns(message_class: type[Message], values: Sequence[bytes]) -> pyarrow.RecordBatch:
    """One column for each field, one row for each record. ValueError when one of them cannot be decoded."""
    return _decoder(message_class).list_to_record_batch(values)  # type: ignore[arg-type]  # a class hashes by its metaclass


def is_plain(event: SourceEvent, topic: bytes) -> bool:
    """True for a record whose value can be decoded as it stands: no schema registry's frame, headers that say what it is."""
    message = event.message
    value, headers = message.value, message.headers
    if not value or value[0] == 0:
        return False
    if not headers:
        return True
    for name, told in headers.items() if isinstance(headers, dict) else headers:
        if (name == "ce_type" and told != topic) or (name == "content-type" and told != CONTENT_TYPE):
            return False
    return True


@cache
def _zero(kind: pyarrow.DataType) -> pyarrow.Scalar:
    return pyarrow.Array.from_buffers(kind, 1, [None, pyarrow.py_buffer(bytes(8))])[0]


def integers(column: pyarrow.Array) -> np.ndarray:
    """Shape (rows,); 0 where there is none.

    By DLPack, and with a zero out of a buffer: for most other ways to numpy and back Arrow imports pandas (two seconds where no
    bytecode is kept, 50 MiB).
    """
    return np.from_dlpack(compute.fill_null(column, _zero(column.type)) if column.null_count else column)


def booleans(column: pyarrow.BooleanArray) -> np.ndarray:
    """Shape (rows,); false where there is none."""
    return integers(column.cast(pyarrow.uint8())).view(np.bool_)


def is_given(column: pyarrow.Array) -> np.ndarray:
    """Shape (rows,): where there is a value."""
    return booleans(column.is_valid())


def is_empty(column: pyarrow.StringArray) -> np.ndarray:
    """Shape (rows,): where there is no text."""
    return integers(compute.binary_length(column)) == 0


def event_times(column: pyarrow.StructArray, record_times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As times.event_time, of many: microseconds, and where that is in doubt."""
    seconds, nanos = integers(column.field("seconds")), integers(column.field("nanos"))
    given = is_given(column)
    inside = (seconds >= 0) & (seconds <= _LAST_SECOND) & (nanos >= 0) & (nanos < _NANOS)
    at = np.where(inside, seconds, 0) * _MICRO + nanos // 1000
    usable = inside & (at <= record_times + MAX_SKEW_MICROSECONDS)
    return np.where(given & usable, at, record_times), given & ~usable


def durations(column: pyarrow.StructArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As times.duration_microseconds, of many: microseconds, where there is one, and where that is in doubt."""
    seconds, nanos = integers(column.field("seconds")), integers(column.field("nanos")).astype(np.int64)
    given = is_given(column)
    inside = (seconds >= -LONGEST_SPAN_SECONDS) & (seconds <= LONGEST_SPAN_SECONDS)
    micros = np.where(nanos >= 0, nanos // 1000, -(-nanos // 1000))
    return np.where(inside, seconds, 0) * _MICRO + micros, given, given & ~inside


def sums_of_lists(column: pyarrow.ListArray, field: str) -> np.ndarray:
    """Shape (rows,): the sum of a field over each row's list."""
    ends = integers(column.offsets)
    if ends[-1] == ends[0]:
        return np.zeros(len(column), dtype=np.int64)
    running = np.concatenate([[0], np.cumsum(integers(column.values.field(field)), dtype=np.int64)])
    return running[ends[1:]] - running[ends[:-1]]


def groups(columns: Sequence[pyarrow.Array]) -> tuple[np.ndarray, list[int]]:
    """Which rows are the same in all of these columns: a group's number for each row, and a row of each group."""
    numbers = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        encoded = column.dictionary_encode()
        if len(encoded.dictionary) > 1:
            mixed = numbers * len(encoded.dictionary) + integers(encoded.indices)
            numbers = np.unique(mixed, return_inverse=True)[1]
    _, rows, numbers = np.unique(numbers, return_index=True, return_inverse=True)
    return numbers, rows.tolist()
