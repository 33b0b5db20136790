"""Any value, in Chromium: one click loads the library itself, offline, and every dial takes any
value; before it nothing is loaded, and after it nothing is left."""

import functools
import gzip
import json
import re
import shutil
import threading
from http.server import ThreadingHTTPServer
from statistics import median
from time import perf_counter

import numpy as np
import pytest

from expertbank.book.explorers.live import dials_of, scene_of
from expertbank.book.explorers.variants import VARIANTS
from expertbank.book.explorers.widget import HERE
from pages import HTML, SIZES, Packed, violations, watch
from references import ROOT
from support import say, say_time, skip_or_fail

# closed forms, the alpha-mixture on the shipped bank, D(R)
TRIED = ("bsc", "mnist_bank", "blahut_arimoto")
MOVES = 12
# what says how much one click brings
TELL_ITS_SIZE = [ROOT / "README.md"]
TELL_ITS_SIZE += [ROOT / "chapters" / f"{name}.md" for name in ("explorers", "your_experts")]
STATE = "document.querySelector('.explorer').dataset.live"
WORDS = "document.querySelector('.explorer-news p').textContent"
# keeps what workers answer
LISTEN = """() => {
  window.answers = [];
  const Plain = Worker;
  window.Worker = class extends Plain {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", ({ data }) => data.answer && answers.push(data.answer));
    }
  };
}"""
# a slider set to a share of its way; resolves with the milliseconds until its picture is there
MOVE = """([dial, share]) => new Promise(resolve => {
  const host = document.querySelector('.explorer');
  const slider = host.querySelectorAll('.explorer-dial input[type=range]')[dial];
  const from = performance.now();
  new MutationObserver((_, observer) => {
    if (host.dataset.live !== 'ready') return;
    observer.disconnect();
    resolve(performance.now() - from);
  }).observe(host, { attributeFilter: ['data-live'] });
  slider.value = Number(slider.min) + share * (slider.max - slider.min);
  slider.dispatchEvent(new Event('input'));
})"""
DIALS = """() => [...document.querySelectorAll('.explorer-dial')].map(dial => {
  const field = dial.querySelector('input[type=number]') ?? dial.querySelector('input');
  return [dial.querySelector('span').textContent.split(', ')[0], field.valueAsNumber];
})"""


def need_live():
    if not list((HTML / "_local" / "live").glob("*/worker.mjs")):
        skip_or_fail("the site was built without what any value needs: see `make book`")


class Served(dict):
    """Bytes sent, by path; what ends in `broken` is sent damaged."""

    broken = None


@pytest.fixture
def counted_site():
    """The address of the built book, as a server on the web sends it, and what that has sent."""
    served = Served()

    class Counting(Packed):
        def do_GET(self):
            super().do_GET()
            served[self.path] = served.get(self.path, 0) + self.sent

        def content_of(self, file):
            content = super().content_of(file)
            return content[:-9] if file.name == served.broken else content

    handler = functools.partial(Counting, directory=HTML)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", served
    server.shutdown()


