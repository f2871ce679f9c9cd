"""Fails when a requirements file is out of step with the packages: a dependency without a pin, or a pin it does not allow."""

import re
import sys
import tomllib
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


def dependencies(package: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parsed = [Requirement(text) for text in project["dependencies"]]
    return [r for r in parsed if not r.name.startswith("sluice")]


def problems(package: str, lock: str) -> list[str]:
    locked, found = pins(lock), []
    for requirement in dependencies(package):
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
        found += problems(f"services/{service}", "run.txt") + problems(f"services/{service}", f"{service}.txt")
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        if "://" in lock.read_text(encoding="utf-8"):
            found.append(f"{lock.name} names an address; a mirror could not serve it")
    for line in found:
        print(f"{line}: run make lock", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
