"""What the environment says."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from sluice_kit.addresses import default_listen
from sluice_kit.settings import GrpcServiceSettings, settings_config


class ProbesSettings(GrpcServiceSettings):
    """Prefix SLUICE_PROBES_."""

    model_config = settings_config("probes")

    interval_seconds: float = Field(default=30.0, ge=0, le=3600)
    """From the end of a round to the start of the next; 0: none by itself. Above 30, or with several keys, an alarm may take over a minute."""
    ready_seconds: float = Field(default=60.0, ge=0, le=600)
    """Longest the first round waits until the gateway, the filters and the models say that they serve; once the gateway does, for the others
    at most `interval_seconds` more."""
    key_file: Path | None = None
    """File with API keys that the gateway marks `synthetic`, one a line, used in turn; `probes.key` under SLUICE_HOME where it is not set."""
    gateway_url: str = Field(default="", pattern=r"^$|^https?://[^\s@]+$")
    """The gateway's HTTP door; empty means the default address, over TLS where SLUICE_TLS_CA_FILE is set."""
    model: str = Field(default="sluice-self-test", pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")
    """Alias of the self-test model."""
    embedding_model: str = Field(default="sluice-embed", pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")
    """Alias of the embedding model that is tried."""
    request_seconds: float = Field(default=10.0, gt=0, le=60)
    """Longest a request of a probe may take."""
    aliases_limit: int = Field(default=8, ge=0, le=100)
    """How many other model aliases a round tries with forbidden input on each route, in turn, which costs no model time while the filter is on."""

    @property
    def keys_at(self) -> Path:
        """Where the keys are."""
        return self.key_file or self.home / "probes.key"

    @property
    def http_url(self) -> str:
        """Where the HTTP door is."""
        scheme = "https" if self.tls_ca_file else "http"  # as the gRPC door, which has TLS then
        return (self.gateway_url or f"{scheme}://{default_listen('gateway_http', self.port_base_offset)}").rstrip("/")
