"""The whole book as one zip that works by double click, in Chromium with every host cut off and in
Firefox; and Firefox on the book from a server."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
import zipfile
from statistics import median
from urllib.parse import unquote

import pytest

import firefox
from expertbank.book.explorers.live import dials_of, scene_of
from pages import HTML, LECTURES, PAGES, SIZES, WITH_EXPLORER, watch
from references import ROOT
from support import say, say_time, skip_or_fail

sys.path.append(str(ROOT / "chapters" / "_ext"))
import carrier
import offline

MOVES = 12
# the pages that hold most on a phone
ON_A_PHONE = LECTURES[:6]
# one page of each kind: numbers and pictures, cells, a table, the library, papers, explorers
OF_A_KIND = ("start", "gate", "bsc", "your_router", "report", "your_experts", "explorers", "api")
OF_A_KIND = [f"chapters/{name}" for name in (*OF_A_KIND, "references")]
# milliseconds that a move takes at most on an idle machine
MOVE = 150
# formulas, formulas with errors, pixels that the page is too wide, fonts and pictures not loaded
WHOLE = """(async () => {
  if (window.MathJax) await MathJax.startup.promise;
  await document.fonts.ready;
  const count = selector => document.querySelectorAll(selector).length;
  const { scrollWidth, clientWidth } = document.documentElement;
  return [count('.math') - count('mjx-container') <= 0, count('mjx-merror'),
    Math.max(0, scrollWidth - clientWidth),
    [...document.fonts].filter(font => font.status === 'error').length,
    [...document.images].filter(image => image.complete && !image.naturalWidth).length];
})()"""
IS_WHOLE = [True, 0, 0, 0, 0]
READINGS = "document.querySelector('.explorer-readings').innerText"
SVG = "!!document.querySelector('.explorer-svg svg')"
STATE = "document.querySelector('.explorer').dataset.live"
WORDS = "document.querySelector('.explorer-news p').textContent"
SETTLED = f"['ready', 'off'].includes({STATE})"
# seconds from the press of the button until every dial takes any value
BEGIN = "(window.begun = performance.now(), document.querySelector('.explorer-live').click())"
SECONDS = "(performance.now() - begun) / 1000"
# moves sliders to places that no stop has, each dial in turn; milliseconds until its picture is
# there, the values at the end, and the readings
LATENCIES = f"""(async () => {{
  const host = document.querySelector('.explorer');
  const sliders = [...host.querySelectorAll('.explorer-dial input[type=range]')];
  const move = i => new Promise(resolve => {{
    const slider = sliders[i % sliders.length];
    const begun = performance.now();
    new MutationObserver((_, observer) => {{
      if (host.dataset.live !== 'ready') return;
      observer.disconnect();
      resolve(performance.now() - begun);
    }}).observe(host, {{ attributeFilter: ['data-live'] }});
    const share = (0.31 + 0.6180339887 * i) % 1;
    slider.value = Number(slider.min) + share * (slider.max - slider.min);
    slider.dispatchEvent(new Event('input'));
  }});
  const taken = [];
  for (let i = 0; i < {MOVES}; i++) taken.push(await move(i));
  const fields = [...host.querySelectorAll('.explorer-dial input[type=number]')]
    .map(field => [field.previousElementSibling.textContent, field.valueAsNumber]);
  const shown = [...host.querySelectorAll('.explorer-readings dd')].map(dd => dd.textContent);
  return [taken, fields, shown];
}})()"""

# "Your own experts" with its example: what it says, once it has an answer or gave up
EXAMPLE = "document.querySelector('[data-part=example]').click()"
ANSWERED = "document.querySelector('[data-part=table]').dataset.stage === 'ready'"
FACTS = "document.querySelector('[data-part=facts]').innerText"
SAID = "2,000 inputs, 25 experts"

# "Run this page here": an exercise is answered, before which the cells of the chapter run; the
# answer takes what is loaded for cells alone
CELLS = "chapters/gate.html"
OFFERED = "document.querySelector('.run-page button').click()"
OPENED = "!!document.querySelector('.run-bar')"
ANSWER = (
    "from scipy import stats; from expertbank.shipped.bank import load_family; "
    "print(stats.norm.cdf(0).round(1), len(load_family('grid')))"
)
WRITE = f"""(document.querySelector('.run-try .cm-content').focus(),
  document.execCommand('insertText', false, {json.dumps(ANSWER)}),
  document.querySelector('.run-try .run-line button').click())"""
RAN = "['ready', 'failed', 'off'].includes(document.querySelector('.run-bar').dataset.state)"
OUTCOME = """(() => {
  const words = selector => [...document.querySelectorAll(selector)].map(one => one.textContent);
  return [words('.run-bar [role=status]')[0].replace(/ in .*/, ''), words('[role=alert]'),
    words('.run-try .run-results')[0], words('.run-sketch svg').length > 0, words('.run-changed')];
})()"""


def ran(book):
    """What is to be seen after it."""
    [place] = book.glob("_local/cells/gate.json*")
    packed = re.search(r'"([^"]*)";$', place.read_text().strip())
    content = gzip.decompress(base64.b64decode(packed[1])) if packed else place.read_bytes()
    return [f"Ran {len(json.loads(content)['cells']) + 1} cells", [], "0.5 3\n", True, []]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder that a reader has after unpacking the zip."""
    assert HTML.is_dir(), "run `make book`"
    folder = tmp_path_factory.mktemp("offline")
    carrier.write_zip(folder / "book.zip", offline.members(HTML))
    with zipfile.ZipFile(folder / "book.zip") as packed:
        packed.extractall(folder)
    return folder / offline.TOP


