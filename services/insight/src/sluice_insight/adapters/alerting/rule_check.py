"""`sluice-insight check FILE`: says whether a file or folder of alert rules would be taken, without a service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sluice_kit.configuration import ConfigurationRefused, read_source, source_files

from sluice_insight.adapters.alerting.rule_files import read_rules


def checked(arguments: Sequence[str]) -> int:
    """The exit code: 0 for good rules, 1 for mistakes (each told as `file:line: reason`), 2 for a wrong command."""
    if len(arguments) != 2 or arguments[0] != "check":
        sys.stderr.write("usage: sluice-insight check FILE-OR-FOLDER\n")
        return 2
    path = Path(arguments[1])
    try:
        rules = read_rules(source_files(path) if path.is_dir() else [read_source(path)])
    except ConfigurationRefused as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    for rule in rules:
        sys.stdout.write(f"{rule.name}: {type(rule.condition).__name__}, {rule.severity}\n")
    return 0
