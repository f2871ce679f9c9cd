"""Fails when a requirements file is out of step with the packages: a dependency without a pin, or a pin it does not allow."""

import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
SERVICES = sorted(p.parent.name for p in (ROOT / "services").glob("[a-z]*/pyproject.toml"))
PIN = re.compile(r"^([A-Za-z0-9_.\-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


def pins(name: str) -> dict[str, Version]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return {canonicalize_name(n): Version(v) for n, v in PIN.findall(text)}


def dependencies(package: str, extras: Sequence[str] = ()) -> list[Requirement]:
    """Also those of its extras, as far as it has them; an extra that is asked of a package of ours is looked up there."""
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project.get("optional-dependencies", {})
    parsed = [Requirement(text) for text in project["dependencies"]]
    parsed += [Requirement(text) for extra in extras for text in optional.get(extra, ())]
    kit = [r for each in parsed if each.name == "sluice-kit" for r in _of_kit(each.extras)]
    return [r for r in parsed if not r.name.startswith("sluice")] + kit


def _of_kit(extras: Iterable[str]) -> list[Requirement]:
    project = tomllib.loads((ROOT / "services/_kit/pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(text) for extra in extras for text in project["optional-dependencies"][extra]]


def problems(package: str, lock: str, extras: Sequence[str] = ()) -> list[str]:
    locked, found = pins(lock), []
    for requirement in dependencies(package, extras):
        version = locked.get(canonicalize_name(requirement.name))
        if version is None:
            found.append(f"{lock} has no pin for {requirement.name}, which {package} needs")
        elif version not in requirement.specifier:
            found.append(f"{lock} pins {requirement.name}=={version}, which {package} ({requirement}) does not allow")
    return found


def main() -> int:
    found = [
        p
        for name in ("protos", "services/_events", "services/_kit", "services/_cli")
        for p in problems(name, "run.txt")
    ]
    for service in SERVICES:
        found += problems(f"services/{service}", "run.txt", ["rocksdb"])
        found += problems(f"services/{service}", f"{service}.txt", ["rocksdb", "columns"])
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        if "://" in lock.read_text(encoding="utf-8"):
            found.append(f"{lock.name} names an address; a mirror could not serve it")
    for line in found:
        print(f"{line}: run make lock", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
