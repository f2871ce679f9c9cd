"""Settings of the feedback service, from SLUICE_FEEDBACK_* variables."""

from pydantic import Field
from sluice_kit.settings import GrpcServiceSettings, settings_config


class FeedbackSettings(GrpcServiceSettings):
    """What the feedback service reads beside the settings of the mesh."""

    model_config = settings_config("feedback")

    database_url: str = Field("", pattern=r"^(sqlite|postgresql(\+psycopg)?)://.+|^$")
    """`sqlite:///file` or `postgresql://user:password@host/name`; empty means feedback.db under SLUICE_HOME."""
    redaction_timeout_seconds: float = Field(10.0, gt=0, le=120)
    """How long the redaction of a text may take."""
    known_request_days: float = Field(30.0, gt=0)
    """How long it is remembered whose a request is."""
    known_requests: int = Field(1_000_000, ge=1)
    """How many requests are remembered at most (about 200 bytes each)."""

    @property
    def database(self) -> str:
        """The database's URL for SQLAlchemy."""
        if not self.database_url:
            return f"sqlite:///{self.home.absolute() / 'feedback.db'}"
        return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
