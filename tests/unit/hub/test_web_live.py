"""The live parts of the pages, in a real browser against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.fake_hub import NOW_MS, TOKEN, FakeHub, Serving, event
from tests.support.needs import needs, where
from tests.support.patience import ANSWER_S, WITHIN_S
from tests.unit.hub.test_web import PAGES, XSS

pytestmark = pytest.mark.slow  # whole processes


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=where("chromium"), args=["--no-sandbox"], timeout=WITHIN_S * 1_000)
        expect.set_options(timeout=ANSWER_S * 1_000)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh profile each; what the page itself, or its policy, complained about fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(WITHIN_S * 1_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security Policy" in message.text else None)
    yield page
    context.close()
    assert faults == []


def arrive(serving: Serving, order_id: str, status: str = "PICKED") -> None:
    hub = serving.hub
    one = event(order_id, status, NOW_MS, site=XSS, actor=XSS)
    serving.do(lambda: hub.fact("madrid-8", one, recorded_ms=NOW_MS, received_ms=NOW_MS))


@needs("chromium")
def test_the_live_feed_shows_what_arrives_and_rests_under_the_pointer(day: FakeHub, page: Page) -> None:
    with Serving(day) as serving:
        page.goto(serving.url)
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
        expect(page.locator("#live")).to_contain_text("live · 0.0 s behind")
        arrive(serving, "NEW-1")
        first = page.locator("#feed li").first
        expect(first.locator("a")).to_have_text("NEW-1")
        expect(first).to_contain_text("Picked")
        expect(first.locator(".where")).to_contain_text(XSS)
        page.locator("#feed li").first.hover()
        arrive(serving, "NEW-2")
        arrive(serving, "NEW-3")
        expect(page.locator("#feed-news")).to_have_text("2 new")
        expect(first.locator("a")).to_have_text("NEW-1")
        page.mouse.move(5, 5)
        expect(first.locator("a")).to_have_text("NEW-3")
        expect(page.locator("#feed-news")).to_be_hidden()


@needs("chromium")
def test_names_of_the_orders_table_stand_on_one_line_beside_a_long_number(day: FakeHub, page: Page) -> None:
    day.fact(
        "madrid-8",
        event("LONG" + "-0123456789" * 6, "PICKED", NOW_MS, site="W8-Madrid", source="SETTLEMENT"),
        recorded_ms=NOW_MS,
        received_ms=NOW_MS,
    )
    with Serving(day) as serving:
        page.goto(f"{serving.url}/orders")
        for name in ("W8-Madrid", "SETTLEMENT"):
            cell = page.get_by_text(name, exact=True).first
            assert cell.evaluate("e => e.getClientRects().length") == 1, name


@needs("chromium")
def test_totals_and_nodes_follow_the_hub(day: FakeHub, page: Page) -> None:
    with Serving(day) as serving:
        page.goto(serving.url)
        expect(page.locator("#node-lyon-x2")).to_contain_text("4,000 events")
        expect(page.locator("#live")).to_have_attribute("data-state", "live")

        def drain() -> None:
            day.clock_ms += 2_000
            day.rows = [replace(row, missing=1_000, received=8_020) if row.node == "lyon-x2" else row for row in day.rows]

        serving.do(drain)
        expect(page.locator("[data-total=notHereYet]")).to_have_text("1,412")
        expect(page.locator("#node-lyon-x2 progress")).to_have_attribute("value", "3000")
        expect(page.locator("#node-lyon-x2")).to_contain_text("3,000 of 4,000 caught up")


@needs("chromium")
def test_the_indicator_says_when_the_hub_is_away(day: FakeHub, page: Page) -> None:
    with Serving(day) as serving:
        page.goto(serving.url)
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.locator("#live")).to_have_text("reconnecting · data as of 14:05:12")


@needs("chromium")
def test_the_keyboard_searches_moves_and_opens(day: FakeHub, page: Page) -> None:
    with Serving(day) as serving:
        page.goto(serving.url)
        page.keyboard.press("/")
        expect(page.locator("#q")).to_be_focused()
        page.keyboard.type("025991")
        page.keyboard.press("Enter")
        expect(page.locator("tbody tr")).to_have_count(2)
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("SCMS-0259910")


@needs("chromium")
def test_the_theme_is_remembered_and_drawn_at_once(day: FakeHub, page: Page) -> None:
    with Serving(day) as serving:
        page.goto(serving.url)
        colour = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(colour)
        page.locator("#theme").click()
        page.locator("#theme").click()
        expect(page.locator("#theme")).to_have_attribute("title", "Theme: dark")
        dark = page.evaluate(colour)
        page.goto(serving.url + "/fleet")
        assert page.evaluate(colour) == dark != light


@needs("chromium")
@pytest.mark.parametrize("width", [320, 390, 820])
def test_every_page_fits_a_phone(day: FakeHub, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    with Serving(day) as serving:
        for path in PAGES:
            page.goto(serving.url + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path


@needs("chromium")
def test_a_person_signs_in_sees_the_pages_and_signs_out(day: FakeHub, page: Page) -> None:
    day.open_loopback = False
    with Serving(day) as serving:
        page.goto(serving.url + "/orders")
        expect(page.locator("h1")).to_have_text("Sign in")
        page.locator("input[name=token]").fill("lst_wrong")
        page.locator("input[name=token]").press("Enter")
        expect(page.locator("main")).to_contain_text("This token is not known here.")
        page.locator("input[name=token]").fill(TOKEN)
        page.locator("input[name=token]").press("Enter")
        expect(page.locator("tbody")).to_contain_text("SCMS-0259911")
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("h1")).to_have_text("Sign in")
        page.goto(serving.url + "/fleet")
        expect(page.locator("h1")).to_have_text("Sign in")


@needs("chromium")
def test_every_page_reads_without_javascript(day: FakeHub, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(WITHIN_S * 1_000)
    page = context.new_page()
    with Serving(day) as serving:
        page.goto(serving.url)
        expect(page.locator("#feed li").first).to_contain_text("SCMS-0259911")
        expect(page.locator("#live")).to_have_text("as of 14:05:12")
        page.locator("#q").fill("259910")
        page.locator("#q").press("Enter")
        page.locator("tbody a").click()
        expect(page.locator("h1")).to_have_text("SCMS-0259910")
    context.close()
