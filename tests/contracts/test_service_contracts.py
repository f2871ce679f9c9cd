"""What must hold of every gRPC service, read off the descriptors themselves."""

import importlib
import re
from pathlib import Path

import pytest

PROTOS = Path(__file__).parents[2] / "protos"
FILES = sorted(p for p in (PROTOS / "sluice").rglob("*.proto"))
SERVICE_FILES = [p for p in FILES if p.name.endswith("_service.proto")]


def descriptor(path: Path):
    name = path.relative_to(PROTOS).with_suffix("").as_posix().replace("/", ".") + "_pb2"
    return importlib.import_module(name).DESCRIPTOR


# Its answers are events, which are a published contract of their own; nobody else's are (docs/decisions/0025-stories-of-requests.md).
READ_MODEL = "sluice/insight/v1"


@pytest.mark.parametrize("path", SERVICE_FILES, ids=lambda p: p.stem)
def test_a_service_imports_only_shared_types(path):
    package = path.parent.relative_to(PROTOS).as_posix()
    if package == READ_MODEL:
        package = f"{READ_MODEL}|sluice/events/v1"
    for dependency in descriptor(path).dependencies:
        assert re.match(rf"^(google/protobuf|sluice/types/v1|{package})/", dependency.name), dependency.name


@pytest.mark.parametrize("path", SERVICE_FILES, ids=lambda p: p.stem)
def test_free_text_of_people_is_marked_so_that_tools_hide_it(path):
    """A request field that looks like user text is marked debug_redact."""
    suspicious = {"text", "texts", "content", "prompt", "comment", "correction", "user", "arguments"}
    for message in descriptor(path).message_types_by_name.values():
        for field in message.fields:
            if field.name in suspicious and field.type == field.TYPE_STRING and "Reference" not in message.name:
                assert field.GetOptions().debug_redact, field.full_name


def test_the_catalogue_in_the_readme_names_every_service_and_topic():
    readme = (PROTOS / "README.md").read_text(encoding="utf-8")
    for path in SERVICE_FILES:
        for service in descriptor(path).services_by_name.values():
            for method in service.methods:
                assert f"| `{service.full_name}` | `{method.name}` |" in readme, "run `make protos`"


def test_the_catalogue_in_the_readme_is_what_the_generator_writes():
    import subprocess
    import sys

    fresh = subprocess.run(
        [sys.executable, str(PROTOS / "catalogue.py"), "--print"], capture_output=True, text=True, check=True
    ).stdout
    assert (PROTOS / "README.md").read_text(encoding="utf-8") == fresh, "run `make protos`"
