"""The scores, against cases counted by hand."""

import pytest
from filters.samples import Gold, Sample
from filters.scores import Rates, Score, Span, share_interval

#       0123456789012345678901234567890123456789
TEXT = "Ann Lee lives at 5 Elm St, Rome; ann@x.io"
ANN = Gold(0, 7, "PERSON", "British")
HOME = Gold(17, 25, "ADDRESS")
ROME = Gold(27, 31, "PLACE")
MAIL = Gold(33, 41, "EMAIL")


def scored(*spans: Span, text: str = TEXT, gold: tuple[Gold, ...] = (ANN, HOME, ROME, MAIL)) -> Score:
    score = Score([Sample(text, gold, "prose")])
    score.add(0, spans)
    return score


def test_all_found_exactly_is_one_everywhere() -> None:
    score = scored(Span(0, 7, "PERSON"), Span(17, 25, "STREET_ADDRESS"), Span(33, 41, "EMAIL_ADDRESS"))
    for level in ("exact", "overlap", "chars"):
        assert score.rates(level) == Rates(1.0, 1.0)
    assert score.covered() == 1.0


def test_a_town_inside_an_address_finding_is_neither_right_nor_wrong() -> None:
    score = scored(Span(17, 31, "STREET_ADDRESS"))
    assert score.rates("exact", "ADDRESS") == Rates(1.0, 1.0)
    assert score.rates("chars", "ADDRESS") == Rates(1.0, 1.0)
    assert score.false == []


def test_half_a_name_counts_as_overlap_but_not_as_exact_nor_as_covered() -> None:
    score = scored(Span(0, 3, "PERSON"))
    assert score.rates("exact", "PERSON") == Rates(0.0, 0.0)
    assert score.rates("overlap", "PERSON") == Rates(1.0, 1.0)  # 3 of 6 letters
    assert score.rates("chars", "PERSON") == Rates(1.0, 0.5)
    assert score.covered() == 0.0


def test_less_than_half_is_not_found() -> None:
    assert scored(Span(0, 2, "PERSON")).rates("overlap", "PERSON") == Rates(1.0, 0.0)


def test_a_wrong_kind_protects_but_is_a_miss_and_a_false_alarm() -> None:
    score = scored(Span(33, 41, "PERSON"))
    assert score.rates("overlap", "EMAIL").recall == 0.0
    assert score.rates("overlap").precision == 0.0
    assert score.rates("chars") == Rates(1.0, pytest.approx(6 / (6 + 6 + 6)))
    assert score.covered() == pytest.approx(1 / 3)
    assert len(score.false) == 1


def test_a_finding_on_nothing_personal_lowers_precision() -> None:
    score = scored(Span(0, 7, "PERSON"), Span(8, 13, "PERSON"))
    assert score.rates("exact", "PERSON") == Rates(0.5, 1.0)
    assert score.rates("chars", "PERSON") == Rates(6 / 11, 1.0)


def test_findings_of_optional_kinds_are_never_held_against_a_system() -> None:
    score = scored(Span(27, 31, "LOCATION"), Span(8, 13, "ORGANIZATION"), Span(8, 13, "DATE_TIME"))
    assert score.false == []
    assert score.count("found") == 0
    assert scored(Span(17, 25, "LOCATION")).rates("overlap", "ADDRESS") == Rates(1.0, 1.0)


def test_quotes_and_blanks_at_the_ends_do_not_matter() -> None:
    assert scored(Span(0, 8, "PERSON"), text="Ann Lee, lives at 5 Elm St", gold=(ANN,)).rates("exact") == Rates(
        1.0, 1.0
    )


def test_f_measures_weigh_recall() -> None:
    rates = Rates(precision=0.5, recall=1.0)
    assert rates.f(1) == pytest.approx(2 / 3)
    assert rates.f(2) == pytest.approx(5 / 6)
    assert Rates(float("nan"), 0.0).f(1) == 0.0


def test_an_interval_holds_the_value_and_is_the_same_for_a_seed() -> None:
    samples = [Sample(TEXT, (ANN,), "prose")] * 40
    score = Score(samples)
    for at in range(40):
        score.add(at, [Span(0, 7, "PERSON")] if at % 4 else [])
    low, high = score.interval(lambda weights: score.rates("exact", weights=weights).recall, seed=1)
    assert low < 0.75 < high
    assert low > 0.5
    assert high < 0.95
    assert (low, high) == score.interval(lambda weights: score.rates("exact", weights=weights).recall, seed=1)


def test_wilsons_interval_of_eight_in_ten() -> None:
    low, high = share_interval([True] * 8 + [False] * 2)
    assert (low, high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))
