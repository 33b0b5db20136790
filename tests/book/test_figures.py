"""Figures: one SVG that holds both forms, themed by variables, with letters for a phone too."""

import ast
import html
import re

import jupytext
import numpy as np
import pytest

from expertbank.book import figures
from expertbank.book.figures.style import LINE_LOOKS, legend_below, panel_canvas, smooth_curve
from expertbank.book.figures.vector import NAMED, both_forms
from expertbank.book.palette import DARK, LIGHT, style_sheet
from references import ROOT, chapters
from wings import LIBRARY

# the least contrast with the ground of what is drawn, and of what is written
LINES = 3
LETTERS = 4.5
WRITTEN = ("ink", "grey")
DECORATION = ("paper", "light")  # the ground, and lines of a grid


def two_panels(shared_legend=False):
    figure, (left, right) = panel_canvas(2)
    for ax in (left, right):
        for place, look in enumerate(LINE_LOOKS):
            ax.plot([0, 1, 2], [place, place + 1, place], label=f"line {place}", **look)
        ax.set(
            xlabel="rate $I(X;T)$, nats", ylabel="a quantity with a name that is far too long here"
        )
        if not shared_legend:
            ax.legend()
    if shared_legend:
        legend_below(figure, 4)
    return figure


def forms(figure):
    svg = both_forms(figure)
    narrow = re.search(r"<metadata>(.*?)</metadata>", svg, re.S)
    return svg.replace(narrow[0], ""), html.unescape(narrow[1])


def test_the_same_figure_is_the_same_text():
    assert both_forms(two_panels()) == both_forms(two_panels())


def test_a_figure_stays_as_it_was_when_it_has_been_shown():
    figure = two_panels()
    size = tuple(figure.get_size_inches())
    places = [ax.get_subplotspec().colspan.start for ax in figure.axes]
    assert "image/svg+xml" in figure._repr_mimebundle_()
    assert tuple(figure.get_size_inches()) == size
    assert [ax.get_subplotspec().colspan.start for ax in figure.axes] == places == [0, 1]
    assert all(ax.get_legend()._ncols == 1 for ax in figure.axes)


def test_a_legend_of_the_figure_stays_where_it_was():
    figure = two_panels(shared_legend=True)
    wide, narrow = forms(figure)
    assert len(figure.legends) == 1 and figure.legends[0]._ncols == 4
    assert all(f"line {place}" in form for place in range(7) for form in (wide, narrow))


def test_colours_are_variables_and_ids_are_nobody_elses():
    ids = set()
    for svg in (*forms(two_panels()), *forms(figures.bank_protocol())):
        bare = re.sub(r"var\([^)]*\)", "", svg)
        for colour in NAMED:
            assert colour not in bare.lower()
        own = re.findall(r' id="([^"]+)"', svg)
        assert len(own) == len(set(own)) and not ids & set(own)
        ids |= set(own)
        for target in re.findall(r'(?:url\(|href=")#([^")]+)', svg):
            assert target in own
        assert "<script" not in svg and "2026" not in svg


def test_the_narrow_form_fits_a_phone_and_can_be_read_there():
    wide, narrow = forms(two_panels())
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', narrow).groups())
    assert int(re.search(r'width="(\d+)"', narrow)[1]) <= 350
    assert height > 1.5 * width, "two panels stand below each other"
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )*([\d.]+)px", narrow)]
    assert len(sizes) > 20 and min(sizes) * 4 / 3 >= 11
    assert len(re.findall("line 0", wide)) == len(re.findall("line 0", narrow))


@pytest.mark.parametrize("width", [5.6, 7.8])
def test_no_letter_of_the_wide_form_is_too_small(width):
    figure, (ax,) = panel_canvas(width=width)
    ax.plot([0, 1], label="a line")
    ax.legend(fontsize=6)
    ax.set_title("a title", fontsize=7)
    wide, _ = forms(figure)
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", wide)]
    shown = min(4 / 3, 674 / (72 * width))  # pixels of a point, at the width of the page
    assert "a line" in wide and min(sizes) * shown >= 11


@pytest.mark.parametrize("label", ["$R_S$", "$10^{-3}$", r"$\sum_i x_i$"])
def test_an_index_too_small_to_read_is_refused(label):
    figure, (ax,) = panel_canvas()
    ax.set_xlabel(label)
    with pytest.raises(ValueError, match="at least 11 are allowed"):
        both_forms(figure)


