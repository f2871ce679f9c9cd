"""Evidently and river on streams that drift_detection.py wrote; runs in their own environment (requirements/bench-drift.in).

    python drift_rivals.py STREAMS.npz RESULT.json

Evidently decides as its Report does for references of at most 1,000 rows (checked here against a Report): K-S for numbers,
chi-square for categories, 0.05 a column; embeddings by its default, a classifier's ROC AUC above 0.55. river's detectors get
every text in turn, as they are made for, with their defaults; they are told of the reference first. KSWIN makes a
K-S test for each text (1.5 ms on a busy core), so it hears the short streams only, not whole days.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import chi_stat_test, ks_stat_test
from evidently.legacy.metrics.data_drift.embedding_drift_methods import model
from evidently.presets import DataDriftPreset
from river import drift

warnings.filterwarnings("ignore")
NUMBERS, NAMES = ["prompt_words", "answer_words"], ["prompt_language", "answer_language"]

DAY_LONG = 100
"""Windows of a stream past which KSWIN and the embeddings' classifier are left out."""
RIVER = {
    "river ADWIN, any scalar": drift.ADWIN,
    "river Page-Hinkley, any scalar": drift.PageHinkley,
    "river KSWIN, any scalar": lambda: drift.KSWIN(seed=1),
}


class Texts:
    """Columns of drawn texts."""

    def __init__(self, data: np.lib.npyio.NpzFile) -> None:
        self.words, self.languages = data["words"], data["languages"].astype(str)
        self.matrix = data["matrix"]

    def frame(self, drawn: np.ndarray) -> pd.DataFrame:
        columns = {f"{side}_words": self.words[drawn[:, k]] for k, side in enumerate(("prompt", "answer"))}
        columns |= {f"{side}_language": self.languages[drawn[:, k]] for k, side in enumerate(("prompt", "answer"))}
        return pd.DataFrame(columns)

    def embeddings(self, drawn: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(np.hstack([self.matrix[drawn[:, 0]], self.matrix[drawn[:, 1]]])).rename(columns=str)


def columns_drifted(window: pd.DataFrame, base: pd.DataFrame) -> list[bool]:
    numbers = [bool(ks_stat_test(base[c], window[c], "num", 0.05).drifted) for c in NUMBERS]
    return numbers + [bool(chi_stat_test(base[c], window[c], "cat", 0.05).drifted) for c in NAMES]


def check_against_report(window: pd.DataFrame, base: pd.DataFrame) -> None:
    """The shortcut says what a Report says."""
    definition = DataDefinition(numerical_columns=NUMBERS, categorical_columns=NAMES)
    current, reference = (Dataset.from_pandas(each, data_definition=definition) for each in (window, base))
    metrics = Report([DataDriftPreset()]).run(current, reference).dict()["metrics"]
    count = next(each["value"]["count"] for each in metrics if "DriftedColumnsCount" in each["metric_name"])
    if int(count) != sum(columns_drifted(window, base)):
        raise SystemExit(
            f"Evidently's Report counts {count} drifted columns, its tests {columns_drifted(window, base)}"
        )


def evidently_alarms(texts: Texts, reference: np.ndarray, windows: np.ndarray, *, embeddings: bool) -> dict[str, list]:
    base, found = texts.frame(reference), {"Evidently, any column": [], "Evidently, half of the columns (default)": []}
    by_model, found_model = model(), []
    for drawn in windows:
        columns = columns_drifted(texts.frame(drawn), base)
        found["Evidently, any column"].append(any(columns))
        found["Evidently, half of the columns (default)"].append(sum(columns) >= 2)
        if embeddings:
            found_model.append(bool(by_model(texts.embeddings(drawn), texts.embeddings(reference))[1]))
    return found | ({"Evidently, embeddings (default)": found_model} if embeddings else {})


def river_alarms(texts: Texts, reference: np.ndarray, windows: np.ndarray) -> dict[str, list]:
    centres = [texts.matrix[reference[:, k]].mean(axis=0) for k in (0, 1)]
    result = {}
    for name, make in RIVER.items():
        if "KSWIN" in name and len(windows) > DAY_LONG:
            continue
        detectors = [make() for _ in range(6)]
        alarms = []
        for drawn in [reference, *windows]:
            rows = np.column_stack(_scalars(texts, drawn, centres))
            found = [_fed(each, rows[:, k]) for k, each in enumerate(detectors)]  # every detector hears every text
            alarms.append(any(found))
        result[name] = alarms[1:]
    return result


def _scalars(texts: Texts, drawn: np.ndarray, centres: list[np.ndarray]) -> list[np.ndarray]:
    """Log length, likeness to the reference's mean, and being in English, of both sides."""
    columns = []
    for k in (0, 1):
        chosen = drawn[:, k]
        columns.append(np.log1p(texts.words[chosen]))
        columns += [texts.matrix[chosen] @ centres[k], (texts.languages[chosen] == "en").astype(float)]
    return columns


def _fed(detector: object, values: np.ndarray) -> bool:
    found = False
    for value in values:
        detector.update(float(value))
        found |= bool(detector.drift_detected)
    return found


def main() -> None:
    data = np.load(sys.argv[1])
    texts, result = Texts(data), {}
    for name in sorted({key.rsplit(".", 1)[0] for key in data.files if key.endswith(".windows")}):
        reference, windows = data[f"{name}.reference"], data[f"{name}.windows"]
        if name.endswith(".0"):
            check_against_report(texts.frame(windows[-1]), texts.frame(reference))
        long = len(windows) > DAY_LONG
        alarms = evidently_alarms(texts, reference, windows, embeddings=not long)
        result[name] = alarms | river_alarms(texts, reference, windows)
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        json.dump(result, out)


if __name__ == "__main__":
    main()
