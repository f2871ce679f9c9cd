"""The ways of finding names, from what they cost to how sure they are."""

from enum import StrEnum


class Ner(StrEnum):
    """fast: the tagger alone. balanced: its teachers too, over the sentences it is in doubt about. thorough: the tagger
    and its teachers over everything."""

    FAST = "fast"
    BALANCED = "balanced"
    THOROUGH = "thorough"