def test_a_root_with_a_bar_is_refused():
    figure, (ax,) = panel_canvas()
    ax.plot([0, 1], label=r"$\sqrt{2I/m}$")
    ax.legend()
    with pytest.raises(ValueError, match="write √"):
        both_forms(figure)


@pytest.mark.parametrize("base", [10, 2])
def test_powers_on_an_axis_are_text(base):
    figure, (ax,) = panel_canvas()
    ax.plot([1, base**6], [0.2, 0.9])
    ax.set_xscale("log", base=base)
    ax.set_yscale("log")
    for svg in forms(figure):
        texts = set(re.findall(r"<text[^>]*>([^<]+)</text>", svg))
        assert {f"{base}⁰", f"{base}²", f"{base}⁴"} <= texts or {f"{base}¹", f"{base}³"} <= texts
        assert "3×10⁻¹" in texts and "tspan" not in svg


def test_a_smooth_curve_goes_through_its_points_and_has_no_kink():
    x = np.array([0, 0.25, 0.5, 0.7, 0.9, 1])
    for y in (x**2, np.exp(3 * x), np.sin(6 * x)):
        fine_x, fine_y = smooth_curve(x, y, parts=200)
        assert np.allclose(fine_x[::200], x) and np.allclose(fine_y[::200], y)
        turn = np.diff(np.unwrap(np.arctan2(np.diff(fine_y), np.diff(fine_x))))
        chords = np.diff(np.unwrap(np.arctan2(np.diff(y), np.diff(x))))
        assert np.abs(turn).max() < 0.2 * np.abs(chords).max()
        assert fine_y.min() >= y.min() - 1e-12 and fine_y.max() <= y.max() + 1e-12
    straight = smooth_curve([0.1, 1, 10], [2, 20, 200], "xy")
    assert np.allclose(straight[1], 20 * straight[0])
    assert smooth_curve([0, 1], [0, 1])[0].tolist() == [0, 1]


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_colour_stands_out_from_the_ground(theme):
    ground = luminance(theme["paper"])
    for name, colour in theme.items():
        if name in DECORATION:
            continue
        high, low = sorted([luminance(colour), ground], reverse=True)
        least = LETTERS if name in WRITTEN else LINES
        assert (high + 0.05) / (low + 0.05) >= least, (name, colour)


def test_one_list_of_colours_serves_figures_and_explorers():
    defined = re.findall(r"--book-(\w+): (#\w{6})", style_sheet())
    assert defined == [*LIGHT.items(), *DARK.items()]
    explorers = (LIBRARY / "book" / "explorers" / "explorer.css").read_text()
    used = re.findall(r"var\(--book-(\w+)\)", explorers)
    assert set(used) <= set(LIGHT) and len(used) >= 10
    looks = [look["color"] for look in LINE_LOOKS]
    assert looks == [
        LIGHT[name] for name in re.findall(r"--look-\d: var\(--book-(\w+)\)", explorers)
    ]
    written = [
        explorers,
        *(path.read_text() for path in (ROOT / "chapters/_static").glob("f*.css")),
    ]
    written += [path.read_text() for path in (LIBRARY / "book" / "figures").glob("*.*")]
    for text in written:
        found = set(re.findall(r"#[0-9a-fA-F]{6}\b", text))
        assert found <= {"#000000", "#ffffff"}, found


def test_every_number_is_printed_as_it_was_drawn():
    figure, (ax,) = panel_canvas()
    ax.plot([0, 1], [0.0011, 0.0059], label="band 0.001")
    ax.text(0.2, 0.003, "mean 0.0056")
    ax.legend()
    drawn = {"0.001", "0.002", "0.003", "0.004", "0.005", "mean 0.0056", "band 0.001"}
    for svg in forms(figure):
        assert drawn <= set(re.findall(r"<text[^>]*>([^<]+)</text>", svg))


def test_the_colour_under_a_hatch_is_a_variable_too():
    figure, _ = panel_canvas()
    figure.axes[0].bar([0], [1], color=LINE_LOOKS[4]["color"], hatch="//")
    for svg in forms(figure):
        assert "<pattern" in svg
        assert LINE_LOOKS[4]["color"] not in re.sub(r"var\([^)]*\)", "", svg)


# --- every mark has a name ---

