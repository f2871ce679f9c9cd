"""Silver labels: what Rampart and spaCy's ner say of each passage, kept apart so that `silver.py` can weigh them.

nice -n 15 python teachers.py passages.jsonl labelled.jsonl [CPU_SECONDS]
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
from sluice_redaction.adapters.rampart import RampartModel
from sluice_redaction.adapters.spacy_names import SpacyNames


def main(source: Path, target: Path, cpu_seconds: float) -> None:
    rampart, spacy_names = RampartModel(), SpacyNames()
    count = 0
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        for line in lines:
            if time.process_time() > cpu_seconds:
                break
            piece = json.loads(line)
            text = piece["text"]
            piece["rampart"] = [
                (token.start, token.end, token.label[2:], round(token.probability, 3), round(token.name, 3))
                for token in rampart.label_tokens(text)
                if token.label != "O" or token.name >= 0.02
            ]
            piece["spacy"] = [(one.start, one.end, one.entity_type) for one in spacy_names.analyze(text, [])]
            out.write(json.dumps(piece, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count} passages labelled in {time.process_time():.0f} CPU seconds")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 900)
