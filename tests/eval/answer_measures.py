"""How often the measures of answers are wrong, on small sets of our own: python tests/eval/answer_measures.py."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice_gateway.adapters.languages import detector
from sluice_gateway.domain.answer import REPETITIVE_PERMILLE, judge, repetition_permille
from sluice_gateway.domain.chat import ChatMessage, ChatRequest, Role
from sluice_gateway.domain.completion import Completion, Operation, Protocol
from sluice_gateway.domain.groundedness import grounded_sentences
from sluice_gateway.domain.refusal import is_refusal

FOLDER = Path(__file__).parent / "answers"
HALVES = ("development", "held_out")
_LANGUAGES = detector()


@dataclass(frozen=True)
class Errors:
    """Counted against the label; unjudged ones are apart: they make a rate's denominator smaller, not wrong."""

    found: int
    missed: int
    false: int
    right: int
    unjudged: int

    @property
    def recall(self) -> float:
        return self.found / (self.found + self.missed)

    @property
    def false_rate(self) -> float:
        return self.false / (self.false + self.right)


def rows(name: str, half: str) -> Iterator[dict[str, Any]]:
    for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["half"] == half:
            yield row


def _request(*messages: tuple[Role, str]) -> ChatRequest:
    return ChatRequest(model="m", messages=tuple(ChatMessage(role, text) for role, text in messages))


def _mismatch(row: dict[str, Any]) -> bool | None:
    completion = Completion(Operation.CHAT, Protocol.HTTP, 0.0, "k", "t", "p")
    judge(_request((Role.USER, row["prompt"])), [row["answer"]], completion, _LANGUAGES)
    return completion.language_mismatch


def _unsupported(row: dict[str, Any]) -> bool | None:
    request = _request((Role.SYSTEM, f"Answer briefly.\nContext:\n{row['context']}"), (Role.USER, row["question"]))
    judged, supported = grounded_sentences(request, row["sentence"])
    return None if judged == 0 else supported == 0


def _repetitive(row: dict[str, Any]) -> bool | None:
    found = repetition_permille(row["answer"])
    return None if found is None else found >= REPETITIVE_PERMILLE


JUDGES: dict[str, tuple[Callable[[dict[str, Any]], bool | None], Callable[[dict[str, Any]], bool]]] = {
    "refusals": (lambda row: is_refusal(row["answer"]), lambda row: row["refusal"]),
    "languages": (_mismatch, lambda row: row["mismatch"]),
    "repetition": (_repetitive, lambda row: row["repetitive"]),
    "groundedness": (_unsupported, lambda row: not row["supported"]),
}


def errors(name: str, half: str) -> Errors:
    """A measure against one half of its set."""
    said, label = JUDGES[name]
    judged = [(said(row), label(row)) for row in rows(name, half)]
    return Errors(
        found=judged.count((True, True)),
        missed=judged.count((False, True)),
        false=judged.count((True, False)),
        right=judged.count((False, False)),
        unjudged=sum(given is None for given, _ in judged),
    )


def microseconds(answer: str, context: str, *, times: int = 400) -> float:
    """Processor time to judge one answer, median of 5 rounds."""
    request = _request((Role.SYSTEM, context), (Role.USER, "How long can I return shoes, and what does it cost me?"))
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            judge(request, [answer], Completion(Operation.CHAT, Protocol.HTTP, 0.0, "k", "t", "p"), _LANGUAGES)
        rounds.append((time.process_time() - began) / times * 1e6)
    return statistics.median(rounds)


def _wrong(name: str, half: str) -> Iterator[str]:
    said, label = JUDGES[name]
    for row in rows(name, half):
        if (given := said(row)) is not None and given != label(row):
            yield f"    said {given}: {row.get('sentence') or row['answer']}"


def main() -> None:
    for name in JUDGES:
        for half in HALVES:
            found = errors(name, half)
            print(f"{name:13} {half:12} recall {found.recall:.2f}, false {found.false_rate:.2f}  {found}")
            print("\n".join(_wrong(name, half)))
    answer = " ".join(row["sentence"] for row in rows("groundedness", "held_out"))
    context = next(rows("groundedness", "held_out"))["context"]
    print(f"no context, {len(answer[:400])} characters: {microseconds(answer[:400], 'Be brief.'):.0f} us")
    print(f"no context, {len(answer)} characters: {microseconds(answer, 'Be brief.'):.0f} us")
    long_context = "Context:\n" + context * 20
    print(f"context of {len(long_context)}, same answer: {microseconds(answer, long_context):.0f} us")


if __name__ == "__main__":
    main()
