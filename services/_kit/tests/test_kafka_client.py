"""A client library that cancels its own tasks must end neither a consumer nor a relay."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError
from sluice_kit.kafka_client import closed, its_cancellations_are_errors


class Part:
    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Client:
    """Its stop ends as it is told, half way."""

    def __init__(self, outcome: BaseException | None) -> None:
        self._client, self._coordinator, self._outcome = Part(), Part(), outcome

    async def stop(self) -> None:
        if self._outcome:
            raise self._outcome
        self._client.closed = self._coordinator.closed = True


@pytest.mark.parametrize("outcome", [None, asyncio.CancelledError(), KafkaConnectionError(), ValueError()])
async def test_a_client_is_closed_whatever_it_raises_meanwhile(outcome):
    client = Client(outcome)
    await closed(client)
    assert client._client.closed
    assert client._coordinator.closed


async def test_a_cancellation_from_inside_the_client_is_an_error_and_ours_is_obeyed():
    with pytest.raises(ConnectionError), its_cancellations_are_errors():
        raise asyncio.CancelledError

    async def waits():
        with its_cancellations_are_errors():
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
