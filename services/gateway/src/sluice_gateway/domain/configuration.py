"""Who may call which model on what terms: the configuration file's contents, checked as a whole."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sluice_gateway.domain.api_key import EVERY_OTHER, ApiKey, Keyring

VERSION = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_KEY_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,30}", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FREE = re.compile(r"[^\x00-\x1f]{0,128}")
_COHORT_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
# `none` and `others` are what fairness calls its references.
_COHORT_VALUE = re.compile(r"(?!(?:none|others)$)[A-Za-z0-9][A-Za-z0-9._-]{0,39}", re.ASCII)
MOST_COHORT_ATTRIBUTES = 4
SELF_TEST_TARGET = "sluice-self-test"
"""The inference service's model that answers only self-tests, by the id that it has everywhere unless somebody chose another."""
MOST_COHORT_VALUES = 12
# After a dot a version goes on with a digit, so that `jane@example.org` is none.
_PROMPT_VERSION = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}@[A-Za-z0-9_-]{1,20}(?:\.[0-9][A-Za-z0-9_-]{0,19}){0,3}", re.ASCII
)
_EXPERIMENT_ARM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}/[A-Za-z0-9][A-Za-z0-9._-]{0,19}", re.ASCII)
# Each pair that occurs is a series of its own in quality: at most 33 x 9 for a tenant and model.
MOST_PROMPT_VERSIONS = 32
MOST_EXPERIMENT_ARMS = 8


class ConfigurationError(ValueError):
    """The file cannot be used; `mistakes` lists everything that is wrong with it."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = tuple(mistakes)


class ContentCapture(Enum):
    """Which text events may carry."""

    NONE = "none"
    REDACTED = "redacted"


class Task(Enum):
    """What a model is used for."""

    CHAT = "chat"
    EMBED = "embed"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one tenant may use."""

    requests_per_minute: int = 600
    concurrency: int = 32
    max_tokens: int = 1024


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose requests they are, and on what terms they are served."""

    id: str
    project_id: str = "default"
    content_capture: ContentCapture = ContentCapture.NONE
    moderation_policy: str = ""
    redaction_policy: str = ""
    fail_open: bool = False
    budget_fail_open: bool = False
    limits: Limits = field(default_factory=Limits)
    cohorts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Attribute to values: the cohorts its callers may declare."""
    prompt_versions: tuple[str, ...] = ()
    """`name@version` of the prompts its callers may say a request is made with."""
    experiment_arms: tuple[str, ...] = ()
    """`experiment/arm` its callers may say a request is of."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What stands behind a model alias."""

    alias: str
    target: str
    owned_by: str = "sluice"
    max_output_tokens: int = 512
    tasks: frozenset[Task] = frozenset({Task.CHAT})
    synthetic: bool = False
    """Only self-tests get an answer from it: nobody else is told that it is there."""

    @property
    def route(self) -> str:
        """The name events give it."""
        return f"{self.alias}/{self.target}"


@dataclass(frozen=True)
class Configuration:
    """A whole valid configuration; `created_at` is when it came into force (Unix seconds)."""

    tenants: Mapping[str, Tenant]
    keyring: Keyring
    deployments: Mapping[str, Deployment]
    created_at: float = 0.0

    def deployment(self, alias: str, task: Task) -> Deployment | None:
        """What answers `alias`; an empty alias means the first deployment that does the task for everybody."""
        if not alias:
            return next((d for d in self.deployments.values() if task in d.tasks and not d.synthetic), None)
        found = self.deployments.get(alias)
        return found if found and task in found.tasks else None


def configuration_of(document: object, *, created_at: float = 0.0) -> Configuration:
    """Check a parsed document. Raises ConfigurationError naming every mistake, each with its path."""
    mistakes: list[str] = []
    top = _Section(document, "the file", mistakes, {"version", "tenants", "api_keys", "models"})
    if top.raw.get("version") != VERSION:
        mistakes.append(f"version: must be {VERSION}")
    tenants = _unique((_tenant(entry) for entry in top.entries("tenants", _TENANT_FIELDS)), "tenants", "id", mistakes)
    keys = _unique((_key(entry, tenants) for entry in top.entries("api_keys", _KEY_FIELDS)), "api_keys", "id", mistakes)
    models = _unique((_model(entry) for entry in top.entries("models", _MODEL_FIELDS)), "models", "alias", mistakes)
    if mistakes:
        raise ConfigurationError(mistakes)
    return Configuration(tenants, Keyring(keys.values()), models, created_at)


