"""What budgets do to a request, by each way of asking: gRPC and HTTP, whole and streamed, and embeddings."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import pytest
from sluice.events.v1 import gateway_pb2 as events
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.types.v1 import chat_pb2, finish_reason_pb2, generation_pb2
from sluice_kit.errors import from_rpc_error

pytestmark = pytest.mark.asyncio(loop_scope="module")

CENTS = 10_000_000
PROMPT_BYTES = len("hello") + 64 + 32


@dataclass
class Answer:
    """What a caller got, whichever way it asked. `status` is HTTP's; `retry` the seconds it was told to wait."""

    text: str = ""
    finish: str = ""
    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    retry: float | None = None
    limited: bool = False
    unchecked: bool = False


async def _grpc_whole(mesh: Any, text: str, most: int) -> Answer:
    try:
        response = await mesh.stub().Chat(
            pb.ChatRequest(spec=_spec(text, most)), metadata=mesh.credentials(), timeout=20
        )
    except grpc.aio.AioRpcError as error:
        return _failed(error)
    choice, guard = response.choices[0], response.guard
    return Answer(
        choice.message.content,
        finish_reason_pb2.FinishReason.Name(choice.finish_reason).removeprefix("FINISH_REASON_").lower(),
        limited=guard.budget_limited,
        unchecked=guard.budget_unchecked,
    )


async def _grpc_stream(mesh: Any, text: str, most: int) -> Answer:
    answer = Answer()
    try:
        async for response in mesh.stub().ChatStream(
            pb.ChatStreamRequest(spec=_spec(text, most)), metadata=mesh.credentials(), timeout=20
        ):
            answer.text += response.delta.content
            if response.HasField("finished"):
                name = finish_reason_pb2.FinishReason.Name(response.finished.finish_reason)
                answer.finish = name.removeprefix("FINISH_REASON_").lower()
                answer.limited = response.finished.guard.budget_limited
                answer.unchecked = response.finished.guard.budget_unchecked
    except grpc.aio.AioRpcError as error:
        return _failed(error)
    return answer


def _spec(text: str, most: int) -> pb.ChatSpec:
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=text)
    return pb.ChatSpec(
        model="small", messages=[message], stopping=generation_pb2.StoppingParameters(max_tokens=most), user="jane"
    )


def _failed(error: grpc.aio.AioRpcError) -> Answer:
    told = from_rpc_error(error)
    status = {grpc.StatusCode.RESOURCE_EXHAUSTED: 429, grpc.StatusCode.UNAVAILABLE: 503}.get(error.code(), 400)
    return Answer(status=status, error={"reason": told.reason}, retry=told.retry_after_seconds)


async def _http_whole(mesh: Any, text: str, most: int) -> Answer:
    response = await _post(mesh, "/v1/chat/completions", _body(text, most))
    if response.status_code != 200:
        return _refused(response)
    whole = response.json()
    choice, guard = whole["choices"][0], whole["sluice"]
    return Answer(
        choice["message"]["content"],
        choice["finish_reason"],
        limited=guard["budget_limited"],
        unchecked=guard["budget_unchecked"],
    )


async def _http_stream(mesh: Any, text: str, most: int) -> Answer:
    response = await _post(mesh, "/v1/chat/completions", _body(text, most) | {"stream": True})
    if response.status_code != 200:
        return _refused(response)
    import json

    answer = Answer()
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    for chunk in map(json.loads, lines):
        answer.text += chunk["choices"][0]["delta"].get("content") or ""
        answer.finish = chunk["choices"][0]["finish_reason"] or ""
        answer.limited = chunk.get("sluice", {}).get("budget_limited", False)
        answer.unchecked = chunk.get("sluice", {}).get("budget_unchecked", False)
    assert response.text.endswith("data: [DONE]\n\n")
    return answer


async def _embed_http(mesh: Any, text: str, most: int) -> Answer:
    response = await _post(mesh, "/v1/embeddings", {"model": "vectors", "input": text, "user": "jane"})
    return Answer() if response.status_code == 200 else _refused(response)


