"""The command `sluice requests`."""

from typing import Annotated

import typer
from sluice.insight.v1 import request_service_pb2 as pb

from sluice_cli import terminal
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.requests import asking, showing

console = terminal.console()
_Outcome = Annotated[
    list[str] | None, typer.Option(help=f"Only with this outcome: {', '.join((asking.BLOCKED, *asking.OUTCOMES))}.")
]


def requests(
    request_id: Annotated[str, typer.Argument(help="Tell this request's story; without it, list requests.")] = "",
    tenant: Annotated[str, typer.Option(help="As this tenant: only its own. All tenants without it.")] = "",
    project: Annotated[str, typer.Option(help="Only of this project.")] = "",
    outcome: _Outcome = None,
    model: Annotated[str, typer.Option(help="Only for this model alias.")] = "",
    route: Annotated[str, typer.Option(help="Only on this route.")] = "",
    prompt: Annotated[str, typer.Option(help="Only with this prompt, name@version.")] = "",
    kind: Annotated[str, typer.Option(help="Only where this was replaced, such as EMAIL_ADDRESS.")] = "",
    verdict: Annotated[str, typer.Option(help=f"Only where moderation decided so: {', '.join(asking.VERDICTS)}.")] = "",
    category: Annotated[str, typer.Option(help="Only where moderation found this, such as prompt_injection.")] = "",
    min_seconds: Annotated[float, typer.Option(min=0, max=1e6, help="Only those that took so long.")] = 0.0,
    since: Annotated[str, typer.Option("--from", help="First moment: 2026-11-24 or 2026-11-24T13:00Z.")] = "",
    until: Annotated[str, typer.Option("--until", help="Moment after the last.")] = "",
    feedback: Annotated[bool, typer.Option("--feedback", help="Only those with feedback.")] = False,
    probes: Annotated[bool, typer.Option("--probes", help="Also the mesh's self-test probes.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most to list.")] = 50,
    page: Annotated[str, typer.Option(help="Where the last list ended.")] = "",
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Find requests, newest first, or tell one request's whole story: steps, verdicts, findings (never values), cost."""
    home = Home.here()
    query = pb.ListRequestsRequest(
        project_id=project,
        model=model,
        route=route,
        prompt_version=prompt,
        kind=kind,
        verdict=asking.verdict(verdict),
        category=category,
        start_time=asking.moment(since),
        end_time=asking.moment(until),
        with_feedback=feedback,
        include_synthetic=probes,
        page_token=page,
    )
    query.outcomes.extend(asking.outcomes(outcome or ()))  # type: ignore[arg-type]
    if request_id:
        if query.ByteSize() or min_seconds:
            raise MeshProblem("A request's id finds one request: leave out the other conditions (--tenant may stay).")
        told = asking.story(home, tenant, request_id)
        showing.as_json(told, console) if json else showing.story(told, request_id, console)
        return
    query.page_size = limit
    answer = asking.found(home, tenant, query, min_seconds=min_seconds)
    showing.as_json(answer, console) if json else showing.listing(answer, console)
