"""What kind of broker it is, is seen at the start, and told where the settings say otherwise."""

import asyncio

import pytest
from pydantic import ValidationError
from sluice_kit.addresses import is_loopback
from sluice_kit.broker import ensure_topics
from sluice_kit.broker_check import BrokerKind, judge, look_at_broker
from sluice_kit.settings import MeshSettings
from spine_brokers import new_broker


@pytest.mark.parametrize("kind", ["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
async def test_a_broker_is_known_by_whether_it_holds_a_fetch(kind, tmp_path):
    broker = new_broker(kind, tmp_path / "broker")
    await asyncio.to_thread(broker.start)
    try:
        settings = broker.settings(tmp_path)
        assert (
            await look_at_broker(settings)
        ).long_poll is None  # it has no topics yet, and asking must not create any
        await ensure_topics(settings)
        seen = await look_at_broker(settings)
        assert seen == BrokerKind(long_poll=kind == "apache", hosts=("127.0.0.1",))
    finally:
        broker.kill()


@pytest.mark.parametrize(
    ("embedded", "seen", "told"),
    [
        (False, BrokerKind(True, ("kafka.example",)), ""),
        (False, BrokerKind(None, ("kafka.example",)), ""),
        (False, BrokerKind(False, ("kafka.example",)), "broker.has_no_long_poll"),
        (True, BrokerKind(False, ("127.0.0.1",)), "broker.is_embedded"),
        (True, BrokerKind(True, ("127.0.0.1",)), "broker.is_not_the_embedded_one"),
        (True, BrokerKind(False, ("10.0.0.7",)), "broker.embedded_is_not_on_loopback"),
    ],
)
def test_what_an_operator_should_know_is_said(embedded, seen, told, tmp_path):
    assert judge(seen, MeshSettings(home=tmp_path, kafka_embedded=embedded)) == told


@pytest.mark.parametrize("bootstrap", ["10.0.0.7:9092", "kafka:9092", "127.0.0.1:9092,kafka:9093"])
def test_a_broker_that_is_marked_embedded_must_be_on_loopback(bootstrap, tmp_path):
    with pytest.raises(ValidationError, match="SLUICE_KAFKA_EMBEDDED is for a broker on loopback"):
        MeshSettings(home=tmp_path, kafka_bootstrap=bootstrap, kafka_embedded=True)
    assert MeshSettings(home=tmp_path, kafka_bootstrap=bootstrap).kafka_bootstrap == bootstrap


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("[::1]", True),
        ("127.9.9.9", True),
        ("0.0.0.0", False),
        ("kafka", False),
    ],
)
def test_loopback_is_what_is_written_so(host, answer):
    assert is_loopback(host) is answer
