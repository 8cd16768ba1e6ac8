"""The dashboard in a real browser, before a backend that runs."""

from __future__ import annotations

import re
import time

import httpx2
import pytest
from playwright.sync_api import expect

from examples.backend.api.monitoring import FILES, FOLDER
from tests.examples.backend_process import PATIENCE, SHELLS, Running, logged_in
from tests.examples.browser import CHROMIUM, chromium, opened

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: the dashboard is not looked at")
SIDS = (f"c0ffee{number:026x}" for number in range(0xDA5B0A2D, 0xFFFFFFFF))
OVERVIEW = "**/api/monitoring/overview"

expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


one_shell = pytest.mark.parametrize("server", ["asgi"], indirect=True)
"""For what the page does by itself, whoever has sent it."""


@pytest.fixture(scope="module", params=SHELLS)
def server(request, tmp_path_factory):
    var = tmp_path_factory.mktemp(f"dashboard-{request.param}") / "var"
    with Running(var, request.param, telephony_recovery=1.0) as server:
        yield server


@pytest.fixture(scope="module")
def user(server):
    with logged_in(server) as client:
        yield client


@pytest.fixture
def page(browser, server):
    with opened(browser, f"{server.url}/dashboard") as page:
        expect(page.locator("body")).to_have_attribute("data-touch", "live")
        yield page
        assert page.complaints == []


def breaker(page, name="telephony"):
    return page.locator("#breaker-list > li", has=page.get_by_role("heading", name=name, exact=True))


def fetch(user):
    return user.get(f"/api/recordings/{next(SIDS)}").status_code


@in_a_browser
def test_a_breaker_is_seen_to_open_and_to_close_again_without_a_reload(server, user, page):
    expect(breaker(page)).to_have_attribute("data-state", "closed")
    page.evaluate("window.isStillTheSamePage = true")

    server.fault(status=503)
    for _ in range(6):
        fetch(user)
    expect(breaker(page)).to_have_attribute("data-state", re.compile("open"))
    expect(page.locator("#event-list")).to_contain_text("open, was closed (")
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("refused|look"))

    server.heal()
    give_up_at = time.monotonic() + PATIENCE
    while fetch(user) != 200:
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
    expect(breaker(page)).to_have_attribute("data-state", "closed")
    expect(page.locator("#event-list")).to_contain_text("closed, was half-open (")
    timeline = breaker(page).get_by_role("img", name="the last ten minutes")
    expect(timeline).to_have_attribute("aria-label", re.compile("open from .* closed from "))
    expect(timeline.locator("rect.bar.failed")).not_to_have_count(0)
    assert page.evaluate("window.isStillTheSamePage")