def has_explorer(page):
    return page.removeprefix("chapters/") in WITH_EXPLORER


def is_live(book):
    return bool(list(book.glob("_local/live/*/live.json.js")))


@pytest.fixture(scope="module")
def live_book(book):
    """The same, where it holds what any value needs."""
    if not is_live(book):
        skip_or_fail("the site was built without what any value needs: see `make book`")
    return book


@pytest.fixture
def tab(browser):
    """A page that no host answers, with what went wrong."""
    width, height = SIZES["desktop"]
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    watch(page)

    def refuse(route):
        page.problems.append(f"asked for {route.request.url}")
        route.abort()

    page.route(re.compile("^(?!file:|data:|blob:)"), refuse)
    yield page
    assert page.problems == []
    context.close()


# --- the zip ---


def test_the_same_site_gives_the_same_zip(tmp_path, monkeypatch):
    site = tmp_path / "site"
    live = site / "_local" / "live" / "key"
    live.mkdir(parents=True)
    (site / "index.html").write_text("<p>a page</p>")
    (site / "404.html").write_text("<p>of a server</p>")
    (live / "live.json").write_text('{"files": {}}')
    (live / "worker.mjs").write_text("serve()")
    for place in (
        "_local/live/key/later/data/a.npz",
        "_local/cells/a.json",
        "_local/cells/cells.js",
    ):
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        (site / place).write_text(f"content of {place}")
    carrier.write_zip(tmp_path / "one.zip", offline.members(site))
    monkeypatch.setattr("time.time", lambda: 2e9)
    (live / "worker.mjs").touch()
    carrier.write_zip(tmp_path / "two.zip", reversed(list(offline.members(site))))
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        names = packed.namelist()
        assert {entry.date_time for entry in packed.infolist()} == {carrier.DATE}
        handed = packed.read(f"{offline.TOP}/_local/live/key/later/data/a.npz.js")
    # a script where a page from disk may not fetch, by the name that the page asks for
    assert names == [
        f"{offline.TOP}/{place}"
        for place in (
            "_local/cells/a.json.js",
            "_local/cells/cells.js",
            "_local/live/key/later/data/a.npz.js",
            "_local/live/key/live.json.js",
            "_local/live/key/worker.mjs.js",
            "index.html",
        )
    ]
    assert handed.startswith(b'expertbankFiles["data/a.npz"] = "')


def test_every_link_of_the_zip_leads_to_a_file(book):
    broken = set()
    pages = [page for page in book.rglob("*.html") if "_static" not in page.parts]
    assert len(pages) > len(PAGES)
    for page in pages:
        text = re.sub(r"<(script|style)\b[^>]*>.*?</\1>", "", page.read_text(), flags=re.S)
        for target in re.findall(r'\s(?:href|src)="([^"#?]+)', text):
            outside = re.match(r"[a-z]+:", target)
            # a folder would be listed, not opened
            if not outside and not (page.parent / unquote(target)).resolve().is_file():
                broken.add((page.relative_to(book).as_posix(), target))
    assert broken == set()


def test_what_any_value_needs_is_there_once_with_its_licences(live_book, request):
    [listing] = live_book.glob("_local/live/*/live.json.js")
    kept = {path.name for path in listing.parent.iterdir() if path.is_file()}
    assert kept and all(name.endswith(".js") for name in kept)
    assert "MIT License" in (listing.parent / "LICENCES" / "expertbank.txt").read_text()
    zipped = (live_book.parent / "book.zip").stat().st_size
    say(request, f"the whole book as one zip: {zipped / 1e6:.1f} MB")
    assert zipped < 60e6


