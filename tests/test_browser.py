"""The built site in headless Chromium: mathematics typeset, figures loaded, nothing cut off, on desk and phone."""

import functools
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from test_book import HTML, LECTURES, PAGES

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    assert HTML.is_dir(), "run `make book`"
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium in CI: install Debian's chromium")
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=[(size, theme) for size in SIZES for theme in ("light", "dark")], ids="-".join)
def visit(request, browser, site):
    """Open a page in one size and theme; hosts other than the site are cut off, and problems are collected."""
    size, theme = request.param
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    tab = context.new_page()
    tab.problems = []
    tab.on("console", lambda message: message.type == "error" and tab.problems.append(message.text))
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.route("**/*", lambda route: route.continue_() if route.request.url.startswith(site) else foreign(route))

    def foreign(route):
        tab.problems.append(f"asked for {route.request.url}")
        route.abort()

    def open_page(name):
        tab.goto(f"{site}/{name}.html", wait_until="load")
        tab.wait_for_function("!window.MathJax || MathJax.startup === undefined || MathJax.startup.promise")
        tab.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
        return tab

    yield open_page
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(visit, name):
    page = visit(name)
    sources = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= sources
    assert page.locator("mjx-merror").count() == 0
    broken = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
    assert broken == []
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, f"the page is {overflow} px wider than the window"
    assert page.problems == []
    if name.removeprefix("chapters/") in LECTURES:
        assert page.locator("mjx-container").count() > 10
        assert page.locator(".cell_output figure img").count() >= 1


def test_solutions_open(visit):
    page = visit("chapters/gate")
    solution = page.locator(".solution.dropdown").first
    body = solution.locator("section, .section").first
    assert not body.is_visible()
    solution.locator("button, summary, .toggle-button").first.click()
    assert body.is_visible()
