"""What the gateway reads from the environment; documented in the README."""

from pathlib import Path

from pydantic import Field, model_validator
from sluice_kit.addresses import default_listen
from sluice_kit.settings import GrpcServiceSettings, settings_config


class Settings(GrpcServiceSettings):
    """Prefix SLUICE_GATEWAY_."""

    model_config = settings_config("gateway")

    config_file: Path | None = None
    """Tenants, keys and models; `gateway.yaml` in SLUICE_HOME where it is not set."""
    http_listen: str = Field("", pattern=r"^$|^[^\s:]+:\d{1,5}$")
    """`host:port` of the OpenAI-compatible door; empty means the default address."""
    request_seconds: float = Field(300.0, gt=0, le=86_400)
    """Longest a request may take; a caller's own deadline can only be shorter."""
    body_seconds: float = Field(30.0, gt=0, le=3_600)
    """Longest the body of an HTTP request may take to arrive."""
    filter_seconds: float = Field(5.0, gt=0, le=600)
    """Longest a filter may keep the gateway waiting before it counts as away."""
    max_in_flight: int = Field(512, ge=1)
    """Requests served at once, of all tenants."""
    budgets: bool = True
    """False where no cost service runs: nobody has a budget, and nothing is held."""
    budget_seconds: float = Field(1.0, gt=0, le=60)
    """Longest a request may wait for the cost service; after that it counts as away."""
    budget_first_seconds: float = Field(10.0, gt=0, le=60)
    """The same for the first question about a caller, before whose answer nothing of its can begin."""
    lease_seconds: float = Field(60.0, ge=1, le=3_600)
    """Life of a lease on a budget, and of the knowledge that no budget stands over a caller."""
    lease_most: float = Field(100.0, ge=0, le=1_000_000)
    """Largest lease, in units of the price's currency; 0 holds every request by itself."""
    budget_least_output_tokens: int = Field(16, ge=1)
    """Fewest output tokens an answer is begun with when budgets have too little left for all that were asked for."""
    budget_stale_seconds: float = Field(86_400.0, ge=0)
    """How long it is believed, while the cost service is away, that no budget stands over a caller."""
    max_messages: int = Field(512, ge=1)
    """Most messages in a conversation."""
    max_characters: int = Field(200_000, ge=1)
    """Most characters in all texts of a request."""

    @model_validator(mode="after")
    def _fill_in_gateway_defaults(self) -> "Settings":
        if not self.http_listen:
            object.__setattr__(self, "http_listen", default_listen("gateway_http", self.port_base_offset))
        if self.config_file is None:
            object.__setattr__(self, "config_file", self.home / "gateway.yaml")
        return self