# --- Chromium, from disk ---


def test_chromium_shows_every_page_and_moves_every_explorer_from_disk(tab, book):
    found, unmoved = {}, []
    for name in PAGES:
        tab.goto((book / f"{name}.html").as_uri(), wait_until="load")
        found[name] = tab.evaluate(WHOLE)
        if has_explorer(name):
            tab.wait_for_function(SVG)
            before = tab.evaluate(READINGS)
            slider = tab.locator(".explorer-dial input").first
            slider.press("ArrowRight")
            slider.press("ArrowRight")
            unmoved += [name] * (tab.evaluate(READINGS) == before)
    assert {name: state for name, state in found.items() if state != IS_WHOLE} == {}
    assert unmoved == []


def test_chromium_opens_the_zip_at_its_start_and_searches_it(tab, book):
    tab.goto((book / "index.html").as_uri())
    tab.wait_for_url("**/chapters/start.html")
    tab.goto(f"{(book / 'search.html').as_uri()}?q=alphabet")
    tab.locator("#search-results li a").first.click()
    tab.wait_for_url("**/chapters/*.html*")


def is_that_of_the_library(name, fields, shown):
    """Whether the readings on the page are those of this Python at the same values."""
    dials = json.loads(dials_of(name))
    by_label = dict(fields)
    labels = {
        key: f"{dial['description']}, {dial['unit']}" if dial["unit"] else dial["description"]
        for key, dial in dials.items()
    }
    values = {key: by_label[label] for key, label in labels.items() if label in by_label}
    starts = {key: dial["start"] for key, dial in dials.items()}
    scene = json.loads(scene_of(name, json.dumps(starts | values)))
    expected = [reading["value"] for reading in scene["readings"]]
    found = [float(re.sub(r"[^\d.e-]", "", text.replace("−", "-")) or "nan") for text in shown]
    assert len(found) == len(expected)
    for value, wanted in zip(found, expected):
        if isinstance(wanted, float):
            assert value == pytest.approx(wanted, rel=1e-2, abs=1e-3), (name, values)


def test_chromium_takes_any_value_from_disk(tab, live_book, request):
    name = "blahut_arimoto"
    tab.goto((live_book / "chapters" / f"{name}.html").as_uri(), wait_until="load")
    tab.evaluate(BEGIN)
    tab.wait_for_function(SETTLED, timeout=240_000)
    seconds = tab.evaluate(SECONDS)
    assert tab.evaluate(STATE) == "ready", tab.evaluate(WORDS)
    taken, fields, shown = tab.evaluate(LATENCIES)
    is_that_of_the_library(name, fields, shown)
    say_time(
        request,
        f"any value of {name} from disk in Chromium: {seconds:.0f} s to ready, "
        f"the slowest move {max(taken):.0f} ms, the median {median(taken):.0f}",
        median(taken),
        MOVE,
    )
    tab.locator(".explorer-live").click()
    tab.wait_for_timeout(500)
    assert tab.workers == []


def test_chromium_computes_on_a_table_from_disk(tab, live_book):
    tab.goto((live_book / "chapters" / "your_experts.html").as_uri(), wait_until="load")
    tab.evaluate(EXAMPLE)
    tab.wait_for_function(ANSWERED, timeout=240_000)
    assert tab.evaluate(FACTS).startswith(SAID)


def test_chromium_runs_the_cells_of_a_page_from_disk(tab, live_book):
    tab.goto((live_book / CELLS).as_uri(), wait_until="load")
    tab.evaluate(OFFERED)
    tab.wait_for_function(OPENED)
    tab.evaluate(WRITE)
    tab.wait_for_function(RAN, timeout=600_000)
    assert tab.evaluate(OUTCOME) == ran(live_book)


def test_a_book_without_the_scripts_says_how_to_get_them(tab, site):
    tab.goto((HTML / "chapters" / "bsc.html").as_uri(), wait_until="load")
    tab.evaluate(BEGIN)
    tab.wait_for_function(f"{STATE} === 'off'")
    assert "`make offline`" in tab.evaluate(WORDS)
    tab.evaluate(OFFERED)
    tab.get_by_text("This page cannot run here: bsc.json could not be loaded: `make off").wait_for()
    for _ in range(2):
        tab.problems.remove("Failed to load resource: net::ERR_FILE_NOT_FOUND")


