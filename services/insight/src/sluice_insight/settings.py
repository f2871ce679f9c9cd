"""What the environment says."""

from __future__ import annotations

from pydantic import Field
from sluice_kit.settings import GrpcServiceSettings, settings_config


class InsightSettings(GrpcServiceSettings):
    """Prefix SLUICE_INSIGHT_."""

    model_config = settings_config("insight")

    history_hours: int = Field(default=24, ge=1, le=24 * 31)
    """Windows older than this are forgotten."""
    watchers_limit: int = Field(default=200, ge=1)
    """More watch streams are refused."""
    requests_days: int = Field(default=30, ge=1, le=366)
    """Stories of requests are kept for so long."""
    requests_most: int = Field(default=1_000_000, ge=1_000)
    """Most stories that are kept; one takes some 4 KB of disk."""
    exposed_series: int = Field(default=50, ge=1, le=1000)
    """Series (tenant and model) that /metrics shows by name; the rest are added up as `other`."""
