"""What the command says when something is wrong: one sentence on standard error, and exit code 1."""

from pathlib import Path

import pytest
from sluice_cli import main
from sluice_cli.mesh.problem import MeshProblem


def _told(failing: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    def app() -> None:
        raise failing

    monkeypatch.setattr(main, "app", app)
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 1
    return capsys.readouterr().err


def test_square_brackets_of_a_problem_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = MeshProblem("install sluice-cli[parquet].")
    assert _told(problem, monkeypatch, capsys) == "sluice: install sluice-cli[parquet].\n"


def test_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "away" / "focus.csv"
    with pytest.raises(OSError) as caught:
        path.write_text("")
    assert _told(caught.value, monkeypatch, capsys) == f"sluice: {path}: No such file or directory.\n"


def test_a_fault_of_ours_is_not_dressed_up_as_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise OSError("no file has to do with it")

    monkeypatch.setattr(main, "app", app)
    with pytest.raises(OSError, match="no file has to do with it"):
        main.main()
