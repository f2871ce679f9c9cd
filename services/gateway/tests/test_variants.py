"""Prompt versions and experiment arms: declared at both doors, told to the event and the model, never free text."""

from typing import Any

import grpc
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.types.v1 import chat_pb2
from sluice_gateway.domain.chat import Variant
from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.configuration import Tenant
from sluice_gateway.domain.rejection import Rejection
from sluice_gateway.domain.variants import allowed_variant, variant_of

at_both_doors = pytest.mark.asyncio(loop_scope="module")
PROMPTS, ARMS = ("greeting@2", "greeting@3"), ("tone/a", "tone/b")
CANARY = "jane.doe@example.org"


async def over_grpc(mesh: Any, labels: dict[str, str], *, streamed: bool = False) -> None:
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content="hello")
    spec = pb.ChatSpec(model="small", messages=[message], labels=labels)
    if not streamed:
        await mesh.stub().Chat(pb.ChatRequest(spec=spec), metadata=mesh.credentials(), timeout=10)
        return
    call = mesh.stub().ChatStream(pb.ChatStreamRequest(spec=spec), metadata=mesh.credentials(), timeout=10)
    assert [response async for response in call]


async def over_http(mesh: Any, labels: dict[str, str], *, streamed: bool = False) -> httpx.Response:
    body = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "metadata": labels}
    async with httpx.AsyncClient(base_url=mesh.http_url, headers=dict(mesh.credentials())) as client:
        return await client.post("/v1/chat/completions", json=body | {"stream": streamed})


@at_both_doors
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_what_a_caller_declares_is_in_the_event_and_told_to_the_model(mesh: Any, streamed: bool) -> None:
    mesh.set_tenant(prompt_versions=PROMPTS, experiment_arms=ARMS)
    labels = {"prompt_version": "greeting@3", "experiment_arm": "tone/b"}
    await over_grpc(mesh, labels | {"note": CANARY}, streamed=streamed)
    assert (await over_http(mesh, labels | {"note": CANARY}, streamed=streamed)).status_code == 200
    await mesh.event(2)
    for event in mesh.published.events:
        assert (event.prompt_version, event.experiment_arm) == ("greeting@3", "tone/b")
        assert CANARY.encode() not in event.SerializeToString()
    assert [dict(spec.labels) for spec in mesh.inference.specs] == [labels | {"route": "small/fake-1"}] * 2


@at_both_doors
async def test_one_may_be_declared_without_the_other(mesh: Any) -> None:
    mesh.set_tenant(prompt_versions=PROMPTS, experiment_arms=ARMS)
    await over_grpc(mesh, {"prompt_version": "greeting@2", "experiment_arm": ""})
    event = await mesh.event()
    assert (event.prompt_version, event.experiment_arm) == ("greeting@2", "")
    assert dict(mesh.inference.specs[0].labels) == {"prompt_version": "greeting@2", "route": event.route}


@at_both_doors
async def test_what_is_not_configured_is_refused_and_not_repeated(mesh: Any) -> None:
    mesh.set_tenant(prompt_versions=PROMPTS)
    with pytest.raises(grpc.aio.AioRpcError, match="prompt_version must be one of greeting@2, greeting@3") as refused:
        await over_grpc(mesh, {"prompt_version": CANARY})
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    answer = await over_http(mesh, {"prompt_version": "greeting@3", "experiment_arm": CANARY})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "metadata.experiment_arm"
    assert "no experiment_arm configured for this tenant" in answer.json()["error"]["message"]
    assert CANARY not in answer.text
    await mesh.event(2)
    for event in mesh.published.events:
        assert (event.reason, event.prompt_version, event.experiment_arm) == ("INVALID_VALUE", "", "")
    assert not mesh.inference.specs


@given(st.sampled_from(["", *PROMPTS, *ARMS, CANARY]), st.sampled_from(["", *PROMPTS, *ARMS, CANARY]))
def test_only_configured_names_pass(prompt_version: str, experiment_arm: str) -> None:
    tenant = Tenant("acme", prompt_versions=PROMPTS, experiment_arms=ARMS)
    declared = variant_of({"prompt_version": prompt_version, "experiment_arm": experiment_arm})
    if prompt_version in ("", *PROMPTS) and experiment_arm in ("", *ARMS):
        assert allowed_variant(declared, tenant, door=Door.HTTP) == Variant(prompt_version, experiment_arm)
    else:
        with pytest.raises(Rejection):
            allowed_variant(declared, tenant, door=Door.HTTP)


def test_who_declares_nothing_is_of_no_variant() -> None:
    assert variant_of(None) == variant_of({"cohort.plan": "free", "Prompt_Version": "x"}) == Variant()
