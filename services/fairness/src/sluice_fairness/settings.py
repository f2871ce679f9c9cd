"""What the environment says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.addresses import default_listen
from sluice_kit.broker import client_options
from sluice_kit.events import topic_of
from sluice_kit.settings import settings_config
from sluice_kit.streams.options import StreamSettings, WorkerOptions

from sluice_fairness.domain.measuring import Judging
from sluice_fairness.domain.partition import Rules

_SECOND = 1_000_000


class FairnessSettings(StreamSettings):
    """Prefix SLUICE_FAIRNESS_."""

    model_config = settings_config("fairness")

    web_listen: str = Field(default="", pattern=r"^$|^[^\s:]+:\d{1,5}$")
    """`host:port` of /healthz and /metrics; empty means 6068 plus the offset on loopback."""
    group: str = Field(default="sluice-fairness", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """Consumer group and prefix of the changelog topic; another name reads everything anew."""
    store: Literal["memory://", "rocksdb://"] = "memory://"
    """Where the windows live. rocksdb needs the extra `sluice-fairness[rocksdb]`."""
    window_seconds: int = Field(default=60, ge=1, le=3600)
    long_window_windows: int = Field(default=60, ge=2, le=1440)
    """So many windows are merged into a long one."""
    lateness_seconds: int = Field(default=30, ge=0, le=3600)
    """A window closes when event time is this far past its end."""
    retention_seconds: int = Field(default=1800, ge=60, le=86_400)
    """For so long a closed window is restated by late facts."""
    idle_seconds: int = Field(default=30, ge=1, le=3600)
    """A topic that is silent for so long does not keep windows open."""
    story_capacity: int = Field(default=20_000, ge=1000)
    """Requests remembered per partition for verdicts and reviews that come later."""
    minimum_observations: int = Field(default=30, ge=2)
    """A group with fewer is `insufficient`: nothing is said of it."""
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=0.5)
    """Chance that any test of a series and window alarms without a difference."""

    @property
    def data_dir(self) -> Path:
        """Where this service keeps its files."""
        return self.home / "fairness"

    def rules(self) -> Rules:
        """How windows are cut."""
        return Rules(
            length=self.window_seconds * _SECOND,
            longest=self.window_seconds * self.long_window_windows * _SECOND,
            lateness=self.lateness_seconds * _SECOND,
            retention=self.retention_seconds * _SECOND,
            idle_after=self.idle_seconds * _SECOND,
            story_capacity=self.story_capacity,
        )

    def judging(self) -> Judging:
        """When a group is judged."""
        return Judging(minimum_observations=self.minimum_observations, false_alarm_rate=self.false_alarm_rate)

    def worker_options(self) -> WorkerOptions:
        """How the worker runs."""
        host, port = (self.web_listen or default_listen("fairness_web", self.port_base_offset)).rsplit(":", 1)
        return WorkerOptions(
            group=self.group,
            instance=self.instance,
            bootstrap=self.kafka_bootstrap,
            web_host=host,
            web_port=int(port),
            data_dir=self.data_dir,
            store=self.store,
            partitions=topic_of(RequestCompleted).partitions,
            replication_factor=self.kafka_replication or (1 if "," not in self.kafka_bootstrap else 3),
            security=client_options(self),
        )
