"""Settings: environment variables only, read once at start, every mistake reported at once."""

import os
import sys
from pathlib import Path
from typing import TypeVar

from pydantic import Field, FilePath, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from sluice_kit.addresses import DEFAULT_PORTS, default_listen, is_loopback


def settings_config(service: str) -> SettingsConfigDict:
    """The configuration of a service's Settings class: environment prefix `SLUICE_<SERVICE>_`, frozen."""
    return _config(f"SLUICE_{service.upper()}_")


def _config(env_prefix: str) -> SettingsConfigDict:
    # Compose files and Helm charts pass `NAME=` for what is not set: empty means absent, so that it is the default that counts.
    return SettingsConfigDict(
        env_prefix=env_prefix, frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )


class MeshSettings(BaseSettings):
    """What every process of the mesh reads, under the same names everywhere."""

    model_config = _config("SLUICE_")

    home: Path = Field(Path(".sluice"), validation_alias="SLUICE_HOME")
    """Folder for state: outboxes, databases, model caches."""
    kafka_bootstrap: str = Field("", validation_alias="SLUICE_KAFKA_BOOTSTRAP")
    """`host:port[,host:port]` of the broker; empty means the default address on loopback."""
    kafka_embedded: bool = Field(False, validation_alias="SLUICE_KAFKA_EMBEDDED")
    """True when the broker is the embedded one, which needs its four rules (PARTS.md)."""
    kafka_security_protocol: str = Field(
        "PLAINTEXT",
        pattern=r"^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$",
        validation_alias="SLUICE_KAFKA_SECURITY_PROTOCOL",
    )
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    kafka_sasl_mechanism: str = Field("SCRAM-SHA-512", validation_alias="SLUICE_KAFKA_SASL_MECHANISM")
    """SASL mechanism, where the protocol has SASL."""
    kafka_username: str | None = Field(None, validation_alias="SLUICE_KAFKA_USERNAME")
    """SASL user."""
    kafka_password_file: FilePath | None = Field(None, validation_alias="SLUICE_KAFKA_PASSWORD_FILE")
    """File with the SASL password."""
    kafka_ca_file: FilePath | None = Field(None, validation_alias="SLUICE_KAFKA_CA_FILE")
    """Certificate authority of the broker."""
    kafka_replication: int = Field(0, ge=0, validation_alias="SLUICE_KAFKA_REPLICATION")
    """Replicas of the topics that are created; 0 means 1 on a single broker and 3 otherwise."""
    topic_retention_file: FilePath | None = Field(None, validation_alias="SLUICE_TOPIC_RETENTION_FILE")
    """How long topics are kept where that is not what the contracts say (`sluice-topics`, docs/privacy.md)."""
    kafka_schema_registry_url: str = Field(
        "", pattern=r"^$|^https?://[^\s@]+$", validation_alias="SLUICE_KAFKA_SCHEMA_REGISTRY_URL"
    )
    """Registry with Confluent's interface; events are then written in its frame. Empty means no registry and no frame."""
    kafka_schema_registry_username: str | None = Field(None, validation_alias="SLUICE_KAFKA_SCHEMA_REGISTRY_USERNAME")
    """User (or API key) of the registry."""
    kafka_schema_registry_password_file: FilePath | None = Field(
        None, validation_alias="SLUICE_KAFKA_SCHEMA_REGISTRY_PASSWORD_FILE"
    )
    """File with the password (or API secret) of the registry."""
    kafka_schema_registry_ca_file: FilePath | None = Field(
        None, validation_alias="SLUICE_KAFKA_SCHEMA_REGISTRY_CA_FILE"
    )
    """Certificate authority of the registry; none means the system's."""
    outbox_fsync: str = Field("interval", pattern=r"^(always|interval|os)$", validation_alias="SLUICE_OUTBOX_FSYNC")
    """When an appended event is on the disk for certain: before publish returns (always), within 0.2 s (interval), or when the
    operating system writes it (os). All three survive the death of the process; they differ when the machine loses power."""
    outbox_max_rows: int = Field(1_000_000, ge=100, validation_alias="SLUICE_OUTBOX_MAX_ROWS")
    """Most events that may wait for Kafka."""
    outbox_max_bytes: int = Field(1 << 30, ge=1 << 20, validation_alias="SLUICE_OUTBOX_MAX_BYTES")
    """Most bytes of events that may wait for Kafka; the file on disk is up to a fifth larger."""
    outbox_when_full: str = Field("refuse", pattern=r"^(refuse|drop)$", validation_alias="SLUICE_OUTBOX_WHEN_FULL")
    """What becomes of events when the outbox is full: new work is refused, or events are dropped, counted, and told of later."""
    port_base_offset: int = Field(0, ge=0, le=10_000, validation_alias="SLUICE_PORT_BASE_OFFSET")
    """Added to every default port."""
    instance: str = Field("0", pattern=r"^[A-Za-z0-9_-]{1,32}$", validation_alias="SLUICE_INSTANCE")
    """The replica's stable ordinal; part of its producer name and consumer group instance id."""
    log_level: str = Field("INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$", validation_alias="SLUICE_LOG_LEVEL")
    """Least level that is logged."""
    otlp_endpoint: str | None = Field(None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    """Where spans are sent; none means that only the context is passed on."""
    tls_cert_file: FilePath | None = Field(None, validation_alias="SLUICE_TLS_CERT_FILE")
    """Certificate of this process; none means plaintext."""
    tls_key_file: FilePath | None = Field(None, validation_alias="SLUICE_TLS_KEY_FILE")
    """Key of the certificate."""
    tls_ca_file: FilePath | None = Field(None, validation_alias="SLUICE_TLS_CA_FILE")
    """Authority that signs the mesh's certificates."""

    key_store: str = Field("file", pattern=r"^(file|vault|off)$", validation_alias="SLUICE_KEY_STORE")
    """Where the keys of captured texts are: `file` (a folder of this machine), `vault` (HashiCorp Vault), or `off`: texts stay in clear."""
    key_store_folder: Path | None = Field(None, validation_alias="SLUICE_KEY_STORE_FOLDER")
    """Folder of the `file` key store; `keys` under SLUICE_HOME where it is not set."""
    vault_address: str = Field("", pattern=r"^$|^https?://\S+$", validation_alias="SLUICE_VAULT_ADDRESS")
    """Vault, such as `https://vault:8200`."""
    vault_token_file: FilePath | None = Field(None, validation_alias="SLUICE_VAULT_TOKEN_FILE")
    """File with Vault's token; read again at every call."""
    vault_mount: str = Field("transit", pattern=r"^[A-Za-z0-9_/-]+$", validation_alias="SLUICE_VAULT_MOUNT")
    """Path of Vault's transit engine."""
    vault_ca_file: FilePath | None = Field(None, validation_alias="SLUICE_VAULT_CA_FILE")
    """Authority that signed Vault's certificate; the system's where it is not set."""

    @model_validator(mode="after")
    def _fill_in_addresses(self) -> "MeshSettings":
        if not self.kafka_bootstrap:
            object.__setattr__(self, "kafka_bootstrap", default_listen("kafka", self.port_base_offset))
        return self

    @model_validator(mode="after")
    def _keep_the_embedded_broker_at_home(self) -> "MeshSettings":
        # It takes any password and forgets what it has acknowledged: whoever else can reach it reads and writes every event.
        away = [a for a in self.kafka_bootstrap.split(",") if not is_loopback(a.rsplit(":", 1)[0])]
        if self.kafka_embedded and away:
            raise ValueError(
                f"SLUICE_KAFKA_EMBEDDED is for a broker on loopback, and SLUICE_KAFKA_BOOTSTRAP names {', '.join(away)}:"
                " unset the one, or point the other at 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _refuse_half_a_certificate(self) -> "MeshSettings":
        # One without the other would mean plaintext in silence.
        if (self.tls_cert_file is None) is not (self.tls_key_file is None):
            raise ValueError("SLUICE_TLS_CERT_FILE and SLUICE_TLS_KEY_FILE go together: set both or neither")
        return self

    @property
    def service(self) -> str:
        """Name of the service these settings are for, from the environment prefix."""
        return str(self.model_config.get("env_prefix", "")).removeprefix("SLUICE_").removesuffix("_").lower() or "mesh"


class GrpcServiceSettings(MeshSettings):
    """What every gRPC service reads besides."""

    grpc_listen: str = Field("", pattern=r"^$|^[^\s:]+:\d{1,5}$")
    """`host:port` to serve gRPC on; empty means the default address."""
    metrics_listen: str = Field("", pattern=r"^$|^[^\s:]+:\d{1,5}$")
    """`host:port` to serve /metrics and /healthz on; empty means the default address."""
    drain_seconds: float = Field(10.0, ge=0, le=600)
    """How long running calls may go on after a stop signal."""
    max_message_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    """Largest gRPC message taken or sent."""
    max_concurrent_calls: int = Field(1024, ge=1)
    """Calls served at once; more are refused with RESOURCE_EXHAUSTED."""

    @model_validator(mode="after")
    def _fill_in_listeners(self) -> "GrpcServiceSettings":
        for field, name in (("grpc_listen", self.service), ("metrics_listen", f"metrics_{self.service}")):
            if not getattr(self, field) and name in DEFAULT_PORTS:
                object.__setattr__(self, field, default_listen(name, self.port_base_offset))
        return self


S = TypeVar("S", bound=MeshSettings)


def load(settings_class: type[S]) -> S:
    """The settings from the environment. On mistakes prints every one of them, a line each, and exits with code 2."""
    try:
        return settings_class()
    except ValidationError as error:
        for line in _mistakes(settings_class, error):
            print(line, file=sys.stderr)
        raise SystemExit(2) from None
    except SettingsError as error:
        # A list or mapping that is no JSON: pydantic-settings stops at the first one, naming the field.
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def _mistakes(settings_class: type[MeshSettings], error: ValidationError) -> list[str]:
    prefix = str(settings_class.model_config.get("env_prefix", ""))
    lines = []
    for mistake in error.errors(include_input=False, include_url=False):
        name = str(mistake["loc"][0]) if mistake["loc"] else ""
        variable = name if name.isupper() else f"{prefix}{name}".upper()
        message = mistake["msg"].removeprefix("Value error, ")
        lines.append(f"{variable}: {message}" if mistake["loc"] else message)
    return lines


def target_of(settings: MeshSettings, service: str) -> str:
    """Where another service is reached: SLUICE_<SERVICE>_TARGET, or its default address."""
    return os.environ.get(f"SLUICE_{service.upper()}_TARGET") or default_listen(service, settings.port_base_offset)
