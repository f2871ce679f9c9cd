"""Reading together what waits together: nobody waits alone, nobody gets another's answer, nobody is forgotten."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sluice_redaction.adapters.tagger_queue import TaggerQueue

_PATIENCE = 20  # seconds until a test gives up on a thread


class Slow:
    """Answers with the text itself; its first run lasts until it is let go."""

    def __init__(self, *, fails_at: int = -1, hates: str = "\0") -> None:
        self.runs: list[list[str]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self._fails_at, self._hates = fails_at, hates

    def tag(self, text: str) -> str:
        return self.tag_all([text])[0]

    def tag_all(self, texts: Sequence[str]) -> list[str]:
        self.runs.append(list(texts))
        self.begun.set()
        assert self.go.wait(_PATIENCE)
        if len(self.runs) - 1 == self._fails_at or self._hates in texts:
            raise ValueError("broken")
        return list(texts)


def waiting(queue: TaggerQueue, count: int) -> bool:
    """True once as many texts wait in the queue."""
    clock = threading.Event()
    for _ in range(_PATIENCE * 100):
        if len(queue._waiting) >= count:
            return True
        clock.wait(0.01)
    return False


def test_a_lone_text_is_read_at_once() -> None:
    slow = Slow()
    slow.go.set()
    assert TaggerQueue(slow).tag("a") == "a"  # type: ignore[arg-type]
    assert slow.runs == [["a"]]


def test_what_waits_during_a_run_is_read_in_the_next_together() -> None:
    slow = Slow()
    queue = TaggerQueue(slow)  # type: ignore[arg-type]
    with ThreadPoolExecutor(6) as threads:
        first = threads.submit(queue.tag, "first")
        assert slow.begun.wait(_PATIENCE)
        others = [threads.submit(queue.tag, text) for text in "abcde"]
        assert waiting(queue, 5)
        slow.go.set()
        assert first.result(_PATIENCE) == "first"
        assert [one.result(_PATIENCE) for one in others] == list("abcde")
    assert slow.runs[0] == ["first"]
    assert sorted(slow.runs[1]) == list("abcde")
    assert len(slow.runs) == 2


def test_a_run_that_fails_fails_for_its_own_texts_only() -> None:
    slow = Slow(fails_at=0)
    queue = TaggerQueue(slow)  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(queue.tag, "first")
        assert slow.begun.wait(_PATIENCE)
        second = threads.submit(queue.tag, "second")
        assert waiting(queue, 1)
        slow.go.set()
        with pytest.raises(ValueError, match="broken"):
            first.result(_PATIENCE)
        assert second.result(_PATIENCE) == "second"
    assert queue.tag("third") == "third"


def test_a_text_that_cannot_be_read_fails_alone_though_others_were_to_be_read_with_it() -> None:
    slow = Slow(hates="c")
    queue = TaggerQueue(slow)  # type: ignore[arg-type]
    with ThreadPoolExecutor(6) as threads:
        first = threads.submit(queue.tag, "first")
        assert slow.begun.wait(_PATIENCE)
        others = {text: threads.submit(queue.tag, text) for text in "abcde"}
        assert waiting(queue, 5)
        slow.go.set()
        assert first.result(_PATIENCE) == "first"
        assert {text: one.result(_PATIENCE) for text, one in others.items() if text != "c"} == {
            one: one for one in "abde"
        }
        assert others["c"].exception(_PATIENCE) is not None
    assert queue.tag("later") == "later"


def test_many_threads_each_get_their_own_answer() -> None:
    slow = Slow()
    slow.go.set()
    queue = TaggerQueue(slow)  # type: ignore[arg-type]
    texts = [str(number) for number in range(500)]
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(queue.tag, texts, timeout=_PATIENCE)) == texts
    assert sum(map(len, slow.runs)) == 500
