"""Policies from YAML files, read strictly; every mistake is told with its file and line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from sluice_kit.configuration import (
    ConfigurationModel,
    ConfigurationRefused,
    Document,
    Mistake,
    SourceFile,
    documents,
    source_files,
)

from sluice_moderation.domain.detector import CATEGORIES
from sluice_moderation.domain.policies import PolicySet
from sluice_moderation.domain.policy import Action, Direction, Policy, Rule
from sluice_moderation.domain.terms import DeniedTerm, Terms

SHIPPED = Path(__file__).parent / "policies"
_ACTIONS = {"flag": Action.FLAG, "redact": Action.REDACT, "hold": Action.HOLD, "block": Action.BLOCK}


def _known(category: str) -> str:
    if category not in CATEGORIES:
        raise ValueError(f"unknown category; known are {', '.join(CATEGORIES)}")
    return category


PolicyId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
TenantId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=100)]
Category = Annotated[str, AfterValidator(_known)]
Threshold = Annotated[float, Field(gt=0, le=1)]


class Thresholds(ConfigurationModel):
    """From which score on what is done."""

    flag: Threshold | None = None
    redact: Threshold | None = None
    hold: Threshold | None = None
    block: Threshold | None = None

    @model_validator(mode="after")
    def _rise_with_the_action(self) -> Thresholds:
        named = [(name, getattr(self, name)) for name in _ACTIONS if getattr(self, name) is not None]
        if not named:
            raise ValueError("must give at least one threshold, as in {flag: 0.7, block: 0.9}")
        for (milder, low), (stricter, high) in pairwise(named):
            if low >= high:
                raise ValueError(f"{milder} must be lower than {stricter}, else {milder} never happens")
        return self


class Rules(ConfigurationModel):
    """By direction: category to thresholds."""

    input: dict[Category, Thresholds] = Field(default_factory=dict)
    output: dict[Category, Thresholds] = Field(default_factory=dict)


class Denied(ConfigurationModel):
    """A phrase and what is done where it is found."""

    phrase: Phrase
    action: Annotated[str, StringConstraints(pattern="^(flag|redact|hold|block)$")] = "block"
    directions: tuple[Direction, ...] = (Direction.INPUT, Direction.OUTPUT)


class TermLists(ConfigurationModel):
    """Phrases that are always acted on, and phrases that never count."""

    deny: Annotated[tuple[Denied, ...], Field(max_length=2000)] = ()
    allow: Annotated[tuple[Phrase, ...], Field(max_length=2000)] = ()


class PolicyFile(ConfigurationModel):
    """One policy as it stands in its file."""

    policy: PolicyId
    version: int = Field(ge=1, lt=2**32)
    description: str = Field(max_length=500)
    fail_closed: bool
    tenants: tuple[TenantId, ...] = ()
    shadow_of: PolicyId | None = None
    sample: float = Field(1.0, gt=0, le=1)
    rules: Rules
    languages: dict[Language, Rules] = Field(default_factory=dict)
    terms: TermLists = TermLists()

    @model_validator(mode="after")
    def _sample_only_shadows(self) -> PolicyFile:
        if self.shadow_of is None and self.sample != 1.0:
            raise ValueError("sample is for policies with shadow_of; an enforced policy judges every request")
        if self.shadow_of == self.policy:
            raise ValueError("shadow_of names the policy itself")
        return self


def load_policies(*folders: Path) -> PolicySet:
    """Policies of all `*.yaml` in the folders; a later folder replaces what an earlier one has. Raises ConfigurationRefused."""
    return policy_set([source for folder in folders for source in source_files(folder)])


def policy_set(sources: Sequence[SourceFile], *, scored: Collection[str] = CATEGORIES) -> PolicySet:
    """The policies of some files. `scored`: the categories that detectors here can score. Raises ConfigurationRefused."""
    read = documents(sources, PolicyFile)
    last = {found.value.policy: found for found in read}  # of two folders the later one
    mistakes = [
        *_double(read),
        *(mistake for found in last.values() for mistake in _unscored(found, scored)),
        *_stray_shadows(last),
        *_shared_tenants(last.values()),
    ]
    if mistakes:
        raise ConfigurationRefused(sorted(mistakes))
    return PolicySet({name: _policy(found) for name, found in sorted(last.items())})


def _double(read: Iterable[Document[PolicyFile]]) -> Iterable[Mistake]:
    here: dict[tuple[Path, str], Document[PolicyFile]] = {}
    for found in read:
        first = here.setdefault((found.source.path.parent, found.value.policy), found)
        if first is not found:
            yield found.mistake(
                f"policy {found.value.policy} also stands in {first.source.path.name}; keep one", at=("policy",)
            )


def _unscored(found: Document[PolicyFile], scored: Collection[str]) -> Iterable[Mistake]:
    tables: list[tuple[tuple[str, ...], Rules]] = [(("rules",), found.value.rules)]
    tables += [(("languages", language), rules) for language, rules in found.value.languages.items()]
    for place, rules in tables:
        for direction in Direction:
            for category in getattr(rules, direction.value):
                if category not in scored:
                    yield found.mistake(f"no detector here scores {category}", at=(*place, direction.value, category))


def _stray_shadows(last: Mapping[str, Document[PolicyFile]]) -> Iterable[Mistake]:
    for found in last.values():
        name = found.value.shadow_of
        if name is None:
            continue
        beside = last.get(name)
        if beside is None:
            yield found.mistake(f"there is no policy {name} to be a shadow of", at=("shadow_of",))
        elif beside.value.shadow_of is not None:
            yield found.mistake(f"{name} is a shadow itself; name one that is enforced", at=("shadow_of",))


def _shared_tenants(read: Iterable[Document[PolicyFile]]) -> Iterable[Mistake]:
    first: dict[str, str] = {}
    for found in read:
        if found.value.shadow_of is not None:
            continue
        for i, tenant in enumerate(found.value.tenants):
            other = first.setdefault(tenant, found.value.policy)
            if other != found.value.policy:
                yield found.mistake(f"policy {other} is this tenant's already; keep one", at=("tenants", i))


def _policy(found: Document[PolicyFile]) -> Policy:
    file = found.value
    rules = _rules(file.rules, "")
    for language, own in file.languages.items():
        rules += _rules(own, language)
    return Policy(
        policy_id=file.policy,
        version=file.version,
        description=file.description,
        rules=tuple(rules),
        fail_closed=file.fail_closed,
        tenants=frozenset(file.tenants),
        shadow_of=file.shadow_of or "",
        sample=file.sample,
        terms=Terms(
            tuple(DeniedTerm(t.phrase, _ACTIONS[t.action], frozenset(t.directions)) for t in file.terms.deny),
            file.terms.allow,
        ),
        digest=found.source.digest,
    )


def _rules(rules: Rules, language: str) -> list[Rule]:
    return [
        Rule(category, direction, threshold, action, language)
        for direction in Direction
        for category, thresholds in getattr(rules, direction.value).items()
        for name, action in _ACTIONS.items()
        if (threshold := getattr(thresholds, name)) is not None
    ]