async def _embed_grpc(mesh: Any, text: str, most: int) -> Answer:
    request = pb.EmbedRequest(model="vectors", texts=[text], user="jane")
    try:
        await mesh.stub().Embed(request, metadata=mesh.credentials(), timeout=20)
    except grpc.aio.AioRpcError as error:
        return _failed(error)
    return Answer()


def _body(text: str, most: int) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": text}], "max_tokens": most, "user": "jane"}


async def _post(mesh: Any, path: str, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=mesh.http_url, timeout=20) as client:
        return await client.post(path, json=body, headers=dict(mesh.credentials()))


def _refused(response: httpx.Response) -> Answer:
    error = response.json()["error"]
    after = response.headers.get("retry-after")
    return Answer(
        status=response.status_code,
        error={"reason": error["sluice"]["reason"], "code": error["code"], "type": error["type"]},
        retry=float(after) if after else None,
    )


Ask = Callable[[Any, str, int], Awaitable[Answer]]
CHATS = {
    "grpc": _grpc_whole,
    "grpc-stream": _grpc_stream,
    "http": _http_whole,
    "http-stream": _http_stream,
}
ALL = CHATS | {"embed-http": _embed_http, "embed-grpc": _embed_grpc}
chats = pytest.mark.parametrize("ask", CHATS.values(), ids=CHATS.keys())
every_route = pytest.mark.parametrize("ask", ALL.values(), ids=ALL.keys())


@every_route
async def test_a_hundred_at_once_of_ten_cents_against_five_dollars_are_exactly_fifty(
    mesh: Any, till: Any, eventually: Any, ask: Ask
) -> None:
    till.limit, till.per_request = 500 * CENTS, 10 * CENTS
    mesh.set_tenant(limits=_limits(mesh, concurrency=200))
    mesh.admission._max_in_flight = 200
    answers = await asyncio.gather(*(ask(mesh, "hello", 64) for _ in range(100)))
    assert [answer.status for answer in answers].count(200) == 50
    assert [answer.status for answer in answers].count(429) == 50
    await eventually(lambda: len(mesh.published.events) == 100)
    outcomes = [event.outcome for event in mesh.published.events]
    assert outcomes.count(events.REQUEST_OUTCOME_COMPLETED) == 50
    assert outcomes.count(events.REQUEST_OUTCOME_SHED) == 50
    held = {event.cost_hold_id for event in mesh.published.events if event.outcome == events.REQUEST_OUTCOME_COMPLETED}
    assert len(held) == 50
    assert "" not in held
    assert till.most_counted <= till.limit


