"""The gateway as a process: it starts without its neighbours, records what it refused, and stops cleanly."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sluice_gateway.domain.api_key import mint


def _start(home: Path, **settings: str) -> "subprocess.Popen[str]":
    loopback = "127.0.0.1:0"
    return subprocess.Popen(
        [sys.executable, "-c", "from sluice_gateway.main import main; main()"],
        env=os.environ
        | {
            "SLUICE_HOME": str(home),
            "SLUICE_GATEWAY_GRPC_LISTEN": loopback,
            "SLUICE_GATEWAY_METRICS_LISTEN": loopback,
            "SLUICE_GATEWAY_HTTP_LISTEN": loopback,
            "SLUICE_KAFKA_BOOTSTRAP": "127.0.0.1:1",  # nobody can listen there
            **{f"SLUICE_{name}_TARGET": "127.0.0.1:1" for name in ("INFERENCE", "REDACTION", "MODERATION", "COST")},
            **settings,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _http_port(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    ports = {}
    for line in process.stdout:
        event = json.loads(line)
        ports[event["event"]] = event.get("port", 0)
        if {"http.listening", "service.listening"} <= set(ports):
            break
    return int(ports["http.listening"])


def _configured(home: Path) -> str:
    """A key of a gateway that is configured."""
    key, sha256 = mint("me")
    config = {
        "version": 1, "tenants": [{"id": "acme", "limits": {"requests_per_minute": 100_000}}], "models": [{"alias": "small", "target": "x"}],
        "api_keys": [{"id": "me", "sha256": sha256, "tenant": "acme"}],
    }  # fmt: skip
    (home / "gateway.yaml").write_text(json.dumps(config))
    return key


@pytest.mark.parametrize(("policy", "code"), [("refuse", "outbox_full"), ("drop", "filter_unavailable")])
def test_a_full_outbox_refuses_new_requests_or_drops_their_events_as_the_operator_says(
    tmp_path: Path, policy: str, code: str
) -> None:
    key = _configured(tmp_path)
    body = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
    # Kafka is away, and the outbox has room for a hundred events.
    with (
        _start(tmp_path, SLUICE_OUTBOX_MAX_ROWS="100", SLUICE_OUTBOX_WHEN_FULL=policy) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{_http_port(process)}", headers={"x-api-key": key}) as client,
    ):
        codes = [client.post("/v1/chat/completions", json=body).json()["error"]["code"] for _ in range(110)]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert codes[0] == "filter_unavailable"
    assert codes[-1] == code
    with closing(sqlite3.connect(tmp_path / "outbox" / "sluice-gateway-0.db")) as outbox:
        (waiting,) = outbox.execute("SELECT count(*) FROM outbox").fetchone()
    assert 80 <= waiting <= 100


def test_it_starts_alone_refuses_what_it_cannot_guard_records_it_and_stops(tmp_path: Path) -> None:
    key = _configured(tmp_path)
    with _start(tmp_path) as process:
        url = f"http://127.0.0.1:{_http_port(process)}"
        body = {"model": "small", "messages": [{"role": "user", "content": "my secret is 42"}]}
        health = httpx.get(f"{url}/healthz", timeout=10)
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers={"x-api-key": key}, timeout=10)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert health.status_code == 200
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "filter_unavailable")
    with closing(sqlite3.connect(tmp_path / "outbox" / "sluice-gateway-0.db")) as outbox:
        rows = outbox.execute("SELECT topic, value FROM outbox").fetchall()
    assert [topic for topic, _ in rows] == ["sluice.gateway.request_completed.v1"]
    assert b"secret" not in rows[0][1]
    assert "secret" not in output + errors


def test_every_mistake_of_the_configuration_file_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("version: 7\ntenants: []\nmodels: 3\n")
    with _start(tmp_path) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines() == [
        "version: must be 1",
        "tenants: must be a list with at least one entry",
        "api_keys: must be a list with at least one entry",
        "models: must be a list with at least one entry",
    ]
