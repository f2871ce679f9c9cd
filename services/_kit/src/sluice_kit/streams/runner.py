"""What runs a stream processor: Faust, or a plain loop over aiokafka (docs/decisions/0024-fast-lane.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from sluice_kit.streams.holding import AnyHolding
from sluice_kit.streams.options import Rhythm, RunnerName, WorkerOptions
from sluice_kit.streams.sequence import SourceLog
from sluice_kit.streams.source import Handle, Sender, Table


class Publisher(Protocol):
    """What publishes events beside the processor."""

    async def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """Send what is left, within bounds."""


class Runner(Protocol):
    """Gives a processor its events and its table. First everything is declared, then `run` runs it."""

    @property
    def group(self) -> str:
        """Consumer group, and prefix of the changelog topics."""

    def table(self, name: str) -> Table:
        """The processor's table."""

    def source(self) -> SourceLog:
        """The log that it reads."""

    def sender(self, topic: str) -> Sender:
        """A topic to send to."""

    def read(self, topic: str, handle: Handle, *, rhythm: Rhythm) -> None:
        """Hand over batches of a topic. When one fails the process ends, and its successor reads it again: a batch merged by
        half must never be followed by another, for the offsets would cover the gap."""

    def follow_assignment(self, holding: AnyHolding, topics: Sequence[str]) -> None:
        """Forget everything when partitions move, and take up what the table holds once it is recovered."""

    def publish_by_timer(
        self, holding: AnyHolding, topics: Sequence[str], publish_due: Callable[[], Awaitable[None]], *, rhythm: Rhythm
    ) -> None:
        """Publish what is due now and then; serve /healthz and /metrics."""

    def host(self, publisher: Publisher) -> None:
        """Start and stop a publisher with the processor, in its event loop."""

    def run(self) -> None:
        """Run until SIGTERM or SIGINT; exits the process."""


def create_runner(name: RunnerName, options: WorkerOptions) -> Runner:
    """The runner of that name. Each is imported only when it is asked for: Faust takes 30 MiB and a second."""
    if name == "plain":
        from sluice_kit.streams.plain_runner import PlainRunner

        return PlainRunner(options)
    from sluice_kit.streams.faust_runner import FaustRunner

    return FaustRunner(options)
