"""The page *Your own experts* in Chromium: a table is dropped, chosen, pasted or the example; the
library answers in the page, and nothing of it goes anywhere."""

import csv
import json
import re
import sys
import xml.etree.ElementTree as ET
from itertools import product
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import pytest
from docutils.utils import new_document

from expertbank.book.your_table import TableLadder
from expertbank.book.your_table.session import EXAMPLE_IMAGES, Session
from expertbank.shipped.bank import load_bank
from pages import HTML, OF_THE_THEME, SIZES, turn, violations
from reading import faults
from references import ROOT
from support import say, skip_or_fail

sys.path.append(str(ROOT / "chapters" / "_ext"))
import your_experts

PART = "document.querySelector('[data-part={}]')"
WORDS = "[...document.querySelectorAll('.your-experts [role=status]')].map(p => p.textContent)"
IS_READY = "[...document.querySelectorAll('.your-experts')].every(e => e.dataset.stage === 'ready')"
MISTAKES = np.random.default_rng(0).integers(0, 2, (300, 4)).astype(float)
# a file dropped on a zone, as a reader's hand does it
DROP = """([zone, name, text]) => {
  const files = new DataTransfer();
  files.items.add(new File([text], name));
  const how = { bubbles: true, cancelable: true, dataTransfer: files };
  const target = document.querySelector(`[data-part=${zone}] .your-drop`);
  for (const kind of ['dragenter', 'dragover', 'drop'])
    target.dispatchEvent(new DragEvent(kind, how));
}"""


@pytest.fixture
def context(browser, site):
    """A browser that keeps what its page asks for, and what goes wrong."""
    if not list((HTML / "_local" / "live").glob("*/worker.mjs")):
        skip_or_fail("the site was built without Python for the browser: see `make book`")
    context = browser.new_context(viewport=dict(zip(("width", "height"), SIZES["desktop"])))
    context.asked, context.problems = [], []
    context.on("request", lambda request: context.asked.append(request))
    context.on("console", lambda said: said.type == "error" and context.problems.append(said.text))
    context.on("weberror", lambda found: context.problems.append(str(found.error)))
    yield context
    assert all(request.url.startswith((site, "blob:", "data:")) for request in context.asked)
    assert {request.method for request in context.asked} == {"GET"}
    assert context.problems == []
    context.close()


@pytest.fixture
def tab(context, site):
    page = context.new_page()
    page.goto(f"{site}/chapters/your_experts.html", wait_until="load")
    assert not of_live(context), "nobody has asked anything yet"
    return page


def of_live(context):
    return [request.url for request in context.asked if "/_local/live/" in request.url]


def until(tab, beginning, place=0, timeout=240_000):
    """Wait until a status says what begins so; its words and the seconds."""
    before = perf_counter()
    known = f"({WORDS})[{place}].startsWith({json.dumps(beginning)}) && {IS_READY}"
    tab.wait_for_function(known, timeout=timeout)
    return tab.evaluate(WORDS)[place], perf_counter() - before


def without_worker(tab):
    """Wait until the page has none: that its end is asked for takes a moment."""
    for _ in range(50):
        if not tab.workers:
            return
        tab.wait_for_timeout(100)
    raise AssertionError("the worker goes on")


def choose(tab, name, content, zone="file"):
    tab.locator(f"[data-part={zone}]").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )


def as_csv(table):
    return "\n".join(",".join(f"{x:g}" for x in row) for row in table)


def readings(tab, place=0):
    pairs = tab.locator(".explorer-readings").nth(place).locator("div").all_inner_texts()
    return dict(re.split(r"\s*\n\s*", pair, maxsplit=1) for pair in pairs)


def saved(tab, button):
    with tab.expect_download() as found:
        tab.locator(f"[data-part={button}]").click()
    return found.value.suggested_filename, found.value.path().read_text()


