"""The gateway's doors, over real sockets: an answer like no other is one that cannot be read, and ends nothing."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.gateway.v1 import gateway_service_pb2_grpc as pb_grpc
from sluice_probes.adapters.grpc_door import GrpcDoor
from sluice_probes.adapters.http_door import HttpDoor, trust
from sluice_probes.domain.findings import HTTP_UNAVAILABLE, UNREADABLE, Answer
from sluice_probes.settings import ProbesSettings

LOCAL = (("grpc.enable_http_proxy", 0),)
KEY = "sk-sluice-self-test-0"


@asynccontextmanager
async def answering(status: int, body: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers every request so. Its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        sent = body.encode()
        writer.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (status, len(sent)) + sent)
        await writer.drain()
        writer.close()

    async with listening(answer, tls=tls) as url:
        yield url


@asynccontextmanager
async def listening(answer: Callable[..., Awaitable[None]], *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def asked(
    url: str, *, streamed: bool = False, embeds: bool = False, seconds: float = 10, authority: Path | None = None
) -> Answer:
    async with httpx.AsyncClient(trust_env=False, verify=trust(authority)) as client:
        door = HttpDoor(client, url, KEY, streamed=streamed, seconds=seconds)
        return await (door.embed("m", ["a"]) if embeds else door.chat("m", "", "a", most_tokens=9))


def refused(**told: Any) -> str:
    return json.dumps({"error": {"message": "no", "sluice": told}})


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, '{"error": "not here"}'),
        (404, '{"error": null}'),
        (400, "[]"),
        (403, "<html>"),
        (400, '{"error": {"sluice": "x"}}'),
        (429, refused(reason=["A"])),
        (400, refused(reason="Ingrid Solberg is not allowed")),
        (200, "null"),
        (200, '{"choices": []}'),
        (200, '{"choices": [{"message": null, "finish_reason": "stop"}]}'),
        (200, '{"choices": [{"message": {"content": ["a"]}, "finish_reason": "stop"}]}'),
        (200, '{"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "sluice": [1]}'),
    ],
)
async def test_an_odd_answer_over_http_cannot_be_read(status: int, body: str) -> None:
    async with answering(status, body) as url:
        assert (await asked(url)).error == UNREADABLE


@pytest.mark.parametrize("body", ["<html>", '{"error": "bad gateway"}', '{"error": {}}', "[]", ""])
async def test_what_stands_before_a_gateway_that_is_away_says_so_by_its_status(body: str) -> None:
    async with answering(502, body) as url:
        assert (await asked(url)).error == HTTP_UNAVAILABLE


@pytest.mark.parametrize("body", ["data: []", "data: null", 'data: {"choices": [{}]}', 'data: {"error": "x"}'])
async def test_an_odd_stream_over_http_cannot_be_read(body: str) -> None:
    async with answering(200, body) as url:
        assert (await asked(url, streamed=True)).error == UNREADABLE


@pytest.mark.parametrize("body", ['{"data": [1]}', '{"data": null}', '{"data": [{"embedding": 1}]}'])
async def test_odd_vectors_over_http_cannot_be_read(body: str) -> None:
    async with answering(200, body) as url:
        assert (await asked(url, embeds=True)).error == UNREADABLE


async def test_a_refusal_over_http_is_read_with_its_evidence() -> None:
    async with answering(400, refused(reason="CONTENT_BLOCKED", policy="general@4", decision_id="d")) as url:
        assert await asked(url) == Answer(error="CONTENT_BLOCKED", policy="general@4", decision_ids=("d",))


@pytest.mark.parametrize(
    ("told", "policy"),
    [("default@1", "default@1"), ("Ingrid Solberg is not allowed", ""), ("x" * 65 + "@1", ""), (["default@1"], "")],
)
async def test_a_redaction_policy_is_read_by_its_form_and_other_words_are_told_to_nobody(
    told: Any, policy: str
) -> None:
    message = {"message": {"content": "a"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [message], "sluice": {"redaction_policy": told}})
    async with answering(200, body) as url:
        assert (await asked(url)).redaction_policy == policy


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:notaport", "http://[::1"])
async def test_where_nobody_can_be_asked_there_is_no_answer(url: str) -> None:
    assert (await asked(url)).error == "NO_ANSWER"


async def test_an_answer_that_drips_for_ever_is_none() -> None:
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\n\r\n")
        try:
            while not writer.is_closing():
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            gone.set()
            writer.close()

    async with asyncio.timeout(60), listening(drip) as url:
        assert (await asked(url, seconds=0.5)).error == "NO_ANSWER"
        await gone.wait()


async def test_the_authority_of_the_mesh_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with answering(400, refused(reason="CONTENT_BLOCKED"), tls=tls) as url:
        assert (await asked(url, authority=file)).error == "CONTENT_BLOCKED"
        assert (await asked(url)).error == "NO_ANSWER"


def test_the_http_door_has_tls_where_the_mesh_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ProbesSettings(home=tmp_path).http_url.startswith("http://")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SLUICE_TLS_CA_FILE", str(tmp_path / "ca.pem"))
    assert ProbesSettings(home=tmp_path).http_url.startswith("https://127.0.0.1:")


class Odd(pb_grpc.GatewayServiceServicer):
    """Answers nothing of what an answer should hold, or a status whose details are no details."""

    async def Chat(self, request: pb.ChatRequest, context: Any) -> pb.ChatResponse:
        return pb.ChatResponse()

    async def ChatStream(self, request: pb.ChatStreamRequest, context: Any) -> AsyncIterator[pb.ChatStreamResponse]:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff"),))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "odd")
        yield pb.ChatStreamResponse()


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_odd_answer_over_grpc_cannot_be_read(streamed: bool) -> None:
    server = grpc.aio.server(options=LOCAL)
    pb_grpc.add_GatewayServiceServicer_to_server(Odd(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=LOCAL) as channel:
            door = GrpcDoor(channel, KEY, streamed=streamed, seconds=10)
            assert (await door.chat("m", "", "a", most_tokens=9)).error == UNREADABLE
    finally:
        await server.stop(None)
