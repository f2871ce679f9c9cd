"""Messages as JSON Schema (draft 7), in protobuf's JSON mapping with the names of the proto; comments become descriptions."""

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from contracts.sources import Schema

_INTEGERS = {
    FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32,
    FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32,
}  # fmt: skip
# As text, since JSON's numbers are exact to 2^53 only.
_LONG_INTEGERS = {
    FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64,
    FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64,
}  # fmt: skip
_UNSIGNED = {
    FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32,
    FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64,
}  # fmt: skip
_WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.Struct": {"type": "object"},
}
_SIMPLE: dict[int, dict[str, Any]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number"},
}


def schemas(messages: list[Descriptor], schema: Schema, *, place: str) -> dict[str, dict[str, Any]]:
    """Full name to schema, of these messages and all they are made of. `place` is where a reference finds them."""
    made: dict[str, dict[str, Any]] = {}
    waiting: list[Descriptor | EnumDescriptor] = list(messages)

    def reference(to: Descriptor | EnumDescriptor) -> dict[str, str]:
        waiting.append(to)
        return {"$ref": f"{place}/{to.full_name}"}

    while waiting:
        one = waiting.pop()
        if one.full_name not in made:
            made[one.full_name] = {}  # before its parts, which may lead back here
            made[one.full_name] = (
                _enum(one, schema) if isinstance(one, EnumDescriptor) else _message(one, schema, reference)
            )
    return dict(sorted(made.items()))


Reference = Callable[[Any], dict[str, str]]


def _message(message: Descriptor, schema: Schema, reference: Reference) -> dict[str, Any]:
    properties = {field.name: _property(field, schema, reference) for field in message.fields}
    return {
        "type": "object",
        "title": message.name,
        "description": schema.comment(message.full_name),
        "properties": properties,
    }


def _property(field: FieldDescriptor, schema: Schema, reference: Reference) -> dict[str, Any]:
    told = _described(field, schema)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        value = _of_one(kind.fields_by_name["value"], reference)
        return {"description": told, "type": "object", "additionalProperties": value, "x-field-number": field.number}
    one = _of_one(field, reference)
    if field.is_repeated:
        return {"description": told, "type": "array", "items": one, "x-field-number": field.number}
    if "$ref" in one:  # draft 7 ignores what stands beside a reference
        return {"description": told, "allOf": [one], "x-field-number": field.number}
    return {"description": told, **one, "x-field-number": field.number}


def _described(field: FieldDescriptor, schema: Schema) -> str:
    told = schema.comment(field.full_name)
    one = field.containing_oneof
    if one is not None and len(one.fields) > 1:
        told += f" At most one of {', '.join(f'`{other.name}`' for other in one.fields)} is set."
    return told


def _of_one(field: FieldDescriptor, reference: Reference) -> dict[str, Any]:
    if field.type == FieldDescriptor.TYPE_ENUM:
        return reference(field.enum_type)
    if field.message_type is not None:
        return _WELL_KNOWN.get(field.message_type.full_name) or reference(field.message_type)
    if field.type in _INTEGERS:
        return {"type": "integer", **({"minimum": 0} if field.type in _UNSIGNED else {})}
    if field.type in _LONG_INTEGERS:
        return {"type": "string", "pattern": "^[0-9]+$" if field.type in _UNSIGNED else "^-?[0-9]+$"}
    return dict(_SIMPLE[field.type])


def _enum(enum: EnumDescriptor, schema: Schema) -> dict[str, Any]:
    names = [value.name for value in enum.values]
    lines = [schema.comment(enum.full_name), *(f"* `{n}`: {schema.comment(f'{enum.full_name}.{n}')}" for n in names)]
    return {"type": "string", "title": enum.name, "description": "\n".join(lines), "enum": names}
