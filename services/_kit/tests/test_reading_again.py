"""After the embedded broker died, what was read last is read again: other records may stand there."""

import asyncio
from collections.abc import Mapping

from aiokafka import TopicPartition
from sluice_kit.assignment import Assignment
from sluice_kit.broker_watch import watch_embedded_broker
from sluice_kit.settings import MeshSettings

FIRST, SECOND, THIRD = (TopicPartition("t", number) for number in range(3))


class Client:
    def __init__(self) -> None:
        self.positions: dict[TopicPartition, int] = {}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.positions[partition] = offset


async def nothing() -> None:
    return None


async def test_a_partition_begins_no_further_on_than_where_it_is_to_be_read_again() -> None:
    async def stored(_: set[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {FIRST: 500, SECOND: 90}

    client, again = Client(), {FIRST: 100, SECOND: 400, THIRD: 7}
    assignment = Assignment(client, stored, ready=asyncio.Event(), release=nothing, read_again_from=lambda: again)
    await assignment.on_partitions_assigned({FIRST, SECOND})
    assert client.positions == {FIRST: 100, SECOND: 90}
    again.clear()
    await assignment.on_partitions_assigned({FIRST, SECOND})
    assert client.positions == {FIRST: 500, SECOND: 90}


async def test_a_broker_that_comes_back_is_noticed_once_each_time(tmp_path) -> None:
    restarts, connected = [], asyncio.Event()

    async def restarted() -> None:
        restarts.append(1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        clients.append(writer)
        await reader.read()

    clients: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = MeshSettings(home=tmp_path, kafka_bootstrap=f"127.0.0.1:{port}", kafka_embedded=True)
    watching = asyncio.create_task(watch_embedded_broker(settings, restarted=restarted))
    async with asyncio.timeout(30):
        await connected.wait()
        assert restarts == []
        for number in (1, 2):
            connected.clear()
            clients[-1].close()
            await connected.wait()
            while len(restarts) < number:
                await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.wait({watching})
    for client in clients:
        client.close()
    server.close()
    assert restarts == [1, 1]
