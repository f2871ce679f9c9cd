"""Callers of several tenants through both doors: whole answers and streams, some given up half-way; each keeps what it was told."""

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.gateway.v1 import gateway_service_pb2_grpc
from sluice.types.v1 import chat_pb2, generation_pb2

from .stage import MODEL, TENANTS, VECTORS, Stage

SECONDS = 40.0
PROMPTS = (
    "What is a canal lock?",
    "Tell me of the river in winter, and how boats get through.",
    "My name is Maria Keller, write to maria.keller@example.com. Greet me.",
    "Why do gates close slowly?",
    "You are a worthless piece of garbage and I hate you, you stupid idiot.",
)
# What has no event, by its own statement: nobody was told an answer, and nothing was used.
UNRECORDED = ("OUTBOX_FULL", "OUTBOX_UNAVAILABLE", "INVALID_API_KEY")


@dataclass
class Told:
    """What callers were told."""

    answered: dict[str, str] = field(default_factory=dict)
    """Request id to tenant: of each request whose end, good or bad, reached its caller."""
    how: dict[str, str] = field(default_factory=dict)
    """Request id to how it ended: `OK`, or the reason of the error."""
    chats: dict[str, float] = field(default_factory=dict)
    """Request id of each answer of the model that was whole, and when its caller had it (time.monotonic)."""
    twice: list[str] = field(default_factory=list)
    """Ids that were given to two requests."""
    given_up: set[str] = field(default_factory=set)
    """Ids of streams that their caller left."""
    unanswered: int = 0
    """Nobody told the end: the gateway was dead, or died."""
    ends: Counter[str] = field(default_factory=Counter)

    def end(self, request_id: str, tenant: str, what: str, *, chat: bool = True) -> None:
        """The end of a request reached its caller."""
        self.ends[what] += 1
        if not request_id or what in UNRECORDED:
            self.unanswered += not request_id
            return
        if request_id in self.answered:
            self.twice.append(request_id)
        self.answered[request_id], self.how[request_id] = tenant, what
        if chat and what == "OK":
            self.chats[request_id] = time.monotonic()


