"""A round of self-tests sees real filters on, whether a tenant's policy refuses, holds or takes sentences out."""

from collections import Counter
from typing import Any

import grpc
import httpx
import pytest
import yaml
from sluice.redaction.v1 import redaction_service_pb2 as redaction
from sluice.redaction.v1 import redaction_service_pb2_grpc as redaction_rpc
from sluice.types.v1.verdict_pb2 import DIRECTION_INPUT
from sluice_inference.domain import self_test
from sluice_insight.adapters.alerting.rule_files import SHIPPED, read_rules
from sluice_kit.configuration import source_files
from sluice_probes.adapters.doors import GatewayDoors
from sluice_probes.domain import marks
from sluice_probes.domain.canaries import KINDS, canaries
from sluice_probes.domain.findings import CHAT_ROUTES, ROUTES, State, guards_of
from sluice_probes.domain.round import Round, run_round
from sluice_redaction.adapters import policy_files

RULE: Any = next(rule for rule in read_rules(source_files(SHIPPED)) if rule.name == "probe.recall_low")
WATCHED = RULE.filters["redaction_policy"]


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


def test_the_shipped_policies_that_recall_is_watched_of_are_all_that_look_for_every_kind() -> None:
    shipped = [yaml.safe_load(path.read_text()) for path in policy_files.SHIPPED.glob("*.yaml")]
    assert len(shipped) == 5
    assert {f"{each['policy']}@{each['version']}" for each in shipped if each["policy"] != "secrets"} == WATCHED


@pytest.mark.parametrize("watched", sorted(WATCHED))
def test_what_the_shipped_policies_find_is_no_alarm(guarded: Any, watched: str) -> None:
    sought: Counter[str] = Counter()
    found: Counter[str] = Counter()
    with grpc.insecure_channel(guarded.redaction.target) as channel:
        stub: Any = redaction_rpc.RedactionServiceStub(channel)
        for number in range(32):  # each of an origin's sixteen names twice
            seeded = canaries(number)
            text = redaction.TextSegment(segment_id="a", text="\n".join(canary.sentence for canary in seeded))
            policy, _, version = watched.partition("@")
            request = redaction.RedactRequest(segments=[text], policy_id=policy, direction=DIRECTION_INPUT)
            answer = stub.Redact(request, timeout=60)
            assert answer.policy_version == int(version)
            told = marks.marks_in(self_test.answer(marks.instruction(marks.REPORT), answer.segments[0].text))
            assert told is not None
            sought.update(canary.kind for canary in seeded)
            found.update(canary.kind for canary in seeded if not marks.marks_of(canary.value) & told)
    assert min(sought.values()) >= RULE.min_samples
    assert not [kind for kind in KINDS if RULE.condition.holds(found[kind] / sought[kind])], (found, sought)


@pytest.mark.parametrize(("tenant", "others"), [("plain", {"small"}), ("holding", {"small"}), ("redacting", set())])
async def test_every_guard_is_seen_on_whatever_its_policy_does(guarded: Any, tenant: str, others: set[str]) -> None:
    guarded.model.asked.clear()
    result = await round_of(guarded, tenant)
    found = result.findings
    assert {(each.redaction_policy, each.is_found) for each in result.detections} == {("default@1", True)}
    assert [each for each in found if each.state is not State.GUARDED] == []
    assert {(each.route, each.guard) for each in found} == {(r, g) for r in ROUTES for g in guards_of(r)}
    assert {each.model for each in found if each.route in CHAT_ROUTES} == {"sluice-self-test", *others}
    assert not any("Ignore all previous" in asked for asked in guarded.model.asked)
