"""The pages in a real browser: nothing overflows, nothing fails, everybody can use them, and they live."""

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect
from sluice.types.v1 import verdict_pb2
from sluice_console.api.site import NAVIGATION
from sluice_console.domain.people import Person, Role

from .conftest import Console, hours_ago

PAGES = ("/", "/drift", "/fairness", "/requests", "/requests/request-0000", "/cost?by=tenant", "/review", "/alerts")
STATES = ("empty", "filled", "away", "huge")


@pytest_asyncio.fixture(params=[(1280, "light"), (390, "dark")], ids=["wide-light", "narrow-dark"])
async def page(request: pytest.FixtureRequest, browser: Browser) -> AsyncIterator[Page]:
    width, scheme = request.param
    context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = await context.new_page()
    yield opened
    await context.close()


async def sign_in(page: Page, console: Console, who: str = "olga") -> list[str]:
    """Signs in by hand; returns the list into which the browser's complaints go."""
    complaints: list[str] = []
    page.on("console", lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(console.url)
    await page.get_by_label("Console key").fill(console.keys[who][0])
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    return complaints


@pytest.mark.parametrize("state", STATES)
async def test_every_page_in_every_state_fits_works_and_can_be_used_by_everybody(
    console: Console, page: Page, state: str
) -> None:
    if state in ("filled", "huge", "away"):
        console.mesh.fill(tenants=2 if state != "huge" else 300)
    complaints = await sign_in(page, console)
    console.mesh.away = {"insight", "cost"} if state == "away" else set()
    for path in PAGES:
        await page.goto(console.url + path)
        await expect(page.locator("h1")).to_be_visible()
        overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{path} is {overflow} pixels too wide"
        found = await Axe().run(page)
        serious = [one for one in found.response["violations"] if one["impact"] in ("serious", "critical")]
        assert not serious, f"{path}: {[(one['id'], one['nodes'][0]['html'][:200]) for one in serious]}"
        if state == "filled" and path in ("/", "/drift", "/fairness", "/cost?by=tenant"):
            assert await page.evaluate("[...document.querySelectorAll('canvas')].some((c) => Chart.getChart(c))")
    # A story that is not there is a page of its own, and the one thing that a browser may complain of.
    not_found = "Failed to load resource: the server responded with a status of 404 (Not Found)"
    assert complaints == ([not_found] if state == "empty" else [])


async def test_an_alert_is_silenced_and_taken_on_by_hand(console: Console, page: Page) -> None:
    console.mesh.fill()
    console.mesh.silences = []
    complaints = await sign_in(page, console)
    await page.goto(console.url + "/alerts")
    row = page.locator("tr#a1")
    await row.get_by_text("Act", exact=True).click()
    found = await Axe().run(page)
    serious = [one for one in found.response["violations"] if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], one["nodes"][0]["html"][:200]) for one in serious]
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    await row.get_by_label("silence for").select_option("1d")
    why = row.get_by_label("why: a code or a ticket")
    await why.fill("Maria said so")
    await row.get_by_role("button", name="Silence", exact=True).click()
    assert console.mesh.silences == [], "the browser keeps prose back"
    await why.fill("OPS-9")
    await row.get_by_role("button", name="Silence", exact=True).click()
    await expect(page.locator("section", has=page.locator("#silences"))).to_contain_text("OPS-9")
    [silence] = console.mesh.silences
    others = dict.fromkeys(("project_id", "route", "prompt_version", "experiment_arm", "redaction_policy"), "")
    assert dict(silence.labels) == others | {"tenant_id": "acme", "model": "sluice-small"}, "of that alert alone"
    await row.get_by_text("Act", exact=True).click()
    await row.get_by_role("button", name="I take it on").click()
    await expect(row).to_contain_text("olga has it")
    await page.get_by_role("button", name="End the silence of blocked_ratio_jump, OPS-9").click()
    await expect(page.get_by_text("Nothing is silenced.")).to_be_visible()
    assert complaints == []


async def test_a_window_of_fairness_is_chosen_by_keyboard_and_everybody_can(console: Console, page: Page) -> None:
    console.mesh.fill()
    complaints = await sign_in(page, console)
    await page.goto(console.url + "/fairness?metric=flag_rate")
    window = page.get_by_label("window, UTC")
    await window.focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Looking back")).to_be_visible()
    named = hours_ago(2).strftime("%Y-%m-%dT%H:%MZ")
    assert parse_qs(urlsplit(page.url).query)["window"] == [named]
    await expect(page.get_by_label("window, UTC")).to_have_value(named)
    await expect(page.locator("table.numbers").last).to_contain_text("98.0 %")
    await page.get_by_role("link", name="older").click()
    await expect(page.get_by_label("window, UTC")).to_have_value(hours_ago(3).strftime("%Y-%m-%dT%H:%MZ"))
    await expect(page.get_by_role("link", name="let through and flagged")).to_have_attribute("aria-current", "true")
    assert complaints == []
    for path in (page.url, f"{console.url}/fairness?window=2020-01-01T00:00Z"):
        await page.goto(path)
        found = await Axe().run(page)
        serious = [one for one in found.response["violations"] if one["impact"] in ("serious", "critical")]
        assert not serious, [(one["id"], one["nodes"][0]["html"][:200]) for one in serious]
        overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0


