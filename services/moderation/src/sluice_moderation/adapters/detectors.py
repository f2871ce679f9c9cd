"""The detectors of the service: those that ship with it, and those that its settings put in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sluice_kit import process
from sluice_kit.telemetry import logger
from threadpoolctl import threadpool_limits

from sluice_moderation.adapters import metrics
from sluice_moderation.adapters.cascade import Cascade
from sluice_moderation.adapters.narrowed import narrowed
from sluice_moderation.adapters.secrets import SecretRules
from sluice_moderation.domain.detector import Detector
from sluice_moderation.domain.panel import Panel

log = logger(__name__)

_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Detectors:
    """The panel, and the detector of most categories."""

    panel: Panel
    cascade: Cascade


def load(chosen: Sequence[Detector] = ()) -> Detectors:
    """Read the weights (5 MB, about 0.3 s). `chosen` detectors score their categories instead of the shipped ones."""
    # The matrices are small: BLAS threads would spend their time waiting for each other, and for the mesh's other processes.
    threadpool_limits(1, user_api="blas")
    cascade = shipped()
    return Detectors(Panel(narrowed([*chosen, cascade, SecretRules()]), on_failure=_tell), cascade)


def shipped() -> Cascade:
    """The detector of everything but secrets."""
    return Cascade.load(
        linear=_WEIGHTS / "heads-1.npz",
        network=_WEIGHTS / "toxicity-1.npz",
        injection=_WEIGHTS / "injection-1.npz",
        twins=_WEIGHTS / "twins-1.npz",
    )


def _tell(detector: str, error: Exception) -> None:
    metrics.DETECTOR_FAILURES.labels(detector).inc()
    log.error("moderation.detector_failed", detector=detector, **process.describe(error))
