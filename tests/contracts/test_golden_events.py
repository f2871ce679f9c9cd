"""Golden bytes of every event, and two real versions of the schema reading each other's bytes."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

PROTOS = Path(__file__).parents[2] / "protos"
sys.path.insert(0, str(PROTOS))
golden = importlib.import_module("golden")
sources = importlib.import_module("contracts.sources")
kit_events = importlib.import_module("sluice_events.topics")

MAKE = "run `make protos-golden` and commit what it writes"
TODAY = {spec.message_class.DESCRIPTOR.name: spec.message_class for spec in kit_events.event_topics()}
VERSIONS = sources.released_versions()
RELEASED = {version: sources.released(version) for version in VERSIONS}
SAMPLES = [
    pytest.param(path, id=f"{path.parent.name}/{path.stem}")
    for folder in (*VERSIONS, golden.NEXT)
    for path in sorted((golden.GOLDEN / folder).glob("*.binpb"))
]
OLD_SAMPLES = [sample for sample in SAMPLES if sample.values[0].parent.name != golden.NEXT]
NEW_SAMPLES = [sample for sample in SAMPLES if sample.values[0].parent.name == golden.NEXT]


def event_name(path: Path) -> str:
    return path.stem.split("-")[0]


def today(path: Path) -> Message:
    return TODAY[event_name(path)].FromString(path.read_bytes())


def class_in(version: str, name: str) -> type[Message] | None:
    events = {event.name: event.message for event in RELEASED[version].events()}
    return GetMessageClass(events[name]) if name in events else None


def as_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def holds(whole: Any, part: Any) -> bool:
    """Every value of part stands in whole at the same place. A list may hold messages with more fields, not more messages."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and holds(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(holds, whole, part))
    return whole == part


def place_of(message: Any) -> int:
    return list(message.file.message_types_by_name).index(message.name)


# --- the files ---


def test_every_event_and_field_of_today_has_golden_bytes():
    wrong = golden.stale()
    assert not wrong, (
        f"golden bytes in protos/released/golden/next are missing or out of step ({', '.join(wrong)}): {MAKE}"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_every_event_of_a_release_has_golden_bytes(version):
    names = {name for name, _ in golden.golden_files(RELEASED[version])}
    there = {path.name for path in (golden.GOLDEN / version).iterdir()} - {golden.DIGESTS}
    assert there == names, f"released/golden/{version} is not complete: {MAKE}"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_released_golden_file_never_changes(version):
    folder = golden.GOLDEN / version
    assert golden.digests(folder) == (folder / golden.DIGESTS).read_text(), (
        f"released/golden/{version} was changed. What was released is out there in topics: take the files back"
        " (`git checkout`); a change of meaning is a new field or a new event."
    )


@pytest.mark.parametrize("path", NEW_SAMPLES)
def test_every_field_is_set_in_the_golden_bytes(path):
    set_in_any: set[str] = set()
    for sibling in path.parent.glob(f"{event_name(path)}*.binpb"):
        if event_name(sibling) == event_name(path):
            set_in_any |= {field.name for field, _ in today(sibling).ListFields()}
    assert set_in_any == {field.name for field in TODAY[event_name(path)].DESCRIPTOR.fields}


@pytest.mark.parametrize("path", SAMPLES)
def test_todays_code_reads_golden_bytes_as_they_were_recorded(path):
    assert golden.as_json(today(path)) == path.with_suffix(".json").read_text(encoding="utf-8")


# --- two versions ---


def test_there_is_a_released_version_that_differs_from_today():
    """Or the tests below would compare a schema with itself."""
    now = {event.name: {f.name for f in event.message.fields} for event in sources.current().events()}
    then = {event.name: {f.name for f in event.message.fields} for event in RELEASED[VERSIONS[0]].events()}
    assert now != then
    assert all(then[name] <= now[name] for name in then)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_event_stands_in_its_file_where_it_was_released(version):
    """A schema registry's frame names a message by its place: a new message goes to the end of its file."""
    then = {event.name: place_of(event.message) for event in RELEASED[version].events()}
    assert {name: place_of(cls.DESCRIPTOR) for name, cls in TODAY.items() if name in then} == then


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", NEW_SAMPLES)
def test_an_old_reader_reads_what_todays_writer_writes(path, version):
    old_class = class_in(version, event_name(path))
    if old_class is None:
        return  # a new event: the old reader has no such topic
    seen = as_dict(old_class.FromString(path.read_bytes()))
    assert seen["metadata"]["event_id"]
    assert holds(as_dict(today(path)), seen)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", NEW_SAMPLES)
def test_what_an_old_reader_does_not_know_survives_its_hands(path, version):
    old_class = class_in(version, event_name(path))
    if old_class is None:
        return
    passed_on = old_class.FromString(path.read_bytes()).SerializeToString()
    assert TODAY[event_name(path)].FromString(passed_on) == today(path)


@pytest.mark.parametrize("path", OLD_SAMPLES)
def test_todays_reader_reads_what_an_old_writer_wrote(path):
    old_class = class_in(path.parent.name, event_name(path))
    old = old_class.FromString(path.read_bytes())
    assert as_dict(today(path)) == as_dict(old)
    # Written by the old code itself, not only by what made the golden file.
    rewritten = ParseDict(as_dict(old), old_class()).SerializeToString()
    assert today(path) == TODAY[event_name(path)].FromString(rewritten)


@pytest.mark.parametrize("path", OLD_SAMPLES)
def test_fields_an_old_writer_did_not_know_are_absent_and_not_wrong(path):
    known = {field.name for field in class_in(path.parent.name, event_name(path)).DESCRIPTOR.fields}
    assert {field.name for field, _ in today(path).ListFields()} <= known