async def test_what_was_flagged_is_found_by_keyboard_and_seen_in_its_row(console: Console, page: Page) -> None:
    console.mesh.fill()
    line = console.mesh.stories["request-0000"].summary
    line.outcome, line.verdicts[:], line.categories[:] = (
        1,
        [verdict_pb2.ACTION_FLAG, verdict_pb2.ACTION_REDACT],
        ["self_harm"],
    )
    line.ClearField("blocked_categories")
    complaints = await sign_in(page, console)
    await page.goto(console.url + "/requests")
    await page.get_by_label("verdict", exact=True).focus()
    await page.keyboard.type("fl")
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("category", exact=True)).to_be_focused()
    await page.keyboard.type("self_harm")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("link", name="all", exact=True)).to_be_visible()
    asked = console.mesh.asked[-1][1]
    assert (asked.verdict, asked.category) == (verdict_pb2.ACTION_FLAG, "self_harm")
    await expect(page.get_by_label("verdict", exact=True)).to_have_value("flagged")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="request-0000"))
    await expect(row.get_by_role("cell").nth(1)).to_have_text("completed flagged redacted self harm")
    assert complaints == []


async def test_the_overview_lives_without_being_loaded_again(console: Console, page: Page) -> None:
    console.mesh.fill()
    await sign_in(page, console)
    await page.evaluate("window.wasHere = true")
    details = page.locator("figure#figure-requests details")
    await details.locator("summary").click()
    console.mesh.requests = {"acme": 4_321, "globex": 0}
    console.mesh.changed.set()
    await expect(page.locator(".figure .value").first).to_have_text("4,321", timeout=20_000)
    assert await page.evaluate("window.wasHere === true")
    assert await details.get_attribute("open") is not None  # what a reader opened stays open
    latest = page.locator("figure#figure-requests tbody tr").last
    await expect(latest).to_contain_text("4,321")


async def test_the_overview_says_what_is_missing_and_comes_back_without_any_traffic(
    console: Console, page: Page
) -> None:
    console.mesh.fill()
    console.mesh.away = {"insight"}
    await sign_in(page, console)
    state = page.locator("#live-state")
    await expect(state).to_have_text("not all is available, trying again", timeout=10_000)
    await expect(state).to_have_class("live away")
    console.mesh.away = set()
    await expect(state).to_have_text("live", timeout=10_000)
    await expect(page.locator("#live .away")).to_have_count(0)
    await expect(page.locator(".figure .value").first).to_have_text("81")


async def test_a_restart_of_the_console_leads_an_open_overview_to_signing_in(console: Console, page: Page) -> None:
    await sign_in(page, console)
    await expect(page.locator("#live-state")).to_have_text("live")
    await console.restart(pause=2)
    await expect(page.get_by_label("Console key")).to_be_visible(timeout=20_000)


async def test_at_every_width_the_whole_menu_is_seen(console: Console, page: Page) -> None:
    console.keys["anna"] = ("key-of-anna", Person("anna.with-a-long-name", Role.AUDITOR, "a-tenant-with-a-long-name"))
    await sign_in(page, console, "anna")
    for width in (320, 390, 740, 900, 1280):
        await page.set_viewport_size({"width": width, "height": 900})
        seen = await page.evaluate(
            """() => [...document.querySelectorAll('header nav a')].filter((link) => {
                const {left, right, top, bottom} = link.getBoundingClientRect();
                const corners = [[left + 4, top + 4], [right - 4, top + 4], [left + 4, bottom - 4], [right - 4, bottom - 4]];
                return corners.every(([x, y]) => link.contains(document.elementFromPoint(x, y)));
            }).map((link) => link.textContent)"""
        )
        assert seen == [name for _, name in NAVIGATION], f"at {width}"
        overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{overflow} at {width}"


async def test_the_page_can_be_gone_through_by_keyboard_alone(console: Console, page: Page) -> None:
    console.mesh.fill()
    await sign_in(page, console)
    await page.goto(console.url)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    inside = await page.evaluate("document.querySelector('main').contains(document.activeElement)")
    assert inside


async def test_without_scripts_every_number_is_still_there(console: Console, browser: Browser) -> None:
    console.mesh.fill()
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(console.url)
    await page.get_by_label("Console key").fill("key-of-olga")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("#live-state")).to_have_text("as it was when it was opened")
    await page.locator("figure#figure-requests summary").click()
    await expect(page.locator("figure#figure-requests tbody tr").first).to_be_visible()
    await page.get_by_role("link", name="Drift").click()
    await expect(page.get_by_text("Prompt: language, most at de").first).to_be_visible()
    await page.get_by_role("link", name="Fairness").click()
    await page.get_by_label("window, UTC").select_option(index=5)
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_text("Looking back")).to_be_visible()
    await context.close()