@pytest.fixture
def profile(browser, tmp_path):
    """Chromium as readers have it: with its cache on the disk, which holds larger files than the
    one of a private window, and with its back-forward cache."""
    launched = browser.browser_type.launch_persistent_context(
        tmp_path,
        executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
        args=["--no-sandbox", "--disable-gpu"],
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield launched
    launched.close()


@pytest.fixture
def tab(browser, site):
    """A page with what it asked for, and requests to other hosts as problems."""
    need_live()
    context = browser.new_context(viewport=dict(zip(("width", "height"), SIZES["desktop"])))
    page = context.new_page()
    watch(page)
    page.add_init_script(f"({LISTEN})()")
    yield page
    assert all(url.startswith((site, "data:", "blob:")) for url in page.asked), page.asked
    context.close()


def visit_explorer(tab, site, name):
    tab.goto(f"{site}/chapters/{name}.html", wait_until="load")
    tab.locator(".explorer-live:visible").wait_for()


def load(tab):
    """Press the button and wait; the seconds until every dial takes any value."""
    before = perf_counter()
    tab.locator(".explorer-live").click()
    tab.wait_for_function(f"['ready', 'off'].includes({STATE})", timeout=180_000)
    assert tab.evaluate(STATE) == "ready", tab.evaluate(WORDS)
    return perf_counter() - before


def of_live(tab):
    return [url for url in tab.asked if "/_local/live/" in url]


@pytest.mark.parametrize("name", TRIED)
def test_any_value_is_that_of_the_library_and_comes_at_once(tab, site, name, request):
    visit_explorer(tab, site, name)
    stops = tab.locator(".explorer-dial").count()
    tab.locator(".explorer-dial input").first.press("ArrowRight")
    tab.locator(".explorer-reset").click()
    assert of_live(tab) == [], "nobody had asked"
    seconds = load(tab)
    dials = json.loads(dials_of(name))
    assert tab.locator(".explorer-dial").count() == len(dials) > stops
    own = len(dials) - len(VARIANTS[name].dials)
    taken = []
    for i in range(MOVES):
        # places that no stop has, on each dial in turn
        share = (0.31 + 0.6180339887 * i) % 1
        taken.append(tab.evaluate(MOVE, [i % own, share]))
    values = assert_as_the_library(tab, name, dials)
    assert any(values[key] not in dial["stops"] for key, dial in dials.items())
    say_time(
        request,
        f"any value of {name}: ready after {seconds:.1f} s, a move takes {median(taken):.0f} ms",
        median(taken),
        150,
    )
    # what the page's stops lack: another bank, or other candidates
    before = tab.evaluate("answers.at(-1)")
    tab.evaluate(MOVE, [own, 1])
    assert tab.evaluate("answers.at(-1)") != before
    assert_as_the_library(tab, name, dials)
    assert tab.problems == []


def numbers(values):
    """Where there is none to be had, JSON has null."""
    return [np.nan if value is None else value for value in values]


def assert_alike(found, expected):
    same = pytest.approx(numbers(expected), rel=1e-9, abs=1e-9, nan_ok=True)
    assert numbers(found) == same


def assert_as_the_library(tab, name, dials):
    """The page shows what the library says where the dials stand; returns where that is."""
    shown = dict(tab.evaluate(DIALS))
    values = {key: shown[dial["description"].split(", ")[0]] for key, dial in dials.items()}
    expected = json.loads(scene_of(name, json.dumps(values)))
    found = json.loads(tab.evaluate("answers.at(-1)"))
    readings = [(one["name"], one["value"]) for one in expected["readings"]]
    assert [one["name"] for one in found["readings"]] == [label for label, _ in readings]
    assert_alike([one["value"] for one in found["readings"]], [value for _, value in readings])
    for panel, own in zip(found["panels"], expected["panels"], strict=True):
        for series, its in zip(panel["series"], own["series"], strict=True):
            assert_alike(series["y"], its["y"])
    printed = tab.locator(".explorer-readings dd").first.inner_text()
    one = expected["readings"][0]
    assert printed.startswith(f"{one['value']:.{int(one['digits'])}f}".replace("-", "−"))
    return values


def test_dials_speak_and_refuse_in_words_and_fit_a_phone(tab, site):
    width, height = SIZES["phone"]
    tab.set_viewport_size({"width": width, "height": height})
    visit_explorer(tab, site, "bsc")
    button = tab.locator(".explorer-live")
    button.focus()
    tab.keyboard.press("Enter")
    assert tab.locator(".explorer-news [role=status]").inner_text() != ""
    tab.wait_for_function(f"{WORDS} === 'Every dial takes any value now'", timeout=180_000)
    assert button.evaluate("button => button === document.activeElement")
    assert button.get_attribute("aria-pressed") == "true"
    assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert violations(tab) == []
    field = tab.get_by_label("true crossover p*: value")
    field.fill("0.7")
    assert tab.evaluate(WORDS) == "true crossover p* must be between 0 and 0.5"
    field.fill("0.1234")
    tab.wait_for_function(f"{STATE} === 'ready' && {WORDS} === ''")
    found = json.loads(tab.evaluate("answers.at(-1)"))
    assert tab.evaluate(DIALS)[:2] == [["inverse temperature β", 1], ["true crossover p*", 0.1234]]
    at = {key: dial["start"] for key, dial in json.loads(dials_of("bsc")).items()}
    at["crossover"] = 0.1234
    wanted = json.loads(scene_of("bsc", json.dumps(at)))
    assert found["readings"][0]["value"] == pytest.approx(wanted["readings"][0]["value"], rel=1e-9)
    slider = tab.get_by_label("sample size m", exact=True)
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "101"
    tab.locator(".explorer-reset").click()
    assert slider.get_attribute("aria-valuetext") == "100"
    # off again: the stops are back, and the second Python is gone
    tab.locator(".explorer-live").click()
    assert tab.locator(".explorer-dial").count() == 2
    tab.wait_for_timeout(500)
    assert tab.workers == []
    assert tab.problems == []


def test_loading_can_be_cancelled_and_leaving_frees_the_memory(tab, site):
    visit_explorer(tab, site, "bsc")
    button = tab.locator(".explorer-live")
    button.click()
    assert button.inner_text() == "Cancel"
    tab.wait_for_function(f"{WORDS}.startsWith('Loading')")
    assert tab.get_by_role("progressbar").is_visible()
    button.click()
    assert tab.evaluate(WORDS) == "Cancelled" and button.inner_text() == "Any value"
    assert tab.problems == []


def test_leaving_frees_the_memory_and_coming_back_works(profile, site):
    """By the browser's own back button, from its back-forward cache."""
    need_live()
    page = profile.new_page()
    visit_explorer(page, site, "bsc")
    page.evaluate("window.here = true")
    load(page)
    slider = page.locator(".explorer-dial input[type=range]").first
    slider.press("End")
    assert len(page.workers) == 1
    page.goto(f"{site}/chapters/glossary.html", wait_until="load")
    page.wait_for_timeout(500)
    assert page.workers == []
    page.go_back(wait_until="commit")
    page.wait_for_function("window.here === true")
    assert page.evaluate(STATE) == "off"
    assert page.locator(".explorer-dial").count() == 2
    assert page.locator(".explorer-dial input").first.input_value() != "0", "near where it stood"
    load(page)
    assert len(page.workers) == 1
    page.close()


def test_a_second_page_takes_it_from_the_browsers_cache(profile, counted_site, request):
    address, served = counted_site
    need_live()
    page = profile.new_page()
    seconds = []
    sent = []
    for name in ("bsc", "links"):
        served.clear()
        visit_explorer(page, address, name)
        seconds.append(load(page))
        sent.append({path: size for path, size in served.items() if "/_local/live/" in path})
    assert len(sent[0]) >= 9
    assert sent[1] == {}, "the second page asks the server for nothing of it"
    for text in TELL_ITS_SIZE:
        [stated] = re.findall(r"\bloads\b.*?(\d+) MB", text.read_text())
        assert abs(int(stated) - sum(sent[0].values()) / 1e6) < 1, text
    say(
        request,
        f"any value: {sum(sent[0].values()) / 1e6:.1f} MB on the wire and ready after "
        f"{seconds[0]:.1f} s, on a second page 0 MB and {seconds[1]:.1f} s",
    )


def test_a_file_that_the_cache_has_damaged_is_asked_for_anew(browser, counted_site):
    address, served = counted_site
    need_live()
    context = browser.new_context()
    page = context.new_page()
    served.broken = "expertbank.zip"
    visit_explorer(page, address, "bsc")
    page.locator(".explorer-live").click()
    page.wait_for_function(f"{STATE} === 'off'", timeout=180_000)
    assert "expertbank.zip is not the file" in page.evaluate(WORDS)
    served.broken = None
    # what was wrong lies in the cache now, and is as old as the rest
    load(page)
    context.close()


def test_what_a_page_carries_for_the_button_is_small():
    script = (HERE / "live.js").read_bytes()
    assert len(gzip.compress(script)) <= 4000


# what a server may answer: each file is one that comes after those above it
BROKEN = [
    ("pyodide.asm.wasm", {"status": 404}, "pyodide.asm.wasm could not be loaded (404)"),
    ("pyodide.asm.wasm", {"body": b"no wasm"}, "pyodide.asm.wasm is not the file"),
    ("scipy-", {"body": b"no wheel"}, "wasm32.whl could not be loaded"),
    ("expertbank.zip", {"body": b"no zip"}, "expertbank.zip is not the file"),
]


def answering(answer):
    return lambda route: route.fulfill(**answer)


def test_a_broken_file_gives_words_and_trying_again_works(tab, site):
    """One after the other on one page, so that trying again gets to the next that is broken."""
    visit_explorer(tab, site, "bsc")
    for file, answer, words in BROKEN:
        broken = f"**/_local/live/*/{file}*"
        tab.route(broken, answering(answer))
        tab.locator(".explorer-live").click()
        tab.wait_for_function(f"words => {WORDS}.includes(words)", arg=words, timeout=120_000)
        assert tab.evaluate(STATE) == "off" and "try again" in tab.evaluate(WORDS)
        assert tab.locator(".explorer-dial").count() == 2, "the stops work as before"
        tab.unroute(broken)
    load(tab)
