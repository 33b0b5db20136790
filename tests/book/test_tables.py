"""Tables and excerpts of the chapters: what they refuse, how they align, what the site makes of
them."""

from __future__ import annotations

import importlib
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from expertbank import information
from expertbank.book.source import LONGEST_EXCERPT, source
from expertbank.book.tables import table
from references import ROOT
from support import refused

pytest.importorskip("tabulate")
ROWS = [["hard", 0.25, 3], ["soft", -1.5, 12]]
HEADERS = ["gate", "loss", "n"]
CAPTION = "The loss $D$ of two `gates`."


@pytest.fixture(scope="module")
def extension():
    pytest.importorskip("sphinx_proof")
    sys.path.insert(0, str(ROOT / "chapters" / "_ext"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "chapters" / "_ext"))


def columns(made):
    """Columns of cells, header first, as a notebook shows them."""
    root = ElementTree.fromstring(made._repr_html_())
    lines = [["".join(cell.itertext()) for cell in line] for line in root.iter("tr")]
    return [list(column) for column in zip(*lines)]


def test_numbers_are_written_by_their_format():
    assert columns(table(ROWS, HEADERS, CAPTION, formats=".3f")) == [
        ["gate", "hard", "soft"],
        ["loss", "0.250", "−1.500"],
        ["n", "3", "12"],
    ]
    one_each = table(np.array([[0.1, 2], [1, 30]]), ["a", "b"], CAPTION, formats=("g", ".1f"))
    assert one_each.rows == (("0.1", "2.0"), ("1", "30.0"))
    assert table([["a", None]], ["", "b"], CAPTION).rows == (("a", "–"),)


def test_decimals_stand_under_each_other():
    rows = [["a", "12.6 ± 0.11"], ["b", "3 ± 0.2"], ["c", "gap < 0"], ["d", "0.25 %"]]
    _, (_, *cells) = columns(table(rows, ["", "gap"], CAPTION))
    lacks = {"\u2007": "0", "\u2008": "."}
    numbers = ["".join(lacks.get(sign, sign) for sign in cell) for cell in cells[:2] + cells[3:]]
    assert len({len(number) - number.index(".") for number in numbers}) == 1
    assert cells[0].startswith("12.6") and "\u00a0±\u00a0" in cells[0]
    assert cells[2] == "gap < 0"
    _, (_, *cells) = columns(table([["a", "1e-05"], ["b", "2.5"]], ["", "x"], CAPTION))
    assert cells == ["1e-05", "2.5"]


def test_words_stand_left_and_numbers_right():
    rows = [["1", "inside", "0.1 to 0.4"], ["2", "3 outside", "inf"]]
    made = table(rows, ["", "verdict", "range"], CAPTION)
    assert made.numeric == (True, False, True)


def test_the_verdict_is_the_second_column():
    rows = [["I(S;W)", 1.378, 1.401, "inside"]]
    made = table(rows, ["what", "paper", "ours", "verdict"], CAPTION, verdict="verdict")
    assert made.headers == ("what", "verdict", "paper", "ours")
    assert made.rows == (("I(S;W)", "inside", "1.378", "1.401"),)


def test_headers_say_what_they_head():
    root = ElementTree.fromstring(table(ROWS, ["", *HEADERS[1:]], CAPTION)._repr_html_())
    assert [cell.get("scope") for cell in root.iter("th")] == ["col", "col", "row", "row"]
    assert root.find("caption").find("code").text == "gates"


def test_references_compare_values():
    assert repr(table(ROWS, HEADERS, CAPTION, formats=".2f")).splitlines()[-1].split() == [
        "soft",
        "-1.50",
        "12",
    ]


def test_a_table_that_is_none_is_refused():
    refused(lambda: table([], HEADERS, CAPTION), "rows", "empty")
    refused(lambda: table([*ROWS, ["x"]], HEADERS, CAPTION), "rows", "rows[2] has 1 cells: 3")
    refused(lambda: table(ROWS, HEADERS, CAPTION, formats=["g"]), "formats", "1 entries")
    refused(lambda: table(ROWS, HEADERS, " "), "caption", "empty")
    refused(lambda: table(ROWS, HEADERS, "What a *gate* loses."), "caption", "*stressed*")
    refused(lambda: table(ROWS, HEADERS, CAPTION, "gates"), "name", "'gates'")
    refused(lambda: table(ROWS, HEADERS, CAPTION, verdict="gate"), "verdict", "'gate'")


def test_the_site_numbers_what_a_notebook_shows(extension):
    made = table(ROWS, ["", *HEADERS[1:]], "At $x < 1$ & `up`.", "tbl-loss", formats=".2f")
    node = extension("numbered_tables").numbered(made._repr_html_())
    assert node["names"] == ["tbl-loss"]
    title = node.children[0]
    assert [part.tagname for part in title.children] == [
        "#text",
        "math",
        "#text",
        "literal",
        "#text",
    ]
    assert title.astext() == "At x < 1 & up."
    entries = [
        entry.astext().rstrip("\u2007\u2008")
        for entry in node.findall()
        if entry.tagname == "entry"
    ]
    assert entries == ["", "loss", "n", "hard", "0.25", "3", "soft", "−1.50", "12"]
    numbers = [entry["classes"] for entry in node.findall() if entry.tagname == "entry"]
    assert numbers[3:] == [[], ["number"], ["number"]] * 2


def test_an_excerpt_is_the_code_without_the_docstring():
    excerpt = source(information.mutual_information)
    assert excerpt.name == "expertbank.information.mutual_information"
    assert excerpt.code.startswith("def mutual_information(") and '"""' not in excerpt.code
    space = dict(vars(information))
    exec(excerpt.code, space)
    gate = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert space["mutual_information"](gate) == information.mutual_information(gate) > 0
    assert f"```python\n{excerpt.code}\n```" in excerpt._repr_markdown_()


def test_an_excerpt_is_short():
    refused(lambda: source(table), "table", f"at most {LONGEST_EXCERPT} are allowed")
    refused(lambda: source(np.add), "function", error=TypeError)


@pytest.mark.parametrize(
    ("title", "kind", "once"),
    [
        ("Theorem 1 of P1", "theorem", True),
        ("Hoeffding's lemma (standard, 1963)", "lemma", True),
        ("Union bound, (22) of P2", "theorem", False),
    ],
)
def test_a_title_that_says_its_kind(extension, title, kind, once):
    assert extension("statements").says_its_kind(title, kind) == once


def test_a_formula_may_name_the_paper(extension):
    tag = extension("statements").PAPER_NUMBER
    assert tag.match("\n% P1 (8)\nx = y")[1] == "P1 (8)"
    assert tag.match("% P2 (28), (29) \nx")[1] == "P2 (28), (29)"
    assert not tag.match("x % P1 (8)\n") and not tag.match("% a remark\nx")


def test_the_error_page_finds_its_styles_under_any_address(extension):
    at_home = extension("page").at_home
    links = '<a href="#main">x</a><a href="/other/">y</a>'
    page = f'<head><link href="/book/_static/a.css" /></head>{links}'
    made = at_home(page, "/book/")
    assert '<base href="/book/" />' in made and 'href="_static/a.css"' in made
    assert 'href="#main"' in made and 'href="/other/"' in made
    at_root = at_home('<head></head><img src="/_static/b.svg"><a href="//host/x">', "/")
    assert 'src="_static/b.svg"' in at_root and 'href="//host/x"' in at_root
