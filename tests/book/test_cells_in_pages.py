"""A chapter runs in its own page, in Chromium, offline: cells, figures, exercises, mistakes. What
the cells of every chapter compute there is seen in `test_cells_of_chapters`."""

import json
import re
from time import perf_counter

import pytest

from pages import CELLS, HTML, OF_THE_THEME, SIZES, turn, violations, watch
from support import say, skip_or_fail

NAMES = sorted(path.stem for path in CELLS.glob("*.json"))
# chapters whose cells differ in kind, and what they take that a page has not got: one reads many
# files, one has modules missing on the way
OF_A_KIND = {"start": {"pandas"}, "solver": {"dask", "torch"}}
DONE = "['ready', 'failed', 'off'].includes(document.querySelector('.run-bar').dataset.state)"
STATUS = ".run-bar [role=status]"
EXPECTED = "Not on this page: "


@pytest.fixture
def tab(browser, site):
    """A page; requests to other hosts and errors are problems."""
    if not NAMES:
        skip_or_fail("the site was built without what its cells need: see `make book`")
    context = browser.new_context(viewport=dict(zip(("width", "height"), SIZES["desktop"])))
    page = context.new_page()
    watch(page)
    yield page
    assert all(url.startswith((site, "data:", "blob:")) for url in page.asked), page.asked
    assert page.problems == []
    context.close()


def open_cells(tab, site, name):
    tab.goto(f"{site}/chapters/{name}.html", wait_until="load")
    button = tab.get_by_role("button", name="Run this page here")
    assert not [url for url in tab.asked if "/_local/cells/" in url or "/_local/live/" in url]
    button.click()
    tab.locator(".run-bar").wait_for()


def wait(tab, seconds=900):
    tab.wait_for_function(DONE, timeout=1000 * seconds)
    return tab.locator(STATUS).inner_text()


def run_all(tab):
    tab.get_by_role("button", name="Run all").click()
    return wait(tab)


def editor(tab, number):
    """A cell by its number in the source."""
    return tab.locator(".run-cell", has=tab.locator(f"button[aria-label='Run cell {number}']"))


def no_worker(tab):
    """Its memory is freed."""
    for _ in range(50):
        if not tab.workers:
            return
        tab.wait_for_timeout(200)
    assert tab.workers == []


def write(tab, cell, code):
    cell.locator(".cm-content").click()
    tab.keyboard.press("Control+a")
    tab.keyboard.insert_text(code)


@pytest.mark.parametrize("name", OF_A_KIND)
def test_all_cells_of_a_chapter_run_in_its_page(tab, site, name, request):
    open_cells(tab, site, name)
    begun = perf_counter()
    tab.get_by_role("button", name="Run all").click()
    tab.wait_for_function(f"document.querySelector('{STATUS}').textContent.startsWith('Running')")
    ready = perf_counter() - begun
    words = wait(tab)
    assert tab.locator(".run-results [role=alert]").all_inner_texts() == [], words
    n_cells = len(json.loads((CELLS / f"{name}.json").read_text())["cells"])
    assert words.startswith(f"Ran {n_cells} cells in"), words
    notes = tab.locator(".run-note").all_inner_texts()
    told = [note.removeprefix(EXPECTED) for note in notes if note.startswith(EXPECTED)]
    missing = {module for note in told for module in note.partition(". ")[0].split(", ")}
    assert missing and missing <= OF_A_KIND[name]
    later = sum("/later/" in url for url in tab.asked)
    lacks = ", ".join(sorted(missing))
    left = f" but for {lacks}" if lacks else ""
    say(request, f"{name} runs in its page{left}: ready {ready:.0f} s, {words}, {later} files more")


