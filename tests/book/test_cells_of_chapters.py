"""The cells of every chapter in the Python of the pages, one start of it for all, under Node.js;
`test_cells_in_pages` has the page around them."""

import json
import re

import pytest

from page_python import node
from pages import CELLS, HTML
from support import say, skip_or_fail

# what a chapter takes that a page has not got, which its cells then say
CANNOT = {
    "solver": {"dask", "torch"},
    "your_router": {"dask", "torch", "transformers"},
    "gates": {"pandas"},
    "theorem2": {"pandas"},
    "testbed": {"pandas"},
    "start": {"pandas"},
    "report": {"pandas"},
    "links": {"constriction", "reedsolo"},
    "in_network": {"pandas"},
}
CHAPTERS = {place.stem: json.loads(place.read_text()) for place in sorted(CELLS.glob("*.json"))}
GLUED = r'<span class="pasted-text">(.*?)</span>'


@pytest.fixture(scope="module")
def answers():
    """What the cells of each chapter answer."""
    if not CHAPTERS:
        skip_or_fail("the site was built without what its cells need: see `make book`")
    [listing] = HTML.glob("_local/live/*/live.json")
    books = [chapter["cells"] for chapter in CHAPTERS.values()]
    printed, _ = node(listing.parent, books=books)
    return dict(zip(CHAPTERS, json.loads(printed), strict=True))


@pytest.mark.parametrize("name", CHAPTERS)
def test_all_cells_of_a_chapter_run_in_the_python_of_pages(answers, name, request):
    own = answers[name]
    assert [answer["error"] for answer in own if answer["error"]] == []
    assert len(own) == len(CHAPTERS[name]["cells"])
    missing = {module for answer in own for module in answer["missing"]}
    assert missing <= CANNOT.get(name, set())
    assert (name in CANNOT) == bool(missing), "say in CANNOT what this page cannot run"
    seconds = sum(answer["seconds"] for answer in own)
    lacks = f", but for {', '.join(sorted(missing))}" if missing else ""
    say(request, f"the cells of {name} run in the Python of pages in {seconds:.1f} s{lacks}")


@pytest.mark.parametrize("name", CHAPTERS)
def test_they_compute_the_numbers_that_the_page_prints(answers, name):
    page = (HTML / "chapters" / f"{name}.html").read_text()
    printed = re.findall(GLUED, page)
    assert len(printed) == len(CHAPTERS[name]["numbers"])
    found = {}
    for answer in answers[name]:
        found |= answer["numbers"]
    shown = {key: text for key, text in zip(CHAPTERS[name]["numbers"], printed) if key in found}
    assert {key: found[key] for key in shown} == shown
    # one that misses a module early has none
    assert shown or not printed or name in CANNOT
