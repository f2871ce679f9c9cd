"""Which requests are admissible: every rule with the number it compares with, so that the caller knows what to change."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sluice_inference.domain.backend import SAMPLING_FIELDS, ModelFacts
from sluice_inference.domain.generation import Chat, ChatTurn, Generation, Guide, GuideKind, RawPrompt, TokenPrompt
from sluice_inference.domain.refusals import InvalidRequest, UnknownModel, UnsupportedRequest
from sluice_inference.domain.tools import ToolMode, check_tools


@dataclass(frozen=True)
class Limits:
    """What a request may hold at most; lengths in Unicode code points."""

    messages: int = 256
    input_characters: int = 65_536
    stop_strings: int = 16
    stop_characters: int = 256
    logprobs: int = 20
    guide_characters: int = 16_384
    choices: int = 64
    request_id_characters: int = 128
    cache_salt_characters: int = 256
    logit_biases: int = 300
    sequences: int = 8


def admissible(generation: Generation, *, model: ModelFacts, limits: Limits) -> Generation:
    """The request with the model's defaults filled in. Raises InvalidRequest, UnknownModel, UnsupportedRequest."""
    check_model(generation.model, model)
    if len(generation.request_id) > limits.request_id_characters:
        raise InvalidRequest(
            "request_id",
            f"request_id has {len(generation.request_id)} characters; the limit is {limits.request_id_characters}.",
        )
    if len(generation.cache_salt) > limits.cache_salt_characters:
        raise InvalidRequest(
            "cache.cache_salt",
            f"cache_salt has {len(generation.cache_salt)} characters; the limit is {limits.cache_salt_characters}.",
        )
    if generation.extra_keys:
        raise InvalidRequest("extra", f"extra has {len(generation.extra_keys)} keys, and this backend knows none.")
    _check_input(generation, model, limits)
    _check_sampling(generation, model, limits)
    _check_stopping(generation, model, limits)
    _check_response(generation, model, limits)
    if generation.guide:
        _check_guide(generation.guide, model, limits)
    return _with_defaults(generation, model)


def check_model(name: str, model: ModelFacts) -> None:
    """An empty name means the default model. Raises UnknownModel."""
    if name and not model.is_called(name):
        raise UnknownModel(f"there is no such model here; this service runs {model.model_id}.")


def _demand(able: object, model: ModelFacts, sentence: str) -> None:
    """Raises UnsupportedRequest: what a model cannot do, or is not known to do, is refused and never left out in silence."""
    if not able:
        raise UnsupportedRequest(f"{model.model_id} {sentence}")


def _with_defaults(generation: Generation, model: ModelFacts) -> Generation:
    stopping = generation.stopping
    if stopping.max_tokens is None:
        stopping = replace(stopping, max_tokens=(model.max_output_tokens or model.max_context_tokens) or None)
    return replace(
        generation, model=model.model_id, sampling=generation.sampling.over(model.default_sampling), stopping=stopping
    )


def _check_input(generation: Generation, model: ModelFacts, limits: Limits) -> None:
    match generation.input:
        case Chat(turns):
            characters = sum(turn.characters for turn in turns) + sum(tool.characters for tool in generation.tools)
            _check_chat(turns_count=len(turns), characters=characters, limits=limits)
            _demand(model.capabilities.chat, model, "has no chat template here; send a prompt.")
            if generation.has_tools or generation.tool_choice:
                _check_tool_use(generation, turns, model)
        case RawPrompt(text):
            _demand(model.capabilities.completion, model, "takes no raw prompt here; send a chat.")
            if not text:
                raise InvalidRequest("prompt", "prompt is empty; give at least one character.")
            _check_length("prompt", len(text), limits.input_characters)
        case TokenPrompt(token_ids):
            _check_tokens(token_ids, model)


def _check_tool_use(generation: Generation, turns: tuple[ChatTurn, ...], model: ModelFacts) -> None:
    able, choice = model.capabilities, generation.tool_choice
    _demand(able.tools, model, "cannot call tools: leave out tools, tool_choice, tool_calls and tool messages.")
    _demand(
        choice, model, "calls tools for callers that read tool_calls only: set chat.tool_choice, or leave tools out."
    )
    assert choice is not None
    check_tools(generation.tools, choice)
    _demand(
        able.forced_tools or choice.mode is not ToolMode.REQUIRED,
        model,
        "cannot be made to call a tool: leave tool_choice to the model (AUTO).",
    )
    _demand(not (generation.tools and generation.guide), model, "follows no guide where there are tools.")
    for index, turn in enumerate(turns):
        if turn.role == "tool" and not turn.tool_call_id:
            raise InvalidRequest(
                f"chat.messages[{index}].tool_call_id", f"message {index} needs the id of the call whose result it is."
            )
        if turn.tool_calls and turn.role != "assistant":
            raise InvalidRequest(
                f"chat.messages[{index}].tool_calls", f"message {index} has tool calls; only the assistant has them."
            )


