"""How long topics are kept: the contracts' word, an operator's file over it, and what that may not say."""

from pathlib import Path

import pytest
from sluice_kit.events import all_topics
from sluice_kit.process import StartFailed
from sluice_kit.retention import read_retention

DAY = 86_400_000
SPECS = {spec.name: spec for spec in all_topics()}
COMPLETED, RECEIVED = "sluice.gateway.request_completed.v1", "sluice.feedback.feedback_received.v1"


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "retention.yaml").write_text(text)
    return tmp_path / "retention.yaml"


def test_without_a_file_the_contracts_are_kept() -> None:
    retention = read_retention(None)
    assert {name: retention.of(spec) for name, spec in SPECS.items()} == {
        name: spec.retention_ms for name, spec in SPECS.items()
    }


@pytest.mark.parametrize(
    ("told", "milliseconds"), [("7d", 7 * DAY), ("36h", 36 * 3_600_000), ("90m", 5_400_000), ("1s", 1000)]
)
def test_a_topic_is_kept_as_long_as_the_file_says_by_either_name(tmp_path: Path, told: str, milliseconds: int) -> None:
    for name in ("RequestCompleted", COMPLETED):
        retention = read_retention(written(tmp_path, f"topics: {{{name}: {told}}}"))
        assert retention.of(SPECS[COMPLETED]) == milliseconds
        assert retention.of(SPECS[RECEIVED]) == SPECS[RECEIVED].retention_ms


def test_dead_letters_are_not_kept_longer_than_the_topic_they_come_from(tmp_path: Path) -> None:
    retention = read_retention(written(tmp_path, "topics: {RequestCompleted: 2d, FeedbackReceived: 80d}"))
    assert retention.of(SPECS[f"{COMPLETED}.dlq"]) == 2 * DAY
    assert retention.of(SPECS[f"{RECEIVED}.dlq"]) == SPECS[f"{RECEIVED}.dlq"].retention_ms
    own = read_retention(written(tmp_path, f"topics: {{RequestCompleted: 2d, {COMPLETED}.dlq: 1d}}"))
    assert own.of(SPECS[f"{COMPLETED}.dlq"]) == DAY


def test_a_confidential_topic_is_not_kept_longer_unless_that_is_said_twice(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"is confidential and kept for 30 d at most; .* allow_longer"):
        read_retention(written(tmp_path, "topics: {RequestCompleted: 31d}"))
    allowed = read_retention(written(tmp_path, "topics: {RequestCompleted: 31d}\nallow_longer: [RequestCompleted]"))
    assert allowed.of(SPECS[COMPLETED]) == 31 * DAY
    assert read_retention(written(tmp_path, "topics: {CostRecorded: 400d}"))  # internal: as long as one likes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("topics: {NoSuchEvent: 1d}", "there is no topic NoSuchEvent"),
        ("topics: {RequestCompleted: long}", "number and s, m, h or d"),
        ("topics: {RequestCompleted: 0d}", "number and s, m, h or d"),
        ("topics: {ConfigurationChanged: 1d}", "is compacted"),
        ("topic: {}", "topic is no field"),
        ("[]", "is no field"),
        ("topics: [a]", "must be a mapping"),
        ("{", "cannot be read"),
    ],
)
def test_a_mistake_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StartFailed, match=message):
        read_retention(written(tmp_path, text))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(StartFailed) as caught:
        read_retention(written(tmp_path, "topics: {A: 1d, RequestCompleted: x, FeedbackReceived: 91d}"))
    assert len(str(caught.value).splitlines()) == 3
