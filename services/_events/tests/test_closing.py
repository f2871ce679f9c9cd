"""A client that is stopped, and what that may not do to whoever stops it."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError
from sluice_events.closing import stopped


class Client:
    """Its stop ends as it is told, or never."""

    def __init__(self, outcome: BaseException | None, *, hangs: bool = False) -> None:
        self._outcome, self._hangs, self.was_stopped = outcome, hangs, False

    async def stop(self) -> None:
        self.was_stopped = True
        if self._hangs:
            await asyncio.Event().wait()
        if self._outcome:
            raise self._outcome


@pytest.mark.parametrize("outcome", [None, asyncio.CancelledError(), KafkaConnectionError(), ValueError()])
async def test_whatever_a_client_raises_while_it_stops_ends_nobody_else(outcome):
    client = Client(outcome)
    await stopped(client, seconds=20)
    assert client.was_stopped


async def test_a_client_that_does_not_stop_is_left_behind():
    await stopped(Client(None, hangs=True), seconds=0)


async def test_whoever_stops_a_client_can_be_cancelled():
    task = asyncio.create_task(stopped(Client(None, hangs=True), seconds=20))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
