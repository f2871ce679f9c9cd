"""Settings of the cost service, from SLUICE_COST_* variables."""

from pathlib import Path

from pydantic import Field
from sluice_kit.settings import GrpcServiceSettings, settings_config


class CostSettings(GrpcServiceSettings):
    """What the cost service reads beside the settings of the mesh."""

    model_config = settings_config("cost")

    database_url: str = Field("", pattern=r"^(sqlite|postgresql(\+psycopg)?)://.+|^$")
    """`sqlite:///file` or `postgresql://user:password@host/name`; empty means cost.db under SLUICE_HOME."""
    price_book_file: Path | None = None
    """Price book in YAML; absent means the one that is shipped."""
    budgets_file: Path | None = None
    """Budgets in YAML, read again when it changes; absent means that budgets are put by PutBudget alone."""
    expired_grace_seconds: int = Field(3600, ge=0, le=30 * 86_400)
    """How long after its end a hold or lease still counts in full, because its events may be under way."""
    seal_seconds: float = Field(60.0, ge=1, le=86_400)
    """How often the ends of the ledger's hash chains are told to the outside."""

    idle_lateness_seconds: int = Field(1800, ge=0, le=86_400)
    """How long after its end an hour is closed and its idle time charged; what comes later restates it."""

    @property
    def database(self) -> str:
        """The database's URL for SQLAlchemy."""
        if not self.database_url:
            return f"sqlite:///{self.home.absolute() / 'cost.db'}"
        return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
