"""ModerationService under policies that redact, hold, belong to tenants, are on trial, or change while it runs."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sluice.events.v1 import moderation_pb2 as events
from sluice.moderation.v1 import moderation_service_pb2 as pb
from sluice.moderation.v1 import moderation_service_pb2_grpc
from sluice.types.v1 import verdict_pb2
from sluice_kit.server import GrpcServer
from sluice_moderation.adapters import detectors
from sluice_moderation.adapters.evidence_sqlite import SqliteEvidence
from sluice_moderation.adapters.policy_files import SHIPPED
from sluice_moderation.adapters.scoring import ScoringPool
from sluice_moderation.api import Limits, ModerationService
from sluice_moderation.domain.detector import Scores
from sluice_moderation.domain.panel import Panel
from sluice_moderation.main import watched_policies
from sluice_moderation.settings import Settings

INPUT, OUTPUT = verdict_pb2.DIRECTION_INPUT, verdict_pb2.DIRECTION_OUTPUT
PANEL = detectors.load().panel
ABUSE = "You are a fucking idiot and I hate you."
FINE = "The capital of France is Paris. "
MORE = "It lies on the Seine, by the way."

HEAD = "version: 1\ndescription: For tests.\nfail_closed: true\n"
REDACTING = f"policy: redacting\n{HEAD}rules:\n  input: {{toxicity: {{redact: 0.8}}}}\n  output: {{toxicity: {{redact: 0.8}}}}\n"
HOLDING = (
    f"policy: holding\n{HEAD}rules:\n  input: {{toxicity: {{hold: 0.8}}}}\n  output: {{toxicity: {{hold: 0.8}}}}\n"
)
OPEN = HOLDING.replace("holding", "open").replace("fail_closed: true", "fail_closed: false")
OWN = REDACTING.replace("policy: redacting", "policy: acme-only").replace("rules:", "tenants: [acme-corp]\nrules:")
STRICT = f"policy: strict-on-trial\n{HEAD}shadow_of: redacting\nrules:\n  output: {{toxicity: {{block: 0.01}}, secrets: {{block: 0.5}}}}\n"
POLICIES = {"r": REDACTING, "h": HOLDING, "o": OPEN, "a": OWN, "s": STRICT}


class RecordingPublisher:
    def __init__(self) -> None:
        self.events: list[events.ContentModerated] = []
        self.slow = asyncio.Event()
        self.slow.set()

    async def publish(self, *published: events.ContentModerated) -> None:
        if any(event.shadow for event in published):
            await self.slow.wait()
        self.events += published


@dataclass
class Service:
    stub: moderation_service_pb2_grpc.ModerationServiceStub
    publisher: RecordingPublisher
    folder: Path
    finish: Callable[[], Awaitable[None]]

    async def moderate(
        self, *texts: str, direction: int = INPUT, policy: str = "", tenant: str = "acme", **more: Any
    ) -> Any:
        segments = [pb.ModeratedText(segment_id=f"messages[{i}].content", text=text) for i, text in enumerate(texts)]
        request = pb.ModerateRequest(segments=segments, direction=direction, policy_id=policy)
        return await self.stub.Moderate(request, metadata=who(tenant), **more)

    async def stream(
        self, chunks: list[str], *, policy: str, tenant: str = "acme", fail_closed: bool = False
    ) -> tuple[str, verdict_pb2.Verdict]:
        opening = pb.ModerateStreamOpen(direction=OUTPUT, policy_id=policy, fail_closed=fail_closed)

        async def messages() -> AsyncIterator[pb.ModerateStreamRequest]:
            yield pb.ModerateStreamRequest(open=opening)
            for chunk in chunks:
                yield pb.ModerateStreamRequest(text=chunk)
            yield pb.ModerateStreamRequest(end=pb.ModerateStreamEnd())

        answers = [answer async for answer in self.stub.ModerateStream(messages(), metadata=who(tenant))]
        return "".join(a.text for a in answers[:-1]), answers[-1].verdict

    async def explain(self, decision_id: str, *, tenant: str = "acme") -> pb.ExplainResponse:
        return await self.stub.Explain(pb.ExplainRequest(decision_id=decision_id), metadata=who(tenant))


def who(tenant: str) -> tuple[tuple[str, str], ...]:
    return (("x-sluice-tenant-id", tenant), ("x-request-id", "req-1"))


@asynccontextmanager
async def running(folder: Path, *, cache_windows: int = 0, panel: Panel = PANEL) -> AsyncIterator[Service]:
    policies = folder / "policies"
    policies.mkdir()
    for name, text in POLICIES.items():
        (policies / f"{name}.yaml").write_text(text)
    watched = watched_policies([SHIPPED, policies], PANEL)
    evidence = SqliteEvidence(folder / "evidence.db", max_rows=10_000, max_days=30)
    pool = ScoringPool(panel, threads=2, queue_windows=65_536, cache_windows=cache_windows)
    publisher = RecordingPublisher()
    service = ModerationService(
        policies=lambda: watched.current, panel=panel, pool=pool, evidence=evidence, publisher=publisher,
        limits=Limits(characters=400_000, segments=2000),
    )  # fmt: skip
    server = GrpcServer(
        service="moderation",
        settings=Settings(grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", home=folder, drain_seconds=0),
    )
    moderation_service_pb2_grpc.add_ModerationServiceServicer_to_server(service, server.grpc)
    await server.start(service_names=["sluice.moderation.v1.ModerationService"])
    watching = asyncio.create_task(watched.watch(poll_seconds=0.02))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = moderation_service_pb2_grpc.ModerationServiceStub(channel)
        yield Service(stub, publisher, policies, service.finish)
    watching.cancel()
    publisher.slow.set()
    await server.stop()
    await service.finish()
    evidence.close()
    pool.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(tmp_path) as found:
        yield found


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_redacting_policy_gives_back_only_the_segments_that_must_change(service: Service) -> None:
    answer = await service.moderate(f"{FINE}{ABUSE} {MORE}", "Hello there, how are you?", policy="redacting")
    assert answer.verdict.action == verdict_pb2.ACTION_REDACT
    assert [(s.segment_id, s.text) for s in answer.replaced_segments] == [
        ("messages[0].content", f"{FINE}[removed: toxicity] {MORE}")
    ]
    (event,) = service.publisher.events
    assert (event.redacted_sentences, event.awaits_review) == (1, False)
    assert event.policy_digest.startswith("sha256:")


async def test_a_blocked_request_gives_no_replacements(service: Service) -> None:
    answer = await service.moderate(ABUSE)
    assert (answer.verdict.action, len(answer.replaced_segments)) == (verdict_pb2.ACTION_BLOCK, 0)


async def test_a_held_request_waits_for_a_person_and_the_event_says_so(service: Service) -> None:
    answer = await service.moderate(ABUSE, policy="holding")
    assert (answer.verdict.action, len(answer.replaced_segments)) == (verdict_pb2.ACTION_HOLD, 0)
    assert [event.awaits_review for event in service.publisher.events] == [True]
    assert (await service.explain(answer.verdict.decision_id)).summary.startswith(
        "Withheld until a person has looked: toxicity"
    )


async def test_a_held_stream_releases_no_character_of_the_sentence(service: Service) -> None:
    text, verdict = await service.stream(list(f"{FINE}{ABUSE} {MORE}"), policy="holding")
    assert (text, verdict.action) == (FINE, verdict_pb2.ACTION_HOLD)
    explained = await service.explain(verdict.decision_id)
    assert ("rest_of_stream", "withheld") in [(s.check, s.reason) for s in explained.verdict.skipped]


SENTENCES = (
    FINE,
    MORE + " ",
    f"{ABUSE} ",
    "Y0u are a fuck1ng 1d10t, mate. ",
    "L'été à l'île est très beau, n'est-ce pas? ",
    "这个问题很有意思，我们来看一看吧。你是个白痴！",
    "ประเทศไทยมีอากาศร้อนและมีอาหารอร่อยมากมายหลายอย่าง",
    "👩‍👩‍👧‍👦 families are welcome here 🎉! ",
    "and so on and on " * 40,
    "x" * 450,
    "\n\n",
    "Right. ",
    "I will kill you, you stupid bitch. ",
)


@pytest.mark.parametrize("policy", ["redacting", "holding", "general"])
async def test_with_the_real_detectors_no_chunking_changes_what_is_released_or_decided(
    service: Service, policy: str
) -> None:
    @given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=7), st.randoms(use_true_random=False))
    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    def drawn(parts: list[str], randomness: random.Random) -> None:
        cases.append(("".join(parts), randomness.randrange(2**32)))

    cases: list[tuple[str, int]] = []
    drawn()
    for text, seed in cases:
        dice, pieces, start = random.Random(seed), [], 0
        while start < len(text):
            size = dice.choice((1, 2, 3, 7, 40, 500))
            pieces.append(text[start : start + size])
            start += size
        whole, whole_verdict = await service.stream([text], policy=policy)
        released, verdict = await service.stream(pieces, policy=policy)
        assert released == whole
        verdict.decision_id = whole_verdict.decision_id = ""
        assert verdict == whole_verdict
        if verdict.action == verdict_pb2.ACTION_REDACT:
            assert "[removed: " in released
        for sentence in (ABUSE, "fuck1ng", "stupid bitch"):
            assert sentence not in released
    assert len(cases) >= 12


async def test_a_tenants_policy_is_its_default_and_for_others_it_does_not_exist(service: Service) -> None:
    mine = await service.moderate(ABUSE, tenant="acme-corp")
    assert (mine.verdict.policy_id, mine.verdict.action) == ("acme-only", verdict_pb2.ACTION_REDACT)
    assert (await service.moderate(ABUSE, tenant="other")).verdict.policy_id == "general"
    for tenant in ("other", "", "Acme-Corp", "acme-corp "):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await service.moderate("Hello", policy="acme-only", tenant=tenant)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert "acme" not in (error.value.details() or "")
    listed = await service.stub.ListPolicies(pb.ListPoliciesRequest(), metadata=who("other"))
    assert "acme-only" not in [policy.policy_id for policy in listed.policies]


async def test_a_shadow_is_judged_beside_and_published_as_not_enforced_and_changes_nothing(service: Service) -> None:
    service.publisher.slow.clear()  # a shadow's event that cannot be written yet must not hold the answer up
    text, verdict = await service.stream(list(f"{FINE}{ABUSE} {MORE}"), policy="redacting")
    assert (text, verdict.action) == (f"{FINE}[removed: toxicity] {MORE}", verdict_pb2.ACTION_REDACT)
    (enforced,) = service.publisher.events
    assert not enforced.shadow
    service.publisher.slow.set()
    await until(lambda: len(service.publisher.events) == 2)
    shadow = service.publisher.events[1]
    assert shadow.shadow
    assert (shadow.verdict.policy_id, shadow.verdict.action) == ("strict-on-trial", verdict_pb2.ACTION_BLOCK)
    assert shadow.enforced_decision_id == verdict.decision_id
    assert ("secrets", "not_scored") in [(s.check, s.reason) for s in shadow.verdict.skipped]
    explained = await service.explain(verdict.decision_id)
    assert [(s.policy_id, s.action, s.decision_id) for s in explained.shadows] == [
        ("strict-on-trial", verdict_pb2.ACTION_BLOCK, shadow.verdict.decision_id)
    ]
    told = await service.explain(shadow.verdict.decision_id)
    assert told.shadow
    assert told.summary.startswith("Not enforced (shadow policy). Blocked: toxicity")
    labels = {"policy": "strict-on-trial", "action": "block", "enforced_action": "redact", "direction": "output"}
    assert (REGISTRY.get_sample_value("sluice_moderation_shadow_decisions_total", labels) or 0) >= 1


async def test_a_shadow_runs_no_detector_of_its_own(service: Service) -> None:
    def windows() -> float:
        return REGISTRY.get_sample_value("sluice_moderation_windows_total") or 0.0

    before = windows()
    await service.moderate(FINE + MORE, direction=OUTPUT, policy="redacting")
    beside = windows() - before
    (service.folder / "s.yaml").unlink()
    listed = pb.ListPoliciesRequest()
    deadline = time.monotonic() + 10
    while any(p.shadow_of for p in (await service.stub.ListPolicies(listed, metadata=who("acme"))).policies):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    before = windows()
    await service.moderate(FINE + MORE, direction=OUTPUT, policy="redacting")
    assert windows() - before == beside


async def test_a_text_in_another_script_is_marked_as_untested_whatever_its_language_is_said_to_be(
    service: Service,
) -> None:
    for text, untested in [("Какая столица у Франции и где она?", True), ("这个问题很有意思，我们来看一看吧。", True), (FINE, False),
                           ("L'été à l'île est très beau.", False), ("The word Ελλάδα means Greece.", False)]:  # fmt: skip
        verdict = (await service.moderate(text, policy="holding")).verdict
        assert (("toxicity", "language_untested") in [(s.check, s.reason) for s in verdict.skipped]) is untested


async def test_what_is_told_of_a_withheld_stream_does_not_depend_on_what_came_behind(service: Service) -> None:
    text = f"{FINE}{ABUSE} Это уже никто не прочитает, даже если это написано. Gay people live here."
    verdicts = []
    for size in (1, 1000):
        _, verdict = await service.stream([text[i : i + size] for i in range(0, len(text), size)], policy="holding")
        verdict.decision_id = ""
        verdicts.append(verdict)
    assert verdicts[0] == verdicts[1]
    assert [list(event.identity_groups) for event in service.publisher.events if not event.shadow] == [[], []]


async def test_streams_tell_what_they_hold_back_and_how_long_the_first_text_took(service: Service) -> None:
    def count(name: str) -> float:
        return REGISTRY.get_sample_value(f"sluice_moderation_{name}_count") or 0.0

    names = ("held_characters", "added_time_to_first_text_seconds", "first_judgement_seconds")
    before = [count(name) for name in names]
    await service.stream(["The capital of ", "France is Paris. It ", "lies on the Seine."], policy="redacting")
    assert [count(name) - b for name, b in zip(names, before, strict=True)] == [3, 1, 1]


async def test_a_hundred_streams_at_once_each_get_their_own_text_back(service: Service) -> None:
    texts = [
        f"Number {i} is a fine number. {ABUSE if i % 3 == 0 else 'It is even liked.'} And so is {i + 1}."
        for i in range(100)
    ]
    answers = await asyncio.gather(*(service.stream([t[:9], t[9:31], t[31:]], policy="redacting") for t in texts))
    for i, (text, verdict) in enumerate(answers):
        middle = "[removed: toxicity]" if i % 3 == 0 else "It is even liked."
        assert text == f"Number {i} is a fine number. {middle} And so is {i + 1}."
        assert (verdict.action == verdict_pb2.ACTION_REDACT) is (i % 3 == 0)


async def test_a_shadow_cannot_be_asked_for(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.moderate("Hello", policy="strict-on-trial")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_explanation_says_where_by_which_view_and_what_moved_it_in_numbers_only(service: Service) -> None:
    answer = await service.moderate("Hello there, how are you?", f"{FINE}Y0u are a fuck1ng 1d10t.", policy="redacting")
    told = await service.explain(answer.verdict.decision_id)
    (sentence,) = {(s.segment_id, s.sentence, s.start, s.end) for s in told.offending_sentences}
    assert sentence == ("messages[1].content", 1, len(FINE), len(FINE) + 24)
    assert {s.view for s in told.offending_sentences} == {"folded"}
    assert (told.language, told.characters, told.streamed) == ("en", 25 + len(FINE) + 24, False)
    assert told.policy_digest.startswith("sha256:")
    assert told.contributions
    assert told.method
    assert not any(word in told.SerializeToString().lower() for word in (b"1d10t", b"paris", b"hello"))


async def test_anothers_explanation_is_as_unknown_as_none_at_all(service: Service) -> None:
    answer = await service.moderate(ABUSE, tenant="acme-corp")
    errors = []
    for decision, tenant in [
        (answer.verdict.decision_id, "other"),
        (answer.verdict.decision_id, ""),
        ("nothing", "acme-corp"),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await service.explain(decision, tenant=tenant)
        errors.append((error.value.code(), error.value.details()))
    assert len(set(errors)) == 1
    assert errors[0][0] is grpc.StatusCode.NOT_FOUND


class StuckDetector:
    """Scores toxicity once it is let go."""

    name, digest, categories = "stuck", "sha256:0", ("toxicity",)

    def __init__(self) -> None:
        self.go = threading.Event()

    def scores(self, texts: Sequence[str]) -> Scores:
        assert self.go.wait(60)
        return np.zeros((len(texts), 1), np.float32)


async def test_a_call_with_no_time_left_skips_its_checks_as_the_policy_says(tmp_path: Path) -> None:
    detector = StuckDetector()
    async with running(tmp_path, panel=Panel([detector])) as service:
        closed = await service.moderate(FINE, policy="holding", timeout=2)
        assert closed.verdict.action == verdict_pb2.ACTION_BLOCK
        assert ("toxicity", "deadline") in [(s.check, s.reason) for s in closed.verdict.skipped]
        opened = await service.moderate(FINE, policy="open", timeout=2)
        assert opened.verdict.action == verdict_pb2.ACTION_SKIPPED
        told = await service.explain(closed.verdict.decision_id)
        assert "a check could not be made (deadline)" in told.summary
        detector.go.set()
        assert (await service.moderate(FINE, policy="holding")).verdict.action == verdict_pb2.ACTION_ALLOW


class BrokenAfter(StuckDetector):
    """Finds `bad` in the first batches, then fails."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def scores(self, texts: Sequence[str]) -> Scores:
        self.batches -= 1
        if self.batches < 0:
            raise RuntimeError("weights are gone")
        return np.array([["bad" in text] for text in texts], np.float32)


