"""Configuration files: YAML read strictly into models, every mistake told at once with its file, its line and the reason."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

# A configuration file is written by hand. These bounds keep a wrong path or a hostile file from costing memory or the stack.
MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 32

Place = tuple[str | int, ...]


class ConfigurationModel(BaseModel):
    """What a file's content is read into, at every depth: unknown fields and wrong types are mistakes, values are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


M = TypeVar("M", bound=ConfigurationModel)


@dataclass(frozen=True, order=True)
class Mistake:
    """One thing that is wrong in one file; `line` counts from 1."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


class ConfigurationRefused(ValueError):
    """Files that cannot be used. The message has a line for each mistake."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True)
class SourceFile:
    """A file as it was read once: what is parsed and what the digest is of are the same bytes."""

    path: Path
    content: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the bytes."""
        return "sha256:" + hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Document(Generic[M]):
    """A file's content as a model, with the lines its parts came from."""

    source: SourceFile
    value: M
    _lines: dict[Place, int] = field(repr=False)

    def mistake(self, reason: str, *, at: Place = ()) -> Mistake:
        """A mistake that only shows beside other files, or to whoever knows what the values mean."""
        return Mistake(self.source.path, _line_of(self._lines, at), reason)


def source_files(folder: Path, *, suffix: str = ".yaml") -> tuple[SourceFile, ...]:
    """The folder's files that end so, by name; hidden ones (an editor's locks) are left out. Raises ConfigurationRefused."""
    if not folder.is_dir():
        raise ConfigurationRefused([Mistake(folder, 1, "is no folder")])
    paths = sorted(p for p in folder.iterdir() if p.name.endswith(suffix) and not p.name.startswith("."))
    found: list[SourceFile] = []
    mistakes: list[Mistake] = []
    for path in paths:
        try:
            found.append(read_source(path))
        except ConfigurationRefused as refused:
            mistakes += refused.mistakes
    if mistakes:
        raise ConfigurationRefused(mistakes)
    return tuple(found)


def read_source(path: Path) -> SourceFile:
    """One file's bytes. Raises ConfigurationRefused."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationRefused([Mistake(path, 1, f"cannot be read: {error.strerror}")]) from None
    if len(content) > MAX_BYTES:
        raise ConfigurationRefused([Mistake(path, 1, f"is larger than {MAX_BYTES} bytes")])
    return SourceFile(path, content)


def documents(sources: Sequence[SourceFile], model: type[M]) -> tuple[Document[M], ...]:
    """All files read into the model. Raises ConfigurationRefused with the mistakes of all of them."""
    found: list[Document[M]] = []
    mistakes: list[Mistake] = []
    for source in sources:
        try:
            found.append(document(source, model))
        except ConfigurationRefused as refused:
            mistakes += refused.mistakes
    if mistakes:
        raise ConfigurationRefused(mistakes)
    return tuple(found)


def document(source: SourceFile, model: type[M]) -> Document[M]:
    """One file read into the model. Raises ConfigurationRefused with every mistake of it, in the order of the lines."""
    reading = _Reading(source.path)
    content = reading.read(source.content)
    value: M | None = None
    try:
        # Through JSON: pydantic's strict mode then takes what a text format can hold (an enum's value, a list for a tuple).
        value = model.model_validate_json(json.dumps(content))
    except ValidationError as error:
        reading.mistakes += [_told(source.path, reading.lines, detail) for detail in error.errors(include_input=False)]
    if reading.mistakes or value is None:
        raise ConfigurationRefused(sorted(set(reading.mistakes)))
    return Document(source, value, reading.lines)


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates as the text they are."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Reading:
    """Turns YAML's nodes into plain values, and remembers the line of each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines: dict[Place, int] = {(): 1}
        self.mistakes: list[Mistake] = []
        self._seen: set[int] = set()

    def read(self, content: bytes) -> Any:
        """Raises ConfigurationRefused for what is no YAML, or has no use here; other mistakes are gathered."""
        try:
            loader = _Loader(content.decode("utf-8-sig"))
            try:
                node = loader.get_single_node()
                return {} if node is None else self._value(loader, node, ())
            finally:
                loader.dispose()  # type: ignore[no-untyped-call]
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise self._refused(line, "is not UTF-8") from None
        except RecursionError:
            raise self._refused(1, f"is nested more than {_MAX_DEPTH} deep") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            # Not the whole error: that quotes the text, which may hold a secret.
            problem = getattr(error, "problem", None) or "it cannot be read"
            raise self._refused(mark.line + 1 if mark else 1, f"not YAML: {problem}") from None

    def _value(self, loader: _Loader, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        if len(place) > _MAX_DEPTH:
            raise self._refused(line, f"is nested more than {_MAX_DEPTH} deep")
        if id(node) in self._seen:
            # An alias is cheap to write and can stand for a billion values.
            raise self._refused(line, f"{_name(place)} is used twice by an anchor (&, *): write it out")
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, item, (*place, i)) for i, item in enumerate(node.value)]
        return self._scalar(loader, node)

    def _scalar(self, loader: _Loader, node: yaml.Node) -> Any:
        try:
            value = loader.construct_object(node)  # type: ignore[no-untyped-call]
        except (ValueError, yaml.YAMLError):
            raise self._refused(node.start_mark.line + 1, "a value has a type that is not known here") from None
        if not isinstance(value, str | int | float | bool | None):
            raise self._refused(node.start_mark.line + 1, "a value has a type that is not known here")
        return value

    def _mapping(self, loader: _Loader, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._scalar(loader, key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._note(line, f"a key of {_name(place)} is read as {type(key).__name__}: put it into quotes")
            elif key in found:
                self._note(line, f"{key} stands here a second time; keep one")
            else:
                self.lines[(*place, key)] = line
                found[key] = self._value(loader, value_node, (*place, key))
        return found

    def _note(self, line: int, reason: str) -> None:
        self.mistakes.append(Mistake(self._path, line, reason))

    def _refused(self, line: int, reason: str) -> ConfigurationRefused:
        return ConfigurationRefused([*self.mistakes, Mistake(self._path, line, reason)])


def _told(path: Path, lines: dict[Place, int], detail: ErrorDetails) -> Mistake:
    place = tuple(part for part in detail["loc"] if part != "[key]")
    return Mistake(path, _line_of(lines, place), f"{_name(_known(lines, place))}: {_reason(detail)}")


def _reason(detail: ErrorDetails) -> str:
    """Pydantic's message, which never holds the value, in the words of a file."""
    missing = str(detail["loc"][-1]) if detail["loc"] else ""
    match detail["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "missing":
            return f"{missing} is missing"
        case "model_type":
            return "must be a mapping"
        case "json_invalid":
            return "holds a character that no text may hold"
    message = re.sub(r"^(Value error|Assertion failed), ", "", detail["msg"])
    return re.sub(r"^Input should be", "must be", message)


def _known(lines: dict[Place, int], place: Place) -> Place:
    """The parts of a place that the file has; pydantic also puts in names of its own, such as a union's branch."""
    known: Place = ()
    for part in place:
        if (*known, part) in lines:
            known = (*known, part)
    return known


def _line_of(lines: dict[Place, int], place: Place) -> int:
    return lines[_known(lines, place)]


def _name(place: Place) -> str:
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return name.removeprefix(".") or "the file"
