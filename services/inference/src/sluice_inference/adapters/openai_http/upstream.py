"""The connection to one upstream: pool, key, retries before the first token, and time limits of each phase."""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
from tenacity import AsyncRetrying, RetryCallState, stop_after_attempt

from sluice_inference.adapters import metrics
from sluice_inference.adapters.openai_http import trouble
from sluice_inference.adapters.openai_http.budget import RetryBudget
from sluice_inference.adapters.openai_http.chunks import is_telling
from sluice_inference.adapters.openai_http.http2 import Http2Stream, http2_stream_of
from sluice_inference.adapters.openai_http.options import OpenAiHttpOptions
from sluice_inference.adapters.openai_http.sse import BrokenStream, EventStream
from sluice_inference.adapters.openai_http.trouble import UpstreamTrouble
from sluice_inference.domain.refusals import EngineFailed, EngineUnavailable, ModelUnusable

# An error's JSON is some hundred bytes; more is not read.
LONGEST_ERROR_BODY = 65_536

_NO_KEY = EngineFailed("the upstream's key cannot be read: see key_file or key_env.", reason="UPSTREAM_KEY_MISSING")


@dataclass
class OpenStream:
    """An answer that has begun: what came up to the first telling chunk, and the rest. Close it."""

    response: httpx2.Response
    http2: Http2Stream | None
    chunks: AsyncIterator[dict[str, Any]]
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def close(self) -> None:
        """Lets the connection go: back to the pool when the answer was read to its end, else it (or its stream) is cut, which stops the upstream."""
        await _close(self.response, self.http2)


