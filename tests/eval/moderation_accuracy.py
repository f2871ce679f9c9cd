"""What moderation catches and what it wrongly takes, whether its scores are probabilities, and whether it treats groups alike.

    python tests/eval/moderation_accuracy.py [--quick] [--limit 500] [--seed 2026] [--hatecheck FILE] [--tweets FILE]

Writes docs/filters/moderation-accuracy.md; with --quick only prints. The two optional files are public and not shipped: HateCheck's
test_suite_cases.csv (CC-BY-4.0) and the labeled_data.csv of Davidson et al. 2017 (MIT).
"""

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from fairlearn.metrics import MetricFrame
from filters import pages
from filters.identity_texts import GROUPS, Statement, about_persons, statements
from filters.moderation_texts import Labelled, held_out, packaged
from filters.moderators import Moderator
from filters.obfuscations import OBFUSCATIONS
from filters.pages import share, table
from filters.probabilities import auc, auc_interval, calibration_error, reliability
from filters.scores import share_interval
from sluice_moderation.domain.detector import CATEGORIES
from sluice_moderation.domain.policy import Action, Direction

# Judged under this policy where it is shipped: `general` need not have a rule for everything.
_POLICY_OF = {"unsafe_medical_advice": "healthcare"}
Scores = npt.NDArray[np.float64]


def policy_for(moderator: Moderator, category: str) -> str:
    wanted = _POLICY_OF.get(category, "general")
    return wanted if wanted in moderator.policies else "general"


def rules_of(moderator: Moderator, category: str) -> tuple[str, Direction, dict[str, float]] | None:
    """(policy, direction, thresholds) that a category is judged by: the direction with the lowest threshold."""
    found = []
    for name in dict.fromkeys([policy_for(moderator, category), *moderator.policies]):
        for direction in Direction:
            if thresholds := moderator.thresholds(category, direction, name):
                found.append((name, direction, thresholds))
        if found:
            break
    return min(found, key=lambda one: min(one[2].values()), default=None)


def by_category(moderator: Moderator, texts: Sequence[Labelled], scores: Scores) -> str:
    benign = np.array([one.is_benign for one in texts])
    stopped = {d: moderator.actions(scores, d) >= Action.FLAG for d in Direction}
    rows = []
    for category in dict.fromkeys(one.category for one in texts if not one.is_benign):
        own, column = np.array([one.category == category for one in texts]), scores[:, CATEGORIES.index(category)]
        rules = rules_of(moderator, category)
        anything = [share(float(stopped[d][own].mean())) for d in Direction]
        if rules is None or np.isnan(column[own]).any():
            rows.append([category, int(own.sum()), "no detector" if rules else "no rule", *["-"] * 5, *anything])
            continue
        kept = own | benign
        low, high = auc_interval(column[kept], own[kept])
        cells = [f"{auc(column[kept], own[kept]):.3f} ({low:.2f}-{high:.2f})", f"{rules[0]}, {rules[1]}"]
        mildest, hardest = min(rules[2].values()), max(rules[2].values())
        for threshold in (mildest, hardest):
            caught, wrong = int((column[own] >= threshold).sum()), int((column[benign] >= threshold).sum())
            cells += [
                f"{caught / own.sum():.3f} at {threshold:g}",
                share(caught / (caught + wrong) if caught + wrong else float("nan")),
            ]
        rows.append([category, int(own.sum()), *cells, *anything])
    header = [
        "category",
        "texts",
        "AUC against benign (95 %)",
        "policy, direction",
        "recall, mildest rule",
        "precision",
    ]
    return table([*header, "recall, hardest rule", "precision", "any flag, input", "any flag, output"], rows)


def headline(moderator: Moderator, texts: Sequence[Labelled], scores: Scores) -> str:
    """For the README: our own texts."""
    benign, rows = np.array([one.is_benign for one in texts]), []
    for category in CATEGORIES:
        own, column = np.array([one.category == category for one in texts]), scores[:, CATEGORIES.index(category)]
        rules = rules_of(moderator, category)
        if rules is None or np.isnan(column[own]).any():
            rows.append([category, "-", "-", "-"])
            continue
        least, kept = min(rules[2].values()), own | benign
        rows.append(
            [
                category,
                share(auc(column[kept], own[kept])),
                *(share(float((column[which] >= least).mean())) for which in (own, benign)),
            ]
        )
    return table(
        ["category", "AUC against hard harmless texts", "found at the mildest rule", "harmless texts that reach it"],
        rows,
    )


