"""The detectors that ship with the service, loaded from the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sluice_kit import process
from sluice_kit.telemetry import logger
from threadpoolctl import threadpool_limits

from sluice_moderation.adapters import metrics
from sluice_moderation.adapters.injection import LinearInjection
from sluice_moderation.adapters.secrets import SecretRules
from sluice_moderation.adapters.toxicity import BiLstmToxicity
from sluice_moderation.domain.panel import Panel

log = logger(__name__)

_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Detectors:
    """The panel, and the one of it that can explain itself."""

    panel: Panel
    injection: LinearInjection


def load() -> Detectors:
    """Read the weights (3 MB, about 0.2 s)."""
    # The matrices are small: BLAS threads would spend their time waiting for each other, and for the mesh's other processes.
    threadpool_limits(1, user_api="blas")
    injection = LinearInjection.load(_WEIGHTS / "injection-1.npz")
    toxicity = BiLstmToxicity.load(_WEIGHTS / "toxicity-1.npz")
    return Detectors(Panel([toxicity, injection, SecretRules()], on_failure=_tell), injection)


def _tell(detector: str, error: Exception) -> None:
    metrics.DETECTOR_FAILURES.labels(detector).inc()
    log.error("moderation.detector_failed", detector=detector, **process.describe(error))
