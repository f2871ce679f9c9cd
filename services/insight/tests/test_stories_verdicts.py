"""What moderation decided of a request: it is found by it in any order of events, and in files of before too."""

import asyncio
import sqlite3
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import grpc
import pytest
from sluice.events.v1 import gateway_pb2, moderation_pb2
from sluice.insight.v1 import request_service_pb2 as pb
from sluice.types.v1 import verdict_pb2
from sluice.types.v1.verdict_pb2 import ACTION_ALLOW, ACTION_BLOCK, ACTION_FLAG, ACTION_REDACT, ACTION_SKIPPED
from sluice_insight.adapters.stories.store import Stories
from sluice_insight.domain.request_query import RequestQuery

from .story_house import DAY_US, House, completed, described

Reached = tuple[str, verdict_pb2.Action.ValueType]


def decided(
    request_id: str,
    number: int,
    action: verdict_pb2.Action.ValueType,
    reached: Sequence[Reached] = (),
    *,
    shadow: bool = False,
    **described_by: Any,
) -> moderation_pb2.ContentModerated:
    """A decision with the categories that reached their threshold, and one that did not."""
    event = moderation_pb2.ContentModerated(shadow=shadow)
    event.verdict.action, event.verdict.decision_id = action, f"d{number}"
    event.verdict.scores.add(category="violence", score=0.1, threshold=0.5, action=ACTION_BLOCK)
    for category, asked_for in reached:
        event.verdict.scores.add(category=category, score=0.5, threshold=0.5, action=asked_for)
    return described(event, number, request_id, **described_by)  # type: ignore[no-any-return]


async def the_line(house: House, request_id: str) -> pb.RequestSummary:
    return (await house.stub.GetRequest(pb.GetRequestRequest(request_id=request_id))).summary


async def test_requests_are_found_by_what_moderation_decided_and_because_of_what(house: House) -> None:
    both = [("toxicity", ACTION_FLAG), ("insult", ACTION_BLOCK)]
    await house.take(
        completed("plain", seconds=1), decided("plain", 1, ACTION_ALLOW), decided("plain", 2, ACTION_ALLOW),
        completed("flagged", seconds=2), decided("flagged", 1, ACTION_ALLOW), decided("flagged", 2, ACTION_FLAG, both[:1]),
        completed("blocked", seconds=3, blocked_categories=["insult"]), decided("blocked", 1, ACTION_BLOCK, both),
        completed("mixed", seconds=4), decided("mixed", 1, ACTION_REDACT), decided("mixed", 2, ACTION_FLAG, [("insult", ACTION_FLAG)]),
        completed("shadowed", seconds=5), decided("shadowed", 1, ACTION_BLOCK, both, shadow=True),
        completed("unchecked", seconds=6, skipped_filters=["redaction", "moderation"]), decided("unchecked", 1, ACTION_ALLOW),
        completed("unfinished verdict", seconds=7, blocked_categories=["hate"]),
    )  # fmt: skip
    assert await house.ids(verdict=ACTION_ALLOW) == ["plain"]
    assert await house.ids(verdict=ACTION_FLAG) == ["mixed", "flagged"]
    assert await house.ids(verdict=ACTION_REDACT) == ["mixed"]
    assert await house.ids(verdict=ACTION_BLOCK) == ["blocked"]
    assert await house.ids(verdict=ACTION_SKIPPED) == ["unchecked"]
    assert await house.ids(category="toxicity") == ["blocked", "flagged"]
    assert await house.ids(category="hate") == ["unfinished verdict"]
    assert await house.ids(category="violence") == []
    assert await house.ids(verdict=ACTION_BLOCK, category="insult") == ["blocked"]
    assert await house.ids(verdict=ACTION_BLOCK, category="toxicity") == [], "it only asked for a flag"
    assert await house.ids(verdict=ACTION_FLAG, category="toxicity", kind="EMAIL_ADDRESS") == ["flagged"]
    assert await house.ids(verdict=ACTION_REDACT, category="insult") == [], "another decision flagged it"
    assert await house.ids((("x-sluice-tenant-id", "globex"),), verdict=ACTION_FLAG) == []
    line = await the_line(house, "mixed")
    assert (list(line.verdicts), list(line.categories)) == ([ACTION_FLAG, ACTION_REDACT], ["insult"])
    line = await the_line(house, "shadowed")
    assert (list(line.verdicts), list(line.categories)) == ([], [])


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_a_late_or_repeated_decision_changes_what_a_request_is_found_by_and_no_more(
    house: House, order: tuple[int, ...]
) -> None:
    events = [
        completed("r1"),
        decided("r1", 1, ACTION_ALLOW, seconds=-1),
        decided("r1", 2, ACTION_FLAG, [("toxicity", ACTION_FLAG)], seconds=9),
    ]
    for one in order:
        await house.take(events[one])
        await house.take(events[one], events[one])
    assert await house.ids(verdict=ACTION_FLAG, category="toxicity") == ["r1"]
    assert await house.ids(verdict=ACTION_ALLOW) == [], "it was found by it until the flag came"
    line = await the_line(house, "r1")
    assert (list(line.verdicts), list(line.categories)) == ([ACTION_FLAG], ["toxicity"])
    assert house.marks("r1") == {"kind:EMAIL_ADDRESS", "category:toxicity", "verdict:2", "verdict:2:toxicity"}


