"""`sluice drift pin`: what is asked of the drift service, and what its refusals look like."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from sluice_cli.drift import MODULE, asked
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem

ARGUMENTS = ["pin", "small", "--tenant", "acme"]


def stand_in(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that answers as the service does."""
    (folder / "stand_in_pin.py").write_text("import json, os, sys\n" + body)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "stand_in_pin"


def test_the_service_is_asked_in_the_mesh_s_home_and_its_answer_read(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("SLUICE_HOME", raising=False)
    module = stand_in(
        tmp_path, "print(json.dumps({'told': sys.argv[1:], 'home': os.environ['SLUICE_HOME']}))", monkeypatch
    )
    assert asked(Home(tmp_path), ARGUMENTS, module=module) == {"told": ARGUMENTS, "home": str(tmp_path)}


def test_why_nothing_was_pinned_is_the_service_s_own_sentence(tmp_path, monkeypatch) -> None:
    module = stand_in(tmp_path, "sys.exit('There is no series of tenant acme.')", monkeypatch)
    with pytest.raises(MeshProblem, match="There is no series of tenant acme"):
        asked(Home(tmp_path), ARGUMENTS, module=module)


@pytest.mark.skipif(find_spec("sluice_drift") is None, reason="the drift service is not installed")
def test_without_a_broker_the_real_command_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SLUICE_KAFKA_BOOTSTRAP", "127.0.0.1:9")
    with pytest.raises(MeshProblem, match="does not answer"):
        asked(Home(tmp_path), ARGUMENTS, module=MODULE)
