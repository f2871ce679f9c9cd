"""Writes README.md and, for other teams, docs/events: all read off the descriptors and the comments of the protos.

--check: writes nothing, names what is out of step and fails.
"""

import importlib
import pkgutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "gen")]

import sluice.events.v1  # noqa: E402
from contracts import asyncapi, event_catalogue, sources  # noqa: E402
from sluice.events.v1 import options_pb2  # noqa: E402

HEAD = """# The contracts of Sluice

`sluice/<service>/v1/<service>_service.proto` holds a service's RPCs, `sluice/events/v1` the facts on Kafka,
`sluice/types/v1` values that two of them share.
Events and services never import each other. Generated Python is in `gen/` and is committed: `make protos` makes it
anew, `make check` fails when it is out of step,
`buf breaking` compares with the last release in `released/`. This page is generated too (`protos/catalogue.py`), and so are
the [event catalogue](../docs/events/catalogue.md) and the [AsyncAPI document](../docs/events/asyncapi.yaml).
`released/golden` holds golden bytes of every event (`make protos-golden`); `make protos-release VERSION=...` keeps the protos as a release.

Metadata of every call inside the mesh: `x-request-id`, `x-sluice-tenant-id`, `x-sluice-project-id`,
`x-sluice-subject-id`, `x-sluice-synthetic`, `traceparent`, and the gRPC deadline.
Callers of the gateway send `authorization: Bearer <key>`.
"""
EVENT_HEAD = """
## Events

Kafka records in CloudEvents 1.0 binary mode: the value is the protobuf message, the attributes are headers
(`ce_id`, `ce_type` = topic, `ce_source`, `ce_time`, `ce_subject`, `ce_sequence`, `ce_dataclassification`, `traceparent`,
`content-type: application/protobuf`). Records that cannot be read go to `<topic>.dlq`.

| topic | message | key | partitions | kept | cleanup | classification |
|---|---|---|---|---|---|---|
"""
SERVICE_HEAD = """
## Services

| service | rpc | request | response |
|---|---|---|---|
"""


def service_rows() -> list[str]:
    rows = []
    for path in sorted((HERE / "sluice").rglob("*_service.proto")):
        module = path.relative_to(HERE).with_suffix("").as_posix().replace("/", ".") + "_pb2"
        for service in importlib.import_module(module).DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                sent = ("stream " if method.client_streaming else "") + method.input_type.name
                got = ("stream " if method.server_streaming else "") + method.output_type.name
                rows.append(f"| `{service.full_name}` | `{method.name}` | {sent} | {got} |")
    return rows


def event_rows() -> list[str]:
    rows = []
    for module in pkgutil.iter_modules(sluice.events.v1.__path__):
        if not module.name.endswith("_pb2"):
            continue
        file = importlib.import_module(f"sluice.events.v1.{module.name}").DESCRIPTOR
        for message in file.message_types_by_name.values():
            if message.GetOptions().HasExtension(options_pb2.topic):
                rows.append(event_row(message.name, message.GetOptions().Extensions[options_pb2.topic]))
    return sorted(rows)


def event_row(name: str, topic: options_pb2.TopicOptions) -> str:
    cleanup = options_pb2.Cleanup.Name(topic.cleanup or options_pb2.CLEANUP_DELETE).removeprefix("CLEANUP_")
    label = options_pb2.DataClassification.Name(topic.data_classification).removeprefix("DATA_CLASSIFICATION_")
    days = f"{(topic.retention.seconds or 604800) // 86400} d" if cleanup != "COMPACT" else "for ever"
    cells = [
        f"`{topic.name}`",
        name,
        f"`{topic.key}`",
        str(topic.partitions or 4),
        days,
        cleanup.lower(),
        label.lower(),
    ]
    return "| " + " | ".join(cells) + " |"


def readme() -> str:
    return HEAD + SERVICE_HEAD + "\n".join(service_rows()) + "\n" + EVENT_HEAD + "\n".join(event_rows()) + "\n"


def documents() -> dict[Path, str]:
    """Every generated page and its content."""
    schema, events = sources.current(), HERE.parent / "docs" / "events"
    return {
        HERE / "README.md": readme(),
        events / "asyncapi.yaml": asyncapi.as_yaml(schema),
        events / "catalogue.md": event_catalogue.page(schema),
    }


def main() -> None:
    if "--print" in sys.argv:
        sys.stdout.write(readme())
        return
    stale = [p for p, text in documents().items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        names = ", ".join(path.relative_to(HERE.parent).as_posix() for path in stale)
        sys.exit(f"{names} out of step with the protos (or with who reads them): run make protos" if stale else 0)
    for path in stale:
        path.write_text(documents()[path], encoding="utf-8")


if __name__ == "__main__":
    main()
