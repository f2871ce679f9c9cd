"""Trains the linear heads: `python training/train.py --packages FOLDER`. Seeded; one thread; packages pinned.

Three fits: on all features, to choose the heaviest; on those without the texts held out; and on all texts. Groups of texts (all
sentences of one grammar pattern, all variants of one attack) of which the hash begins with 0, 1 or 2 are held out at first and serve
to calibrate (Platt) and to measure; the final fit takes all texts and that calibration.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpus import HEADS, SEED, TEACHER, Packages, build, disguised
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.metrics import average_precision_score, roc_auc_score
from sluice_moderation.adapters.cascade import ASK_FROM, ASK_TO, logit
from sluice_moderation.adapters.toxicity import BiLstmToxicity
from sluice_moderation.domain.detector import IDENTITY_ATTACK, TOXICITY_CATEGORIES
from sluice_moderation.domain.features import Features, Occurrences, features_of, word_keys
from sluice_moderation.domain.identity import MARK, marked, neutralise
from sluice_moderation.domain.normalisation import plain_view, views
from threadpoolctl import threadpool_limits
from train_injection import proper_names

WEIGHTS = Path(__file__).parents[1] / "src/sluice_moderation/adapters/weights"
# The network's threats are "I want to die" as well as "I will kill you", and its identity attacks are names of groups: not asked.
BLENDED = ("toxicity", "severe_toxicity", "obscenity", "insult")
PRIOR = Path(__file__).parent / "prior-1.npz"
PRIOR_SCALE, PRIOR_FROM = 0.5, 0.02
METRICS = Path(__file__).parent / "heads.json"
KINDS = ("words", "characters")
MIN_TEXTS = {"words": 5, "characters": 8}
MAX_FEATURES = {"words": 60_000, "characters": 50_000}
LENGTH_POWER = {"words": 0.35, "characters": 0.5}
FAVOUR = {"words": 1.5, "characters": 0.8}  # what is explained word by word should carry more of the weight
# Texts that name a group and attack nobody count this often: a false alarm there punishes people for the words that name them.
NEUTRAL_WEIGHT = 3.0
# The twins of groups.txt, benign and hostile, count this often: there are more benign ones.
TWINS, TWIN_WEIGHTS = "grammar:groups", (3.0, 3.0)
PENALTY = 1e-6
DISGUISED_SHARE = 0.1
ITERATIONS = {"choice": 8, "first": 80, "final": 35}
KNOWN_FROM_TEXTS = 3
CHARGED_WORDS = 1500
FEWEST_TRUE = 20
_CHUNK = 2000
_WORD = re.compile(r"[^\W_]+")


def log(*told: object) -> None:
    print(f"[{time.process_time():.0f} s]", *told, flush=True)


def seen(text: str) -> str:
    """What the model reads of a text: the folded view, identity terms marked."""
    return marked(views(text)[-1])


def is_calibration(group: str) -> bool:
    return hashlib.sha256(group.encode()).hexdigest()[0] in "012"


def vocabulary(texts: list[str], names: set[str]) -> dict[int, str]:
    """key -> name, for words, pairs, skips and triples of letters only, in at least five texts, with no proper names."""
    found: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = _WORD.findall(text.lower())
        triples = list(zip(words, words[1:], words[2:], strict=False))
        grams = {(w,) for w in words} | set(itertools.pairwise(words)) | set(triples)
        found.update(grams | {(a, "…", c) for a, _, c in triples})
    kept = {}
    for gram, n in found.items():
        words = tuple(w for w in gram if w != "…")
        if n < MIN_TEXTS["words"] or not all(w.isalpha() and len(w) <= 20 and w not in names for w in words):
            continue
        for quoted in (False, True):
            key = word_keys(words, skipping="…" in gram, quoted=quoted)
            kept[key] = ("q:" if quoted else "") + " ".join(gram)
    return kept


def known_words(texts: list[str]) -> list[str]:
    """Words of ordinary language, which no repair may touch."""
    found: Counter[str] = Counter()
    for text in texts:
        found.update(set(_WORD.findall(text.lower())))
    return sorted(w for w, n in found.items() if n >= KNOWN_FROM_TEXTS and w.isalpha() and w.isascii() and len(w) <= 20)


@dataclass(frozen=True)
class Matrix:
    """Features by text: `x[kind]`, over sorted `keys[kind]`."""

    x: dict[str, csr_matrix]
    keys: dict[str, np.ndarray]


@dataclass(frozen=True)
class Prior:
    """prior-1.npz: weights (features, 2) of a model trained on people's labels of rude comments (train_prior.py)."""

    keys: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    names: dict[int, str]

    @classmethod
    def load(cls, path: Path) -> Prior:
        with np.load(path, allow_pickle=False) as file:
            keys = {kind: file[kind] for kind in KINDS}
            weights = {
                "words": file["word_weights"].astype(np.float32),
                "characters": file["character_weights"].astype(np.float32),
            }
            names = bytes(file["names"]).decode().split("\n")
        return cls(keys, weights, dict(zip(keys["words"].tolist(), names, strict=True)))

    def placed(self, features: Matrix) -> np.ndarray:
        """The weights at the features' places, (words + characters, 2)."""
        found = []
        for kind in KINDS:
            w = np.zeros((len(features.keys[kind]), 2), np.float32)
            w[np.searchsorted(features.keys[kind], self.keys[kind])] = self.weights[kind]
            found.append(w)
        return np.concatenate(found)


