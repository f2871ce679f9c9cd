"""Records of the domain as bytes (MessagePack of the dataclasses), for the Faust table and its changelog. Nobody else reads them."""

from __future__ import annotations

import msgspec

from sluice_fairness.domain.board import Tally
from sluice_fairness.domain.partition import Record
from sluice_fairness.domain.stories import StoryChunk
from sluice_fairness.domain.watermark import Marks
from sluice_fairness.domain.window import WindowState

_encode = msgspec.msgpack.Encoder().encode
_DECODERS: dict[bytes, msgspec.msgpack.Decoder] = {
    b"fairness": msgspec.msgpack.Decoder(WindowState),
    b"stories": msgspec.msgpack.Decoder(StoryChunk),
    b"tally": msgspec.msgpack.Decoder(Tally),
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