async def test_a_caller_that_fails_closed_gets_nothing_unchecked_from_a_policy_that_fails_open(tmp_path: Path) -> None:
    async with running(tmp_path, panel=Panel([BrokenAfter(0)])) as service:
        segments = [pb.ModeratedText(segment_id="a", text=FINE)]
        for fail_closed, action in ((False, verdict_pb2.ACTION_SKIPPED), (True, verdict_pb2.ACTION_BLOCK)):
            request = pb.ModerateRequest(segments=segments, direction=INPUT, policy_id="open", fail_closed=fail_closed)
            assert (await service.stub.Moderate(request, metadata=who("acme"))).verdict.action == action
        assert (await service.stream([FINE], policy="open"))[0] == FINE
        released, verdict = await service.stream([FINE, MORE], policy="open", fail_closed=True)
        assert (released, verdict.action) == ("", verdict_pb2.ACTION_BLOCK)


async def test_a_verdict_stands_although_what_moved_it_cannot_be_told(tmp_path: Path) -> None:
    async with running(tmp_path, panel=Panel([BrokenAfter(1)])) as service:
        verdict = (await service.moderate("This is bad.", policy="holding")).verdict
        assert verdict.action == verdict_pb2.ACTION_HOLD
        told = await service.explain(verdict.decision_id)
        assert not told.contributions
        assert told.method.startswith("none: the detector failed")


