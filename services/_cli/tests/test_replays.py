"""`sluice events replay`: what is asked of the service that owns a projection, and what is refused."""

from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.proof import replays

REPORT = {
    "into": "replay",
    "spans": [{"partition": 0, "from": 3, "until": 9}],
    "events": 6,
    "skipped": {"malformed": 1},
    "difference": {
        "same": 4, "different": 1, "only_live": 1, "only_replayed": 0, "begun_before": 2, "examples": ["event-7: amount_nano 1 -> 2"],
    },
    "sums_same": False, "sha256": "ab", "deleted_before": {"0": 3}, "kept_as": "", "same": False,
}  # fmt: skip


def service(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> replays.Projection:
    """A module that answers as a service's replay does."""
    (folder / "stand_in_replay.py").write_text("import json, os, sys\n" + body)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return replays.Projection("cost", "stand_in_replay", is_exchanged=True)


def test_the_service_is_run_with_what_was_asked_and_its_report_read(tmp_path, monkeypatch) -> None:
    found = service(
        tmp_path,
        "print(json.dumps({'told': sys.argv[1:], 'home': os.environ['SLUICE_HOME']})); sys.exit(3)",
        monkeypatch,
    )
    monkeypatch.delenv("SLUICE_HOME", raising=False)
    report = replays.build(found, Home(tmp_path), into="new", begin="7", export=tmp_path / "rows")
    assert report == {
        "told": ["--into", "new", "--from", "7", "--export", str(tmp_path / "rows")],
        "home": str(tmp_path),
    }


def test_a_service_that_cannot_is_one_sentence(tmp_path, monkeypatch) -> None:
    found = service(tmp_path, "sys.exit('the cost database is not available')", monkeypatch)
    with pytest.raises(MeshProblem, match="the cost database is not available"):
        replays.switch(found, Home(tmp_path), into="new", accept_differences=True)


@pytest.mark.parametrize("name", ["fairness", "read-models", "nothing"])
def test_what_cannot_be_replayed_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(MeshProblem, match=r"cannot be replayed|There is no projection .* there are ledger, metrics"):
        replays.projection(name)


@pytest.mark.parametrize("name", ["ledger", "metrics", "drift", "feedback", "insight"])
def test_every_projection_names_a_module_that_can_be_run(name: str) -> None:
    assert find_spec(replays.projection(name).module)


def test_corrected_windows_and_those_left_alone_are_counted() -> None:
    out = StringIO()
    replays.show(
        REPORT | {"corrected": 3, "held": 2, "unlike": ["reference 1 of acme|small"]}, Console(file=out, width=200)
    )
    assert "3 windows published as they were counted here; 2 left alone" in out.getvalue()
    assert "reference 1 of acme|small" in out.getvalue()


def test_differences_are_shown() -> None:
    out = StringIO()
    replays.show(REPORT, Console(file=out, width=200))
    assert (
        "4 the same, 1 different, 1 only live, 0 only replayed, 2 begun before the range; SUMS DIFFERENT"
        in out.getvalue()
    )
    assert "event-7: amount_nano 1 -> 2" in out.getvalue()
    assert "begins at 3" in out.getvalue()
