"""Cells that a page runs, and figures where Matplotlib is not."""

import json

import numpy as np
import pytest

from expertbank.book.cells import Notebook
from expertbank.book.explorers import explore_bsc
from expertbank.book.figures import style
from expertbank.book.figures.sketch import NotSketched, plain


@pytest.fixture
def said():
    return []


@pytest.fixture
def notebook(said):
    return Notebook(lambda kind, text: said.append((kind, text)))


@pytest.fixture
def sketched(monkeypatch):
    """Figures as in a page."""
    monkeypatch.setattr(style, "WITH_MATPLOTLIB", False)
    return style


def run(notebook, code):
    return json.loads(notebook.run(code, "cell 1"))


def test_a_cell_prints_warns_and_shows_its_last_value(notebook, said):
    answer = run(notebook, "import sys\nprint('a')\nprint('b', file=sys.stderr)\ndisplay(1)\n2")
    assert answer == {"error": "", "missing": [], "note": "", "numbers": {}}
    shown = [("shown", json.dumps({"kind": "text", "text": text})) for text in "12"]
    assert said == [("out", "a\n"), ("err", "b\n"), *shown]


def test_a_mistake_is_told_at_its_line_and_names_no_line_of_ours(notebook):
    answer = run(notebook, "def half(x):\n    return 1 / x\n\nhalf(0)")
    assert "return 1 / x" in answer["error"] and answer["error"].endswith("division by zero\n")
    assert "cells.py" not in answer["error"]
    assert "SyntaxError" in run(notebook, "a b")["error"]
    assert "NameError" in run(notebook, "never_made")["error"]


def test_what_the_page_has_not_is_told_and_so_is_what_would_need_it(notebook, said):
    code = "import numpy as np\nimport torch_of_old.nn as nn\nkept = np.ones(2)\n"
    answer = run(notebook, code)
    assert answer["missing"] == ["torch_of_old"] and "torch_of_old" in answer["note"]
    assert run(notebook, "kept.sum()")["missing"] == []
    assert run(notebook, "layer = nn.Linear(2)\nafter = 1")["missing"] == ["torch_of_old"]
    for name in ("layer", "after"):
        answer = run(notebook, name)
        assert answer["missing"] == ["torch_of_old"] and not answer["error"]
    code = (
        "from importlib.util import find_spec\nif find_spec('torch_of_old'):\n    raise SystemExit"
    )
    assert run(notebook, code)["missing"] == ["torch_of_old"]


def test_what_is_left_half_made_is_told_by_all_that_takes_it(notebook):
    run(
        notebook,
        "rows, few = [], {}\nfor name in 'ab':\n    import torch_of_old\n    rows.append(name)",
    )
    for code in (
        "rows[0]",
        "from_it = [row for row in rows]",
        "later = []\nfor row in from_it:\n    later.append(row)\nlater[0]",
    ):
        answer = run(notebook, code)
        assert not answer["error"], code
    assert answer["missing"] == ["torch_of_old"]
    # a mistake stays one: own names of a loop, and names made anew
    assert "ZeroDivisionError" in run(notebook, "for name in 'a':\n    1 / 0")["error"]
    assert "IndexError" in run(notebook, "rows = []\nrows[0]")["error"]
    assert "IndexError" in run(notebook, "few = [1]\nfew[2]")["error"]


def test_numbers_of_the_text_come_with_the_answer(notebook):
    code = "from expertbank.book.numbers import numbers_of\nnumbers_of('bsc')('one', '0.1')"
    assert run(notebook, code)["numbers"] == {"bsc_one": "0.1"}


def test_an_explorer_is_shown_where_it_stands_and_answers_its_dials(notebook, said):
    run(notebook, "from expertbank.book.explorers import explore_bsc\nexplore_bsc()")
    shown = json.loads(said[0][1])
    own = explore_bsc()
    assert shown["scene"] == own.scene(**own.start()).to_json()
    moved = own.start() | {"beta": 0.123}
    scene = json.loads(notebook.scene(shown["place"], json.dumps(moved)))
    assert scene == own.scene(**moved).to_json() != shown["scene"]


# --- figures ---


def draw(style, refuse=False):
    figure, (left, right) = style.panel_canvas(2)
    x = np.array([1.0, 10, 100])
    left.semilogx(x, x**0.5, "o", color=style.RED, label=r"points $\beta$")
    style.smooth_line(left, x, 2 * x, "x", label="line")
    left.fill_between(x, x, 3 * x, color=style.SKY, where=x > 5, label="band")
    left.axhspan(2, 3, color=style.PINK, label="between")
    left.axhline(7, color=style.BLACK, label="level")
    left.set(xlabel="$x$", ylabel="y", ylim=(0, 20), title="left")
    right.barh(["a", "b"], [1, 2], color=style.BLUE, label="bars")
    right.errorbar([1, 2], [0.5, 0.6], [0.1, 0.2], fmt="x", color=style.GREEN, label="±")
    if refuse:
        right.barh(["a", "b"], [1, 2], left=[1, 2])
    style.legend_below(figure, 3)
    return figure


def test_a_sketch_has_the_lines_axes_and_names_of_the_figure(sketched, monkeypatch):
    left, right = draw(sketched).scene().panels
    kinds = {one.name: (one.kind, one.look) for one in left.series}
    assert kinds == {
        "points β": ("dots", 1),
        "line": ("line", 0),
        "band": ("band", 6),
        "between": ("band", 3),
    }
    assert [(mark.name, mark.y, mark.kind) for mark in left.marks] == [("level", 7, "rule")]
    assert (left.title, left.x.label, left.x.scale, left.y.low, left.y.high) == (
        ("left", "x", "log", 0, 20)
    )
    band, between = left.series[-2:]
    assert between.x.tolist() == [left.x.low, left.x.high] and between.top.tolist() == [3, 3]
    assert np.isnan(band.y[0]) and band.top.tolist()[1:] == [30, 300]
    assert right.y.categories == ("b", "a")  # from the top down
    names = [one.name for one in right.series]
    assert names == ["bars", "±", ""]
    monkeypatch.undo()
    drawn = draw(style).axes
    assert drawn[0].get_xlim()[0] == pytest.approx(left.x.low)
    labels = drawn[0].get_legend_handles_labels()[1]
    assert [plain(name) for name in labels] == [*kinds, "level"]


def test_what_a_scene_cannot_hold_is_refused_and_the_page_keeps_its_picture(
    sketched, notebook, said
):
    with pytest.raises(NotSketched):
        draw(sketched, refuse=True)
    code = "from expertbank.book import figures\nfigures.bank_protocol()"
    assert not run(notebook, code)["error"]
    assert said == [("shown", '{"kind": "kept"}')]
