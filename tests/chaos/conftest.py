"""Where a chaos run is played, and what it tells at the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sluice_cli.mesh.home import Home

from ..mesh.conftest import Mesh, free_offset, runs_apache
from .stage import Stage, plan_of_the_environment, prepare, scripted_model

START_SECONDS = 240
REPORTS = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/chaos" in item.path.as_posix():
            item.add_marker(pytest.mark.mesh)


@pytest.fixture(params=["apache", "embedded"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """A whole mesh before a scripted model, with three tenants, one of them on a hard budget."""
    if request.param == "apache" and (reason := runs_apache()):
        pytest.skip(f"Apache Kafka cannot run here: {reason}")
    plan = plan_of_the_environment()
    if request.param == "embedded" and plan.name == "short" and not runs_apache():
        pytest.skip("the short form plays on Apache Kafka where that can run; `make test-chaos` plays on both")
    mesh = Mesh(Home(tmp_path / "mesh"), free_offset(), request.param)
    mesh.home.path.mkdir()
    with scripted_model() as port:
        keys, settings = prepare(plan, mesh, port)
        try:
            up = mesh.sluice("mesh", "up", "--detach", "--timeout", str(START_SECONDS - 40), **settings)
            assert up.returncode == 0, up.stdout + up.stderr
            yield Stage(plan, mesh, keys)
        finally:
            mesh.sluice("mesh", "down")
            left = mesh.processes()
            assert not left, f"left after `sluice mesh down`: {left}"


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are shown at the end of the run, whether it passed or not."""
    return request.config.stash.setdefault(REPORTS, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash.get(REPORTS, []):
        terminalreporter.write_line(line)
