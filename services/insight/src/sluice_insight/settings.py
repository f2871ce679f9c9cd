"""What the environment says."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from sluice_kit.settings import GrpcServiceSettings, settings_config


class InsightSettings(GrpcServiceSettings):
    """Prefix SLUICE_INSIGHT_."""

    model_config = settings_config("insight")

    history_hours: int = Field(default=24, ge=1, le=24 * 31)
    """Minutes older than this are forgotten, or moved into the history of hours and days. No rule of alerts may look back farther."""
    history_days: int = Field(default=31, ge=0, le=366)
    """Hours and days of metrics are kept on disk for so long; 0 keeps none."""
    history_series: int = Field(default=2_000, ge=10)
    """Series of an hour that the history keeps apart in each family of metrics; the rest are added up as `(other)`."""
    watchers_limit: int = Field(default=200, ge=1)
    """More watch streams are refused."""
    requests_days: int = Field(default=30, ge=1, le=366)
    """Stories of requests are kept for so long."""
    requests_most: int = Field(default=1_000_000, ge=1_000)
    """Most stories that are kept, self-tests a tenth of them where there are more; one takes some 4 KB of disk."""
    exposed_series: int = Field(default=50, ge=1, le=1000)
    """Series (tenant and model; of fairness also the attribute) that /metrics shows by name; the rest are added up as `other`."""

    alert_rules: Path | None = None
    """Folder of alert rules (*.yaml), read again when they change; its rules come beside the shipped ones, or replace those of their name."""
    alert_receivers_file: Path | None = None
    """Who is told of alerts, in YAML (docs/alerts.md); absent means nobody but the alerts' topic."""
    alert_seconds: float = Field(default=15.0, ge=0.2, le=300)
    """How often the rules are judged."""
    console_url: str = Field(default="", pattern=r"^(https?://[^\s@]+)?$")
    """Address of the console, for links in what receivers are told."""
