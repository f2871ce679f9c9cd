"""How long topics keep their records: as the contracts say, or as an operator's file says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sluice_kit.events import DEAD_LETTER_SUFFIX, TopicSpec, all_topics
from sluice_kit.process import StartFailed

CONFIDENTIAL = "confidential"
_DURATION = re.compile(r"(?P<number>[1-9]\d{0,6})(?P<unit>[smhd])", re.ASCII)
_MILLISECONDS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_FIELDS = {"topics", "allow_longer"}


@dataclass(frozen=True)
class Retention:
    """Milliseconds by topic, for every topic whose records are deleted by age."""

    milliseconds: Mapping[str, int] = field(default_factory=dict)

    def of(self, spec: TopicSpec) -> int:
        """How long this topic keeps records."""
        return self.milliseconds.get(spec.name, spec.retention_ms)


def read_retention(path: Path | None) -> Retention:
    """What the operator's file says over the contracts; without a file the contracts alone. Raises StartFailed with every mistake."""
    if path is None:
        return Retention()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StartFailed(f"{path} (SLUICE_TOPIC_RETENTION_FILE) cannot be read: {type(error).__name__}.") from None
    mistakes: list[str] = []
    found = _retention(document if isinstance(document, dict) else {"": ""}, mistakes)
    if mistakes:
        raise StartFailed("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return found


def _retention(document: dict[Any, Any], mistakes: list[str]) -> Retention:
    mistakes += [f"{name!s} is no field; there are topics and allow_longer" for name in document.keys() - _FIELDS]
    specs = {spec.name: spec for spec in all_topics()}
    by_event = {spec.message_class.DESCRIPTOR.name: spec for spec in specs.values() if spec.message_class}
    known = specs | by_event
    topics, allowed = document.get("topics") or {}, document.get("allow_longer") or []
    if not isinstance(topics, dict) or not isinstance(allowed, list):
        mistakes.append("topics must be a mapping of topics to durations, and allow_longer a list of topics")
        return Retention()
    mistakes += [f"there is no topic {name!s}" for name in [*topics, *allowed] if name not in known]
    may_be_longer = {known[name].name for name in allowed if name in known}
    told = {known[name]: duration for name, duration in topics.items() if name in known}
    chosen = {
        spec.name: milliseconds
        for spec, duration in told.items()
        if (milliseconds := _checked(spec, duration, mistakes, may_be_longer=spec.name in may_be_longer)) is not None
    }
    return Retention(_dead_letters(specs, chosen) | chosen)


def _checked(spec: TopicSpec, duration: object, mistakes: list[str], *, may_be_longer: bool) -> int | None:
    parsed = _DURATION.fullmatch(str(duration))
    if parsed is None:
        mistakes.append(f"{spec.name}: write how long as a number and s, m, h or d, such as 7d")
        return None
    if spec.cleanup_policy == "compact":
        mistakes.append(f"{spec.name}: is compacted, the newest record of a key is kept for ever")
        return None
    milliseconds = int(parsed["number"]) * _MILLISECONDS[parsed["unit"]]
    if spec.classification == CONFIDENTIAL and milliseconds > spec.retention_ms and not may_be_longer:
        mistakes.append(
            f"{spec.name}: is confidential and kept for {spec.retention_ms // 86_400_000} d at most;"
            " to keep it longer all the same, name it under allow_longer too"
        )
        return None
    return milliseconds


def _dead_letters(specs: Mapping[str, TopicSpec], chosen: Mapping[str, int]) -> dict[str, int]:
    """A dead letter holds what its topic held: it is not kept longer than an operator wants the topic kept."""
    letters = {name: specs.get(name + DEAD_LETTER_SUFFIX) for name in chosen}
    return {spec.name: min(spec.retention_ms, chosen[name]) for name, spec in letters.items() if spec is not None}