def matrix(texts: list[str], named: set[int], also: dict[str, np.ndarray] | None = None) -> Matrix:
    """`also`: keys that are kept however rare they are."""
    parts = [features_of(texts[i : i + _CHUNK]) for i in range(0, len(texts), _CHUNK)]
    keys = {kind: _frequent(parts, kind, named if kind == "words" else None) for kind in KINDS}
    keys = {kind: np.union1d(keys[kind], also[kind]) for kind in KINDS} if also else keys
    x = {}
    for kind in KINDS:
        sizes = [min(_CHUNK, len(texts) - _CHUNK * i) for i in range(len(parts))]
        x[kind] = vstack(
            [_counts(getattr(p, kind), keys[kind], n, LENGTH_POWER[kind]) for p, n in zip(parts, sizes, strict=True)]
        ).tocsr()
        log(kind, x[kind].shape, x[kind].nnz)
    return Matrix(x, keys)


def _frequent(parts: list[Features], kind: str, allowed: set[int] | None) -> np.ndarray:
    """Keys found in enough texts."""
    keys, counts = [], []
    for part in parts:
        pairs = [_once(k, r) for r, k in getattr(part, kind).groups]
        unique, n = np.unique(np.concatenate(pairs), return_counts=True)
        keys.append(unique)
        counts.append(n)
    merged, at = np.unique(np.concatenate(keys), return_inverse=True)
    texts = np.bincount(at, np.concatenate(counts))
    keep = texts >= MIN_TEXTS[kind]
    if allowed is not None:
        keep &= np.isin(merged, np.fromiter(allowed, np.uint64, len(allowed)))
    return merged[keep]


