"""Channels to neighbours: limits, keepalive, and the request's context in every call."""

from collections.abc import Callable, Sequence
from typing import Any

import grpc

from sluice_kit import context
from sluice_kit.settings import MeshSettings

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    # A neighbour that was restarted is back within a second, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
)


class ContextChannel:
    """A grpc.aio.Channel whose calls carry the current request context as metadata.

    Metadata is added when a call is made, not by interceptors: those put a queue between every two messages of a stream.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._channel, name)
        if name not in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            return attribute

        def make(*arguments: Any, **options: Any) -> Callable[..., Any]:
            return _with_context(attribute(*arguments, **options))

        return make

    async def __aenter__(self) -> "ContextChannel":
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._channel.__aexit__(*error)


def _with_context(call: Callable[..., Any]) -> Callable[..., Any]:
    def begin(*arguments: Any, metadata: Any = None, **options: Any) -> Any:
        given = tuple(metadata or ())
        named = {key for key, _ in given}
        added = tuple(pair for pair in context.outgoing_metadata() if pair[0] not in named)
        return call(*arguments, metadata=given + added, **options)

    return begin


def connect(target: str, settings: MeshSettings) -> Any:
    """A channel to `host:port` (typed as grpc.aio.Channel for the stubs). Connects lazily and reconnects by itself."""
    if settings.tls_ca_file is None:
        return ContextChannel(grpc.aio.insecure_channel(target, options=_OPTIONS))
    key = settings.tls_key_file.read_bytes() if settings.tls_key_file else None
    certificate = settings.tls_cert_file.read_bytes() if settings.tls_cert_file else None
    secure = grpc.ssl_channel_credentials(settings.tls_ca_file.read_bytes(), key, certificate)
    return ContextChannel(grpc.aio.secure_channel(target, secure, options=_OPTIONS))
