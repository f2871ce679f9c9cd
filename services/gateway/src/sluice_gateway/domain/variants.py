"""Variants: which prompt and which arm of an experiment a caller says its request is of. Values are configured."""

from collections.abc import Mapping

from sluice_gateway.domain.chat import Variant
from sluice_gateway.domain.cohorts import LABELS_FIELD
from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.configuration import Tenant
from sluice_gateway.domain.rejection import invalid


def variant_of(labels: Mapping[str, str] | None) -> Variant:
    """What the labels declare; an empty value declares nothing."""
    told = labels or {}
    return Variant(prompt_version=told.get("prompt_version", ""), experiment_arm=told.get("experiment_arm", ""))


def allowed_variant(declared: Variant, tenant: Tenant, *, door: Door) -> Variant:
    """Raises Rejection for what is not configured, without quoting it: free text never comes into an event."""
    allowed = {"prompt_version": tenant.prompt_versions, "experiment_arm": tenant.experiment_arms}
    for label, value in declared.labels.items():
        if not allowed[label]:
            message = f"There is no {label} configured for this tenant; leave it out."
            raise invalid(f"{LABELS_FIELD[door]}.{label}", message)
        if value not in allowed[label]:
            choices = ", ".join(allowed[label])
            raise invalid(f"{LABELS_FIELD[door]}.{label}", f"{label} must be one of {choices}.")
    return declared
