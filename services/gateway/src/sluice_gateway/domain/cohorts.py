"""Cohorts: groups of requests that callers declare, or that stand with an API key. Attributes and values are configured."""

from collections.abc import Mapping

from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.rejection import invalid

PREFIX = "cohort."
"""What the labels begin with that declare one."""
LABELS_FIELD = {Door.GRPC: "labels", Door.HTTP: "metadata"}
"""Where each door has the labels."""


def cohort_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Attribute to value, of the labels that declare a cohort."""
    return {name.removeprefix(PREFIX): value for name, value in (labels or {}).items() if name.startswith(PREFIX)}


def cohorts_of(
    declared: Mapping[str, str],
    standing: Mapping[str, str],
    *,
    allowed: Mapping[str, tuple[str, ...]],
    door: Door,
) -> dict[str, str]:
    """Attribute to value; what stands with the key counts for more than what the caller says.

    Raises Rejection for what is not configured, without quoting it: free text never comes into an event.
    """
    field = LABELS_FIELD[door]
    for attribute, value in declared.items():
        if attribute not in allowed:
            known = ", ".join(PREFIX + name for name in sorted(allowed)) or "none"
            raise invalid(field, f"{field} names a cohort that is not configured for this tenant; there are: {known}.")
        if value not in allowed[attribute]:
            choices = ", ".join(allowed[attribute])
            raise invalid(f"{field}.{PREFIX}{attribute}", f"{PREFIX}{attribute} must be one of {choices}.")
    return {**declared, **standing}