def _check_chat(*, turns_count: int, characters: int, limits: Limits) -> None:
    if turns_count == 0:
        raise InvalidRequest("chat.messages", "chat has no messages; give at least one.")
    if turns_count > limits.messages:
        raise InvalidRequest("chat.messages", f"chat has {turns_count} messages; the limit is {limits.messages}.")
    if characters == 0:
        raise InvalidRequest("chat.messages", "all messages are empty; give at least one character.")
    _check_length("chat.messages", characters, limits.input_characters)


def _check_length(field: str, characters: int, limit: int) -> None:
    if characters > limit:
        raise InvalidRequest(
            field, f"the input has {characters} characters; the limit is {limit}.", reason="INPUT_TOO_LONG"
        )


def _check_tokens(token_ids: tuple[int, ...], model: ModelFacts) -> None:
    _demand(model.capabilities.token_input, model, "takes no token ids here; send text.")
    if not token_ids:
        raise InvalidRequest("tokens.token_ids", "token_ids is empty; give at least one.")
    if model.vocabulary_size and max(token_ids) >= model.vocabulary_size:
        raise InvalidRequest(
            "tokens.token_ids",
            f"token id {max(token_ids)} does not exist; the vocabulary has {model.vocabulary_size} tokens.",
        )
    if model.max_context_tokens and len(token_ids) >= model.max_context_tokens:
        raise prompt_too_long(len(token_ids), model.max_context_tokens, field="tokens.token_ids")


def prompt_too_long(prompt_tokens: int, context_tokens: int, *, field: str) -> InvalidRequest:
    """The one sentence for a prompt that leaves no room for an answer."""
    return InvalidRequest(
        field,
        f"the prompt has {prompt_tokens} tokens; the context holds {context_tokens} for prompt and answer together.",
        reason="PROMPT_TOO_LONG",
    )


def _check_range(field: str, value: float | None, lowest: float, highest: float, *, open_low: bool = False) -> None:
    if value is None:
        return
    if not math.isfinite(value) or value > highest or value < lowest or (open_low and value == lowest):
        word = "over" if open_low else "at least"
        raise InvalidRequest(
            f"sampling.{field}", f"{field} is {value:g}; it must be {word} {lowest:g} and at most {highest:g}."
        )


