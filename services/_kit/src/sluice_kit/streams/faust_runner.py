"""The Faust runner: a Faust app behind the interface that processors are declared on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from aiokafka.errors import KafkaError

from sluice_kit.streams import agents
from sluice_kit.streams.holding import AnyHolding
from sluice_kit.streams.options import Rhythm, WorkerOptions
from sluice_kit.streams.own_topics import changelog_of, ensure_changelog
from sluice_kit.streams.runner import Publisher
from sluice_kit.streams.sequence import FaustLog, SourceLog
from sluice_kit.streams.source import Handle, Sender
from sluice_kit.streams.table import ConfirmedTable
from sluice_kit.streams.worker import create_app, host_publisher, run
from sluice_kit.telemetry import logger

log = logger(__name__)


class FaustRunner:
    """A Runner."""

    def __init__(self, options: WorkerOptions) -> None:
        self.group = options.group
        self._options = options
        self._app = create_app(options)
        self._tables: list[ConfirmedTable] = []
        self._changelogs: list[str] = []

    def table(self, name: str) -> ConfirmedTable:
        """The processor's table."""
        made = agents.confirmed_table(self._app, name)
        self._tables.append(made)
        self._changelogs.append(changelog_of(name, self._options))
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
        asyncio.run(self._ensure_changelogs())
        run(self._app)

    async def _ensure_changelogs(self) -> None:
        """Without a broker it is left to Faust, which tries again and ends when that is in vain."""
        for topic in self._changelogs:
            try:
                await ensure_changelog(topic, self._options)
            except KafkaError as error:
                log.warning("stream.changelog_unknown", topic=topic, error=type(error).__name__)
