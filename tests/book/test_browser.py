"""The built site in headless Chromium: mathematics typeset, figures loaded, nothing cut off, on
desk and phone."""

import csv
import functools
import gzip
import re
import threading
from http.server import ThreadingHTTPServer
from time import perf_counter

import pytest

from pages import (
    HTML,
    LECTURES,
    OF_THE_THEME,
    PACKED,
    PAGES,
    SIZES,
    WITH_EXPLORER,
    Packed,
    turn,
    violations,
)
from reading import faults, opening_of
from support import say, say_time


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


# chapters open with a question, a picture and three numbers
OPENS_WITH = {"chapters/your_router": "table"}  # its five questions
PICTURE_FIRST = [f"chapters/{name}" for name in ("start", *LECTURES, "report")]

# no colour depends on the width, so axe reads them in the dark at a desk, and on a phone what only
# that shows: the theme's bars, the buttons of figures, the fields of a table
ONLY_ON_A_PHONE = ["chapters/start", "chapters/gate", "chapters/your_experts"]

# formulas that MathJax breaks as if there were much less room than there is
CRAMPED = """() => [...(window.MathJax?.startup?.document?.math ?? [])]
  .filter(math => math.display)
  .map(math => [math.math, math.metrics.containerWidth,
                math.typesetRoot.closest('div.math').clientWidth])
  .filter(([, found, room]) => found < room - 100 || found > room)"""


# a page is opened in the light; in the dark, to which it turns then, only colours are others
in_both_sizes = pytest.mark.parametrize(
    "visit", [(size, "light") for size in SIZES], ids=SIZES, indirect=True
)


