"""The demonstration and the event tail, without a mesh."""

import json
from collections import Counter

import pytest
from sluice.events.v1 import gateway_pb2
from sluice_cli import events
from sluice_cli.demo import show
from sluice_cli.demo.conversations import KINDS, compose
from sluice_cli.demo.sending import Outcome
from sluice_cli.demo.witness import kinds
from sluice_cli.mesh.demo_env import EXPERIMENT_ARMS
from sluice_cli.mesh.problem import MeshProblem
from sluice_kit.events import encode, new_event_id

TENANTS = ("acme", "globex")


def test_the_same_seed_gives_the_same_conversations_and_another_one_others() -> None:
    assert compose(36, 7, TENANTS) == compose(36, 7, TENANTS)
    assert compose(36, 7, TENANTS) != compose(36, 8, TENANTS)


def test_a_few_dozen_conversations_have_every_kind_both_doors_and_both_tenants() -> None:
    conversations = compose(36, 7, TENANTS)
    assert {c.kind for c in conversations} == set(KINDS)
    for kind in ("question", "personal"):
        assert {(c.door, c.streamed) for c in conversations if c.kind == kind} >= {("http", True), ("grpc", False)}
    assert set(Counter(c.tenant for c in conversations)) == set(TENANTS)
    assert {c.feedback for c in conversations} >= {"thumb up", "thumb down", "rating", "correction", None}


def test_both_halves_of_the_experiment_have_every_kind_and_route() -> None:
    conversations = compose(80, 7, TENANTS)
    assert (
        len({c.turns[0].text for c in conversations}) == len({c.labels["prompt_version"] for c in conversations}) == 2
    )
    for arm in EXPERIMENT_ARMS:
        of_arm = [c for c in conversations if c.labels["experiment_arm"] == arm]
        assert len(of_arm) == 40
        assert {c.kind for c in of_arm} == set(KINDS)
        assert len({(c.door, c.streamed) for c in of_arm}) == 4


def test_every_conversation_ends_with_the_user_and_has_no_hole_in_it() -> None:
    for conversation in compose(300, 1, TENANTS):
        assert conversation.turns[-1].role == "user"
        assert not [turn for turn in conversation.turns if "{" in turn.text]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("status", ["answered", "blocked", "filtered", "failed"])
def test_a_line_fits_the_terminal(width: int, status: str) -> None:
    from rich.text import Text

    redacted = {"EMAIL_ADDRESS": 2, "PERSON": 1, "CREDIT_CARD": 1}
    for conversation in compose(20, 2, TENANTS):
        outcome = Outcome(
            conversation, "id", status, 12.3, "An answer [with] brackets. " * 9, "toxicity,insult", redacted, "thumb up"
        )
        assert Text.from_markup(show.line(outcome, width)).cell_len <= width


def test_counts_by_kind_are_summed_over_fields_and_events() -> None:
    event = gateway_pb2.RequestCompleted()
    event.redacted_input.add(kind="PERSON", count=2)
    event.redacted_output.add(kind="PERSON", count=1)
    assert kinds([event, event], "redacted_input", "redacted_output") == {"PERSON": 6}


def test_events_are_chosen_by_name_or_type_in_any_case() -> None:
    (by_name,) = events.topics_named(["requestcompleted"])
    (by_type,) = events.topics_named(["sluice.gateway.request_completed.v1"])
    assert by_name == by_type
    assert events.topics_named(["sluice.gateway.request_completed.v1.dlq"])[0].message_class is None
    with pytest.raises(MeshProblem, match=r"no event Nonsense; there are .*RequestCompleted"):
        events.topics_named(["Nonsense"])


def test_an_event_is_one_json_line_with_its_attributes_and_data() -> None:
    event = gateway_pb2.RequestCompleted(model="sluice-small")
    event.metadata.event_id, event.metadata.producer, event.metadata.request_id = (
        new_event_id(),
        "sluice-gateway/0",
        "r1",
    )
    record = encode(event)
    line = json.loads(events.SeenEvent(record.topic, 0, 0, dict(record.headers), event).as_json())
    assert (line["type"], line["subject"], line["source"]) == (record.topic, "r1", "sluice-gateway/0")
    assert line["data"]["model"] == "sluice-small"


def test_a_broken_record_is_one_json_line_with_its_place_and_reason() -> None:
    line = json.loads(events.SeenEvent("t", 3, 14, {"k": b"\xff"}, None, "malformed").as_json())
    assert (line["error"], line["topic"], line["partition"], line["offset"]) == ("malformed", "t", 3, 14)
