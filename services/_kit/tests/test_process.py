"""A whole process: its exit codes, its signals, and what its logs may say."""

import json
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

PREAMBLE = """
import asyncio, logging, sys
from functools import partial
from sluice_kit import process, settings, telemetry
from sluice_kit.server import GrpcServer
from sluice.events.v1 import gateway_pb2

class Settings(settings.GrpcServiceSettings):
    model_config = settings.settings_config("test")

configured = settings.load(Settings)
telemetry.configure("test", configured)
log = telemetry.logger("test")
SECRET = "jane@example.com"

"""


def start(body: str, **environment: str) -> subprocess.Popen:
    given = {"SLUICE_TEST_GRPC_LISTEN": "127.0.0.1:0", "SLUICE_TEST_METRICS_LISTEN": "127.0.0.1:0"} | environment
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(body)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given,
    )  # fmt: skip


SERVES = """
async def serve():
    async with asyncio.TaskGroup() as tasks:
        await GrpcServer(service="test", settings=configured).run(service_names=["test.v1.TestService"])

process.run(serve)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_service_cleanly(number):
    child = start(SERVES)
    assert json.loads(child.stdout.readline())["event"] in ("service.ready", "service.listening")
    child.stdout.readline()
    child.send_signal(number)
    out, error = child.communicate(timeout=20)
    assert (child.returncode, error) == (0, "")
    assert json.loads(out.splitlines()[-1])["event"] == "service.stopped"


def test_a_port_that_is_taken_is_one_sentence_and_exit_code_3():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        _, error = start(SERVES, SLUICE_TEST_GRPC_LISTEN=address).communicate(timeout=20)
        child = start(SERVES, SLUICE_TEST_METRICS_LISTEN=address)
        _, second = child.communicate(timeout=20)
    assert error.count("\n") == second.count("\n") == 1
    assert f"{address} is in use" in error
    assert f"{address} is in use" in second
    assert "set SLUICE_TEST_METRICS_LISTEN" in second
    assert child.returncode == 3


def test_no_log_line_holds_the_message_of_an_exception_or_a_protobuf():
    child = start("""
        async def fails():
            raise ValueError(SECRET)

        async def serve():
            logging.getLogger("library").error("broke", exc_info=ValueError(SECRET))
            log.info("held", event_object=gateway_pb2.RequestCompleted(model=SECRET))
            try:
                raise KeyError(SECRET)
            except KeyError:
                log.exception("raised")
            task = asyncio.create_task(fails(), name="background")
            await asyncio.wait([task])
            del task
            for node in range(100):
                logging.getLogger("aiokafka.client").warning("Unable connect to node %s", node)
            raise RuntimeError(SECRET)

        process.run(serve)
    """)
    out, error = child.communicate(timeout=20)
    lines = [json.loads(line) for line in out.splitlines()]
    assert child.returncode == 1
    assert "jane" not in out + error
    assert [(line["event"], line.get("error")) for line in lines] == [
        ("broke", "ValueError"),
        ("held", None),
        ("raised", "KeyError"),
        ("task.failed", "ValueError"),
        ("Unable connect to node 0", None),
        ("process.failed", "RuntimeError"),
    ]
    assert any("serve" in frame for frame in lines[-1]["frames"])
