"""The gateway's OpenAI-compatible HTTP door."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from sluice_kit.telemetry import logger

from sluice_probes.domain.findings import (
    HTTP_ERROR,
    HTTP_UNAVAILABLE,
    NO_ANSWER,
    UNREADABLE,
    Answer,
    policy_named,
)

log = logger(__name__)

MOST_BYTES = 1 << 20
"""Of an answer; a report has a few thousand."""
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def trust(authority: Path | None) -> ssl.SSLContext:
    """Certificates of the system's authorities, and of the mesh's own where it has one: the door may be inside or outside."""
    context = ssl.create_default_context()
    if authority is not None:
        context.load_verify_locations(authority)
    return context


class HttpDoor:
    """Fits domain.round.Door, whole or streamed."""

    def __init__(self, client: httpx.AsyncClient, url: str, key: str, *, streamed: bool, seconds: float) -> None:
        self._client, self._url, self._streamed = client, url, streamed
        self._headers = {"authorization": f"Bearer {key}", "x-sluice-timeout-ms": str(int(seconds * 1000))}
        self._seconds = seconds

    async def chat(self, model: str, system: str, text: str, *, most_tokens: int) -> Answer:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": text})
        body = {"model": model, "messages": messages, "max_tokens": most_tokens, "stream": self._streamed}
        return await self._ask("/v1/chat/completions", body)

    async def embed(self, model: str, texts: Sequence[str]) -> Answer:
        return await self._ask("/v1/embeddings", {"model": model, "input": list(texts), "encoding_format": "float"})

    async def _ask(self, path: str, body: dict[str, Any]) -> Answer:
        try:
            async with (
                asyncio.timeout(
                    self._seconds
                ),  # of the whole: the client's own is of each read, and drops may fall for ever
                self._client.stream(
                    "POST", self._url + path, json=body, headers=self._headers, timeout=self._seconds
                ) as response,
            ):
                content = await _bounded(response)
            if response.status_code != 200:
                return _status(response.status_code, content)
            if path.endswith("embeddings"):
                return Answer(vectors=tuple(tuple(each["embedding"]) for each in json.loads(content)["data"]))
            return _streamed(content) if self._streamed else _whole(json.loads(content))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            return Answer(error=NO_ANSWER)
        except Exception as error:  # whatever stands between may answer anything; it must not end the whole round
            log.warning("probes.unreadable_answer", path=path, error=type(error).__name__)
            return Answer(error=UNREADABLE)


async def _bounded(response: httpx.Response) -> bytes:
    content = b""
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > MOST_BYTES:
            raise ValueError("the answer is too long")
    return content


def _whole(document: dict[str, Any]) -> Answer:
    choice = document["choices"][0]
    return _answer(choice["message"]["content"] or "", choice["finish_reason"], document.get("sluice", {}))


def _streamed(content: bytes) -> Answer:
    text, finish = "", None
    guard: dict[str, Any] = {}
    for line in content.decode().splitlines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        chunk = json.loads(line.removeprefix("data: "))
        if "error" in chunk:
            return _refusal(chunk)
        guard = chunk.get("sluice", guard)
        for choice in chunk.get("choices", ()):
            text += choice["delta"].get("content") or ""
            finish = choice.get("finish_reason") or finish
    return _answer(text, finish, guard)


def _answer(text: str, finish: str | None, guard: dict[str, Any]) -> Answer:
    if not isinstance(text, str):
        raise TypeError("the answer is no text")
    return Answer(
        text=text,
        withheld=finish == "content_filter",
        decision_ids=tuple(map(str, guard.get("decision_ids", ()))),
        skipped_filters=tuple(map(str, guard.get("skipped_filters", ()))),
        redaction_policy=policy_named(guard.get("redaction_policy")),
    )


def _status(status: int, content: bytes) -> Answer:
    """A refusal of the gateway, or of whatever stands before it, which has its own form."""
    by_status = HTTP_UNAVAILABLE if status >= 500 else HTTP_ERROR
    try:
        return _refusal(json.loads(content), by_status)
    except Exception:
        if status < 500:
            raise
        return Answer(error=by_status)


def _refusal(document: dict[str, Any], unnamed: str = HTTP_ERROR) -> Answer:
    told = document["error"].get("sluice", {})
    decision = told.get("decision_id", "")
    reason = told.get("reason") or unnamed
    if not _REASON.fullmatch(reason):  # somebody else's words are told to nobody
        raise ValueError("the reason is none of the mesh")
    return Answer(
        error=reason,
        policy=str(told.get("policy", "")),
        decision_ids=(str(decision),) if decision else (),
    )
