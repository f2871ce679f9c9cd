"""What every page has: its templates, who is signed in, and parts that may be away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from sluice_kit.telemetry import logger
from starlette.requests import Request
from starlette.responses import HTMLResponse

from sluice_console.adapters.alert_desk import AlertDesk
from sluice_console.adapters.comparisons import ComparisonReader
from sluice_console.adapters.cost import Cost
from sluice_console.adapters.insight import Insight
from sluice_console.adapters.stories import StoryReader
from sluice_console.domain import wording
from sluice_console.domain.answers import Away
from sluice_console.domain.people import Keyring, Person, Role
from sluice_console.domain.scope import RANGE_NAMES, SLICES
from sluice_console.domain.sessions import Session, Sessions, Throttle

log = logger(__name__)
T = TypeVar("T")

NAVIGATION = (
    ("/", "Overview"),
    ("/drift", "Drift"),
    ("/fairness", "Fairness"),
    ("/requests", "Requests"),
    ("/cost", "Cost"),
    ("/review", "Review"),
    ("/alerts", "Alerts"),
)
_LONGEST_TOLD = 60
STATIC = Path(__file__).parents[1] / "static"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a page: what was asked for, or the sentence that says why it is not there."""

    value: Any = None
    problem: str = ""


@dataclass
class Site:
    """Wires the pages to what they ask and to who may look."""

    insight: Insight
    comparisons: ComparisonReader
    cost: Cost
    stories: StoryReader
    desk: AlertDesk
    keyring: Callable[[], Keyring]
    sessions: Sessions
    throttle: Throttle
    streams_limit: int
    secure_cookies: bool
    version: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    streams: int = 0
    environment: Environment = field(init=False)

    def __post_init__(self) -> None:
        self.environment = Environment(
            loader=PackageLoader("sluice_console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals.update(
            without=_without,
            wording=wording,
            navigation=NAVIGATION,
            range_names=RANGE_NAMES,
            slices=SLICES,
            version=self.version,
            Role=Role,
        )

    @property
    def cookie(self) -> str:
        """The session cookie's name; browsers hold __Host- cookies to HTTPS, this host and the whole path."""
        return "__Host-sluice-console" if self.secure_cookies else "sluice-console"

    def session(self, request: Request) -> Session | None:
        """Who is signed in; nobody whose key was taken away since."""
        token = request.cookies.get(self.cookie, "")
        session = self.sessions.find(token) if token else None
        if session and not self.keyring().holds(session.person):
            self.sessions.end(token)
            return None
        return session

    def is_still_signed_in(self, request: Request) -> bool:
        """Whether a request that goes on (a stream) may; asking keeps no session awake."""
        session = self.sessions.peek(request.cookies.get(self.cookie, ""))
        return session is not None and self.keyring().holds(session.person)

    def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A whole page."""
        return HTMLResponse(self.render(request, template, **values), status_code=status)

    def render(self, request: Request, template: str, **values: Any) -> str:
        """A page or a piece of one, as text."""
        session: Session | None = getattr(request.state, "session", None)
        known = {
            "session": session,
            "person": session.person if session else None,
            "path": request.url.path,
            "now": self.now(),
            "other_tenant": _other_tenant(request, session.person if session else None),
        }
        return self.environment.get_template(template).render(known | values)

    def audit(self, request: Request, action: str, **facts: str) -> None:
        """Every action of a person stands in the log: who, what, from where; never a key or a text."""
        session: Session | None = getattr(request.state, "session", None)
        person = session.person if session else None
        log.info(
            "console.action",
            action=action,
            person=person.id if person else "",
            role=str(person.role) if person else "",
            address=address_of(request),
            **facts,
        )


def _without(values: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if key != name}


def _other_tenant(request: Request, person: Person | None) -> str:
    """The tenant that an address names and a person does not see, being bound to another; empty where there is none."""
    asked = request.query_params.get("tenant", "").strip()
    return asked[:_LONGEST_TOLD] if person and person.tenant_id and asked != person.tenant_id else ""


def person_of(request: Request) -> Person:
    """Who asks; the gate has let nobody else through."""
    session: Session = request.state.session
    return session.person


def address_of(request: Request) -> str:
    """Where a request comes from. No forwarded header is believed: anybody can write one."""
    return request.client.host if request.client else ""


async def parts(**asked: Awaitable[Any]) -> Mapping[str, Part]:
    """Asks for all parts at once. A service that is away takes its own part from the page, and no other."""
    found = await asyncio.gather(*(_part(one) for one in asked.values()))
    return dict(zip(asked, found, strict=True))


async def _part(asked: Awaitable[Any]) -> Part:
    try:
        return Part(await asked)
    except Away as away:
        return Part(problem=away.reason)