def assert_nothing_is_cut_off(page):
    broken = page.evaluate(
        "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    )
    assert broken == []
    overflow = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow <= 0, f"the page is {overflow} px wider than the window"
    assert faults(page, phone=page.size == "phone") == {}


@in_both_sizes
@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(visit, weights, request, name):
    page = visit(name)
    sources = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= sources
    assert page.locator("mjx-merror").count() == 0
    assert page.evaluate(CRAMPED) == []
    if name.removeprefix("chapters/") in LECTURES:
        assert page.locator("mjx-container").count() > 10
        assert page.locator(".cell_output figure .figure-forms svg").count() >= 1
    if page.size == "desktop":
        assert_opens_light(page, weights, request, name)
    assert_nothing_is_cut_off(page)
    assert violations(page) == []
    turn(page, "dark")
    assert_nothing_is_cut_off(page)
    if page.size == "desktop" or name in ONLY_ON_A_PHONE:
        assert violations(page, *OF_THE_THEME) == []
    assert page.problems == []


def assert_opens_light(page, weights, request, name):
    """What a page loads before anybody touches it, and that its picture stands near its top."""
    explorer = name.removeprefix("chapters/") in WITH_EXPLORER
    weights[name] = page.asked.copy(), sum(map(transferred, page.asked))
    say(request, f"first load of {name}, gzip: {weights[name][1] / 1e6:.2f} MB")
    assert explorer == any(path.endswith("/explorer.js") for path in page.asked)
    assert weights[name][1] <= 900_000, sorted(page.asked, key=transferred)
    if name in PICTURE_FIRST:
        opening = opening_of(page, OPENS_WITH.get(name, ".explorer, .figure-forms"))
        say(request, f"{name} opens: {opening}")
        assert opening["picture"] and opening["picture"] <= 1200
        assert opening["short"] and opening["short"] <= 1200


# --- explorers ---

ALIVE = ".explorer input[aria-valuetext]"
DRAWN = "[...document.querySelectorAll('.explorer-svg')].map(plot => plot.innerHTML).join()"
TICKS = "texts => texts.map(text => text.textContent).join()"
# contrast of letters and lines of the picture with the ground that they stand on
FAINT = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const part = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  let under = document.querySelector('.explorer');
  while (under.parentElement && numbers(getComputedStyle(under).backgroundColor)[3] === 0)
    under = under.parentElement;
  const ground = light(numbers(getComputedStyle(under).backgroundColor));
  const found = [];
  const look = (element, colour, least) => {
    const measured = contrast(light(numbers(colour)), ground);
    if (measured < least) found.push([element.outerHTML.slice(0, 80), measured]);
  };
  for (const text of document.querySelectorAll('.explorer :is(text, p, dt, dd, li, span, output)'))
    if (text.textContent.trim() && text.getClientRects().length) {
      const style = getComputedStyle(text);
      look(text, text.namespaceURI.endsWith('svg') ? style.fill : style.color, 4.5);
    }
  for (const line of document.querySelectorAll('.explorer-svg [aria-label=line] path'))
    look(line, getComputedStyle(line).stroke, 3);
  return found;
}"""
# letters of the picture on the screen, in pixels
SMALL = """() => [...document.querySelectorAll('.explorer *')]
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .filter(e => e.getClientRects().length && e.tagName !== 'style')
  .map(e => [e.textContent, parseFloat(getComputedStyle(e).fontSize)
             * (e.getScreenCTM ? e.getScreenCTM().a : 1)])
  .filter(([text, size]) => size < 11)"""


def still_of(browser, site, name, size):
    """How high the still is that stands where no script runs."""
    page = browser.new_page(viewport=size, java_script_enabled=False)
    page.goto(f"{site}/chapters/{name}.html", wait_until="load")
    assert page.locator(".explorer-still noscript p").is_visible()
    assert page.locator(".explorer-still .explorer-svg:visible").count() >= 1
    height = page.locator(".explorer").bounding_box()["height"]
    page.close()
    return height


@in_both_sizes
@pytest.mark.parametrize("name", WITH_EXPLORER)
def test_dials_move_the_picture_and_leave_its_axes(visit, browser, site, name):
    page = visit(f"chapters/{name}")
    page.locator(ALIVE).first.wait_for(state="attached")
    assert page.locator(".explorer-still").count() == 0
    height = page.locator(".explorer").bounding_box()["height"]
    still = still_of(browser, site, name, page.viewport_size)
    assert abs(height - still) <= 6, "the page jumps when the script is there"
    axes = page.locator(".explorer-svg [aria-label$='axis tick label'] text")
    dials = page.locator(ALIVE)
    assert dials.count() in (2, 3)
    for dial in dials.all():
        box = dial.bounding_box()
        assert box["height"] >= 24 and box["width"] > 250
        named = dial.locator("xpath=..").inner_text()
        spoken = dial.get_attribute("aria-valuetext")
        assert spoken in named
        drawn = page.evaluate(DRAWN)
        ticks = axes.evaluate_all(TICKS)
        last = dial.evaluate("dial => dial.value === dial.max")
        dial.press("ArrowLeft" if last else "ArrowRight")
        assert dial.get_attribute("aria-valuetext") != spoken
        assert page.evaluate(DRAWN) != drawn
        assert axes.evaluate_all(TICKS) == ticks, "the axes moved with the dial"
        for end in ("Home", "End"):
            dial.press(end)
    assert page.evaluate(FAINT) == []
    assert page.evaluate(SMALL) == []
    turn(page, "dark")
    assert page.evaluate(FAINT) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.problems == []


def ready(page, address):
    page.goto(address, wait_until="load")
    page.locator(ALIVE).first.wait_for(state="attached")
    page.locator(".explorer-plot").first.scroll_into_view_if_needed()


def drag_ring(page, move):
    """Take hold of the ring and move it a few pixels at a time."""
    box = page.locator(".explorer-handle").first.bounding_box()
    x = box["x"] + box["width"] / 2
    y = box["y"] + box["height"] / 2
    move("down", x, y)
    for step in range(1, 9):
        move("move", x - 6 * step, y - 4 * step)
    move("up", x - 48, y - 32)


def test_a_mouse_drags_the_ring_and_reads_values(browser, site):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    ready(page, f"{site}/chapters/bsc.html")
    dial = page.locator(ALIVE).first
    before = dial.input_value()

    def move(what, x, y):
        page.mouse.move(x, y)
        if what != "move":
            getattr(page.mouse, what)()

    drag_ring(page, move)
    assert dial.input_value() != before
    box = page.locator(".explorer-handle").first.bounding_box()
    page.mouse.move(box["x"] + 18, box["y"] + 18)
    tip = page.locator(".explorer-tip").first
    assert re.search(r": .+ [\d.]+, .+ [\d.]+", tip.inner_text())
    page.mouse.move(1, 1)
    assert not tip.is_visible()
    page.close()


def test_a_finger_drags_the_ring(browser, site):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    ready(page, f"{site}/chapters/bsc.html")
    dial = page.locator(ALIVE).first
    before = dial.input_value()
    scrolled = page.evaluate("scrollY")
    session = context.new_cdp_session(page)

    def move(what, x, y):
        kind = {"down": "touchStart", "move": "touchMove", "up": "touchEnd"}[what]
        points = [] if what == "up" else [{"x": x, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    drag_ring(page, move)
    assert dial.input_value() != before
    assert page.evaluate("scrollY") == scrolled, "the page scrolled under the finger"
    context.close()


def test_arrow_keys_read_the_curves_and_a_voice_says_them(browser, site):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    ready(page, f"{site}/chapters/bsc.html")
    plot = page.locator(".explorer-plot").first
    tip = page.locator(".explorer-tip").first
    plot.press("ArrowRight")
    first = tip.inner_text()
    plot.press("ArrowRight")
    second = tip.inner_text()
    plot.press("ArrowDown")
    assert len({first, second, tip.inner_text()}) == 3
    voice = page.locator(".explorer-voice[role=status]")
    page.wait_for_function(
        "said => document.querySelector('.explorer-voice[role=status]').textContent === said",
        arg=tip.inner_text(),
    )
    plot.press("Escape")
    assert not tip.is_visible()
    page.locator(ALIVE).first.press("ArrowLeft")
    reading = page.locator(".explorer-readings dd").first.inner_text()
    page.wait_for_function(
        "said => document.querySelector('.explorer-voice[role=status]').textContent.includes(said)",
        arg=reading,
    )
    assert voice.count() == 1
    page.locator(".explorer-tools summary").press("Enter")
    table = page.locator(".explorer-table")
    table.locator("tr").first.wait_for()
    assert table.locator("tr").count() > 50
    shown = table.inner_text()
    page.locator(ALIVE).first.press("ArrowLeft")
    assert table.inner_text() != shown
    page.close()


def test_a_pinned_curve_stays_and_the_address_keeps_the_dials(browser, site):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    ready(page, f"{site}/chapters/bsc.html?q=1#exercises")
    first, second = page.locator(ALIVE).all()
    start = first.input_value(), second.input_value()
    line = ".explorer-svg [aria-label=line]"
    lines = page.locator(line).count()
    page.get_by_role("button", name="Pin to compare").click()
    second.press("ArrowRight")
    assert page.locator(line).count() == 2 * lines
    assert "pinned: " in page.locator(".explorer-legend").inner_text()
    page.get_by_role("button", name="Unpin").click()
    assert page.locator(line).count() == lines
    first.press("PageUp")
    page.wait_for_function("location.search.includes('bsc.beta=')")
    assert "q=1&" in page.url and page.url.endswith("#exercises")
    moved = first.input_value(), second.input_value()
    assert moved != start
    page.reload()
    page.locator(ALIVE).first.wait_for(state="attached")
    assert (first.input_value(), second.input_value()) == moved
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("!location.search.includes('bsc.beta')")
    assert (first.input_value(), second.input_value()) == start
    page.goto(f"{site}/chapters/bsc.html?bsc.beta=nonsense&bsc.unknown=3")
    page.locator(ALIVE).first.wait_for(state="attached")
    assert first.input_value() == start[0]
    page.close()


def test_an_explorer_works_from_a_folder_too(browser):
    """A copy of the site that is opened without a server loads no ES modules."""
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    ready(page, (HTML / "chapters" / "bsc.html").as_uri())
    drawn = page.evaluate(DRAWN)
    page.locator(ALIVE).first.press("ArrowLeft")
    assert page.evaluate(DRAWN) != drawn
    page.wait_for_timeout(400)
    assert problems == []
    page.close()


@pytest.fixture(scope="module")
def packed_site():
    """The address of the built book, as a server on the web sends it."""
    handler = functools.partial(Packed, directory=HTML)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


# the first page and two of the heaviest; what each page may load at most is held above
@pytest.mark.parametrize("name", ["start", "alpha_mixture", "gates"])
def test_a_dial_moves_within_four_seconds_on_a_slow_line(browser, packed_site, name, request):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    line = {"latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
    session.send("Network.emulateNetworkConditions", {"offline": False, **line})
    begun = perf_counter()
    page.goto(f"{packed_site}/chapters/{name}.html", wait_until="commit")
    dial = page.locator(ALIVE).first
    dial.wait_for(state="attached")
    drawn = page.evaluate(DRAWN)
    dial.evaluate(
        """dial => {
          dial.value -= dial.value === dial.min ? -1 : 1;
          dial.dispatchEvent(new Event('input', {bubbles: true}));
        }"""
    )
    page.wait_for_function(f"drawn => {DRAWN} !== drawn", arg=drawn)
    seconds = perf_counter() - begun
    line = f"{name}: a dial moves the picture after {seconds:.1f} s at 1.6 Mbit/s"
    say_time(request, line, seconds, 4)
    context.close()


def test_the_gallery_shows_every_explorer(visit):
    page = visit("chapters/explorers")
    cards = page.locator(".explorer-gallery figure")
    names = cards.evaluate_all("cards => cards.map(card => card.dataset.name)")
    assert sorted(names) == sorted(WITH_EXPLORER)
    for card in cards.all():
        assert card.locator(".explorer-svg").first.bounding_box()["height"] > 200
        assert len(card.locator("figcaption").inner_text().split()) > 10
        address = card.locator("a").get_attribute("href")
        assert (HTML / "chapters" / address).is_file()


def test_solutions_open(visit):
    page = visit("chapters/gate")
    solution = page.locator(".solution.dropdown").first
    body = solution.locator("section, .section").first
    assert not body.is_visible()
    solution.locator("button, summary, .toggle-button").first.click()
    assert body.is_visible()
