"""What the environment says."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator
from sluice_kit.addresses import default_listen
from sluice_kit.settings import MeshSettings, settings_config


class ConsoleSettings(MeshSettings):
    """Prefix SLUICE_CONSOLE_."""

    model_config = settings_config("console")

    http_listen: str = Field("", pattern=r"^$|^[^\s:]+:\d{1,5}$")
    """`host:port` of the page; empty means 127.0.0.1:8090, shifted."""
    metrics_listen: str = Field("", pattern=r"^$|^[^\s:]+:\d{1,5}$")
    """`host:port` of /metrics and /healthz; empty means the default address."""
    keys_folder: Path | None = None
    """Folder with the YAML files of who may sign in; `console` under SLUICE_HOME where it is not set."""
    session_hours: float = Field(12.0, gt=0, le=24 * 7)
    """After so long everybody signs in again."""
    idle_minutes: float = Field(60.0, gt=0, le=24 * 60)
    """After so long without a page a session ends."""
    secure_cookies: bool = False
    """Send cookies over HTTPS only. Set it wherever the console is not on loopback; on by itself where it has a certificate."""
    streams_limit: int = Field(50, ge=1, le=1000)
    """Pages that update live at once; more are told to ask again later."""
    answer_seconds: float = Field(5.0, gt=0, le=60)
    """How long a service is waited for before its part of the page says that it is away."""
    drain_seconds: float = Field(3.0, ge=0, le=60)
    """How long running answers may go on after a stop signal."""

    @model_validator(mode="after")
    def _fill_in(self) -> ConsoleSettings:
        for field, name in (("http_listen", "console"), ("metrics_listen", "metrics_console")):
            if not getattr(self, field):
                object.__setattr__(self, field, default_listen(name, self.port_base_offset))
        if self.keys_folder is None:
            object.__setattr__(self, "keys_folder", self.home / "console")
        return self