_TENANT_FIELDS = {
    "id",
    "project",
    "content_capture",
    "moderation_policy",
    "redaction_policy",
    "fail_open",
    "budget_fail_open",
    "limits",
    "cohorts",
    "prompt_versions",
    "experiment_arms",
}
_KEY_FIELDS = {"id", "sha256", "tenant", "project", "enabled", "synthetic", "cohorts", "max_tokens"}
_MODEL_FIELDS = {"alias", "target", "owned_by", "max_output_tokens", "tasks", "synthetic"}


def _tenant(entry: "_Section") -> Tenant:
    limits = entry.section("limits", {"requests_per_minute", "concurrency", "max_tokens"})
    default = Limits()
    return Tenant(
        id=entry.text("id", _NAME),
        project_id=entry.text("project", _NAME, default="default"),
        content_capture=ContentCapture(entry.one_of("content_capture", [c.value for c in ContentCapture], "none")),
        moderation_policy=entry.text("moderation_policy", _FREE, default=""),
        redaction_policy=entry.text("redaction_policy", _FREE, default=""),
        fail_open=entry.flag("fail_open", default=False),
        budget_fail_open=entry.flag("budget_fail_open", default=False),
        limits=Limits(
            requests_per_minute=limits.whole("requests_per_minute", default.requests_per_minute, 1, 10_000_000),
            concurrency=limits.whole("concurrency", default.concurrency, 1, 100_000),
            max_tokens=limits.whole("max_tokens", default.max_tokens, 1, 10_000_000),
        ),
        cohorts=_cohorts(entry),
        prompt_versions=_names(entry, "prompt_versions", _PROMPT_VERSION, MOST_PROMPT_VERSIONS),
        experiment_arms=_names(entry, "experiment_arms", _EXPERIMENT_ARM, MOST_EXPERIMENT_ARMS),
    )


def _names(entry: "_Section", field_name: str, pattern: re.Pattern[str], most: int) -> tuple[str, ...]:
    names = entry.raw.get(field_name, [])
    if not isinstance(names, list) or len(names) > most or not _are_different(names, pattern):
        entry.mistake(field_name, f"must be a list of at most {most} different names that match {pattern.pattern}")
        return ()
    return tuple(names)


def _cohorts(entry: "_Section") -> dict[str, tuple[str, ...]]:
    declared = entry.raw.get("cohorts", {})
    if not isinstance(declared, dict) or len(declared) > MOST_COHORT_ATTRIBUTES:
        entry.mistake("cohorts", f"must be a mapping of at most {MOST_COHORT_ATTRIBUTES} attributes to their values")
        return {}
    found = {}
    for attribute, values in declared.items():
        if not isinstance(attribute, str) or not _COHORT_ATTRIBUTE.fullmatch(attribute):
            entry.mistake("cohorts", f"every attribute must match {_COHORT_ATTRIBUTE.pattern}")
        elif not _are_cohort_values(values):
            entry.mistake(
                f"cohorts.{attribute}",
                f"must be a list of 2 to {MOST_COHORT_VALUES} different values that match {_COHORT_VALUE.pattern}",
            )
        else:
            found[attribute] = tuple(values)
    return found


def _are_cohort_values(values: object) -> bool:
    if not isinstance(values, list) or not 2 <= len(values) <= MOST_COHORT_VALUES:
        return False
    return _are_different(values, _COHORT_VALUE)


def _are_different(names: list[object], pattern: re.Pattern[str]) -> bool:
    return all(isinstance(name, str) and pattern.fullmatch(name) for name in names) and len(set(names)) == len(names)


def _key(entry: "_Section", tenants: Mapping[str, Tenant]) -> ApiKey:
    tenant_id = entry.text("tenant", _NAME)
    tenant = tenants.get(tenant_id)
    if tenant is None:
        entry.mistake("tenant", "is not the id of a tenant in this file")
    return ApiKey(
        id=entry.text("id", _KEY_ID),
        sha256=entry.text("sha256", _SHA256),
        tenant_id=tenant_id,
        project_id=entry.text("project", _NAME, default=tenant.project_id if tenant else "default"),
        enabled=entry.flag("enabled", default=True),
        synthetic=entry.flag("synthetic", default=False),
        cohorts=_standing_cohorts(entry, tenant),
        max_tokens=_most_tokens(entry),
    )