DRAWING = {"plot", "semilogx", "semilogy", "loglog", "fill_between", "axhline", "axvline", "hist"}
DRAWING |= {"axhspan", "axvspan", "bar", "barh", "errorbar", "vlines", "hlines", "scatter"}
DRAWING |= {"smooth_line", "smooth_band", "hatched"}
# figures with marks that no label names, and the words for them in their captions
NAMED_IN_CAPTION = {
    "gate_sharpness": ["shaded below", "hatched band"],
    "rate_estimators": ["bands of one standard deviation"],
    "decoupling": ["a peak (marked)"],
    "alpha_plane": ["Error bars are two standard errors"],
    "alpha_grid": ["every colour and style"],
    "bsc_information": ["crosses less line", "the band"],
    "bank_gap_histogram": ["Gaps of", "the bound on either side"],
    "curve_bands": ["horizontal lines"],
    "cost_surface": ["a line for each exchange rate"],
    "benchmark_peers": ["dashed line", "Open markers"],
    "sensitivity_grid": ["Open marks"],
    "interval_in_context": ["Middle lines", "one tick each"],
    "rules_plane": ["Every rule at every sample size"],
    "bound_ratios": ["the line at 1 is the gap"],
    "selection_ratios": ["the line at 1", "Shades reach"],
    "bound_waterfall": ["a bar is as long as", "a thin line"],
    "counting_ratios": ["line at 1"],
    "arm_intervals": ["line at 0", "with intervals"],
    "families_of_data": ["in the shade 95 %"],
    "spread_decides": ["median and 90 % range"],
    "ladder_bars": ["the gap (dashed line)"],
    "verdict_bars": ["The bars of the other colour"],
}


def name_of_call(call):
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def has_label(call, labelled):
    for keyword in call.keywords:
        given = getattr(keyword.value, "id", None)
        if keyword.arg == "label" or (keyword.arg is None and given in labelled):
            return True
    return False


def is_baseline(call):
    """A thin grey line at zero, which is part of the axes."""
    zero = name_of_call(call) == "axhline" and getattr(call.args[0], "value", None) == 0
    return zero and "color=GREY" in ast.unparse(call)


def marks_without_a_label(function):
    labelled = set()
    named_later = ast.unparse(function).split(".set_label(")[:-1]
    labelled_artists = {part.split()[-1].split("[")[0] for part in named_later}
    for node in ast.walk(function):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if "label" in [getattr(key, "value", None) for key in node.value.keys]:
                labelled.add(target.id)
    kept = {
        id(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in labelled_artists
    }
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and name_of_call(call) in DRAWING and id(call) not in kept:
            merged = any(isinstance(keyword.value, ast.BinOp) for keyword in call.keywords)
            if not (has_label(call, labelled) or merged or is_baseline(call)):
                yield ast.unparse(call)


def returns_a_figure(function):
    return function.returns is not None and ast.unparse(function.returns) == "Figure"


def drawing_functions():
    for path in sorted((LIBRARY / "book" / "figures").glob("*.py")):
        if path.stem not in ("style", "vector"):
            for function in ast.parse(path.read_text()).body:
                if isinstance(function, ast.FunctionDef) and returns_a_figure(function):
                    yield function


def captions():
    """(function of a figure, its caption) for every figure of the book."""
    drawing = {function.name for function in drawing_functions()}
    for chapter in chapters():
        for cell in jupytext.read(chapter).cells:
            caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
            for function in re.findall(r"figures\.(\w+)\(", cell.source):
                if function not in drawing:
                    continue  # numbers for a table
                assert caption, (chapter.stem, function)
                yield function, " ".join(caption.split())


def test_every_mark_is_named_by_a_label_or_in_the_caption():
    unnamed = {
        function.name: marks
        for function in drawing_functions()
        if (marks := list(marks_without_a_label(function)))
    }
    assert unnamed.keys() == NAMED_IN_CAPTION.keys(), unnamed
    found = list(captions())
    for function, words in NAMED_IN_CAPTION.items():
        own = [caption for name, caption in found if name == function]
        assert own, f"{function} is in no chapter"
        for caption in own:
            assert all(word in caption for word in words), (function, caption)


def test_a_mark_without_a_name_is_found():
    lines = ["ax.plot(x, y)", "look = {'label': 'D'}", "ax.plot(x, y, **look)"]
    lines += ["ax.axhline(0, color=GREY)", "kept = ax.plot(z)", "kept[0].set_label('one')"]
    function = ast.parse("def figure(ax):\n    " + "\n    ".join(lines)).body[0]
    assert list(marks_without_a_label(function)) == ["ax.plot(x, y)"]
