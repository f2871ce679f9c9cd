"""The AsyncAPI 3 document of the events, written as YAML."""

import json
from typing import Any

import yaml
from golden import as_json

from contracts import traffic
from contracts.examples import example
from contracts.json_schema import schemas
from contracts.sources import EVENTS_PACKAGE, Event, Schema

KAFKA_BINDING = "0.5.0"
DEAD_LETTER_RETENTION_MS = 30 * 24 * 3600 * 1000
HEAD = "# Generated from the protos by protos/catalogue.py: edit those, then `make protos`.\n"
CLASSIFICATIONS = {
    "internal": "Technical facts without text or person: every team may read them.",
    "confidential": "Redacted or encrypted text or pseudonymous ids: readers need the tenant's leave.",
}
INFO = """What Sluice's services tell one another and you. Every record is one fact: a protobuf message (`x-protobuf` names its file)
in CloudEvents 1.0 binary mode, with its attributes in the record's headers.

* At least once: the same `ce_id` may come again. Be idempotent by it.
* In order per key, not across keys.
* Only additive changes within a topic. A newer producer may set fields and enum values you do not know: keep going (in JSON an
  unknown enum value is an integer). A new meaning is a new topic.
* `ce_sequence` counts a producer's events on a topic without gaps: a missing number is a lost event.
* `ce_dataclassification` says who may read it. No event holds raw personal data.
* Where the operator has set a schema registry, values stand in Confluent's wire format (0x00, schema id, message indexes, then
  the message); framed and unframed records may stand in one topic.
* The payload schemas here are protobuf's JSON mapping with the proto's field names, for people and tools; the bytes are protobuf.

The Python library `sluice-events` does all this in three lines."""


def document(schema: Schema) -> dict[str, Any]:
    events = schema.events()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:sluice:events",
        "info": {
            "title": "Sluice events",
            "version": _version(events),
            "description": INFO,
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": name, "description": told} for name, told in CLASSIFICATIONS.items()],
        },
        "defaultContentType": "application/protobuf",
        "servers": _servers(),
        "channels": {event.name: _channel(event, schema) for event in events} | {"deadLetters": _dead_letters(events)},
        "operations": _operations(events),
        "components": {
            "messages": {event.name: _message(event, schema) for event in events} | {"DeadLetter": _dead_letter()},
            "schemas": {"cloudEvent": _cloud_event(schema)}
            | schemas([event.message for event in events], schema, place="#/components/schemas"),
            "securitySchemes": _security(),
        },
    }


def as_yaml(schema: Schema) -> str:
    text = yaml.dump(document(schema), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=150)
    return HEAD + text


