"""A round of self-tests sees real filters on, whether a tenant's policy refuses, holds or takes sentences out."""

from typing import Any

import grpc
import httpx
import pytest
from sluice_probes.adapters.doors import GatewayDoors
from sluice_probes.domain.findings import CHAT_ROUTES, ROUTES, State, guards_of
from sluice_probes.domain.round import Round, run_round


async def round_of(guarded: Any, tenant: str) -> Round:
    async with (
        grpc.aio.insecure_channel(guarded.gateway.target) as channel,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        doors = GatewayDoors(channel, client, url=guarded.url, seconds=90).doors(guarded.keys[tenant])
        return await run_round(
            doors,
            number=1,
            key_id=tenant,
            model="sluice-self-test",
            embedding_model="vectors",
            aliases=("small", "vectors"),
        )


@pytest.mark.parametrize(("tenant", "others"), [("plain", {"small"}), ("holding", {"small"}), ("redacting", set())])
async def test_every_guard_is_seen_on_whatever_its_policy_does(guarded: Any, tenant: str, others: set[str]) -> None:
    guarded.model.asked.clear()
    found = (await round_of(guarded, tenant)).findings
    assert [each for each in found if each.state is not State.GUARDED] == []
    assert {(each.route, each.guard) for each in found} == {(r, g) for r in ROUTES for g in guards_of(r)}
    assert {each.model for each in found if each.route in CHAT_ROUTES} == {"sluice-self-test", *others}
    assert not any("Ignore all previous" in asked for asked in guarded.model.asked)
