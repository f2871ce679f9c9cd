"""Budgets are bounds: real gateways and the real cost service on a broker, a scripted model with fixed usage between them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from sluice.gateway.v1 import gateway_service_pb2 as gateway
from sluice.gateway.v1 import gateway_service_pb2_grpc as gateway_rpc
from sluice.types.v1 import chat_pb2, generation_pb2
from sluice_gateway.domain.api_key import mint

from .town import HANDLERS, TOKENS, Books, Town, until

pytestmark = pytest.mark.skipif(find_spec("noida_db") is None, reason="no embedded broker: noida-db is not installed")


@pytest.fixture
def stopped_town(tmp_path: Path) -> Iterator[Town]:
    town = Town(tmp_path, *mint("key"))
    try:
        yield town
    finally:
        town.stop()


@pytest_asyncio.fixture
async def town(stopped_town: Town) -> AsyncIterator[Town]:
    """A broker and the cost service; gateways are started by the tests."""
    server = grpc.aio.server()
    for name, handlers in HANDLERS.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    stopped_town.neighbours = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    stopped_town.start_broker()
    stopped_town.start_cost()
    yield stopped_town
    await server.stop(0)


@pytest_asyncio.fixture
async def books(town: Town) -> AsyncIterator[Books]:
    async with grpc.aio.insecure_channel(town.cost_target) as channel:
        yield Books(channel)


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=400)) as made:
        yield made


@pytest.mark.parametrize("gateways", [1, 4])
async def test_a_hundred_at_once_of_ten_cents_against_five_dollars_are_exactly_fifty(
    town: Town, books: Books, client: httpx.AsyncClient, gateways: int
) -> None:
    await books.put_budget(cents=500)
    names = [f"gateway{number}" for number in range(gateways)]
    for name in names:
        town.start_gateway(name)
    await town.all_up(client)
    answers = await asyncio.gather(*(town.ask(client, names[number % gateways]) for number in range(100)))
    assert sorted(answers) == [(200, "")] * 50 + [(429, "BUDGET_EXHAUSTED")] * 50

    async def entered() -> bool:
        return await books.cents() == (500, 0, 0)

    await until(entered)


async def test_every_route_spends_what_the_ledger_enters_and_nothing_stays_held(
    town: Town, books: Books, client: httpx.AsyncClient
) -> None:
    await books.put_budget(cents=1000)
    town.start_gateway("gateway0")
    await town.all_up(client)
    assert await town.ask(client, "gateway0") == (200, "")
    headers = {"authorization": f"Bearer {town.key}"}
    chat = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "max_tokens": TOKENS, "stream": True}
    text = "a" * 1000  # a token each, at ten cents for a thousand
    for path, body in (("chat/completions", chat), ("embeddings", {"model": "vectors", "input": text})):
        answer = await client.post(f"{town.gateways['gateway0']}/v1/{path}", json=body, headers=headers)
        assert answer.status_code == 200
    metadata = list(headers.items())
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content="hello")
    stopping = generation_pb2.StoppingParameters(max_tokens=TOKENS)
    spec = gateway.ChatSpec(model="small", messages=[message], stopping=stopping)
    async with grpc.aio.insecure_channel(town.grpc_targets["gateway0"]) as channel:
        stub: Any = gateway_rpc.GatewayServiceStub(channel)
        await stub.Chat(gateway.ChatRequest(spec=spec), metadata=metadata, timeout=60)
        async for _ in stub.ChatStream(gateway.ChatStreamRequest(spec=spec), metadata=metadata, timeout=60):
            pass
        await stub.Embed(gateway.EmbedRequest(model="vectors", texts=[text]), metadata=metadata, timeout=60)

    async def entered() -> bool:
        return await books.cents() == (60, 0, 0)

    await until(entered)


async def test_a_gateway_that_is_stopped_gives_back_what_it_had_leased(
    town: Town, books: Books, client: httpx.AsyncClient
) -> None:
    await books.put_budget(cents=100_000)
    town.start_gateway("gateway0")
    await town.all_up(client)

    async def has_leased() -> bool:
        assert set(await asyncio.gather(*(town.ask(client, "gateway0") for _ in range(8)))) == {(200, "")}
        return (await books.cents())[2] > 0

    await until(has_leased)
    town.processes["gateway0"].terminate()
    assert town.processes["gateway0"].wait(timeout=30) == 0

    async def is_free() -> bool:
        _, held, _ = await books.cents()
        return held == 0

    await until(is_free)


async def test_a_gateway_that_is_killed_under_load_never_overshoots_and_comes_back(
    town: Town, books: Books, client: httpx.AsyncClient
) -> None:
    limit = 3000
    await books.put_budget(cents=limit)
    for name in ("gateway0", "gateway1"):
        town.start_gateway(name)
    await town.all_up(client)
    answered = refused = 0
    most_leased = 0.0

    async def call_on(name: str) -> None:
        nonlocal answered, refused
        while refused < 60:
            status, reason = await town.ask(client, name)
            assert (status, reason) in ((200, ""), (429, "BUDGET_EXHAUSTED"), (0, "")), (status, reason)
            answered += status == 200
            refused += status == 429
            await asyncio.sleep(0.5 if status == 0 else 0)

    async def kill_and_restart() -> None:
        async def is_busy() -> bool:
            return answered >= 100

        await until(is_busy)
        town.kill("gateway0")
        town.start_gateway("gateway0")

    async def watch() -> None:
        nonlocal most_leased
        while refused < 60:
            spent, held, leased = await books.cents()
            assert spent + held <= limit, (spent, held)
            most_leased = max(most_leased, leased)
            await asyncio.sleep(0.1)

    async with asyncio.timeout(240):
        callers = [call_on(f"gateway{number % 2}") for number in range(16)]
        await asyncio.gather(*callers, kill_and_restart(), watch())
    assert 10 * answered <= limit
    assert most_leased > 0

    async def entered() -> bool:
        spent, held, _ = await books.cents()
        assert spent + held <= limit
        return spent >= 10 * answered

    await until(entered)
    # What was lost with the process is at most what it had leased: most of the budget was used all the same.
    assert 10 * answered >= limit * 6 // 10
