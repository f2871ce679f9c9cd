"""The Faust runner: a Faust app behind the interface that processors are declared on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from sluice_kit.streams import agents
from sluice_kit.streams.holding import AnyHolding
from sluice_kit.streams.options import Rhythm, WorkerOptions
from sluice_kit.streams.runner import Publisher
from sluice_kit.streams.sequence import FaustLog, SourceLog
from sluice_kit.streams.source import Handle, Sender
from sluice_kit.streams.table import ConfirmedTable
from sluice_kit.streams.worker import create_app, host_publisher, run


class FaustRunner:
    """A Runner."""

    def __init__(self, options: WorkerOptions) -> None:
        self.group = options.group
        self._options = options
        self._app = create_app(options)
        self._tables: list[ConfirmedTable] = []

    def table(self, name: str) -> ConfirmedTable:
        """The processor's table."""
        made = agents.confirmed_table(self._app, name)
        self._tables.append(made)
        return made

    def source(self) -> SourceLog:
        """The log that it reads."""
        return FaustLog(self._app, self._options.client)

    def sender(self, topic: str) -> Sender:
        """A topic to send to."""
        return cast(Sender, agents.raw_topic(self._app, topic))

    def read(self, topic: str, handle: Handle, *, rhythm: Rhythm) -> None:
        """Hand over batches of a topic."""
        agents.declare_agent(self._app, agents.raw_topic(self._app, topic), handle, rhythm=rhythm)

    def follow_assignment(self, holding: AnyHolding, topics: Sequence[str]) -> None:
        """Forget everything when partitions move, and take up what the table holds once it is recovered."""
        [stored] = self._tables
        agents.follow_assignment(self._app, stored, holding, topics)

    def publish_by_timer(
        self, holding: AnyHolding, topics: Sequence[str], publish_due: Callable[[], Awaitable[None]], *, rhythm: Rhythm
    ) -> None:
        """Publish what is due now and then; serve /healthz and /metrics."""
        agents.publish_by_timer(self._app, holding, topics, publish_due, rhythm=rhythm)

    def host(self, publisher: Publisher) -> None:
        """Start and stop a publisher with the processor, in its event loop."""
        host_publisher(self._app, publisher)

    def run(self) -> None:
        """Run until SIGTERM or SIGINT; exits the process."""
        run(self._app)
