"""Fairness: groups that texts mention beside texts that mention nobody, declared cohorts beside all others; with intervals."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sluice_console.api.site import Site, parts, person_of
from sluice_console.domain.comparisons import RECALL_BY_ORIGIN, GroupMeasurement, groups_chart
from sluice_console.domain.looking_back import LookingBack, name_of, named
from sluice_console.domain.scope import BadScope

METRICS = {
    "selection_rate": "let through",
    "flag_rate": "let through and flagged",
    "block_rate": "blocked or held",
    "false_positive_rate": "blocked wrongly, of reviewed",
    "false_negative_rate": "let through wrongly, of reviewed",
    "refusal_rate": "refused by the model",
    "mean_score": "mean of the highest score",
    "mean_answer_characters": "mean length of the answer",
    RECALL_BY_ORIGIN: "seeded names found, by origin",
}
TERMS = {"input_terms": "what callers wrote", "output_terms": "what models answered"}
_COHORT = re.compile(r"(input|output)_cohort\.([a-z][a-z0-9_]{0,31})", re.ASCII)
MOST_SERIES = 20


@dataclass(frozen=True, slots=True)
class Wording:
    """How a page speaks of its groups."""

    lead: str
    group: str
    against: str
    measured_when: str


_OF_TERMS = Wording(
    "Are texts that mention a group treated as texts that mention nobody? Groups are of texts, never of persons; what a difference means is"
    " for people to say.",
    "texts mention", "none", "when texts in it mention a group; hours end on the hour",
)  # fmt: skip
_OF_COHORTS = Wording(
    "Is a declared cohort treated as all the others together? Callers declare it, or it stands with their key; nobody guesses. What a"
    " difference means is for people to say.",
    "cohort", "others", "when two cohorts are in it; hours end on the hour",
)  # fmt: skip
_OF_ORIGINS = Wording(
    "Are the names that the self-tests seed found and redacted alike, whatever their origin? They are never those of a caller. It is the same few"
    " names of each origin again and again: a difference is one between these names, and a reason to look whether others of the origin share it.",
    "origin of the names", "the best", "once self-tests have run, for the whole mesh",
)  # fmt: skip


def routes(site: Site) -> list[Route]:
    """GET /fairness."""

    async def show(request: Request) -> Response:
        query = request.query_params
        metric, attribute = query.get("metric", "selection_rate"), query.get("attribute", "input_terms")
        windows = query.get("windows", "hour")
        if metric not in METRICS:
            raise BadScope(f"metric must be one of {', '.join(METRICS)}")
        if attribute not in TERMS and not _COHORT.fullmatch(attribute):
            raise BadScope(f"attribute must be one of {', '.join(TERMS)}, input_cohort.<name>, output_cohort.<name>")
        if windows not in ("hour", "minute"):
            raise BadScope("windows must be hour or minute")
        window = named(query.get("window", ""))
        if metric == RECALL_BY_ORIGIN:
            attribute = "name_origin"
        found = await parts(
            groups=site.comparisons.fairness(
                tenant=person_of(request).tenant_id, metric=metric, long_windows=windows == "hour", window=window
            )
        )
        groups = None if found["groups"].problem else found["groups"].value
        known = groups.items if groups else []
        series = _by_series([one for one in known if one.attribute == attribute], METRICS[metric])
        back = LookingBack(groups.windows if groups else (), window)
        attributes = {} if metric == RECALL_BY_ORIGIN else _attributes({attribute, *(one.attribute for one in known)})
        return site.page(
            request,
            "fairness.html",
            status=200 if back.is_known or groups is None else 404,
            parts=found,
            series=series[:MOST_SERIES],
            left_out=len(series) - MOST_SERIES,
            metric=metric,
            metrics=METRICS,
            attribute=attribute,
            attributes=attributes,
            words=_words(attribute),
            windows=windows,
            kept=_kept(metric, attribute if attributes else "", windows, window),
            back=back,
            name_of=name_of,
        )

    return [Route("/fairness", show, methods=["GET"])]


def _kept(metric: str, attribute: str, windows: str, window: datetime | None) -> dict[str, str]:
    """What the address of this page has, for the links of it."""
    found = {"metric": metric, "attribute": attribute, "windows": windows, "window": name_of(window) if window else ""}
    return {name: value for name, value in found.items() if value}


def _words(attribute: str) -> Wording:
    if attribute in TERMS:
        return _OF_TERMS
    return _OF_COHORTS if _COHORT.fullmatch(attribute) else _OF_ORIGINS


def _attributes(seen: Iterable[str]) -> dict[str, str]:
    """Attribute to title: the two that are always there, and the cohorts that were measured."""
    cohorts = {name: found for name in sorted(seen) if (found := _COHORT.fullmatch(name))}
    return TERMS | {
        name: f"{found[2].replace('_', ' ')}, {TERMS[f'{found[1]}_terms']}" for name, found in cohorts.items()
    }


def _by_series(measurements: Sequence[GroupMeasurement], title: str) -> list[dict[str, Any]]:
    """Each series with its groups; those with a group that is treated differently first."""
    grouped: dict[tuple[str, ...], list[GroupMeasurement]] = defaultdict(list)
    for one in measurements:
        if one.group:
            grouped[one.series].append(one)
    found = []
    for i, (series, groups) in enumerate(sorted(grouped.items())):
        # Where no window is asked for, a group that fell silent still shows its last word, and of which window it is.
        groups.sort(key=lambda one: (one.group != "none", one.group))
        chart = groups_chart(groups, title.capitalize(), number=i)
        found.append({"names": series, "groups": groups, "chart": chart, "newest": max(one.start for one in groups)})
    return sorted(found, key=lambda one: all(group.verdict != "disparate" for group in one["groups"]))
