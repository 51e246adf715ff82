"""The pages: what they say without JavaScript, that nothing on them runs, signing in, and the live parts in a real browser."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from hub import cli, guard
from hub.guard import CSP, local_target
from hub.stream import Feed
from hub.views import balance_json, order_url
from hub.web.static_files import FOLDER
from tests.support.fake_hub import NOW_MS, TOKEN, AppClient, FakeHub, a_day_at_the_docks, balance_row, event

PAGES = (
    "/",
    "/orders",
    "/orders/SCMS-0259910",
    "/orders/SCMS-0259911",
    "/fleet",
    "/devices",
    "/conflicts",
    "/balance",
    "/quarantine",
    "/gaps",
    "/sign-in",
)
HTML = {"accept": "text/html,*/*;q=0.8"}
XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def text_of(html: str) -> str:
    """What a reader sees, blanks folded."""
    words = re.sub(r"<(script|style|template)\b.*?</\1>|<[^>]*>", " ", html, flags=re.S)
    return re.sub(r" (?=[:,.] )", "", re.sub(r"\s+", " ", unescape(words)))


class Checker(HTMLParser):
    """What a page may not have: scripts or styles inside, addresses elsewhere, unlabelled fields, repeated ids, unclosed tags."""

    VOID = ("meta", "link", "input", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.fields: list[dict[str, str | None]] = []
        self.labels: list[str | None] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.faults += [f"{tag} {name}" for name in told if name.startswith("on") or name == "style"]
        if tag in ("style", "iframe", "object", "base") or (tag == "script" and not (told.get("src") or "").startswith("/static/")):
            self.faults.append(tag)
        address = told.get("href") or told.get("src") or told.get("action")
        if address is not None and not address.startswith(("/", "#")):
            self.faults.append(f"{tag} leads to {address}")
        if "id" in told:
            self.ids.append(str(told["id"]))
        if tag in ("input", "select") and told.get("type") != "hidden" and "label" not in self.open:
            self.fields.append(told)
        if tag == "label":
            self.labels.append(told.get("for"))
        if tag not in self.VOID and tag not in ("path", "circle", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("path", "circle", "rect"):
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def finished(self) -> list[str]:
        unlabelled = [f"{field} has no label" for field in self.fields if field.get("id") not in self.labels]
        repeated = [f"id {name} twice" for name in set(self.ids) if self.ids.count(name) > 1]
        return self.faults + unlabelled + repeated + [f"<{tag}> stays open" for tag in self.open]


def faults_of(html: str) -> list[str]:
    checker = Checker()
    checker.feed(html)
    return checker.finished()


# ------------------------------------------------------------------ every page


@pytest.mark.parametrize("path", [*PAGES, "/nothing-here", "/orders?status=NONSENSE"])
@pytest.mark.parametrize("full", [True, False])
def test_every_page_is_sound_and_strict(hub: FakeHub, path: str, full: bool) -> None:
    if full:
        a_day_at_the_docks(hub)
    answer = AppClient(hub).get(path, headers=HTML)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["referrer-policy"] == "same-origin"
    assert faults_of(answer.text) == []
    assert answer.text.count("<h1") == 1
    assert '<main id="main"' in answer.text


def test_the_checker_itself_finds_faults() -> None:
    bad = '<p style="x" onclick="y"><script>1</script><a href="https://x"></a><input><i id="a"></i><i id="a"></i><b></p>'
    assert len(faults_of(bad)) >= 7


def test_the_policy_allows_nothing_inline() -> None:
    assert "unsafe" not in CSP
    assert CSP.split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]


def test_nothing_that_comes_from_outside_is_markup(hub: FakeHub) -> None:
    details = {XSS: XSS, "nested": {XSS: [XSS]}, "expectedDelivery": XSS}
    hostile = event(XSS, "SHIPPED", NOW_MS, site=XSS, source=XSS, actor=XSS, region=XSS, details=details)
    hub.fact("dock-7", hostile, recorded_ms=NOW_MS, received_ms=NOW_MS)
    hub.fact("hub", event(XSS, "CANCELLED", NOW_MS, site=XSS, actor=XSS), recorded_ms=NOW_MS, received_ms=NOW_MS)
    hub.bad_facts = [{"factId": XSS, "node": XSS, "reason": XSS, "atMs": NOW_MS, "resolution": None, "ask": XSS, "state": "open"}]
    hub.kept = [{"digest": XSS, "node": XSS, "reason": XSS, "atMs": NOW_MS, "bytes": 1}]
    client = AppClient(hub)
    searched = "/orders?site=%3Cscript%3Ealert(1)%3C/script%3E"
    for path in ("/", "/orders", order_url("acme", XSS), "/conflicts", "/quarantine", searched):
        html = client.get(path, headers=HTML).text
        assert "<script>" not in html, path
        assert "<img src=x" not in html, path
        assert "&lt;script&gt;alert(1)" in html, f"{path} does not show it at all"
        assert faults_of(html) == [], path


# ------------------------------------------------------------------ what they say


def test_the_overview_says_what_is_not_here_yet(day: FakeHub) -> None:
    text = text_of(AppClient(day).get("/").text)
    assert "1 of 3 nodes is out of reach; at least 4,412 events are not here yet." in text
    assert "dock-7 W3-Lisbon · EMEA out of reach at least 412 events, 1.9 MB, oldest 3 h 12 m, last seen 2 min ago" in text
    assert "Not here yet 4,412" in text
    assert "Open conflicts 1" in text
    assert "not admitted: 3 frames wait" in text


def test_the_overview_after_a_restart_shows_the_latest_orders(day: FakeHub) -> None:
    day.feed = Feed(boot="t2")
    html = AppClient(day).get("/").text
    assert "SCMS-0259911" in html
    assert 'data-after="t2-0"' in html


def test_orders_show_filters_pages_and_downloads(day: FakeHub) -> None:
    client = AppClient(day)
    html = client.get("/orders?q=SCMS&site=W8-Madrid&limit=5").text
    assert html.count("data-row") == 5
    assert 'href="/v1/orders?q=SCMS&amp;site=W8-Madrid&amp;format=csv"' in html
    following = re.search(r'href="(/orders\?[^"]*cursor=[^"]*)" rel="next"', html)
    assert following is not None
    more = client.get(following[1].replace("&amp;", "&")).text
    assert "First page" in more
    assert 'value="W8-Madrid"' in more
    assert "No order matches" in text_of(client.get("/orders?q=none-such").text)


def test_an_order_tells_promise_conflict_and_timeline(day: FakeHub) -> None:
    text = text_of(AppClient(day).get("/orders/SCMS-0259910").text)
    assert "People must settle this task Cancelled at the centre by service-desk while shipped at W3-Lisbon by Ana" in text
    assert "received 21 May 2026, 14:04:32" in text
    assert "here 2 h 59 m later" in text
    assert "pallet.layers 4" in text
    assert text.count(" current ") == 2
    assert "had seen hub up to" in text


def test_marks_on_times_are_told_in_words(day: FakeHub) -> None:
    text = text_of(AppClient(day).get("/orders/SCMS-0259911").text)
    assert "improbable time" in text
    assert "time unknown" in text


def test_an_ambiguous_order_offers_the_organisations(hub: FakeHub) -> None:
    for org in ("acme", "zeta"):
        hub.fact("dock-7", event("10/01", "PLACED", NOW_MS, org=org), recorded_ms=NOW_MS, received_ms=NOW_MS)
    answer = AppClient(hub).get("/orders/10%2F01", headers=HTML)
    assert answer.status_code == 409
    assert 'href="/orders/10%2F01?org=zeta"' in answer.text
    assert AppClient(hub).get("/orders/10%2F01?org=zeta").status_code == 200


def test_the_fleet_table_tells_everything_an_operator_looks_for(day: FakeHub) -> None:
    text = text_of(AppClient(day).get("/fleet").text)
    for said in ("seen 2 min ago", "1.9 MB", "12 GB free", "3 h 12 m", "7,711 of 8,123", "4.2 s behind"):
        assert said in text
    assert "1 hole 1 refused frame 2 incarnations" in text
    assert "SHA256:qF3x9Zr0aW…" in text


def test_a_forked_node_is_named_first(day: FakeHub) -> None:
    day.rows = [replace(row, forked=True) if row.node == "madrid-8" else row for row in day.rows]
    html = AppClient(day).get("/fleet").text
    assert "two histories" in html
    assert html.index('id="node-madrid-8"') < html.index('id="node-lyon-x2"')


def test_what_was_put_right_or_given_up_is_told_apart_from_what_somebody_must_act_on(
    day: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row, resolved = (balance_row("a", 5, quarantined=2) for _ in range(2))
    resolved["quarantinedResolved"] = 2
    for shown, says in ((row, False), (resolved, True)):
        day.sheet = {"asOfMs": NOW_MS, "fleet": shown, "nodes": [shown]}
        assert text_of(AppClient(day).get("/balance").text).count("(2 resolved)") == (2 if says else 0)
        monkeypatch.setattr("hub.cli_ask.ask", lambda *_, sheet=day.sheet: balance_json(sheet))
        assert cli.main(["balance"]) == 0
        assert capsys.readouterr().out.count("2 (2 resolved)") == (2 if says else 0)


def test_the_balance_names_the_node_that_is_off(day: FakeHub) -> None:
    assert "Balanced Every fact is accounted for." in text_of(AppClient(day).get("/balance").text)
    nodes = [balance_row("a", 100), balance_row("b", 100, settled=97)]
    day.sheet = {"asOfMs": NOW_MS, "fleet": balance_row("", 200, settled=197), "nodes": nodes}
    text = text_of(AppClient(day).get("/balance").text)
    assert "1 node does not add up. b: off by 3: 100 events captured, only 97 accounted for." in text
    assert "Every fact is accounted for" not in text


def test_a_sum_that_is_not_known_yet_is_no_false_equation(day: FakeHub) -> None:
    unknown = balance_row("", 4, settled=0, balanced=None) | {"unknown": "the central store does not answer"}
    day.sheet = {"asOfMs": NOW_MS, "fleet": unknown, "nodes": [unknown | {"node": "a"}]}  # type: ignore[typeddict-item]
    text = text_of(AppClient(day).get("/balance").text)
    assert "Not known yet The central store does not answer." in text
    assert "4 captured = – settled + – queued + – in custody + – quarantined + – evicted" in text
    agreeing = balance_row("", 4, balanced=None)
    day.sheet = {"asOfMs": NOW_MS, "fleet": agreeing, "nodes": []}
    assert "4 captured = 4 settled + 0 queued" in text_of(AppClient(day).get("/balance").text)


def test_errors_are_pages_for_people_and_documents_for_machines(hub: FakeHub) -> None:
    client = AppClient(hub)
    page = client.get("/orders/none", headers=HTML)
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert client.get("/orders/none").headers["content-type"] == "application/problem+json"
    assert client.get("/v1/orders/none", headers=HTML).headers["content-type"] == "application/problem+json"


def test_static_files_are_kept_by_their_content(hub: FakeHub) -> None:
    client = AppClient(hub)
    urls = sorted(set(re.findall(r'"(/static/[^"]+)"', client.get("/").text)))
    assert len(urls) == 3
    for url in urls:
        answer = client.get(url)
        assert "immutable" in answer.headers["cache-control"]
        assert client.get(url, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
        assert client.get(url.partition("?")[0]).headers["cache-control"] == "no-cache"


# ------------------------------------------------------------------ signing in


def test_a_page_without_a_token_leads_to_the_sign_in_and_back(hub: FakeHub) -> None:
    hub.open_loopback = False
    client = AppClient(hub)
    answer = client.get("/orders/PO%2F7?org=acme", headers=HTML)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2Forders%2FPO%252F7%3Forg%3Dacme"
    form = client.get(answer.headers["location"], headers=HTML)
    assert 'name="next" value="/orders/PO%2F7?org=acme"' in form.text
    signed = client.post("/sign-in", data={"token": TOKEN, "next": "/orders/PO%2F7?org=acme"})
    assert (signed.status_code, signed.headers["location"]) == (303, "/orders/PO%2F7?org=acme")
    assert client.get("/fleet", headers=HTML).status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(hub: FakeHub) -> None:
    cookie = AppClient(hub).post("/sign-in", data={"token": TOKEN}).headers["set-cookie"]
    assert cookie.startswith(f"{guard.COOKIE}={TOKEN};")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    hub.https = True
    assert "Secure" in AppClient(hub).post("/sign-in", data={"token": TOKEN}).headers["set-cookie"]


def test_a_wrong_token_signs_nobody_in(hub: FakeHub) -> None:
    for data in ({"token": "wrong"}, {"token": ""}, {}):
        answer = AppClient(hub).post("/sign-in", data=data)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert "This token is not known here." in answer.text
    assert AppClient(hub).post("/sign-in", data={"token": TOKEN}, headers={"origin": "https://evil.example"}).status_code == 403


def test_signing_out_forgets_the_cookie(hub: FakeHub) -> None:
    hub.open_loopback = False
    client = AppClient(hub)
    client.post("/sign-in", data={"token": TOKEN})
    assert client.post("/sign-out").headers["location"] == "/sign-in"
    assert client.get("/fleet", headers=HTML).status_code == 303


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/fleet?a=b", "/fleet?a=b"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("", "/"),
        ("javascript:alert(1)", "/"),
        ("/x\r\nset-cookie: a=b", "/"),
    ],
)
def test_the_sign_in_leads_nowhere_else(text: str, target: str) -> None:
    assert local_target(text) == target


# ------------------------------------------------------------------ to be read by everybody


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


TONES = ("good", "late", "bad", "away", "calm", "accent")
PAIRS = [(tone, f"{tone}-soft") for tone in TONES] + [(tone, "card") for tone in TONES]
PAIRS += [("ink", "bg"), ("ink", "card"), ("soft", "bg"), ("soft", "card"), ("soft", "sunk"), ("accent-ink", "accent")]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("front", "back"), PAIRS)
def test_text_has_the_contrast_that_wcag_aa_asks_for(theme: int, front: str, back: str) -> None:
    css = (FOLDER / "app.css").read_text()
    tokens = {name: colours for name, *colours in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", css)}
    assert contrast(tokens[front][theme], tokens[back][theme]) >= 4.5


def test_contrast_is_measured_as_wcag_does() -> None:
    assert round(contrast("#000000", "#ffffff"), 1) == 21.0
    assert round(contrast("#777777", "#ffffff"), 2) == 4.48


def test_gaps_are_told_with_their_range_their_age_and_how_they_ended(day: FakeHub) -> None:
    page = AppClient(day).get("/gaps").text
    for said in ("215 to 1,240", "1,026", "3 h ago", "14 times, last 40 s ago", "not yet", "9,021 to 13,020", "a record: lost", "the data"):
        assert said in page, said
    empty = AppClient(day)
    day.holes = {"open": [], "beyond": [], "closed": [], "holes": 0, "facts": 0}
    for said in ("There is no hole", "No node names more than is here.", "No hole has been closed yet."):
        assert said in empty.get("/gaps").text