def test_an_edited_cell_gives_another_picture_and_numbers_and_resets(tab, site):
    open_cells(tab, site, "bsc")
    assert "Ran 27 cells" in run_all(tab)
    sketches = tab.locator(".run-sketch .explorer-svg")
    drawn = sketches.first.inner_html()
    numbers = tab.locator(".pasted-text")
    before = numbers.all_inner_texts()
    assert tab.locator(".run-changed").count() == 0, "the page computes what the book prints"
    first = editor(tab, 2)
    code = first.locator(".cm-content").inner_text()
    assert "p = 0.1" in code
    write(tab, first, code.replace("p = 0.1", "p = 0.3"))
    tab.keyboard.press("Shift+Enter")
    assert "Ran 1 cell in" in wait(tab)
    run_all(tab)
    assert sketches.first.inner_html() != drawn
    assert numbers.all_inner_texts() != before and tab.locator(".run-changed").count() > 2
    assert "Here p = 0.3" in tab.locator(".run-folded").first.inner_text()
    tab.locator(".run-bar").get_by_role("button", name="Reset", exact=True).click()
    assert numbers.all_inner_texts() == before
    assert "p = 0.1" in first.locator(".cm-content").inner_text()
    assert tab.locator(".run-sketch").count() == 0
    no_worker(tab)


def test_an_exercise_can_be_tried_and_its_solution_checked(tab, site):
    open_cells(tab, site, "bsc")
    answer = tab.locator(".exercise .run-cell").nth(1)
    write(tab, answer, "a, b = 0.05, 0.45\nprint(bsc_rate(a) > bsc_rate(b))")
    answer.get_by_role("button").click()
    assert wait(tab).startswith("Ran 28 cells"), "the chapter runs first"
    assert tab.locator(".exercise .run-results").nth(1).inner_text().strip() == "True"
    solution = tab.locator(".solution", has=tab.locator(".run-cell")).first
    assert not solution.locator(".run-cell").is_visible(), "solutions stay folded"
    solution.locator(".admonition-title, summary").first.click()
    check = solution.locator(".run-cell")
    # an editor writes out the lines that are seen
    check.locator(".cm-line", has_text="# ").last.wait_for()
    expected = re.search(r"# ([\d. ]+)$", check.locator(".cm-content").text_content().strip())[1]
    check.get_by_role("button").click()
    wait(tab)
    assert solution.locator(".run-results").inner_text().split() == expected.split()


def test_a_mistake_stands_at_its_cell_and_a_run_can_be_stopped(tab, site):
    open_cells(tab, site, "bsc")
    first = editor(tab, 2)
    write(tab, first, "p = 1 / 0")
    first.get_by_role("button").click()
    assert wait(tab) == "cell 2 failed; its error stands below it."
    error = tab.locator(".cell", has=first).get_by_role("alert").inner_text()
    assert "p = 1 / 0" in error and error.endswith("ZeroDivisionError: division by zero\n")
    write(tab, first, "while True: pass")
    first.get_by_role("button").click()
    tab.wait_for_function(f"document.querySelector('{STATUS}').textContent.startsWith('Running')")
    tab.get_by_role("button", name="Stop").click()
    assert wait(tab).startswith("Stopped.")
    no_worker(tab)
    write(tab, first, "p = 0.2\np")
    first.get_by_role("button").click()
    assert wait(tab).startswith("Ran 2 cells")
    tab.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    no_worker(tab)


def test_cells_fit_a_phone_and_are_accessible(tab, site):
    width, height = SIZES["phone"]
    tab.set_viewport_size({"width": width, "height": height})
    tab.goto(f"{site}/chapters/theorem1.html", wait_until="load")
    # axe looks at the page as it opens in `test_browser`
    button = tab.get_by_role("button", name="Run this page here")
    # the book's own button, not the browser's
    assert button.evaluate("one => getComputedStyle(one).borderTopStyle") == "solid"
    assert button.bounding_box()["height"] >= 28
    open_cells(tab, site, "theorem1")
    assert not run_all(tab).endswith("failed")
    tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    turn(tab, "light")
    assert violations(tab) == []
    turn(tab, "dark")
    assert violations(tab, *OF_THE_THEME) == []
    assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    # the keyboard enters an editor, leaves it, and finds its button
    content = tab.locator(".run-cell .cm-content").first
    content.focus()
    own = content.get_attribute("aria-label").partition(":")[0]
    tab.keyboard.press("Escape")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == f"Run {own}"


def test_a_page_that_nobody_runs_weighs_two_kilobytes_more_at_most():
    for name in NAMES:
        text = (HTML / "chapters" / f"{name}.html").read_text()
        added = re.search(r'<p class="run-page">.*?</script>', text, re.S)[0]
        assert len(added.encode()) <= 2000
