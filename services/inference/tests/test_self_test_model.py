"""The self-test model answers marked synthetic requests, and nobody else."""

from pathlib import Path

import grpc
import pytest
from inference_stage import details, generate, refused, served, spec
from sluice_inference.adapters.self_test import SelfTestModel
from sluice_inference.domain import self_test
from sluice_inference.domain.backend import EngineEnded, NewTokens
from sluice_inference.domain.generation import Chat, ChatTurn, FinishReason, Generation, Stopping
from sluice_inference.domain.refusals import UnknownModel
from sluice_inference.domain.warm_up import bring_up
from sluice_kit import context


def generation(*, most: int | None = None, heard: str = "Ask Jane.") -> Generation:
    turns = (ChatTurn("system", f"{self_test.COMMAND}: report, invent"), ChatTurn("user", heard))
    return Generation("r-1", "sluice-self-test", Chat(turns), stopping=Stopping(max_tokens=most))


def model() -> SelfTestModel:
    return SelfTestModel("sluice-self-test", context_tokens=4096, max_output_tokens=2048)


async def steps(asked: Generation) -> list:
    with context.use(context.RequestContext(synthetic=True)):
        return [step async for step in model().start(asked, slot=0, may_reuse_cache=False)]


async def test_a_synthetic_request_is_answered_in_pieces_that_make_the_whole():
    said = await steps(generation())
    text = "".join(step.text for step in said if isinstance(step, NewTokens))
    assert text == self_test.answer(f"{self_test.COMMAND}: report, invent", "Ask Jane.")
    assert isinstance(said[-1], EngineEnded)
    assert said[-1].reason is FinishReason.STOP


async def test_an_answer_ends_where_its_tokens_end():
    said = await steps(generation(most=2))
    assert (said[-1].reason, said[-1].generated) == (FinishReason.LENGTH, 2)


def test_nobody_else_is_answered():
    with pytest.raises(UnknownModel, match="self-tests"):
        model().start(generation(), slot=0, may_reuse_cache=False)


async def test_a_request_without_the_command_is_answered_to_nobody_else_either(tmp_path: Path) -> None:
    backend = model()
    await bring_up(backend, clock=lambda: 0.0)
    async with served(backend, home=tmp_path) as running:
        error = await refused(generate(running, spec("Say hello.", tokens=2)))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        told = details(error)
        assert (told["ErrorInfo"].reason, "RetryInfo" in told) == ("SELF_TESTS_ONLY", False)
        feigned = await refused(generate(running, spec("Say hello.", tokens=2, request_id="warm-up")))
        assert feigned.code() is grpc.StatusCode.NOT_FOUND
        marked = await generate(running, spec("Say hello.", tokens=2), metadata=(("x-sluice-synthetic", "true"),))
        assert marked.outputs[0].text == "."


async def test_it_warms_up_without_being_asked_anything():
    assert await bring_up(model(), clock=lambda: 0.0) == 0.0


def test_every_mark_can_be_made():
    assert len(set(self_test._WORDS)) == 64
    assert all(len(self_test.mark(str(number)).split()) == 3 for number in range(2000))