def test_the_example_is_a_click_away_and_all_numbers_are_the_librarys(context, tab, request):
    before = perf_counter()
    tab.locator("[data-part=example]").click()
    until(tab, "the MNIST bank")
    seconds = perf_counter() - before
    mistakes = load_bank().losses("test")[:EXAMPLE_IMAGES]
    own = Session()
    opened = json.loads(own.open_array("example", mistakes))
    assert tab.locator("[data-part=facts] li").all_inner_texts() == opened["facts"]
    dials = opened["explorers"]["your_curve"]["dials"]
    start = json.dumps({name: dial["start"] for name, dial in dials.items()})
    # the field is short, the price in use is not
    field = tab.locator("[data-part=pictures] input[type=number]").first
    price = dials["lam"]["start"]
    assert field.input_value() == f"{price:.4g}"
    assert float(field.get_attribute("title")) == pytest.approx(price, rel=1e-9)
    scene = json.loads(own.scene("your_curve", start))
    shown = readings(tab)
    assert list(shown) == [one["name"] for one in scene["readings"]]
    assert float(shown["rate"].split()[0]) == pytest.approx(scene["readings"][0]["value"], abs=1e-4)

    # from here on there is no network, and none is missed
    context.set_offline(True)
    asked = len(context.asked)
    tab.locator("[data-part=alpha]").fill("0.7")
    tab.locator("[data-part=size]").fill("64")
    tab.locator("[data-part=size]").press("Enter")
    until(tab, "Every bound at α = 0.7, m = 64")
    run, rungs = TableLadder(mistakes, 64).at(0.7)
    rows = tab.locator("[data-part=bounds] tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == [rung.name for rung in rungs]
    for row, rung in zip(rows, rungs):
        assert float(row.split()[1]) == pytest.approx(rung.value, rel=2e-3)
    assert (
        f"I(S;W) = {run.information:.4f} nats" in tab.locator("[data-part=selection]").inner_text()
    )

    name, text = saved(tab, "json")
    found = json.loads(text)
    assert name == "your_experts.json" and found["inputs"] == EXAMPLE_IMAGES
    assert found["bounds"]["rungs"][0][1] == pytest.approx(rungs[0].value)
    name, text = saved(tab, "csv")
    lines = list(csv.DictReader(text.splitlines()))
    wanted = own.curve.points() if own.curve else []
    assert name == "curve.csv" and len(lines) == len(wanted) == len(found["curve"]["rows"])
    assert [float(line["distortion"]) for line in lines] == pytest.approx(
        [point[2] for point in wanted], rel=1e-6
    )
    for button, labels in (
        ("curve-svg", ["rate I(X;T), nats per input", "mean loss", "gate at this price"]),
        ("selection-svg", ["what it reveals", "generalisation gap", "bound of Theorem 1"]),
    ):
        name, text = saved(tab, button)
        drawing = ET.fromstring(text)
        told = [node.text for node in drawing.iter("{http://www.w3.org/2000/svg}text")]
        assert name.endswith(".svg") and set(labels) <= set(told)
        assert "var(" not in "".join(node.get("style", "") for node in drawing.iter())
    assert [request.url for request in context.asked[asked:] if request.url[:5] != "blob:"] == []
    say(request, f"your own experts: the example is answered {seconds:.1f} s after the click")


def test_a_table_is_dropped_chosen_and_pasted_and_dials_move_it(context, tab):
    tab.evaluate(DROP, ["table", "dropped.csv", as_csv(MISTAKES)])
    until(tab, "dropped.csv: 300 inputs, 4 experts")
    before = readings(tab)
    slider = tab.locator(".explorer-dial input[type=range]").first
    slider.press("ArrowRight")
    tab.wait_for_function(
        "b => document.querySelector('.explorer-readings dd').innerText !== b",
        arg=before["rate"],
    )
    field = tab.get_by_label("sample size m: value")
    field.fill("77")
    tab.wait_for_function("document.querySelectorAll('.explorer-dial input')[5].value === '77'")
    file = tab.locator("[data-part=file]")
    choose(tab, "chosen.csv", as_csv(MISTAKES[:200]).encode())
    until(tab, "chosen.csv: 200 inputs")
    assert file.input_value() == "", "the same file may be chosen again"
    assert tab.locator(".explorer-dials").count() == 2, "the first table's pictures are gone"
    tab.locator(".your-drop summary").click()
    tab.locator("[data-part=text]").fill("0,1\n1,0\n1,0")
    tab.locator("[data-part=paste]").click()
    until(tab, "pasted table.csv: 3 inputs, 2 experts")


def test_bad_files_get_the_librarys_sentences_and_the_page_goes_on(tab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("losses.txt", b"0,1"),
        ("letters.csv", b"a,b\n0,1"),
        ("damaged.npy", b"\x93NUMPY no"),
        ("missing.csv", b"0,nan\n1,0"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"\w") as caught:
            Session().open_file(name)
        choose(tab, name, content)
        until(tab, str(caught.value))
        assert tab.evaluate(WORDS)[0] == str(caught.value)
        assert tab.locator("[data-part=result]").is_hidden()
    choose(tab, "good.csv", as_csv(MISTAKES).encode())
    until(tab, "good.csv: 300 inputs")
    choose(tab, "bad.csv", b"0\n1")
    until(tab, "losses has one column; two experts are the fewest")
    assert tab.locator("[data-part=name]").inner_text() == "good.csv", "the table before stays"


def test_a_router_is_reported_and_says_what_its_file_lacks(tab, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "routes.npz"
    np.savez(path, chosen=rng.integers(0, 8, (400, 1)), domain=rng.integers(0, 2, 400))
    choose(tab, path.name, path.read_bytes(), "routes")
    words, _ = until(tab, "routes.npz", 1)
    assert "give the number of experts" in words
    tab.locator("[data-part=n-experts]").fill("8")
    choose(tab, path.name, path.read_bytes(), "routes")
    until(tab, "The report on routes.npz is there", 1)
    expected = json.loads(Session().routes(str(path), n_experts=8))
    assert tab.locator("[data-part=report]").inner_text().split() == expected["text"].split()
    name, text = saved(tab, "router-json")
    assert name == "router.json" and json.loads(text)["n_experts"] == 8


def test_cancel_and_leaving_end_the_worker_and_the_table_comes_back(tab):
    tab.locator("[data-part=example]").click()
    cancel = tab.locator("[data-part=cancel]").first
    cancel.click()
    assert tab.evaluate(WORDS)[0] == "Cancelled."
    without_worker(tab)
    tab.locator("[data-part=example]").click()
    until(tab, "the MNIST bank")
    tab.locator("[data-part=size]").fill("10000")
    tab.locator("[data-part=ask-bounds] button").click()
    tab.wait_for_function(f"({WORDS})[0].startsWith('Drawing 20,000 datasets')")
    assert tab.get_by_role("progressbar").first.is_visible()
    cancel.click()
    without_worker(tab)
    slider = tab.locator(".explorer-dial input[type=range]").first
    for _ in range(2):
        # a dial asks again: library and table come back
        before = readings(tab)["rate"]
        slider.press("ArrowRight")
        tab.wait_for_function(
            "b => document.querySelector('.explorer-readings dd').innerText !== b",
            arg=before,
            timeout=120_000,
        )
        # also where the page is left while one is being answered
        slider.press("ArrowRight")
        tab.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
        without_worker(tab)


def test_with_answers_the_page_can_be_read_by_all(tab):
    # by keyboard alone
    tab.locator(".your-drop summary").press("Enter")
    tab.locator("[data-part=paste]").press("Enter")
    until(tab, "pasted table.csv")
    tab.locator("[data-part=alpha]").press("Enter")
    until(tab, "Every bound")
    for size, (theme, rules) in product(SIZES, (("light", ()), ("dark", OF_THE_THEME))):
        width, height = SIZES[size]
        tab.set_viewport_size({"width": width, "height": height})
        turn(tab, theme)
        # pictures take their new width
        tab.wait_for_timeout(500)
        assert faults(tab, phone=size == "phone") == {}
        # the theme's button for that fades in and out
        tab.evaluate("scrollTo(0, 0)")
        tab.locator("#pst-back-to-top").wait_for(state="hidden")
        assert violations(tab, *rules) == [], (size, theme)
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_file_that_is_too_large_is_refused_before_it_is_read(context, tab):
    tab.evaluate(
        """() => {
          const files = new DataTransfer();
          const file = new File(['0'], 'large.npy');
          Object.defineProperty(file, 'size', { value: 2e9 });
          const event = new DragEvent('drop', { cancelable: true, bubbles: true });
          Object.defineProperty(event, 'dataTransfer', { value: { files: [file] } });
          document.querySelector('[data-part=table] .your-drop').dispatchEvent(event);
        }"""
    )
    assert tab.evaluate(WORDS)[0].startswith("large.npy holds 2000 MB; a page takes at most 500 MB")
    assert not of_live(context)


@pytest.mark.slow
def test_large_tables_are_answered_with_progress(tab, tmp_path, request):
    rng = np.random.default_rng(0)
    for shape in ((10_000, 25), (100_000, 64)):
        hard = rng.random((shape[0], 1))
        table = rng.exponential(size=shape) * (0.2 + hard)
        path = tmp_path / "table.npy"
        np.save(path, table)
        tab.evaluate("document.querySelector('[data-part=status]').textContent = ''")
        tab.locator("[data-part=file]").set_input_files(path)
        tab.wait_for_function(f"({WORDS})[0].startsWith('Solving')", timeout=120_000)
        assert tab.get_by_role("progressbar").first.is_visible()
        _, seconds = until(tab, f"table.npy: {shape[0]:,} inputs", timeout=600_000)
        say(request, f"your own experts: {shape[0]:,} x {shape[1]} is answered in {seconds:.0f} s")


@pytest.mark.parametrize("what", your_experts.FRAMES)
def test_a_book_without_python_for_the_browser_says_so_in_place_of_the_frames(what):
    frame = your_experts.Frame(what=what)
    page = new_document("your_experts")
    page += frame
    your_experts.fill_frames(SimpleNamespace(live_folder=None), page, "your_experts")
    [said] = page.children
    assert "no Python for the browser" in said.astext()
    assert "EXPERTBANK_WHEELS" in said.astext() and "input" not in said.astext()
