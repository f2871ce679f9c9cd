"""An OpenAI-compatible server whose answers are written beforehand: fast, in pieces, with a usage that fits. Run it; it prints its port."""

import asyncio
import contextlib
import json
from typing import Any

from aiohttp import web

WORDS = (
    "The",
    "river",
    "is",
    "calm,",
    "the",
    "gates",
    "are",
    "open",
    "and",
    "boats",
    "go",
    "through",
    "one",
    "by",
    "one.",
)
BETWEEN_SECONDS = 0.01


def answer_to(body: dict[str, Any]) -> list[str]:
    """As many words as were allowed, of as many as the question is long: questions differ, so answers do."""
    asked = sum(len(str(message.get("content", ""))) for message in body["messages"])
    allowed = int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
    return [WORDS[number % len(WORDS)] + " " for number in range(min(allowed, 4 + asked % 12))]


def usage_of(body: dict[str, Any], words: list[str]) -> dict[str, int]:
    asked = sum(len(str(message.get("content", "")).split()) for message in body["messages"])
    return {"prompt_tokens": asked, "completion_tokens": len(words), "total_tokens": asked + len(words)}


async def chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    words = answer_to(body)
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})

    async def send(choices: list[dict[str, Any]], **more: Any) -> None:
        await response.write(b"data: " + json.dumps(frame | {"choices": choices} | more).encode() + b"\n\n")

    with contextlib.suppress(ConnectionResetError):  # the caller has left
        await response.prepare(request)
        for word in words:
            await send([{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}])
            await asyncio.sleep(BETWEEN_SECONDS)
        await send([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        await send([], usage=usage_of(body, words))
        await response.write(b"data: [DONE]\n\n")
    return response


async def models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "scripted", "object": "model"}]})


async def serve() -> None:
    application = web.Application()
    application.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
