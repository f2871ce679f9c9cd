"""Real conversations through both doors of a real mesh."""

import json
import subprocess
from typing import Any

import grpc
import httpx
import openai
import pytest
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from sluice.events.v1 import inference_pb2
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.gateway.v1 import gateway_service_pb2_grpc
from sluice.types.v1 import chat_pb2, generation_pb2
from sluice_cli.mesh import demo_env
from sluice_cli.mesh.board import snippets
from sluice_cli.mesh.plan import SELF_TEST_MODEL
from sluice_drift.adapters.facts import observations_of

from .conftest import Mesh, eventually

PERSONAL = "My name is Maria Keller, write to maria.keller@example.com. Greet me."
ABUSE = "You are a worthless piece of garbage and I hate you, you stupid idiot."
SECONDS = 120


def openai_client(mesh: Mesh, key: str = "") -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{mesh.environment['SLUICE_HTTP_URL']}/v1",
        api_key=key or mesh.environment["SLUICE_API_KEY"],
        http_client=openai.DefaultHttpxClient(trust_env=False, timeout=SECONDS),
        max_retries=0,
    )


def spec(text: str, **more: Any) -> pb.ChatSpec:
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=text)
    return pb.ChatSpec(
        model="sluice-small", messages=[message], stopping=generation_pb2.StoppingParameters(max_tokens=24), **more
    )


def options(mesh: Mesh) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {mesh.environment['SLUICE_API_KEY']}"),), "timeout": SECONDS}


def gateway(mesh: Mesh) -> tuple[grpc.Channel, Any]:
    channel = grpc.insecure_channel(mesh.environment["SLUICE_GRPC_TARGET"], options=[("grpc.enable_http_proxy", 0)])
    return channel, gateway_service_pb2_grpc.GatewayServiceStub(channel)


def test_the_openai_client_gets_an_answer_whole_and_streamed(mesh: Mesh) -> None:
    with openai_client(mesh) as client:
        asked: dict[str, Any] = {
            "model": "sluice-small",
            "messages": [{"role": "user", "content": PERSONAL}],
            "max_tokens": 24,
        }
        whole = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        models = [model.id for model in client.models.list()]
    assert whole.choices[0].message.content
    assert whole.usage is not None
    assert 0 < whole.usage.completion_tokens <= 24
    assert whole.model_extra is not None
    assert whole.model_extra["sluice"]["redacted_input"] == {"EMAIL_ADDRESS": 1, "PERSON": 1}
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert [chunk.usage for chunk in chunks if chunk.usage]
    assert {"sluice-small", "sluice-embed"} <= set(models)
    assert SELF_TEST_MODEL not in models


def test_the_openai_client_gets_vectors_of_redacted_texts(mesh: Mesh) -> None:
    with openai_client(mesh) as client:
        answer = client.embeddings.create(model="sluice-embed", input=[PERSONAL, "The sea is calm."])
    one, other = (embedding.embedding for embedding in answer.data)
    assert len(one) == len(other) > 10
    assert one != other


def test_grpc_callers_get_an_answer_whole_and_streamed(mesh: Mesh) -> None:
    channel, stub = gateway(mesh)
    with channel:
        whole = stub.Chat(pb.ChatRequest(spec=spec(PERSONAL)), **options(mesh))
        events = list(stub.ChatStream(pb.ChatStreamRequest(spec=spec(PERSONAL)), **options(mesh)))
    assert whole.choices[0].message.content
    assert {each.kind for each in whole.guard.redacted_input} == {"EMAIL_ADDRESS", "PERSON"}
    assert [event.WhichOneof("event") for event in (events[0], events[-1])] == ["started", "finished"]
    assert "".join(event.delta.content for event in events)
    assert {event.request_id for event in events} == {events[0].request_id}


def test_drift_slices_a_generation_by_the_route_that_its_request_took(mesh: Mesh) -> None:
    channel, stub = gateway(mesh)
    with channel:
        answer = stub.Chat(pb.ChatRequest(spec=spec("Where does the river end?")), **options(mesh))
    measured = eventually(lambda: _of_request(mesh, "InferenceMeasured", answer.request_id))
    completed = eventually(lambda: _of_request(mesh, "RequestCompleted", answer.request_id))
    assert measured, "no measurement of the answered request"
    assert measured["route"] == completed["route"] == f"{demo_env.MODEL}/{demo_env.MODEL_TARGET}"
    event = ParseDict(measured, inference_pb2.InferenceMeasured())
    of_tenant, of_everybody = observations_of(event, partition=0, offset=0, record_time=0)
    assert dict(of_tenant.slices)["route"] == dict(of_everybody.slices)["route"] == completed["route"]


