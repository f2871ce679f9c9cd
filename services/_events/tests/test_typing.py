"""What a type checker knows of an event."""

from pathlib import Path

import pytest
from mypy import api

CONFIGURATION = Path(__file__).parents[3] / "pyproject.toml"
PROGRAM = """
from typing import assert_type
import sluice_events
from sluice.events.v1.gateway_pb2 import RequestCompleted

async def read() -> None:
    async for event in sluice_events.consume(RequestCompleted, bootstrap="", group="finance"):
        assert_type(event, sluice_events.Event[RequestCompleted])
        assert_type(event.data.usage.output_tokens, int)
        assert_type(event.metadata.request_id, str)
    for event in sluice_events.consume_blocking(RequestCompleted, bootstrap=""):
        assert_type(event.data, RequestCompleted)
"""
MISTAKES = """
import sluice_events
from sluice.events.v1.gateway_pb2 import RequestCompleted

async def read() -> None:
    async for event in sluice_events.consume(RequestCompleted, bootstrap="", on_poison="ignore"):
        print(event.data.usage.output_tokenz)
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.chdir(CONFIGURATION.parent)

    def run(program: str) -> tuple[str, int]:
        (tmp_path / "program.py").write_text(program)
        options = ["--config-file", str(CONFIGURATION), "--cache-dir", str(tmp_path / "cache")]
        told, _, code = api.run([*options, str(tmp_path / "program.py")])
        return told, code

    return run


def test_the_message_class_types_the_loop(check):
    assert check(PROGRAM) == ("Success: no issues found in 1 source file\n", 0)


def test_a_mistyped_field_or_option_is_found_by_the_type_checker(check):
    told, code = check(MISTAKES)
    assert code == 1
    assert 'has no attribute "output_tokenz"' in told
    assert '"on_poison"' in told
