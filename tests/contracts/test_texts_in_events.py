"""Where events can hold text of a conversation: it has an encrypted form, the topic is confidential, and the operator's hash is the gateway's."""

import re
import secrets

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from sluice.events.v1 import options_pb2
from sluice_cli.privacy.subjects import _pseudonym
from sluice_gateway.domain.subject import pseudonym
from sluice_kit.events import encode

from .test_event_contracts import EVENTS, fields_at_any_depth, topic

ENCRYPTED = "sluice.types.v1.EncryptedText"
# In clear only for old readers, and where a whole installation has switched encryption off; each with its encrypted form.
IN_CLEAR = {
    "RequestCompleted.redacted_prompt": "encrypted_prompt",
    "RequestCompleted.redacted_answer": "encrypted_answer",
    "FeedbackReceived.redacted_comment": "encrypted_text",
    "FeedbackReceived.redacted_correction": "encrypted_text",
}
# Names that speak of text and hold none: codes, names of things, and what the operator of a tenant wrote.
NO_TEXT = {
    "RequestCompleted.prompt_version",
    "MetricSeries.prompt_version",
    "CostRecorded.prompt_version",
    "InferenceMeasured.prompt_version",
    "AlertRaised.summary",  # the rule's template, filled with labels and a number
    "RequestCompleted.text_left_out",
    "EncryptedText.ciphertext",
}
SPEAKS_OF_TEXT = re.compile(
    r"text|prompt|answer|comment|correction|message|content|note|description|reply|question|summary|title|utterance"
)


def named(field: FieldDescriptor) -> str:
    return f"{field.containing_type.name}.{field.name}"


def texts_of(message: Descriptor) -> list[str]:
    """Text fields by their names, and encrypted ones."""
    return [
        named(field)
        for field in fields_at_any_depth(message)
        if (field.message_type is not None and field.message_type.full_name == ENCRYPTED)
        or (
            field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
            and SPEAKS_OF_TEXT.search(field.name)
            and named(field) not in NO_TEXT
        )
    ]


@pytest.mark.parametrize("message", EVENTS)
def test_a_field_in_clear_that_can_hold_text_is_known_and_has_an_encrypted_form(message: Descriptor) -> None:
    for name in texts_of(message):
        owner, _, field = name.partition(".")
        if owner == message.name and field in message.fields_by_name:
            kind = message.fields_by_name[field].message_type
            if kind is not None and kind.full_name == ENCRYPTED:
                continue
        assert name in IN_CLEAR, f"{name}: encrypt it (docs/decisions/0014), or list it where it holds no text"
        assert message.fields_by_name[IN_CLEAR[name]].message_type.full_name == ENCRYPTED


@pytest.mark.parametrize("message", EVENTS)
def test_an_event_that_can_hold_text_or_an_embedding_of_it_is_confidential(message: Descriptor) -> None:
    names = [field.name for field in fields_at_any_depth(message)]
    if texts_of(message) or "embedding" in names:
        assert topic(message).data_classification == options_pb2.DATA_CLASSIFICATION_CONFIDENTIAL


@pytest.mark.parametrize("message", EVENTS)
def test_every_record_says_on_the_wire_who_may_read_it(message: Descriptor) -> None:
    event = GetMessageClass(message)()
    event.metadata.event_id = "e1"
    told = dict(encode(event).headers)["ce_dataclassification"].decode()
    assert f"DATA_CLASSIFICATION_{told.upper()}" == options_pb2.DataClassification.Name(
        topic(message).data_classification
    )


def test_the_search_for_texts_finds_the_ones_we_know() -> None:
    found = {name for param in EVENTS for name in texts_of(param.values[0])}
    assert found == set(IN_CLEAR) | {
        "RequestCompleted.encrypted_prompt",
        "RequestCompleted.encrypted_answer",
        "FeedbackReceived.encrypted_text",
    }


@pytest.mark.parametrize("user", ["maria", "maria@example.com", "Jürgen", "x" * 500])
def test_the_command_gives_a_person_the_pseudonym_the_gateway_gives(user: str) -> None:
    key = secrets.token_bytes(32)
    assert _pseudonym(key, "acme", user) == pseudonym(key, "acme", user)
