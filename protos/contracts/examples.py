"""An instance of a message with every field set, always the same: what golden bytes and the examples of the catalogue are made of."""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

# Written once: a golden file made with these never changes. Fields that are not here are filled in from their name and number.
_TEXTS = {
    "event_id": "01990b2c-7d1e-7c3a-9f00-5a1c0de50001",
    "source_event_id": "01990b2c-7d1e-7c3a-9f00-5a1c0de50002",
    "request_id": "01990b2c-7d1e-7c3a-9f00-5a1c0de50003",
    "tenant_id": "acme",
    "project_id": "support",
    "subject_id": "sub_4f9c2a7e11d0",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "model": "sluice-small",
    "producer": "sluice-gateway/0#6f1d2c",
    "route": "sluice-small/primary",
    "prompt_version": "greeting@3",
    "experiment_arm": "tone/b",
    "api_key_id": "key_7d21",
    "price_book": "default@4",
    "currency": "USD",
    "currency_code": "USD",
    "language": "en",
}
_FIRST_SECOND = 1_793_534_400  # 2026-11-01T12:00:00Z
_STRUCT = {
    "text": "value",
    "number": 1.5,
    "flag": True,
    "nothing": None,
    "list": ["a", 2.0],
    "nested": {"key": "value"},
}


def example(descriptor: Descriptor, *, chosen: dict[str, str] | None = None) -> Message:
    """Every field set. Of a oneof only one can be: `chosen` names it (oneof to field), else it is the first."""
    message = GetMessageClass(descriptor)()
    _fill(message, chosen or {}, 0)
    return message


def variants(descriptor: Descriptor) -> Iterator[tuple[str, Message]]:
    """Suffix and instance: the plain one, then one for every further member of a oneof of the message itself."""
    yield "", example(descriptor)
    for oneof in _real_oneofs(descriptor):
        for field in oneof.fields[1:]:
            yield f"-{field.name}", example(descriptor, chosen={oneof.name: field.name})


def _real_oneofs(descriptor: Descriptor) -> list[OneofDescriptor]:
    # `optional` is a oneof of one field, named after it.
    return [one for one in descriptor.oneofs if not (len(one.fields) == 1 and one.name == f"_{one.fields[0].name}")]


def _fill(message: Message, chosen: dict[str, str], turn: int) -> None:
    """turn: which element of a repeated field this is; other turns take other members of a oneof."""
    left_out = set()
    for oneof in _real_oneofs(message.DESCRIPTOR):
        names = [field.name for field in oneof.fields]
        left_out |= set(names) - {chosen.get(oneof.name, names[turn % len(names)])}
    for field in message.DESCRIPTOR.fields:
        if field.name not in left_out:
            _set(message, field)


def _set(message: Message, field: FieldDescriptor) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _set_map(message, field)
    elif field.is_repeated and field.message_type is not None:
        for turn in range(2):
            _fill_message(getattr(message, field.name).add(), field, turn)
    elif field.is_repeated:
        getattr(message, field.name).extend([_scalar(field, 0), _scalar(field, 1)])
    elif field.message_type is not None:
        part = getattr(message, field.name)
        part.SetInParent()
        _fill_message(part, field, 0)
    else:
        setattr(message, field.name, _scalar(field, 0))


def _set_map(message: Message, field: FieldDescriptor) -> None:
    key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
    entries = getattr(message, field.name)
    for turn in range(2):
        made_key = f"{field.name}-{turn + 1}" if key.type == FieldDescriptor.TYPE_STRING else _scalar(key, turn)
        if value.message_type is not None:
            _fill_message(entries[made_key], value, turn)
        else:
            entries[made_key] = _scalar(value, turn)


def _fill_message(message: Message, field: FieldDescriptor, turn: int) -> None:
    kind = field.message_type.full_name
    if kind in _WELL_KNOWN:
        _WELL_KNOWN[kind](message, field.number + turn)
    else:
        _fill(message, {}, turn)


def _duration(message: Any, number: int) -> None:
    message.seconds, message.nanos = number, 250_000_000


def _timestamp(message: Any, number: int) -> None:
    message.seconds, message.nanos = _FIRST_SECOND + number, 125_000_000


def _struct(message: Any, number: int) -> None:
    ParseDict(_STRUCT, message)


_WELL_KNOWN: dict[str, Callable[[Any, int], None]] = {
    "google.protobuf.Duration": _duration,
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Struct": _struct,
}


def _scalar(field: FieldDescriptor, turn: int) -> Any:
    """From the field's own name and number alone, so that a new field beside it changes nothing."""
    if field.type == FieldDescriptor.TYPE_STRING:
        text = _TEXTS.get(field.name, field.name.replace("_", "-"))
        return f"{text}-{turn + 1}" if field.is_repeated else text
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes([field.number, turn, 0, 255])
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    if field.type == FieldDescriptor.TYPE_ENUM:
        values = [value.number for value in field.enum_type.values if value.number]
        return values[turn % len(values)] if values else 0
    number = field.number + turn
    return number + 0.5 if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT) else number
