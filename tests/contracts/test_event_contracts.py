"""What must hold of every event, read off the descriptors themselves."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest
import sluice.events.v1
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from sluice.events.v1 import options_pb2

TOPIC_NAME = re.compile(r"^sluice\.[a-z]+\.[a-z_]+\.v\d+$")


def event_files() -> list:
    names = [m.name for m in pkgutil.iter_modules(sluice.events.v1.__path__) if m.name.endswith("_pb2")]
    return [importlib.import_module(f"sluice.events.v1.{name}").DESCRIPTOR for name in names]


def events() -> list[Descriptor]:
    messages = [m for file in event_files() for m in file.message_types_by_name.values()]
    return [m for m in messages if m.GetOptions().HasExtension(options_pb2.topic)]


def topic(message: Descriptor) -> options_pb2.TopicOptions:
    return message.GetOptions().Extensions[options_pb2.topic]


def fields_at_any_depth(message: Descriptor, seen: frozenset[str] = frozenset()) -> Iterator[FieldDescriptor]:
    if message.full_name in seen:
        return
    for field in message.fields:
        yield field
        if field.message_type is not None:
            yield from fields_at_any_depth(field.message_type, seen | {message.full_name})


EVENTS = [pytest.param(m, id=m.name) for m in events()]


def test_the_events_of_the_design_are_all_there():
    assert {m.name for m in events()} >= {
        "RequestCompleted", "TextRedacted", "ContentModerated", "InferenceMeasured", "ModelLoaded",
        "FeedbackReceived", "CostRecorded", "QualityMeasured", "DriftMeasured",
    }  # fmt: skip


def test_no_two_events_share_a_topic():
    names = [topic(m).name for m in events()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("message", EVENTS)
def test_an_event_names_its_topic_and_classification(message):
    assert TOPIC_NAME.match(topic(message).name)
    assert topic(message).data_classification != options_pb2.DATA_CLASSIFICATION_UNSPECIFIED


@pytest.mark.parametrize("message", EVENTS)
def test_an_event_begins_with_its_metadata(message):
    first = message.fields_by_number[1]
    assert first.name == "metadata"
    assert first.message_type.full_name == "sluice.events.v1.EventMetadata"


@pytest.mark.parametrize("message", EVENTS)
def test_the_key_of_an_event_is_one_of_its_text_fields(message):
    at, field = message, None
    for name in topic(message).key.split("."):
        field = at.fields_by_name[name]
        at = field.message_type
    assert field.type == FieldDescriptor.TYPE_STRING


@pytest.mark.parametrize("message", EVENTS)
def test_no_field_of_an_event_can_hold_raw_user_text(message):
    raw = [f.full_name for f in fields_at_any_depth(message) if f.GetOptions().debug_redact]
    assert raw == []


@pytest.mark.parametrize("message", EVENTS)
def test_an_event_imports_no_service(message):
    for dependency in message.file.dependencies:
        assert re.match(r"^(google/protobuf|sluice/(events|types)/v1)/", dependency.name), dependency.name


def test_events_that_are_joined_by_request_have_the_same_partitions():
    joined = [m for m in events() if topic(m).key == "metadata.request_id"]
    assert len({topic(m).partitions for m in joined}) == 1


def test_the_options_are_read_from_the_released_extension_number():
    field = descriptor_pb2.MessageOptions.DESCRIPTOR
    assert options_pb2.topic.number == 50700
    assert options_pb2.topic.containing_type.full_name == field.full_name
