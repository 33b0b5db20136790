"""The built site in headless Chromium: mathematics typeset, figures loaded, nothing cut off, on
desk and phone."""

import csv
import functools
import gzip

import pytest

from pages import HTML, LECTURES, PAGES, SIZES, WITH_EXPLORER, violations
from support import say

PACKED = {".woff", ".woff2", ".png", ".jpg", ".gif"}  # what a server sends as it is, without gzip


@pytest.fixture(scope="module")
def weights():
    """Bytes by page, which end in _build/page_weights.csv."""
    found = {}
    yield found
    rows = [(name, len(asked), size) for name, (asked, size) in found.items()]
    with (HTML.parent / "page_weights.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("page", "requests", "bytes"), *rows])


@functools.cache
def transferred(path):
    """Bytes that GitHub Pages sends for a path of the site."""
    file = HTML / path.lstrip("/")
    content = file.read_bytes()
    return len(content if file.suffix in PACKED else gzip.compress(content))


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(visit, weights, request, name):
    page = visit(name)
    sources = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= sources
    assert page.locator("mjx-merror").count() == 0
    broken = page.evaluate(
        "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    )
    assert broken == []
    overflow = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow <= 0, f"the page is {overflow} px wider than the window"
    if name.removeprefix("chapters/") in LECTURES:
        assert page.locator("mjx-container").count() > 10
        assert page.locator(".cell_output figure img").count() >= 1
    if "desktop" in request.node.callspec.id:
        assert violations(page) == []
    if "desktop-light" in request.node.callspec.id:
        with_widget = name.removeprefix("chapters/") in WITH_EXPLORER
        weights[name] = page.asked, sum(map(transferred, page.asked))
        say(request, f"first load of {name}, gzip: {weights[name][1] / 1e6:.2f} MB")
        assert with_widget == any(path.endswith("/embed.js") for path in page.asked)
        assert weights[name][1] <= (2_500_000 if with_widget else 999_999), sorted(
            page.asked, key=transferred
        )
    assert page.problems == []


FRAME = ".explorer .widget-subarea .explorer-frames"


@pytest.mark.parametrize("name", WITH_EXPLORER)
def test_sliders_work_without_a_kernel(visit, name):
    page = visit(f"chapters/{name}")
    handles = page.locator(".explorer .noUi-handle")
    handles.first.wait_for()
    assert page.locator(".widget-subarea").count() == 1, "the widget is drawn twice"
    assert (
        page.locator(f"{FRAME} img:visible").count()
        == page.locator(".explorer img:visible").count()
        == 1
    )
    for handle in handles.all():
        assert handle.get_attribute("aria-label")
        seen = (
            page.locator(f"{FRAME} img").get_attribute("src"),
            page.locator(f"{FRAME} p").inner_text(),
        )
        spoken = handle.get_attribute("aria-valuetext")
        handle.press("ArrowLeft")
        page.wait_for_function(
            f"src => document.querySelector('{FRAME} img')?.src !== src", arg=seen[0]
        )
        assert page.locator(f"{FRAME} p").inner_text() != seen[1]
        assert handle.get_attribute("aria-valuetext") != spoken
    # the picture is light and the text beside it readable, in the dark theme too
    assert (
        page.locator(f"{FRAME} img").evaluate("i => getComputedStyle(i).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert page.problems == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WITH_EXPLORER)
def test_a_still_holds_the_place_of_an_explorer(browser, site, name, size):
    heights = {}
    for script in (True, False):
        width, height = SIZES[size]
        page = browser.new_page(
            viewport={"width": width, "height": height}, java_script_enabled=script
        )
        page.goto(f"{site}/chapters/{name}.html", wait_until="load")
        if script:
            page.locator(f"{FRAME} img").wait_for()
        else:
            assert page.locator(".explorer-still noscript p").is_visible()
            assert page.locator(".explorer-still img").bounding_box()["height"] > 150
        heights[script] = page.locator(".explorer").bounding_box()["height"]
        page.close()
    assert abs(heights[True] - heights[False]) <= 6, "the page jumps when the widget is there"


def test_solutions_open(visit):
    page = visit("chapters/gate")
    solution = page.locator(".solution.dropdown").first
    body = solution.locator("section, .section").first
    assert not body.is_visible()
    solution.locator("button, summary, .toggle-button").first.click()
    assert body.is_visible()
