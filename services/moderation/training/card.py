"""Writes the measured part of MODEL_CARD.md: calibration from training (heads.json), then everything evaluate.py prints."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import evaluate
from train import METRICS

CARD = Path(__file__).parents[1] / "MODEL_CARD.md"
BEGIN, END = "<!-- measured: written by `make models` -->", "<!-- /measured -->"


def calibration() -> str:
    facts = json.loads(METRICS.read_text(encoding="utf-8"))
    sources = ", ".join(f"{name} {n:,}" for name, n in facts["sources"].items())
    lines = [
        f"`{facts['file']}`: {facts['bytes']:,} bytes, sha256 `{facts['sha256']}`, {facts['texts']:,} texts ({sources}).",
        "",
        "### Calibration, on groups of texts that were not trained on (a sentence's whole grammar pattern is held out)",
        "",
        "| head | texts | true | AUC | average precision | ECE | reliability: mean score → share true (texts) |",
        "|---|---|---|---|---|---|---|",
    ]
    for head, m in facts["heads"].items():
        bins = ", ".join(f"{score:.2f}→{true:.2f} ({n})" for score, true, n in m["reliability"])
        lines.append(
            f"| {head} | {m['texts']} | {m['positive']} | {m['auc']:.3f} | {m['average_precision']:.3f} | {m['ece']:.3f} | {bins} |"
        )
    return "\n".join(lines)


def main() -> None:
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        evaluate.main()
    measured = f"{BEGIN}\n\n{calibration()}\n{told.getvalue()}\n{END}"
    card = CARD.read_text(encoding="utf-8")
    CARD.write_text(
        re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: measured, card, flags=re.DOTALL), encoding="utf-8"
    )
    print(told.getvalue())


if __name__ == "__main__":
    main()
