"""Records of the domain as bytes, for the Faust table, its changelog and the internal topic.

MessagePack straight from the dataclasses, not protobuf: nobody else ever reads these bytes, a second copy of every class
would have to be kept in step by hand, and a field with a default can be added without a migration, as in protobuf.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sluice_drift.domain.observation import Observation, Pin
from sluice_drift.domain.partition import Record
from sluice_drift.domain.reference import Reference
from sluice_drift.domain.watermark import Marks
from sluice_drift.domain.window import DriftWindow

_encode = msgspec.msgpack.Encoder().encode
_DECODERS: dict[bytes, msgspec.msgpack.Decoder] = {
    b"drift": msgspec.msgpack.Decoder(DriftWindow),
    b"reference": msgspec.msgpack.Decoder(Reference),
    b"marks": msgspec.msgpack.Decoder(Marks),
}
_decode_sent = msgspec.msgpack.Decoder(list[Observation] | Pin).decode


def encode(record: Record) -> bytes:
    """The record's bytes."""
    return _encode(record)


def decode(key: bytes, value: bytes) -> Record:
    """The record under a key, whose first part says its kind. Raises KeyError and msgspec.DecodeError."""
    return _DECODERS[key.split(b"|", 1)[0]].decode(value)


def partition_of(key: bytes) -> int:
    """Every key ends in its partition."""
    return int(key.rsplit(b"|", 1)[1])


def encode_observations(observations: Sequence[Observation]) -> bytes:
    """Observations of one series, for the internal topic."""
    return _encode(observations)


def encode_pin(pin: Pin) -> bytes:
    """A command, for the internal topic."""
    return _encode(pin)


def decode_sent(value: bytes) -> list[Observation] | list[Pin]:
    """The observations of a record of the internal topic, or its command. Raises msgspec.DecodeError."""
    sent = _decode_sent(value)
    return [sent] if isinstance(sent, Pin) else sent


def decode_observations(value: bytes) -> list[Observation]:
    """The observations of a record of the internal topic; none of a command. Raises msgspec.DecodeError."""
    return [each for each in decode_sent(value) if isinstance(each, Observation)]
