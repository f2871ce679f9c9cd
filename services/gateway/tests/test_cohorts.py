"""Cohorts: declared at both doors, standing with a key, configured and never free text."""

from typing import Any

import grpc
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.types.v1 import chat_pb2
from sluice_gateway.domain.cohorts import cohort_labels, cohorts_of
from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.rejection import Rejection

at_both_doors = pytest.mark.asyncio(loop_scope="module")
ALLOWED = {"plan": ("free", "pro"), "channel": ("kiosk", "web")}
CANARY = "jane.doe@example.org"


async def over_grpc(mesh: Any, labels: dict[str, str]) -> None:
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content="hello")
    spec = pb.ChatSpec(model="small", messages=[message], labels=labels)
    await mesh.stub().Chat(pb.ChatRequest(spec=spec), metadata=mesh.credentials(), timeout=10)


async def over_http(mesh: Any, labels: dict[str, str]) -> httpx.Response:
    body = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "metadata": labels}
    async with httpx.AsyncClient(base_url=mesh.http_url, headers=dict(mesh.credentials())) as client:
        return await client.post("/v1/chat/completions", json=body)


@at_both_doors
async def test_what_a_caller_declares_is_in_the_event_and_other_labels_are_not(mesh: Any) -> None:
    mesh.set_tenant(cohorts=ALLOWED)
    labels = {"cohort.plan": "free", "cohort.channel": "web", "note": CANARY}
    await over_grpc(mesh, labels)
    assert (await over_http(mesh, labels)).status_code == 200
    await mesh.event(2)
    for event in mesh.published.events:
        assert [(each.attribute, each.value) for each in event.cohorts] == [("channel", "web"), ("plan", "free")]
        assert CANARY.encode() not in event.SerializeToString()


@at_both_doors
async def test_a_cohort_that_is_not_configured_is_refused_and_not_repeated(mesh: Any) -> None:
    mesh.set_tenant(cohorts=ALLOWED)
    with pytest.raises(grpc.aio.AioRpcError, match=r"cohort\.plan must be one of free, pro") as refused:
        await over_grpc(mesh, {"cohort.plan": CANARY})
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    answer = await over_http(mesh, {f"cohort.{CANARY}": "free"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "metadata"
    assert "there are: cohort.channel, cohort.plan" in answer.json()["error"]["message"]
    assert CANARY not in answer.text
    await mesh.event(2)
    for event in mesh.published.events:
        assert (event.reason, list(event.cohorts)) == ("INVALID_VALUE", [])


@given(st.dictionaries(st.sampled_from(sorted(ALLOWED)), st.sampled_from(["free", "pro", "kiosk", "web"])))
def test_only_configured_pairs_pass_and_what_stands_with_the_key_wins(declared: dict[str, str]) -> None:
    standing = {"channel": "kiosk"}
    if all(value in ALLOWED[name] for name, value in declared.items()):
        assert cohorts_of(declared, standing, allowed=ALLOWED, door=Door.GRPC) == declared | standing
    else:
        with pytest.raises(Rejection):
            cohorts_of(declared, standing, allowed=ALLOWED, door=Door.GRPC)


def test_only_labels_that_begin_so_declare_a_cohort() -> None:
    assert cohort_labels({"cohort.plan": "pro", "plan": "free", "Cohort.plan": "x"}) == {"plan": "pro"}
    assert cohort_labels(None) == {}
