"""Trains the linear heads: `python training/train.py --packages FOLDER`. Seeded; one thread; the same bytes with the pinned packages."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
from corpus import HEADS, SEED, Packages, build, disguised
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack, vstack
from sluice_moderation.adapters.toxicity import BiLstmToxicity
from sluice_moderation.domain.features import Occurrences, features_of, word_keys
from sluice_moderation.domain.identity import marked
from sluice_moderation.domain.normalisation import plain_view, views
from threadpoolctl import threadpool_limits
from train_injection import proper_names

WEIGHTS = Path(__file__).parents[1] / "src/sluice_moderation/adapters/weights"
MIN_TEXTS = {"words": 5, "characters": 8}
MAX_FEATURES = {"words": 60_000, "characters": 70_000}
LENGTH_POWER = {"words": 0.35, "characters": 0.5}
PENALTY = 2e-6
DISGUISED_SHARE = 0.15
_WORD = re.compile(r"[^\W_]+")


def seen(text: str) -> str:
    """What the model reads of a text: the folded view, identity terms marked."""
    return marked(views(text)[-1])


def counts(found: Occurrences, keys: np.ndarray, texts: int, power: float) -> csr_matrix:
    """Occurrences of known features, each worth (occurrences of all kinds in the text) ** -power."""
    rows = np.concatenate([r for r, _ in found.groups]) if found.groups else np.empty(0, np.int64)
    at_keys = np.concatenate([k for _, k in found.groups]) if found.groups else np.empty(0, np.uint64)
    total = np.bincount(rows, minlength=texts)
    at = np.searchsorted(keys, at_keys)
    at[at == len(keys)] = 0
    known = keys[at] == at_keys
    values = (np.maximum(total, 1) ** -power)[rows[known]].astype(np.float32)
    return csr_matrix((values, (rows[known], at[known])), shape=(texts, len(keys)))


def frequent(found: Occurrences, minimum: int, allowed: np.ndarray | None) -> np.ndarray:
    pairs = np.unique(
        np.stack(
            [
                np.concatenate([k for _, k in found.groups]),
                np.concatenate([r for r, _ in found.groups]).astype(np.uint64),
            ]
        ),
        axis=1,
    )[0]
    unique, texts = np.unique(pairs, return_counts=True)
    keep = texts >= minimum
    if allowed is not None:
        keep &= np.isin(unique, allowed)
    return unique[keep]


def vocabulary(texts: list[str]) -> dict[int, str]:
    """key -> name, for words, pairs, skips and triples of letters only, in at least five texts, with no proper names."""
    names = proper_names(texts)
    found: Counter[tuple[bool, tuple[str, ...]]] = Counter()
    for text in texts:
        words = _WORD.findall(seen(text).lower())
        grams = {(False, (w,)) for w in words} | {(False, p) for p in itertools.pairwise(words)}
        grams |= {(True, (a, c)) for a, _, c in zip(words, words[1:], words[2:], strict=False)}
        grams |= {(False, t) for t in zip(words, words[1:], words[2:], strict=False)}
        found.update(grams)
    kept = {}
    for (skipping, gram), n in found.items():
        if n < MIN_TEXTS["words"] or not all(w.isalpha() and len(w) <= 20 and w not in names for w in gram):
            continue
        name = " … ".join(gram) if skipping else " ".join(gram)
        kept[word_keys(gram, skipping=skipping)] = name
        kept[word_keys(gram, skipping=skipping, quoted=True)] = "q:" + name
    return kept


def fit(
    x: csr_matrix, y: np.ndarray, weights: np.ndarray, penalty: float, iterations: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """All heads at once: logistic loss with soft labels, NaN left out, L2. Returns (features, heads) and biases."""
    d, h = x.shape[1], y.shape[1]
    known = ~np.isnan(y)
    target = np.where(known, y, 0).astype(np.float32)
    mass = known * weights
    mass = (mass / mass.sum(axis=0)).astype(np.float32)
    xt = x.T.tocsr()

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat[: d * h].reshape(d, h).astype(np.float32)
        b = flat[d * h :].astype(np.float32)
        z = x @ w + b
        value = (mass * (np.logaddexp(0, z) - target * z)).sum(dtype=np.float64)
        g = mass * (1 / (1 + np.exp(-z)) - target)
        gw = xt @ g + 2 * penalty * w
        return float(value + penalty * np.square(w, dtype=np.float64).sum()), np.concatenate(
            [gw.ravel(), g.sum(axis=0)]
        ).astype(np.float64)

    start = np.zeros(d * h + h)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 6})
    return found.x[: d * h].reshape(d, h).astype(np.float32), found.x[d * h :].astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "heads-1.npz")
    a = parser.parse_args()
    threadpool_limits(1)
    began = time.time()
    corpus = build(Packages(a.packages), BiLstmToxicity.load(WEIGHTS / "toxicity-1.npz"))
    print(
        len(corpus.texts), "texts", Counter(corpus.sources).most_common(40), f"{time.time() - began:.0f} s", flush=True
    )
    print(
        {
            h: (int((corpus.labels[:, i] >= 0.5).sum()), int((corpus.labels[:, i] < 0.5).sum()))
            for i, h in enumerate(HEADS)
        }
    )
    names = vocabulary([plain_view(t) for t in corpus.texts])
    dice = np.random.default_rng(SEED)
    chosen = np.flatnonzero(dice.random(len(corpus.texts)) < DISGUISED_SHARE)
    texts = [seen(t) for t in [*corpus.texts, *disguised(corpus.texts, chosen, SEED)]]
    y = np.concatenate([corpus.labels, corpus.labels[chosen]])
    print(len(names), "named", f"{time.time() - began:.0f} s", flush=True)
    parts = [features_of(texts[i : i + 2000]) for i in range(0, len(texts), 2000)]
    keys, x = {}, {}
    for kind in ("words", "characters"):
        occurrences = [getattr(p, kind) for p in parts]
        joined = Occurrences(tuple((r + 2000 * i, k) for i, o in enumerate(occurrences) for r, k in o.groups))
        allowed = np.fromiter(names, np.uint64, len(names)) if kind == "words" else None
        keys[kind] = frequent(joined, MIN_TEXTS[kind], allowed)
        x[kind] = vstack(
            [
                counts(o, keys[kind], min(2000, len(texts) - 2000 * i), LENGTH_POWER[kind])
                for i, o in enumerate(occurrences)
            ]
        ).tocsr()
        print(kind, x[kind].shape, x[kind].nnz, f"{time.time() - began:.0f} s", flush=True)
    scale = {k: 1 / np.sqrt(1 + np.log1p(np.bincount(m.indices, minlength=m.shape[1]))) for k, m in x.items()}
    weights = np.ones((len(texts), 1), np.float32)
    full = (
        hstack([x["words"].multiply(scale["words"]), x["characters"].multiply(scale["characters"])])
        .tocsr()
        .astype(np.float32)
    )
    w, b = fit(full, y, weights, PENALTY, 12)
    split = len(keys["words"])
    importance = np.abs(w).max(axis=1)
    kept = {}
    for kind, part in (("words", slice(0, split)), ("characters", slice(split, None))):
        order = np.argsort(-importance[part], kind="stable")[: MAX_FEATURES[kind]]
        kept[kind] = np.sort(order)
    columns = np.concatenate([kept["words"], split + kept["characters"]])
    w, b = fit(full[:, columns], y, weights, PENALTY)
    final = w * np.concatenate([scale["words"], scale["characters"]])[columns][:, None]
    print("fitted", w.shape, f"{time.time() - began:.0f} s", flush=True)
    np.savez_compressed(
        a.out,
        words=keys["words"][kept["words"]],
        characters=keys["characters"][kept["characters"]],
        weights=final.astype(np.float32),
        bias=b,
        heads=np.frombuffer("\n".join(HEADS).encode(), np.uint8),
        names=np.frombuffer("\n".join(names[int(k)] for k in keys["words"][kept["words"]]).encode(), np.uint8),
        powers=np.array([LENGTH_POWER["words"], LENGTH_POWER["characters"]]),
    )
    print(json.dumps({"bytes": a.out.stat().st_size, "sha256": hashlib.sha256(a.out.read_bytes()).hexdigest()}))


if __name__ == "__main__":
    main()