class Callers:
    """Use as an async context manager."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self.told = stage, Told()
        self._stopped = False
        environment = stage.mesh.environment
        limits = httpx.Limits(max_connections=200)
        self._http = httpx.AsyncClient(
            base_url=environment["SLUICE_HTTP_URL"], timeout=SECONDS, trust_env=False, limits=limits
        )
        # A channel that has lost its gateway must look for the new one at once, not after two minutes.
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1000)]
        self._channel = grpc.aio.insecure_channel(environment["SLUICE_GRPC_TARGET"], options=options)
        self._gateway: Any = gateway_service_pb2_grpc.GatewayServiceStub(self._channel)

    async def __aenter__(self) -> "Callers":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()
        await self._channel.close(None)

    def stop(self) -> None:
        """No new requests; those that run end."""
        self._stopped = True

    async def run(self) -> None:
        """Until stopped."""
        await asyncio.gather(*(self._call(number) for number in range(self._stage.plan.callers)))

    async def _call(self, number: int) -> None:
        chance = random.Random(f"{self._stage.plan.seed}-{number}")
        ways = [self._whole, self._streamed, self._grpc_whole, self._grpc_streamed]
        while not self._stopped:
            tenant, prompt, way = chance.choice(TENANTS), chance.choice(PROMPTS), chance.choice(ways)
            leave = chance.random() < 0.1
            if chance.random() < 0.05:
                await self._vectors(tenant, prompt)
            else:
                await way(tenant, prompt, leave)
            await asyncio.sleep(chance.uniform(0, 0.1))

    async def _whole(self, tenant: str, prompt: str, leave: bool) -> None:
        await self._post("chat/completions", _chat(prompt), tenant, seconds=0.03 if leave else SECONDS)

    async def _vectors(self, tenant: str, prompt: str) -> None:
        await self._post("embeddings", {"model": VECTORS, "input": prompt}, tenant, seconds=SECONDS)

    async def _post(self, path: str, body: dict[str, Any], tenant: str, *, seconds: float) -> None:
        try:
            answer = await self._http.post(f"/v1/{path}", json=body, headers=self._headers(tenant), timeout=seconds)
        except httpx.HTTPError as error:
            return await self._nobody(error)
        what = _what(answer.status_code, answer.content)
        self.told.end(answer.headers.get("x-request-id", ""), tenant, what, chat=path != "embeddings")

    async def _streamed(self, tenant: str, prompt: str, leave: bool) -> None:
        request_id = ""
        try:
            body, headers = _chat(prompt) | {"stream": True}, self._headers(tenant)
            async with self._http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
                request_id = answer.headers.get("x-request-id", "")
                if answer.status_code != 200:
                    what = _what(answer.status_code, await answer.aread())
                    return self.told.end(request_id, tenant, what)
                async for line in answer.aiter_lines():
                    if what := _end_in(line):
                        return self.told.end(request_id, tenant, what)
                    if leave and line:
                        self.told.given_up.add(request_id)
                        return None
        except httpx.HTTPError as error:
            return await self._nobody(error)
        return await self._nobody(EOFError())

    async def _grpc_whole(self, tenant: str, prompt: str, leave: bool) -> None:
        request = pb.ChatRequest(spec=_spec(prompt))
        try:
            answer = await self._gateway.Chat(request, **self._options(tenant, 0.03 if leave else SECONDS))
        except grpc.aio.AioRpcError as error:
            return await self._refused(error, tenant)
        return self.told.end(answer.request_id, tenant, "OK")

    async def _grpc_streamed(self, tenant: str, prompt: str, leave: bool) -> None:
        call = self._gateway.ChatStream(pb.ChatStreamRequest(spec=_spec(prompt)), **self._options(tenant, SECONDS))
        try:
            async for part in call:
                if part.HasField("finished"):
                    return self.told.end(part.request_id, tenant, "OK")
                if leave:
                    self.told.given_up.add(part.request_id)
                    call.cancel()
                    return None
        except grpc.aio.AioRpcError as error:
            return await self._refused(error, tenant)
        return await self._nobody(EOFError())

    async def _refused(self, error: grpc.aio.AioRpcError, tenant: str) -> None:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
        for detail in status.details if status else ():
            _ = detail.Unpack(info) or detail.Unpack(request)
        if not request.request_id:
            return await self._nobody(error)
        return self.told.end(request.request_id, tenant, info.reason or error.code().name)

    async def _nobody(self, error: Exception) -> None:
        self.told.unanswered += 1
        code = f" {error.code().name}" if isinstance(error, grpc.aio.AioRpcError) else ""
        self.told.ends[f"no answer: {type(error).__name__}{code}"] += 1
        await asyncio.sleep(0.2)

    def _headers(self, tenant: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self._stage.keys[tenant]}"}

    def _options(self, tenant: str, seconds: float) -> dict[str, Any]:
        return {"metadata": (("authorization", f"Bearer {self._stage.keys[tenant]}"),), "timeout": seconds}


def _chat(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 24}


def _spec(prompt: str) -> pb.ChatSpec:
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=prompt)
    return pb.ChatSpec(model=MODEL, messages=[message], stopping=generation_pb2.StoppingParameters(max_tokens=24))


def _what(status: int, content: bytes) -> str:
    return "OK" if status == 200 else str(json.loads(content)["error"]["sluice"]["reason"])


def _end_in(line: str) -> str:
    """How a stream ended, when this line says that it did."""
    if not line.startswith("data: {"):
        return ""
    frame = json.loads(line.removeprefix("data: "))
    if "error" in frame:
        return str(frame["error"]["sluice"]["reason"])
    return "OK" if any(choice.get("finish_reason") for choice in frame["choices"]) else ""
