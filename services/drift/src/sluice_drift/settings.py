"""What the environment says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice_kit.addresses import default_listen
from sluice_kit.broker import client_options
from sluice_kit.events import topic_of
from sluice_kit.settings import settings_config
from sluice_kit.streams.options import StreamSettings, WorkerOptions

from sluice_drift.domain.comparison import Detection
from sluice_drift.domain.detectors.budget import rate_of_a_window
from sluice_drift.domain.partition import Rules
from sluice_drift.domain.trailing import read_rules

_SECOND = 1_000_000
MOST_REFERENCE_OBSERVATIONS = 1000
"""A reference is one record, and a produce request takes 1,000,000 bytes. Its slices may take 0.6 MB of that, each text takes some
300 bytes (tests/test_reference_record.py)."""


class DriftSettings(StreamSettings):
    """Prefix SLUICE_DRIFT_."""

    model_config = settings_config("drift")

    web_listen: str = Field(default="", pattern=r"^$|^[^\s:]+:\d{1,5}$")
    """`host:port` of /healthz and /metrics; empty means 6067 plus the offset on loopback."""
    group: str = Field(default="sluice-drift", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """Consumer group and prefix of the changelog topic; another name reads everything anew."""
    store: Literal["memory://", "rocksdb://"] = "memory://"
    """Where references and windows live. rocksdb needs the extra `sluice-drift[rocksdb]`."""
    window_seconds: int = Field(default=300, ge=1, le=86_400)
    lateness_seconds: int = Field(default=30, ge=0, le=3600)
    """A window closes when event time is this far past its end."""
    retention_seconds: int = Field(default=1800, ge=60, le=86_400)
    """For so long a closed window is restated by late observations."""
    idle_seconds: int = Field(default=30, ge=1, le=3600)
    """A source partition that is silent for so long does not keep windows open."""
    reference_observations: int = Field(default=200, ge=30, le=MOST_REFERENCE_OBSERVATIONS)
    """The first so many observations of a series are its reference."""
    minimum_observations: int = Field(default=30, ge=5)
    """A window with fewer is `insufficient`."""
    false_alarm_rate: float = Field(default=0.01, gt=0.0005, lt=0.5)
    """Chance that a window without drift is called drifted, all features together."""
    daily_false_alarm_rate: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Chance that *any* window of 24 hours without drift is called drifted, in place of false_alarm_rate; 0: not used."""

    trailing: str = Field(default="", max_length=4000)
    """Features compared with the windows just before in place of the pinned reference: `prompt.language=12, acme|small/request.*=288`
    (windows; the first rule that fits decides; `*` fits anything; 0: the pinned reference), or with windows around the same time of
    the day before: `*=5@day` (the same and two on each side)."""

    @field_validator("trailing")
    @classmethod
    def _trailing_can_be_read(cls, value: str, others: ValidationInfo) -> str:
        if "window_seconds" in others.data:  # else that is what is wrong
            read_rules(value, others.data["window_seconds"])
        return value

    @property
    def data_dir(self) -> Path:
        """Where this service keeps its files."""
        return self.home / "drift"

    def rules(self) -> Rules:
        """How windows are cut and references pinned."""
        return Rules(
            length=self.window_seconds * _SECOND,
            lateness=self.lateness_seconds * _SECOND,
            retention=self.retention_seconds * _SECOND,
            idle_after=self.idle_seconds * _SECOND,
            reference_size=self.reference_observations,
            trailing=read_rules(self.trailing, self.window_seconds),
        )

    def detection(self) -> Detection:
        """How drift is decided."""
        rate = self.false_alarm_rate
        if self.daily_false_alarm_rate:
            rate = rate_of_a_window(self.daily_false_alarm_rate, window_seconds=self.window_seconds)
        return Detection(false_alarm_rate=rate, minimum_observations=self.minimum_observations)

    def worker_options(self) -> WorkerOptions:
        """How the worker runs."""
        host, port = (self.web_listen or default_listen("drift_web", self.port_base_offset)).rsplit(":", 1)
        return WorkerOptions(
            group=self.group,
            instance=self.instance,
            bootstrap=self.kafka_bootstrap,
            web_host=host,
            web_port=int(port),
            data_dir=self.data_dir,
            store=self.store,
            partitions=topic_of(InferenceMeasured).partitions,
            replication_factor=self.kafka_replication or (1 if "," not in self.kafka_bootstrap else 3),
            security=client_options(self),
        )
