"""One way to run a service's process: the event loop, the exit code, and a last word when it fails."""

import asyncio
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


def run(coroutine_function: Callable[[], Awaitable[None]]) -> None:
    """Run a service to its end. Exits with 0 after a clean stop, 3 when a port is taken, 1 on any other failure."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_as_coroutine(coroutine_function))
    except PortTaken as error:
        print(error, file=sys.stderr)
        raise SystemExit(EXIT_PORT_TAKEN) from None
    except StartFailed as error:
        print(error, file=sys.stderr)
        raise SystemExit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    except Exception as error:
        log.error("process.failed", **describe(error))
        raise SystemExit(EXIT_FAILED) from None


def _as_coroutine(function: Callable[[], Awaitable[None]]) -> Coroutine[Any, Any, None]:
    async def awaited() -> None:
        await function()

    return awaited()


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
