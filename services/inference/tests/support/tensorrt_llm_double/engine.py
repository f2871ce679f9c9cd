"""What the double computes: its language, its requests, its faults."""

from __future__ import annotations

import asyncio
import codecs
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tensorrt_llm_double import guides

WORDS = "sea salt wave née tide 🦀 blue deep wind sand ship star moon calm 水 cold warm light rain cloud".split()  # noqa: SIM905
TOKENS_PER_BLOCK = 32


@dataclass
class Faults:
    """Set them on `llm.faults` before a request; each is off by default."""

    hang_at: int | None = None
    """Give no token after this many, for ever; an abort is answered still."""
    deaf: bool = False
    """Do not answer an abort."""
    late_final_seconds: float = 0.0
    """Answer an abort so much later."""
    fail_at: int | None = None
    """Raise `failure` out of the iteration after this many tokens."""
    failure: Exception | None = None
    fail_at_call: Exception | None = None
    """Raise this from generate_async."""
    stream_interval: int = 1
    """Tokens per step."""
    empty_texts: bool = False
    """Every other step brings ids without text."""
    float_logprobs: bool = False
    """Log probabilities of the chosen tokens as plain numbers."""
    unknown_finish: bool = False
    """End with a reason that nobody knows."""
    stop_string_at: int | None = None
    """Report a stop string found in the text after this many tokens, and go on computing."""
    token_seconds: float = 0.002
    """At 1 ms four hundred tokens came within half a second on a quiet machine, before the deadline that a test had set."""


@dataclass
class Live:
    """One request inside the engine."""

    prompt: list[int]
    params: Any
    lora: Any
    tokens: list[int]
    ends_by_itself: bool
    cached: int
    queue: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None
    aborts: int = 0
    is_live: bool = True


@dataclass(frozen=True)
class Step:
    """What one response brings: the count of tokens so far, and the end if it is one."""

    count: int
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class Engine:
    """All requests of one LLM. It keeps on computing whether anybody reads or not."""

    def __init__(self, folder: Path, *, faults: Faults) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.eos = self.tokenizer.token_to_id("<|im_end|>")
        self.faults = faults
        self.requests: list[Live] = []
        self._prefixes: dict[str, set[tuple[int, ...]]] = {}

    @property
    def live(self) -> int:
        return sum(request.is_live for request in self.requests)

    @property
    def aborts(self) -> int:
        return sum(request.aborts for request in self.requests)

    def begin(self, prompt: list[int], params: Any, *, lora: Any, salt: str | None) -> Live:
        tokens, ends = self._answer(prompt, params, lora)
        request = Live(prompt, params, lora, tokens, ends, self._reuse(prompt, salt or ""))
        self.requests.append(request)
        request.task = asyncio.get_running_loop().create_task(self._compute(request))
        return request

    def abort(self, request: Live) -> None:
        request.aborts += 1
        if request.task and request.is_live and not self.faults.deaf:
            request.task.cancel()

    def _reuse(self, prompt: list[int], salt: str) -> int:
        """Tokens of whole blocks read from earlier prompts of the same salt; the last token is always computed."""
        known = self._prefixes.setdefault(salt, set())
        blocks = [tuple(prompt[: end * TOKENS_PER_BLOCK]) for end in range(1, len(prompt) // TOKENS_PER_BLOCK + 1)]
        cached = sum(block in known for block in blocks) * TOKENS_PER_BLOCK
        known.update(blocks)
        return min(cached, max(0, len(prompt) - 1))

    def _answer(self, prompt: list[int], params: Any, lora: Any) -> tuple[list[int], bool]:
        """All tokens it will give, and whether the model ends by itself before the limit."""
        seed = 0 if params.temperature == 0 or params._greedy_decoding else params.seed or 0
        dice = random.Random(f"{seed} {prompt}")
        if params.guided_decoding is not None:
            text, ends = guides.follow(params.guided_decoding, dice), True
        else:
            text, ends = self._words(prompt, params, dice)
        ids = self._ids(text.upper() if lora else text)
        if params.ignore_eos or len(ids) >= params.max_tokens:
            ends = False
            ids += self._ids(text) * math.ceil(max(0, params.max_tokens - len(ids)) / max(1, len(text)))
        return ids[: params.max_tokens], ends

    def _words(self, prompt: list[int], params: Any, dice: random.Random) -> tuple[str, bool]:
        asked = self.tokenizer.decode(prompt, skip_special_tokens=False)
        is_endless = "Count" in asked or params.ignore_eos or (params.min_tokens or 0) > 1
        count = params.max_tokens if is_endless else dice.randint(8, 30)
        return " ".join(dice.choice(WORDS) for _ in range(count)), not is_endless

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    async def _compute(self, request: Live) -> None:
        try:
            if self.faults.hang_at == 0:
                await asyncio.Event().wait()
            for step in self._steps(request):
                await asyncio.sleep(self.faults.token_seconds)
                if self.faults.fail_at is not None and step.count >= self.faults.fail_at:
                    request.queue.put_nowait(self.faults.failure)
                    return
                request.queue.put_nowait(step)
                if self.faults.hang_at is not None and step.count >= self.faults.hang_at:
                    await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.faults.late_final_seconds:
                await asyncio.sleep(self.faults.late_final_seconds)
            request.queue.put_nowait(Step(0, "cancelled"))
        finally:
            request.is_live = False

    def _steps(self, request: Live) -> Iterator[Step]:
        stops = frozenset(request.params.stop_token_ids or ())
        total, faults = len(request.tokens), self.faults
        for count in range(1, total + 1):
            token = request.tokens[count - 1]
            if token in stops and count > (request.params.min_tokens or 0):
                yield Step(count, "stop", token)
                return
            if faults.stop_string_at == count:
                yield Step(count, "stop", "found in text")
            elif count % faults.stream_interval == 0 and count < total:
                yield Step(count)
        if faults.unknown_finish:
            yield Step(total, "because")
        elif request.ends_by_itself:
            yield Step(total, "stop")
        else:
            yield Step(total, "length")

    def text_of(self, ids: list[int], *, final: bool) -> str:
        """Incomplete characters are held back until the end, as a streaming decoder does."""
        content = bytes(BYTE_OF[self.tokenizer.id_to_token(i)] for i in ids if i not in (self.eos,))
        return codecs.getincrementaldecoder("utf-8")("replace").decode(content, final)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, by which byte-level vocabularies are written."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(byte): byte for byte in plain}
    for offset, byte in enumerate(byte for byte in range(256) if byte not in plain):
        alphabet[chr(256 + offset)] = byte
    return alphabet


BYTE_OF = _byte_alphabet()
