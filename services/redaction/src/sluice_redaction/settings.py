"""Settings of the redaction service: environment variables with the prefix SLUICE_REDACTION_."""

from pydantic import Field, field_validator
from sluice_kit.settings import GrpcServiceSettings, settings_config

from sluice_redaction.domain.kinds import DEFAULT_KINDS, KINDS


class Settings(GrpcServiceSettings):
    """What can be set."""

    model_config = settings_config("redaction")

    kinds: str = ",".join(sorted(DEFAULT_KINDS))
    """Kinds that the default policy redacts, comma-separated; empty means the built-in default."""
    min_score: float = Field(0.4, ge=0, le=1)
    """Findings with a lower score are ignored."""
    allowed_words: str = ""
    """Values that are never redacted, comma-separated, in any case."""
    phone_regions: str = "US,GB"
    """Regions whose national phone numbers are recognised, ISO 3166, comma-separated; each costs time."""
    spacy: bool = True
    """Whether spaCy's ner runs as second opinion; without it no organisations, dates and nationalities are found."""
    worker_threads: int = Field(0, ge=0, le=64)
    """Analyses at once; 0 means one for each core."""
    queue_limit: int = Field(256, ge=1)
    """Analyses that may wait; beyond it requests get RESOURCE_EXHAUSTED."""
    max_texts: int = Field(2_000, ge=1)
    """Most texts in one call."""
    max_characters: int = Field(200_000, ge=1)
    """Most code points in one call, all texts together."""
    max_stream_characters: int = Field(1_000_000, ge=1)
    """Most code points in one stream."""
    max_vault_entries: int = Field(10_000, ge=1)
    """Most vault entries in one call."""

    @field_validator("kinds")
    @classmethod
    def _known_kinds(cls, value: str) -> str:
        unknown = sorted(set(comma_separated(value)) - KINDS.keys())
        if unknown:
            raise ValueError(f"unknown kinds {', '.join(unknown)}; known are {', '.join(KINDS)}")
        return value

    @field_validator("phone_regions")
    @classmethod
    def _two_letters(cls, value: str) -> str:
        if not all(len(region) == 2 and region.isalpha() and region.isupper() for region in comma_separated(value)):
            raise ValueError("must be two-letter codes such as US,GB")
        return value


def comma_separated(value: str) -> tuple[str, ...]:
    """The items of a comma-separated setting, without blanks."""
    return tuple(item.strip() for item in value.split(",") if item.strip())
