"""Settings: from the environment alone, and every mistake at once."""

from pathlib import Path

import pytest
from pydantic import Field
from sluice_kit.addresses import DEFAULT_PORTS, default_listen
from sluice_kit.settings import GrpcServiceSettings, load, settings_config, target_of


class CostSettings(GrpcServiceSettings):
    model_config = settings_config("cost")
    batch_size: int = Field(100, ge=1)


def test_addresses_come_from_one_table_shifted_by_the_offset(monkeypatch):
    monkeypatch.setenv("SLUICE_PORT_BASE_OFFSET", "100")
    found = load(CostSettings)
    assert (found.grpc_listen, found.metrics_listen) == ("127.0.0.1:50156", "127.0.0.1:9556")
    assert found.kafka_bootstrap == "127.0.0.1:9192"
    assert target_of(found, "redaction") == "127.0.0.1:50153"


def test_an_address_that_is_set_wins(monkeypatch):
    monkeypatch.setenv("SLUICE_COST_GRPC_LISTEN", "0.0.0.0:7000")
    monkeypatch.setenv("SLUICE_REDACTION_TARGET", "redaction:50053")
    found = load(CostSettings)
    assert (found.grpc_listen, target_of(found, "redaction")) == ("0.0.0.0:7000", "redaction:50053")


def test_an_empty_variable_is_an_absent_one(monkeypatch):
    for name in ("SLUICE_INSTANCE", "SLUICE_TLS_CERT_FILE", "OTEL_EXPORTER_OTLP_ENDPOINT", "SLUICE_COST_BATCH_SIZE"):
        monkeypatch.setenv(name, "")
    found = load(CostSettings)
    assert (found.instance, found.tls_cert_file, found.otlp_endpoint, found.batch_size) == ("0", None, None, 100)


def test_every_mistake_is_told_at_once_with_its_name(monkeypatch, capsys):
    monkeypatch.setenv("SLUICE_COST_BATCH_SIZE", "many")
    monkeypatch.setenv("SLUICE_COST_GRPC_LISTEN", "nowhere")
    monkeypatch.setenv("SLUICE_LOG_LEVEL", "LOUD")
    monkeypatch.setenv("SLUICE_TLS_CA_FILE", "/does/not/exist.pem")
    with pytest.raises(SystemExit) as caught:
        load(CostSettings)
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert [line.split(":")[0] for line in sorted(told.splitlines())] == [
        "SLUICE_COST_BATCH_SIZE",
        "SLUICE_COST_GRPC_LISTEN",
        "SLUICE_LOG_LEVEL",
        "SLUICE_TLS_CA_FILE",
    ]


def test_half_a_certificate_is_refused(monkeypatch, capsys, tmp_path: Path):
    certificate = tmp_path / "tls.pem"
    certificate.write_text("x")
    monkeypatch.setenv("SLUICE_TLS_CERT_FILE", str(certificate))
    with pytest.raises(SystemExit):
        load(CostSettings)
    assert "go together" in capsys.readouterr().err


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load(CostSettings).batch_size = 3


def test_no_two_listeners_share_a_default_port():
    assert len(set(DEFAULT_PORTS.values())) == len(DEFAULT_PORTS)
    assert default_listen("metrics_insight", 0) == "127.0.0.1:9458"