def _check_sampling(generation: Generation, model: ModelFacts, limits: Limits) -> None:
    sampling = generation.sampling
    _check_range("temperature", sampling.temperature, 0.0, 2.0)
    _check_range("top_p", sampling.top_p, 0.0, 1.0, open_low=True)
    _check_range("top_k", sampling.top_k, 0, 1_000_000)
    _check_range("min_p", sampling.min_p, 0.0, 1.0)
    _check_range("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0)
    _check_range("presence_penalty", sampling.presence_penalty, -2.0, 2.0)
    _check_range("repetition_penalty", sampling.repetition_penalty, 0.0, 10.0, open_low=True)
    if not 1 <= sampling.num_sequences <= limits.sequences:
        raise InvalidRequest(
            "sampling.num_sequences",
            f"num_sequences is {sampling.num_sequences}; it must be 1 to {limits.sequences}.",
        )
    _demand(
        sampling.num_sequences == 1 or model.capabilities.num_sequences,
        model,
        f"gives one answer per request: send {sampling.num_sequences} requests instead.",
    )
    for name in sorted(SAMPLING_FIELDS - model.capabilities.sampling):
        _demand(getattr(sampling, name) is None, model, f"takes no {name} here; leave it out.")
    _check_logit_bias(sampling.logit_bias, model, limits)


def _check_logit_bias(biases: tuple[tuple[int, float], ...], model: ModelFacts, limits: Limits) -> None:
    if not biases:
        return
    _demand(model.capabilities.logit_bias, model, "takes no logit_bias here.")
    if len(biases) > limits.logit_biases:
        raise InvalidRequest(
            "sampling.logit_bias", f"logit_bias has {len(biases)} entries; the limit is {limits.logit_biases}."
        )
    for token_id, bias in biases:
        if not math.isfinite(bias) or abs(bias) > 100.0:
            raise InvalidRequest("sampling.logit_bias", f"a logit_bias is {bias:g}; it must lie between -100 and 100.")
        _check_token_id("sampling.logit_bias", token_id, model)


def _check_token_id(field: str, token_id: int, model: ModelFacts) -> None:
    if model.vocabulary_size and token_id >= model.vocabulary_size:
        raise InvalidRequest(
            field, f"token id {token_id} does not exist; the vocabulary has {model.vocabulary_size} tokens."
        )


def _check_stopping(generation: Generation, model: ModelFacts, limits: Limits) -> None:
    stopping = generation.stopping
    most = model.max_output_tokens or model.max_context_tokens
    if stopping.max_tokens is not None and not 1 <= stopping.max_tokens <= (most or stopping.max_tokens):
        raise InvalidRequest(
            "stopping.max_tokens",
            f"max_tokens is {stopping.max_tokens}; {model.model_id} allows {f'1 to {most}' if most else '1 or more'}.",
        )
    able = model.capabilities
    _demand(able.min_tokens or not stopping.min_tokens, model, "has no min_tokens here; leave it out.")
    _demand(
        able.ignore_eos or not stopping.ignore_eos, model, "cannot ignore its end token here; leave ignore_eos out."
    )
    _demand(
        able.stop_token_ids or not stopping.stop_token_ids, model, "takes no stop_token_ids here; use stop strings."
    )
    highest = stopping.max_tokens or most
    if highest and stopping.min_tokens > highest:
        raise InvalidRequest("stopping.min_tokens", f"min_tokens is {stopping.min_tokens}; max_tokens is {highest}.")
    _check_stops(generation, model, limits)


def _check_stops(generation: Generation, model: ModelFacts, limits: Limits) -> None:
    stopping = generation.stopping
    if len(stopping.stop) > limits.stop_strings:
        raise InvalidRequest(
            "stopping.stop", f"stop has {len(stopping.stop)} strings; the limit is {limits.stop_strings}."
        )
    if "" in stopping.stop:
        raise InvalidRequest("stopping.stop", "a stop string is empty; leave it out.")
    longest = max((len(stop) for stop in stopping.stop), default=0)
    if longest > limits.stop_characters:
        raise InvalidRequest(
            "stopping.stop", f"a stop string has {longest} characters; the limit is {limits.stop_characters}."
        )
    if len(stopping.stop_token_ids) > limits.stop_strings:
        raise InvalidRequest(
            "stopping.stop_token_ids",
            f"stop_token_ids has {len(stopping.stop_token_ids)} ids; the limit is {limits.stop_strings}.",
        )
    for token_id in stopping.stop_token_ids:
        _check_token_id("stopping.stop_token_ids", token_id, model)


def _check_response(generation: Generation, model: ModelFacts, limits: Limits) -> None:
    able = model.capabilities
    _demand(able.logprobs or generation.logprobs is None, model, "gives no logprobs here.")
    if (generation.logprobs or 0) > limits.logprobs:
        raise InvalidRequest("response.logprobs", f"logprobs is {generation.logprobs}; the limit is {limits.logprobs}.")
    # No backend here gives these: engines that could need memory for them in proportion to prompt and vocabulary.
    _demand(generation.prompt_logprobs is None, model, "gives no prompt_logprobs here.")
    _demand(not generation.echo, model, "cannot echo the prompt here.")
    _demand(able.return_token_ids or not generation.return_token_ids, model, "gives no token ids here.")
    _demand(
        able.cache_salt or not generation.cache_salt_is_given,
        model,
        "cannot keep cached prefixes apart by cache_salt here; leave it out.",
    )
    _demand(
        able.bypass_prefix_cache or not generation.bypass_prefix_cache,
        model,
        "cannot leave its prefix cache unread; leave bypass_prefix_cache out.",
    )
    _check_lora(generation.lora_name, model)
    if not 1 <= generation.stream_interval <= 1024:
        raise InvalidRequest(
            "response.stream_interval", f"stream_interval is {generation.stream_interval}; it must be 1 to 1024."
        )


def _check_lora(name: str, model: ModelFacts) -> None:
    if not name:
        return
    _demand(model.capabilities.lora, model, "has no LoRA adapters here; leave lora_name empty.")
    if name not in model.loras:
        raise UnknownModel(
            f"{model.model_id} has no LoRA adapter of this name; it has {', '.join(model.loras) or 'none'}.",
            reason="LORA_NOT_FOUND",
        )


def _check_guide(guide: Guide, model: ModelFacts, limits: Limits) -> None:
    _demand(guide.kind in model.capabilities.guides, model, f"cannot follow guided.{guide.kind.value} here.")
    if len(guide.source) > limits.guide_characters:
        raise InvalidRequest(
            "guided", f"the guide has {len(guide.source)} characters; the limit is {limits.guide_characters}."
        )
    if guide.kind is GuideKind.CHOICE and not 1 <= len(guide.choices) <= limits.choices:
        raise InvalidRequest(
            "guided.choice", f"choice has {len(guide.choices)} answers; it must have 1 to {limits.choices}."
        )
    if sum(map(len, guide.choices)) > limits.guide_characters or not all(guide.choices or ("x",)):
        raise InvalidRequest(
            "guided.choice", f"an answer is empty, or all together have over {limits.guide_characters} characters."
        )


def check_embedding(
    texts: tuple[str, ...], *, dimensions: int | None, most_dimensions: int, characters_limit: int
) -> None:
    """Raises InvalidRequest for what the embedding model does not take."""
    if not 1 <= len(texts) <= 256:
        raise InvalidRequest("texts", f"there are {len(texts)} texts; give 1 to 256.")
    for index, text in enumerate(texts):
        if not text.strip():
            raise InvalidRequest(f"texts[{index}]", f"text {index} is empty; give at least one character.")
    total = sum(map(len, texts))
    if total > characters_limit:
        raise InvalidRequest("texts", f"the texts have {total} characters together; the limit is {characters_limit}.")
    most = most_dimensions or 65_536  # 0: not known before the first call; no model gives more
    if dimensions is not None and not 1 <= dimensions <= most:
        raise InvalidRequest("dimensions", f"dimensions is {dimensions}; this model gives 1 to {most}.")
