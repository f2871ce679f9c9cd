"""A channel to a service of the mesh, whose failures are told in words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from sluice_kit.context import TENANT_ID
from sluice_kit.errors import DeadlineExceeded, NotFound, Unavailable, Unimplemented, from_rpc_error

from sluice_cli.mesh import demo_env
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.mesh.readiness import CHANNEL_OPTIONS


def as_tenant(tenant: str) -> tuple[tuple[str, str], ...]:
    """Metadata of a call on behalf of a tenant; of nobody's where it is empty."""
    return ((TENANT_ID, tenant),) if tenant else ()


@contextmanager
def insight_channel(home: Home, *, whose_work: str, unknown: str) -> Iterator[grpc.Channel]:
    """MeshProblem where insight is away (it says what `whose_work` is), refuses, or is too old (`unknown` to it)."""
    target = os.environ.get("SLUICE_INSIGHT_TARGET") or demo_env.read(home)["SLUICE_INSIGHT_TARGET"]
    with service_channel(target, "insight", whose_work=whose_work, unknown=unknown) as channel:
        yield channel


@contextmanager
def service_channel(
    target: str, service: str, *, whose_work: str, unknown: str = "", not_found: str = ""
) -> Iterator[grpc.Channel]:
    """MeshProblem where the service is away, refuses, is too old, or does not find what was asked for (then with `not_found`)."""
    with (
        grpc.insecure_channel(target, options=CHANNEL_OPTIONS) as channel,
        in_words(service, whose_work, unknown=unknown, not_found=not_found),
    ):
        yield channel


@contextmanager
def in_words(service: str, whose_work: str, *, unknown: str = "", not_found: str = "") -> Iterator[None]:
    """What a call within raises, as a MeshProblem."""
    try:
        yield
    except grpc.RpcError as error:
        found = from_rpc_error(error)
        if isinstance(found, Unavailable | DeadlineExceeded) and not _was_answered(error):
            raise MeshProblem(f"{service}, which {whose_work}, does not answer: see `sluice mesh status`.") from None
        if isinstance(found, Unimplemented) and unknown:
            raise MeshProblem(f"This {service} knows no {unknown} yet: upgrade it.") from None
        more = f" ({not_found})" if not_found and isinstance(found, NotFound) else ""
        raise MeshProblem(f"{found.message}{more}") from None


def _was_answered(error: grpc.RpcError) -> bool:
    """Whether the service itself said so (its database is away, say): it sends trailers, and gRPC's own words come without."""
    return isinstance(error, grpc.Call | grpc.aio.AioRpcError) and bool(error.trailing_metadata())