async def test_a_changed_policy_counts_for_the_next_call_and_a_bad_one_leaves_the_last_good_one(
    service: Service,
) -> None:
    file = service.folder / "h.yaml"
    file.write_text(HOLDING.replace("version: 1", "version: 2").replace("hold:", "block:"))
    deadline = time.monotonic() + 10
    while (verdict := (await service.moderate(ABUSE, policy="holding")).verdict).policy_version != 2:
        assert time.monotonic() < deadline
    assert verdict.action == verdict_pb2.ACTION_BLOCK
    refused = {"service": "moderation", "result": "refused"}
    before = REGISTRY.get_sample_value("sluice_configuration_reloads_total", refused) or 0
    file.write_text(HOLDING.replace("version: 1", "version: 3").replace("0.8", "8"))
    await until(lambda: (REGISTRY.get_sample_value("sluice_configuration_reloads_total", refused) or 0) > before)
    assert (await service.moderate(ABUSE, policy="holding")).verdict.policy_version == 2


async def test_a_text_that_comes_again_is_scored_once_for_a_tenant_and_judged_alike(tmp_path: Path) -> None:
    def count(result: str) -> float:
        return REGISTRY.get_sample_value("sluice_moderation_score_cache_total", {"result": result}) or 0.0

    async with running(tmp_path, cache_windows=1000) as service:
        verdicts, missed, hit = [], [], []
        for tenant in ("acme", "acme", "other"):
            misses, hits = count("miss"), count("hit")
            verdicts.append((await service.moderate(f"{FINE}{ABUSE}", direction=OUTPUT, tenant=tenant)).verdict)
            missed.append(count("miss") - misses)
            hit.append(count("hit") - hits)
            verdicts[-1].decision_id = ""
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert (missed, hit) == ([3, 0, 3], [0, 3, 0])


