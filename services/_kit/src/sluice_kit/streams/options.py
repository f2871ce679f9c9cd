"""How a stream processor's worker runs, whichever runner it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sluice_kit.settings import MeshSettings

RunnerName = Literal["faust", "plain"]


class StreamSettings(MeshSettings):
    """What every stream processor reads beside its own settings."""

    streams_runner: RunnerName = Field("faust", validation_alias="SLUICE_STREAMS_RUNNER")
    """`faust`, or `plain`: the fast lane, the same processor on a loop of our own over aiokafka. All workers of a group
    must have the same one; the state that one stored is taken up by the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How this worker runs."""

    group: str
    """Consumer group, and prefix of the changelog topic."""
    instance: str
    bootstrap: str
    web_host: str
    web_port: int
    data_dir: Path
    store: str
    partitions: int
    replication_factor: int = 1
    security: Mapping[str, Any] = field(default_factory=dict)
    """aiokafka's own options: security_protocol, ssl_context, sasl_*."""

    @property
    def client(self) -> dict[str, Any]:
        """Keyword arguments that every aiokafka client takes."""
        return {**self.security, "bootstrap_servers": self.bootstrap}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often things are done. Seconds, but for the size of a batch."""

    batch_size: int
    batch_seconds: float
    publish_seconds: float
    publish_rest: float = 0.0
    """After publishing for t seconds it rests for publish_rest x t, so that publishing never holds up the counting."""
    longest_rest_seconds: float = 15.0
    stalled_seconds: float = 60.0
    """Without a tick of the timer for so long the worker is not ready."""
