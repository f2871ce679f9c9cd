"""Texts of several requests that wait for the tagger at the same moment are read in one run.

Nobody waits for company: who finds the tagger free runs at once, with whatever waits by then. Who finds it busy waits
for the run that is under way, and then either has been read or leads the next run. The answer does not depend on the company.
"""

import threading
from collections import deque
from collections.abc import Sequence

from .name_tagger import NameTagger, Tagged

_MOST = 32  # texts in one run: beyond it the last of them would wait longer than reading them together saves


class _Waiting:
    """A text in the queue. tagged: filled in by whoever read it; None when woken: lead the next run. trouble: what the run
    raised."""

    __slots__ = ("tagged", "text", "trouble", "woken")

    def __init__(self, text: str) -> None:
        self.text = text
        self.woken = threading.Event()
        self.tagged: Tagged | None = None
        self.trouble: BaseException | None = None


class TaggerQueue:
    """Like the tagger's `tag`, for many threads."""

    def __init__(self, tagger: NameTagger) -> None:
        self.tagger = tagger
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._busy = False

    def tag(self, text: str) -> Tagged:
        """Raises what the tagger raises."""
        with self._lock:
            waiting = _Waiting(text) if self._busy else None
            if waiting is not None:
                self._waiting.append(waiting)
            self._busy = True
        if waiting is not None:
            waiting.woken.wait()
            if waiting.trouble is not None:
                raise RuntimeError("the tagger failed at this text") from waiting.trouble
            if waiting.tagged is not None:
                return waiting.tagged
        return self._lead(text)

    def _lead(self, text: str) -> Tagged:
        with self._lock:
            others = [self._waiting.popleft() for _ in range(min(_MOST - 1, len(self._waiting)))]
        try:
            return self._read(text, others)
        except BaseException as error:
            for other in others:
                if other.tagged is None and other.trouble is None:
                    other.trouble = error
            raise
        finally:
            self._pass_on(others)

    def _read(self, text: str, others: Sequence[_Waiting]) -> Tagged:
        """All in one run; if that fails, one by one, so that nobody's text fails for another's."""
        try:
            mine, *theirs = self.tagger.tag_all([text, *(other.text for other in others)])
        except Exception:
            if not others:
                raise
        else:
            for other, tagged in zip(others, theirs, strict=True):
                other.tagged = tagged
            return mine
        for other in others:
            try:
                other.tagged = self.tagger.tag(other.text)
            except Exception as error:  # whoever waits for it raises it
                other.trouble = error
        return self.tagger.tag(text)

    def _pass_on(self, read: list[_Waiting]) -> None:
        """Wakes those whose text was read, and the next to lead."""
        for other in read:
            other.woken.set()
        with self._lock:
            if self._waiting:
                self._waiting.popleft().woken.set()
            else:
                self._busy = False