def test_what_a_request_is_made_with_is_in_its_events_its_cost_and_the_slices_of_drift(mesh: Mesh) -> None:
    labels = {"prompt_version": demo_env.PROMPT_VERSIONS[1], "experiment_arm": demo_env.EXPERIMENT_ARMS[1]}
    channel, stub = gateway(mesh)
    with channel:
        answer = stub.Chat(pb.ChatRequest(spec=spec("Where does the river begin?", labels=labels)), **options(mesh))
    with openai_client(mesh) as client:
        question: Any = [{"role": "user", "content": "Where does the river begin?"}]
        whole = client.chat.completions.create(model="sluice-small", messages=question, max_tokens=24, metadata=labels)
    for request_id in (answer.request_id, whole.id.removeprefix("chatcmpl-")):
        for name in ("RequestCompleted", "InferenceMeasured", "CostRecorded"):
            told = eventually(lambda name=name, request_id=request_id: _of_request(mesh, name, request_id))
            assert {label: told.get(label) for label in labels} == labels, (name, told)
    measured = ParseDict(_of_request(mesh, "InferenceMeasured", answer.request_id), inference_pb2.InferenceMeasured())
    for observation in observations_of(measured, partition=0, offset=0, record_time=0):
        assert labels.items() <= dict(observation.slices).items()


def _of_request(mesh: Mesh, name: str, request_id: str) -> dict[str, Any]:
    told = (line.get("data", {}) for line in mesh.events(name))
    return next((data for data in told if data.get("metadata", {}).get("request_id") == request_id), {})


def test_abuse_is_blocked_at_both_doors_before_the_model(mesh: Mesh) -> None:
    with openai_client(mesh) as client, pytest.raises(openai.BadRequestError) as over_http:
        client.chat.completions.create(model="sluice-small", messages=[{"role": "user", "content": ABUSE}])
    assert over_http.value.code == "content_filter"
    channel, stub = gateway(mesh)
    with channel, pytest.raises(grpc.RpcError) as over_grpc:
        stub.Chat(pb.ChatRequest(spec=spec(ABUSE)), **options(mesh))
    assert over_grpc.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(over_grpc.value)
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.reason == "CONTENT_BLOCKED"


def test_a_wrong_key_is_turned_away_at_both_doors(mesh: Mesh) -> None:
    key = f"sk-sluice-acme-{'0' * 64}"
    with openai_client(mesh, key) as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    channel, stub = gateway(mesh)
    with channel, pytest.raises(grpc.RpcError) as refused:
        stub.ListModels(pb.ListModelsRequest(), metadata=(("authorization", f"Bearer {key}"),), timeout=SECONDS)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_lines_to_paste_work_as_they_are(mesh: Mesh) -> None:
    for title, snippet in snippets(mesh.home, mesh.environment).items():
        done = subprocess.run(["bash", "-c", snippet], capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, (title, done.stderr)
        assert len(done.stdout.strip()) > 1, title


def test_every_service_serves_its_metrics(mesh: Mesh) -> None:
    from sluice_kit.addresses import DEFAULT_PORTS

    names = [name for name in DEFAULT_PORTS if name.startswith("metrics_") and name != "metrics_registry"] + [
        "quality_web",
        "drift_web",
        "fairness_web",
    ]
    with httpx.Client(trust_env=False) as client:
        for name in names:
            answer = client.get(f"http://127.0.0.1:{DEFAULT_PORTS[name] + mesh.offset}/metrics")
            assert (answer.status_code, "# TYPE" in answer.text) == (200, True), name


def test_the_demonstration_ends_well_and_all_counts_agree(mesh: Mesh) -> None:
    demo = mesh.sluice("demo", "--count", "12", "--seed", "3", timeout=300)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Nothing lost, nothing twice" in demo.stdout
    assert "✗" not in demo.stdout


def test_events_are_readable_as_json_lines_and_a_broken_one_does_not_end_them(mesh: Mesh) -> None:
    import asyncio

    from aiokafka import AIOKafkaProducer

    topic = "sluice.gateway.request_completed.v1"

    async def send_garbage() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=mesh.environment["SLUICE_KAFKA_BOOTSTRAP"])
        await producer.start()
        try:
            await producer.send_and_wait(topic, b"\xff\xff no protobuf", key=b"x")
        finally:
            await producer.stop()

    asyncio.run(send_garbage())
    with openai_client(mesh) as client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="sluice-small", messages=[{"role": "user", "content": ABUSE}])
    lines = eventually(lambda: _with_both(mesh))
    assert lines, "no error line, or nothing after it"
    dead = eventually(lambda: mesh.events(f"{topic}.dlq"))
    assert dead
    assert "malformed" in dead[0]["error"]
    told = mesh.sluice("events", "tail", "--from-beginning", "--max", "3", "--type", "RequestCompleted")
    assert (told.returncode, len([json.loads(line) for line in told.stdout.splitlines()])) == (0, 3)


def _with_both(mesh: Mesh) -> list[dict[str, Any]]:
    lines = mesh.events("RequestCompleted")
    errors = [line for line in lines if "error" in line]
    blocked = [line for line in lines if line.get("data", {}).get("outcome") == "REQUEST_OUTCOME_BLOCKED_INPUT"]
    return lines if errors and blocked else []
