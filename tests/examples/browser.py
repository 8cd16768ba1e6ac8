"""A real browser, for the tests of the dashboard and for its pictures in the docs.

It is Debian's chromium, driven by playwright, which needs no browser of its own then.
"""

from __future__ import annotations

import contextlib
import shutil

from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def chromium():
    """Start the browser; yield it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, url, width=1280, height=900, **options):
    """Open a page in a context of its own; yield it, with what it complained about as `page.complaints`."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    context.add_init_script(
        "addEventListener('securitypolicyviolation', (event) => console.error(event.violatedDirective))"
    )
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda said: said.type in {"error", "warning"} and page.complaints.append(said.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(url)
    yield page
    context.close()
