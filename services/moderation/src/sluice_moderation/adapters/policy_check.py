"""`sluice-moderation check FOLDER`: says whether a folder of policies would be taken, without a service."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from sluice_kit.configuration import ConfigurationRefused, source_files

from sluice_moderation.adapters.policy_files import SHIPPED, policy_set

_USAGE = "usage: sluice-moderation check FOLDER   (FOLDER holds *.yaml, as SLUICE_MODERATION_POLICIES would name it)"


def checked(arguments: Sequence[str], *, scored: Collection[str]) -> int:
    """The exit code: 0 for good policies, 1 for mistakes (each printed as `file:line: reason`), 2 for a wrong command."""
    if len(arguments) != 2 or arguments[0] != "check":
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        own = source_files(Path(arguments[1]))
        found = policy_set([*source_files(SHIPPED), *own], scored=scored)
    except ConfigurationRefused as refused:
        print(refused, file=sys.stderr)
        return 1
    mine = {source.digest for source in own}
    for policy in found.by_id.values():
        if policy.digest in mine:
            shadow = f", shadow of {policy.shadow_of}" if policy.shadow_of else ""
            print(f"{policy.policy_id} version {policy.version}{shadow}: {len(policy.rules)} rules, {policy.digest}")
    return 0
