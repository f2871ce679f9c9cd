"""What a policy file may hold. The kit reads YAML into these models and tells every mistake with its line."""

from typing import Annotated, Literal

from pydantic import Field
from sluice_kit.configuration import ConfigurationModel

from sluice_redaction.domain.operators import Operation
from sluice_redaction.domain.policy import Direction

Text = Annotated[str, Field(min_length=1, max_length=400)]
Score = Annotated[float, Field(ge=0, le=1)]
Region = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}$")]
KindName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,62}$")]


class MaskEntry(ConfigurationModel):
    """How `mask` covers a value."""

    character: Annotated[str, Field(min_length=1, max_length=1)] = "*"
    """The sign."""
    count: Annotated[int, Field(ge=0)] = 0
    """How many characters are covered; 0 means all."""
    from_end: bool = False
    """The last ones instead of the first."""


class KindEntry(ConfigurationModel):
    """What differs for one kind."""

    operator: Operation | None = None
    min_score: Score | None = None
    direction: Direction | None = None
    mask: MaskEntry | None = None


class AllowEntry(ConfigurationModel):
    """What is nobody's secret."""

    values: tuple[Text, ...] = ()
    """Whole values, in any case."""
    patterns: tuple[Text, ...] = ()
    """RE2 expressions that match a whole value."""


class PatternEntry(ConfigurationModel):
    """One pattern of a recognizer."""

    name: Name
    regex: Text
    """RE2; a group (?P<value>...) is the value, else the whole match."""
    score: Score = 0.5


class RecognizerEntry(ConfigurationModel):
    """A recognizer without code."""

    name: Name
    kind: KindName
    patterns: tuple[PatternEntry, ...] = ()
    words: tuple[Text, ...] = ()
    """Words and phrases that always are of this kind, in any case."""
    context: tuple[Text, ...] = ()
    """Words one of which beside the value raises its score."""
    needs_context: bool = False
    """Without a context word there is no finding."""
    checksum: Literal["luhn", "mod97", "verhoeff", "damm", "mod11", "mod11_2"] | None = None
    """Check that a value must pass; it makes the value certain."""


class PolicyFile(ConfigurationModel):
    """One policy."""

    policy: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    description: Text
    tenants: tuple[Text, ...] = ()
    languages: tuple[Text, ...] = ("en",)
    regions: tuple[Region, ...] = ()
    min_score: Score = 0.4
    operator: Operation = Operation.REPLACE
    mask: MaskEntry | None = None
    include: Literal["default", "everything", "none"] = "none"
    kinds: dict[KindName, KindEntry | None] = Field(default_factory=dict)
    allow: AllowEntry = AllowEntry()
    deny: dict[KindName, tuple[Text, ...]] = Field(default_factory=dict)
    recognizers: tuple[RecognizerEntry, ...] = ()
