"""What a neighbour's gRPC failure means for the request: the filter is away, the caller erred, or the model failed."""

import asyncio

import grpc
from grpc.aio import AioRpcError
from sluice_kit.errors import SluiceError, from_rpc_error

from sluice_gateway.domain.rejection import FilterUnavailable, Kind, Rejection, internal

SELF_TESTS_ONLY = "SELF_TESTS_ONLY"
"""The inference service's reason for a model that is there, and for this caller is none: to try again is of no use."""


def of_filter(name: str, error: BaseException) -> Rejection:
    """A filter's failure. Only what says that the request itself is wrong is passed on; all else is: no filter."""
    if not isinstance(error, AioRpcError):
        return FilterUnavailable(name, type(error).__name__)
    code = error.code()
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        told = from_rpc_error(error)
        return Rejection(Kind.INVALID, str(told), reason=told.reason or "INVALID_VALUE", metadata={"filter": name})
    if code is grpc.StatusCode.CANCELLED and _is_cancelling():
        return Rejection(Kind.CANCELLED, "The caller went away.", reason="CALLER_GONE")
    if code is grpc.StatusCode.NOT_FOUND:
        # The tenant's policy does not exist (any more). That is no outage, so nobody chose to go on without the filter.
        return internal("FILTER_POLICY_NOT_FOUND")
    return FilterUnavailable(name, code.name.lower())


def of_model(error: BaseException) -> Rejection:
    """The inference service's failure before or while it answers."""
    if not isinstance(error, AioRpcError):
        return Rejection(Kind.UNAVAILABLE, "The model broke off.", reason="MODEL_UNAVAILABLE", retry_after_seconds=1)
    return of_code(error.code(), from_rpc_error(error))


def of_code(code: grpc.StatusCode, told: SluiceError) -> Rejection:
    """By status code; what the inference service says of the request reaches the caller, what it says of itself not."""
    message, reason = str(told), told.reason
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE | grpc.StatusCode.FAILED_PRECONDITION:
            return Rejection(Kind.INVALID, message, reason=reason or "INVALID_VALUE", field=told.field)
        case grpc.StatusCode.UNIMPLEMENTED:
            return Rejection(Kind.UNSUPPORTED, message, reason=reason or "UNSUPPORTED_PARAMETER", field=told.field)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Rejection(
                Kind.EXHAUSTED,
                "The model is serving as many requests as it can.",
                reason=reason or "MODEL_OVERLOADED",
                retry_after_seconds=told.retry_after_seconds or 1,
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Rejection(Kind.DEADLINE, "The model did not answer in time.", reason="MODEL_TIMEOUT")
        case grpc.StatusCode.CANCELLED if _is_cancelling():
            return Rejection(Kind.CANCELLED, "The generation was cancelled.", reason="CALLER_GONE")
        case grpc.StatusCode.NOT_FOUND if reason == SELF_TESTS_ONLY:
            return Rejection(Kind.NOT_FOUND, message, reason="MODEL_NOT_FOUND", field="model")
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.NOT_FOUND | grpc.StatusCode.CANCELLED:
            # NOT_FOUND: the alias is known here, so it is our configuration that names a model nobody runs.
            # CANCELLED, and not by us: the service is stopping.
            return Rejection(
                Kind.UNAVAILABLE,
                "The model is not available now; try again later.",
                reason="MODEL_UNAVAILABLE",
                retry_after_seconds=1,
            )
    return internal("MODEL_FAILED")


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
