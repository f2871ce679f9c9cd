"""The pages over HTTP: who gets in, what they see, what an attacker gets."""

import asyncio
import hashlib
import html
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import httpx2
import pytest
from sluice.cost.v1 import cost_service_pb2 as cost
from sluice.events.v1 import drift_pb2, fairness_pb2, gateway_pb2
from sluice.insight.v1 import comparison_service_pb2 as comparison
from sluice.insight.v1 import insight_service_pb2 as insight
from sluice.types.v1 import metric_pb2, money_pb2, verdict_pb2
from sluice_console.domain.people import Person, Role

from .conftest import Console, drifted, hours_ago, measured, spent, stamp, without_texts

PAGES = ("/", "/drift", "/fairness", "/requests", "/cost", "/review", "/alerts")
STATIC = Path(__file__).parents[1] / "src" / "sluice_console" / "static"


@pytest.mark.parametrize("path", [*PAGES, "/overview/live", "/nothing-here", "/static/../main.py"])
async def test_without_a_session_there_is_only_the_way_to_sign_in(console: Console, path: str) -> None:
    async with console.client() as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/signin")
    assert not console.mesh.asked


async def test_a_script_without_a_session_is_told_so_and_not_sent_to_a_form(console: Console) -> None:
    async with console.client() as client:
        assert (await client.get("/overview/live", headers={"accept": "text/event-stream"})).status_code == 401
        assert (await client.post("/signout")).status_code == 401


async def test_a_key_opens_the_page_that_was_asked_for(console: Console) -> None:
    async with console.client() as client:
        asked = await client.get("/cost?by=tenant")
        page = await client.get(asked.headers["location"])
        next_ = re.search(r'name="next" value="([^"]+)"', page.text)[1]  # type: ignore[index]
        answer = await client.post("/signin", data={"key": "key-of-olga", "next": next_})
        assert (answer.status_code, answer.headers["location"]) == (303, "/cost?by=tenant")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=lax" in cookie.lower()
        assert "key-of-olga" not in cookie
        assert (await client.get("/cost?by=tenant")).status_code == 200
        assert (await client.get("/signin")).headers["location"] == "/"


@pytest.mark.parametrize(
    "next_",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a\r\nx: y",
        "http://[",
        "//[",
    ],
)
async def test_signing_in_leads_nowhere_else(console: Console, next_: str) -> None:
    async with console.client() as client:
        answer = await client.post("/signin", data={"key": "key-of-olga", "next": next_})
    assert answer.headers["location"] == "/"


async def test_an_address_that_is_none_is_no_fault_of_ours(console: Console) -> None:
    async with console.client() as client:
        assert (await client.get("/signin", params={"next": "http://["})).status_code == 200
        broken = await client.post("/signin", data={"key": "key-of-olga"}, headers={"origin": "http://["})
    assert broken.status_code == 403


async def test_wrong_keys_are_refused_and_then_slowed_down(console: Console) -> None:
    async with console.client() as client:
        for _ in range(5):
            answer = await client.post("/signin", data={"key": "guess"})
            assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
            assert "guess" not in answer.text
        right = await client.post("/signin", data={"key": "key-of-olga"})
        assert (right.status_code, int(right.headers["retry-after"]) > 0) == (429, True)
        console.clock[0] += 61
        assert (await client.post("/signin", data={"key": "key-of-olga"})).status_code == 303


async def test_signing_in_again_changes_the_name_of_the_session_and_ends_the_old_one(console: Console) -> None:
    async with console.signed_in() as client:
        before = client.cookies[console.site.cookie]
        await client.post("/signin", data={"key": "key-of-olga"})
        assert client.cookies[console.site.cookie] != before
    async with console.client() as thief:
        thief.cookies.set(console.site.cookie, before)
        assert (await thief.get("/")).status_code == 303


async def test_signing_out_takes_a_form_of_ours(console: Console) -> None:
    async with console.signed_in() as client:
        token = re.search(r'name="csrf_token" value="([^"]+)"', (await client.get("/")).text)[1]  # type: ignore[index]
        for data in ({"other": "1"}, {"csrf_token": ""}, {"csrf_token": "guess"}):
            assert (await client.post("/signout", data=data)).status_code == 403
        cross = {"sec-fetch-site": "cross-site"}
        assert (await client.post("/signout", data={"csrf_token": token}, headers=cross)).status_code == 403
        foreign = {"origin": "https://evil.example"}
        assert (await client.post("/signout", data={"csrf_token": token}, headers=foreign)).status_code == 403
        assert (await client.get("/")).status_code == 200
        assert (await client.post("/signout", data={"csrf_token": token})).status_code == 303
        assert (await client.get("/")).status_code == 303


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/x-www-form-urlencoded", b"a=" + b"b" * 70_000, 413),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 101), 400),
    ],
)
async def test_what_is_no_form_of_a_page_is_refused(
    console: Console, content_type: str, body: bytes, status: int
) -> None:
    async with console.client() as client:
        answer = await client.post("/signin", content=body, headers={"content-type": content_type})
    assert answer.status_code == status


async def test_a_person_whose_key_was_taken_away_is_out_at_once(console: Console) -> None:
    async with console.signed_in("rita") as client:
        assert (await client.get("/")).status_code == 200
        console.keys["rita"] = ("key-of-rita", Person("rita", Role.AUDITOR))
        assert (await client.get("/")).status_code == 303