# --- Firefox, from a server and from disk ---

# closed forms, and D(R)
ANY_VALUE = {"http": "blahut_arimoto", "disk": "bsc"}


def of_static_pages(where):
    """Visits by what is looked at. Chromium has been on every page from disk and every link of the
    zip leads to a file, so Firefox opens there one page of a kind."""
    pages = PAGES if where == "http" else OF_A_KIND
    phone = [f"chapters/{name}" for name in ON_A_PHONE] if where == "http" else OF_A_KIND[:2]
    slider = ".explorer-dial input"
    press = ["press", slider, "ArrowRight"]
    moves = [["wait", SVG, 10_000], ["evaluate", READINGS], press, press, ["evaluate", READINGS]]
    listed = "document.querySelectorAll('#search-results li a').length"
    found = [["wait", listed, 10_000], ["evaluate", listed]]
    whole = [["evaluate", WHOLE]]
    return {
        "desktop": [
            (f"{name}.html", whole + moves if has_explorer(name) else whole, "desktop")
            for name in pages
        ],
        "phone": [(f"{name}.html", whole, "phone") for name in phone],
        "search": [("search.html?q=alphabet", found, "desktop")],
    }


def of_live_pages(where):
    """Visits where the library itself is loaded, as a page asks a server and a disk for it."""
    ready = ["evaluate", f"[{STATE}, {WORDS}, {SECONDS}]"]
    moves = [["evaluate", BEGIN], ["wait", SETTLED, 240_000], ready, ["evaluate", LATENCIES]]
    example = [["evaluate", EXAMPLE], ["wait", ANSWERED, 240_000], ["evaluate", FACTS]]
    cells = [["evaluate", OFFERED], ["wait", OPENED, 60_000], ["evaluate", WRITE]]
    cells += [["wait", RAN, 600_000], ["evaluate", OUTCOME]]
    return {
        "any value": [(f"chapters/{ANY_VALUE[where]}.html", moves, "desktop")],
        "table": [("chapters/your_experts.html", example, "desktop")],
        "cells": [(CELLS, cells, "desktop")],
    }


@pytest.fixture(scope="module", params=["http", "disk"])
def seen(request, site, book):
    """What one start of Firefox finds at the book, on a server or on the disk, by what is looked
    at."""
    root = site if request.param == "http" else book.as_uri()
    plans = of_static_pages(request.param)
    if is_live(book):
        plans |= of_live_pages(request.param)
    visits = [(f"{root}/{place}", *how) for plan in plans.values() for place, *how in plan]
    found = firefox.visits(visits)
    own = (root, "data:", "blob:")
    for visit in found:
        foreign = [url for url in visit["asked"] if not url.startswith(own)]
        visit["problems"] += [f"asked for {url}" for url in foreign]
    left = iter(found)
    return {name: [next(left) for _ in plan] for name, plan in plans.items()}


def gave(seen, name):
    """What each visit of a kind gave, after checking that nothing went wrong and no other host was
    asked."""
    assert {visit["address"]: visit["problems"] for visit in seen[name] if visit["problems"]} == {}
    return [visit["gave"] for visit in seen[name]]


@pytest.mark.parametrize("size", SIZES)
def test_firefox_shows_every_page(seen, size):
    assert [state for state, *_ in gave(seen, size) if state != IS_WHOLE] == []


def test_firefox_moves_every_explorer_and_searches(seen):
    moved = [found for found in gave(seen, "desktop") if len(found) > 1]
    assert len(moved) >= 2
    assert [before for _, _, before, *_, after in moved if before == after] == []
    assert gave(seen, "search")[0][-1] >= 1


@pytest.mark.usefixtures("live_book")
def test_firefox_takes_any_value(seen, request):
    where = request.node.callspec.id
    [(_, _, (state, words, seconds), (taken, fields, shown))] = gave(seen, "any value")
    assert state == "ready", words
    is_that_of_the_library(ANY_VALUE[where], fields, shown)
    say_time(
        request,
        f"any value of {ANY_VALUE[where]} in Firefox, {where}: {seconds:.0f} s to ready, the "
        f"slowest move {max(taken):.0f} ms, the median {median(taken):.0f}",
        median(taken),
        MOVE,
    )


@pytest.mark.usefixtures("live_book")
def test_firefox_computes_on_a_table(seen):
    [found] = gave(seen, "table")
    assert found[-1].startswith(SAID)


def test_firefox_runs_the_cells_of_a_page(seen, live_book):
    [found] = gave(seen, "cells")
    assert found[-1] == ran(live_book)
