"""The event catalogue as a page: what a data team asks of an event before it reads it."""

from golden import as_json
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from contracts import traffic
from contracts.examples import example
from contracts.sources import Event, Schema

HEAD = """# Event catalogue

<!-- Generated from the protos by protos/catalogue.py: edit those, then `make protos`. -->

Every event of Sluice, one topic each. How records look (CloudEvents headers, protobuf), what holds of all of them, and security
stand in [asyncapi.yaml](asyncapi.yaml); [`sluice-events`](../../services/_events/README.md) reads them in three lines of Python.

Values are protobuf. The JSON below is protobuf's JSON mapping with the proto's names (64-bit integers are text), made as the golden
bytes in `protos/released/golden/next` are: every field is set (of a choice, one), so no real event looks quite like it.

*internal*: may be read by every team. *confidential*: carries redacted or encrypted text or pseudonyms, so readers need the tenant's
leave. *Read by* is what the mesh's own code reads, found in the code.

| event | published by | key | kept | classification | read by |
|---|---|---|---|---|---|
"""
_WIDE = {
    FieldDescriptor.TYPE_DOUBLE: "double", FieldDescriptor.TYPE_FLOAT: "float", FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string", FieldDescriptor.TYPE_BYTES: "bytes", FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64", FieldDescriptor.TYPE_UINT32: "uint32", FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_SINT32: "sint32", FieldDescriptor.TYPE_SINT64: "sint64",
    FieldDescriptor.TYPE_FIXED32: "fixed32", FieldDescriptor.TYPE_FIXED64: "fixed64",
    FieldDescriptor.TYPE_SFIXED32: "sfixed32", FieldDescriptor.TYPE_SFIXED64: "sfixed64",
}  # fmt: skip


def page(schema: Schema) -> str:
    events = schema.events()
    rows = [_row(event) for event in events]
    sections = [_section(event, schema) for event in events]
    parts = _parts([event.message for event in events])
    shared = [_message(part, schema, heading="###") for part in parts if isinstance(part, Descriptor)]
    enums = [_enum(part, schema) for part in parts if isinstance(part, EnumDescriptor)]
    return "\n".join(
        [HEAD + "\n".join(rows), "", *sections, "## Messages inside events", "", *shared, "## Enums", "",
         "A newer producer may send values that are not here: they are to be kept as the number they are.", "", *enums]
    ).rstrip() + "\n"  # fmt: skip


def _publisher(event: Event) -> str:
    publisher = traffic.publisher(event)
    return {"": "nobody yet", "sluice": "the `sluice` command"}.get(publisher, publisher)


def _readers(event: Event) -> str:
    return ", ".join(traffic.readers(event)) or "nobody in the mesh"


def _kept(event: Event) -> str:
    days = f"{event.retention_seconds // 86400} days"
    return {
        ("compact",): "the newest of a key, for ever",
        ("compact", "delete"): f"the newest of a key, {days}",
    }.get(event.cleanup, days)


def _row(event: Event) -> str:
    cells = (f"[{event.name}](#{event.name.lower()})", _publisher(event), f"`{event.topic.key}`", _kept(event))
    return f"| {' | '.join((*cells, event.classification, _readers(event)))} |"


def _section(event: Event, schema: Schema) -> str:
    kind = event.message.full_name
    facts = [
        ("topic", f"`{event.topic.name}`, also its `ce_type`"),
        ("message", f"`{kind}`, [{event.message.file.name}](../../protos/{event.message.file.name})"),
        ("published by", _publisher(event)),
        ("when", schema.comment(kind)),
        (
            "key and order",
            f"`{event.topic.key}`: events of one are in order, in one of {event.partitions} partition(s)",
        ),
        ("kept", f"{_kept(event)} (`cleanup.policy={','.join(event.cleanup)}`)"),
        ("classification", event.classification),
        ("read by", _readers(event)),
    ]
    lines = [f"## {event.name}", "", "| | |", "|---|---|", *(f"| {name} | {told} |" for name, told in facts), ""]
    sample = as_json(example(event.message))
    lines += [
        *_fields(event.message, schema),
        "",
        "<details><summary>Example</summary>",
        "",
        "```json",
        sample.rstrip(),
    ]
    return "\n".join([*lines, "```", "", "</details>", ""])


def _fields(message: Descriptor, schema: Schema) -> list[str]:
    rows = [f"| {f.number} | `{f.name}` | {_type(f)} | {_told(f, schema)} |" for f in message.fields]
    return ["| no. | field | type | what it is |", "|---|---|---|---|", *rows]


def _told(field: FieldDescriptor, schema: Schema) -> str:
    told = schema.comment(field.full_name)
    one = field.containing_oneof
    if one is not None and len(one.fields) > 1:
        told = f"*One of `{one.name}`.* {told}"
    elif one is not None:
        told = f"*May be absent.* {told}"
    return told.replace("|", "\\|")


def _type(field: FieldDescriptor) -> str:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return f"map of {_one(kind.fields_by_name['key'])} to {_one(kind.fields_by_name['value'])}"
    return f"list of {_one(field)}" if field.is_repeated else _one(field)


def _one(field: FieldDescriptor) -> str:
    kind = field.enum_type or field.message_type
    if kind is None:
        return _WIDE[field.type]
    outside = kind.full_name.startswith("google.protobuf.")
    return kind.name if outside else f"[{kind.name}](#{kind.name.lower()})"


def _parts(messages: list[Descriptor]) -> list[Descriptor | EnumDescriptor]:
    """All that messages are made of, themselves left out, by name."""
    found: dict[str, Descriptor | EnumDescriptor] = {}
    waiting = list(messages)
    while waiting:
        for field in waiting.pop().fields:
            kind = field.enum_type or field.message_type
            if kind is None or kind.full_name in found or kind.full_name.startswith("google.protobuf."):
                continue
            found[kind.full_name] = kind
            if isinstance(kind, Descriptor):
                waiting.append(kind)
    named = [kind for kind in found.values() if not (isinstance(kind, Descriptor) and kind.GetOptions().map_entry)]
    return sorted(named, key=lambda kind: kind.name)


def _message(message: Descriptor, schema: Schema, *, heading: str) -> str:
    told = schema.comment(message.full_name)
    return "\n".join(
        [f"{heading} {message.name}", "", f"`{message.full_name}`. {told}", "", *_fields(message, schema), ""]
    )


def _enum(enum: EnumDescriptor, schema: Schema) -> str:
    rows = [f"| {v.number} | `{v.name}` | {schema.comment(f'{enum.full_name}.{v.name}')} |" for v in enum.values]
    head = [f"### {enum.name}", "", f"`{enum.full_name}`. {schema.comment(enum.full_name)}", ""]
    return "\n".join([*head, "| no. | value | what it is |", "|---|---|---|", *rows, ""])