class _Dumper(yaml.SafeDumper):
    """Without anchors, and with texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _version(events: list[Event]) -> str:
    """1.<number of fields of events>.0: grows with every addition, and nobody has to think of it."""
    return f"1.{sum(len(event.message.fields) for event in events)}.0"


def _servers() -> dict[str, Any]:
    return {
        "local": {
            "host": "127.0.0.1:9092",
            "protocol": "kafka",
            "description": "The broker of `make run` (shifted by SLUICE_PORT_BASE_OFFSET; `.sluice/demo.env` tells).",
            "bindings": {"kafka": {"bindingVersion": KAFKA_BINDING}},
        },
        "cluster": {
            "host": "{bootstrap}",
            "protocol": "kafka-secure",
            "description": "A cluster of yours, as SLUICE_KAFKA_BOOTSTRAP names it.",
            "variables": {
                "bootstrap": {"description": "host:port[,host:port]", "examples": ["kafka.example.com:9093"]}
            },
            "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _security()],
            "bindings": {"kafka": {"bindingVersion": KAFKA_BINDING}},
        },
    }


def _security() -> dict[str, Any]:
    told = "SASL over TLS (SLUICE_KAFKA_SECURITY_PROTOCOL=SASL_SSL, SLUICE_KAFKA_SASL_MECHANISM={})."
    return {
        "scramSha512": {"type": "scramSha512", "description": told.format("SCRAM-SHA-512") + " The default."},
        "scramSha256": {"type": "scramSha256", "description": told.format("SCRAM-SHA-256")},
        "plain": {"type": "plain", "description": told.format("PLAIN")},
    }


def _channel(event: Event, schema: Schema) -> dict[str, Any]:
    publisher = traffic.publisher(event)
    by = f"Published by {publisher}." if publisher else "Declared; nobody publishes it yet."
    configuration: dict[str, Any] = {"cleanup.policy": list(event.cleanup)}
    if "delete" in event.cleanup:
        configuration["retention.ms"] = event.retention_seconds * 1000
    kafka = {"topic": event.topic.name, "partitions": event.partitions, "topicConfiguration": configuration}
    return {
        "address": event.topic.name,
        "title": event.name,
        "description": f"{schema.comment(event.message.full_name)} {by}",
        "messages": {event.name: {"$ref": f"#/components/messages/{event.name}"}},
        "tags": [{"name": event.classification}],
        "bindings": {"kafka": kafka | {"bindingVersion": KAFKA_BINDING}},
        "x-data-classification": event.classification,
    }


def _dead_letters(events: list[Event]) -> dict[str, Any]:
    configuration = {"cleanup.policy": ["delete"], "retention.ms": DEAD_LETTER_RETENTION_MS}
    return {
        "address": "{topic}.dlq",
        "title": "Dead letters",
        "description": "Records of a topic that a consumer of the mesh could not read or handle, as they came, with the reason in the headers.",
        "parameters": {"topic": {"description": "The topic.", "enum": [event.topic.name for event in events]}},
        "messages": {"DeadLetter": {"$ref": "#/components/messages/DeadLetter"}},
        "bindings": {"kafka": {"partitions": 1, "topicConfiguration": configuration, "bindingVersion": KAFKA_BINDING}},
    }


def _operations(events: list[Event]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for event in events:
        publisher = traffic.publisher(event)
        if publisher:
            made[f"{publisher}Publishes{event.name}"] = _operation("send", event, publisher)
        for reader in traffic.readers(event):
            made[f"{reader}Reads{event.name}"] = _operation("receive", event, reader)
    return made


def _operation(action: str, event: Event, service: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{event.name}"},
        "messages": [{"$ref": f"#/channels/{event.name}/messages/{event.name}"}],
        "tags": [{"name": service}],
    }


def _message(event: Event, schema: Schema) -> dict[str, Any]:
    kind = event.message.full_name
    fixed = {
        "ce_type": {"const": event.topic.name},
        "ce_dataschema": {"const": f"urn:sluice:{kind}"},
        "ce_dataclassification": {"const": event.classification},
    }
    key = {"type": "string", "description": f"`{event.topic.key}`; where that is empty, `metadata.event_id`. UTF-8."}
    return {
        "name": event.topic.name,
        "title": event.name,
        "summary": schema.comment(kind),
        "contentType": "application/protobuf",
        "headers": {"allOf": [{"$ref": "#/components/schemas/cloudEvent"}, {"type": "object", "properties": fixed}]},
        "payload": {"$ref": f"#/components/schemas/{kind}"},
        "correlationId": {"description": "The request.", "location": "$message.payload#/metadata/request_id"},
        "tags": [{"name": event.classification}],
        "bindings": {"kafka": {"key": key, "bindingVersion": KAFKA_BINDING}},
        "examples": [{"name": "everyFieldSet", "payload": json.loads(as_json(example(event.message)))}],
        "x-protobuf": {"message": kind, "file": f"protos/{event.message.file.name}"},
        "x-data-classification": event.classification,
    }


def _dead_letter() -> dict[str, Any]:
    texts = {
        "sluice_error_reason": "Why: a short code, such as `malformed`.",
        "sluice_source_topic": "Topic it stood in.",
        "sluice_source_partition": "Partition it stood in.",
        "sluice_source_offset": "Offset it stood at.",
        "sluice_source_timestamp_ms": "When the broker had it, milliseconds since 1970.",
        "sluice_group": "Consumer group that put it aside.",
        "sluice_attempts": "How often it was tried.",
        "sluice_first_failed_at": "When it failed first, RFC 3339.",
        "sluice_value_omitted": "Set where the value was too large to be passed on: it stands in the source topic.",
    }
    properties = {name: {"type": "string", "description": told} for name, told in texts.items()}
    return {
        "name": "dead-letter",
        "title": "Dead letter",
        "summary": "The record as it came: value, key and headers, and these headers more.",
        "headers": {"type": "object", "properties": properties},
        "payload": {"description": "Whatever stood in the record."},
    }


def _cloud_event(schema: Schema) -> dict[str, Any]:
    def said(field: str) -> str:
        return schema.comment(f"{EVENTS_PACKAGE}.EventMetadata.{field}")

    texts = {
        "content-type": "What the value is.",
        "ce_specversion": "Version of CloudEvents.",
        "ce_id": said("event_id"),
        "ce_source": said("producer"),
        "ce_type": "The topic: it has one type of event.",
        "ce_time": said("occurred_at"),
        "ce_subject": said("request_id") + " Absent when empty.",
        "ce_dataschema": "`urn:sluice:` and the full name of the protobuf message.",
        "ce_sequence": said("producer_sequence"),
        "ce_dataclassification": "Who may read it: `internal` or `confidential`.",
        "traceparent": said("traceparent") + " Absent when empty.",
    }
    constants = {"content-type": "application/protobuf", "ce_specversion": "1.0"}
    properties = {
        name: {"type": "string", "description": told} | ({"const": constants[name]} if name in constants else {})
        for name, told in texts.items()
    }
    required = [name for name in texts if name not in ("ce_subject", "ce_sequence", "traceparent", "ce_source")]
    return {
        "type": "object",
        "title": "CloudEvents attributes",
        "description": "CloudEvents 1.0 Kafka protocol binding, binary mode: UTF-8 texts in record headers.",
        "properties": properties,
        "required": required,
    }
