"""Refusals of the domain to errors of the mesh, which the kit turns into google.rpc.Status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sluice_kit import errors

from sluice_inference.adapters import metrics
from sluice_inference.domain import refusals

_CLASSES: dict[type[refusals.InferenceRefusal], type[errors.SluiceError]] = {
    refusals.InvalidRequest: errors.InvalidInput,
    refusals.UnknownModel: errors.NotFound,
    refusals.UnsupportedRequest: errors.Unimplemented,
    refusals.DuplicateRequest: errors.AlreadyExists,
    refusals.Overloaded: errors.ResourceExhausted,
    refusals.EngineUnavailable: errors.Unavailable,
    refusals.EngineFailed: errors.Internal,
    refusals.EngineDied: errors.Unavailable,
}


@contextmanager
def told() -> Iterator[None]:
    """Raises a SluiceError in place of an InferenceRefusal."""
    try:
        yield
    except refusals.InferenceRefusal as refusal:
        raise as_error(refusal) from refusal


def as_error(refusal: refusals.InferenceRefusal) -> errors.SluiceError:
    if isinstance(refusal, refusals.RequestStopped):
        kind: type[errors.SluiceError] = errors.DeadlineExceeded if refusal.timed_out else errors.Cancelled
        return kind(refusal.message, reason=refusal.reason)
    field = refusal.field if isinstance(refusal, refusals.InvalidRequest) else None
    retry_after = None
    if isinstance(refusal, refusals.Overloaded):
        metrics.SHED.inc()
        retry_after = refusal.retry_after_seconds
    elif isinstance(refusal, refusals.EngineUnavailable):
        retry_after = 1.0
    return _CLASSES[type(refusal)](refusal.message, reason=refusal.reason, field=field, retry_after_seconds=retry_after)