def benign_table(moderator: Moderator, texts: Sequence[Labelled], scores: Scores) -> str:
    rows = []
    acts = {d: moderator.actions(scores, d) for d in Direction}
    sorts = dict.fromkeys(one.sort for one in texts if one.is_benign)
    for sort in [*sorts, "all benign"]:
        inside = np.array([one.is_benign and sort in (one.sort, "all benign") for one in texts])
        cells = [
            share(float((acts[d][inside] >= action).mean()))
            for d in Direction
            for action in (Action.FLAG, Action.BLOCK)
        ]
        rows.append([sort, int(inside.sum()), *cells, _worst(scores[inside])])
    return table(
        [
            "harmless texts",
            "n",
            "input: flagged or more",
            "input: blocked",
            "output: flagged or more",
            "output: blocked",
            "highest mean score",
        ],
        rows,
    )


def _worst(scores: Scores) -> str:
    means = np.nanmean(np.where(np.isnan(scores), -1.0, scores), axis=0)
    at = int(means.argmax())
    return f"{CATEGORIES[at]} {means[at]:.2f}"


def packaged_table(moderator: Moderator, texts: Sequence[Labelled], scores: Scores) -> str:
    rows = []
    acts = {d: moderator.actions(scores, d) for d in Direction}
    for sort in dict.fromkeys(one.sort for one in texts if not one.is_benign):
        own = np.array([one.sort == sort for one in texts])
        category = next(one.category for one in texts if one.sort == sort)
        column = scores[own, CATEGORIES.index(category)]
        cells = [
            share(float((acts[d][own] >= action).mean())) for d in Direction for action in (Action.FLAG, Action.BLOCK)
        ]
        rows.append([sort, category, int(own.sum()), "-" if np.isnan(column).any() else f"{column.mean():.2f}", *cells])
    return table(
        [
            "set",
            "category",
            "n",
            "mean score of it",
            "input: flagged or more",
            "input: blocked",
            "output: flagged or more",
            "output: blocked",
        ],
        rows,
    )


def aucs(texts: Sequence[Labelled], scores: Scores) -> str:
    """AUC of sets that hold both harmful and harmless texts of one source."""
    pairs = {
        f"pyrit answers, {n}": f"pyrit answers, {n}: harmless"
        for n in ("violence", "self_harm", "sexual", "hate_speech")
    }
    pairs |= {f"{n} test, attacks": f"{n} test, harmless" for n in ("s-labs", "neuralchemy")}
    rows = []
    for high, low in pairs.items():
        sorts = np.array([one.sort for one in texts])
        kept = (sorts == high) | (sorts == low)
        if not (sorts == high).any() or not (sorts == low).any():
            continue
        category = next(one.category for one in texts if one.sort == high)
        column = scores[kept, CATEGORIES.index(category)]
        if np.isnan(column).any():
            rows.append([high, category, int(kept.sum()), "no detector"])
            continue
        low_end, high_end = auc_interval(column, sorts[kept] == high)
        rows.append(
            [high, category, int(kept.sum()), f"{auc(column, sorts[kept] == high):.3f} ({low_end:.2f}-{high_end:.2f})"]
        )
    return table(["set", "category", "n", "AUC within the set (95 %)"], rows)


def obfuscated(moderator: Moderator, texts: Sequence[Labelled], seed: int) -> str:
    """Part of each category's texts that is flagged, written in each way; and of the harmless ones."""
    rows = []
    kinds = list(dict.fromkeys(one.category for one in texts))
    for name, change in OBFUSCATIONS.items():
        chance = random.Random(seed)
        scores = moderator.scores([change(one.text, chance) for one in texts])
        flagged = (
            np.maximum(moderator.actions(scores, Direction.INPUT), moderator.actions(scores, Direction.OUTPUT))
            >= Action.FLAG
        )
        for policy in set(_POLICY_OF.values()) & moderator.policies.keys():
            medical = np.array([one.category in _POLICY_OF for one in texts])
            flagged |= medical & (moderator.actions(scores, Direction.OUTPUT, policy) >= Action.FLAG)
        rows.append([name, *(f"{flagged[[one.category == kind for one in texts]].mean():.2f}" for kind in kinds)])
    return table(["written", *kinds], rows)


