"""A Faust worker that is back within its session, at another address."""

from pathlib import Path
from typing import Any

import faust
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor.client_assignment import ClientAssignment
from sluice_kit.streams.options import WorkerOptions
from sluice_kit.streams.worker import create_app


def app_at(port: int, home: Path) -> faust.App:
    return create_app(
        WorkerOptions(
            group="group",
            instance="0",
            bootstrap="127.0.0.1:9",
            partitions=2,
            data_dir=home,
            store="memory://",
            web_host="127.0.0.1",
            web_port=port,
        )
    )


def decided_by(leader: Any) -> ConsumerProtocolMemberAssignment:
    """What the leader sends to itself, as the broker keeps it for a static member."""
    leader._member_urls = {"group-0": leader._metadata.url}
    decided = leader._protocol_assignments({"group-0": ClientAssignment({"topic": [0, 1]}, {})}, {}, {}, {"topic": 0})
    return ConsumerProtocolMemberAssignment.decode(decided["group-0"].encode())


def test_a_worker_takes_the_assignment_that_was_made_when_it_had_another_address(tmp_path: Path) -> None:
    before, now = app_at(6066, tmp_path).assignor, app_at(6067, tmp_path).assignor
    now.on_assignment(decided_by(before))
    assert {tp.partition for tp in now.assigned_actives()} == {0, 1}
    assert now._metadata.url.endswith(":6067"), "what it tells the group is where it is"