@in_a_browser
def test_an_operator_forces_a_breaker_open_and_resets_it_by_keyboard(server, page):
    button = page.get_by_role("button", name="Force open: object-store", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Force object-store open?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()

    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(breaker(page, "object-store")).to_have_attribute("data-state", "forced-open")
    expect(breaker(page, "object-store")).to_contain_text("held open")
    expect(button).to_be_disabled()

    page.get_by_role("button", name="Reset: object-store", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Reset").click()
    expect(breaker(page, "object-store")).to_have_attribute("data-state", "closed")
    assert "an operator ordered force-open for breaker object-store" in server.log()


@in_a_browser
@one_shell
def test_limits_retries_janitor_and_processes_are_shown(server, user, page):
    for _ in range(7):
        user.post("/api/auth/login", json={"email": "eve@example.com", "password": "a wrong guess"})
    full = page.locator("#limit-list > li", has_text="login").first
    expect(full).to_contain_text("6 of 6, full")
    expect(page.locator("#limit-list")).not_to_contain_text("eve@")
    expect(page.locator("#event-list")).to_contain_text(re.compile("refused [0-9a-f]{12}"))
    expect(page.locator("#retry-list")).to_contain_text("telephonybudget")
    expect(page.locator("#janitor-note")).to_have_text("running")
    expect(page.locator("#process-list")).to_contain_text("serving")
    expect(page.locator("#process-list")).to_contain_text("MB")


@in_a_browser
@one_shell
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(browser, server, scheme):
    with opened(browser, f"{server.url}/dashboard", width=360, height=740, color_scheme=scheme) as page:
        expect(breaker(page)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 3 * 128) == (scheme == "dark")
        assert page.complaints == []


@in_a_browser
@one_shell
def test_it_says_when_it_has_lost_touch_and_finds_it_again(browser, server):
    with opened(browser, f"{server.url}/dashboard") as page:
        expect(page.locator("body")).to_have_attribute("data-touch", "live")
        page.route(OVERVIEW, lambda route: route.abort())
        expect(page.get_by_role("alert")).to_contain_text("The backend does not answer.")
        expect(breaker(page)).to_be_visible()
        page.unroute(OVERVIEW)
        page.get_by_role("button", name="Try now").click()
        expect(page.locator("body")).to_have_attribute("data-touch", "live")
        expect(page.locator("#lost")).to_be_hidden()


@in_a_browser
@one_shell
def test_what_a_report_says_never_becomes_markup(browser, server):
    def poisoned(route):
        report = route.fetch().json()
        evil = "<img src=x onerror=\"console.error('run')\">"
        report["events"] = [
            {
                "id": "1",
                "at": report["now"],
                "kind": evil,
                "name": evil,
                "severity": evil,
                "message": evil,
                "times": 1,
            }
        ]
        report["breakers"][0]["name"] = evil
        report["health"]["checks"][evil] = {"status": "warn", "output": evil}
        route.fulfill(json=report)

    with opened(browser, "about:blank") as page:
        page.route(OVERVIEW, poisoned)
        page.goto(f"{server.url}/dashboard")
        expect(page.locator("#event-list")).to_contain_text("<img src=x")
        assert page.locator("main img").count() == 0
        assert page.complaints == []


@in_a_browser
def test_the_token_is_asked_for_and_kept_in_this_tab_only(browser, tmp_path):
    with (
        Running(tmp_path / "var", monitoring_token="a token for operators") as server,
        opened(browser, f"{server.url}/dashboard") as page,
    ):
        dialog = page.get_by_role("dialog", name="Monitoring token")
        expect(dialog).to_be_visible()
        page.get_by_label("Token", exact=True).fill("a wrong guess")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_have_text("This token does not open the monitoring.")
        page.get_by_label("Token", exact=True).fill("a token for operators")
        page.keyboard.press("Enter")
        expect(page.locator("body")).to_have_attribute("data-touch", "live")
        expect(breaker(page)).to_be_visible()
        assert page.evaluate("[Object.keys(sessionStorage), Object.keys(localStorage), document.cookie]") == [
            ["monitoring-token"],
            [],
            "",
        ]
        page.reload()
        expect(page.locator("body")).to_have_attribute("data-touch", "live")


# --- without a browser ---------------------------------------------------------------------------


def test_asvs_13_4_5_the_page_is_guarded_and_open_to_this_machine_only(server):
    answer = httpx2.get(f"{server.url}/dashboard")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    for path in ("/dashboard", "/dashboard/dashboard.js", "/metrics", "/api/monitoring/overview"):
        assert httpx2.get(server.url + path).status_code == 200
        assert httpx2.get(server.url + path, headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 403
    assert httpx2.get(f"{server.url}/dashboard/..%2Fsettings.py").status_code == 404
    assert httpx2.get(f"{server.url}/dashboard/index.html").status_code == 404


def test_asvs_13_4_5_orders_are_taken_from_operators_only(server):
    def order(name="object-store", action="force-open", **headers):
        path = f"/api/monitoring/breakers/{name}/{action}"
        return httpx2.post(server.url + path, headers=headers).status_code

    assert order(**{"X-Forwarded-For": "192.0.2.1"}) == 403
    assert order(**{"Sec-Fetch-Site": "cross-site", "Origin": "https://example.com"}) == 403
    assert order(Host="rebound.example.com") == 403
    states = httpx2.get(f"{server.url}/api/monitoring/breakers").json()["breakers"]
    assert "forced-open" not in {breaker["state"] for breaker in states}
    assert order("elsewhere") == 404
    assert order(action="delete") == 404
    assert httpx2.get(f"{server.url}/api/monitoring/breakers/object-store/reset").status_code == 405
    assert order(action="reset") == 200


def test_no_script_and_no_style_stands_in_the_page():
    page = FILES["index.html"].decode()
    assert not re.search(r"<style|<script(?![^>]* src=)|\sstyle=|\son\w+=|javascript:", page)
    assert "innerHTML" not in "".join(file.read_text() for file in FOLDER.glob("*.js"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_every_background(scheme):
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block_of(scheme)))
    pairs = [(text, ground) for text in ("text", "soft", "faint") for ground in ("page", "panel")]
    pairs += [(state, f"{state}-wash") for state in ("good", "high", "bad", "held")]
    pairs += [("soft", "sunk"), ("bad", "panel"), ("text", "bad-wash")]
    for text, ground in pairs:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)  # WCAG 2.2, 1.4.3


def block_of(scheme):
    light, dark = re.findall(r":root {\n(.*?)}", FILES["dashboard.css"].decode(), re.DOTALL)[:2]
    return light if scheme == "light" else light + dark


def contrast(one, other):
    """Return the ratio of two colours' luminances, as WCAG 2.2 defines it."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