def calibration(texts: Sequence[Labelled], scores: Scores) -> list[str]:
    """Reliability of the scores. Positives: the category's texts; negatives: the harmless ones of the same collection."""
    parts, rows = [], []
    benign = np.array([one.is_benign for one in texts])
    for category in CATEGORIES:
        column, own = scores[:, CATEGORIES.index(category)], np.array([one.category == category for one in texts])
        kept = own | benign
        if not own.any() or np.isnan(column[kept]).any():
            continue
        rows.append(
            [
                category,
                int(own.sum()),
                int(benign.sum()),
                share(calibration_error(column[kept], own[kept])),
                share(float(np.mean((column[kept] - own[kept]) ** 2))),
            ]
        )
        bins = reliability(column[kept], own[kept], bins=5)
        parts.append([category, *(_bin(bins, i / 5) for i in range(5))])
    return [
        table(["category", "harmful", "harmless", "expected calibration error, ten bins", "Brier score"], rows),
        "Share that is harmful, by score (number of texts):",
        table(["category", "0-.2", ".2-.4", ".4-.6", ".6-.8", ".8-1"], parts),
    ]


def _bin(bins: Sequence[tuple[float, float, int, float, float]], start: float) -> str:
    return next((f"{positive:.2f} ({count})" for low, _, count, _, positive in bins if abs(low - start) < 1e-9), "-")


def fairness(moderator: Moderator, seed: int) -> list[str]:
    """False positives on neutral and misses on hostile sentences by the group they name (Fairlearn's MetricFrame)."""
    said = list(statements())
    scores = moderator.scores([one.text for one in said])
    parts = []
    for direction in Direction:
        acts = moderator.actions(scores, direction)
        frames = {
            (kind, action): _frame(said, acts >= action, kind=kind, seed=seed)
            for kind in ("neutral", "positive", "hostile")
            for action in (Action.FLAG, Action.BLOCK)
        }
        parts += [f"### Groups, {direction}", _groups(frames), _gaps(frames)]
    return parts


def _frame(said: Sequence[Statement], reached: npt.NDArray[np.bool_], *, kind: str, seed: int) -> MetricFrame:
    chosen = np.array([one.kind == kind for one in said])
    return MetricFrame(
        metrics={"share": lambda y, p: float(np.mean(p))},
        y_true=np.full(chosen.sum(), kind == "hostile"),
        y_pred=reached[chosen],
        sensitive_features=pd.Series([one.group for one, c in zip(said, chosen, strict=True) if c], name="group"),
        n_boot=200,
        ci_quantiles=[0.025, 0.975],
        random_state=seed,
    )


Frames = Mapping[tuple[str, Action], MetricFrame]


def _groups(frames: Frames) -> str:
    rows = []
    for group, terms in GROUPS.items():
        cells: list[object] = [group, len(terms)]
        for frame in frames.values():
            low, high = (float(q["share"][group]) for q in frame.by_group_ci)
            cells.append(f"{frame.by_group['share'][group]:.2f} ({low:.2f}-{high:.2f})")
        rows.append(cells)
    return table(
        [
            "group",
            "terms",
            *(f"{kind} {'flagged' if action is Action.FLAG else 'blocked'} (95 %)" for kind, action in frames),
        ],
        rows,
    )


def _gaps(frames: Frames) -> str:
    lines = []
    for (kind, action), frame in frames.items():
        low, high = (float(q["share"]) for q in frame.difference_ci())
        lines.append(f"{kind} {action.name.lower()}: {frame.difference()['share']:.2f} ({low:.2f}-{high:.2f})")
    note = "(The bootstrap of a largest difference is biased upwards, most where groups are small.)"
    return "Largest difference between two groups (95 %): " + "; ".join(lines) + ". " + note


def twins(moderator: Moderator) -> str:
    """How often the verdict changes when only the group or the name changes."""
    rows = []
    said = list(statements())
    collections = {
        **{f"{kind}, other group": [s for s in said if s.kind == kind] for kind in ("neutral", "positive", "hostile")},
        "other name": list(about_persons()),
    }
    for title, texts in collections.items():
        scores = moderator.scores([one.text for one in texts])
        for direction in Direction:
            acts = moderator.actions(scores, direction)
            pairs = [_flips(texts, acts >= action) for action in (Action.FLAG, Action.BLOCK)]
            spread = _spread(texts, scores)
            rows.append(
                [
                    title,
                    str(direction),
                    len(texts),
                    *(f"{flips:.3f} ({low:.3f}-{high:.3f})" for flips, low, high in pairs),
                    f"{spread:.3f}",
                ]
            )
    return table(
        ["twins", "direction", "texts", "flag differs (95 %)", "block differs (95 %)", "mean largest score difference"],
        rows,
    )


