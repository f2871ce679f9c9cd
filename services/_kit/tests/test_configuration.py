"""Configuration files: read strictly, every mistake told with its line, the last good one kept."""

import asyncio
import enum
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from pydantic import Field, model_validator
from sluice_kit.configuration import (
    ConfigurationModel,
    ConfigurationRefused,
    SourceFile,
    document,
    documents,
    read_source,
    source_files,
)
from sluice_kit.configuration_watch import WatchedConfiguration
from structlog.testing import capture_logs


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Stripe(ConfigurationModel):
    colour: Colour
    width: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _no_thin_red(self) -> "Stripe":
        if self.colour is Colour.RED and self.width < 0.1:
            raise ValueError("a red stripe must be at least 0.1 wide")
        return self


class Flag(ConfigurationModel):
    flag: str = Field(pattern=r"^[a-z]+$")
    version: int = Field(ge=1)
    stripes: tuple[Stripe, ...] = ()
    by_land: dict[str, Stripe] = {}
    hoisted: bool = False
    since: str = ""


GOOD = """flag: tricolour
version: 2
stripes:
  - colour: red
    width: 0.5
  - {colour: blue, width: 1}
by_land:
  fr: {colour: blue, width: 0.3}
"""


def read(text: str | bytes) -> Flag:
    content = text if isinstance(text, bytes) else text.encode()
    return document(SourceFile(Path("f.yaml"), content), Flag).value


