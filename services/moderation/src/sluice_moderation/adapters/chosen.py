"""Detectors that the settings put in the place of shipped ones."""

from __future__ import annotations

from pathlib import Path

import grpc

from sluice_moderation.adapters.guard import GuardModel, GuardSettings
from sluice_moderation.adapters.onnx_classifier import OnnxClassifier
from sluice_moderation.domain.detector import Detector


def chosen_detectors(*, onnx_model: Path | None, guard: GuardSettings | None) -> list[Detector]:
    """Those that are configured, the guard first where both score a category. Raises ModelUnavailable.

    A guard whose service is away is no reason not to start: its categories are then unscored, and the policy says what follows.
    """
    found: list[Detector] = []
    if guard is not None:
        found.append(GuardModel(guard, grpc.insecure_channel(guard.target)))
    if onnx_model is not None:
        found.append(OnnxClassifier.load(onnx_model))
    return found
