"""The whole service over real gRPC, with the real engine and the real model; only Kafka is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from inference_stage import Running, details, generate, kinds, refused, served, spec, stream, until
from prometheus_client import REGISTRY
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.types.v1 import chat_pb2, finish_reason_pb2, generation_pb2
from sluice_inference.adapters.languages import Langid
from sluice_inference.adapters.llama_cpp.backend import LlamaCpp
from sluice_inference.adapters.static_embedding import StaticEmbedding
from sluice_inference.domain.profiles import profile
from sluice_inference.domain.roster import ModelState

CANARY = "zanzibarquokka"


@pytest.fixture(scope="session")
def profiler() -> Callable[[str], Any]:
    return partial(profile, detector=Langid(), embedder=StaticEmbedding())


@pytest.fixture
async def running(engine: LlamaCpp, profiler: Callable[[str], Any], tmp_path: Path) -> AsyncIterator[Running]:
    async with served(engine, home=tmp_path, profiler=profiler) as running:
        yield running


async def until_idle(running: Running) -> None:
    """Nothing is left: no slot of llama.cpp computes, no request is counted."""
    async with asyncio.timeout(10):
        while await busy_slots(running) or running.conductor.admission.running:
            await asyncio.sleep(0.01)


async def busy_slots(running: Running) -> int:
    assert isinstance(running.hosted.backend, LlamaCpp)
    return await running.hosted.backend.busy_slots()


async def test_a_stream_has_one_start_its_tokens_and_one_end(running: Running) -> None:
    answers = [answer async for answer in stream(running, spec(request_id="mine"))]
    assert kinds(answers)[0] == "started"
    assert set(kinds(answers)[1:-1]) == {"token"}
    assert kinds(answers)[-1] == "finished"
    assert {answer.request_id for answer in answers} == {"mine"}
    assert answers[0].started.backend == "llama_cpp"
    end = answers[-1].finished
    assert end.outputs[0].finish_reason in (
        finish_reason_pb2.FINISH_REASON_STOP,
        finish_reason_pb2.FINISH_REASON_LENGTH,
    )
    assert end.usage.uncached_input_tokens > 30
    assert 0 < end.usage.output_tokens <= 16
    assert end.timings.time_to_first_token.ToNanoseconds() > 0
    assert len(answers) > 5


async def test_generate_gives_the_same_text_as_the_stream(running: Running) -> None:
    streamed = "".join([answer.token.text async for answer in stream(running, spec())])
    whole = await generate(running, spec())
    assert whole.outputs[0].text == streamed
    assert whole.model == "smollm2"
    assert whole.request_id


async def test_six_requests_at_once_share_four_slots(running: Running) -> None:
    answers = await asyncio.gather(
        *(generate(running, spec(f"Write about the number {n}.", tokens=12)) for n in range(6))
    )
    assert all(answer.outputs[0].text for answer in answers)
    measured = await running.outbox.measured(6)
    assert max(event.mean_batch_occupancy for event in measured) > 1.5
    assert max(event.queue_time.ToNanoseconds() for event in measured) > 1_000_000


async def test_requests_beyond_the_queue_are_told_when_to_retry(running: Running) -> None:
    calls = [asyncio.ensure_future(generate(running, spec(tokens=30, ignore_eos=True))) for _ in range(6)]
    await until(lambda: running.conductor.admission.queued == 2)
    load = await running.stub.GetLoad(pb.GetLoadRequest())
    assert (load.running_requests, load.queued_requests, load.slots, load.queue_limit) == (4, 2, 4, 2)
    error = await refused(generate(running, spec()))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(error)["RetryInfo"].retry_delay.ToMilliseconds() >= 1000
    await asyncio.gather(*calls)


@pytest.mark.parametrize(
    ("wanted", "code", "field", "words"),
    [
        (spec(model="gpt-9"), grpc.StatusCode.NOT_FOUND, None, "no such model"),
        (spec("word " * 2000), grpc.StatusCode.INVALID_ARGUMENT, "input", "the context holds 512"),
        (spec(tokens=0), grpc.StatusCode.INVALID_ARGUMENT, "stopping.max_tokens", "max_tokens is 0"),
        (spec(tokens=9000), grpc.StatusCode.INVALID_ARGUMENT, "stopping.max_tokens", "9000"),
        (spec(stop=("",)), grpc.StatusCode.INVALID_ARGUMENT, "stopping.stop", "empty"),
        (spec("x" * 70_000), grpc.StatusCode.INVALID_ARGUMENT, "chat.messages", "70000"),
        (
            spec(sampling=generation_pb2.SamplingParameters(temperature=9)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "sampling.temperature",
            "9",
        ),
        (
            spec(lora_name="mine"),
            grpc.StatusCode.NOT_FOUND,
            None,
            "LoRA",
        ),
        (pb.GenerationSpec(), grpc.StatusCode.INVALID_ARGUMENT, "input", "missing"),
        (
            pb.GenerationSpec(chat=pb.ChatInput(messages=[chat_pb2.ChatMessage(content="no role")])),
            grpc.StatusCode.INVALID_ARGUMENT,
            "chat.messages[0].role",
            "role",
        ),
        (
            pb.GenerationSpec(
                chat=pb.ChatInput(messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content="x")] * 10_000)
            ),
            grpc.StatusCode.INVALID_ARGUMENT,
            "chat.messages",
            "10000",
        ),
    ],
)
async def test_bad_requests_get_a_status_that_says_what_is_wrong(
    running: Running, wanted: pb.GenerationSpec, code: grpc.StatusCode, field: str | None, words: str
) -> None:
    for call in (generate(running, wanted), stream(running, wanted).read()):
        error = await refused(call)
        assert error.code() is code
        assert words in (error.details() or "")
        assert details(error)["ErrorInfo"].domain == "sluice"
        if field:
            assert details(error)["BadRequest"].field_violations[0].field == field
    await until_idle(running)


async def test_bytes_that_are_no_text_are_refused(running: Running) -> None:
    call = running.channel.unary_unary("/sluice.inference.v1.InferenceService/Generate")
    error = await refused(call(b"\x0a\x09\x1a\x07mine\xff\xfe\xfd"))
    # gRPC's own code is UNKNOWN; the kit may turn it into a better one.
    assert error.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
    assert "mine" not in (error.details() or "")


async def test_stop_strings_end_the_answer_and_never_show(running: Running) -> None:
    whole = (await generate(running, spec())).outputs[0].text
    cut = whole[8:13]  # five characters somewhere inside, over token borders
    answers = [answer async for answer in stream(running, spec(stop=(cut, "never in there")))]
    assert "".join(answer.token.text for answer in answers) == whole[: whole.index(cut)]
    end = answers[-1].finished.outputs[0]
    assert (end.finish_reason, end.stop_match.stop_text) == (finish_reason_pb2.FINISH_REASON_STOP, cut)
    await until_idle(running)


async def test_a_client_that_vanishes_stops_the_computation(running: Running) -> None:
    call = stream(running, spec(tokens=250, ignore_eos=True))
    async for answer in call:
        if answer.WhichOneof("event") == "token":
            break
    assert await busy_slots(running) == 1
    call.cancel()
    await until_idle(running)
    (event,) = await running.outbox.measured()
    assert (event.finish_reason, event.aborted) == (finish_reason_pb2.FINISH_REASON_CANCELLED, True)
    assert 0 < event.usage.output_tokens < 100


async def test_a_client_that_vanishes_while_waiting_leaves_the_queue(running: Running) -> None:
    busy = [asyncio.ensure_future(generate(running, spec(tokens=25, ignore_eos=True))) for _ in range(4)]
    await until(lambda: running.conductor.admission.running == 4)
    waiting = stream(running, spec())
    reading = asyncio.ensure_future(waiting.read())
    await until(lambda: running.conductor.admission.queued == 1)
    waiting.cancel()
    await until(lambda: running.conductor.admission.queued == 0)
    await asyncio.gather(reading, return_exceptions=True)
    await asyncio.gather(*busy)


@pytest.mark.parametrize("seconds", [0.001, 0.3])
async def test_the_callers_deadline_stops_the_computation(running: Running, seconds: float) -> None:
    error = await refused(generate(running, spec(tokens=250, ignore_eos=True), timeout=seconds))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until_idle(running)
    if seconds > 0.1:
        (event,) = await running.outbox.measured()
        assert event.finish_reason == finish_reason_pb2.FINISH_REASON_TIMEOUT


async def test_abort_stops_a_stream_with_one_terminal_event(running: Running) -> None:
    answers = []
    async for answer in stream(running, spec(request_id="stop-me", tokens=250, ignore_eos=True)):
        answers.append(answer)
        if answer.WhichOneof("event") == "token" and len(answers) == 4:
            assert (await running.stub.Abort(pb.AbortRequest(request_id="stop-me"))).aborted
    assert kinds(answers)[-1] == "finished"
    assert kinds(answers).count("finished") == 1
    assert answers[-1].finished.outputs[0].finish_reason == finish_reason_pb2.FINISH_REASON_CANCELLED
    await until_idle(running)
    assert not (await running.stub.Abort(pb.AbortRequest(request_id="stop-me"))).aborted
    assert not (await running.stub.Abort(pb.AbortRequest(request_id="never was"))).aborted


async def test_an_id_in_use_cannot_be_used_twice(running: Running) -> None:
    call = stream(running, spec(request_id="one", tokens=250, ignore_eos=True))
    await call.read()
    error = await refused(generate(running, spec(request_id="one")))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    call.cancel()
    await until_idle(running)


async def test_tenants_do_not_read_one_anothers_cached_prompts(running: Running) -> None:
    async def cached(tenant: str) -> int:
        answer = await generate(running, spec(tokens=1), metadata=(("x-sluice-tenant-id", tenant),))
        return answer.usage.cached_input_tokens

    assert await cached("acme") == 0
    assert await cached("rival") == 0
    assert await cached("acme") > 20


async def test_measurements_carry_numbers_and_profiles_and_never_text(running: Running) -> None:
    metadata = (("x-request-id", "req-1"), ("x-sluice-tenant-id", "acme"), ("x-sluice-synthetic", "true"))
    answer = await generate(
        running, spec(f"Tell me something nice about the sea and {CANARY}.", tokens=30), metadata=metadata
    )
    (event,) = await running.outbox.measured()
    assert (event.metadata.request_id, event.metadata.tenant_id, event.metadata.synthetic) == ("req-1", "acme", True)
    assert (event.model, event.backend) == ("smollm2", "llama_cpp")
    assert event.model_digest.startswith("sha256:b179c952")
    assert event.usage == answer.usage
    assert event.cpu_seconds > 0
    assert event.mean_batch_occupancy == pytest.approx(1.0)
    assert event.total_time.ToNanoseconds() >= event.time_to_first_token.ToNanoseconds() > 0
    prompt = event.prompt_profile
    assert (prompt.language, prompt.words) == ("en", 9)
    assert len(prompt.embedding) == 64
    assert np.linalg.norm(prompt.embedding) == pytest.approx(1.0, abs=1e-5)
    assert prompt.embedding_model_digest == StaticEmbedding.digest
    assert event.answer_profile.characters == len(answer.outputs[0].text)
    assert CANARY.encode() not in event.SerializeToString()


async def test_a_whole_answer_has_its_measurement_in_the_outbox_already(running: Running) -> None:
    for number in range(5):
        await generate(running, spec(tokens=3), metadata=(("x-request-id", f"req-{number}"),))
        ids = [event.metadata.request_id for event in running.outbox.events if hasattr(event, "prompt_profile")]
        assert ids[-1] == f"req-{number}"


async def test_metrics_count_what_was_generated(running: Running) -> None:
    labels = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "llama_cpp", "gen_ai_response_model": "smollm2"}

    def read(name: str, **more: str) -> float:
        return REGISTRY.get_sample_value(name, labels | more) or 0.0

    before = read("gen_ai_server_time_to_first_token_seconds_count")
    await generate(running, spec(tokens=4))
    await until(lambda: read("gen_ai_server_time_to_first_token_seconds_count") == before + 1)
    assert read("gen_ai_server_time_per_output_token_seconds_count") > 0
    assert read("gen_ai_server_request_duration_seconds_count", finish_reason="length", error_type="") > 0
    assert read("sluice_inference_queue_seconds_count") > 0
    assert read("sluice_inference_prefill_seconds_sum") > 0
    assert read("sluice_inference_batch_occupancy_count") > 0


async def test_before_the_warm_up_requests_are_told_to_come_back(running: Running) -> None:
    running.hosted.state = ModelState.LOADING
    error = await refused(generate(running, spec()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    info = await running.stub.GetModelInfo(pb.GetModelInfoRequest())
    assert not info.model.ready


async def test_the_models_tell_what_they_are(running: Running) -> None:
    models = (await running.stub.ListModels(pb.ListModelsRequest())).models
    assert [model.model_id for model in models] == ["smollm2", "sluice-static-minilm-256"]
    model = (await running.stub.GetModelInfo(pb.GetModelInfoRequest(model="tiny"))).model
    assert model.digest == "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert (model.architecture, model.digest_covers) == ("llama", "file")
    assert (model.capabilities.tools, model.capabilities.regex, model.capabilities.min_tokens) == (False, True, False)
    assert (model.quantization.quant_algo, model.max_context_tokens, model.license) == ("Q4_1", 512, "Apache-2.0")
    assert model.capabilities.chat
    assert model.capabilities.HasField("lora")
    assert model.capabilities.lora
    assert list(model.lora_names) == ["pirate"]
    assert model.default_sampling.temperature == pytest.approx(0.2)
    error = await refused(running.stub.GetModelInfo(pb.GetModelInfoRequest(model="gpt-9")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_embeddings_are_near_where_meanings_are(running: Running) -> None:
    texts = ["How do I reset my password?", "I forgot my login credentials", "Paris is the capital of France", "🦀"]
    answer = await running.stub.Embed(pb.EmbedRequest(texts=texts))
    vectors = np.array([row.values for row in answer.embeddings])
    assert vectors.shape == (4, 256)
    assert np.linalg.norm(vectors[:3], axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    assert not vectors[3].any()
    assert answer.usage.uncached_input_tokens > 15
    small = await running.stub.Embed(pb.EmbedRequest(texts=texts[:1], dimensions=64))
    cut = vectors[0][:64] / np.linalg.norm(vectors[0][:64])
    assert np.allclose(small.embeddings[0].values, cut, atol=1e-5)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (pb.EmbedRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.EmbedRequest(texts=["x"] * 257), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.EmbedRequest(texts=["x"], dimensions=300), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.EmbedRequest(texts=["x"], model="ada"), grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_bad_embed_requests_are_refused(running: Running, wanted: pb.EmbedRequest, code: grpc.StatusCode) -> None:
    assert (await refused(running.stub.Embed(wanted))).code() is code
