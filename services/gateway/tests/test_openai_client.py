"""The official `openai` client works unchanged, also for errors."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import pytest
import pytest_asyncio
from sluice_gateway.domain.configuration import Limits

pytestmark = pytest.mark.asyncio(loop_scope="module")

EMAIL = "jane.doe@example.com"
HELLO: Any = [{"role": "user", "content": f"hello {EMAIL}"}]


@pytest_asyncio.fixture(loop_scope="module")
async def client(mesh: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{mesh.http_url}/v1", api_key=mesh.key, max_retries=0, timeout=10
    ) as client:
        yield client


async def test_a_whole_answer(mesh: Any, client: openai.AsyncOpenAI) -> None:
    mesh.inference.script = ["Hi <EMAIL_ADDRESS_1>"]
    raw = await client.chat.completions.with_raw_response.create(
        model="small", messages=HELLO, temperature=0.1, max_completion_tokens=5, seed=1, stop=["x"], user="jane"
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == f"Hi {EMAIL}"
    assert (answer.choices[0].finish_reason, answer.model, answer.object) == ("stop", "small", "chat.completion")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (9, 1, 10)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert raw.headers["x-request-id"] == answer.id.removeprefix("chatcmpl-")
    assert raw.headers["x-sluice-decision-ids"] == "decision-in,decision-out"
    spec = mesh.inference.specs[0]
    assert (round(spec.sampling.temperature, 3), spec.sampling.seed, spec.stopping.max_tokens) == (0.1, 1, 5)
    event = await mesh.event()
    assert event.metadata.subject_id.startswith("sub_")
    assert "jane" not in str(event)


async def test_a_streamed_answer_with_usage(mesh: Any, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="small", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello there. All is well."
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_stream_helper_of_the_client_works(mesh: Any, client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="small", messages=HELLO) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.content == "Hello there. All is well."


async def test_an_answer_can_be_sent_back_as_history(mesh: Any, client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="small", messages=HELLO)
    history: Any = [*HELLO, answer.choices[0].message.model_dump(), *HELLO]
    await client.chat.completions.create(model="small", messages=history)
    assert len(mesh.inference.specs[1].chat.messages) == 3


async def test_a_wrong_key_is_an_authentication_error_and_no_event(mesh: Any, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        await client.with_options(api_key="sk-sluice-test-" + "0" * 64).chat.completions.create(
            model="small", messages=HELLO
        )
    assert caught.value.code == "invalid_api_key"
    assert mesh.published.events == []


async def test_an_unknown_model_is_not_found_and_its_name_is_in_no_event(mesh: Any, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model=EMAIL, messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert (await mesh.event()).model == ""


async def test_a_bad_value_is_a_bad_request_that_names_its_field(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="small", messages=HELLO, temperature=99)
    assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")


async def test_too_many_answers_are_a_bad_request(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="n is 2; it must be 1"):
        await client.chat.completions.create(model="small", messages=HELLO, n=2)


async def test_blocked_content_has_the_code_clients_know(mesh: Any, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "ABUSE"}], stream=True
        )
    assert caught.value.code == "content_filter"
    assert caught.value.response.headers["x-sluice-decision-ids"] == "decision-in"


def change_key(mesh: Any, **changes: Any) -> None:
    keys = mesh.configuration.keyring._keys
    keys["test"] = replace(keys["test"], **changes)


async def test_too_many_requests_are_told_when_to_come_back(mesh: Any, client: openai.AsyncOpenAI) -> None:
    mesh.set_tenant(limits=Limits(requests_per_minute=1))
    await client.chat.completions.create(model="small", messages=HELLO)
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="small", messages=HELLO)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    assert caught.value.code == "rate_limit_exceeded"
    assert (await mesh.event(2)).reason == "RATE_LIMIT"


async def test_a_failure_inside_a_stream_is_raised_by_the_client(mesh: Any, client: openai.AsyncOpenAI) -> None:
    mesh.inference.script, mesh.inference.fail_after = ["A whole sentence. ", "And "], 1
    stream = await client.chat.completions.create(model="small", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="model is not available"):
        async for _ in stream:
            mesh.inference.may_fail.set()


async def test_models_are_listed_and_found(mesh: Any, client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["small", "vectors"]
    assert (await client.models.retrieve("small")).owned_by == "us"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("no/such")


@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_embeddings_are_made_of_redacted_text(mesh: Any, client: openai.AsyncOpenAI, encoding: Any) -> None:
    options = {"encoding_format": encoding} if encoding else {}
    answer = await client.embeddings.create(model="vectors", input=[f"I am {EMAIL}", "b"], **options)
    vector: Any = answer.data[1].embedding
    if encoding != "base64":
        assert vector == pytest.approx([0.6, 0.8])
    assert mesh.inference.seen == ["I am <EMAIL_ADDRESS_1>", "b"]
    assert (await mesh.event()).served_model == "fake-embed"


async def test_content_parts_are_checked_as_the_model_reads_them(mesh: Any, client: openai.AsyncOpenAI) -> None:
    parts: Any = [{"type": "text", "text": f"mail {EMAIL}"}, {"type": "text", "text": "now"}]
    await client.chat.completions.create(model="small", messages=[{"role": "user", "content": parts}])
    assert mesh.redaction.seen == [f"mail {EMAIL}\nnow"]
    assert mesh.inference.specs[0].chat.messages[0].content == "mail <EMAIL_ADDRESS_1>\nnow"


async def test_personal_data_anywhere_in_the_request_is_replaced(mesh: Any, client: openai.AsyncOpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "mail", "arguments": f'{{"to":"{EMAIL}"}}'}}
    await client.chat.completions.create(
        model="small",
        messages=[
            {"role": "system", "content": f"You serve {EMAIL}"},
            {"role": "user", "name": EMAIL, "content": "hi"},
            {"role": "assistant", "tool_calls": [call]},  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": "c1", "content": f"sent to {EMAIL}"},
        ],
        tools=[{"type": "function", "function": {"name": "mail", "description": f"as {EMAIL}"}}],
        stop=[EMAIL],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": EMAIL}}},
    )
    assert EMAIL not in str(mesh.inference.specs[0])
    assert str(mesh.inference.specs[0]).count("<EMAIL_ADDRESS_1>") == 7
    assert (await mesh.event()).message_count == 4


async def test_self_tests_are_answered_where_callers_use_up_the_tenants_rate(
    mesh: Any, client: openai.AsyncOpenAI
) -> None:
    mesh.set_tenant(limits=Limits(requests_per_minute=1))
    await client.chat.completions.create(model="small", messages=HELLO)
    change_key(mesh, synthetic=True)
    await client.chat.completions.create(model="small", messages=HELLO)


async def test_a_key_that_is_bound_gets_no_more_of_a_model(mesh: Any, client: openai.AsyncOpenAI) -> None:
    change_key(mesh, synthetic=True, max_tokens={"*": 1})
    await client.chat.completions.create(model="small", messages=HELLO)
    assert mesh.inference.specs[0].stopping.max_tokens == 1
    with pytest.raises(openai.BadRequestError, match="may ask for at most 1"):
        await client.chat.completions.create(model="small", messages=HELLO, max_tokens=2)


async def test_a_synthetic_key_marks_its_requests(mesh: Any, client: openai.AsyncOpenAI) -> None:
    change_key(mesh, synthetic=True)
    await client.chat.completions.create(model="small", messages=HELLO)
    assert all(metadata["x-sluice-synthetic"] == "true" for metadata in mesh.inference.metadata)
