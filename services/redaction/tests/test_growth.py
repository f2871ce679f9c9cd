"""What a request costs grows as the request does: vaults, texts, findings, word lists at the limits of a call.

The bounds are some ten times what an idle core needs; what grows with the square needs minutes. Process time, so that
neighbours do not count.
"""

import time
from collections.abc import Callable
from typing import Any

import pytest
from sluice.redaction.v1 import redaction_service_pb2 as pb
from sluice_redaction.domain.arbitration import arbitrate
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.policy import Direction, KindRule, Policy
from sluice_redaction.domain.redaction import KnownValues
from sluice_redaction.domain.vault import Entry


def seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


@pytest.mark.parametrize("apart", [20, 9])
def test_thousands_of_findings_in_one_text_are_settled_one_beside_the_other(apart: int) -> None:
    findings = [Finding(start, start + 10, "URL", 0.9, "test") for start in range(0, 20_000 * apart, apart)]
    text = "x" * (20_000 * apart + 10)
    assert seconds(lambda: arbitrate(findings, text)) < 10


def test_thousands_of_known_values_that_begin_with_one_word_are_not_all_compared_at_every_word() -> None:
    values = ["-" * (number % 100) + "A " + "b" * (1 + number // 100) for number in range(9_000)]
    known = KnownValues(
        Entry(f"<PASSWORD_{number}>", value, "PASSWORD") for number, value in enumerate(values, start=1)
    )
    assert seconds(lambda: list(known.occurrences("A " * 10_000))) < 10
    assert [(one.start, one.end) for one in known.occurrences("so ---A bb, -A c")] == [(3, 10)]


async def test_a_large_vault_is_read_once_for_many_texts(service: Any) -> None:
    entries = [
        pb.VaultEntry(placeholder=f"<PERSON_{number}>", value=f"Ann{number}", kind="PERSON")
        for number in range(1, 4_000)
    ]
    texts = [pb.TextSegment(segment_id=str(number), text=f"<PERSON_{number}>") for number in range(1, 1_001)]
    request = pb.RestoreRequest(segments=texts, vault=pb.Vault(entries=entries))
    begun = time.process_time()
    response = await service.stub.Restore(request)
    assert time.process_time() - begun < 10
    assert [one.text for one in response.segments] == [f"Ann{number}" for number in range(1, 1_001)]


class Counting:
    """A recognizer that counts how often its digest is asked for: it reads a whole word list."""

    name, kind, pattern_count, asked = "words", "PERSON", 1, 0

    @property
    def digest(self) -> str:
        self.asked += 1
        return "sha256:0"

    def find(self, text: str) -> list[Finding]:
        return []


def test_a_policys_word_lists_are_not_read_again_for_each_call() -> None:
    words = Counting()
    rules = {"AGE": KindRule(direction=Direction.INPUT)}
    policy = Policy(kinds=frozenset({"AGE", "PERSON"}), rules=rules, recognizers=(words,))
    before = words.asked
    outgoing = policy.toward(Direction.OUTPUT)
    assert words.asked == before
    assert (outgoing.kinds, outgoing.digest, outgoing.id) == (frozenset({"PERSON"}), policy.digest, policy.id)
    assert policy.kinds == {"AGE", "PERSON"}
