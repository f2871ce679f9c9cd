"""The folder of policies: watched while the service runs, and checked before it is shipped."""

from pathlib import Path
from typing import TextIO

from sluice_kit.configuration import ConfigurationRefused, SourceFile, source_files
from sluice_kit.configuration_watch import WatchedConfiguration
from sluice_kit.process import StartFailed

from sluice_redaction.domain.book import PolicyBook

from .policy_files import SHIPPED, Surroundings, read_book


def watched_policies(folder: Path | None, surroundings: Surroundings) -> WatchedConfiguration[PolicyBook]:
    """The shipped policies and those of the folder. Raises StartFailed with every mistake; later ones are logged, and the
    last good policies stay in force."""

    def build(sources: tuple[SourceFile, ...]) -> PolicyBook:
        return read_book(sources, surroundings)

    try:
        return WatchedConfiguration([SHIPPED, *([folder] if folder else [])], build, service="redaction")
    except ConfigurationRefused as refused:
        raise StartFailed(str(refused)) from None


def check(folder: Path, out: TextIO) -> int:
    """Writes OK, or a line for each mistake. Returns the exit code. Checks as if there were a key."""
    try:
        book = read_book((*source_files(SHIPPED), *source_files(folder)), Surroundings(has_key=True))
    except ConfigurationRefused as refused:
        out.write(f"{refused}\n")
        return 1
    for policy in book:
        private = f", for {', '.join(sorted(policy.tenants))} only" if policy.tenants else ""
        key = ", needs SLUICE_REDACTION_KEY_FILE" if policy.needs_key else ""
        out.write(f"{policy.id} version {policy.version}: {len(policy.replaced_kinds)} kinds{private}{key}\n")
    out.write("OK\n")
    return 0
