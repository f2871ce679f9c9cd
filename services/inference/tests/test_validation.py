"""Every inadmissible request gets a sentence with the number it broke; every admissible one its defaults."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_inference.domain.backend import SAMPLING_FIELDS, Capabilities, ModelFacts
from sluice_inference.domain.generation import (
    Chat,
    ChatTurn,
    Generation,
    Guide,
    GuideKind,
    RawPrompt,
    Sampling,
    Stopping,
    TokenPrompt,
)
from sluice_inference.domain.refusals import InferenceRefusal, InvalidRequest, UnknownModel, UnsupportedRequest
from sluice_inference.domain.validation import Limits, admissible, check_embedding

MODEL = ModelFacts(
    model_id="small",
    backend="fake",
    aliases=("tiny",),
    max_context_tokens=100,
    max_output_tokens=50,
    vocabulary_size=1000,
    capabilities=Capabilities(
        chat=True,
        logprobs=True,
        completion=True,
        guides=frozenset({GuideKind.JSON_OBJECT, GuideKind.JSON_SCHEMA, GuideKind.CHOICE}),
        token_input=True,
        logit_bias=True,
        stop_token_ids=True,
        sampling=SAMPLING_FIELDS - {"min_p"},
        tools=False,
    ),
    default_sampling=Sampling(temperature=0.2, top_p=0.9, top_k=40, repetition_penalty=1.1),
)
LIMITS = Limits(messages=4, input_characters=200)
GOOD = Generation("id", "", Chat((ChatTurn("user", "hi"),)))


def checked(generation: Generation) -> Generation:
    return admissible(generation, model=MODEL, limits=LIMITS)


def test_absent_fields_get_the_models_defaults_and_zero_stays_zero() -> None:
    absent = checked(GOOD)
    zero = checked(replace(GOOD, sampling=Sampling(temperature=0.0, top_k=0, seed=0)))
    assert (absent.sampling.temperature, absent.sampling.top_k, absent.sampling.seed) == (0.2, 40, None)
    assert (zero.sampling.temperature, zero.sampling.top_k, zero.sampling.seed) == (0.0, 0, 0)
    assert zero.sampling.top_p == 0.9
    assert absent.stopping.max_tokens == 50
    assert absent.model == "small"


def test_an_alias_names_the_model_and_anything_else_does_not() -> None:
    assert checked(replace(GOOD, model="tiny")).model == "small"
    with pytest.raises(UnknownModel, match="small"):
        checked(replace(GOOD, model="large"))


@pytest.mark.parametrize(
    ("wrong", "field", "number"),
    [
        (replace(GOOD, input=Chat(())), "chat.messages", "no messages"),
        (replace(GOOD, input=Chat((ChatTurn("user", ""),))), "chat.messages", "empty"),
        (replace(GOOD, input=Chat((ChatTurn("user", "x"),) * 10_000)), "chat.messages", "10000"),
        (replace(GOOD, input=RawPrompt("")), "prompt", "empty"),
        (replace(GOOD, input=RawPrompt("x" * 201)), "prompt", "201"),
        (replace(GOOD, input=TokenPrompt(())), "tokens.token_ids", "empty"),
        (replace(GOOD, input=TokenPrompt((1000,))), "tokens.token_ids", "1000"),
        (replace(GOOD, input=TokenPrompt((1,) * 100)), "tokens.token_ids", "100"),
        (replace(GOOD, sampling=Sampling(temperature=2.5)), "sampling.temperature", "2.5"),
        (replace(GOOD, sampling=Sampling(temperature=float("nan"))), "sampling.temperature", "nan"),
        (replace(GOOD, sampling=Sampling(temperature=-1)), "sampling.temperature", "-1"),
        (replace(GOOD, sampling=Sampling(top_p=0.0)), "sampling.top_p", "over 0"),
        (replace(GOOD, sampling=Sampling(top_p=float("inf"))), "sampling.top_p", "inf"),
        (replace(GOOD, sampling=Sampling(min_p=1.5)), "sampling.min_p", "1.5"),
        (replace(GOOD, sampling=Sampling(frequency_penalty=3)), "sampling.frequency_penalty", "3"),
        (replace(GOOD, sampling=Sampling(repetition_penalty=0)), "sampling.repetition_penalty", "over 0"),
        (replace(GOOD, sampling=Sampling(num_sequences=0)), "sampling.num_sequences", "0"),
        (replace(GOOD, sampling=Sampling(logit_bias=((1, 500.0),))), "sampling.logit_bias", "500"),
        (replace(GOOD, sampling=Sampling(logit_bias=((5000, 1.0),))), "sampling.logit_bias", "5000"),
        (replace(GOOD, stopping=Stopping(max_tokens=0)), "stopping.max_tokens", "0"),
        (replace(GOOD, stopping=Stopping(max_tokens=9000)), "stopping.max_tokens", "9000"),
        (replace(GOOD, stopping=Stopping(stop=("",))), "stopping.stop", "empty"),
        (replace(GOOD, stopping=Stopping(stop=("x",) * 17)), "stopping.stop", "17"),
        (replace(GOOD, stopping=Stopping(stop=("x" * 300,))), "stopping.stop", "300"),
        (replace(GOOD, stopping=Stopping(stop_token_ids=(7000,))), "stopping.stop_token_ids", "7000"),
        (replace(GOOD, logprobs=21), "response.logprobs", "21"),
        (replace(GOOD, stream_interval=0), "response.stream_interval", "0"),
        (replace(GOOD, request_id="x" * 129), "request_id", "129"),
        (replace(GOOD, cache_salt="x" * 257), "cache.cache_salt", "257"),
        (replace(GOOD, extra_keys=("best_of",)), "extra", "1"),
        (replace(GOOD, guide=Guide(GuideKind.CHOICE)), "guided.choice", "0"),
        (replace(GOOD, guide=Guide(GuideKind.CHOICE, choices=("a", ""))), "guided.choice", "empty"),
        (replace(GOOD, guide=Guide(GuideKind.JSON_SCHEMA, source="x" * 20_000)), "guided", "20000"),
    ],
)
def test_what_is_wrong_is_named_with_its_field_and_number(wrong: Generation, field: str, number: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked(wrong)
    assert refused.value.field == field
    assert number in refused.value.message


@pytest.mark.parametrize(
    "unable",
    [
        replace(GOOD, has_tools=True),
        replace(GOOD, echo=True),
        replace(GOOD, lora_name="mine"),
        replace(GOOD, prompt_logprobs=0),
        replace(GOOD, sampling=Sampling(num_sequences=2)),
        replace(GOOD, stopping=Stopping(min_tokens=1)),
        replace(GOOD, stopping=Stopping(ignore_eos=True)),
        replace(GOOD, sampling=Sampling(min_p=0.0)),
        replace(GOOD, return_token_ids=True),
        replace(GOOD, cache_salt="x", cache_salt_is_given=True),
        replace(GOOD, bypass_prefix_cache=True),
        replace(GOOD, guide=Guide(GuideKind.REGEX, source="a+")),
        replace(GOOD, guide=Guide(GuideKind.EBNF, source="root ::= x")),
        replace(GOOD, guide=Guide(GuideKind.STRUCTURAL_TAG, source="{}")),
    ],
)
def test_what_this_model_cannot_do_is_said_to_be_unsupported(unable: Generation) -> None:
    with pytest.raises(UnsupportedRequest, match="small"):
        checked(unable)


@given(
    st.builds(
        Sampling,
        temperature=st.none() | st.floats(),
        top_p=st.none() | st.floats(),
        repetition_penalty=st.none() | st.floats(),
        num_sequences=st.integers(0, 3),
    ),
    st.builds(Stopping, max_tokens=st.none() | st.integers(0, 2**32), stop=st.lists(st.text(max_size=3)).map(tuple)),
    st.text(max_size=300),
)
def test_a_request_is_either_refused_or_within_all_limits(sampling: Sampling, stopping: Stopping, text: str) -> None:
    generation = replace(GOOD, sampling=sampling, stopping=stopping, input=RawPrompt(text))
    try:
        good = checked(generation)
    except InferenceRefusal as refusal:
        assert text not in refusal.message or len(text) < 3
        return
    assert 0.0 <= (good.sampling.temperature or 0.0) <= 2.0
    assert 0.0 < (good.sampling.top_p or 0.0) <= 1.0
    assert 1 <= (good.stopping.max_tokens or 0) <= 50
    assert 1 <= len(text) <= 200


@pytest.mark.parametrize(
    ("texts", "dimensions", "field"),
    [
        ((), None, "texts"),
        (("x",) * 257, None, "texts"),
        (("ok", "  "), None, "texts[1]"),
        (("x" * 1001,), None, "texts"),
        (("ok",), 0, "dimensions"),
        (("ok",), 257, "dimensions"),
    ],
)
def test_texts_that_cannot_be_embedded_are_named(texts: tuple[str, ...], dimensions: int | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_embedding(texts, dimensions=dimensions, most_dimensions=256, characters_limit=1000)
    assert refused.value.field == field
