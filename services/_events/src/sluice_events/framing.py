"""Confluent's wire format for protobuf: `0x00`, schema id, message indexes, and then the message.

The format is written down in Confluent's documentation of its Schema Registry serializers ("Wire format"). A protobuf message never
begins with 0x00 (field number 0 does not exist), so that framed and unframed values can be told apart and may stand in one topic.
"""

from google.protobuf.descriptor import Descriptor

MAGIC = 0
_PREFIX_BYTES = 5


def prefix(schema_id: int, descriptor: Descriptor) -> bytes:
    """What stands before a message of this type whose file was registered under schema_id."""
    return bytes([MAGIC]) + schema_id.to_bytes(4, "big") + _indexes(descriptor)


def _indexes(descriptor: Descriptor) -> bytes:
    """The message's place in its file, from the outermost message inwards: how many numbers, then the numbers, zigzag-encoded."""
    path = _path(descriptor)
    if path == [0]:
        return b"\x00"  # the usual case, one message a file, has a short form
    return b"".join(_zigzag(number) for number in (len(path), *path))


def _path(descriptor: Descriptor) -> list[int]:
    outer = descriptor.containing_type
    siblings = descriptor.file.message_types_by_name if outer is None else outer.nested_types_by_name
    # Both are in the order of their declaration.
    here = list(siblings).index(descriptor.name)
    return [here] if outer is None else [*_path(outer), here]


def _zigzag(number: int) -> bytes:
    rest, out = number << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def message_bytes(value: bytes) -> bytes:
    """The message in a value, framed or not. ValueError when the frame is cut short."""
    if not value or value[0] != MAGIC:
        return value
    count, at = _read_zigzag(value, _PREFIX_BYTES)
    for _ in range(count):
        _, at = _read_zigzag(value, at)
    return value[at:]


def _read_zigzag(value: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    raw = shift = 0
    while at < len(value) and shift < 35:
        byte = value[at]
        at, raw, shift = at + 1, raw | (byte & 0x7F) << shift, shift + 7
        if not byte & 0x80:
            return (raw >> 1) ^ -(raw & 1), at
    raise ValueError("the frame of a schema registry ends early")
