"""A round against doors whose filters are real doubles: each one on, off, away, or partly blind."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_probes.domain import marks
from sluice_probes.domain import round as round_module
from sluice_probes.domain.canaries import KINDS, NAMES, ORIGINS, canaries
from sluice_probes.domain.findings import (
    CHAT_ROUTES,
    EMBED_ROUTES,
    GUARDS,
    ROUTES,
    UNREADABLE,
    Answer,
    Detection,
    Finding,
    State,
    guards_of,
)
from sluice_probes.domain.marks import _mark
from sluice_probes.domain.recall import MOST_POLICIES, Recall, Tally
from sluice_probes.domain.round import Round, alarming, in_turn, run_round
from sluice_probes.domain.standing import Standing

from .filtered import Filtered

MODEL = "sluice-self-test"


def round_over(door: Filtered, number: int = 3):
    doors = dict.fromkeys(ROUTES, door)
    run = run_round(doors, number=number, key_id="t", model=MODEL, embedding_model="sluice-embed", aliases=("other",))
    return asyncio.run(run)


@pytest.mark.parametrize(("patience", "at_once"), [(0.01, 3), (60.0, 1)], ids=["slow", "fast enough"])
async def test_requests_of_a_route_are_in_turn_and_beside_one_another_where_they_are_slow(
    monkeypatch: pytest.MonkeyPatch, patience: float, at_once: int
) -> None:
    """A round of ten seconds a request would tell of an unguarded route minutes late."""
    monkeypatch.setattr(round_module, "SLOW_SECONDS", patience)
    busy, most = 0, 0

    class Hanging(Filtered):
        async def chat(self, *args: Any, **kwargs: Any) -> Answer:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.2)
            busy -= 1
            return await super().chat(*args, **kwargs)

    hanging = CHAT_ROUTES[0]
    doors: dict[str, Filtered] = {
        **dict.fromkeys(ROUTES, Filtered()),
        hanging: Hanging(off=frozenset({"input_moderation"})),
    }
    found = await run_round(
        doors, number=3, key_id="t", model=MODEL, embedding_model="sluice-embed", aliases=("other", "another")
    )
    assert most == at_once
    assert {(one.route, one.model) for one in alarming(found.findings)} == {
        (hanging, model) for model in (MODEL, "other", "another")
    }


def states(door: Filtered) -> dict[tuple[str, str], set[State]]:
    found: dict[tuple[str, str], set[State]] = {}
    for each in round_over(door).findings:
        found.setdefault((each.route, each.guard), set()).add(each.state)
    return found


def test_every_guard_of_every_route_is_seen_on() -> None:
    expected = {(route, guard): {State.GUARDED} for route in ROUTES for guard in guards_of(route)}
    assert states(Filtered()) == expected


@pytest.mark.parametrize("guard", GUARDS)
def test_a_filter_that_lets_everything_pass_is_an_alarm_on_each_of_its_routes(guard: str) -> None:
    found = alarming(round_over(Filtered(off=frozenset({guard}))).findings)
    assert {each.guard for each in found} == {guard}
    assert {each.route for each in found} == {route for route in ROUTES if guard in guards_of(route)}


def test_a_policy_that_takes_sentences_out_is_seen_on_and_no_other_model_is_asked() -> None:
    expected = {(route, guard): {State.GUARDED} for route in ROUTES for guard in guards_of(route)}
    assert states(Filtered(cuts=True)) == expected
    assert "other" not in {finding.model for finding in round_over(Filtered(cuts=True)).findings}


@pytest.mark.parametrize("guard", GUARDS)
def test_a_pass_through_is_an_alarm_where_a_policy_takes_sentences_out(guard: str) -> None:
    found = alarming(round_over(Filtered(off=frozenset({guard}), cuts=True)).findings)
    assert {each.guard for each in found} == {guard}
    assert {each.route for each in found} == {route for route in ROUTES if guard in guards_of(route)}


@pytest.mark.parametrize(
    ("door", "routes"),
    [
        (Filtered(), CHAT_ROUTES),
        (Filtered(embedding=frozenset({"other"}), chatting=frozenset()), EMBED_ROUTES),
        (Filtered(embedding=frozenset({"other"})), ()),
    ],
)
def test_another_alias_is_tried_on_the_routes_that_it_has_and_on_no_other(
    door: Filtered, routes: tuple[str, ...]
) -> None:
    result = round_over(door)
    assert {finding.state for finding in result.findings} == {State.GUARDED}
    assert {finding.route for finding in result.findings if finding.model == "other"} == set(routes)


def test_an_unguarded_alias_that_embeds_is_an_alarm() -> None:
    door = Filtered(embedding=frozenset({"other"}), chatting=frozenset(), open_to=frozenset({"other"}))
    found = alarming(round_over(door).findings)
    assert {(each.route, each.model) for each in found} == {(route, "other") for route in EMBED_ROUTES}
    assert {each.reason for each in found} == {"FORBIDDEN_INPUT_PASSED"}


@given(aliases=st.sets(st.text(min_size=1), max_size=40).map(sorted), most=st.integers(1, 12), first=st.integers(0))
def test_every_alias_has_its_turn_and_no_round_more_than_its_bound(aliases: list[str], most: int, first: int) -> None:
    turns = [in_turn(aliases, turn=turn, most=most) for turn in range(first, first - (-len(aliases) // most))]
    assert all(len(turn) == len(set(turn)) <= most for turn in turns)
    assert set().union(*turns) == set(aliases)


def test_where_no_other_alias_is_to_be_tried_none_has_a_turn() -> None:
    assert in_turn(["a", "b"], turn=3, most=0) == ()


def test_one_unguarded_route_among_guarded_ones_is_named() -> None:
    doors = dict.fromkeys(ROUTES, Filtered()) | {"http_stream": Filtered(off=frozenset({"output_moderation"}))}
    run = run_round(doors, number=1, key_id="t", model=MODEL, embedding_model="e", aliases=())
    assert [(f.route, f.guard) for f in alarming(asyncio.run(run).findings)] == [("http_stream", "output_moderation")]


@pytest.mark.parametrize("reason", ["FILTER_UNAVAILABLE", "MODEL_UNAVAILABLE", "NO_ANSWER", "DEADLINE_EXCEEDED"])
def test_a_filter_or_model_that_is_away_fails_closed_and_is_no_alarm(reason: str) -> None:
    assert set().union(*states(Filtered(away=reason)).values()) == {State.UNAVAILABLE}


# INVALID_VALUE: a tenant that may have fewer tokens than a report needs.
@pytest.mark.parametrize("reason", ["MODEL_NOT_FOUND", "INVALID_VALUE", "RATE_LIMIT", UNREADABLE, "SOMETHING_NEW"])
def test_another_refusal_says_nothing_of_the_guards(reason: str) -> None:
    assert set().union(*states(Filtered(away=reason)).values()) == {State.UNTESTED}


def test_an_answer_without_the_invented_sentence_is_no_proof_that_output_is_redacted() -> None:
    found = [each for each in round_over(Filtered(invents=False)).findings if each.state is not State.GUARDED]
    expected = {(route, "output_redaction", State.UNTESTED, "NOTHING_SAID") for route in CHAT_ROUTES}
    assert {(each.route, each.guard, each.state, each.reason) for each in found} == expected


def test_a_filter_that_was_skipped_is_an_alarm_though_its_tenant_chose_it() -> None:
    found = alarming(round_over(Filtered(off=frozenset({"input_redaction"}), skipped=("redaction",))).findings)
    assert "FILTER_SKIPPED" in {each.reason for each in found}


def test_values_of_one_name_origin_that_are_missed_lower_its_recall_alone() -> None:
    result = round_over(Filtered(blind_to=frozenset({"west_african"})))
    tally = Tally()
    tally.add(result.detections, at=0)
    recalls = {(each.kind, each.origin): each.value for each in tally.recalls(at=0)}
    assert {key for key, value in recalls.items() if value < 1} == {("PERSON", "west_african")}
    assert not alarming(result.findings)


def test_a_part_of_a_name_that_reached_the_model_counts_as_missed() -> None:
    assert marks.marks_of("Priya Deshpande") & frozenset({_mark("Deshpande")})


def test_a_round_has_every_kind_and_origin_once_and_other_values_in_the_next() -> None:
    one, other = canaries(7), canaries(8)
    assert {c.kind for c in one} == set(KINDS)
    assert [c.origin for c in one if c.origin] == list(ORIGINS) == list(NAMES)
    assert not {c.value for c in one} & {c.value for c in other}
    assert one == canaries(7)


@pytest.mark.parametrize("number", range(20))
def test_seeded_numbers_have_right_check_digits(number: int) -> None:
    values = {c.kind: c.value for c in canaries(number)}
    digits = [int(digit) for digit in reversed(values["CREDIT_CARD"])]
    assert sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0
    iban = values["IBAN_CODE"]
    assert int("".join(str(int(letter, 36)) for letter in iban[4:] + iban[:4])) % 97 == 1


def test_the_interval_of_a_recall_is_wilsons() -> None:
    lower, upper = Recall("PERSON", "", 81, 263).interval  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert (round(lower, 4), round(upper, 4)) == (0.2553, 0.3662)


def test_detections_are_counted_once_each() -> None:
    tally = Tally()
    tally.add([Detection("API_KEY", "", True), Detection("API_KEY", "", False)], at=0)
    assert [(each.found, each.sought) for each in tally.recalls(at=0)] == [(1, 2)]


def test_a_filter_that_goes_blind_shows_however_long_it_saw_before() -> None:
    tally = Tally()
    for minute in range(3 * 24 * 60):
        tally.add([Detection("IBAN_CODE", "", True, "default@1")], at=60.0 * minute)
    for minute in range(3 * 24 * 60, 3 * 24 * 60 + 30):
        tally.add([Detection("IBAN_CODE", "", False, "default@1")], at=60.0 * minute)
    [recall] = tally.recalls(at=60.0 * minute)
    assert (recall.policy, recall.found, recall.sought) == ("default@1", 30, 60)
    assert tally.recalls(at=60.0 * (minute + 60)) == []


def test_no_more_policies_than_a_hundred_are_told_apart_in_an_hour() -> None:
    tally = Tally()
    tally.add([Detection("IBAN_CODE", "", True, f"p@{number}") for number in range(MOST_POLICIES + 3)], at=0)
    tally.add([Detection("IBAN_CODE", "", False, policy) for policy in ("p@0", "p@101", "q@1")], at=60)
    recalls = {each.policy: (each.found, each.sought) for each in tally.recalls(at=60)}
    assert len(recalls) == MOST_POLICIES + 1
    assert (recalls["p@0"], recalls["other"]) == ((1, 2), (3, 5))
    tally.add([Detection("IBAN_CODE", "", True, "q@1")], at=3600)
    assert {each.policy for each in tally.recalls(at=3600 + 60)} == {"q@1"}, (
        "there is room once the others' hour is over"
    )


def test_every_chat_route_sends_other_values() -> None:
    sent: dict[str, str] = {}

    @dataclass(frozen=True)
    class Listening(Filtered):
        route: str = ""

        async def chat(self, model: str, system: str, text: str, *, most_tokens: int) -> Answer:
            sent.setdefault(self.route, text)
            return await super().chat(model, system, text, most_tokens=most_tokens)

    doors = {route: Listening(route=route) for route in ROUTES}
    asyncio.run(run_round(doors, number=1, key_id="t", model=MODEL, embedding_model="e", aliases=()))
    assert len({sent[route] for route in CHAT_ROUTES}) == len(CHAT_ROUTES)


def test_an_unguarded_route_that_is_away_now_is_told_of_until_it_answers() -> None:
    def after(*states: State) -> list[State]:
        standing = Standing("small")
        for state in states:
            standing.take(Round("a", (Finding("chat", "input_moderation", "small", state),), ()), ["a"])
        return [known.finding.state for known in standing.known()]

    assert after(State.UNGUARDED, State.UNAVAILABLE, State.UNAVAILABLE) == [State.UNGUARDED]
    assert after(State.UNGUARDED, State.UNAVAILABLE, State.GUARDED, State.UNAVAILABLE) == [State.UNAVAILABLE]
    assert after(State.UNGUARDED, State.UNTESTED) == [State.UNTESTED]