class Upstream:
    """Requests to one base URL. `transport` replaces the network in tests."""

    def __init__(self, options: OpenAiHttpOptions, *, random_part: Any = random.random) -> None:
        self._options, self._random_part = options, random_part
        self._budget = RetryBudget(ratio=options.retries.budget_ratio, burst=options.retries.budget_burst)
        self._client: httpx2.AsyncClient | None = None

    async def stream(self, path: str, body: dict[str, Any]) -> OpenStream:
        """The answer from its first token on. Raises InferenceRefusal."""
        self._budget.request()
        try:
            async for attempt in self._attempts():
                with attempt:
                    return await self._open(path, body)
        except UpstreamTrouble as error:
            raise error.refusal from error
        raise AssertionError("the last attempt returns or raises")

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A whole answer. Raises InferenceRefusal."""
        self._budget.request()
        try:
            async for attempt in self._attempts():
                with attempt:
                    return await self._post_once(path, body)
        except UpstreamTrouble as error:
            raise error.refusal from error
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        client, self._client = self._client, None
        if client:
            await client.aclose()

    def _attempts(self) -> AsyncRetrying:
        return AsyncRetrying(
            stop=stop_after_attempt(self._options.retries.attempts),
            retry=self._may_retry,
            wait=self._wait_seconds,
            reraise=True,
        )

    def _may_retry(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, UpstreamTrouble) or not error.retryable:
            return False
        if state.attempt_number >= self._options.retries.attempts:
            return False  # asked before `stop` is: the budget must not pay, nor the metric count, for a try that is not made
        if (error.retry_after_seconds or 0.0) > self._options.retries.longest_wait_seconds:
            return False
        return self._budget.take()

    def _wait_seconds(self, state: RetryCallState) -> float:
        """Retry-After where the upstream gave it, and on top a random part of an exponentially growing wait ("full jitter")."""
        metrics.UPSTREAM_RETRIES.inc()
        limits = self._options.retries
        most = min(limits.longest_wait_seconds, limits.first_wait_seconds * 2 ** (state.attempt_number - 1))
        error = state.outcome.exception() if state.outcome else None
        asked = (error.retry_after_seconds or 0.0) if isinstance(error, UpstreamTrouble) else 0.0
        return asked + float(self._random_part()) * most

    async def open_pool(self) -> None:
        """Reads the system's certificates, which takes too long for the event loop. Raises ModelUnusable."""
        if self._client is None:
            client = await asyncio.to_thread(open_client, self._options)
            self._client = self._client or client  # another request may have been faster; an unused pool holds nothing

    async def _open(self, path: str, body: dict[str, Any]) -> OpenStream:
        seconds = self._options.seconds.first_token
        await self.open_pool()
        try:
            async with asyncio.timeout(seconds):
                return await self._open_in_time(path, body)
        except TimeoutError as error:
            # Not retried: the upstream is at work, and would be at work twice.
            raise UpstreamTrouble(EngineUnavailable(f"the upstream gave no token within {seconds:g} s.")) from error
        except (httpx2.TransportError, BrokenStream) as error:
            raise trouble.of_connection(error) from error

    async def _open_in_time(self, path: str, body: dict[str, Any]) -> OpenStream:
        client = self._pool
        response = await client.send(client.build_request("POST", path, json=body, headers=self._key()), stream=True)
        http2 = http2_stream_of(response)
        try:
            await _check_status(response)
            stream = OpenStream(response, http2, _chunks(response))
            async for chunk in stream.chunks:
                stream.seen.append(chunk)
                if is_telling(chunk):
                    _raise_early(chunk)
                    return stream
            raise UpstreamTrouble(EngineUnavailable("the upstream ended the answer before it began."), retryable=True)
        except BaseException:
            await _close(response, http2)
            raise

    async def _post_once(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        await self.open_pool()
        try:
            async with asyncio.timeout(self._options.seconds.first_token):
                response = await self._pool.post(path, json=body, headers=self._key())
                await _check_status(response)
                answer = response.json()
        except (TimeoutError, httpx2.TransportError) as error:
            raise trouble.of_connection(error) from error
        except ValueError as error:
            raise UpstreamTrouble(EngineFailed("the upstream's answer is no JSON.")) from error
        return answer if isinstance(answer, dict) else {}

    def _key(self) -> dict[str, str]:
        options = self._options
        if not options.key_file and not options.key_env:
            return {}
        try:
            key = options.key_file.read_text(encoding="utf-8") if options.key_file else os.environ[options.key_env]
        except (OSError, KeyError) as error:
            raise UpstreamTrouble(_NO_KEY) from error
        if not key.strip():
            raise UpstreamTrouble(_NO_KEY)
        return {"Authorization": f"Bearer {key.strip()}"}

    @property
    def _pool(self) -> httpx2.AsyncClient:
        assert self._client, "open_pool comes first"
        return self._client


def open_client(options: OpenAiHttpOptions) -> httpx2.AsyncClient:
    """A pool; reading has no limit of its own, as each phase is timed by its reader. Raises ModelUnusable."""
    connect = options.seconds.connect
    try:
        verify = ssl.create_default_context(cafile=str(options.ca_file)) if options.ca_file else True
    except OSError as error:
        raise ModelUnusable(f"The certificate authority {options.ca_file} cannot be read.") from error
    return httpx2.AsyncClient(
        base_url=options.base_url.rstrip("/") + "/",
        headers=options.headers,
        http1=options.http != "2",
        http2=options.http != "1.1",
        verify=verify,
        proxy=_proxy(options),
        timeout=httpx2.Timeout(None, connect=connect, pool=connect),
        limits=httpx2.Limits(max_connections=options.connections, max_keepalive_connections=options.connections),
        trust_env=False,
    )


def _proxy(options: OpenAiHttpOptions) -> httpx2.Proxy | None:
    """Raises ModelUnusable."""
    if not options.proxy:
        return None
    if options.proxy_auth_file is None:
        return httpx2.Proxy(options.proxy)
    try:
        user, _, password = options.proxy_auth_file.read_text(encoding="utf-8").strip().partition(":")
    except OSError as error:
        raise ModelUnusable(f"The proxy's user and password cannot be read from {options.proxy_auth_file}.") from error
    return httpx2.Proxy(options.proxy, auth=(user, password))


async def _close(response: httpx2.Response, http2: Http2Stream | None) -> None:
    try:
        if http2:
            await http2.reset()
    finally:
        await response.aclose()


async def _check_status(response: httpx2.Response) -> None:
    if response.status_code == 200:
        return
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > LONGEST_ERROR_BODY:
            break
    raise trouble.of_status(response.status_code, headers=response.headers, body=_json_or_none(body))


async def _chunks(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """Ends at `[DONE]`, with the rest of the answer read so that the connection can be used again, or at the end of the answer."""
    events, done = EventStream(), False
    async for part in response.aiter_bytes():
        for data in events.feed(part):
            done = done or data == "[DONE]"
            if not done:
                yield _parse(data)
    for data in events.end():
        if not done and data != "[DONE]":
            yield _parse(data)


def _parse(data: str) -> dict[str, Any]:
    chunk = _json_or_none(data.encode())
    if not isinstance(chunk, dict):
        raise EngineFailed("the upstream's stream holds something that is no JSON object.")
    return chunk


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _raise_early(chunk: dict[str, Any]) -> None:
    """An error that comes as the first event of a stream is as good as a status, and can be retried like one."""
    if chunk.get("error"):
        raise trouble.of_error(chunk["error"])
