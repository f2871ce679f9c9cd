"""The protos as they stand in the files, with their comments; generated Python has lost those."""

import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor
from sluice.events.v1 import options_pb2

PROTOS = Path(__file__).parents[1]
ROOT = PROTOS.parent
DEFAULT_PARTITIONS = 4
DEFAULT_RETENTION_SECONDS = 7 * 24 * 3600
EVENTS_PACKAGE = "sluice.events.v1"

# Field numbers inside descriptor.proto, which a comment's path is made of.
_MESSAGE, _ENUM, _FIELD, _NESTED, _ENUM_IN_MESSAGE, _VALUE, _ONEOF = 4, 5, 2, 3, 4, 2, 8


@dataclass(frozen=True)
class Event:
    """An event message and where it is published."""

    message: Descriptor
    topic: options_pb2.TopicOptions

    @property
    def name(self) -> str:
        return self.message.name

    @property
    def service(self) -> str:
        """The service that publishes it, by the topic's name."""
        return self.topic.name.split(".")[1]

    @property
    def partitions(self) -> int:
        return self.topic.partitions or DEFAULT_PARTITIONS

    @property
    def cleanup(self) -> tuple[str, ...]:
        """Kafka's `cleanup.policy`."""
        cleanup = options_pb2.Cleanup.Name(self.topic.cleanup).removeprefix("CLEANUP_")
        return {"COMPACT": ("compact",), "COMPACT_AND_DELETE": ("compact", "delete")}.get(cleanup, ("delete",))

    @property
    def retention_seconds(self) -> int:
        return self.topic.retention.seconds or DEFAULT_RETENTION_SECONDS

    @property
    def classification(self) -> str:
        name = options_pb2.DataClassification.Name(self.topic.data_classification)
        return name.removeprefix("DATA_CLASSIFICATION_").lower()


@dataclass(frozen=True)
class Schema:
    """A set of proto files, compiled."""

    pool: descriptor_pool.DescriptorPool
    files: tuple[str, ...]
    comments: dict[str, str]
    """Full name to comment; empty for a set without its sources."""

    def comment(self, full_name: str) -> str:
        return self.comments.get(full_name, "")

    def events(self) -> list[Event]:
        """By topic name."""
        found = []
        for name in self.files:
            for message in self.pool.FindFileByName(name).message_types_by_name.values():
                # Parsed anew: the option's extension is known to the default pool alone.
                options = descriptor_pb2.MessageOptions.FromString(message.GetOptions().SerializeToString())
                if options.HasExtension(options_pb2.topic):
                    found.append(Event(message, options.Extensions[options_pb2.topic]))
        return sorted(found, key=lambda event: event.topic.name)


def load(files: descriptor_pb2.FileDescriptorSet) -> Schema:
    """A compiled set in a descriptor pool of its own, so that two versions can stand side by side."""
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    comments: dict[str, str] = {}
    for file in files.file:
        comments.update(_comments(file))
    return Schema(pool, tuple(file.name for file in files.file), comments)


@functools.cache
def current() -> Schema:
    """The protos of this work tree."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        files = sorted(path.relative_to(PROTOS).as_posix() for path in (PROTOS / "sluice").rglob("*.proto"))
        options = ["-I", ".", "--include_source_info", "--include_imports", f"--descriptor_set_out={out}"]
        command = [sys.executable, "-m", "grpc_tools.protoc", *options, *files]
        subprocess.run(command, cwd=PROTOS, check=True)  # noqa: S603 - our own files
        return load(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()))


def released(version: str) -> Schema:
    """The protos as they were released, such as `v0.1.0`."""
    image = (PROTOS / "released" / f"{version}.binpb").read_bytes()
    return load(descriptor_pb2.FileDescriptorSet.FromString(image))


def released_versions() -> list[str]:
    """Oldest first."""
    versions = [path.stem for path in (PROTOS / "released").glob("v*.binpb")]
    return sorted(versions, key=lambda version: [int(part) for part in version.removeprefix("v").split(".")])


def _comments(file: descriptor_pb2.FileDescriptorProto) -> dict[str, str]:
    texts = {tuple(place.path): _text(place) for place in file.source_code_info.location}
    named = {name: texts.get(path, "") for name, path in _places(file)}
    return {name: text for name, text in named.items() if text}


def _text(place: descriptor_pb2.SourceCodeInfo.Location) -> str:
    return " ".join(line.strip() for line in place.leading_comments.splitlines()).strip()


def _places(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    for index, message in enumerate(file.message_type):
        yield from _in_message(message, f"{file.package}.{message.name}", (_MESSAGE, index))
    for index, enum in enumerate(file.enum_type):
        yield from _in_enum(enum, file.package, (_ENUM, index))


def _in_message(
    message: descriptor_pb2.DescriptorProto, name: str, path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield name, path
    for index, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, _FIELD, index)
    for index, oneof in enumerate(message.oneof_decl):
        yield f"{name}.{oneof.name}", (*path, _ONEOF, index)
    for index, nested in enumerate(message.nested_type):
        yield from _in_message(nested, f"{name}.{nested.name}", (*path, _NESTED, index))
    for index, enum in enumerate(message.enum_type):
        yield from _in_enum(enum, name, (*path, _ENUM_IN_MESSAGE, index))


def _in_enum(
    enum: descriptor_pb2.EnumDescriptorProto, scope: str, path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{scope}.{enum.name}", path
    for index, value in enumerate(enum.value):
        # As in C++, a value stands beside its enum, not in it; kept under the enum here, so that it is found from there.
        yield f"{scope}.{enum.name}.{value.name}", (*path, _VALUE, index)
