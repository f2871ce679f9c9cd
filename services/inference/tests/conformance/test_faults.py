"""Failures of the engine, alike over every backend into which faults can be put: TensorRT-LLM's double and an upstream that misbehaves.

llama.cpp runs in this process and cannot be made to fail on demand; what it can refuse is tested in test_backends.py and test_llama_cpp.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from fault_upstream import Call, Connection, FaultUpstream, piece, telling
from inference_stage import Running, details, generate, kinds, refused, served, spec, stream, text_of, until
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.types.v1 import finish_reason_pb2
from sluice_inference.adapters.openai_http.backend import OpenAiHttp, model_facts
from sluice_inference.adapters.openai_http.options import OpenAiHttpOptions
from sluice_inference.domain.conductor import TimeLimits
from tensorrt_stage import loaded


@dataclass
class Faulty:
    """A served backend whose engine can be told to fail."""

    running: Running
    live: Callable[[], int]
    aborts: Callable[[], int]
    tell: dict[str, Callable[[], Awaitable[None] | None]] = field(default_factory=dict)

    async def settled(self) -> None:
        await until(lambda: self.live() == 0 and self.running.conductor.admission.running == 0)


@contextlib.asynccontextmanager
async def faulty_tensorrt_llm(checkpoint: Path, home: Path) -> AsyncIterator[Faulty]:
    from tensorrt_llm.executor.utils import RequestError

    backend, llm = await loaded(checkpoint, drain_seconds=1.0)

    def set_faults(**faults: Any) -> Callable[[], None]:
        return lambda: [setattr(llm.faults, name, value) for name, value in faults.items()] and None

    async with served(backend, home=home, times=TimeLimits(60.0, 0.3)) as running:
        yield Faulty(
            running,
            live=lambda: llm.engine.live,
            aborts=lambda: llm.engine.aborts,
            tell={
                "fail before": set_faults(fail_at=1, failure=RequestError("secret")),
                "fail after": set_faults(fail_at=6, failure=RequestError("secret")),
                "away": set_faults(fail_at_call=RuntimeError("LLM is shutting down")),
                "hang before": set_faults(hang_at=0, token_seconds=0.01),
                "hang after": set_faults(hang_at=6),
            },
        )
    await backend.close()


async def _fail_before(connection: Connection, call: Call) -> None:
    await connection.whole(400, {"error": {"message": "secret"}})


async def _fail_after(connection: Connection, call: Call) -> None:
    await connection.begin()
    await connection.event(piece("Hello"))
    await connection.event({"error": {"message": "secret", "code": 400}})
    await connection.end()


async def _away(connection: Connection, call: Call) -> None:
    connection.cut()


async def _hang_before(connection: Connection, call: Call) -> None:
    await asyncio.Event().wait()


async def _hang_after(connection: Connection, call: Call) -> None:
    await connection.begin()
    await connection.event(piece("Hello"))
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def faulty_openai_http(_: Path, home: Path) -> AsyncIterator[Faulty]:
    scripts = {
        "fail before": _fail_before,
        "fail after": _fail_after,
        "away": _away,
        "hang before": _hang_before,
        "hang after": _hang_after,
    }
    async with FaultUpstream(telling("Hello", " world")).serving() as upstream:
        options = OpenAiHttpOptions(
            base_url=upstream.url,
            upstream_model="up",
            seconds={"first_token": 5, "between_tokens": 5},
            retries={"first_wait_seconds": 0.01},
        )
        backend = OpenAiHttp(options, model=model_facts(options, model_id="remote"))
        await backend.load()

        def play(name: str) -> Callable[[], None]:
            return lambda: upstream.scripts.__setitem__(slice(None), [scripts[name]])

        async with served(backend, home=home, times=TimeLimits(60.0, 0.3)) as running:
            yield Faulty(
                running,
                live=lambda: sum(not call.gone.is_set() and call.answering for call in upstream.calls),
                aborts=lambda: backend.aborts,
                tell={name: play(name) for name in scripts},
            )
        await backend.close()


@pytest.fixture(params=["openai_http", "tensorrt_llm"])
async def faulty(request: pytest.FixtureRequest, checkpoint: Path, tmp_path: Path) -> AsyncIterator[Faulty]:
    serve: Any = {"openai_http": faulty_openai_http, "tensorrt_llm": faulty_tensorrt_llm}[request.param]
    async with serve(checkpoint, tmp_path) as faulty:
        yield faulty


async def ends_of(faulty: Faulty) -> list[pb.GenerateStreamResponse]:
    answers = [answer async for answer in stream(faulty.running, spec("Count to ten.", tokens=40))]
    assert [kind in ("finished", "error") for kind in kinds(answers)].count(True) == 1
    return answers


async def test_without_a_fault_it_answers(faulty: Faulty) -> None:
    assert (await ends_of(faulty))[-1].WhichOneof("event") == "finished"
    await faulty.settled()
    assert faulty.aborts() == 0


async def test_a_failure_before_the_first_token_is_a_status(faulty: Faulty) -> None:
    faulty.tell["fail before"]()
    error = await refused(generate(faulty.running, spec()))
    assert error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
    assert "secret" not in (error.details() or "")
    assert details(error)["ErrorInfo"].domain == "sluice"
    await faulty.settled()
    assert faulty.aborts() == 0


async def test_a_failure_after_the_first_token_is_one_event_with_what_was_used(faulty: Faulty) -> None:
    faulty.tell["fail after"]()
    answers = await ends_of(faulty)
    end = answers[-1].error
    assert text_of(answers)
    assert end.usage.output_tokens > 0
    assert "secret" not in end.message
    await faulty.settled()
    (event,) = await faulty.running.outbox.measured()
    assert event.finish_reason == finish_reason_pb2.FINISH_REASON_ERROR


async def test_an_engine_that_is_away_is_unavailable_and_can_be_tried_again(faulty: Faulty) -> None:
    faulty.tell["away"]()
    error = await refused(generate(faulty.running, spec()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert details(error)["RetryInfo"].retry_delay.ToMilliseconds() >= 1000
    await faulty.settled()


@pytest.mark.parametrize("when", ["hang before", "hang after"])
async def test_an_engine_that_hangs_is_given_up_with_exactly_one_abort(faulty: Faulty, when: str) -> None:
    faulty.tell[when]()
    if when == "hang before":
        error = await refused(generate(faulty.running, spec("Count to ten.", tokens=40)))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
    else:
        assert (await ends_of(faulty))[-1].error.retryable
    await faulty.settled()
    assert faulty.aborts() == 1


async def test_a_failure_of_one_request_leaves_the_next_alone(faulty: Faulty) -> None:
    faulty.tell["fail after"]()
    await ends_of(faulty)
    assert faulty.running.died == []
    assert (await refused(generate(faulty.running, spec(model="nobody")))).code() is grpc.StatusCode.NOT_FOUND