def as_written_before(path: Path) -> None:
    """Takes from a file what the release before did not write: the file as it was."""
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM marks WHERE mark LIKE 'verdict:%' OR mark LIKE 'category:%'")
        for request_id, tenant_id, line in file.execute("SELECT request_id, tenant_id, line FROM requests").fetchall():
            old = pb.RequestSummary.FromString(line)
            old.ClearField("verdicts")
            old.ClearField("categories")
            file.execute(
                "UPDATE requests SET line = ? WHERE request_id = ? AND tenant_id = ?",
                (old.SerializeToString(), request_id, tenant_id),
            )
        file.execute("PRAGMA user_version = 2")
    file.close()


async def test_a_file_of_the_release_before_keeps_all_it_has_and_is_found_by_verdict_soon(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    before = House(path)
    for tenant in ("acme", "globex"):
        for i in range(250):
            flag = decided(f"r{i:03}", 1, ACTION_FLAG, [("toxicity", ACTION_FLAG)], tenant=tenant)
            await before.take(completed(f"r{i:03}", seconds=i, tenant=tenant), flag)
    offsets = await before.stories.offsets()
    before.stories.close()
    as_written_before(path)

    flagged = RequestQuery(limit=1_000, marks=("verdict:2:toxicity",))
    interrupted = House(path)
    assert len(await interrupted.stories.find(RequestQuery(limit=1_000))) == 500
    assert await interrupted.stories.offsets() == offsets, "nothing is read again: the topics may not have it any more"
    assert await interrupted.stories.find(flagged) == []
    assert await interrupted.stories.renew() == 200, "a part at once, so that new events do not wait"
    interrupted.stories.close()

    after = House(path, keep_us=100 * 365 * DAY_US)
    await after.take(completed("new"), decided("new", 1, ACTION_FLAG, [("toxicity", ACTION_FLAG)]))
    upkeep = asyncio.create_task(after.feed.keep_bounded())
    async with asyncio.timeout(30):
        while len(await after.stories.find(flagged)) < 501:
            await asyncio.sleep(0.01)
        while await after.stories.renew():
            pass
    upkeep.cancel()
    line = (await after.stories.find(flagged))[0]
    assert (list(line.verdicts), list(line.categories)) == ([ACTION_FLAG], ["toxicity"])
    after.stories.close()

    done = Stories(path, most_requests=1_000, keep_us=30 * DAY_US)
    assert await done.renew() == 0, "what was done once is not done at each start"
    assert len(await done.find(flagged)) == 501
    done.close()


async def test_an_unknown_verdict_is_refused_with_those_that_there_are(house: House) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.stub.ListRequests(pb.ListRequestsRequest(verdict=99))  # type: ignore[arg-type]
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ACTION_FLAG" in (refused.value.details() or "")


async def test_what_is_forgotten_leaves_no_mark_of_its_verdict(tmp_path: Path) -> None:
    small = House(tmp_path / "small.db", most_requests=1)
    for i in range(3):
        blocked = decided(f"r{i}", 1, ACTION_BLOCK, [("insult", ACTION_BLOCK)])
        await small.take(completed(f"r{i}", seconds=i, outcome=gateway_pb2.REQUEST_OUTCOME_BLOCKED_INPUT), blocked)
    assert await small.stories.prune(0) == 2
    assert [small.marks(f"r{i}") for i in range(2)] == [set(), set()]
    assert "verdict:4:insult" in small.marks("r2")
    small.stories.close()