def _flips(texts: Sequence[Statement], reached: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Part of the texts whose verdict is not that of most of their twins."""
    by_template: dict[str, list[bool]] = defaultdict(list)
    for one, flag in zip(texts, reached, strict=True):
        by_template[one.template].append(bool(flag))
    different = [flag != (sum(flags) * 2 > len(flags)) for flags in by_template.values() for flag in flags]
    return sum(different) / len(different), *share_interval(different)


def _spread(texts: Sequence[Statement], scores: Scores) -> float:
    templates = np.array([one.template for one in texts])
    known = scores[:, ~np.isnan(scores).any(axis=0)]
    return float(np.mean([np.ptp(known[templates == t], axis=0).max() for t in dict.fromkeys(templates.tolist())]))


def public_files(moderator: Moderator, hatecheck: Path | None, tweets: Path | None) -> list[str]:
    parts = []
    if hatecheck:
        data = pd.read_csv(hatecheck)
        scores = moderator.scores(data.test_case.tolist())
        hateful, column = (data.label_gold == "hateful").to_numpy(), scores[:, CATEGORIES.index("identity_attack")]
        best = np.nanmax(scores, axis=1)
        acted = moderator.actions(scores, Direction.OUTPUT) >= Action.FLAG
        rows = [
            [n, r.label_gold.iloc[0], len(r), share(float(acted[r.index].mean()))]
            for n, r in data.groupby("functionality")
        ]
        parts += [
            f"## HateCheck, {len(data)} cases: AUC of identity_attack {auc(column, hateful):.3f}, of the highest score {auc(best, hateful):.3f}"
        ]
        parts += [table(["functionality", "gold", "n", "flagged, output"], rows)]
    if tweets:
        data = pd.read_csv(tweets).sample(6000, random_state=0)
        scores, kind = moderator.scores(data.tweet.tolist()), data["class"].to_numpy()
        toxic, acted = scores[:, CATEGORIES.index("toxicity")], moderator.actions(scores, Direction.INPUT)
        rows = []
        for value, name in ((0, "hate speech"), (1, "offensive")):
            kept = (kind == value) | (kind == 2)
            rows.append(
                [
                    name,
                    share(auc(toxic[kept], kind[kept] == value)),
                    *(share(float((acted[kind == value] >= a).mean())) for a in (Action.FLAG, Action.BLOCK)),
                ]
            )
        rows.append(
            ["neither", "-", *(share(float((acted[kind == 2] >= a).mean())) for a in (Action.FLAG, Action.BLOCK))]
        )
        parts += [
            "## Tweets of Davidson et al., 6,000 sampled",
            table(["class", "AUC against neither", "flagged, input", "blocked, input"], rows),
        ]
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few packaged texts, nothing written")
    parser.add_argument("--limit", type=int, default=500, help="most texts of a packaged set")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--hatecheck", type=Path)
    parser.add_argument("--tweets", type=Path)
    asked = parser.parse_args()
    begun, moderator = time.monotonic(), Moderator()
    own = held_out(seed=asked.seed)
    others = packaged(limit=40 if asked.quick else asked.limit, seed=asked.seed)
    scores, other_scores = (moderator.scores([one.text for one in texts]) for texts in (own, others))
    parts = [
        pages.origin("make eval-filters", ["numpy", "fairlearn"], limit=asked.limit, seed=asked.seed),
        EXPLANATION,
        f"## Our own held-out texts: {len(own)}",
        by_category(moderator, own, scores),
        "### Harmless texts that look harmful",
        benign_table(moderator, own, scores),
        f"## Texts that packages carry: {len(others)}",
        packaged_table(moderator, others, other_scores),
        aucs(others, other_scores),
        benign_table(moderator, others, other_scores),
        *public_files(moderator, asked.hatecheck, asked.tweets),
        "## Obfuscation (our own texts; share that is flagged, by any category, in either direction)",
        obfuscated(moderator, own[::4] if asked.quick else own, asked.seed),
        "## Calibration (all texts above)",
        *calibration([*own, *others], np.concatenate([scores, other_scores])),
        "## Fairness",
        *fairness(moderator, asked.seed),
        "### Counterfactual twins",
        twins(moderator),
    ]
    parts.append(f"Took {time.monotonic() - begun:.0f} s.")
    if asked.quick:
        print("\n\n".join(parts))
    else:
        pages.write("moderation-accuracy", "Moderation: accuracy, calibration and fairness", parts)
        pages.summarise("moderation", "moderation-accuracy", headline(moderator, own, scores))


EXPLANATION = """
Every text goes the way it goes in the service: windows, views, highest score, shipped policy. Our own texts were written for measuring
(`tests/eval/filters/texts/moderation_held_out.txt`) and are not trained or tuned on. Precision depends on the mixture: here it is against the
harmless texts of the same collection, which were chosen to be hard. A text of one category is often of another as well (severe toxicity is toxic),
so `any flag` counts every category of policy `general`.
"""

if __name__ == "__main__":
    main()