def _once(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Each key once for each row it is in."""
    order = np.lexsort((keys, rows))
    keys, rows = keys[order], rows[order]
    return keys[np.concatenate([[True], (keys[1:] != keys[:-1]) | (rows[1:] != rows[:-1])])]


def _counts(found: Occurrences, keys: np.ndarray, texts: int, power: float) -> csr_matrix:
    """Occurrences of known features, each worth (occurrences of all kinds in the text) ** -power."""
    rows = np.concatenate([r for r, _ in found.groups])
    wanted = np.concatenate([k for _, k in found.groups])
    total = np.bincount(rows, minlength=texts)
    at = np.searchsorted(keys, wanted)
    at[at == len(keys)] = 0
    known = keys[at] == wanted
    values = (np.maximum(total, 1) ** -power)[rows[known]].astype(np.float32)
    return csr_matrix((values, (rows[known], at[known])), shape=(texts, len(keys)))


def scaled(x: csr_matrix, kind: str) -> np.ndarray:
    """What a feature counts in training: frequent ones less, words more than characters."""
    texts = np.bincount(x.indices, minlength=x.shape[1])
    return (FAVOUR[kind] / np.sqrt(1 + np.log1p(texts))).astype(np.float32)


Fitted = tuple[np.ndarray, np.ndarray]


def fit(x: csr_matrix, y: np.ndarray, iterations: int, *, weights: np.ndarray, start: Fitted | None = None) -> Fitted:
    """All heads at once: logistic loss with soft labels, NaN left out, L2. Returns (features, heads) and biases.

    `weights` of the texts; `start` gives weights and biases to begin with.
    """
    d, h = x.shape[1], y.shape[1]
    known = ~np.isnan(y)
    target = np.where(known, y, 0).astype(np.float32)
    mass = known * weights[:, None]
    mass = (mass / mass.sum(axis=0)).astype(np.float32)
    xt = x.T.tocsr()

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = flat[: d * h].reshape(d, h).astype(np.float32), flat[d * h :].astype(np.float32)
        z = x @ w + b
        value = (mass * (np.logaddexp(0, z) - target * z)).sum(dtype=np.float64)
        g = mass * (1 / (1 + np.exp(-z)) - target)
        gw = xt @ g + 2 * PENALTY * w
        value += PENALTY * np.square(w, dtype=np.float64).sum()
        return float(value), np.concatenate([gw.ravel(), g.sum(axis=0)]).astype(np.float64)

    begin = np.zeros(d * h + h) if start is None else np.concatenate([start[0].ravel(), start[1]]).astype(np.float64)
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 5})
    return found.x[: d * h].reshape(d, h).astype(np.float32), found.x[d * h :].astype(np.float32)


def platt(z: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(a, b) of sigmoid(a z + b), a > 0, by logistic loss; so the order of scores stays."""

    def loss(p: np.ndarray) -> tuple[float, np.ndarray]:
        a = np.exp(p[0])
        t = a * z + p[1]
        g = (1 / (1 + np.exp(-t)) - y) / len(y)
        return float((np.logaddexp(0, t) - y * t).mean()), np.array([(g * z).sum() * a, g.sum()])

    p = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x
    return float(np.exp(p[0])), float(p[1])


def reliability(p: np.ndarray, y: np.ndarray) -> tuple[float, list[tuple[float, float, int]]]:
    """Expected calibration error over ten bins, and (mean score, share true, texts) of each bin that has texts."""
    bins = np.minimum((p * 10).astype(int), 9)
    table = [
        (float(p[bins == b].mean()), float(y[bins == b].mean()), int((bins == b).sum()))
        for b in range(10)
        if (bins == b).any()
    ]
    return sum(abs(s - t) * n for s, t, n in table) / len(p), table


def measured(z: np.ndarray, y: np.ndarray) -> dict[str, object]:
    p, true = 1 / (1 + np.exp(-z)), y >= 0.5
    ece, table = reliability(p, y)
    return {
        "texts": len(y), "positive": int(true.sum()), "auc": round(float(roc_auc_score(true, z)), 4),
        "average_precision": round(float(average_precision_score(true, z)), 4), "ece": round(ece, 4),
        "reliability": [(round(s, 3), round(t, 3), n) for s, t, n in table],
    }  # fmt: skip


def calibration(w: np.ndarray, b: np.ndarray, x: csr_matrix, y: np.ndarray) -> tuple[np.ndarray, dict[str, object]]:
    """Platt's slope and offset of each head, (2, heads), on texts it has not seen; measured by halves: one calibrates, the other measures.

    A head with fewer than FEWEST_TRUE true texts among them keeps its scores.
    """
    z, metrics, found = x @ w + b, {}, np.array([np.ones(len(HEADS)), np.zeros(len(HEADS))], np.float32)
    half = np.random.default_rng(SEED).random(len(y)) < 0.5
    for i, head in enumerate(HEADS):
        known = ~np.isnan(y[:, i])
        if (y[known, i] >= 0.5).sum() < FEWEST_TRUE:
            continue
        slope, offset = platt(z[known & half, i], y[known & half, i])
        metrics[head] = measured(slope * z[known & ~half, i] + offset, y[known & ~half, i])
        found[:, i] = platt(z[known, i], y[known, i])
        log(head, "slope, offset", found[:, i].round(2), {k: v for k, v in metrics[head].items() if k != "reliability"})
    return found, metrics


def blending(linear: np.ndarray, network: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(3, six): what both logits count and an offset, by logistic loss where either is in doubt; neither counts less than nothing."""
    told = logit(network)
    asked = (linear[:, 0] >= logit(np.array(ASK_FROM))) & (linear[:, 0] <= logit(np.array(ASK_TO)))
    found = np.tile(np.array([[1.0], [0.0], [0.0]]), y.shape[1])
    for i in (TOXICITY_CATEGORIES.index(c) for c in BLENDED):
        rows = asked & ~np.isnan(y[:, i])
        features, true = np.stack([linear[rows, i], told[rows, i]], axis=1), y[rows, i]

        def loss(p: np.ndarray, features: np.ndarray = features, true: np.ndarray = true) -> float:
            t = features @ p[:2] + p[2]
            return float((np.logaddexp(0, t) - true * t).mean() + 1e-3 * np.square(p - [0.7, 0.3, 0]).sum())

        found[:, i] = minimize(
            loss, np.array([0.7, 0.3, 0.0]), method="L-BFGS-B", bounds=[(0.2, 2), (0.1, 2), (-5, 5)]
        ).x
    return found.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "heads-1.npz")
    parser.add_argument("--metrics", type=Path, default=METRICS)
    parser.add_argument("--without", action="append", default=[], help="a grammar to leave out (may be repeated)")
    a = parser.parse_args()
    threadpool_limits(1)
    corpus = build(Packages(a.packages), BiLstmToxicity.load(WEIGHTS / "toxicity-1.npz"), without=frozenset(a.without))
    log(len(corpus.texts), "texts", Counter(corpus.sources))
    plain = [plain_view(t) for t in corpus.texts]
    read = [seen(t) for t in corpus.texts]
    own = [i for i, source in enumerate(corpus.sources) if source != TEACHER]
    names = vocabulary([read[i] for i in own], proper_names([plain[i] for i in own]))
    log(len(names), "named features")
    chosen = np.flatnonzero(np.random.default_rng(SEED).random(len(corpus.texts)) < DISGUISED_SHARE)
    texts = read + [seen(t) for t in disguised(corpus.texts, chosen, SEED)]
    y = np.concatenate([corpus.labels, corpus.labels[chosen]])
    twin = np.array([corpus.sources[i] == TWINS for i in [*range(len(read)), *chosen]])
    # Twins are never held out: a frame of which the other half was learnt is harder than any text, and would flatten the calibration.
    held = np.array([is_calibration(corpus.groups[i]) for i in [*range(len(read)), *chosen]]) & ~twin
    prior = Prior.load(PRIOR)
    names = prior.names | names
    features = matrix(texts, set(names), prior.keys)
    scale = {k: scaled(features.x[k], k) for k in KINDS}
    full = hstack([features.x[k].multiply(scale[k]) for k in KINDS]).tocsr().astype(np.float32)
    named_neutral = np.array([MARK in t for t in texts]) & (
        y[:, HEADS.index(IDENTITY_ATTACK)] < 0.1
    )  # False where not known
    weights = np.where(named_neutral, NEUTRAL_WEIGHT, 1.0).astype(np.float32)
    weights[twin] = np.where(y[twin, HEADS.index(IDENTITY_ATTACK)] < 0.5, *TWIN_WEIGHTS)
    w, _ = fit(full[~held], y[~held], ITERATIONS["choice"], weights=weights[~held])
    log("chosen from", w.shape)
    split, weight = len(features.keys["words"]), np.abs(w).max(axis=1)
    kept = {
        k: np.sort(np.argsort(-weight[part], kind="stable")[: MAX_FEATURES[k]])
        for k, part in (("words", slice(0, split)), ("characters", slice(split, None)))
    }
    told = prior.placed(features)
    kept = {
        k: np.union1d(kept[k], np.flatnonzero(np.abs(told[part]).max(axis=1) > PRIOR_FROM))
        for k, part in (("words", slice(0, split)), ("characters", slice(split, None)))
    }
    columns = np.concatenate([kept["words"], split + kept["characters"]])
    told = told[columns]
    raw = hstack([features.x[k] for k in KINDS]).tocsr()[:, columns]
    opinion = csr_matrix(raw @ told * PRIOR_SCALE)
    x = hstack([full[:, columns], opinion]).tocsr().astype(np.float32)
    first = fit(x[~held], y[~held], ITERATIONS["first"], weights=weights[~held])
    scaling, metrics = calibration(*first, x[held], y[held])
    network = BiLstmToxicity.load(WEIGHTS / "toxicity-1.npz")
    unseen = np.flatnonzero(held[: len(plain)] & np.array([s != TEACHER for s in corpus.sources]))
    z = (x[unseen] @ first[0] + first[1]) * scaling[0] + scaling[1]
    blend = blending(z[:, :6], network.raw_scores([neutralise(plain[i]).text for i in unseen]), y[unseen, :6])
    w, b = fit(x, y, ITERATIONS["final"], weights=weights, start=first)
    log("fitted", w.shape)
    w, b = w * scaling[0], b * scaling[0] + scaling[1]
    # What the prior's opinion counts for a head goes into the weights of its features: the model stays linear.
    w, trust = w[:-2], w[-2:]
    w = w * np.concatenate([scale[k][kept[k]] for k in KINDS])[:, None] + told @ trust * PRIOR_SCALE
    log("trust in the prior", {h: trust[:, i].round(2).tolist() for i, h in enumerate(HEADS)})
    log("blend", blend.round(2).tolist())
    words = [names[int(k)] for k in features.keys["words"][kept["words"]]]
    save(a.out, {k: features.keys[k][kept[k]] for k in KINDS}, w, b, blend, words, known_words([plain[i] for i in own]))
    digest = hashlib.sha256(a.out.read_bytes()).hexdigest()
    facts = {
        "file": a.out.name,
        "bytes": a.out.stat().st_size,
        "sha256": digest,
        "texts": len(corpus.texts),
        "sources": dict(Counter(corpus.sources)),
        "heads": metrics,
    }
    a.metrics.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    log(a.out.name, a.out.stat().st_size, digest)


def save(
    path: Path,
    keys: dict[str, np.ndarray],
    w: np.ndarray,
    b: np.ndarray,
    blend: np.ndarray,
    names: list[str],
    known: list[str],
) -> None:
    """Weights as 8-bit integers with one scale for each head."""
    scale = (np.abs(w).max(axis=0) / 127).astype(np.float32)
    single = {n: w[i].max() for i, n in enumerate(names) if n.isalpha() and len(n) >= 4}
    charged = sorted(sorted(single, key=lambda n: (-single[n], n))[:CHARGED_WORDS])
    np.savez_compressed(
        path, words=keys["words"], characters=keys["characters"], weights=np.round(w / scale).astype(np.int8), scale=scale, bias=b, blend=blend,
        powers=np.array([LENGTH_POWER[k] for k in KINDS]), heads=text_of(HEADS), names=text_of(names), known=text_of(known), charged=text_of(charged),
    )  # fmt: skip


def text_of(lines: object) -> np.ndarray:
    return np.frombuffer("\n".join(lines).encode(), np.uint8)  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
