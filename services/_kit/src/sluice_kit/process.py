"""One way to run a service's process: the event loop, the exit code, and a last word when it fails."""

import asyncio
import errno
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sluice_kit.telemetry import logger

EXIT_FAILED = 1
EXIT_PORT_TAKEN = 3

log = logger(__name__)


class PortTaken(Exception):
    """A listen address is in use."""

    def __init__(self, address: str, variable: str) -> None:
        super().__init__(
            f"{address} is in use by another program: stop it, set {variable}, or shift all ports with SLUICE_PORT_BASE_OFFSET."
        )


class StartFailed(Exception):
    """The service cannot start; the message is one sentence that says why and what to do."""


def check_free(listen: str, variable: str) -> None:
    """Raise PortTaken, or StartFailed for an address that is none of this machine's, before a library says it in its own words."""
    host, port = listen.rsplit(":", 1)
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listener itself: TIME_WAIT is no user
            probe.bind((host.strip("[]"), int(port)))
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise PortTaken(listen, variable) from None
        reason = getattr(error, "strerror", None) or "the port must be below 65536"
        raise StartFailed(f"{listen} cannot be listened on ({reason}): set {variable}.") from None


def run(coroutine_function: Callable[[], Awaitable[None]]) -> None:
    """Run a service to its end. Exits with 0 after a clean stop, 3 when a port is taken, 1 on any other failure.

    PortTaken and StartFailed are printed as the one sentence they are, also out of a task group; of anything else only the
    class and the frames are logged.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_as_coroutine(coroutine_function))
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    except Exception as error:
        raise SystemExit(_last_word(_first_cause(error))) from None


def _first_cause(error: BaseException) -> BaseException:
    """The exception a task group failed with: a known one before any other."""
    while isinstance(error, BaseExceptionGroup):
        known = error.subgroup((PortTaken, StartFailed))
        error = (known or error).exceptions[0]
    return error


def _last_word(error: BaseException) -> int:
    """Say why the process ends; returns its exit code."""
    if isinstance(error, PortTaken | StartFailed):
        print(error, file=sys.stderr)
        return EXIT_PORT_TAKEN if isinstance(error, PortTaken) else EXIT_FAILED
    log.error("process.failed", **describe(error))
    return EXIT_FAILED


def _as_coroutine(function: Callable[[], Awaitable[None]]) -> Coroutine[Any, Any, None]:
    async def awaited() -> None:
        asyncio.get_running_loop().set_exception_handler(_log_unhandled)
        await function()

    return awaited()


def _log_unhandled(_loop: asyncio.AbstractEventLoop, happened: dict[str, Any]) -> None:
    """asyncio's own handler would log the exception's message, which may hold user text."""
    error = happened.get("exception")
    task = happened.get("task") or happened.get("future")
    told = describe(error) if isinstance(error, BaseException) else {}
    log.error("task.failed", task=task.get_name() if isinstance(task, asyncio.Task) else None, **told)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def describe(error: BaseException) -> dict[str, Any]:
    """What may be logged of an unexpected exception: its class and frames, never its message, which may hold user text."""
    frames, at = [], error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        frames.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{at.tb_lineno}:{code.co_name}")
        at = at.tb_next
    return {"error": type(error).__name__, "frames": frames[-8:]}
