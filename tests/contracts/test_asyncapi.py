"""The AsyncAPI document and the event catalogue: valid by the official schema, true of the code, complete."""

import copy
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from sluice_events.topics import all_topics, event_topics
from sluice_events.wire import encode
from sluice_kit import dead_letters

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "protos"))
catalogue = importlib.import_module("catalogue")
examples = importlib.import_module("contracts.examples")

DOCUMENT = yaml.safe_load((ROOT / "docs" / "events" / "asyncapi.yaml").read_text(encoding="utf-8"))
OFFICIAL = json.loads((Path(__file__).parent / "asyncapi" / "3.0.0.json").read_text(encoding="utf-8"))
EVENTS = [pytest.param(spec, id=spec.message_class.DESCRIPTOR.name) for spec in event_topics()]


def mistakes(document: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(OFFICIAL).iter_errors(document)]


def every(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from every(child)


def validator(schema: dict[str, Any]) -> jsonschema.Draft7Validator:
    """References in it lead into the document."""
    return jsonschema.Draft7Validator({**schema, "components": DOCUMENT["components"]})


def test_the_documents_are_what_the_generator_writes():
    stale = [path.name for path, text in catalogue.documents().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make protos`"


def test_the_document_is_valid_by_the_official_schema():
    assert mistakes(DOCUMENT) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"asyncapi": "3.0"},
        {"channels": {"X": {"address": 1}}},
        {"operations": {"x": {"action": "publish", "channel": {"$ref": "#/channels/X"}}}},
        {"servers": {"x": {"protocol": "kafka"}}},
        {"channels": {"X": {"bindings": {"kafka": {"partitions": 0, "bindingVersion": "0.5.0"}}}}},
    ],
)
def test_the_official_schema_refuses_what_is_wrong(broken):
    """Or the test above would prove nothing."""
    assert mistakes(copy.deepcopy(DOCUMENT) | broken)


def test_every_reference_leads_somewhere():
    references = {node["$ref"] for node in every(DOCUMENT) if isinstance(node.get("$ref"), str)}
    assert len(references) > 50
    for reference in references:
        at = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


@pytest.mark.parametrize("spec", EVENTS)
def test_a_channel_tells_the_topic_as_the_mesh_creates_it(spec):
    channel = DOCUMENT["channels"][spec.message_class.DESCRIPTOR.name]
    kafka = channel["bindings"]["kafka"]
    configuration = kafka["topicConfiguration"]
    assert (channel["address"], kafka["topic"], kafka["partitions"]) == (spec.name, spec.name, spec.partitions)
    assert ",".join(configuration["cleanup.policy"]) == spec.cleanup_policy
    if spec.cleanup_policy != "compact":
        assert configuration["retention.ms"] == spec.retention_ms
    assert channel["x-data-classification"] == spec.classification


def test_dead_letter_topics_are_told_as_the_mesh_creates_them():
    channel = DOCUMENT["channels"]["deadLetters"]
    kafka = channel["bindings"]["kafka"]
    named = {channel["address"].replace("{topic}", topic) for topic in channel["parameters"]["topic"]["enum"]}
    made = [spec for spec in all_topics() if spec.message_class is None]
    assert named == {spec.name for spec in made}
    assert {spec.retention_ms for spec in made} == {kafka["topicConfiguration"]["retention.ms"]}
    assert {spec.partitions for spec in made} == {kafka["partitions"]}


def test_every_header_of_a_dead_letter_is_described():
    described = DOCUMENT["components"]["messages"]["DeadLetter"]["headers"]["properties"]
    assert set(described) == dead_letters.RESERVED


@pytest.mark.parametrize("spec", EVENTS)
def test_the_headers_the_mesh_writes_are_the_headers_described(spec):
    message = DOCUMENT["components"]["messages"][spec.message_class.DESCRIPTOR.name]
    headers = {name: value.decode() for name, value in encode(examples.example(spec.message_class.DESCRIPTOR)).headers}
    validator(message["headers"]).validate(headers)
    assert set(headers) <= set(DOCUMENT["components"]["schemas"]["cloudEvent"]["properties"])
    with pytest.raises(jsonschema.ValidationError):
        validator(message["headers"]).validate(headers | {"ce_type": "something.else"})


@pytest.mark.parametrize("spec", EVENTS)
def test_the_example_fits_the_payload_schema_and_sets_every_field(spec):
    message = DOCUMENT["components"]["messages"][spec.message_class.DESCRIPTOR.name]
    (example,) = message["examples"]
    validator(message["payload"]).validate(example["payload"])
    with pytest.raises(jsonschema.ValidationError):
        validator(message["payload"]).validate(example["payload"] | {"metadata": "none"})


@pytest.mark.parametrize("spec", EVENTS)
def test_every_field_of_an_event_is_described(spec):
    schemas = DOCUMENT["components"]["schemas"]
    properties = schemas[spec.message_class.DESCRIPTOR.full_name]["properties"]
    assert list(properties) == [field.name for field in spec.message_class.DESCRIPTOR.fields]
    assert all(told["description"] for told in properties.values())
    assert all(schema["description"] for schema in schemas.values())


@pytest.mark.parametrize("spec", EVENTS)
def test_the_catalogue_tells_every_field_of_an_event(spec):
    page = (ROOT / "docs" / "events" / "catalogue.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {spec.message_class.DESCRIPTOR.name}\n")[1].split("\n## ")[0]
    assert spec.name in section
    for field in spec.message_class.DESCRIPTOR.fields:
        assert f"| {field.number} | `{field.name}` |" in section
