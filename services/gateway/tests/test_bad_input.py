"""What bad input gets: a specific error, an event that says so, and nothing left running."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import httpx
import pytest
from sluice.events.v1 import gateway_pb2 as events
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.types.v1 import chat_pb2
from sluice_gateway.domain.api_key import ApiKey, Keyring, mint
from sluice_gateway.domain.configuration import Deployment
from sluice_kit.errors import from_rpc_error

pytestmark = pytest.mark.asyncio(loop_scope="module")

Until = Callable[..., Awaitable[None]]


def _body(**fields: Any) -> bytes:
    return json.dumps({"model": "small", "messages": [{"role": "user", "content": "hello"}]} | fields).encode()


async def _post(mesh: Any, body: bytes, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=mesh.http_url, timeout=10) as client:
        return await client.post("/v1/chat/completions", content=body, headers=dict(mesh.credentials()) | headers)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_request"),
        (b"not json", 400, "malformed_json"),
        (b'{"model":"\xff","messages":[]}', 400, "not_utf8"),
        (_body(messages=[]), 400, "empty_request"),
        (_body(messages=[{"role": "user", "content": "x"}] * 10_000)[:99_000] + b" " * 1, 400, "malformed_json"),
        (_body(messages=[{"role": "user", "content": "x"}] * 101), 400, "too_many_messages"),
        (_body(messages=[{"role": "user", "content": "x" * 10_001}]), 413, "request_too_large"),
        (_body(messages=[{"role": "user", "content": "x" * 100_001}]), 413, "request_too_large"),
        (_body(messages=[{"role": "user", "content": 7}]), 400, "wrong_type"),
        (_body(temperature=1e300), 400, "invalid_value"),
        (_body(max_tokens=9000), 400, "invalid_value"),
        (_body(max_tokens=-1), 400, "invalid_value"),
        (_body(logprobs=True), 400, "unsupported_parameter"),
        (_body(model="nope"), 404, "model_not_found"),
        (_body(model="vectors"), 404, "model_not_found"),
    ],
)
async def test_bad_http_bodies_get_an_openai_error_and_an_event(mesh: Any, body: bytes, status: int, code: str) -> None:
    response = await _post(mesh, body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert response.headers["x-request-id"] == error["sluice"]["request_id"]
    event = await mesh.event()
    assert (event.outcome, event.reason) == (events.REQUEST_OUTCOME_INVALID, code.upper())
    assert (mesh.redaction.seen, mesh.inference.specs) == ([], [])


@pytest.mark.parametrize("key", ["x", "nonsense", "sk-sluice-test-" + "0" * 64, "sk-sluice-other-" + "0" * 64, "é"])
@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
async def test_without_a_valid_key_there_is_nothing_but_401(mesh: Any, key: str, scheme: str) -> None:
    async with httpx.AsyncClient(base_url=mesh.http_url) as client:
        headers = [(b"authorization", f"{scheme} {key}".encode())]
        response = await client.post("/v1/chat/completions", content=b"{", headers=headers)
        listing = await client.get("/v1/models", headers=headers)
    assert (response.status_code, listing.status_code) == (401, 401)
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert mesh.published.events == []


async def test_a_grpc_call_without_a_valid_key_is_unauthenticated(mesh: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mesh.stub().Chat(pb.ChatRequest(), metadata=[("x-sluice-tenant-id", "acme")])
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert mesh.published.events == []


async def test_a_grpc_message_that_is_not_utf8_is_an_invalid_argument_with_an_event(mesh: Any) -> None:
    channel = grpc.aio.insecure_channel(mesh.grpc_target)
    call = channel.unary_unary("/sluice.gateway.v1.GatewayService/Chat")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\x0a\x04\x0a\x02\xff\xfe", metadata=mesh.credentials())
    await channel.close()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(caught.value).reason == "MALFORMED_MESSAGE"
    assert (await mesh.event()).outcome == events.REQUEST_OUTCOME_INVALID


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (pb.ChatSpec(model="small"), "messages"),
        (pb.ChatSpec(model="small", messages=[chat_pb2.ChatMessage(content="x")]), "messages[0].role"),
        (pb.ChatSpec(model="small", prompt=pb.PromptReference(prompt="p@1")), "prompt"),
        (pb.ChatSpec(model="who"), "model"),
    ],
)
async def test_bad_grpc_requests_name_the_field(mesh: Any, spec: pb.ChatSpec, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mesh.stub().Chat(pb.ChatRequest(spec=spec), metadata=mesh.credentials())
    assert from_rpc_error(caught.value).field == field
    assert (await mesh.event()).outcome == events.REQUEST_OUTCOME_INVALID


async def test_a_deadline_of_one_millisecond_leaves_nothing_running(mesh: Any, eventually: Until) -> None:
    response = await _post(mesh, _body(), **{"x-sluice-timeout-ms": "1"})
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline")
    assert (await mesh.event()).outcome == events.REQUEST_OUTCOME_DEADLINE_EXCEEDED
    await eventually(lambda: mesh.inference.running == 0 and mesh.admission.in_flight == 0)


@pytest.mark.parametrize("rpc", ["Chat", "ChatStream"])
async def test_a_grpc_deadline_stops_the_model_and_the_event_says_so(mesh: Any, rpc: str, eventually: Until) -> None:
    mesh.inference.pause_after = 1
    request = pb.ChatRequest(spec=_spec()) if rpc == "Chat" else pb.ChatStreamRequest(spec=_spec())
    call = getattr(mesh.stub(), rpc)(request, metadata=mesh.credentials(), timeout=0.3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if rpc == "Chat":
            await call
        else:
            _ = [response async for response in call]
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await mesh.event()).outcome == events.REQUEST_OUTCOME_DEADLINE_EXCEEDED
    await eventually(lambda: mesh.inference.running == 0)


def _spec() -> pb.ChatSpec:
    return pb.ChatSpec(model="small", messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content="hello")])


async def test_a_grpc_caller_that_vanishes_midstream_stops_the_model(mesh: Any, eventually: Until) -> None:
    mesh.inference.script, mesh.inference.pause_after = ["One sentence. ", "Two"], 1
    call = mesh.stub().ChatStream(pb.ChatStreamRequest(spec=_spec()), metadata=mesh.credentials())
    async for response in call:
        if response.HasField("delta"):
            break
    call.cancel()
    event = await mesh.event()
    assert (event.outcome, event.usage.estimated) == (events.REQUEST_OUTCOME_CANCELLED, True)
    assert event.usage.output_tokens == 1
    await eventually(lambda: mesh.inference.running == 0 and mesh.admission.in_flight == 0)
    assert mesh.inference.cancelled == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_an_http_caller_that_hangs_up_stops_the_model(mesh: Any, stream: bool, eventually: Until) -> None:
    mesh.inference.script, mesh.inference.pause_after = ["One sentence. ", "Two"], 1
    host, port = mesh.http_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = _body(stream=stream)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {mesh.key}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    if stream:
        await reader.readuntil(b"One sentence")
    else:
        await eventually(lambda: mesh.inference.running == 1)
    writer.close()
    await writer.wait_closed()
    event = await mesh.event()
    assert (event.outcome, event.streamed) == (events.REQUEST_OUTCOME_CANCELLED, stream)
    await eventually(lambda: mesh.inference.running == 0 and mesh.admission.in_flight == 0)


async def test_an_http_caller_that_hangs_up_within_its_body_is_told_of_in_an_event(mesh: Any) -> None:
    host, port = mesh.http_url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {mesh.key}\r\n"
    writer.write(f'{head}content-length: 500\r\n\r\n{{"model":'.encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await mesh.event()).outcome == events.REQUEST_OUTCOME_CANCELLED


async def test_a_tenants_requests_over_its_concurrency_are_shed_with_an_event(mesh: Any, eventually: Until) -> None:
    from sluice_gateway.domain.configuration import Limits

    mesh.set_tenant(limits=Limits(concurrency=1))
    mesh.inference.pause_after = 0
    stuck = mesh.stub().Chat(pb.ChatRequest(spec=_spec()), metadata=mesh.credentials())
    await eventually(lambda: mesh.inference.running == 1)
    response = await _post(mesh, _body())
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert (await mesh.event()).outcome == events.REQUEST_OUTCOME_SHED
    stuck.cancel()
    await eventually(lambda: len(mesh.published.events) == 2)


async def test_other_paths_and_methods_get_openai_errors(mesh: Any) -> None:
    async with httpx.AsyncClient(base_url=mesh.http_url) as client:
        missing, wrong = await client.get("/v2/else"), await client.get("/v1/chat/completions")
        health, metrics = await client.get("/healthz"), await client.get("/metrics")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "path_not_found")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert (health.status_code, health.json()) == (200, {"status": "serving"})
    assert "sluice_gateway_requests_total" in metrics.text


async def test_the_callers_trace_goes_on_in_every_neighbour(mesh: Any) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    await _post(mesh, _body(), traceparent=f"00-{trace}-b7ad6b7169203331-01")
    for neighbour in (mesh.redaction, mesh.moderation, mesh.inference):
        assert all(metadata["traceparent"].split("-")[1] == trace for metadata in neighbour.metadata)


async def test_a_caller_cannot_choose_its_tenant_or_request_id(mesh: Any) -> None:
    lies = {"x-sluice-tenant-id": "other", "x-request-id": "mine", "x-sluice-synthetic": "true"}
    response = await _post(mesh, _body(), **lies)
    assert response.headers["x-request-id"] != "mine"
    await mesh.stub().Chat(pb.ChatRequest(spec=_spec()), metadata=[*mesh.credentials(), *lies.items()])
    for metadata in mesh.inference.metadata:
        assert (metadata["x-sluice-tenant-id"], "x-sluice-synthetic" in metadata) == ("acme", False)
        assert metadata["x-request-id"] != "mine"


async def test_models_are_listed_over_grpc(mesh: Any) -> None:
    response = await mesh.stub().ListModels(pb.ListModelsRequest(), metadata=mesh.credentials())
    assert [(model.model, model.owned_by) for model in response.models] == [("small", "us"), ("vectors", "sluice")]


async def test_the_model_of_self_tests_is_told_to_self_tests_alone(mesh: Any) -> None:
    probe, sha256 = mint("probe")
    keys = [mesh.configuration.keyring.find(mesh.key), ApiKey("probe", sha256, "acme", "lab", synthetic=True)]
    hidden = Deployment("hidden", "sluice-self-test", synthetic=True)
    deployments = {"hidden": hidden, **mesh.configuration.deployments}
    mesh.configuration = replace(mesh.configuration, keyring=Keyring(keys), deployments=deployments)
    seen = {mesh.key: ["small", "vectors"], probe: ["hidden", "small", "vectors"]}
    async with httpx.AsyncClient(base_url=mesh.http_url) as client:
        for key, aliases in seen.items():
            listed = await mesh.stub().ListModels(pb.ListModelsRequest(), metadata=mesh.credentials(key))
            assert [model.model for model in listed.models] == aliases
            headers = dict(mesh.credentials(key))
            models = (await client.get("/v1/models", headers=headers)).json()["data"]
            assert [model["id"] for model in models] == aliases
            one = await client.get("/v1/models/hidden", headers=headers)
            assert one.status_code == (200 if "hidden" in aliases else 404)


async def test_a_direct_request_for_the_model_of_self_tests_is_the_inference_services_to_refuse(mesh: Any) -> None:
    hidden = Deployment("hidden", "sluice-self-test", synthetic=True)
    mesh.configuration = replace(mesh.configuration, deployments={"hidden": hidden})
    response = await _post(mesh, _body(model="hidden"))
    assert response.status_code == 200
    assert [spec.model for spec in mesh.inference.specs] == ["sluice-self-test"]
    assert "x-sluice-synthetic" not in mesh.inference.metadata[0]


async def test_embeddings_over_grpc_are_guarded(mesh: Any) -> None:
    response = await mesh.stub().Embed(
        pb.EmbedRequest(model="vectors", texts=["I am a.b@example.org"]), metadata=mesh.credentials()
    )
    assert list(response.embeddings[0].values) == pytest.approx([0.6, 0.8])
    assert mesh.inference.seen == ["I am <EMAIL_ADDRESS_1>"]
    with pytest.raises(grpc.aio.AioRpcError, match="blocked by policy"):
        await mesh.stub().Embed(pb.EmbedRequest(texts=["ABUSE"]), metadata=mesh.credentials())
    assert (await mesh.event(2)).operation == events.REQUEST_OPERATION_EMBED
