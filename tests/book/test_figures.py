"""Figures: one SVG that holds both forms, themed by variables, with letters for a phone too."""

import html
import re

import numpy as np
import pytest

from expertbank.book import figures
from expertbank.book.figures.style import LINE_LOOKS, legend_below, panel_canvas
from expertbank.book.figures.vector import NAMED, both_forms
from references import ROOT

STYLE = (ROOT / "chapters" / "_static" / "figures.css").read_text()
# grounds of the theme, light and dark, and the least contrast of a line and of a letter
GROUNDS = {"light": "#ffffff", "dark": "#14181e"}
LEAST = {"ink": 4.5}


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
    # of a formula its first letter counts: subscripts are smaller, as everywhere
    letters = [re.search(r"font-size: ([\d.]+)px", text) for text in narrow.split("<text")[1:]]
    sizes = [float(found[1]) for found in letters]
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


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("theme", GROUNDS)
def test_every_colour_stands_out_from_the_ground(theme):
    colours = {name: colour for colour, name in NAMED.items()}
    if theme == "dark":
        rule = re.search(r'html\[data-theme="dark"\] \{(.*?)\}', STYLE, re.S)[1]
        found = dict(re.findall(r"--fig-(\w+): (#\w{6})", rule))
        assert set(colours) <= set(found), "a colour has no dark form"
        colours = found
    colours.pop("paper"), colours.pop("light", None)
    ground = luminance(GROUNDS[theme])
    for name, colour in colours.items():
        high, low = sorted([luminance(colour), ground], reverse=True)
        least = LEAST.get(name, 3 if theme == "dark" else 2)
        assert (high + 0.05) / (low + 0.05) >= least, (name, colour)


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
        assert "#e69f00" not in re.sub(r"var\([^)]*\)", "", svg)
