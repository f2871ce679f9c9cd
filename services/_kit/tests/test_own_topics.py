"""A processor's changelog is there before the processor reads."""

import asyncio
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from sluice_kit.streams import faust_runner
from sluice_kit.streams.faust_runner import FaustRunner
from sluice_kit.streams.options import WorkerOptions
from spine_brokers import new_broker


def runner(bootstrap: str, home: Path) -> FaustRunner:
    made = FaustRunner(
        WorkerOptions(
            group="counting",
            instance="0",
            bootstrap=bootstrap,
            partitions=4,
            data_dir=home,
            store="memory://",
            web_host="127.0.0.1",
            web_port=1,
        )
    )
    made.table("windows")
    return made


@pytest.mark.parametrize("kind", ["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def test_a_faust_worker_finds_its_changelog_with_all_partitions(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It made it, and went on before its consumer knew of it: on a new Apache Kafka the first batch ended it."""
    found: list[int] = []

    async def partitions(bootstrap: str) -> int:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            [told] = await admin.describe_topics(["counting-windows-changelog"])
            return len(told["partitions"])
        finally:
            await admin.close()

    broker = new_broker(kind, tmp_path / "broker")
    broker.start()
    try:
        address = broker.settings(tmp_path).kafka_bootstrap
        monkeypatch.setattr(faust_runner, "run", lambda _: found.append(asyncio.run(partitions(address))))
        for _ in range(2):  # it is there already
            runner(address, tmp_path).run()
    finally:
        broker.kill()
    assert found == [4, 4]


def test_without_a_broker_faust_says_what_it_does_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[object] = []
    monkeypatch.setattr(faust_runner, "run", begun.append)
    runner("127.0.0.1:1", tmp_path).run()
    assert len(begun) == 1
