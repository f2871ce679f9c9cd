"""Who may sign in, from YAML files that are read strictly and watched."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints
from sluice_kit.configuration import ConfigurationModel, ConfigurationRefused, Mistake, SourceFile, documents

from sluice_console.domain.people import ConsoleKey, Keyring, Person, Role

_VERSION = 1
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Tenant = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class _Key(ConfigurationModel):
    id: _Id
    sha256: _Digest
    role: Role
    tenant: _Tenant | None = None
    enabled: bool = True


class _File(ConfigurationModel):
    version: Annotated[int, Field(ge=_VERSION, le=_VERSION)]
    keys: list[_Key] = Field(min_length=1)


def keyring_of(sources: tuple[SourceFile, ...]) -> Keyring:
    """The keys of all files. Raises ConfigurationRefused with every mistake and its line; a file never holds a key in clear."""
    found = documents(sources, _File)
    mistakes: list[Mistake] = []
    ids: set[str] = set()
    keys: list[ConsoleKey] = []
    for document in found:
        for i, key in enumerate(document.value.keys):
            if key.id in ids:
                mistakes.append(document.mistake(f"keys[{i}].id: {key.id} stands twice", at=("keys", i, "id")))
            ids.add(key.id)
            if key.enabled:
                keys.append(ConsoleKey(key.sha256, Person(key.id, key.role, key.tenant or "")))
    if mistakes:
        raise ConfigurationRefused(mistakes)
    return Keyring(keys)
