"""Writes README.md: the tables of services and events, read off the generated descriptors."""

import importlib
import pkgutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "gen"))

import sluice.events.v1  # noqa: E402
from sluice.events.v1 import options_pb2  # noqa: E402

HEAD = """# The contracts of Sluice

`sluice/<service>/v1/<service>_service.proto` holds a service's RPCs, `sluice/events/v1` the facts on Kafka,
`sluice/types/v1` values that two of them share.
Events and services never import each other. Generated Python is in `gen/` and is committed: `make protos` makes it
anew, `make check` fails when it is out of step,
`buf breaking` compares with the last release in `released/`. This page is generated too (`protos/catalogue.py`).

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


def main() -> None:
    page = HEAD + SERVICE_HEAD + "\n".join(service_rows()) + "\n" + EVENT_HEAD + "\n".join(event_rows()) + "\n"
    if "--print" in sys.argv:
        sys.stdout.write(page)
    else:
        (HERE / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
