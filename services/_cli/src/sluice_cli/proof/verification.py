"""`sluice events verify`: every topic read to its end, and the sums of the books beside them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sluice_kit.events import TopicSpec
from sluice_kit.ordered import OrderedReader
from sluice_kit.settings import MeshSettings

from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.proof import ledger_check
from sluice_cli.proof.findings import CrossCheck, Verification
from sluice_cli.proof.outboxes import Kept
from sluice_cli.proof.outboxes import kept as kept_below
from sluice_cli.proof.reading import examine


async def verify(
    settings: MeshSettings,
    topics: Sequence[TopicSpec],
    *,
    home: Path,
    settle_seconds: float = 5.0,
    ledger: str = "",
    answered: Iterable[str] = (),
) -> Verification:
    """Reads the topics up to where they end now. `ledger`: address of the cost service to compare with, empty for none."""
    async with OrderedReader.opened(settings) as reader:
        spans = await reader.spans([spec.name for spec in topics])
        if not spans:
            raise MeshProblem("Kafka has none of these topics: was the mesh ever started on it?")
        kept: Mapping[tuple[str, str], Kept] = kept_below(home)
        findings, late = [], 0
        for spec in topics:
            its = {partition: span for partition, span in spans.items() if partition.topic == spec.name}
            finding, arrived = await examine(reader, spec, its, settle_seconds=settle_seconds, kept=kept)
            findings.append(finding)
            late += arrived
        checks: tuple[CrossCheck, ...] = ()
        if ledger:
            checks = await ledger_check.check(reader, ledger, answered=answered, settle_seconds=settle_seconds)
        return Verification(tuple(findings), arrived_late=late, checks=checks)
