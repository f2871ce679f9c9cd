"""Trains prior-1.npz, what people's labels of rude comments teach: `python training/train_prior.py --public FOLDER`.

From public sets that no package carries: paradetox.tsv (ParaDetox, CC0: 12,000 toxic comments and their polite paraphrases) and tweets.csv (Davidson
et al. 2017, MIT: 25,000 tweets as hateful, offensive, neither). Because they cannot be had from a package registry, the result is
checked in and `make models` starts from it, as it starts from tox-block's network. Every tenth pair and every sixth tweet are left out: evaluate.py
measures on them. Names of users and addresses are taken out; word features as in train.py (in five texts, letters only, no proper names).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
from pathlib import Path

import numpy as np
from scipy.sparse import hstack
from sluice_moderation.domain.normalisation import plain_view
from threadpoolctl import threadpool_limits
from train import FAVOUR, KINDS, fit, log, matrix, scaled, seen, text_of, vocabulary
from train_injection import proper_names

PRIOR = Path(__file__).parent / "prior-1.npz"
HEADS = ("toxic", "hateful")
MAX_FEATURES = {"words": 15_000, "characters": 25_000}
_HANDLE = re.compile(r"@\w+|https?://\S+|&#?\w+;|\bRT\b")


def labelled(folder: Path) -> tuple[list[str], np.ndarray]:
    texts, rows = [], []
    pairs = [
        line.split("\t") for line in (folder / "paradetox.tsv").read_text(encoding="utf-8").split("\n")[1:] if line
    ]
    for toxic, *neutral in (pair for i, pair in enumerate(pairs) if i % 10):
        texts += [toxic, *(n for n in neutral if n.strip())]
        rows += [(1.0, np.nan), *((0.0, 0.0) for n in neutral if n.strip())]
    with (folder / "tweets.csv").open(encoding="utf-8") as file:
        for record in (r for i, r in enumerate(csv.DictReader(file)) if i % 6):
            texts.append(record["tweet"])
            rows.append({"0": (1.0, 1.0), "1": (0.9, 0.1), "2": (0.0, 0.0)}[record["class"]])
    return [_HANDLE.sub(" ", text) for text in texts], np.array(rows, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--public", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=PRIOR)
    a = parser.parse_args()
    threadpool_limits(1)
    raw, y = labelled(a.public)
    read = [seen(text) for text in raw]
    names = vocabulary(read, proper_names([plain_view(text) for text in raw]))
    features = matrix(read, set(names))
    scale = {k: scaled(features.x[k], k) for k in KINDS}
    full = hstack([features.x[k].multiply(scale[k]) for k in KINDS]).tocsr().astype(np.float32)
    w, b = fit(full, y, 60, weights=np.ones(len(y), np.float32))
    w = w * np.concatenate([scale[k] for k in KINDS])[:, None]
    split, kept = len(features.keys["words"]), {}
    for kind, part in (("words", slice(0, split)), ("characters", slice(split, None))):
        heaviest = np.argsort(-np.abs(w[part]).max(axis=1), kind="stable")[: MAX_FEATURES[kind]]
        kept[kind] = np.sort(heaviest)
    words = features.keys["words"][kept["words"]]
    np.savez_compressed(
        a.out, words=words, characters=features.keys["characters"][kept["characters"]], bias=b, heads=text_of(HEADS),
        word_weights=w[:split][kept["words"]].astype(np.float16), character_weights=w[split:][kept["characters"]].astype(np.float16),
        names=text_of([names[int(k)] for k in words]),
    )  # fmt: skip
    log(len(raw), "texts", FAVOUR, a.out.name, a.out.stat().st_size, hashlib.sha256(a.out.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
