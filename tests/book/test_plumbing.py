"""How much of a chapter's visible code only carries things about: imports, tables, checks; and
whether all of it can be read without scrolling."""

import ast
import re

import jupytext
import nbformat
import pytest

from references import REFERENCES, ROOT, chapters

NAMES = [chapter.stem for chapter in chapters()]
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
# calls that show a thing and compute nothing
SHOWING = {"table", "show", "source", "display"}
TABLES = {"table"}
GROWING = {"append", "extend", "insert"}
LARGEST_SHARE = 0.08
WIDEST = 76

# chapters that are still to be written anew; whoever has done one takes it out
WITH_PLUMBING: set[str] = set()
TOO_WIDE: set[str] = set()
WITHOUT_CAPTIONS: set[str] = set()


def visible(name):
    """The sources of the code cells that a reader sees unfolded."""
    cells = jupytext.read(ROOT / "chapters" / f"{name}.md").cells
    return [
        cell.source
        for cell in cells
        if cell.cell_type == "code" and not HIDDEN & set(cell.metadata.get("tags", []))
    ]


def called(node):
    """The name of the function or method that an expression calls."""
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def parts_of_tables(tree):
    """Names of a cell that tables are made of."""
    calls = [node for node in ast.walk(tree) if called(node) in TABLES]
    inside = [node for call in calls for part in ast.walk(call) for node in [part]]
    return {node.id for node in inside if isinstance(node, ast.Name)} - TABLES


def names_of(target):
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


def is_plumbing(node, parts):
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.Assert)):
        return True
    if isinstance(node, ast.Assign):
        given = set().union(*map(names_of, node.targets))
        # a table's rows, headers and formats, unless a function of the library made them
        makes = isinstance(node.value, (ast.List, ast.ListComp, ast.Tuple, ast.Dict, ast.DictComp))
        return makes and given <= parts
    if isinstance(node, ast.Expr):
        grows = called(node.value) in GROWING and names_of(node.value.func) <= parts
        return called(node.value) in SHOWING or grows
    return False


def lines_of(source):
    """Numbers of the lines that hold code, and of those that are plumbing."""
    # the magics of IPython are no Python
    tree = ast.parse("\n".join("" if x[:1] in "%!" else x for x in source.splitlines()))
    parts = parts_of_tables(tree)
    code, plumbing = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            lines = range(node.lineno, node.end_lineno + 1)
            if not hasattr(node, "body"):
                code.update(lines)
            else:
                code.update(range(node.lineno, node.body[0].lineno))
            if is_plumbing(node, parts):
                plumbing.update(lines)
    return code, plumbing


def share(sources):
    """The part of the visible lines of code that is plumbing, from 0 to 1."""
    counts = [lines_of(source) for source in sources]
    code = sum(len(lines) for lines, _ in counts)
    return sum(len(lines) for _, lines in counts) / max(code, 1)


def still(names):
    """Every chapter, those in `names` expected to fail."""
    due = pytest.mark.xfail(strict=True, reason="to be written anew")
    return [pytest.param(name, marks=due) if name in names else name for name in NAMES]


@pytest.mark.parametrize("name", still(WITH_PLUMBING))
def test_visible_code_is_there_to_be_read(name):
    assert share(visible(name)) < LARGEST_SHARE


@pytest.mark.parametrize("name", still(TOO_WIDE))
def test_visible_code_fits_the_page(name):
    wide = [line for source in visible(name) for line in source.splitlines() if len(line) > WIDEST]
    assert wide == []


@pytest.mark.parametrize("name", still(WITHOUT_CAPTIONS))
def test_every_table_comes_from_one_function(name):
    source = (ROOT / "chapters" / f"{name}.md").read_text()
    assert not re.search(r"\bhtml_table\b|tabulate|to_html|<table", source)


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_shown_as_python_writes_it(name):
    stored = nbformat.read(REFERENCES / f"{name}.ipynb", as_version=4).cells
    results = [
        output.data["text/plain"]
        for cell in stored
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result" and set(output.data) == {"text/plain"}
    ]
    assert [text for text in results if text.startswith(("'", '"', "np.", "array("))] == []


def test_no_exception_is_left_over():
    assert set(NAMES) >= WITH_PLUMBING | TOO_WIDE | WITHOUT_CAPTIONS


@pytest.mark.parametrize(
    ("source", "code", "plumbing"),
    [
        ("import numpy as np\n\nx = 1", {1, 3}, {1}),
        (
            "rows = [\n    (a, f(a))\n    for a in b\n]\ntable(rows, h, 'C.')",
            {1, 2, 3, 4, 5},
            {1, 2, 3, 4, 5},
        ),
        (
            "rows = []\nfor a in b:\n    c = f(a)\n    rows.append(c)\ntable(rows, ['c'], 'C.')",
            {1, 2, 3, 4, 5},
            {1, 4, 5},
        ),
        ("found = f(x)\ntable(found, ['c'], 'C.')", {1, 2}, {2}),
        ("pairs = [f(x) for x in y]\nprint(pairs)\nassert pairs", {1, 2, 3}, {3}),
        ("# why\nshow('a', f'{x:.2f}')", {2}, {2}),
    ],
)
def test_plumbing_is_told_from_code(source, code, plumbing):
    assert lines_of(source) == (code, plumbing)


def shows(cell):
    """Whether something is seen below the folded code of a cell that was executed."""
    if "hide-cell" in cell.metadata.get("tags", []):
        return False
    # numbers for the text are kept where nobody sees them
    return any(
        output.output_type == "stream" or not any("papermill" in kind for kind in output.data)
        for output in cell.outputs
    )


def bare_bars(cells):
    """Folded cells that show nothing and have the bar of another folded cell right below."""
    found = []
    above = None
    for cell in cells:
        tags = set(cell.metadata.get("tags", []))
        if "remove-cell" in tags:
            continue
        is_folded = cell.cell_type == "code" and bool(tags & {"hide-input", "hide-cell"})
        if is_folded and above is not None:
            found.append(above.source)
        above = cell if is_folded and not shows(cell) else None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_bar_of_folded_code_stands_right_above_another(name):
    assert bare_bars(nbformat.read(REFERENCES / f"{name}.ipynb", as_version=4).cells) == []


def test_bars_are_told_from_what_is_seen():
    def cell(source, tag, *kinds):
        outputs = [nbformat.v4.new_output("display_data", {kind: ""}) for kind in kinds]
        return nbformat.v4.new_code_cell(source, metadata={"tags": [tag]}, outputs=outputs)

    text = nbformat.v4.new_markdown_cell("words")
    table = cell("a table", "hide-input", "text/html")
    number = cell("a number", "hide-input", "application/papermill.record/text/plain")
    checks = cell("checks", "hide-cell", "text/html")
    gone = cell("gone", "remove-cell")
    assert bare_bars([table, table, text, number, text, checks]) == []
    assert bare_bars([number, gone, checks, table]) == ["a number", "checks"]


@pytest.mark.parametrize("name", NAMES)
def test_no_caption_names_a_colour_that_turns_in_the_dark(name):
    cells = jupytext.read(ROOT / "chapters" / f"{name}.md").cells
    figures = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in cells]
    captions = " ".join(figure.get("caption", "") for figure in figures)
    assert not re.findall(r"\b(?:black|white|dark|light)\b", captions)
