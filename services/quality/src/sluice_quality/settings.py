"""What the environment says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Json
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.addresses import default_listen
from sluice_kit.broker import client_options
from sluice_kit.events import topic_of
from sluice_kit.settings import settings_config
from sluice_kit.streams.options import StreamSettings, WorkerOptions

from sluice_quality.domain.partition import Rules

_SECOND = 1_000_000
LONGEST_JUDGED_AGE_SECONDS = 1200


class QualitySettings(StreamSettings):
    """Prefix SLUICE_QUALITY_."""

    model_config = settings_config("quality")

    web_listen: str = Field(default="", pattern=r"^$|^[^\s:]+:\d{1,5}$")
    """`host:port` of /healthz and /metrics; empty means 6066 plus the offset on loopback."""
    group: str = Field(default="sluice-quality", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """Consumer group and prefix of the changelog topic; another name reads everything anew."""
    store: Literal["memory://", "rocksdb://"] = "memory://"
    """Where the windows live. rocksdb needs the extra `sluice-quality[rocksdb]`; for millions of keys."""
    window_seconds: int = Field(default=60, ge=1, le=3600)
    lateness_seconds: int = Field(default=30, ge=0, le=3600)
    """A window closes when event time is this far past its end."""
    retention_seconds: int = Field(default=1800, ge=60, le=86_400)
    """For so long a closed window is restated by late facts."""
    idle_seconds: int = Field(default=30, ge=1, le=3600)
    """A topic that is silent for so long does not keep windows open."""
    attribution_capacity: int = Field(default=100_000, ge=1000)
    """Requests remembered per partition for feedback that comes later."""
    pending_capacity: int = Field(default=20_000, ge=100)
    """Pieces of feedback per partition that wait for their completion."""

    judge_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of the answers that the judge grades, where their tenant captures texts; 0 is off. Read by `sluice-quality-judge`."""
    judge_rates: Json[dict[str, Annotated[float, Field(ge=0, le=1)]]] = Field(
        default="{}"  # type: ignore[arg-type]  # parsed as the variable is
    )
    """The same by tenant, in JSON, such as `{"acme": 0.1}`; the other tenants have `judge_rate`."""
    judge_model: str = Field(default="", pattern=r"^[A-Za-z0-9._:/@-]{0,128}$")
    """Id or alias of the model that grades; empty means the inference service's own first."""
    judge_concurrency: int = Field(default=1, ge=1, le=64)
    """Answers graded at once."""
    judge_tokens_per_hour: int = Field(default=100_000, ge=1)
    """Grading stops for the hour when it would use more."""
    judge_timeout_seconds: float = Field(default=60.0, gt=0, le=600)
    judge_metrics_listen: str = Field(default="", pattern=r"^$|^[^\s:]+:\d{1,5}$")
    """`host:port` of the judge's /healthz and /metrics; empty serves none."""

    @property
    def is_judging(self) -> bool:
        """True when any answer is graded."""
        return self.judge_rate > 0 or any(self.judge_rates.values())

    @property
    def judge_longest_age_seconds(self) -> int:
        """Older answers are not judged: their windows close for good before a judgement of them is sure to count."""
        return min(LONGEST_JUDGED_AGE_SECONDS, self.retention_seconds)

    @property
    def data_dir(self) -> Path:
        """Where this service keeps its files."""
        return self.home / "quality"

    def rules(self) -> Rules:
        """How windows are cut."""
        return Rules(
            length=self.window_seconds * _SECOND,
            lateness=self.lateness_seconds * _SECOND,
            retention=self.retention_seconds * _SECOND,
            idle_after=self.idle_seconds * _SECOND,
            attribution_capacity=self.attribution_capacity,
            pending_capacity=self.pending_capacity,
            marks_are_doubted=self.kafka_embedded,
        )

    def worker_options(self) -> WorkerOptions:
        """How the worker runs."""
        host, port = (self.web_listen or default_listen("quality_web", self.port_base_offset)).rsplit(":", 1)
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
