"""The built site on a local port, and a browser to open it in: one of each per test module."""

from __future__ import annotations

import functools
import shutil
import threading
from http.server import ThreadingHTTPServer

import pytest

from pages import HTML, SIZES, Quiet
from support import skip_or_fail

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def site():
    """The address of the built book."""
    assert HTML.is_dir(), "run `make book`"
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        skip_or_fail("no Chromium on this machine: install Debian's chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        skip_or_fail("playwright is not installed: `make test` gets it")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(
    params=[(size, theme) for size in SIZES for theme in ("light", "dark")], ids="-".join
)
def visit(request, browser, site):
    """Open a page in one size and theme; hosts other than the site are cut off, and problems are
    collected."""
    size, theme = request.param
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    tab = context.new_page()
    tab.size, tab.problems, tab.asked = size, [], set()
    tab.on(
        "request", lambda request: tab.asked.add(request.url.removeprefix(site).partition("?")[0])
    )
    tab.on("console", lambda message: message.type == "error" and tab.problems.append(message.text))
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.route(
        "**/*",
        lambda route: route.continue_() if route.request.url.startswith(site) else foreign(route),
    )

    def foreign(route):
        tab.problems.append(f"asked for {route.request.url}")
        route.abort()

    def open_page(name):
        tab.goto(f"{site}/{name}.html", wait_until="load")
        tab.wait_for_function(
            "!window.MathJax || MathJax.startup === undefined || MathJax.startup.promise"
        )
        tab.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
        # letters have their widths once their font is there
        tab.evaluate("document.fonts.ready.then(() => null)")
        return tab

    yield open_page
    context.close()