def test_a_good_file_is_read_into_frozen_values():
    flag = read(GOOD)
    assert (flag.flag, flag.version, len(flag.stripes)) == ("tricolour", 2, 2)
    assert flag.stripes[1] == Stripe(colour=Colour.BLUE, width=1.0)
    with pytest.raises(ValueError, match="frozen"):
        flag.version = 3


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("version: 2", "versoin: 2", ["f.yaml:1: the file: version is missing", "f.yaml:2: versoin: unknown field"]),
        ("version: 2", "version: two", ["f.yaml:2: version: must be a valid integer"]),
        ("version: 2", "version: true", ["f.yaml:2: version: must be a valid integer"]),
        ("version: 2", "version: 0", ["f.yaml:2: version: must be greater than or equal to 1"]),
        ("width: 0.5", "width: 1.5", ["f.yaml:5: stripes[0].width: must be less than or equal to 1"]),
        ("width: 0.5", "width: .nan", ["f.yaml:5: stripes[0].width: must be"]),
        ("width: 1}", "width: 1, hight: 2}", ["f.yaml:6: stripes[1].hight: unknown field"]),
        ("colour: blue, width: 0.3", "colour: grey", ["f.yaml:8: by_land.fr.colour: must be 'red' or 'blue'",
                                                      "f.yaml:8: by_land.fr: width is missing"]),
        ("    width: 0.5", "    width: 0.05", ["f.yaml:4: stripes[0]: a red stripe must be at least 0.1 wide"]),
        ("version: 2", "version: 2\nversion: 3", ["f.yaml:3: version stands here a second time; keep one"]),
        ("fr:", "no:", ["f.yaml:8: a key of by_land is read as bool: put it into quotes"]),
        ("fr:", "1:", ["f.yaml:8: a key of by_land is read as int: put it into quotes"]),
        ("stripes:", "stripes: [", ["f.yaml:4: not YAML"]),
        ("flag: tricolour", "flag: &a tricolour\nsince: *a", ["f.yaml:1: since is used twice by an anchor"]),
        ("flag: tricolour", "flag: !!python/name:os.system ''", ["f.yaml:1: a value has a type that is not known here"]),
        ("flag: tricolour", "flag: !!binary aGk=", ["f.yaml:1: a value has a type that is not known here"]),
        (GOOD, "", ["f.yaml:1: the file: flag is missing", "f.yaml:1: the file: version is missing"]),
        (GOOD, "- a\n- b", ["f.yaml:1: the file: must be"]),
        (GOOD, "a: 1\n---\nb: 2", ["f.yaml:2: not YAML"]),
        (GOOD, "flag: " + "[" * 5000, ["f.yaml:1:"]),
        (GOOD, 'flag: "\\ud800"\nversion: 1', ["f.yaml:1:"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_file_and_line(old: str, new: str, told: list[str]):
    assert old in GOOD
    with pytest.raises(ConfigurationRefused) as refused:
        read(GOOD.replace(old, new))
    lines = str(refused.value).splitlines()
    assert len(lines) == len(told)
    assert all(line.startswith(begin) for line, begin in zip(lines, told, strict=True)), lines


def test_every_mistake_of_every_file_is_told_at_once(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(GOOD.replace("version: 2", "version: 0").replace("red", "grey"))
    (tmp_path / "b.yaml").write_bytes(b"flag: x\nversion: \xff\n")
    (tmp_path / "c.yaml").write_text(GOOD)
    with pytest.raises(ConfigurationRefused) as refused:
        documents(source_files(tmp_path), Flag)
    assert [(m.path.name, m.line) for m in refused.value.mistakes] == [("a.yaml", 2), ("a.yaml", 4), ("b.yaml", 2)]


def test_a_message_never_quotes_a_value():
    with pytest.raises(ConfigurationRefused) as refused:
        read("flag: hunter2-Secret\nversion: hunter2-Secret\nhoisted: hunter2-Secret\nstripes: hunter2-Secret")
    assert len(refused.value.mistakes) == 4
    assert "hunter2" not in str(refused.value)


def test_a_date_stays_the_text_it_is():
    assert read("flag: a\nversion: 1\nsince: 2026-11-25").since == "2026-11-25"


def test_an_owner_can_point_at_a_line_for_a_mistake_of_its_own():
    found = document(SourceFile(Path("f.yaml"), GOOD.encode()), Flag)
    assert str(found.mistake("is also in g.yaml", at=("by_land", "fr"))) == "f.yaml:8: is also in g.yaml"
    assert found.mistake("x", at=("by_land", "fr", "colour")).line == 8
    assert found.source.digest.startswith("sha256:")


def test_hidden_and_other_files_are_left_out_and_a_missing_folder_is_named(tmp_path: Path):
    for name in (".#a.yaml", "a.yaml.bak", "b.yaml"):
        (tmp_path / name).write_text(GOOD)
    assert [s.path.name for s in source_files(tmp_path)] == ["b.yaml"]
    with pytest.raises(ConfigurationRefused, match="nowhere:1: is no folder"):
        source_files(tmp_path / "nowhere")
    with pytest.raises(ConfigurationRefused, match=r"gone.yaml:1: cannot be read"):
        read_source(tmp_path / "gone.yaml")


@given(st.binary(max_size=200) | st.text(alphabet=":-{}[]&*!\"' \nab1#|>%@`", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_and_never_fail_otherwise(content: bytes):
    try:
        read(content)
    except ConfigurationRefused as refused:
        assert refused.mistakes
        assert all(m.line >= 1 for m in refused.mistakes)


def flags(sources: tuple[SourceFile, ...]) -> dict[str, Flag]:
    return {found.value.flag: found.value for found in documents(sources, Flag)}


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_good_change_comes_into_force_and_a_bad_one_leaves_the_last_good_one(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_text(GOOD)
    watched = WatchedConfiguration([tmp_path], flags, service="t1")
    first = watched.digest
    watching = asyncio.create_task(watched.watch(poll_seconds=0.01))
    try:
        file.write_text(GOOD.replace("version: 2", "version: 3"))
        await until(lambda: watched.current["tricolour"].version == 3)
        assert sample("sluice_configuration_info", service="t1", digest=watched.digest) == 1
        assert sample("sluice_configuration_info", service="t1", digest=first) == 0
        good = watched.digest
        with capture_logs() as logs:
            file.write_text(GOOD.replace("version: 2", "version: 0\ncolor: x"))
            await until(lambda: sample("sluice_configuration_reloads_total", service="t1", result="refused") == 1)
        assert watched.current["tricolour"].version == 3
        assert watched.digest == good
        assert [(e["line"], e["reason"]) for e in logs if e["event"] == "configuration.refused"] == [
            (2, "version: must be greater than or equal to 1"), (3, "color: unknown field"),
        ]  # fmt: skip
        assert sample("sluice_configuration_stale", service="t1") == 1
        file.write_text(GOOD.replace("version: 2", "version: 4"))
        await until(lambda: watched.current["tricolour"].version == 4)
        assert sample("sluice_configuration_stale", service="t1") == 0
        assert sample("sluice_configuration_reloads_total", service="t1", result="loaded") == 2
    finally:
        watching.cancel()


async def test_files_that_are_added_removed_or_moved_into_place_are_seen(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(GOOD)
    watched = WatchedConfiguration([tmp_path], flags, service="t2")
    watching = asyncio.create_task(watched.watch(poll_seconds=0.01))
    try:
        (tmp_path / "b.new").write_text(GOOD.replace("tricolour", "plain"))
        (tmp_path / "b.new").rename(tmp_path / "b.yaml")
        await until(lambda: set(watched.current) == {"tricolour", "plain"})
        (tmp_path / "a.yaml").unlink()
        await until(lambda: set(watched.current) == {"plain"})
    finally:
        watching.cancel()


async def test_a_mounted_configmap_that_is_replaced_by_moving_a_link_is_seen(tmp_path: Path):
    for version in (2, 3):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "a.yaml").write_text(GOOD.replace("version: 2", f"version: {version}"))
    (tmp_path / "..data").symlink_to("..2")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    watched = WatchedConfiguration([tmp_path], flags, service="t6")
    watching = asyncio.create_task(watched.watch(poll_seconds=0.01))
    try:
        (tmp_path / "..next").symlink_to("..3")
        (tmp_path / "..next").rename(tmp_path / "..data")
        await until(lambda: watched.current["tricolour"].version == 3)
    finally:
        watching.cancel()


def test_a_folder_that_goes_away_leaves_the_last_good_one_and_may_come_back(tmp_path: Path):
    folder, away = tmp_path / "here", tmp_path / "away"
    folder.mkdir()
    (folder / "a.yaml").write_text(GOOD)
    watched = WatchedConfiguration([folder], flags, service="t3")
    folder.rename(away)
    assert not watched.reload()
    assert set(watched.current) == {"tricolour"}
    away.rename(folder)
    assert watched.reload()
    assert sample("sluice_configuration_stale", service="t3") == 0


def test_a_builder_that_fails_by_a_fault_of_its_own_leaves_the_last_good_one(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(GOOD)

    def build(sources: tuple[SourceFile, ...]) -> int:
        return 1 // (1 - sources[0].content.count(b"zero"))

    watched = WatchedConfiguration([tmp_path], build, service="t4")
    (tmp_path / "a.yaml").write_text(GOOD + "# zero")
    assert not watched.reload()
    assert watched.current == 1


def test_a_service_does_not_start_on_bad_configuration(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("flag: 1")
    with pytest.raises(ConfigurationRefused, match=r"a.yaml:1: flag"):
        WatchedConfiguration([tmp_path], flags, service="t5")
