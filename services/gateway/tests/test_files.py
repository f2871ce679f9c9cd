"""The files the gateway reads: its configuration, and the key under which persons get pseudonyms."""

import asyncio
import os
import signal
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sluice_gateway.adapters import subject_key
from sluice_gateway.adapters.configuration_file import ConfigurationFile
from sluice_gateway.domain.answer import is_empty
from sluice_gateway.domain.configuration import ConfigurationError
from sluice_gateway.domain.refusal import is_refusal
from sluice_gateway.domain.subject import pseudonym

README = Path(__file__).parents[1] / "README.md"


def _example() -> str:
    return README.read_text().split("```yaml\n")[1].split("```")[0]


def test_the_example_of_the_readme_is_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(_example())
    configuration = ConfigurationFile(path).current()
    assert list(configuration.tenants) == ["demo"]


def test_a_changed_file_is_loaded_and_a_bad_one_leaves_the_last_good_one_in_force(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(_example())
    file = ConfigurationFile(path)
    path.write_text(_example().replace("sluice-small", "sluice-tiny"))
    os.utime(path, ns=(1, 1))
    assert file._changed()
    assert file.reload()
    assert "sluice-tiny" in file.current().deployments
    for bad in ("version: 2", ": : :", "\x00"):
        path.write_text(bad)
        assert not file.reload()
        assert "sluice-tiny" in file.current().deployments
    path.unlink()
    assert not file._changed()
    assert not file.reload()


async def test_a_hangup_signal_reloads_the_file(tmp_path: Path, eventually: Callable[..., Awaitable[None]]) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(_example())
    file = ConfigurationFile(path)
    watching = asyncio.create_task(file.watch())
    await asyncio.sleep(0)
    path.write_text(_example().replace("sluice-small", "sluice-tiny"))
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: "sluice-tiny" in file.current().deployments)
    watching.cancel()


def test_a_file_that_cannot_be_read_at_start_is_one_clear_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        ConfigurationFile(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        ConfigurationFile(tmp_path / "latin.yaml")


def test_the_subject_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "subject.key"
    key = subject_key.load_or_make(path)
    assert subject_key.load_or_make(path) == key
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="does not hold a key"):
        subject_key.load_or_make(path)


def test_a_pseudonym_is_stable_and_differs_by_tenant_user_and_installation() -> None:
    one = pseudonym(b"k", "acme", "jane@example.com")
    assert one == pseudonym(b"k", "acme", "jane@example.com")
    others = {
        pseudonym(b"k", "other", "jane@example.com"),
        pseudonym(b"k", "acme", "joe"),
        pseudonym(b"x", "acme", "jane@example.com"),
    }
    assert one not in others
    assert "jane" not in one
    assert pseudonym(b"k", "acme", "") == ""


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        ("I'm sorry, but I cannot help with that.", True),
        ("I’m sorry, I can’t do this.", True),
        ("As an AI language model I have no opinion.", True),
        ("I can help you with that.", False),
        ("She said: no apology is needed.", False),
        ("x" * 300 + " I cannot help with that", False),
    ],
)
def test_refusals_are_told_by_their_first_words(answer: str, refusal: bool) -> None:
    assert is_refusal(answer) is refusal


def test_white_space_is_an_empty_answer() -> None:
    assert is_empty(" \n")
    assert not is_empty("a")