def _limits(mesh: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(mesh.configuration.tenants["acme"].limits, **changes)


@every_route
async def test_a_spent_budget_is_told_as_each_client_expects_it(mesh: Any, till: Any, ask: Ask) -> None:
    till.limit, till.per_request = 5 * CENTS, 10 * CENTS
    answer = await ask(mesh, "hello", 64)
    assert (answer.status, answer.error["reason"], answer.retry) == (429, "BUDGET_EXHAUSTED", 3600)
    if "code" in answer.error:
        assert (answer.error["code"], answer.error["type"]) == ("insufficient_quota", "insufficient_quota")
    event = await mesh.event()
    assert (event.outcome, event.reason) == (events.REQUEST_OUTCOME_SHED, "BUDGET_EXHAUSTED")
    assert not mesh.inference.specs
    assert not event.HasField("usage")


@chats
async def test_an_answer_is_cut_where_the_money_ends_and_says_so(
    mesh: Any, till: Any, eventually: Any, ask: Ask
) -> None:
    till.output_price, till.limit = CENTS, 10 * CENTS
    mesh.inference.script = ["river "] * 10
    mesh.inference.finish = finish_reason_pb2.FINISH_REASON_LENGTH
    answer = await ask(mesh, "hello", 64)
    assert (answer.status, answer.finish, answer.limited) == (200, "length", True)
    assert mesh.inference.specs[0].stopping.max_tokens == 10
    event = await mesh.event()
    assert event.budget_limited
    assert event.finish_reason == finish_reason_pb2.FINISH_REASON_LENGTH
    assert event.cost_hold_id.startswith("hold-")
    await eventually(lambda: list(till.holds.values()) == [10 * CENTS])


@chats
async def test_an_answer_that_ends_by_itself_is_not_called_limited(mesh: Any, till: Any, ask: Ask) -> None:
    till.output_price, till.limit = CENTS, 10 * CENTS
    answer = await ask(mesh, "hello", 64)
    assert (answer.finish, answer.limited) == ("stop", False)
    assert not (await mesh.event()).budget_limited


@chats
async def test_less_than_is_of_use_is_refused_and_not_cut(mesh: Any, till: Any, ask: Ask) -> None:
    till.output_price, till.limit = CENTS, 3 * CENTS
    assert (await ask(mesh, "hello", 64)).error["reason"] == "BUDGET_EXHAUSTED"


@chats
async def test_the_prompt_is_held_by_its_bytes_as_the_model_sees_it(
    mesh: Any, till: Any, eventually: Any, ask: Ask
) -> None:
    till.input_price, till.limit = CENTS, 1000 * CENTS
    await ask(mesh, "hello", 64)
    await eventually(lambda: till.settled != {})
    assert till.most_counted == PROMPT_BYTES * CENTS
    # Nine tokens were used in the end: the rest is free again.
    assert list(till.holds.values()) == [9 * CENTS]


@chats
async def test_a_request_blocked_before_the_model_spends_nothing(mesh: Any, till: Any, ask: Ask) -> None:
    till.limit, till.per_request = 500 * CENTS, 10 * CENTS
    answer = await ask(mesh, "FORBIDDEN", 64)
    assert answer.status == 400
    assert "reserve" not in till.calls
    assert (await mesh.event()).cost_hold_id == ""


@chats
async def test_a_blocked_answer_settles_with_what_was_used(mesh: Any, till: Any, eventually: Any, ask: Ask) -> None:
    till.limit, till.output_price = 1000 * CENTS, CENTS
    mesh.inference.script = ["All ", "well. ", "ABUSE. ", "more"]
    answer = await ask(mesh, "hello", 64)
    assert answer.finish == "content_filter"
    await eventually(lambda: till.settled != {})
    event = await mesh.event()
    assert event.cost_hold_id.startswith("hold-")
    assert list(till.settled.values())[0].usage == event.usage
    assert list(till.holds.values()) == [event.usage.output_tokens * CENTS]


@chats
async def test_a_model_that_fails_settles_with_what_was_used(mesh: Any, till: Any, eventually: Any, ask: Ask) -> None:
    till.limit, till.output_price = 1000 * CENTS, CENTS
    mesh.inference.fail_after = 1
    mesh.inference.may_fail.set()
    await ask(mesh, "hello", 64)
    await eventually(lambda: till.settled != {})
    event = await mesh.event()
    assert event.outcome == events.REQUEST_OUTCOME_FAILED
    assert event.usage.estimated
    assert list(till.settled.values())[0].usage == event.usage


async def test_a_caller_who_leaves_settles_with_what_was_used(mesh: Any, till: Any, eventually: Any) -> None:
    till.limit, till.output_price = 1000 * CENTS, CENTS
    mesh.inference.pause_after = 2
    call = mesh.stub().ChatStream(
        pb.ChatStreamRequest(spec=_spec("hello", 64)), metadata=mesh.credentials(), timeout=20
    )
    await eventually(lambda: mesh.inference.running == 1)
    call.cancel()
    await eventually(lambda: till.settled != {})
    event = await mesh.event()
    assert event.outcome == events.REQUEST_OUTCOME_CANCELLED
    assert list(till.settled.values())[0].usage == event.usage
    assert event.cost_hold_id.startswith("hold-")


@every_route
async def test_who_has_no_budget_is_asked_about_once_and_never_waits_again(mesh: Any, till: Any, ask: Ask) -> None:
    till.budgeted = False
    for _ in range(5):
        assert (await ask(mesh, "hello", 64)).status == 200
    assert till.calls == ["ask"]
    assert {event.cost_hold_id for event in mesh.published.events} == {""}


@every_route
async def test_an_absent_cost_service_refuses_who_may_have_a_budget(mesh: Any, till: Any, ask: Ask) -> None:
    till.away = True
    answer = await ask(mesh, "hello", 64)
    assert (answer.status, answer.error["reason"]) == (503, "BUDGET_UNAVAILABLE")
    assert not mesh.inference.specs
    assert (await mesh.event()).reason == "BUDGET_UNAVAILABLE"


@every_route
async def test_a_tenant_that_chose_so_goes_on_without_it_and_the_event_says_so(mesh: Any, till: Any, ask: Ask) -> None:
    till.away = True
    mesh.set_tenant(budget_fail_open=True)
    answer = await ask(mesh, "hello", 64)
    assert answer.status == 200
    assert answer.unchecked == (ask in CHATS.values())
    assert (await mesh.event()).budget_unchecked


@every_route
async def test_a_silent_cost_service_keeps_nobody_waiting_for_long(
    mesh: Any, till: Any, new_purse: Any, ask: Ask
) -> None:
    mesh.gateway._purse = new_purse(timeout=0.2)
    till.silent = True
    assert (await asyncio.wait_for(ask(mesh, "hello", 64), 10)).error["reason"] == "BUDGET_UNAVAILABLE"


@every_route
async def test_a_slow_cost_service_is_waited_for_where_nothing_is_known_of_the_caller(
    mesh: Any, till: Any, new_purse: Any, ask: Ask
) -> None:
    mesh.gateway._purse = new_purse(timeout=0.05, first_timeout=60.0)
    till.budgeted, till.slow = False, asyncio.Event()
    answering = asyncio.create_task(ask(mesh, "hello", 64))
    # A question that may not take that long has failed by now.
    await asyncio.wait({answering}, timeout=0.5)
    till.slow.set()
    assert (await asyncio.wait_for(answering, 30)).status == 200


@every_route
async def test_who_is_known_to_have_no_budget_does_not_notice_that_the_cost_service_is_away(
    mesh: Any, till: Any, new_purse: Any, ask: Ask
) -> None:
    now = [0.0]
    mesh.gateway._purse = new_purse(clock=lambda: now[0])
    till.budgeted, till.seconds = False, 60
    assert (await ask(mesh, "hello", 64)).status == 200
    now[0], till.away = 3600.0, True
    for _ in range(3):
        assert (await ask(mesh, "hello", 64)).status == 200


@every_route
async def test_a_model_without_a_price_is_refused_under_a_budget(mesh: Any, till: Any, ask: Ask) -> None:
    till.unpriced = True
    answer = await ask(mesh, "hello", 64)
    assert (answer.status, answer.error["reason"]) == (400, "MODEL_UNPRICED")


async def test_the_cost_service_learns_the_caller_from_the_gateway_and_not_from_the_caller(
    mesh: Any, till: Any
) -> None:
    till.limit, till.per_request, till.per_subject = 500 * CENTS, 10 * CENTS, True
    await _http_whole(mesh, "hello", 64)
    for metadata in till.metadata:
        assert (metadata["x-sluice-tenant-id"], metadata["x-sluice-project-id"]) == ("acme", "lab")
    assert till.metadata[-1]["x-sluice-subject-id"] not in ("", "jane")


@pytest.mark.parametrize(("seconds", "told"), [(2, None), (3600, "false")])
async def test_openai_clients_are_told_not_to_try_again_where_that_cannot_help(
    mesh: Any, till: Any, seconds: int, told: str | None
) -> None:
    till.limit, till.per_request, till.retry_after_seconds = 5 * CENTS, 10 * CENTS, seconds
    response = await _post(mesh, "/v1/chat/completions", _body("hello", 64))
    assert (response.headers["retry-after"], response.headers.get("x-should-retry")) == (str(seconds), told)


async def test_self_tests_are_on_nobodys_budget(mesh: Any, till: Any) -> None:
    from dataclasses import replace

    from sluice_gateway.domain.api_key import ApiKey, Keyring, mint

    key, sha256 = mint("probe")
    keys = Keyring([ApiKey("probe", sha256, "acme", "lab", synthetic=True)])
    mesh.configuration, mesh.key = replace(mesh.configuration, keyring=keys), key
    assert (await _http_whole(mesh, "hello", 64)).status == 200
    assert till.calls == []
