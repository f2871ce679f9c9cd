"""One suite for all backends, through InferenceService over real gRPC.

A backend either does what is asked or says UNIMPLEMENTED with a sentence: each test asks for its feature, and where the model's
capabilities deny it the refusal is what is tested.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from typing import Any

import grpc
import pytest
from conformance_types import Contender
from inference_stage import details, generate, kinds, refused, spec, stream, text_of
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.types.v1 import chat_pb2, finish_reason_pb2, generation_pb2
from sluice_inference.domain.backend import SAMPLING_FIELDS
from sluice_inference.domain.generation import GuideKind

STOP, LENGTH = finish_reason_pb2.FINISH_REASON_STOP, finish_reason_pb2.FINISH_REASON_LENGTH
CANCELLED, TIMEOUT = finish_reason_pb2.FINISH_REASON_CANCELLED, finish_reason_pb2.FINISH_REASON_TIMEOUT
GREEDY = generation_pb2.SamplingParameters(temperature=0.0)


def hot(seed: int, **more: Any) -> generation_pb2.SamplingParameters:
    return generation_pb2.SamplingParameters(temperature=1.2, seed=seed, **more)


async def unimplemented(contender: Contender, wanted: pb.GenerationSpec) -> None:
    """The refusal of what a backend cannot do: a status, its reason, and a sentence that names the model."""
    for call in (generate(contender.running, wanted), stream(contender.running, wanted).read()):
        error = await refused(call)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert details(error)["ErrorInfo"].reason == "UNSUPPORTED_BY_MODEL"
        assert contender.backend.model.model_id in (error.details() or "")
    assert await contender.live() == 0


async def all_of(contender: Contender, wanted: pb.GenerationSpec) -> list[pb.GenerateStreamResponse]:
    """The whole stream; proves that it has one beginning and one end."""
    answers = [answer async for answer in stream(contender.running, wanted)]
    assert kinds(answers)[0] == "started"
    assert [kind in ("finished", "error") for kind in kinds(answers)].count(True) == 1
    assert kinds(answers)[-1] in ("finished", "error")
    return answers


def ids_of(answers: list[pb.GenerateStreamResponse]) -> list[int]:
    return [token_id for answer in answers for token_id in answer.token.token_ids]


# --- unary, stream, template, sampling -----------------------------------------------------------------------------------


async def test_a_stream_starts_tells_tokens_and_finishes_once(contender: Contender) -> None:
    answers = await all_of(contender, spec(request_id="mine", ignore_eos=able(contender, "ignore_eos")))
    assert {answer.request_id for answer in answers} == {"mine"}
    assert answers[0].started.backend == contender.backend.name
    assert kinds(answers).count("token") > 3
    end = answers[-1].finished
    assert end.outputs[0].finish_reason in (STOP, LENGTH)
    assert end.timings.time_to_first_token.ToNanoseconds() > 0
    assert end.usage.uncached_input_tokens + end.usage.cached_input_tokens > 10
    assert not end.usage.estimated


async def test_the_whole_answer_is_the_stream_put_together(contender: Contender) -> None:
    streamed = text_of(await all_of(contender, spec(sampling=GREEDY)))
    whole = await generate(contender.running, spec(sampling=GREEDY))
    assert whole.outputs[0].text == streamed
    assert whole.model == contender.backend.model.model_id


async def test_a_chat_goes_through_the_template_and_a_prompt_does_not(contender: Contender) -> None:
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content="The sea is")
    stopping = generation_pb2.StoppingParameters(max_tokens=1)
    chat = await generate(
        contender.running, pb.GenerationSpec(chat=pb.ChatInput(messages=[message]), stopping=stopping)
    )
    plain = await generate(contender.running, pb.GenerationSpec(prompt="The sea is", stopping=stopping))
    assert prompt_tokens(chat) > prompt_tokens(plain) > 0


def prompt_tokens(answer: pb.GenerateResponse) -> int:
    return answer.usage.uncached_input_tokens + answer.usage.cached_input_tokens + answer.usage.cache_write_tokens


async def test_a_temperature_of_zero_is_greedy_and_absent_is_not_zero(contender: Contender) -> None:
    greedy = generation_pb2.SamplingParameters(temperature=0.0)
    texts = set()
    for seed in (1, 2, 3):
        greedy.seed = seed
        texts.add((await generate(contender.running, spec(sampling=greedy))).outputs[0].text)
    assert len(texts) == 1
    defaults = (await contender.running.stub.GetModelInfo(pb.GetModelInfoRequest())).model.default_sampling
    assert not defaults.HasField("temperature") or defaults.temperature > 0


async def test_a_seed_repeats_an_answer_and_another_seed_does_not(contender: Contender) -> None:
    texts = [
        (await generate(contender.running, spec(tokens=24, sampling=hot(seed)))).outputs[0].text for seed in (7, 7, 8)
    ]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("name", sorted(SAMPLING_FIELDS))
async def test_every_sampling_field_is_honoured_or_refused(contender: Contender, name: str) -> None:
    value = 3 if name in ("top_k", "seed") else 0.5
    wanted = spec(tokens=2, sampling=generation_pb2.SamplingParameters(**{name: value}))
    if name in contender.backend.model.capabilities.sampling:
        assert (await generate(contender.running, wanted)).usage.output_tokens
    else:
        await unimplemented(contender, wanted)


async def test_a_logit_bias_is_honoured_or_refused(contender: Contender) -> None:
    wanted = spec(tokens=2, sampling=generation_pb2.SamplingParameters(temperature=0.0, logit_bias={40: -100.0}))
    if able(contender, "logit_bias"):
        assert (await generate(contender.running, wanted)).usage.output_tokens
    else:
        await unimplemented(contender, wanted)


def able(contender: Contender, name: str) -> bool:
    return bool(getattr(contender.backend.model.capabilities, name))


# --- stopping ------------------------------------------------------------------------------------------------------------


async def test_the_token_limit_ends_an_answer_with_length_and_is_counted(contender: Contender) -> None:
    end = (await all_of(contender, spec("Count to one hundred.", tokens=5, sampling=GREEDY)))[-1].finished
    assert (end.outputs[0].finish_reason, end.usage.output_tokens) == (LENGTH, 5)
    assert not end.outputs[0].HasField("stop_match")


@pytest.mark.parametrize("offset", range(4, 12))
async def test_stop_strings_end_an_answer_wherever_the_token_borders_are(contender: Contender, offset: int) -> None:
    whole = (await generate(contender.running, spec(sampling=GREEDY))).outputs[0].text
    cut = whole[offset : offset + 5]
    answers = await all_of(contender, spec(stop=(cut, "never in there"), sampling=GREEDY))
    assert text_of(answers) == whole[: whole.index(cut)]
    end = answers[-1].finished.outputs[0]
    assert (end.finish_reason, end.stop_match.stop_text) == (STOP, cut)
    await contender.until_idle()


async def test_text_that_only_began_like_a_stop_string_is_told_in_the_end(contender: Contender) -> None:
    whole = (await generate(contender.running, spec(sampling=GREEDY))).outputs[0].text
    answer = await generate(contender.running, spec(stop=(whole[-3:] + " and something more",), sampling=GREEDY))
    assert answer.outputs[0].text == whole


async def test_a_stop_string_stays_when_it_is_asked_for(contender: Contender) -> None:
    whole = (await generate(contender.running, spec(sampling=GREEDY))).outputs[0].text
    answer = await generate(contender.running, spec(stop=(whole[6:9],), include_stop=True, sampling=GREEDY))
    assert answer.outputs[0].text == whole[: whole.index(whole[6:9]) + 3]


async def test_a_stop_token_ends_an_answer_or_is_refused(contender: Contender) -> None:
    if not able(contender, "stop_token_ids"):
        return await unimplemented(contender, spec(stop_token_ids=(5,)))
    options = pb.ResponseOptions(return_token_ids=True)
    ids = ids_of(await all_of(contender, spec(sampling=GREEDY, response=options)))
    stop = next(token_id for token_id in ids[3:] if token_id not in ids[:3])
    answers = await all_of(contender, spec(sampling=GREEDY, response=options, stop_token_ids=(stop,)))
    end = answers[-1].finished.outputs[0]
    assert (end.finish_reason, end.stop_match.stop_token_id) == (STOP, stop)
    assert ids_of(answers)[:3] == ids[:3]
    await contender.until_idle()
    return None


async def test_min_tokens_is_honoured_or_refused(contender: Contender) -> None:
    wanted = spec(tokens=9, min_tokens=9)
    if able(contender, "min_tokens"):
        assert (await generate(contender.running, wanted)).usage.output_tokens == 9
    else:
        await unimplemented(contender, wanted)


# --- several outputs, log probabilities, guides, token ids -----------------------------------------------------------------


async def test_several_outputs_differ_are_all_told_and_repeat_with_their_seed(contender: Contender) -> None:
    wanted = spec(tokens=12, sampling=hot(3, num_sequences=3))
    answers = await all_of(contender, wanted)
    texts = [text_of(answers, index) for index in range(3)]
    assert len(set(texts)) == 3
    assert [output.output_index for output in answers[-1].finished.outputs] == [0, 1, 2]
    whole = await generate(contender.running, wanted)
    assert [output.text for output in whole.outputs] == texts
    single = await generate(contender.running, spec(tokens=12, sampling=hot(4)))
    assert single.outputs[0].text == texts[1]  # the second output is the answer to the next seed
    await contender.until_idle()


@pytest.mark.parametrize("alternatives", [0, 2])
async def test_log_probabilities_of_the_chosen_and_of_alternatives(contender: Contender, alternatives: int) -> None:
    wanted = spec(tokens=6, sampling=GREEDY, response=pb.ResponseOptions(logprobs=alternatives))
    if not able(contender, "logprobs"):
        return await unimplemented(contender, wanted)
    output = (await generate(contender.running, wanted)).outputs[0]
    assert 5 <= len(output.logprobs) <= 7  # an end token may have one too
    assert all(entry.logprob <= 0 for entry in output.logprobs)
    assert output.text.startswith("".join(entry.text for entry in output.logprobs)[: len(output.text)])
    if alternatives:
        assert all(len(entry.alternatives) >= 2 for entry in output.logprobs)
        first = output.logprobs[0]
        assert first.alternatives[0].logprob == pytest.approx(first.logprob, abs=1e-3)  # greedy takes the likeliest
    return None


async def test_prompt_log_probabilities_and_echo_are_refused(contender: Contender) -> None:
    await unimplemented(contender, spec(response=pb.ResponseOptions(prompt_logprobs=0)))
    await unimplemented(contender, spec(response=pb.ResponseOptions(echo=True)))


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Lima", "Oslo"]}, "old": {"type": "boolean"}},
    "required": ["city", "old"],
    "additionalProperties": False,
}
GUIDES = {
    GuideKind.JSON_SCHEMA: generation_pb2.GuidedDecoding(json_schema=json.dumps(SCHEMA)),
    GuideKind.JSON_OBJECT: generation_pb2.GuidedDecoding(json_object=True),
    GuideKind.REGEX: generation_pb2.GuidedDecoding(regex="(yes|no), sir"),
    GuideKind.EBNF: generation_pb2.GuidedDecoding(ebnf_grammar='root ::= "yes" | "no"'),
    GuideKind.CHOICE: generation_pb2.GuidedDecoding(choice=generation_pb2.ChoiceGuide(choices=["red", "blue (dark)"])),
    GuideKind.STRUCTURAL_TAG: generation_pb2.GuidedDecoding(structural_tag="{}"),
}


def follows(kind: GuideKind, text: str) -> bool:
    match kind:
        case GuideKind.JSON_SCHEMA:
            answer = json.loads(text)
            return (
                set(answer) == {"city", "old"} and answer["city"] in ("Lima", "Oslo") and answer["old"] in (True, False)
            )
        case GuideKind.JSON_OBJECT:
            return text.lstrip().startswith("{")
        case GuideKind.REGEX:
            return re.fullmatch("(yes|no), sir", text) is not None
        case GuideKind.EBNF:
            return text in ("yes", "no")
        case GuideKind.CHOICE:
            return text in ("red", "blue (dark)")
        case _:
            return True


@pytest.mark.parametrize("kind", list(GUIDES), ids=lambda kind: kind.value)
async def test_a_guide_is_followed_or_refused(contender: Contender, kind: GuideKind) -> None:
    wanted = spec("Answer.", tokens=60, sampling=hot(5), guided=GUIDES[kind])
    if kind not in contender.backend.model.capabilities.guides:
        return await unimplemented(contender, wanted)
    answer = await generate(contender.running, wanted)
    assert follows(kind, answer.outputs[0].text)
    if kind not in (GuideKind.JSON_OBJECT, GuideKind.STRUCTURAL_TAG):
        assert answer.outputs[0].finish_reason == STOP
    return None


@pytest.mark.parametrize(
    "guided",
    [
        generation_pb2.GuidedDecoding(json_schema="{no json"),
        generation_pb2.GuidedDecoding(json_schema='{"type": 7}'),
        generation_pb2.GuidedDecoding(ebnf_grammar="root ::= ((("),
    ],
)
async def test_a_guide_that_is_none_is_refused_and_harms_nobody(
    contender: Contender, guided: generation_pb2.GuidedDecoding
) -> None:
    error = await refused(generate(contender.running, spec(guided=guided)))
    assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
    assert (await generate(contender.running, spec(tokens=2))).usage.output_tokens


async def test_token_ids_go_in_or_are_refused(contender: Contender) -> None:
    wanted = pb.GenerationSpec(
        tokens=pb.TokenInput(token_ids=[40, 41, 42]), stopping=generation_pb2.StoppingParameters(max_tokens=3)
    )
    if not able(contender, "token_input"):
        return await unimplemented(contender, wanted)
    answer = await generate(contender.running, wanted)
    assert 3 <= prompt_tokens(answer) <= 4  # a server may put its begin token in front
    assert answer.usage.output_tokens
    return None


async def test_token_ids_come_out_or_are_refused(contender: Contender) -> None:
    wanted = spec(tokens=5, response=pb.ResponseOptions(return_token_ids=True))
    if not able(contender, "return_token_ids"):
        return await unimplemented(contender, wanted)
    assert len(ids_of(await all_of(contender, wanted))) >= 4
    return None


# --- cache, LoRA, embeddings ---------------------------------------------------------------------------------------------


async def test_cached_tokens_are_told_apart_and_the_sum_stays(contender: Contender) -> None:
    wanted = spec("A prompt long enough to be worth caching: " + "the sea, the sea, " * 12, tokens=1)
    first, second = await generate(contender.running, wanted), await generate(contender.running, wanted)
    assert second.usage.cached_input_tokens > 0
    assert prompt_tokens(first) == prompt_tokens(second)


async def test_the_prefix_cache_is_left_unread_or_that_is_refused(contender: Contender) -> None:
    wanted = spec("Another prompt: " + "the hills, the hills, " * 12, tokens=1)
    wanted.cache.bypass_prefix_cache = True
    if not able(contender, "bypass_prefix_cache"):
        return await unimplemented(contender, wanted)
    for _ in range(2):
        assert (await generate(contender.running, wanted)).usage.cached_input_tokens == 0
    return None


async def test_tenants_share_no_cache_or_a_salt_is_refused(contender: Contender) -> None:
    text = "Yet another prompt: " + "the woods, the woods, " * 12
    if not able(contender, "cache_salt"):
        return await unimplemented(contender, spec(text, cache=pb.CacheOptions(cache_salt="acme")))
    for salt, is_cached in (("acme", False), ("rival", False), ("acme", True)):
        answer = await generate(contender.running, spec(text, tokens=1, cache=pb.CacheOptions(cache_salt=salt)))
        assert (answer.usage.cached_input_tokens > 20) is is_cached
    return None


async def test_a_lora_is_found_by_its_name_or_refused(contender: Contender) -> None:
    if not able(contender, "lora"):
        return await unimplemented(contender, spec(lora_name="pirate"))
    error = await refused(generate(contender.running, spec(lora_name="nobody")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    plain = await generate(contender.running, spec(sampling=GREEDY))
    tuned = await generate(contender.running, spec(sampling=GREEDY, lora_name=contender.backend.model.loras[0]))
    assert tuned.outputs[0].text != plain.outputs[0].text
    again = await generate(contender.running, spec(sampling=GREEDY))
    assert again.outputs[0].text == plain.outputs[0].text  # the adapter is gone with its request
    return None


async def test_embeddings_come_from_an_embedding_model_and_not_from_this_one(contender: Contender) -> None:
    stub = contender.running.stub
    assert len((await stub.Embed(pb.EmbedRequest(texts=["a", "b"]))).embeddings) == 2
    error = await refused(stub.Embed(pb.EmbedRequest(texts=["a"], model=contender.backend.model.model_id)))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


# --- ends that nobody wished for -------------------------------------------------------------------------------------------


async def test_a_prompt_that_is_too_long_is_refused_before_anything_starts(contender: Contender) -> None:
    for call in (
        generate(contender.running, spec("word " * 1500)),
        stream(contender.running, spec("word " * 1500)).read(),
    ):
        error = await refused(call)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details(error)["ErrorInfo"].reason == "PROMPT_TOO_LONG"
        assert "word" not in (error.details() or "")
    await contender.until_idle()


def aborts(contender: Contender) -> int:
    return contender.aborts() if contender.aborts else 0


async def test_a_client_that_goes_stops_the_engine_with_one_abort(contender: Contender) -> None:
    before = aborts(contender)
    call = stream(contender.running, spec("Count to a thousand.", tokens=400, sampling=GREEDY))
    async for answer in call:
        if answer.WhichOneof("event") == "token":
            break
    assert await contender.live() == 1
    call.cancel()
    await contender.until_idle()
    (event,) = await contender.running.outbox.measured()
    assert (event.finish_reason, event.aborted) == (CANCELLED, True)
    assert 0 < event.usage.output_tokens < 300
    if contender.aborts:
        assert aborts(contender) == before + 1


@pytest.mark.parametrize("seconds", [0.001, 0.5])
async def test_a_deadline_stops_the_engine(contender: Contender, seconds: float) -> None:
    call = generate(contender.running, spec("Count to a thousand.", tokens=400, sampling=GREEDY), timeout=seconds)
    assert (await refused(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await contender.until_idle()


async def test_abort_ends_a_stream_with_cancelled_and_the_engine_with_one_abort(contender: Contender) -> None:
    before, answers = aborts(contender), []
    wanted = spec("Count to a thousand.", request_id="stop-me", tokens=400, sampling=GREEDY)
    async for answer in stream(contender.running, wanted):
        answers.append(answer)
        if len(answers) == 4:
            assert (await contender.running.stub.Abort(pb.AbortRequest(request_id="stop-me"))).aborted
    assert answers[-1].finished.outputs[0].finish_reason == CANCELLED
    assert kinds(answers).count("finished") == 1
    await contender.until_idle()
    if contender.aborts:
        assert aborts(contender) == before + 1


async def test_a_finished_answer_is_not_aborted(contender: Contender) -> None:
    before = aborts(contender)
    await generate(contender.running, spec(tokens=3))
    await contender.until_idle()
    assert aborts(contender) == before


async def test_random_ends_leave_nothing_running(contender: Contender) -> None:
    dice = random.Random(11)

    async def one(number: int) -> None:
        wanted = spec(f"Count to {number}.", tokens=dice.choice([1, 8, 200]), sampling=hot(number))
        call = stream(contender.running, wanted, timeout=dice.choice([0.05, 0.4, 30]))
        patience = dice.choice([0, 1, 3, 1000])
        try:
            async for _ in call:
                patience -= 1
                if patience < 0:
                    call.cancel()
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass

    for _ in range(3):
        await asyncio.gather(*(one(number) for number in range(5)))
    await contender.until_idle()
    assert contender.running.conductor.admission.queued == 0
    assert (await generate(contender.running, spec(tokens=2))).usage.output_tokens
