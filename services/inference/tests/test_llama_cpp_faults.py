"""Faults of llama.cpp that can be provoked for real: in this process where that outlives them, else in a server that is killed or frozen."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import grpc
from inference_stage import generate, kinds, refused, served, spec, stream, text_of, until
from llama_upstream import KEY, LlamaUpstream, running_upstream
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.types.v1 import finish_reason_pb2, generation_pb2
from sluice_inference.adapters.llama_cpp.backend import LlamaCpp
from sluice_inference.adapters.openai_http.backend import OpenAiHttp, model_facts
from sluice_inference.adapters.openai_http.options import OpenAiHttpOptions

LONG = "the sea and the hills, " * 70  # over one prompt batch of the engine, and nearly the whole context
ENDLESS = {"tokens": 400, "sampling": generation_pb2.SamplingParameters(temperature=0.0), "ignore_eos": True}


async def until_idle(engine: LlamaCpp) -> None:
    async with asyncio.timeout(20):
        while await engine.busy_slots():
            await asyncio.sleep(0.01)


async def test_a_client_that_goes_while_the_prompt_is_computed_frees_the_slot(engine: LlamaCpp, tmp_path: Path) -> None:
    async with served(engine, home=tmp_path) as running:
        call = stream(running, spec(LONG, tokens=400, cache=pb.CacheOptions(bypass_prefix_cache=True)))
        assert (await call.read()).WhichOneof("event") == "started"
        call.cancel()
        await until_idle(engine)
        await until(lambda: running.conductor.admission.running == 0)
        (event,) = await running.outbox.measured()
        assert (event.finish_reason, event.usage.output_tokens) == (finish_reason_pb2.FINISH_REASON_CANCELLED, 0)
        assert event.usage.uncached_input_tokens > 256
        assert (await generate(running, spec(tokens=2))).usage.output_tokens


async def test_many_clients_that_go_while_prompts_are_computed_leave_every_slot_usable(
    engine: LlamaCpp, tmp_path: Path
) -> None:
    async with served(engine, home=tmp_path, queue=20) as running:

        async def leave(number: int) -> None:
            call = stream(running, spec(f"{number} {LONG}", tokens=400))
            await call.read()
            call.cancel()

        await asyncio.gather(*(leave(number) for number in range(8)))
        await until_idle(engine)
        answers = await asyncio.gather(*(generate(running, spec(tokens=3)) for _ in range(4)))
        assert all(answer.usage.output_tokens for answer in answers)


async def test_an_answer_that_fills_the_context_ends_with_length(engine: LlamaCpp, tmp_path: Path) -> None:
    async with served(engine, home=tmp_path) as running:
        answers = [answer async for answer in stream(running, spec(LONG, **ENDLESS))]
    end = answers[-1].finished
    assert end.outputs[0].finish_reason == finish_reason_pb2.FINISH_REASON_LENGTH
    read = end.usage.uncached_input_tokens + end.usage.cached_input_tokens
    assert 0 < end.usage.output_tokens < 400
    assert 500 <= read + end.usage.output_tokens <= 513


def remote(upstream: LlamaUpstream, folder: Path) -> OpenAiHttp:
    key = folder / "key"
    key.write_text(KEY)
    options = OpenAiHttpOptions(
        base_url=upstream.address + "/v1",
        upstream_model="any",
        dialect="llama_cpp",
        key_file=key,
        seconds={"between_tokens": 0.7, "first_token": 20},
        retries={"attempts": 2, "first_wait_seconds": 0.05},
    )
    facts = model_facts(options, model_id="remote", max_context_tokens=512, max_output_tokens=500)
    return OpenAiHttp(options, model=facts)


async def test_an_engine_that_is_killed_in_mid_answer_ends_it_with_one_error(tmp_path: Path) -> None:
    with running_upstream() as upstream:
        backend = remote(upstream, tmp_path)
        await backend.load()
        async with served(backend, home=tmp_path) as running:
            answers = []
            async for answer in stream(running, spec(**ENDLESS)):
                answers.append(answer)
                if kinds(answers).count("token") == 3:
                    os.kill(upstream.pid, signal.SIGKILL)
            assert kinds(answers).count("error") == 1
            assert kinds(answers)[-1] == "error"
            assert answers[-1].error.retryable
            assert text_of(answers)
            assert answers[-1].error.usage.output_tokens >= 3
            error = await refused(generate(running, spec()))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        await backend.close()


async def test_an_engine_that_is_frozen_is_given_up_and_stops_when_it_thaws(tmp_path: Path) -> None:
    with running_upstream() as upstream:
        backend = remote(upstream, tmp_path)
        await backend.load()
        async with served(backend, home=tmp_path) as running:
            answers = []
            async for answer in stream(running, spec(**ENDLESS)):
                answers.append(answer)
                if kinds(answers).count("token") == 3:
                    os.kill(upstream.pid, signal.SIGSTOP)
            os.kill(upstream.pid, signal.SIGCONT)
            assert kinds(answers)[-1] == "error"
            assert answers[-1].error.code == grpc.StatusCode.UNAVAILABLE.value[0]
            async with asyncio.timeout(20):
                while await asyncio.to_thread(upstream.busy_slots):
                    await asyncio.sleep(0.02)
            assert (await generate(running, spec(tokens=2))).usage.output_tokens
        await backend.close()