def _most_tokens(entry: "_Section") -> dict[str, int]:
    # An alias need not stand in the file: a bound on a model that is not there (any more) does no harm.
    bounds = entry.raw.get("max_tokens", {})
    if not isinstance(bounds, dict) or not all(
        isinstance(alias, str) and (alias == EVERY_OTHER or _ALIAS.fullmatch(alias)) for alias in bounds
    ):
        entry.mistake(
            "max_tokens", f'must be a mapping of model aliases, and "{EVERY_OTHER}" for every other, to tokens'
        )
        return {}
    tokens = entry.section("max_tokens", set(bounds))
    return {alias: tokens.whole(alias, 1, 1, 10_000_000) for alias in bounds}


def _standing_cohorts(entry: "_Section", tenant: Tenant | None) -> dict[str, str]:
    standing = entry.raw.get("cohorts", {})
    allowed = tenant.cohorts if tenant else {}
    if not isinstance(standing, dict) or any(value not in allowed.get(name, ()) for name, value in standing.items()):
        entry.mistake("cohorts", "must be a mapping of attributes to values that stand in the tenant's cohorts")
        return {}
    return dict(standing)


def _model(entry: "_Section") -> Deployment:
    tasks = entry.raw.get("tasks", ["chat"])
    known = [task.value for task in Task]
    if not isinstance(tasks, list) or not tasks or any(task not in known for task in tasks):
        entry.mistake("tasks", f"must be a list of {' and '.join(known)}")
        tasks = []
    target = entry.text("target", _FREE)
    return Deployment(
        alias=entry.text("alias", _ALIAS),
        target=target,
        owned_by=entry.text("owned_by", _FREE, default="sluice"),
        max_output_tokens=entry.whole("max_output_tokens", 512, 1, 10_000_000),
        tasks=frozenset(Task(task) for task in tasks),
        # By its id, too: files from before there was the field name it all the same.
        synthetic=entry.flag("synthetic", default=target == SELF_TEST_TARGET),
    )


class _Section:
    """One mapping of the file; notes mistakes and goes on, so that all of them are told at once.

    A value is never quoted in a mistake: somebody may have pasted a key into the wrong field.
    """

    def __init__(self, raw: object, path: str, mistakes: list[str], fields: set[str]) -> None:
        self._path, self._mistakes = path, mistakes
        self.raw: Mapping[str, Any] = raw if isinstance(raw, dict) else {}
        if not isinstance(raw, dict):
            mistakes.append(f"{path}: must be a mapping")
        for name in self.raw:
            if name not in fields:
                self.mistake(str(name), f"is not a field; there are {', '.join(sorted(fields))}")

    def mistake(self, name: str, what: str) -> None:
        path = name if self._path == "the file" else f"{self._path}.{name}"
        self._mistakes.append(f"{path}: {what}")

    def text(self, name: str, pattern: re.Pattern[str], *, default: str | None = None) -> str:
        value = self.raw.get(name, default)
        if value is None:
            self.mistake(name, "is missing")
        elif not isinstance(value, str) or not pattern.fullmatch(value) or (default is None and not value):
            self.mistake(name, f"must be text that matches {pattern.pattern}")
        else:
            return value
        return ""

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.raw.get(name, default)
        if not isinstance(value, bool):
            self.mistake(name, "must be true or false")
            return default
        return value

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        value = self.raw.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.mistake(name, f"must be a whole number from {least} to {most}")
            return default
        return value

    def one_of(self, name: str, choices: Sequence[str], default: str) -> str:
        value = self.raw.get(name, default)
        if value not in choices:
            self.mistake(name, f"must be {' or '.join(choices)}")
            return default
        return str(value)

    def section(self, name: str, fields: set[str]) -> "_Section":
        return _Section(self.raw.get(name, {}), f"{self._path}.{name}", self._mistakes, fields)

    def entries(self, name: str, fields: set[str]) -> "Iterator[_Section]":
        entries = self.raw.get(name)
        if not isinstance(entries, list) or not entries:
            self.mistake(name, "must be a list with at least one entry")
            return
        for i, entry in enumerate(entries):
            yield _Section(entry, f"{name}[{i}]", self._mistakes, fields)


def _unique(values: Iterator[Any], section: str, key: str, mistakes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i, value in enumerate(values):
        name = getattr(value, key)
        if name and name in found:
            mistakes.append(f"{section}[{i}].{key}: stands twice")
        found[name] = value
    return found
