"""The console of a real mesh after a conversation: every page is there, and every service that it asks has answered."""

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import grpc
import httpx
import pytest
from sluice.gateway.v1 import gateway_service_pb2 as pb

from .conftest import Mesh, eventually
from .test_conversations import ABUSE, PERSONAL, gateway, options, spec

PAGES = ("/", "/drift", "/fairness", "/requests", "/cost", "/review", "/alerts")
AWAY = ("does not answer", "Not available")


@contextlib.contextmanager
def signed_in(mesh: Mesh) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=mesh.environment["SLUICE_CONSOLE_URL"], trust_env=False, timeout=60) as client:
        answer = client.post("/signin", data={"key": mesh.environment["SLUICE_CONSOLE_KEY"]})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        yield client


def shown(client: httpx.Client, path: str, **query: str) -> str:
    """A page's words with its tags, once no part of it is away; as it stands last where one never comes back."""

    def whole() -> str:
        answer = client.get(path, params=query)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        pages.append(" ".join(answer.text.split()))
        return "" if any(words in pages[-1] for words in AWAY) else pages[-1]

    pages: list[str] = []
    eventually(whole)
    return pages[-1]


def listed(client: httpx.Client, **query: str) -> list[str]:
    """The requests on the page of requests."""
    return re.findall(r'href="/requests/([^"]+)"', shown(client, "/requests", **query))


def test_after_a_conversation_every_page_answers_and_its_requests_are_counted_and_told(mesh: Mesh) -> None:
    begun = datetime.now(UTC).isoformat()
    channel, stub = gateway(mesh)
    with channel:
        answers = [stub.Chat(pb.ChatRequest(spec=spec(PERSONAL)), **options(mesh)) for _ in range(2)]
        with pytest.raises(grpc.RpcError):
            stub.Chat(pb.ChatRequest(spec=spec(ABUSE)), **options(mesh))
    answered = [answer.request_id for answer in answers]
    with signed_in(mesh) as client:
        eventually(lambda: len(listed(client, **{"from": begun})) >= 3)
        newest_first = listed(client, **{"from": begun})
        blocked = listed(client, **{"from": begun, "outcome": "blocked"})
        assert newest_first == [*blocked, *reversed(answered)]
        assert len(blocked) == 1
        assert listed(client, **{"from": begun, "kind": "EMAIL_ADDRESS"}) == [*reversed(answered)]
        eventually(lambda: "Not booked yet" not in shown(client, f"/requests/{answered[0]}"))
        story = shown(client, f"/requests/{answered[0]}")
        assert "<b>Completed.</b> It was answered." in story
        used = answers[0].usage.ListFields()
        tokens = sum(number for field, number in used if field.name.endswith("_tokens"))
        assert f'<dt>Tokens</dt><dd class="value">{tokens}</dd>' in story
        assert '<dt>Personal data</dt><dd class="value">2</dd><dd class="note">EMAIL_ADDRESS, PERSON</dd>' in story
        assert "Not booked yet" not in story
        assert "The input was blocked by policy" in shown(client, f"/requests/{blocked[0]}")
        eventually(lambda: "Nothing has happened yet." not in shown(client, "/"))
        pages = {path: shown(client, path) for path in PAGES} | {"story": story}
    assert {path for path, page in pages.items() if any(words in page for words in AWAY)} == set()
    assert "Nothing has happened yet." not in pages["/"]
