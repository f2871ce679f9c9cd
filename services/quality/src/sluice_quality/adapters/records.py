"""Records of the domain as bytes, for the Faust table and its changelog.

MessagePack straight from the dataclasses, not protobuf: nobody else ever reads these bytes, a second copy of every class
would have to be kept in step by hand, and a field with a default can be added without a migration, as in protobuf.
"""

from __future__ import annotations

import msgspec

from sluice_quality.domain.attribution import AttributionChunk, PendingFeedback
from sluice_quality.domain.partition import Record
from sluice_quality.domain.watermark import Marks
from sluice_quality.domain.window import WindowState

_encode = msgspec.msgpack.Encoder().encode
_DECODERS: dict[bytes, msgspec.msgpack.Decoder] = {
    b"quality": msgspec.msgpack.Decoder(WindowState),
    b"attribution": msgspec.msgpack.Decoder(AttributionChunk),
    b"pending": msgspec.msgpack.Decoder(PendingFeedback),
    b"marks": msgspec.msgpack.Decoder(Marks),
}


def encode(record: Record) -> bytes:
    """The record's bytes."""
    return _encode(record)


def decode(key: bytes, value: bytes) -> Record:
    """The record under a key, whose first part says its kind. Raises KeyError and msgspec.DecodeError."""
    return _DECODERS[key.split(b"|", 1)[0]].decode(value)


def partition_of(key: bytes) -> int:
    """Every key ends in its partition."""
    return int(key.rsplit(b"|", 1)[1])
