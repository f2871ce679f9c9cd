"""The service over real gRPC, with detectors that tests can see through; the real ones stand in test_detectors.py."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluice.redaction.v1 import redaction_service_pb2 as pb
from sluice.types.v1 import verdict_pb2
from sluice_kit.errors import NotFound, ResourceExhausted, SluiceError, Unavailable, from_rpc_error
from sluice_redaction.adapters.journal import event_of
from sluice_redaction.api import Limits

_SERVICE = "sluice.redaction.v1.RedactionService"
Serving = Callable[..., AbstractAsyncContextManager[Any]]


async def until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline, "did not happen in 10 s"
        await asyncio.sleep(0.01)


def segments(*texts: str) -> list[pb.TextSegment]:
    return [pb.TextSegment(segment_id=f"messages[{number}]", text=text) for number, text in enumerate(texts)]


async def answer_of(running: Any, opening: pb.RedactStreamOpen, chunks: Iterable[str]) -> tuple[str, Any]:
    async def requests() -> AsyncIterator[pb.RedactStreamRequest]:
        yield pb.RedactStreamRequest(open=opening)
        for chunk in chunks:
            yield pb.RedactStreamRequest(text=chunk)
        yield pb.RedactStreamRequest(end=pb.RedactStreamEnd())

    text, finished = "", None
    async for response in running.stub.RedactStream(requests()):
        text += response.text
        if response.HasField("finished"):
            finished = response.finished
    return text, finished


async def error_of(call: Any) -> SluiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_the_same_value_gets_the_same_placeholder_in_all_texts_and_comes_back(service: Any) -> None:
    texts = ["I am Ann Lee, ann@example.com.", "Bob asked for Ann Lee.", "nothing"]
    redacted = await service.stub.Redact(pb.RedactRequest(segments=segments(*texts)))
    assert [segment.text for segment in redacted.segments] == [
        "I am <PERSON_1>, <EMAIL_ADDRESS_1>.",
        "<PERSON_2> asked for <PERSON_1>.",
        "nothing",
    ]
    assert {count.kind: count.count for count in redacted.counts} == {"PERSON": 3, "EMAIL_ADDRESS": 1}
    first = redacted.findings[0]
    assert (first.segment_id, first.start, first.end, first.placeholder) == ("messages[0]", 5, 12, "<PERSON_1>")
    restored = await service.stub.Restore(pb.RestoreRequest(segments=redacted.segments, vault=redacted.vault))
    assert [segment.text for segment in restored.segments] == texts
    assert restored.restored_count == 4


async def test_a_second_call_goes_on_with_the_vault_of_the_first(service: Any) -> None:
    first = await service.stub.Redact(pb.RedactRequest(segments=segments("Ann wrote.")))
    second = await service.stub.Redact(pb.RedactRequest(segments=segments("Bob and Ann."), vault=first.vault))
    assert second.segments[0].text == "<PERSON_2> and <PERSON_1>."
    assert [entry.placeholder for entry in second.vault.entries] == ["<PERSON_1>", "<PERSON_2>"]


async def test_what_a_user_typed_like_a_placeholder_is_neither_ours_nor_restored(service: Any) -> None:
    texts = ["Is <PERSON_1> or <person 2> you, Ann?"]
    redacted = await service.stub.Redact(pb.RedactRequest(segments=segments(*texts)))
    assert redacted.segments[0].text == "Is <PERSON_1> or <person 2> you, <PERSON_3>?"
    restored = await service.stub.Restore(pb.RestoreRequest(segments=redacted.segments, vault=redacted.vault))
    assert [segment.text for segment in restored.segments] == texts


async def test_detect_tells_code_points_and_never_values(service: Any) -> None:
    found = await service.stub.Detect(pb.DetectRequest(segments=segments("🙂🙂 Zoë Ray")))
    assert [(finding.start, finding.end, finding.kind) for finding in found.findings] == [(3, 10, "PERSON")]
    assert "Zoë" not in str(found)


async def test_a_stream_restores_the_callers_values_and_redacts_new_ones(service: Any) -> None:
    opening = pb.RedactStreamOpen(
        direction=verdict_pb2.DIRECTION_OUTPUT,
        restore=True,
        vault=pb.Vault(entries=[pb.VaultEntry(placeholder="<PERSON_1>", value="Ann Lee", kind="PERSON")]),
    )
    answer = "Dear <PERSON_1>, write to bob@example.com. <Person 1>'s friend <PERSON_9> says hello."
    whole = await answer_of(service, opening, [answer])
    assert whole[0] == "Dear Ann Lee, write to <EMAIL_ADDRESS_1>. Ann Lee's friend <PERSON_9> says hello."
    assert whole[1].restored_count == 2
    for size in (1, 2, 5, 17):
        chunks = [answer[at : at + size] for at in range(0, len(answer), size)]
        assert (await answer_of(service, opening, chunks))[0] == whole[0]
    last = service.notes.summaries[-1]
    assert last.streamed
    assert last.outgoing
    assert dict(last.counts) == {"EMAIL_ADDRESS": 1}
    assert last.first_text_seconds is not None
    assert whole[1].time_to_first_text.ToSeconds() == 0
    assert whole[1].HasField("time_to_first_text")
    event = event_of(last)
    assert event.time_to_first_text.ToNanoseconds() > 0


async def test_values_are_escaped_only_where_the_text_is_said_to_be_json(service: Any) -> None:
    vault = pb.Vault(entries=[pb.VaultEntry(placeholder="<PERSON_1>", value='Ann "A" \\ Lee', kind="PERSON")])
    text = '{"name": "<PERSON_1>"}'
    plain = await service.stub.Restore(pb.RestoreRequest(segments=segments(text), vault=vault))
    assert plain.segments[0].text == '{"name": "Ann "A" \\ Lee"}'
    request = pb.RestoreRequest(segments=segments(text), vault=vault, format=pb.TEXT_FORMAT_JSON)
    escaped = await service.stub.Restore(request)
    assert escaped.segments[0].text == '{"name": "Ann \\"A\\" \\\\ Lee"}'


async def test_a_thousand_sessions_at_once_never_see_each_others_values(service: Any) -> None:
    async def session(number: int) -> None:
        name = f"User{number}"
        redacted = await service.stub.Redact(pb.RedactRequest(segments=segments(f"I am {name}.", f"{name}, yes.")))
        assert [segment.text for segment in redacted.segments] == ["I am <PERSON_1>.", "<PERSON_1>, yes."]
        assert [entry.value for entry in redacted.vault.entries] == [name]
        opening = pb.RedactStreamOpen(vault=redacted.vault, restore=True, direction=verdict_pb2.DIRECTION_OUTPUT)
        text, _ = await answer_of(service, opening, ["Hello <PERS", "ON_1>. And ", "User0000 too."])
        assert text == f"Hello {name}. And <PERSON_2> too."

    turn = asyncio.Semaphore(200)

    async def bounded(number: int) -> None:
        async with turn:
            await session(number)

    await asyncio.gather(*(bounded(number) for number in range(1, 1_001)))


async def test_every_call_is_told_to_the_journal_without_values(service: Any) -> None:
    await service.stub.Redact(pb.RedactRequest(segments=segments("Ann, ann@example.com", "Bob")))
    event = event_of(service.notes.summaries[-1])
    assert {count.kind: count.count for count in event.counts} == {"PERSON": 2, "EMAIL_ADDRESS": 1}
    assert event.direction == verdict_pb2.DIRECTION_INPUT
    assert (event.segment_count, event.characters, event.recognizer_counts["patterns"]) == (2, 23, 3)
    assert b"Ann" not in event.SerializeToString()
    assert b"ann@" not in event.SerializeToString()


async def test_a_caller_who_goes_away_in_the_middle_of_a_stream_leaves_a_note(service: Any) -> None:
    async def requests() -> AsyncIterator[pb.RedactStreamRequest]:
        yield pb.RedactStreamRequest(open=pb.RedactStreamOpen())
        yield pb.RedactStreamRequest(text="Here again is Ann Lee herself. And more of it. And")
        await asyncio.Event().wait()

    call = service.stub.RedactStream(requests())
    async for response in call:
        assert response.text == "Here again is <PERSON_1> herself. "
        break
    call.cancel()
    await until(lambda: bool(service.notes.summaries))
    assert dict(service.notes.summaries[0].counts) == {"PERSON": 1}


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (pb.RedactRequest(segments=segments("x" * 51)), "50 are allowed"),
        (pb.RedactRequest(segments=segments("a", "b", "c", "d")), "3 are allowed"),
        (pb.RedactRequest(segments=[pb.TextSegment(text="a"), pb.TextSegment(text="b")]), "same segment_id"),
        (pb.RedactRequest(segments=segments("a"), language="fr"), "is for en"),
        (pb.RedactRequest(vault=pb.Vault(entries=[pb.VaultEntry(placeholder="PERSON", value="x")])), "form <KIND_n>"),
        (pb.RedactRequest(vault=pb.Vault(entries=[pb.VaultEntry(placeholder="<A_1>", kind="Ann Lee")])), "kind is not"),
        (pb.RedactRequest(vault=pb.Vault(entries=[pb.VaultEntry(placeholder="<A_1>")] * 2)), "twice"),
        (pb.RedactRequest(vault=pb.Vault(entries=[pb.VaultEntry(placeholder="<A_1>")] * 9)), "8 are allowed"),
    ],
)
async def test_bad_input_is_refused_with_what_to_do(
    serving: Serving, tmp_path: Path, request_: pb.RedactRequest, says: str
) -> None:
    async with serving(tmp_path, limits=Limits(texts=3, characters=50, vault_entries=8)) as running:
        error = await error_of(running.stub.Redact(request_))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert says in error.message
        assert error.field


async def test_an_unknown_policy_is_not_found_and_the_known_are_named(service: Any) -> None:
    error = await error_of(service.stub.Detect(pb.DetectRequest(policy_id="nope")))
    assert isinstance(error, NotFound)
    assert "children, default, everything, healthcare, secrets" in error.message


async def test_nothing_to_do_is_done(service: Any) -> None:
    assert len((await service.stub.Redact(pb.RedactRequest())).segments) == 0
    assert (await service.stub.Redact(pb.RedactRequest(segments=segments("")))).segments[0].text == ""
    assert (await answer_of(service, pb.RedactStreamOpen(), []))[0] == ""


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [pb.RedactStreamRequest(text="hello")],
        [pb.RedactStreamRequest(open=pb.RedactStreamOpen()), pb.RedactStreamRequest(open=pb.RedactStreamOpen())],
        [pb.RedactStreamRequest(open=pb.RedactStreamOpen()), pb.RedactStreamRequest(text="x" * 61)],
    ],
)
async def test_a_stream_out_of_order_or_too_long_is_refused(
    serving: Serving, tmp_path: Path, messages: list[pb.RedactStreamRequest]
) -> None:
    async with serving(tmp_path, limits=Limits(stream_characters=60)) as running:
        call = running.stub.RedactStream(iter(messages))
        error = await error_of(call.read())
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_too_many_waiting_texts_are_refused_with_a_time_to_retry(serving: Serving, tmp_path: Path) -> None:
    gate = threading.Event()
    warm = threading.Event()

    def wait() -> None:
        if warm.is_set():
            gate.wait(10)

    async with serving(tmp_path, gate=wait, queue_limit=1) as running:
        warm.set()
        calls = [
            asyncio.ensure_future(running.stub.Redact(pb.RedactRequest(segments=segments("Ann")))) for _ in range(6)
        ]
        await until(lambda: sum(call.done() for call in calls) == 3)
        gate.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [from_rpc_error(one) for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
        assert len(refused) == 3  # two run, one waits
        assert all(isinstance(error, ResourceExhausted) and error.retry_after_seconds for error in refused)
        assert await running.stub.Redact(pb.RedactRequest(segments=segments("Ann")))


async def test_a_recognizer_that_cannot_load_leaves_the_service_not_serving_and_says_why(
    serving: Serving, tmp_path: Path
) -> None:
    def broken() -> Any:
        raise FileNotFoundError("Rampart's files are missing")

    async with serving(tmp_path, make=broken, ready=False) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        status = await health.Check(health_pb2.HealthCheckRequest(service=_SERVICE))
        assert status.status == health_pb2.HealthCheckResponse.NOT_SERVING
        error = await error_of(running.stub.Redact(pb.RedactRequest(segments=segments("Ann"))))
        assert isinstance(error, Unavailable)
        deadline = time.monotonic() + 5
        while "Rampart's files are missing" not in error.message:
            assert time.monotonic() < deadline
            error = await error_of(running.stub.Redact(pb.RedactRequest(segments=segments("Ann"))))


async def test_the_recognizers_are_listed_with_what_a_policy_replaces(service: Any) -> None:
    listed = await service.stub.ListRecognizers(pb.ListRecognizersRequest(policy_id="secrets"))
    assert [recognizer.name for recognizer in listed.recognizers] == ["patterns"]
    assert list(listed.enabled_kinds) == ["API_KEY", "PASSWORD"]


async def test_a_value_split_over_two_texts_is_replaced_in_both(service: Any) -> None:
    texts = ["write to ann.lee@exam", "ple.com, please"]
    redacted = await service.stub.Redact(pb.RedactRequest(segments=segments(*texts)))
    assert [segment.text for segment in redacted.segments] == [
        "write to <EMAIL_ADDRESS_1>",
        "<EMAIL_ADDRESS_2>, please",
    ]
    assert redacted.findings[-1].disguise == "split"
    restored = await service.stub.Restore(pb.RestoreRequest(segments=redacted.segments, vault=redacted.vault))
    assert [segment.text for segment in restored.segments] == texts


async def test_a_thousand_streams_that_are_open_at_once_keep_their_values_apart(service: Any) -> None:
    """Every stream gets its next piece only when all others have got theirs: as interleaved as can be."""
    pieces = ["Hello <PERS", "ON_1>, Person", "_1 or <person\n1", ">. And [EMAIL_ADDRESS", "_1] or <EMAIL_ADDRESS_2>."]
    count = 1_000
    barrier = asyncio.Barrier(count)

    async def session(number: int) -> str:
        vault = pb.Vault(
            entries=[
                pb.VaultEntry(placeholder="<PERSON_1>", value=f"Name{number}", kind="PERSON"),
                pb.VaultEntry(placeholder="<EMAIL_ADDRESS_1>", value=f"mail{number}@x.org", kind="EMAIL_ADDRESS"),
            ]
        )

        async def requests() -> AsyncIterator[pb.RedactStreamRequest]:
            yield pb.RedactStreamRequest(open=pb.RedactStreamOpen(vault=vault, restore=True))
            for piece in pieces:
                await barrier.wait()
                yield pb.RedactStreamRequest(text=piece)

        return "".join([response.text async for response in service.stub.RedactStream(requests())])

    answers = await asyncio.gather(*(session(number) for number in range(count)))
    for number, answer in enumerate(answers):
        assert answer == f"Hello Name{number}, Person_1 or Name{number}. And mail{number}@x.org or <EMAIL_ADDRESS_2>."
