"""What the moderation service reads from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from sluice_kit.settings import GrpcServiceSettings, settings_config


class Settings(GrpcServiceSettings):
    """Prefix `SLUICE_MODERATION_`."""

    model_config = settings_config("moderation")

    policies: Path | None = None
    """Folder with policies (*.yaml) of your own, read again when it changes; one with the id of a shipped policy replaces it."""
    max_characters: int = Field(400_000, ge=1)
    """Most characters (code points) in one call, over all segments."""
    max_segments: int = Field(20_000, ge=1)
    """Most segments in one call."""
    threads: int = Field(2, ge=1, le=64)
    """Threads that run classifiers."""
    queue_windows: int = Field(16_384, ge=64)
    """Windows (about a sentence each) that may wait for a thread; more calls get RESOURCE_EXHAUSTED."""
    cache_windows: int = Field(16_384, ge=0)
    """Windows whose scores are remembered, for texts that come again such as system prompts; 0 for none."""
    evidence_rows: int = Field(200_000, ge=1)
    """Decisions kept for Explain; beside them a tenth as many of self-tests."""
    evidence_days: int = Field(30, ge=1)
    """Days a decision is kept for Explain."""
    onnx_model: Path | None = None
    """Folder with a sequence classifier (model.onnx, tokenizer.json, sluice.json) that scores its categories instead of the shipped detector."""
    guard_target: str = ""
    """host:port of an InferenceService that runs a guard model; empty for none."""
    guard_model: str = "llama-guard"
    """Name of the guard model there."""
    guard_timeout_seconds: float = Field(5.0, gt=0, le=60)
    """Longest wait for the guard's answer to a text; later ones count as not checked."""
