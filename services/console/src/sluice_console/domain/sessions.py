"""Sessions on the server's side: a random name in a cookie, everything else here."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sluice_console.domain.people import Person

TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Session:
    """One person in one browser."""

    person: Person
    csrf_token: str
    """Stands in every form; who has only the cookie does not know it."""
    expires_at: float
    """Seconds since the epoch; never later, however busy the person is."""
    idle_until: float

    def accepts(self, csrf_token: str) -> bool:
        """Whether a form came from one of this session's pages."""
        return hmac.compare_digest(self.csrf_token.encode(), csrf_token.encode())


class Sessions:
    """Kept by the digest of their names, so that a memory dump or a log of this table opens nothing. At most `limit`; the oldest go."""

    def __init__(self, *, seconds: float, idle_seconds: float, limit: int, now: Callable[[], float]) -> None:
        self._seconds, self._idle_seconds, self._limit, self._now = seconds, idle_seconds, limit, now
        self._known: OrderedDict[str, Session] = OrderedDict()

    def begin(self, person: Person) -> tuple[str, Session]:
        """A new session, under a name that was never used before: signing in always changes the name."""
        token, now = secrets.token_urlsafe(TOKEN_BYTES), self._now()
        session = Session(
            person,
            secrets.token_urlsafe(TOKEN_BYTES),
            now + self._seconds,
            min(now + self._idle_seconds, now + self._seconds),
        )
        self._known[_digest(token)] = session
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        return token, session

    def find(self, token: str) -> Session | None:
        """The session of a cookie, kept awake by this; None when there is none, or it is over."""
        digest, now = _digest(token), self._now()
        session = self._known.get(digest)
        if session is None:
            return None
        if now >= session.expires_at or now >= session.idle_until:
            del self._known[digest]
            return None
        awake = Session(
            session.person, session.csrf_token, session.expires_at, min(now + self._idle_seconds, session.expires_at)
        )
        self._known[digest] = awake
        return awake

    def peek(self, token: str) -> Session | None:
        """As `find`, but without keeping it awake: for what goes on by itself while nobody may be looking."""
        session, now = self._known.get(_digest(token)), self._now()
        return session if session and now < session.expires_at and now < session.idle_until else None

    def end(self, token: str) -> None:
        """Forget it; the cookie opens nothing any more."""
        self._known.pop(_digest(token), None)

    def end_all_of(self, still: Callable[[Person], bool]) -> int:
        """Forget the sessions of people of whom `still` says no, such as those whose key was taken away. Returns how many."""
        over = [digest for digest, session in self._known.items() if not still(session.person)]
        for digest in over:
            del self._known[digest]
        return len(over)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Throttle:
    """Slows down guessing: so many failures a minute and address, then a pause. Bounded in memory."""

    def __init__(self, *, failures: int, seconds: float, limit: int, now: Callable[[], float]) -> None:
        self._failures, self._seconds, self._limit, self._now = failures, seconds, limit, now
        self._seen: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, who: str) -> float:
        """Seconds until `who` may try again; 0 means now."""
        recent = self._recent(who)
        return 0.0 if len(recent) < self._failures else max(0.0, recent[0] + self._seconds - self._now())

    def failed(self, who: str) -> None:
        """A wrong key came from there."""
        self._seen[who] = [*self._recent(who), self._now()][-self._failures :]
        self._seen.move_to_end(who)
        while len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def _recent(self, who: str) -> list[float]:
        return [at for at in self._seen.get(who, ()) if at > self._now() - self._seconds]