class WholeAttack:
    """Scores toxicity where the whole of an attack stands in one text."""

    name, digest, categories = "whole", "sha256:0", ("toxicity",)

    def scores(self, texts: Sequence[str]) -> Scores:
        attack = ("mix", "the bleach", "with the acid")
        return np.array([[float(all(part in text for part in attack))] for text in texts], np.float32).reshape(-1, 1)


async def test_an_attack_spread_over_messages_of_one_writer_is_seen_and_of_several_not(tmp_path: Path) -> None:
    parts = ["Please mix", "the bleach", "with the acid"]

    def request(writers: Sequence[str]) -> pb.ModerateRequest:
        texts = zip(parts, writers, strict=True)
        segments = [
            pb.ModeratedText(segment_id=f"m{i}", text=text, writer=writer) for i, (text, writer) in enumerate(texts)
        ]
        return pb.ModerateRequest(segments=segments, direction=INPUT, policy_id="holding")

    async with running(tmp_path, panel=Panel([WholeAttack()])) as service:
        spread = await service.stub.Moderate(request(["user"] * 3), metadata=who("acme"))
        assert spread.verdict.action == verdict_pb2.ACTION_HOLD
        told = await service.explain(spread.verdict.decision_id)
        assert [(s.segment_id, s.joined) for s in told.offending_sentences] == [("m2", True)]
        assert {c.feature for c in told.contributions} >= {"word 1", "word 3", "word 6"}
        for writers in (["", "", ""], ["user", "assistant", "system"]):
            apart = await service.stub.Moderate(request(writers), metadata=who("acme"))
            assert apart.verdict.action == verdict_pb2.ACTION_ALLOW
