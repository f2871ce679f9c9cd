"""The self-test model as a backend: no weights, deterministic, and only for marked synthetic requests."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sluice_kit import context

from sluice_inference.domain import warm_up
from sluice_inference.domain.backend import Capabilities, EngineEnded, EngineStep, ModelFacts, NewTokens, PromptProgress
from sluice_inference.domain.generation import Chat, FinishReason, Generation, StopMatch
from sluice_inference.domain.refusals import UnknownModel
from sluice_inference.domain.self_test import COMMAND, answer

NOBODY_ELSE = "SELF_TESTS_ONLY"
"""Reason of its refusal, by which the gateway knows that to try again is of no use."""
PIECE_CHARACTERS = 7
"""Pieces that cut words and values, as tokens do."""


class SelfTestModel:
    """Fits domain.backend.Backend."""

    name = "self_test"
    runs_outputs_together = True

    def __init__(self, model_id: str, *, context_tokens: int, max_output_tokens: int) -> None:
        self.model = ModelFacts(
            model_id=model_id,
            backend=self.name,
            version="1",
            max_context_tokens=context_tokens,
            max_output_tokens=max_output_tokens,
            capabilities=Capabilities(chat=True),
        )

    def kv_tokens(self) -> tuple[int, int] | None:
        return None

    async def load(self) -> None:
        """Nothing to load."""

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> SelfTestRun:
        """Raises UnknownModel to everybody but self-tests and the warm-up: what it says is meant for nobody else."""
        if generation.request_id != warm_up.REQUEST_ID and not context.current().synthetic:
            raise UnknownModel("This model answers self-tests of the mesh only; ask another one.", reason=NOBODY_ELSE)
        instruction, heard = _asked(generation)
        said = answer(instruction, heard) if instruction else "."  # the warm-up asks nothing of it
        return SelfTestRun(said, heard=heard, most_tokens=generation.stopping.max_tokens)

    async def close(self) -> None:
        """Nothing to free."""


class SelfTestRun:
    """Fits domain.backend.EngineRun."""

    def __init__(self, said: str, *, heard: str, most_tokens: int | None) -> None:
        pieces = [said[at : at + PIECE_CHARACTERS] for at in range(0, len(said), PIECE_CHARACTERS)]
        self._pieces = pieces if most_tokens is None else pieces[:most_tokens]
        self._reason = FinishReason.STOP if len(self._pieces) == len(pieces) else FinishReason.LENGTH
        self._prompt_tokens = max(1, len(heard) // PIECE_CHARACTERS)
        self._is_stopped = False

    async def __aiter__(self) -> AsyncIterator[EngineStep]:
        yield PromptProgress(self._prompt_tokens, 0, estimated=True)
        for number, piece in enumerate(self._pieces, start=1):
            if self._is_stopped:
                return
            yield NewTokens(piece, number)
        yield EngineEnded(self._reason, StopMatch(), self._prompt_tokens, 0, len(self._pieces), estimated=True)

    def stop(self) -> None:
        self._is_stopped = True

    async def closed(self) -> None:
        """It computes nothing by itself."""


def _asked(generation: Generation) -> tuple[str, str]:
    """The instruction, the system's turn that begins with the command, and what else was said."""
    turns = generation.input.turns if isinstance(generation.input, Chat) else ()
    commands = [turn.content for turn in turns if turn.role == "system" and turn.content.startswith(COMMAND)]
    heard = "\n".join(turn.content for turn in turns if turn.role != "system")
    return (commands[0] if commands else "", heard)
