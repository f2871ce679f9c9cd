"""What a request may ask for: the field that is wrong is named, and how to mend it is said."""

import math

import pytest
from sluice_gateway.domain.chat import (
    ChatMessage,
    ChatRequest,
    EmbedRequest,
    Guide,
    Role,
    Sampling,
    Stopping,
    ToolCall,
    ToolDefinition,
)
from sluice_gateway.domain.rejection import Kind, Rejection
from sluice_gateway.domain.validation import Bounds, check_chat, check_embed, check_size, tokens_allowed

_HELLO = (ChatMessage(Role.USER, "hello"),)
_CALL = (ToolCall("1", "f", "{}"),)


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("messages", ChatRequest("m", ())),
        ("messages", ChatRequest("m", _HELLO * 10_000)),
        ("messages", ChatRequest("m", (ChatMessage(Role.SYSTEM, " "),))),
        ("messages[0].content", ChatRequest("m", (ChatMessage(Role.USER, " \n"),))),
        ("messages[0].tool_call_id", ChatRequest("m", (ChatMessage(Role.TOOL, "x"),))),
        ("messages[0].tool_calls", ChatRequest("m", (ChatMessage(Role.USER, "x", tool_calls=_CALL),))),
        ("temperature", ChatRequest("m", _HELLO, sampling=Sampling(temperature=9))),
        ("temperature", ChatRequest("m", _HELLO, sampling=Sampling(temperature=math.nan))),
        ("top_p", ChatRequest("m", _HELLO, sampling=Sampling(top_p=0))),
        ("presence_penalty", ChatRequest("m", _HELLO, sampling=Sampling(presence_penalty=-2.5))),
        ("seed", ChatRequest("m", _HELLO, sampling=Sampling(seed=2**64))),
        ("n", ChatRequest("m", _HELLO, sampling=Sampling(num_sequences=5))),
        ("logit_bias", ChatRequest("m", _HELLO, sampling=Sampling(logit_bias=((1, math.inf),)))),
        ("max_tokens", ChatRequest("m", _HELLO, stopping=Stopping(max_tokens=0))),
        ("stop[1]", ChatRequest("m", _HELLO, stopping=Stopping(stop=("a", "")))),
        ("stop", ChatRequest("m", _HELLO, stopping=Stopping(stop=("a",) * 17))),
        ("tools[0].name", ChatRequest("m", _HELLO, tools=(ToolDefinition("a b"),))),
        ("tools[0].parameters", ChatRequest("m", _HELLO, tools=(ToolDefinition("f", "", "{"),))),
        ("response_format", ChatRequest("m", _HELLO, guide=Guide("json_schema", ("{",)))),
        ("user", ChatRequest("m", _HELLO, user="x" * 513)),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_field(field: str, request_: ChatRequest) -> None:
    with pytest.raises(Rejection) as caught:
        check_chat(request_, Bounds())
    assert (caught.value.kind, caught.value.field) == (Kind.INVALID, field)


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("input", EmbedRequest("m", ())),
        ("input", EmbedRequest("m", ("x",) * 257)),
        ("input[1]", EmbedRequest("m", ("x", " "))),
        ("dimensions", EmbedRequest("m", ("x",), dimensions=0)),
    ],
)
def test_bad_texts_to_embed_are_refused_by_the_name_of_their_field(field: str, request_: EmbedRequest) -> None:
    with pytest.raises(Rejection) as caught:
        check_embed(request_, Bounds())
    assert caught.value.field == field


def test_texts_that_are_too_long_together_are_too_large() -> None:
    with pytest.raises(Rejection) as caught:
        check_size(["abc", "def"], Bounds(characters=5))
    assert caught.value.kind is Kind.TOO_LARGE


def test_max_tokens_is_the_callers_else_the_models_and_never_over_the_tenants() -> None:
    assert tokens_allowed(10, default=512, tenant_limit=100) == 10
    assert tokens_allowed(None, default=512, tenant_limit=100) == 100
    with pytest.raises(Rejection, match="max_tokens is 9000; this tenant may ask for at most 100"):
        tokens_allowed(9000, default=512, tenant_limit=100)


def test_a_key_may_have_fewer_tokens_of_a_model_than_its_tenant_and_never_more() -> None:
    assert tokens_allowed(None, default=512, tenant_limit=100, key_limit=1) == 1
    assert tokens_allowed(1, default=512, tenant_limit=100, key_limit=1) == 1
    with pytest.raises(Rejection, match="max_tokens is 2; this API key and model may ask for at most 1"):
        tokens_allowed(2, default=512, tenant_limit=100, key_limit=1)
    with pytest.raises(Rejection, match="this tenant may ask for at most 100"):
        tokens_allowed(101, default=512, tenant_limit=100, key_limit=1000)


def test_an_ordinary_request_passes() -> None:
    check_chat(ChatRequest("m", _HELLO, sampling=Sampling(temperature=0, top_p=1, seed=0)), Bounds())
