"""The OpenAI wire format: what is understood, and what is refused by name."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_gateway.api.openai_requests import chat_request, embed_request
from sluice_gateway.domain.chat import Guide, Role
from sluice_gateway.domain.rejection import Kind, Rejection

_HELLO = [{"role": "user", "content": "hello"}]


def _body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": _HELLO} | fields).encode()


def test_all_supported_fields_are_taken_over() -> None:
    request, with_usage = chat_request(
        _body(
            messages=[
                {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "ok"},
                *_HELLO,
            ],
            temperature=0.5, top_p=0.9, n=1, seed=-1, stop="x", max_completion_tokens=7, frequency_penalty=1,
            presence_penalty=-1, logit_bias={"5": -100}, stream=True, stream_options={"include_usage": True}, user="u",
            metadata={"a": "b"},
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"a": 1}}},
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            logprobs=False, store=False, service_tier="auto", tool_choice="auto",
        )
    )  # fmt: skip
    assert with_usage
    assert request.streamed
    assert [m.role for m in request.messages] == [Role.SYSTEM, Role.ASSISTANT, Role.TOOL, Role.USER]
    assert request.messages[0].content == "a\nb"
    assert request.sampling.seed == 2**64 - 1
    assert request.stopping.max_tokens == 7
    assert request.stopping.stop == ("x",)
    assert request.guide == Guide("json_schema", ('{"a": 1}',))
    assert json.loads(request.tools[0].parameters_json_schema) == {"type": "object"}


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("logprobs", {"logprobs": True}),
        ("audio", {"audio": {"voice": "x"}}),
        ("functions", {"functions": []}),
        ("tool_choice", {"tool_choice": "required"}),
        ("store", {"store": True}),
        ("colour", {"colour": "blue"}),
        ("messages[0].colour", {"messages": [{"role": "user", "content": "x", "colour": "blue"}]}),
        (
            "messages[0].content[0]",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(Rejection) as caught:
        chat_request(_body(**fields))
    assert (caught.value.kind, caught.value.field) == (Kind.UNSUPPORTED, field)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("model", {"model": 7}),
        ("messages", {"messages": "hello"}),
        ("messages[0].role", {"messages": [{"role": "king", "content": "x"}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": 5}]}),
        ("temperature", {"temperature": "hot"}),
        ("max_tokens", {"max_tokens": 1.5}),
        ("stream_options", {"stream_options": {"include_usage": True}}),
        ("logit_bias", {"logit_bias": {"hello": 1}}),
        ("max_completion_tokens", {"max_tokens": 1, "max_completion_tokens": 2}),
        ("response_format.json_schema", {"response_format": {"type": "json_schema"}}),
    ],
)
def test_a_wrong_type_names_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(Rejection) as caught:
        chat_request(_body(**fields))
    assert (caught.value.kind, caught.value.field) == (Kind.INVALID, field)


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        ("EMPTY_REQUEST", b""),
        ("MALFORMED_JSON", b"{"),
        ("MALFORMED_JSON", b"\xff\xfe{"),
        ("NOT_UTF8", b'{"model":"a\xff","messages":[]}'),
        ("MALFORMED_JSON", b'{"model":"\\ud800","messages":[]}'),
        ("MALFORMED_JSON", b'{"model":"a","messages":[],"store":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("NOT_UTF8", b'{"model":"a","messages":[],"tools":[{"function":{"name":"f","parameters":{"a":"\xff"}}}]}'),
        ("WRONG_TYPE", b"[]"),
        ("MISSING_FIELD", b"{}"),
    ],
)
def test_a_body_that_is_no_request_says_why(reason: str, body: bytes) -> None:
    with pytest.raises(Rejection) as caught:
        chat_request(body)
    assert caught.value.reason == reason


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_rejection(body: bytes) -> None:
    for parse in (chat_request, embed_request):
        with contextlib.suppress(Rejection):
            parse(body)


def test_embeddings_take_texts_and_refuse_tokens() -> None:
    request, as_base64 = embed_request(b'{"model":"m","input":["a","b"],"encoding_format":"base64"}')
    assert (request.texts, as_base64) == (("a", "b"), True)
    with pytest.raises(Rejection) as caught:
        embed_request(b'{"model":"m","input":[[1,2]]}')
    assert caught.value.field == "input"