async def test_every_answer_carries_the_headers_that_keep_browsers_strict(console: Console) -> None:
    async with console.signed_in() as client:
        for path in (*PAGES, "/signin", "/nothing", "/drift?tenant=%00", f"/static/{console.site.version}/console.css"):
            answer = await client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["x-content-type-options"] == "nosniff"
            stored = "immutable" if path.startswith("/static/") and answer.status_code == 200 else "no-store"
            assert stored in answer.headers["cache-control"]
            assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", answer.text.split("/*")[0])


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?tenant=globex",
        "/?by=tenant&tenant=globex",
        "/drift?tenant=globex",
        "/fairness",
        "/fairness?window=2020-11-26T12:00Z",
        "/requests?tenant=globex",
        "/cost?tenant=globex",
        "/alerts",
    ],
)
async def test_who_is_bound_to_a_tenant_asks_for_and_sees_that_tenant_only(console: Console, path: str) -> None:
    console.mesh.fill()
    async with console.signed_in("anna") as client:
        page = await client.get(path)
    assert page.status_code == (404 if "window" in path else 200)
    assert console.mesh.asked
    for _, request, metadata in console.mesh.asked:
        assert metadata["x-sluice-tenant-id"] == "acme", type(request).__name__
        if hasattr(request, "tenant_id"):
            assert request.tenant_id == "acme"
        elif isinstance(request, insight.QueryMetricsRequest):
            assert [list(one.values) for one in request.query.filters if one.dimension == insight.DIMENSION_TENANT] == [
                ["acme"]
            ]
    if path == "/alerts":
        assert "blocked_ratio_jump" not in page.text


@pytest.mark.parametrize(("who", "tenant"), [("anna", "acme"), ("olga", None)])
async def test_a_live_page_watches_for_the_tenant_that_its_reader_is_bound_to(
    console: Console, who: str, tenant: str | None
) -> None:
    console.mesh.fill()
    async with console.signed_in(who) as client, client.stream("GET", "/overview/live?tenant=globex") as stream:
        lines = stream.aiter_lines()
        console.mesh.changed.set()
        async with asyncio.timeout(30):
            await next_drawing(lines)  # as it is when the page is opened; only then is it watched
            await next_drawing(lines)
    asked = {type(request).__name__: metadata for _, request, metadata in console.mesh.asked}
    assert {"WatchMetricsRequest", "QueryMetricsRequest", "ListSourcesRequest", "ListAlertsRequest"} <= set(asked)
    on_behalf_of = {
        name: metadata.get("x-sluice-tenant-id") for name, metadata in asked.items() if name != "GetSpendRequest"
    }
    assert set(on_behalf_of.values()) == {tenant}, "who is bound to none may ask for all"


@pytest.mark.parametrize("service", ["insight", "cost"])
@pytest.mark.parametrize("path", PAGES)
async def test_a_service_that_is_away_takes_its_part_and_not_the_page(
    console: Console, path: str, service: str
) -> None:
    console.mesh.fill()
    console.mesh.away = {service}
    async with console.signed_in() as client:
        page = await client.get(path)
    assert page.status_code == 200
    assert "secret detail" not in page.text
    assert ("comes back by itself" in page.text) <= (path == "/"), "only the overview is drawn anew"
    is_asked = service in {name for name, _, _ in console.mesh.asked}
    assert (f"{service}, which" in page.text) == is_asked or (path == "/" and service == "cost")


async def test_a_service_that_does_not_come_to_an_end_is_waited_for_once_and_named(console: Console) -> None:
    console.mesh.fill()
    console.mesh.slow = {"insight"}
    async with console.signed_in() as client:
        pages = await asyncio.gather(*(client.get(path) for path in PAGES))
    for path, page in zip(PAGES, pages, strict=True):
        assert page.status_code == 200
        assert ("insight, which" in page.text) == (path != "/cost"), path
    assert "By tenant" in pages[0].text  # the rest of the page is there


@pytest.mark.parametrize("path", PAGES)
async def test_a_mesh_in_which_nothing_happened_is_said_to_be_so(console: Console, path: str) -> None:
    async with console.signed_in() as client:
        page = await client.get(path)
    assert page.status_code == 200
    assert 'class="empty"' in page.text


@pytest.mark.parametrize(
    "path",
    [
        "/?range=9y",
        "/?by=x",
        "/cost?by=shoe",
        "/cost?period=1y",
        "/alerts?state=odd",
        "/fairness?metric=x",
        "/fairness?windows=x",
        "/fairness?attribute=shoe",
        "/fairness?window=yesterday",
        "/fairness?window=2026-13-26T12:00Z",
        "/fairness?window=2026-11-26T12:00",
        "/?tenant=%C3%A9",
        "/cost?tenant=%FF",
        "/overview/live?tenant=%C3%A9",
    ],
)
async def test_an_address_that_does_not_fit_is_an_error_that_names_the_field(console: Console, path: str) -> None:
    async with console.signed_in() as client:
        page = await client.get(path)
    assert page.status_code == 400
    assert f"{path.split('?')[1].split('=')[0]} must be" in page.text


async def test_a_series_of_a_later_page_is_found_by_its_model_and_pages_follow_on_one_another(console: Console) -> None:
    console.mesh.fill()
    console.mesh.drift_next_page = "200"
    async with console.signed_in() as client:
        first = await client.get("/drift")
        await client.get("/drift?page=200&tenant=acme&model=sluice-small")
        assert (await client.get("/drift?page=x")).status_code == 400
    assert 'href="?page=200" rel="next"' in first.text
    asked = [request for _, request, _ in console.mesh.asked if isinstance(request, comparison.ListDriftRequest)]
    assert sorted((one.model, one.page_token) for one in asked[2:]) == [
        ("", "200"),
        ("sluice-small", ""),
        ("sluice-small", ""),
    ]


async def test_recall_by_name_origin_is_shown_as_a_share_and_leads_back_to_the_other_metrics(console: Console) -> None:
    found = fairness_pb2.FairnessMeasured(
        metric="pii_recall_by_name_origin", attribute="name_origin", group="west_african", value=0.9, sample_count=54
    )
    console.mesh.fairness = [found]
    async with console.signed_in() as client:
        page = await client.get("/fairness?metric=pii_recall_by_name_origin")
    assert page.status_code == 200
    assert ">west african" in page.text
    assert "90.0 %" in page.text
    assert "difference to the best" in page.text
    assert "a difference is one between these names" in " ".join(page.text.split())
    assert "attribute=name_origin" not in page.text


@pytest.mark.parametrize(("tenants", "left_out"), [(25, 0), (100, 50)])
async def test_a_disparate_group_comes_first_however_late_its_tenant_and_what_was_not_read_is_told(
    console: Console, tenants: int, left_out: int
) -> None:
    last = min(tenants, 66) - 1
    for i in range(tenants):
        groups = (
            (("none", 0.97), ("religion", 0.71), ("age", 0.95))
            if i == last
            else (("none", 0.97), ("age", 0.95), ("class", 0.95))
        )
        for group, value in groups:
            one = measured(group, value)
            one.series.tenant_id = f"tenant-{i:03}"
            console.mesh.fairness.append(one)
    console.mesh.fairness_page = 50  # five pages are read
    async with console.signed_in() as client:
        page = " ".join((await client.get("/fairness")).text.split())
    headings = re.findall(r"<h2>(tenant-[0-9]+)", page)
    assert headings[0] == f"tenant-{last:03}"
    assert (f"{left_out} more measurements were not read" in page) is bool(left_out)
    assert "more series are not shown; those with a disparate group come first" in page
    assert (", of those that were read" in page) is bool(left_out)


async def test_declared_cohorts_are_offered_once_measured_and_compared_with_the_others(console: Console) -> None:
    async with console.signed_in() as client:
        assert "input_cohort" not in (await client.get("/fairness")).text
        console.mesh.fill()
        terms = await client.get("/fairness")
        cohorts = await client.get("/fairness?attribute=input_cohort.plan")
    assert "attribute=input_cohort.plan" in terms.text
    assert "religion" in terms.text
    assert ">free<" not in terms.text.replace(" ", "")
    assert "plan, what callers wrote" in cohorts.text
    assert "difference to others" in cohorts.text
    assert ">free" in cohorts.text
    assert ">religion" not in cohorts.text


def name(hours: int) -> str:
    return hours_ago(hours).strftime("%Y-%m-%dT%H:%MZ")


async def test_the_course_of_a_group_within_its_window_is_told_with_its_interval(console: Console) -> None:
    console.mesh.fairness = [measured("none", 0.97), measured("religion", 0.71)]
    async with console.signed_in() as client:
        page = " ".join((await client.get("/fairness")).text.split())
    assert '<span class="tag calm">falling</span> -12.5 %<br><small class="calm">-25.0 % – -6.2 %</small>' in page


async def test_the_overview_shows_how_answers_are(console: Console) -> None:
    console.mesh.fill()
    async with console.signed_in() as client:
        page = (await client.get("/")).text
    for title in ("Answers", "What answers say", "Drift"):
        assert f"<b>{title}</b>" in page
    assert '<th scope="col">refused</th>' in page


async def test_a_window_that_is_over_can_be_chosen_sent_and_left_again(console: Console) -> None:
    console.mesh.fairness = [measured("none", 0.97), measured("religion", 0.71)]
    console.mesh.earlier = [measured(group, value, hours_ago(2)) for group, value in (("none", 0.5), ("age", 0.42))]
    console.mesh.earlier += [measured(group, 0.6, hours_ago(30)) for group in ("none", "religion")]
    chosen = {"metric": "selection_rate", "attribute": "input_terms", "windows": "hour"}
    async with console.signed_in() as client:
        newest = (await client.get("/fairness")).text
        page = await client.get("/fairness", params=chosen | {"window": name(2)})
        shown = page.text
    assert "71.0 %" in newest
    assert "Looking back" not in newest
    [form] = re.findall(r'<form method="get" action="/fairness".*?</form>', newest, re.DOTALL)
    assert dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form)) == chosen
    listed = re.findall(r'<option value="([^"]*)"( selected)?>([^<]*)<', form)
    assert [value for value, _, _ in listed] == ["", name(1), name(2), name(30)]
    assert [words.endswith("1 disparate") for _, _, words in listed] == [False, True, False, True]
    assert listed[2][2] == f"{hours_ago(2).day} {hours_ago(2):%b, %H:%M}"
    assert page.status_code == 200
    assert "42.0 %" in shown
    assert "71.0 %" not in shown
    assert f"Looking back: the window from {hours_ago(2):%Y-%m-%d %H:%M}:00 UTC" in shown
    assert f'<option value="{name(2)}" selected>' in shown
    links = dict(re.findall(r'<a href="[^"]*window=([^"&]+)" rel="(prev|next)">', shown))
    assert links == {name(30).replace(":", "%3A"): "prev", name(1).replace(":", "%3A"): "next"}
    assert '<a href="?metric=selection_rate&amp;attribute=input_terms&amp;windows=hour">newest</a>' in shown
    # Another metric or other texts are of the same window; minutes are other windows.
    for kept in ("metric=flag_rate&amp;attribute=input_terms", "metric=selection_rate&amp;attribute=output_terms"):
        assert f'?{kept}&amp;windows=hour&amp;window={name(2).replace(":", "%3A")}"' in shown
    assert '"?metric=selection_rate&amp;attribute=input_terms&amp;windows=minute"' in shown


async def test_a_window_is_asked_for_as_the_address_names_it_and_the_form_s_first_choice_is_the_newest(
    console: Console,
) -> None:
    async with console.signed_in() as client:
        await client.get("/fairness?window=2026-11-26T12:00Z&windows=minute")
        await client.get("/fairness?window=2026-11-26T12:00:30Z")
        await client.get("/fairness?window=")
    asked = [request for _, request, _ in console.mesh.asked if isinstance(request, comparison.ListFairnessRequest)]
    assert [one.window_start.ToJsonString() for one in asked if one.HasField("window_start")] == [
        "2026-11-26T12:00:00Z",
        "2026-11-26T12:00:30Z",
    ]
    assert [one.long_windows for one in asked] == [False, True, True]


async def test_a_window_that_is_not_kept_is_said_to_be_so_and_nothing_else_is_lost(console: Console) -> None:
    console.mesh.fairness = [measured("none", 0.97), measured("religion", 0.71)]
    console.mesh.earlier = [measured("none", 0.5, hours_ago(5)), measured("age", 0.42, hours_ago(5))]
    address = f"/fairness?metric=flag_rate&attribute=output_terms&windows=hour&window={name(3)}"
    async with console.signed_in() as client:
        page = await client.get(address)
    told = " ".join(page.text.split())
    assert page.status_code == 404
    assert f"No window of {hours_ago(3):%Y-%m-%d %H:%M}:00 UTC is kept." in told
    assert (
        f"Kept of this metric: 2, from {hours_ago(5):%Y-%m-%d %H:%M}:00 UTC to {hours_ago(1):%Y-%m-%d %H:%M}:00 UTC."
        in told
    )
    assert "71.0 %" not in told  # never another window's numbers under this one's name
    for other, rel in ((name(5), "prev"), (name(1), "next")):
        assert f'window={other.replace(":", "%3A")}" rel="{rel}"' in told
    assert '<a href="?metric=flag_rate&amp;attribute=output_terms&amp;windows=hour">Show the newest</a>' in told
    assert '<input type="hidden" name="metric" value="flag_rate">' in told


async def test_of_a_window_in_which_others_were_compared_that_is_said(console: Console) -> None:
    console.mesh.earlier = [measured("none", 0.5, hours_ago(2)), measured("age", 0.42, hours_ago(2))]
    async with console.signed_in() as client:
        page = await client.get(f"/fairness?attribute=output_terms&window={name(2)}")
    assert page.status_code == 200
    assert "Nothing of this was compared in the window of" in page.text


async def test_windows_that_are_kept_are_not_denied(console: Console) -> None:
    console.mesh.earlier = [measured("none", 0.5, hours_ago(2)), measured("age", 0.42, hours_ago(2))]
    async with console.signed_in() as client:
        page = (await client.get("/fairness?attribute=output_terms")).text
    assert "Nothing of this was compared of late." in page
    assert "Nothing was compared yet." not in page


async def test_a_difference_that_was_not_shown_is_no_all_clear(console: Console) -> None:
    console.mesh.fairness = [measured("none", 0.97), measured("age", 0.82)]
    async with console.signed_in() as client:
        page = (await client.get("/fairness")).text
    assert '<span class="tag calm">no difference shown</span>' in page
    assert "tag good" not in page


async def test_a_window_of_drift_that_is_over_is_shown_with_its_own_causes(console: Console) -> None:
    """Where an alert leads: the newest window may have another cause, or none."""
    series = {"tenant": "acme", "model": "sluice-small"}
    console.mesh.drift = [drifted("acme", hours_ago(1))]
    console.mesh.drift_earlier = [drifted("acme", hours_ago(3)), drifted("acme", hours_ago(4))]
    console.mesh.drift_earlier[0].causes[0].slice = "es-cause"
    async with console.signed_in() as client:
        newest = (await client.get("/drift", params=series)).text
        page = await client.get("/drift", params=series | {"window": name(3)})
        gone = await client.get("/drift", params=series | {"window": name(2)})
        wrong = await client.get("/drift?window=yesterday")
    shown = page.text
    assert "greeting@3" in newest
    assert "Looking back" not in newest
    assert page.status_code == 200
    assert f"Looking back: the window from {hours_ago(3):%Y-%m-%d %H:%M}:00 UTC" in shown
    assert f"Window of {hours_ago(3):%Y-%m-%d %H:%M}:00 UTC" in shown
    assert "es-cause" in shown
    assert "greeting@3" not in shown
    [form] = re.findall(r'<form method="get" action="/drift" aria-label="Choose.*?</form>', shown, re.DOTALL)
    assert dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form)) == series
    assert re.findall(r'<option value="([^"]*)"', form) == ["", name(1), name(3), name(4)]
    assert '<a href="?tenant=acme&amp;model=sluice-small">newest</a>' in shown
    assert gone.status_code == 404
    assert f"No window of {hours_ago(2):%Y-%m-%d %H:%M}:00 UTC is kept." in " ".join(gone.text.split())
    assert "greeting@3" not in gone.text
    assert wrong.status_code == 400


async def test_recall_by_name_origin_has_no_windows_before_and_says_so(console: Console) -> None:
    console.mesh.earlier = [measured("none", 0.5, hours_ago(2))]
    async with console.signed_in() as client:
        page = await client.get(f"/fairness?metric=pii_recall_by_name_origin&window={name(2)}")
    assert page.status_code == 404
    assert "<select" not in page.text
    assert "Of this metric there is the newest window only." in page.text
    assert f"metric=flag_rate&amp;windows=hour&amp;window={name(2).replace(':', '%3A')}" in page.text


async def test_a_group_that_fell_silent_says_of_which_window_its_last_word_is(console: Console) -> None:
    console.mesh.fairness = [measured("none", 0.97), measured("age", 0.9), measured("religion", 0.71, hours_ago(7))]
    async with console.signed_in() as client:
        page = (await client.get("/fairness")).text
    told = f"of {hours_ago(7):%Y-%m-%d %H:%M}:00 UTC"
    *_, row = re.findall(r'<th scope="row">religion.*?</tr>', page, re.DOTALL)  # the chart's table comes first
    assert told in row
    assert page.count(told) == 1
    newest = f'windows=hour&amp;window={name(1).replace(":", "%3A")}">{hours_ago(1):%Y-%m-%d %H:%M}:00 UTC</a>'
    assert f'Newest window: <a href="?metric=selection_rate&amp;attribute=input_terms&amp;{newest}' in page


async def test_what_a_caller_named_is_text_and_never_markup(console: Console) -> None:
    console.mesh.fill()
    console.mesh.requests["<script>alert(1)</script>"] = 3
    console.mesh.spend = [spent("<img src=x onerror=alert(1)>", 5)]
    async with console.signed_in() as client:
        for path in ("/", "/cost?by=tenant", "/?model=%3Cscript%3E"):
            page = await client.get(path)
            assert page.status_code == 200
            assert "<script>" not in page.text
            assert "<img" not in page.text


async def test_who_is_bound_to_a_tenant_hears_of_no_other_ones_alerts(console: Console) -> None:
    console.mesh.fill()
    theirs, ours = metric_pb2.MetricSeries(tenant_id="globex"), metric_pb2.MetricSeries(tenant_id="acme")
    console.mesh.alerts = [
        insight.Alert(
            alert_id=name,
            rule=name,
            state=insight.ALERT_STATE_FIRING,
            evidence=metric_pb2.MetricPoint(metric="drift.drifted", series=series),
        )
        for name, series in (("rule_of_theirs", theirs), ("rule_of_ours", ours))
    ]
    async with console.signed_in("anna") as client:
        bound = (await client.get("/")).text
    async with console.signed_in("olga") as client:
        unbound = (await client.get("/")).text
    assert "rule_of_ours" in bound
    assert "rule_of_theirs" not in bound
    assert "rule_of_theirs" in unbound


async def test_more_points_than_a_page_holds_are_all_counted(console: Console) -> None:
    console.mesh.fill(tenants=3)
    console.mesh.largest_page = 15
    async with console.signed_in() as client:
        page = (await client.get("/")).text
    assert "numbers are too low" not in page
    assert ">123<" in page  # 40 + 41 + 42


async def test_numbers_that_are_too_low_are_said_to_be_so(console: Console) -> None:
    console.mesh.fill(tenants=3)
    console.mesh.largest_page = 1
    async with console.signed_in() as client:
        assert "numbers are too low" in (await client.get("/")).text


async def test_the_series_of_all_models_can_be_chosen(console: Console) -> None:
    console.mesh.drift = [drifted("acme"), drifted("acme")]
    console.mesh.drift[1].series.model = ""
    async with console.signed_in() as client:
        page = (await client.get("/drift?tenant=acme&model=")).text
    assert "acme · (all models)" in page


async def test_the_series_of_all_tenants_can_be_chosen(console: Console) -> None:
    console.mesh.drift = [drifted("acme"), drifted("")]
    async with console.signed_in() as client:
        listed = (await client.get("/drift")).text
        page = (await client.get("/drift?tenant=&model=sluice-small")).text
    assert '<a href="?tenant=&amp;model=sluice-small">(all)</a>' in listed
    assert "(all tenants) · sluice-small" in page


async def test_drift_lists_what_was_seen_in_the_time_that_is_shown_and_counts_the_rest(console: Console) -> None:
    console.mesh.drift = [drifted("acme"), drifted("globex", hours_ago(30))]
    async with console.signed_in() as client:
        day = (await client.get("/drift")).text
        month = (await client.get("/drift?range=30d")).text
        assert (await client.get("/drift?range=9y")).status_code == 400
    assert ">acme</a>" in day
    assert ">globex</a>" not in day
    assert "1 more series was not seen in the last 24 h" in day
    assert '<a href="?range=30d">show 30 days</a>' in day
    assert ">globex</a>" in month
    assert "not seen" not in month
    assert '<a href="?range=30d&amp;tenant=globex&amp;model=sluice-small">globex</a>' in month
    assert '<input type="hidden" name="range" value="30d">' in month
    [asked] = [
        request.start_time.ToDatetime(tzinfo=UTC)
        for _, request, _ in console.mesh.asked[:1]
        if isinstance(request, comparison.ListDriftRequest)
    ]
    assert abs(datetime.now(UTC) - timedelta(hours=24) - asked) < timedelta(minutes=5)


async def test_an_address_of_a_series_that_was_not_seen_lately_still_shows_it_and_says_so(console: Console) -> None:
    console.mesh.drift = [drifted("globex", hours_ago(72))]
    async with console.signed_in() as client:
        page = (await client.get("/drift?tenant=globex&model=sluice-small")).text
        other = (await client.get("/drift?tenant=acme&model=sluice-small")).text
        plain = (await client.get("/drift")).text
    assert "globex · sluice-small" in page
    assert "Not seen in the last 24 h: this is what was said of it 3 d ago." in page
    assert "No such series." in other
    assert "Nothing was compared in the last 24 h." in plain
    assert "globex" not in plain


async def test_an_alias_without_any_text_is_said_to_be_one_and_not_to_have_observed_nothing(console: Console) -> None:
    console.mesh.drift = [drifted("acme"), without_texts("chat"), without_texts("code", requests=0)]
    async with console.signed_in() as client:
        page = (await client.get("/drift?tenant=acme&model=chat")).text
    rows = re.findall(r"<tr[^>]*><th scope=\"row\"><a href.*?</tr>", page, re.DOTALL)
    assert ["no texts" in row for row in rows] == [False, True, True]
    assert ["insufficient" in row for row in rows] == [False, False, False]
    assert "<td>12 requests</td>" in rows[1]
    assert "41 requests" in rows[1]
    assert "<td>\N{EM DASH}</td>" in rows[2]
    assert "No texts came under this name." in page
    assert "Too few texts to say anything." not in page


@pytest.mark.parametrize("hours", [0, 1, 5])
async def test_nothing_is_forecast_from_no_history_and_no_interval_from_an_hour(console: Console, hours: int) -> None:
    period = cost.PeriodForecast(expected=money_pb2.Money(currency_code="USD", nano_units=777 * 10**9))
    console.mesh.forecasts = [cost.SpendForecast(currency_code="USD", day=period, month=period, history_hours=hours)]
    async with console.signed_in() as client:
        page = (await client.get("/cost")).text
    assert ("777.00 USD" in page) is bool(hours)
    assert ("no whole hour of history yet" in page) is not bool(hours)
    assert ("90 %: " in page) is (hours > 1)


async def test_drift_names_the_slice_that_explains_it(console: Console) -> None:
    console.mesh.fill()
    async with console.signed_in() as client:
        page = (await client.get("/drift")).text
    for part in ("greeting@3", "prompt version", "97.0 %", "is new"):
        assert part in page


async def test_of_a_feature_of_which_too_little_is_known_no_number_is_told(console: Console) -> None:
    console.mesh.drift = [drifted("acme")]
    console.mesh.drift[0].features[1].verdict = drift_pb2.DRIFT_VERDICT_INSUFFICIENT
    async with console.signed_in() as client:
        page = (await client.get("/drift?tenant=acme&model=sluice-small")).text
    assert "31.500" in page
    assert "0.400" not in page


async def test_a_feature_that_is_compared_with_windows_before_says_with_which(console: Console) -> None:
    console.mesh.drift = [drifted("acme")]
    words, embedding = console.mesh.drift[0].features[:2]
    words.trailing_windows, words.trailing_gap = 5, 285
    embedding.trailing_windows = 12
    async with console.signed_in() as client:
        page = (await client.get("/drift?tenant=acme&model=sluice-small")).text
    assert "against 5 windows around the same time of the day before" in page
    assert "against the 12 windows before" in page
    assert page.count('<small class="calm">against') == 2


async def test_an_alert_says_how_bad_it_is_and_what_moved(console: Console) -> None:
    console.mesh.fill()
    async with console.signed_in() as client:
        page = (await client.get("/alerts")).text
    for part in ("critical", "Three times as much is blocked as an hour ago.", "prompt_version=greeting@3: 80.0 %"):
        assert part in page


async def test_an_alert_without_a_measurement_shows_none(console: Console) -> None:
    firing = insight.ALERT_STATE_FIRING
    console.mesh.alerts = [insight.Alert(alert_id="m", rule="mesh.dead_letters", state=firing, labels={"topic": "t"})]
    async with console.signed_in() as client:
        page = (await client.get("/alerts")).text
    assert "mesh.dead_letters" in page
    assert "from a sample of" not in page
    # An insight that is not replaced yet sends an empty one.
    console.mesh.alerts[0].evidence.SetInParent()
    async with console.signed_in() as client:
        page = (await client.get("/alerts")).text
    assert "mesh.dead_letters" in page
    assert "from a sample of" not in page


async def test_every_alert_has_its_row_to_link_to_and_leads_to_a_page_that_answers(console: Console) -> None:
    alert_id = "quality.slow|model=org/small 2,tenant_id=acme|2026-11-26T12:00:00Z"
    metrics = (
        "quality.failed_ratio", "drift.drifted", "fairness.input_terms.age.selection_rate", "probe.unguarded", "cost.unpriced_requests",
    )  # fmt: skip
    series = metric_pb2.MetricSeries(tenant_id="acme", model="org/small 2")
    at = stamp(hours_ago(0))
    console.mesh.drift = [drifted("acme", hours_ago(0))]
    console.mesh.alerts = [
        insight.Alert(
            alert_id=alert_id if i == 0 else f"a{i}", rule="r", state=insight.ALERT_STATE_FIRING,
            evidence=metric_pb2.MetricPoint(metric=metric, series=series, window=metric_pb2.MetricWindow(start=at)),
        )
        for i, metric in enumerate(metrics)
    ]  # fmt: skip
    async with console.signed_in() as client:
        page = (await client.get("/alerts")).text
        links = re.findall(r'<a href="([^"]+)"><code>', page)
        answers = [(await client.get(html.unescape(link))).status_code for link in links]
        overview = (await client.get("/")).text
    assert answers == [200] * len(metrics)
    rows = [html.unescape(found) for found in re.findall(r'<tr id="([^"]+)"', page)]
    assert rows[0] == alert_id
    assert unquote(re.findall(r'href="/alerts\?state=firing#([^"]+)"', overview)[0]) == alert_id


@pytest.mark.parametrize("path", ["/alerts", "/drift", "/fairness"])
async def test_a_page_says_up_to_when_what_it_shows_is_complete(console: Console, path: str) -> None:
    console.mesh.fill()
    async with console.signed_in() as client:
        assert "Complete up to —; drawn at" in (await client.get(path)).text
        console.mesh.complete_up_to = datetime(2026, 11, 26, 12, 3, tzinfo=UTC)
        assert "Complete up to 2026-11-26 12:03:00 UTC; drawn at" in (await client.get(path)).text


async def test_money_of_two_currencies_is_never_added_up(console: Console) -> None:
    console.mesh.fill()
    console.mesh.budgets = []
    console.mesh.spend = [spent("a", 2 * 10**9), spent("b", 3 * 10**9, currency="EUR")]
    async with console.signed_in() as client:
        page = (await client.get("/cost?by=model")).text
    assert "2.00 USD" in page
    assert "3.00 EUR" in page
    assert "5.00" not in page


async def test_by_kind_of_charge_the_course_is_of_the_kinds_that_are_summed(console: Console) -> None:
    async with console.signed_in() as client:
        for by in ("model", "charge_kind"):
            page = (await client.get(f"/cost?by={by}")).text
            assert ("Spent is of all rows" in page, "without self-tests and the judge" in page) == (
                by == "charge_kind",
                by == "model",
            )
    asked = [list(one.group_by) for _, one, _ in console.mesh.asked if isinstance(one, cost.GetSpendRequest)]
    hour, kind = cost.SPEND_DIMENSION_HOUR, cost.SPEND_DIMENSION_CHARGE_KIND
    assert sorted(asked) == sorted([[cost.SPEND_DIMENSION_MODEL], [hour], [kind], [kind, hour]])


async def test_a_forecast_is_of_the_rows_that_the_page_shows(console: Console) -> None:
    async with console.signed_in() as client:
        assert (await client.get("/cost?model=small")).status_code == 200
    [asked] = [request for _, request, _ in console.mesh.asked if isinstance(request, cost.ForecastSpendRequest)]
    assert [list(one.values) for one in asked.filters] == [["small"]]


async def test_the_overview_pushes_a_fresh_page_when_a_number_changes(console: Console) -> None:
    console.mesh.fill()
    async with console.signed_in() as client, client.stream("GET", "/overview/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        assert (await anext(lines)).startswith("retry:")
        console.mesh.requests["acme"] = 777
        console.mesh.changed.set()
        async with asyncio.timeout(30):
            async for line in lines:
                if "777" in line:
                    break


@pytest.mark.parametrize(
    ("slice_", "dimension", "field"),
    [
        ("tenant", insight.DIMENSION_TENANT, "tenant_id"),
        ("project", insight.DIMENSION_PROJECT, "project_id"),
        ("model", insight.DIMENSION_MODEL, "model"),
        ("route", insight.DIMENSION_ROUTE, "route"),
        ("prompt_version", insight.DIMENSION_PROMPT_VERSION, "prompt_version"),
        ("experiment_arm", insight.DIMENSION_EXPERIMENT_ARM, "experiment_arm"),
    ],
)
async def test_each_slice_asks_for_its_own_dimension_and_shows_its_own_field(
    console: Console, slice_: str, dimension: int, field: str
) -> None:
    fields = [each.name for each in metric_pb2.MetricSeries.DESCRIPTOR.fields]
    console.mesh.requests = {"chosen": 7}
    console.mesh.series = metric_pb2.MetricSeries(**{name: f"named-by-{name}" for name in fields})
    async with console.signed_in() as client:
        page = (await client.get(f"/?by={slice_}&{slice_}=chosen")).text
    asked = [one.query for _, one, _ in console.mesh.asked if isinstance(one, insight.QueryMetricsRequest)]
    assert sorted(list(query.group_by) for query in asked) == [[], [dimension]]
    for query in asked:
        assert [(one.dimension, list(one.values)) for one in query.filters] == [(dimension, ["chosen"])]
    assert set(re.findall(r"named-by-(\w+)", page)) == {field}


async def events_until_the_end(lines: AsyncIterator[str]) -> list[str]:
    async with asyncio.timeout(30):
        return [line async for line in lines if line.startswith("event:")]


async def test_a_month_is_asked_for_by_the_day(console: Console) -> None:
    console.mesh.fill()
    async with console.signed_in() as client:
        page = (await client.get("/?range=30d&by=model")).text
    asked = [one for _, one, _ in console.mesh.asked if isinstance(one, insight.QueryMetricsRequest)]
    assert {request.query.window.seconds for request in asked} == {86_400}
    assert {request.end_time.seconds - request.start_time.seconds for request in asked} == {30 * 86_400}
    assert '<a href="?range=7d&amp;by=model">7 d</a>' in page
    assert "a window is a day" in page


async def test_a_live_page_ends_with_its_session_and_keeps_none_awake(console: Console) -> None:
    console.mesh.fill()
    async with console.signed_in() as client, client.stream("GET", "/overview/live") as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        console.clock[0] += 400
        console.mesh.changed.set()
        async with asyncio.timeout(30):
            async for line in lines:
                if line == "event: overview":
                    break
        console.clock[0] += 400  # 800 s since the person opened a page; idle after 600
        console.mesh.changed.set()
        assert (await events_until_the_end(lines))[-1] == "event: over"
        assert (await client.get("/")).status_code == 303


async def test_a_live_page_ends_with_its_session_also_while_insight_is_away(console: Console) -> None:
    console.mesh.fill()
    console.mesh.away = {"insight"}
    async with console.signed_in() as client, client.stream("GET", "/overview/live") as stream:
        lines = stream.aiter_lines()
        async with asyncio.timeout(30):
            async for line in lines:
                if line == "event: overview":
                    break
        del console.keys["olga"]
        told = await events_until_the_end(lines)
    assert told == ["event: over"]


async def test_a_live_page_comes_back_when_insight_is_started_again_and_nothing_happens(
    console: Console,
) -> None:
    console.mesh.fill()
    async with console.signed_in() as client, client.stream("GET", "/overview/live") as stream:
        lines = stream.aiter_lines()
        async with asyncio.timeout(30):
            assert "data-partial" not in await next_drawing(lines)
            console.mesh.away = {"insight"}
            console.mesh.changed.set()
            assert "data-partial" in await next_drawing(lines)
            console.mesh.away = set()
            while "data-partial" in await next_drawing(lines):
                pass


async def test_a_live_page_does_not_take_an_insight_that_hangs_for_one_to_which_nothing_happens(
    console: Console,
) -> None:
    console.mesh.fill()
    async with console.signed_in() as client, client.stream("GET", "/overview/live") as stream:
        lines = stream.aiter_lines()
        async with asyncio.timeout(40):
            await next_drawing(lines)
            console.mesh.slow = {"insight"}
            while "data-partial" not in await next_drawing(lines):
                pass


async def next_drawing(lines: AsyncIterator[str]) -> str:
    """The data of the next event."""
    drawn: list[str] = []
    async for line in lines:
        if line.startswith("data: "):
            drawn.append(line)
        elif drawn:
            break
    return "\n".join(drawn)


async def test_how_many_alerts_there_are_is_a_dash_while_nobody_knows(console: Console) -> None:
    console.mesh.fill()
    console.mesh.away = {"insight"}
    async with console.signed_in() as client:
        unknown = (await client.get("/alerts")).text
        console.mesh.away = set()
        known = (await client.get("/alerts")).text
    counted = r">(firing|pending|resolved) <small>([^<]+)<"
    assert dict(re.findall(counted, unknown)) == {"firing": "—", "pending": "—", "resolved": "—"}
    assert dict(re.findall(counted, known)) == {"firing": "1", "pending": "0", "resolved": "1"}


async def test_there_are_no_more_live_pages_than_were_set_and_closed_ones_do_not_count(console: Console) -> None:
    async with console.signed_in() as client:
        for _ in range(2):
            streams = [client.stream("GET", "/overview/live") for _ in range(3)]
            opened = [await stream.__aenter__() for stream in streams]
            for one in opened:
                await anext(one.aiter_lines())
            assert (await client.get("/overview/live")).status_code == 503
            for stream in streams:
                await stream.__aexit__(None, None, None)
            async with asyncio.timeout(30):
                while console.site.streams:
                    console.mesh.changed.set()
                    await asyncio.sleep(0.05)


async def test_a_story_says_why_with_its_evidence_and_holds_no_value(console: Console) -> None:
    console.mesh.fill()
    async with console.signed_in() as client:
        page = (await client.get("/requests/request-0000")).text
    assert "prompt injection scored 0.970, and from 0.900 on the policy says block." in page
    for part in (
        "general@4",
        "d-1",
        "guard (unavailable)",
        "EMAIL_ADDRESS",
        "0.000000042 USD",
        "7783e46e4ef63afd72e020a942c8c686",
        "down",
    ):
        assert part in page


async def test_another_tenants_story_is_not_there(console: Console) -> None:
    console.mesh.fill()
    async with console.signed_in("anna") as client:
        assert (await client.get("/requests/request-0000")).status_code == 200  # acme's
        refused = await client.get("/requests/request-0001")  # globex's
        unknown = await client.get("/requests/request-9999")
    assert (refused.status_code, unknown.status_code) == (404, 404)
    assert "No such request" in refused.text
    assert "No such request" in unknown.text


async def test_a_story_that_has_no_end_yet_is_told_as_far_as_it_is_known(console: Console) -> None:
    console.mesh.fill()
    told = console.mesh.stories["request-0000"]
    told.ClearField("completed")
    told.ClearField("summary")
    async with console.signed_in() as client:
        page = await client.get("/requests/request-0000")
    assert page.status_code == 200
    assert "Its end is not known yet" in page.text


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("model=small", "model", "small"),
        ("outcome=blocked", "outcomes", [2, 3]),
        ("verdict=flagged", "verdict", verdict_pb2.ACTION_FLAG),
        ("verdict=not+checked", "verdict", verdict_pb2.ACTION_SKIPPED),
        ("category=toxicity", "category", "toxicity"),
        ("blocked_category=toxicity", "blocked_category", "toxicity"),
        ("kind=IBAN", "kind", "IBAN"),
        ("project=lab", "project_id", "lab"),
        ("feedback=on", "with_feedback", True),
        ("feedback=1", "with_feedback", True),
        ("feedback=true", "with_feedback", True),
        ("feedback=off", "with_feedback", False),
        ("probes=on", "include_synthetic", True),
    ],
)
async def test_a_search_asks_for_what_was_filled_in(console: Console, query: str, field: str, value: object) -> None:
    async with console.signed_in() as client:
        assert (await client.get(f"/requests?{query}")).status_code == 200
    ((_, asked, _),) = console.mesh.asked
    found = getattr(asked, field)
    assert (list(found) if isinstance(value, list) else found) == value


@pytest.mark.parametrize(
    "query",
    [
        "outcome=odd",
        "verdict=odd",
        "feedback=perhaps",
        "probes=perhaps",
        "from=yesterday",
        "min_seconds=-1",
        "min_seconds=nan",
        "model=%00",
        "from=2026-11-26&until=2026-11-25",
    ],
)
async def test_a_search_that_makes_no_sense_is_named(console: Console, query: str) -> None:
    async with console.signed_in() as client:
        page = await client.get(f"/requests?{query}")
    assert page.status_code == 400
    assert f"{query.split('=')[0]} must be" in page.text
    assert not console.mesh.asked


@pytest.mark.parametrize("path", ["/requests", "/", "/cost", "/drift"])
async def test_who_is_bound_to_a_tenant_is_told_that_the_address_names_another(console: Console, path: str) -> None:
    console.mesh.fill()
    told = "Shown is <b>acme</b>, to which your key is bound, and not <b>globex</b>"
    async with console.signed_in("anna") as client:
        assert told in (await client.get(f"{path}?tenant=globex")).text
        for own in (path, f"{path}?tenant=acme"):
            assert "your key is bound" not in (await client.get(own)).text
    async with console.signed_in("olga") as client:
        assert "your key is bound" not in (await client.get(f"{path}?tenant=globex")).text


async def test_the_overview_tells_alerts_of_one_rule_once_with_their_count(console: Console) -> None:
    console.mesh.fill()
    console.mesh.alerts = [
        insight.Alert(
            alert_id=f"u{i}",
            rule="probe.unguarded",
            severity="critical",
            state=insight.ALERT_STATE_FIRING,
            labels={"model": "small", "route": f"route-{i}"},
        )
        for i in range(5)
    ]
    async with console.signed_in() as client:
        page = (await client.get("/")).text
    assert "<b>5 alerts fire:</b>" in page
    assert page.count("probe.unguarded</a> <small>critical</small>") == page.count("probe.unguarded") == 1
    assert "5 × <a" in page
    assert "model small; route route-0, route-1, route-2 and 2 more" in page


async def test_a_row_says_what_moderation_decided_and_because_of_what(console: Console) -> None:
    console.mesh.fill()
    flagged, unknown, _, held = (one.summary for one in console.mesh.stories.values())
    flagged.outcome = gateway_pb2.REQUEST_OUTCOME_COMPLETED
    flagged.ClearField("blocked_categories")
    flagged.verdicts[:], flagged.categories[:] = (
        [verdict_pb2.ACTION_FLAG, verdict_pb2.ACTION_REDACT],
        ["self_harm", "toxicity"],
    )
    held.outcome = gateway_pb2.REQUEST_OUTCOME_BLOCKED_OUTPUT
    held.ClearField("blocked_categories")
    held.verdicts[:], held.categories[:] = [verdict_pb2.ACTION_HOLD], ["insult"]
    unknown.ClearField("verdicts")
    unknown.ClearField("categories")  # as a row of an older insight: it is blocked for something all the same
    async with console.signed_in() as client:
        page = (await client.get("/requests?verdict=flagged&category=self_harm")).text
    cells = [row.split("</td>")[1] for row in re.findall(r"<tr><th.*?</tr>", page)[1:]]
    assert [" ".join(re.sub("<[^>]*>", " ", cell).split()) for cell in cells] == [
        "completed flagged redacted self harm, toxicity",
        "blocked input prompt injection",
        "blocked input prompt injection",
        "blocked output held insult",
    ]
    assert "<option selected>flagged</option>" in page
    assert 'name="category" value="self_harm"' in page


async def test_a_request_is_found_by_its_id_alone(console: Console) -> None:
    console.mesh.fill()
    async with console.signed_in() as client:
        answer = await client.get("/requests?id=request-0000&model=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/requests/request-0000")


async def test_vendored_files_are_the_ones_that_were_recorded() -> None:
    recorded = json.loads((STATIC / "vendor" / "vendored.json").read_text())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (STATIC / "vendor").iterdir()}
    del found["vendored.json"]
    assert found == {name: digest for package in recorded.values() for name, digest in package["files"].items()}


async def test_health_is_told_to_anybody(console: Console) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{console.url}/healthz")).json() == {"serving": True}
