"""Settings of the redaction service: environment variables with the prefix SLUICE_REDACTION_."""

from pydantic import DirectoryPath, Field, FilePath, field_validator
from sluice_kit.settings import GrpcServiceSettings, settings_config

from sluice_redaction.domain.kinds import KINDS
from sluice_redaction.domain.ner import Ner


class Settings(GrpcServiceSettings):
    """What can be set."""

    model_config = settings_config("redaction")

    policies: DirectoryPath | None = None
    """Folder with policy files, `*.yaml`, beside those that are shipped; it is watched."""
    policies_poll_seconds: float = Field(1.0, gt=0, le=3600)
    """How often the folder is looked at."""
    key_file: FilePath | None = None
    """File with the keys for `hash`, `encrypt` and `surrogate`, base64, one a line, the one in use first."""
    kinds: str = ""
    """Kinds that the shipped default policy replaces, comma-separated; empty means as shipped."""
    min_score: float | None = Field(None, ge=0, le=1)
    """Findings with a lower score are ignored by the shipped default policy; none means as shipped."""
    allowed_words: str = ""
    """Values that the shipped default policy never replaces, comma-separated, in any case."""
    phone_regions: str = "US,GB,CA,AU,IN,SG,DE,FR,ES,IT,NL,IE,NZ,ZA,BR,MX,CH,AT,BE,SE"
    """Regions whose national phone numbers are recognised, ISO 3166, comma-separated; +49... is found anyway."""
    ner: Ner = Ner.FAST
    """How names are found: fast (the tagger), balanced (its teachers where it is in doubt), thorough (both everywhere)."""
    cache_mebibytes: int = Field(8, ge=0, le=1_024)
    """Memory for the findings of texts that come again, such as system prompts; 0 reads every text anew."""
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
