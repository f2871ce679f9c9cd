"""The topics of the mesh as the broker has them: who may read them, and how long they keep their records."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.table import Table
from sluice_kit.broker import client_options, topic_options
from sluice_kit.events import TopicSpec, all_topics
from sluice_kit.process import StartFailed
from sluice_kit.retention import read_retention
from sluice_kit.settings import MeshSettings

from sluice_cli.mesh.problem import MeshProblem

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"))


@dataclass(frozen=True)
class KeptTopic:
    """A topic and how long it keeps records, in milliseconds; None means for ever, or that it is not there."""

    name: str
    classification: str
    contract_ms: int | None
    wanted_ms: int | None
    kept_ms: int | None
    exists: bool

    @property
    def is_as_wanted(self) -> bool:
        """Whether the broker does what the contract or the operator's file says."""
        return self.kept_ms == self.wanted_ms


async def kept_topics(settings: MeshSettings) -> list[KeptTopic]:
    """Every topic of the mesh, by name. MeshProblem when Kafka does not answer or the operator's file is wrong."""
    try:
        retention = read_retention(settings.topic_retention_file)
    except StartFailed as error:
        raise MeshProblem(str(error)) from None
    specs = sorted(all_topics(), key=lambda spec: spec.name)
    there = await _options(settings, [spec.name for spec in specs])
    return [_kept(spec, retention.of(spec), there.get(spec.name)) for spec in specs]


def _kept(spec: TopicSpec, wanted_ms: int, options: Mapping[str, str] | None) -> KeptTopic:
    exists = options is not None
    if spec.cleanup_policy == "compact":
        return KeptTopic(spec.name, spec.classification, None, None, None, exists=exists)
    told = (options or {}).get("retention.ms")
    kept_ms = int(told) if told else None
    return KeptTopic(spec.name, spec.classification, spec.retention_ms, wanted_ms, kept_ms, exists=exists)


async def _options(settings: MeshSettings, names: list[str]) -> dict[str, dict[str, str]]:
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=20_000)
    try:
        await admin.start()
        present = set(await admin.list_topics())
        return await topic_options(admin, [name for name in names if name in present])
    except (KafkaError, OSError):
        raise MeshProblem(
            f"Kafka at {settings.kafka_bootstrap} does not answer: is the mesh running (`sluice mesh status`)?"
        ) from None
    finally:
        await admin.close()


def show(topics: list[KeptTopic], console: Console) -> None:
    """A line a topic; what the broker does otherwise than wanted is marked."""
    table = Table("topic", "may be read", "contract", "wanted", "kept", box=None)
    for topic in topics:
        kept = _told(topic.kept_ms) if topic.exists else "[red]not there[/]"
        mark = "" if topic.is_as_wanted or not topic.exists else " [red]≠[/]"
        table.add_row(
            topic.name, topic.classification, _told(topic.contract_ms), _told(topic.wanted_ms), f"{kept}{mark}"
        )
    console.print(table)


def _told(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "for ever"
    size, unit = next((pair for pair in _UNITS if milliseconds % pair[0] == 0), (1, "ms"))
    return f"{milliseconds // size} {unit}"
