"""A Hugging Face sequence classifier exported to ONNX, put in by configuration.

The folder holds `model.onnx`, `tokenizer.json` and `sluice.json`:

    {"labels": {"toxic": "toxicity", "insult": "insult"},   # label of the model -> category of ours
     "order": ["toxic", "insult"],                          # the columns of the model's logits
     "activation": "sigmoid",                               # or softmax
     "max_tokens": 256}                                     # longest input of the model; longer texts are read in overlapping pieces
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sluice_moderation.domain.detector import CATEGORIES, Scores

_BATCH = 16
_OVERLAP_SHARE = 8  # neighbouring pieces of a long text share an eighth of their tokens


class ModelUnavailable(Exception):
    """A configured model cannot be used; the message says why and what to do."""


class OnnxDescription(BaseModel):
    """sluice.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: dict[str, str]
    order: list[str]
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    max_tokens: int = Field(256, ge=8, le=8192)

    @model_validator(mode="after")
    def _known(self) -> OnnxDescription:
        unknown = sorted({*self.labels.values()} - {*CATEGORIES})
        if unknown:
            raise ValueError(f"labels name unknown categories: {', '.join(unknown)}; known are {', '.join(CATEGORIES)}")
        missing = sorted({*self.labels} - {*self.order})
        if missing:
            raise ValueError(f"labels name {', '.join(missing)}, which order does not list")
        return self


class OnnxClassifier:
    """A detector for the categories its labels are mapped to."""

    def __init__(self, *, name: str, digest: str, description: OnnxDescription, session: Any, tokenizer: Any) -> None:
        self.name, self.digest = name, digest
        self._description, self._session, self._tokenizer = description, session, tokenizer
        self.categories = tuple(c for c in CATEGORIES if c in description.labels.values())
        self._inputs = {found.name for found in session.get_inputs()}
        columns = {description.order.index(label): category for label, category in description.labels.items()}
        self._columns = [[i for i, c in columns.items() if c == category] for category in self.categories]

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> OnnxClassifier:
        """Raises ModelUnavailable with what is missing or wrong."""
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ModelUnavailable(f"{error.name} is not installed; install sluice-moderation[onnx].") from error
        try:
            described = (folder / "sluice.json").read_bytes()
            description = OnnxDescription.model_validate(json.loads(described))
            content = (folder / "model.onnx").read_bytes()
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = threads
            session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except (OSError, ValueError, ValidationError) as error:
            raise ModelUnavailable(f"{folder}: {error}") from error
        except Exception as error:  # onnxruntime and tokenizers raise classes of their own
            raise ModelUnavailable(f"{folder}: {type(error).__name__}: {error}") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(description.max_tokens, stride=description.max_tokens // _OVERLAP_SHARE)
        digest = "sha256:" + hashlib.sha256(content + (folder / "tokenizer.json").read_bytes() + described).hexdigest()
        return cls(
            name=f"onnx:{folder.name}", digest=digest, description=description, session=session, tokenizer=tokenizer
        )

    def scores(self, texts: Sequence[str]) -> Scores:
        """A text longer than the model's input takes the highest score of its pieces."""
        pieces = [(row, piece) for row, text in enumerate(texts) for piece in self._pieces(text)]
        pieces.sort(key=lambda pair: len(pair[1]))  # neighbours of one length need little padding
        result = np.zeros((len(texts), len(self.categories)), np.float32)
        for start in range(0, len(pieces), _BATCH):
            batch = pieces[start : start + _BATCH]
            np.maximum.at(result, [row for row, _ in batch], self._run([ids for _, ids in batch]))
        return result

    def _pieces(self, text: str) -> list[list[int]]:
        first = self._tokenizer.encode(text)
        return [found.ids for found in (first, *first.overflowing) if found.ids] or [[0]]

    def _run(self, batch: Sequence[list[int]]) -> Scores:
        ids = np.zeros((len(batch), max(map(len, batch))), np.int64)
        mask = np.zeros_like(ids)
        for row, piece in enumerate(batch):
            ids[row, : len(piece)], mask[row, : len(piece)] = piece, 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        logits = self._session.run(None, {name: array for name, array in feed.items() if name in self._inputs})[0]
        probabilities = self._activated(np.asarray(logits, np.float64))
        return np.stack([probabilities[:, columns].max(axis=1) for columns in self._columns], axis=1).astype(np.float32)

    def _activated(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self._description.activation == "sigmoid":
            return 1.0 / (1.0 + np.exp(-logits))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return shares
