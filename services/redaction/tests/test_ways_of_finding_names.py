"""The three ways of finding names, and what the composed detector asks whom."""

import itertools

import pytest
from sluice_redaction.adapters.detector import ComposedDetector, DetectorFactory
from sluice_redaction.adapters.doubts import doubtful_stretches
from sluice_redaction.adapters.findings_cache import FindingsCache, RememberingDetector
from sluice_redaction.adapters.name_tagger import NameTagger, TaggerModel
from sluice_redaction.adapters.tagger_queue import TaggerQueue
from sluice_redaction.domain.detection import detect
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.ner import Ner
from sluice_redaction.domain.policy import Policy

_TEXT = "Dear Mrs Okafor, your parcel is at 12 Main Street, Springfield. Regards, Bob"


class Nothing:
    """Patterns that find nothing."""

    def detect(self, text: str, kinds: frozenset[str]) -> list[Finding]:
        return []

    detect_patterns = detect

    def listed(self) -> list[object]:
        return []


class Asked(TaggerQueue):
    """Counts what it is asked."""

    def __init__(self, tagger: NameTagger) -> None:
        super().__init__(tagger)
        self.texts: list[str] = []

    def tag(self, text: str) -> object:
        self.texts.append(text)
        return super().tag(text)


@pytest.fixture(scope="module")
def tagger() -> NameTagger:
    return NameTagger(TaggerModel())


def test_the_tagger_is_not_asked_where_no_kind_of_its_is_wanted(tagger: NameTagger) -> None:
    asked = Asked(tagger)
    detector = ComposedDetector(Nothing(), asked)  # type: ignore[arg-type]
    assert detector.detect(_TEXT, frozenset({"API_KEY", "EMAIL_ADDRESS"})) == []
    assert list(detector.detect_patterns(_TEXT, frozenset({"PERSON"}))) == []
    assert asked.texts == []
    assert detector.detect(_TEXT, frozenset({"PERSON"}))
    assert asked.texts == [_TEXT]


@pytest.mark.parametrize("way", [Ner.BALANCED, Ner.THOROUGH])
def test_the_teachers_ways_need_teachers(tagger: NameTagger, way: Ner) -> None:
    with pytest.raises(ValueError, match="teachers"):
        ComposedDetector(Nothing(), TaggerQueue(tagger), way)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", list(Ner))
def test_every_way_finds_the_names_and_says_who_found_them(way: Ner) -> None:
    detector = DetectorFactory(ner=way)()
    found = {_TEXT[one.start : one.end]: one for one in detect(_TEXT, detector, Policy())}
    assert {"Okafor", "Bob", "12 Main Street, Springfield"} <= found.keys()
    assert found["Okafor"].explanation.startswith("label:")
    listed = {one.name: one for one in detector.listed()}
    assert listed["NameTagger"].digest.startswith("sha256:")
    assert ("RampartRecognizer" in listed) == (way is not Ner.FAST)
    assert ("SpacyNames" in listed) == (way is Ner.THOROUGH)


def test_a_remembered_answer_is_the_fresh_one() -> None:
    fresh, remembering = DetectorFactory()(), DetectorFactory(cache=FindingsCache())()
    assert isinstance(remembering, RememberingDetector)
    text = _TEXT * 5
    for _ in range(2):
        for kinds in (Policy().kinds, frozenset({"PERSON"}), frozenset({"API_KEY"})):
            assert list(remembering.detect(text, kinds)) == list(fresh.detect(text, kinds))


def test_doubts_are_looked_at_by_the_sentence_and_never_beyond_a_quarter_of_a_long_text(tagger: NameTagger) -> None:
    text = "Nothing to see here. " * 30 + "quill asked brackenwold about the zorp. " * 60
    stretches = doubtful_stretches(tagger.tag(text), text)
    assert sum(end - start for start, end in stretches) <= len(text) / 4
    assert all(0 <= start < end <= len(text) for start, end in stretches)
    assert all(first[1] < second[0] for first, second in itertools.pairwise(stretches))


@pytest.mark.parametrize("way", [Ner.FAST, Ner.THOROUGH])
def test_organisations_are_found_where_a_policy_asks_for_them(way: Ner) -> None:
    text = "Microsoft opened an office near Oxford University."
    found = detect(text, DetectorFactory(ner=way)(), Policy.of(["ORGANIZATION"]))
    assert [text[one.start : one.end] for one in found] == ["Microsoft", "Oxford University"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("IBAN: DE89370400440532013000", []),
        ("Authorization: Bearer abcdef0123456789abcdef", []),
        ("Carole: Hi Tonya, did you get it?", ["Carole", "Tonya"]),
        ("Prescriber Angela Jones, room 4", ["Angela Jones"]),
    ],
)
def test_a_word_that_says_what_a_value_is_is_no_part_of_a_name(text: str, names: list[str]) -> None:
    found = detect(text, DetectorFactory()(), Policy.of(["PERSON"]))
    assert [text[one.start : one.end] for one in found] == names
