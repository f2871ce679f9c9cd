"""Starting, refusing to start, and stopping."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sluice_cli.mesh.home import Home

from .conftest import Mesh, eventually, free_offset

# The lightest real service: these tests are about processes, not about what they do.
LIGHT = ("--service", "insight")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Mesh]:
    """A mesh of the embedded broker and one service, not started yet."""
    mesh = Mesh(Home(tmp_path / "home"), free_offset(), "embedded")
    yield mesh
    mesh.sluice("mesh", "down")
    assert not mesh.processes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_the_command_in_the_foreground_no_process_is_left(small: Mesh, number: signal.Signals) -> None:
    command = small.begin("mesh", "up", *LIGHT)
    try:
        assert eventually(small.is_ready, 120), small.home.logs
        os.kill(command.pid, number)
        assert eventually(lambda: not small.processes(), 60), small.processes()
    finally:
        command.kill()
        command.communicate()


def test_what_a_killed_supervisor_leaves_behind_is_ended_by_down(small: Mesh) -> None:
    up = small.sluice("mesh", "up", "--detach", *LIGHT)
    assert up.returncode == 0, up.stdout + up.stderr
    pid = int((small.home.run / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: "processes of a killed one are left" in small.sluice("mesh", "status").stderr)
    assert small.sluice("mesh", "down").returncode == 0
    assert not small.processes()


def test_a_taken_port_is_one_sentence_that_names_it(small: Mesh) -> None:
    with socket.socket() as holder:
        port = 50058 + small.offset
        holder.bind(("127.0.0.1", port))
        holder.listen()
        up = small.sluice("mesh", "up", "--detach", *LIGHT)
    assert up.returncode == 1
    assert f"Port {port}, which insight needs, is taken by" in up.stderr
    assert "SLUICE_PORT_BASE_OFFSET=" in up.stderr
    assert len(up.stderr.strip().splitlines()) == 1


def test_without_a_mesh_every_command_says_so_in_one_sentence(small: Mesh) -> None:
    for arguments in (("mesh", "status"), ("demo",), ("events", "tail")):
        told = small.sluice(*arguments)
        assert (told.returncode, told.stderr.count("\n")) == (1, 1), arguments
        assert "make run" in told.stderr


def test_a_service_that_does_not_become_ready_is_named_with_its_last_words(small: Mesh) -> None:
    # Insight refuses to start with this, and says why.
    up = small.sluice("mesh", "up", "--detach", *LIGHT, "--timeout", "8", SLUICE_INSIGHT_GRPC_LISTEN="nonsense")
    assert up.returncode == 1
    assert "insight is not ready after" in up.stdout
    assert "SLUICE_INSIGHT_GRPC_LISTEN" in up.stdout
    assert not small.processes()


def test_the_judge_of_answers_runs_with_a_rate_and_without_one_says_what_it_lacks(small: Mesh) -> None:
    judge = ("mesh", "up", "--detach", "--service", "quality-judge")
    without = small.sluice(*judge, "--timeout", "15")
    assert without.returncode == 1
    assert "set SLUICE_QUALITY_JUDGE_RATE" in without.stdout
    up = small.sluice(*judge, SLUICE_QUALITY_JUDGE_RATE="0.1")
    assert up.returncode == 0, up.stdout + up.stderr
    status = small.sluice("mesh", "status")
    assert (status.returncode, "quality-judge" in status.stdout) == (0, True)


def test_a_second_start_of_the_same_mesh_is_refused_or_confirmed(mesh: Mesh) -> None:
    again = mesh.sluice("mesh", "up")
    assert again.returncode == 1
    assert "runs already" in again.stderr
    detached = mesh.sluice("mesh", "up", "--detach")
    assert detached.returncode == 0, detached.stdout + detached.stderr
    assert "runs already" in detached.stdout


def test_a_second_mesh_on_the_same_ports_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    other = Mesh(Home(tmp_path / "other"), mesh.offset, "embedded")
    up = other.sluice("mesh", "up", "--detach")
    assert up.returncode == 1
    assert f"ort {50051 + mesh.offset}, which gateway needs, is taken by" in up.stderr


def test_keys_survive_and_are_for_their_owner_alone(mesh: Mesh) -> None:
    for path in (mesh.home.demo_env, mesh.home.gateway_file):
        assert path.stat().st_mode & 0o777 == 0o600
    secret = mesh.environment["SLUICE_API_KEY"].rsplit("-", 1)[1]
    assert secret not in mesh.home.gateway_file.read_text()
