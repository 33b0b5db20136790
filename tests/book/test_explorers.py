"""What carries a scene to a reader: the packed grid, the module that draws, the widget of a kernel.

The scenes themselves are in `test_scenes.py`, the page in `test_browser.py`.
"""

import gzip
import json
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import cycle, islice
from statistics import median
from time import perf_counter
from xml.etree import ElementTree

import ipywidgets
import numpy as np
import pytest

from expertbank.book.explorers import EXPLORERS, grid, widget
from expertbank.book.explorers.explorer import Dial, Explorer
from expertbank.book.explorers.scene import Axis, Mark, Panel, Reading, Scene, Series, Track
from references import ROOT
from support import refused, say, say_time, skip_or_fail

EXTENSIONS = ROOT / "chapters" / "_ext"
BUNDLE = widget.MODULE
BETAS = np.linspace(0, 10, 51).tolist()
SIZES = np.geomspace(1, 1000, 51).tolist()
every_explorer = pytest.mark.parametrize("name", EXPLORERS)

# writes what `unpack` makes of a grid, for places given as a list of pairs
UNPACK = """
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { packed, places } = JSON.parse(Buffer.concat(chunks));
process.stdout.write(JSON.stringify(places.map(unpack(packed))));
"""


def every_kind(beta, size=10.0):
    """A scene of every kind of series, mark, axis and reading, with a point that is missing."""
    x = np.linspace(0, 1, 21)
    y = np.exp(-beta * x) / np.sqrt(size)
    falling = np.where(x < beta / 10, y, np.nan)
    rate = Axis("rate (nats)", 0, 1)
    loss = Axis("loss", 1e-6, 2, "log")
    names = Axis("bound", -0.5, 2.5, categories=("union & more", "<Okamoto>", "exact"))
    curves = Panel(
        rate,
        loss,
        [
            Series("D(R)", x, y, look=5),
            Series("90% of runs", x, 0.9 * y, "band", 1, 1.1 * y),
            Series("gates", x, falling, "dots", 2),
        ],
        [
            Mark("here", beta / 10, 1 / size),
            Mark("P2", 0.5, 0.5, "cross", 4, low=0.4, high=0.6),
            Mark("no gate", 0, 0.8, "rule", 5),
            Mark("capacity", np.log(2), 0.1, "post", 5),
        ],
        Track("beta", BETAS, np.array(BETAS) / 10, np.full(51, 1 / size)),
        title="curves",
    )
    lying = Panel(
        Axis("multiple", 1, 100, "log"), names, [Series("", y[:3] * 9 + 1, [0, 1, 2], "bars")]
    )
    standing = Panel(
        Axis("expert", -0.5, 2.5, categories=("a", "b", "c")),
        Axis("load", 0, 1),
        [Series("before", [0, 1, 2], y[:3], "bars"), Series("now", [0, 1, 2], y[3:6], "bars", 1)],
    )
    readings = [
        Reading("I(S;W)", beta * size, 3, "nats", error=0.01),
        Reading("small", np.exp(-beta) / 1e5, -3),
        Reading("missing", np.nan if beta > 5 else 1.0, 2),
    ]
    return Scene([curves, lying, standing], readings)


def explorer_of(scene=every_kind, **dials):
    dials = dials or {
        "beta": Dial("inverse temperature", 1.0, BETAS, (0, 10, 0.1)),
        "size": Dial("sample size m", SIZES[25], SIZES, (0, 3, "log"), unit="images"),
    }
    return Explorer("toy", scene, dials, "A picture of everything.")


def sliders_of(made):
    return widget.sliders_around(made.scene, made.dials, made.alt)


def node(*arguments, **given):
    """The JSON that Node.js prints."""
    if shutil.which("node") is None:
        skip_or_fail("no Node.js on this machine")
    done = subprocess.run(
        ["node", *arguments], input=json.dumps(given["reads"]), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-1500:]
    return json.loads(done.stdout)


def unpacked(packed, places):
    module = widget.HERE.joinpath("unpack.js").read_text() + UNPACK
    reads = {"packed": packed, "places": places}
    return node("--input-type=module", "--eval", module, reads=reads)


def stills(packed, *widths, plain=False):
    if not BUNDLE.is_file():
        skip_or_fail("the bundle is missing: run `make book`")
    jobs = [{"packed": packed, "width": width, "plain": plain} for width in widths]
    return node(EXTENSIONS / "stills.mjs", BUNDLE, reads=jobs)


def named(things):
    return [{key: part for key, part in thing.items() if isinstance(part, str)} for thing in things]


def assert_alike(shown, scene):
    """What the page has is the scene, within what no eye and no printed digit tells apart."""
    wanted = scene.to_json()
    assert len(wanted["panels"]) == len(shown["panels"])
    for panel, found in zip(wanted["panels"], shown["panels"]):
        assert (panel["x"], panel["y"], panel["title"]) == (found["x"], found["y"], found["title"])
        for kind in ("series", "marks"):
            assert named(panel[kind]) == named(found[kind])
            for thing, seen in zip(panel[kind], found[kind]):
                for name, axis in {"x": "x", "y": "y", "top": "y", "low": "y", "high": "y"}.items():
                    if thing.get(name) is not None:
                        assert_near(thing[name], seen[name], panel[axis])
        if panel["track"]:
            assert panel["track"]["values"] == pytest.approx(found["track"]["values"])
            assert_near(panel["track"]["x"], found["track"]["x"], panel["x"])
    assert named(wanted["readings"]) == named(shown["readings"])
    for reading, seen in zip(wanted["readings"], shown["readings"]):
        if reading["value"] is None:
            assert seen["value"] is None
        else:
            step = 10.0 ** -reading["digits"]
            if reading["digits"] < 0:
                step = 10.0 * reading["value"] / step
            assert seen["value"] == pytest.approx(reading["value"], abs=0.51 * step)


def assert_near(wanted, seen, axis):
    wanted = np.array(wanted, dtype=float)
    seen = np.array(seen, dtype=float)
    room = axis["high"] - axis["low"]
    if axis["scale"] == "log":
        room = np.log(axis["high"] / axis["low"])
        seen = np.log(seen)
        wanted = np.log(wanted)
    assert np.array_equal(np.isnan(wanted), np.isnan(seen))
    assert np.nanmax(np.abs(wanted - seen), initial=0) <= 0.51 * room / grid.PARTS


# --- the packed grid ---


def test_the_module_unpacks_what_was_packed():
    toy = explorer_of()
    places = [(0, 0), (50, 50), (5, 25), (17, 3), (50, 0)]
    shown = unpacked(json.loads(json.dumps(toy.packed())), places)
    for (i, j), scene in zip(places, shown):
        assert_alike(scene, every_kind(BETAS[i], SIZES[j]))


def test_three_dials_are_unpacked_as_they_were_packed():
    def scene(beta, size, shift):
        return every_kind(beta, size + shift)

    shifts = [0.0, 1.0, 7.0]
    dials = {
        "beta": Dial("beta", BETAS[10], BETAS[::10]),
        "size": Dial("size", 1.0, SIZES[:4]),
        "shift": Dial("shift", 0.0, shifts),
    }
    packed = explorer_of(scene, **dials).packed()
    assert (6, 4, 3) in {tuple(column["shape"]) for column in packed["columns"]}
    places = [(0, 0, 0), (5, 3, 2), (2, 0, 1), (3, 1, 0)]
    for (i, j, k), shown in zip(places, unpacked(json.loads(json.dumps(packed)), places)):
        assert_alike(shown, scene(BETAS[10 * i], SIZES[j], shifts[k]))


def test_one_dial_is_enough_and_one_without_stops_stays_where_it_starts():
    def scene(beta, extra):
        return every_kind(beta, extra)

    dials = {
        "beta": Dial("beta", 1.0, BETAS),
        "extra": Dial("extra", 7.0, live=(1, 10, 1)),
    }
    packed = explorer_of(scene, **dials).packed()
    assert [dial["name"] for dial in packed["dials"]] == ["beta"]
    (shown,) = unpacked(packed, [[9]])
    assert_alike(shown, every_kind(BETAS[9], 7.0))


def test_a_number_is_stored_once_for_what_it_depends_on():
    columns = explorer_of().packed()["columns"]
    shapes = {tuple(column["shape"]) for column in columns}
    assert shapes == {(1, 1), (51, 1), (1, 51), (51, 51)}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda panel: replace(panel, y=Axis("loss", 1e-6, 3, "log")), r"panels\[0\]\.y\.high"),
        (lambda panel: replace(panel, series=panel.series[:2]), r"panels\[0\]\.series"),
        (
            lambda panel: replace(
                panel, series=[Series("D(R)", [0, 1], [1, 0], look=5), *panel.series[1:]]
            ),
            r"panels\[0\]\.series\[0\]\.x",
        ),
        (lambda panel: replace(panel, track=None), r"panels\[0\]\.track"),
    ],
)
def test_a_scene_of_another_form_is_refused(change, place):
    def scene(beta):
        found = every_kind(beta)
        if beta < 5:
            return found
        first, *others = found.panels
        return replace(found, panels=[change(first), *others])

    toy = explorer_of(scene, beta=Dial("beta", 1.0, BETAS))
    refused(lambda: toy.packed(), "form", "beta = 5")
    with pytest.raises(ValueError, match=place):
        toy.packed()


def test_dials_that_no_page_can_have_are_refused():
    four = {name: Dial(name, 0, [0, 1]) for name in ("a", "b", "c", "d")}
    refused(lambda: explorer_of(**four).packed(), "dials", "4")
    none = {"a": Dial("a", 0, live=(0, 1, 0.1))}
    refused(lambda: explorer_of(**none).packed(), "dials", "0")
    beside = {"beta": Dial("beta", 0.3, [0, 1])}
    refused(lambda: explorer_of(**beside).packed(), "beta", "0.3")


def test_a_page_gets_the_grid_and_a_kernel_sliders(monkeypatch):
    toy = explorer_of(lambda beta: every_kind(beta), beta=Dial("beta", 1.0, BETAS, (0, 10, 0.1)))
    monkeypatch.setenv("EXPERTBANK_STATIC", "1")
    html = toy._repr_mimebundle_()["text/html"]
    assert html.startswith('<div class="explorer" data-name="toy"><script type="application/json">')
    # a name that looks like markup must not end the script
    assert html.count("<") == 4
    monkeypatch.delenv("EXPERTBANK_STATIC")
    if BUNDLE.is_file():
        assert "application/vnd.jupyter.widget-view+json" in json.dumps(toy._repr_mimebundle_())


@every_explorer
@pytest.mark.slow
def test_every_page_is_light(name, request):
    made = EXPLORERS[name]()
    html = grid.as_html(made.packed())
    size = len(gzip.compress(html.encode()))
    say(request, f"grid of {name}: {size / 1e3:.1f} kB gzip")
    assert size <= 150_000


# --- the module ---


def test_every_kind_is_drawn():
    (html,) = stills(explorer_of().packed(), 688)
    page = ElementTree.fromstring(
        f"<div>{html.replace(' hidden', '')}</div>".replace('step="1">', 'step="1"/>')
    )
    labels = [part.get("aria-label") for part in page.iter()]
    for mark, least in {"line": 1, "area": 1, "dot": 4, "rect": 3, "rule": 3, "text": 2}.items():
        assert labels.count(mark) >= least, mark
    text = "".join(page.itertext())
    for name in (
        "D(R)",
        "90% of runs",
        "gates",
        "here",
        "P2",
        "no gate",
        "capacity",
        "union & more",
        "<Okamoto>",
    ):
        assert name in text, name
    assert "31.623 ± 0.010 nats" in text and "3.68·10⁻⁶" in text
    assert "NaN" not in html and "undefined" not in html and "Infinity" not in html


@pytest.mark.parametrize("width", [298, 358, 640, 688, 1000])
def test_a_still_fits_its_width_and_is_the_whole_picture(width):
    (html,) = stills(explorer_of().packed(), width, plain=True)
    page = ElementTree.fromstring(f"<div>{html}</div>")
    drawn = [part for part in page.iter() if part.get("viewBox") and part.get("width") != "30"]
    assert len(drawn) == 3
    widths = [int(svg.get("width")) for svg in drawn]
    assert max(widths) <= width
    assert max(widths) > (width / 3 if width >= 640 else width - 1)
    assert not [part for part in page.iter() if part.tag in ("input", "button", "script")]
    (picture,) = [part for part in page.iter() if part.get("role") == "img"]
    assert picture.get("aria-label") == "A picture of everything."


def test_parts_of_several_stills_have_their_own_names():
    found = "".join(stills(explorer_of().packed(), 358, 688))
    names = [part.split('"')[1] for part in found.split("<clipPath ")[1:]]
    assert len(names) == len(set(names)) > 4


# the files of a part, and the lines it may have. A page loads the library, its worker and what asks
# it on a click alone; its own tables and cells are pages and buttons of their own.
JAVASCRIPT = {
    "drawing": (r"lib/.*/(explorer|draw|panel|unpack)\.js|.*/stills\.mjs", 400),
    "figures": (r".*/figures\.js", 30),
    "library": (r"lib/.*/(live|from_disk)\.js|.*/live/(worker|compile)\.mjs", 420),
    "tables and cells": (r".*/live/(your_experts|cells)\.js", 620),
    "tests": (r"tests/.*", 100),
}


def test_hand_written_javascript_stays_small():
    listed = subprocess.run(
        ["git", "ls-files", "*.js", "*.mjs"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a checkout")
    lines = {part: [] for part in JAVASCRIPT}
    for name in listed.stdout.split():
        [part] = [part for part, (pattern, _) in JAVASCRIPT.items() if re.fullmatch(pattern, name)]
        for line in (ROOT / name).read_text().splitlines():
            assert len(line) <= 120, (name, line)
            if line.strip() and not line.strip().startswith("//"):
                lines[part].append(line)
    for part, (_, most) in JAVASCRIPT.items():
        assert len(lines[part]) < most, part


# --- the widget ---


@pytest.fixture(autouse=True)
def forget_widgets():
    yield
    ipywidgets.Widget.close_all()


@pytest.fixture
def bundle(monkeypatch, tmp_path):
    """A stand-in for the module, so that the kernel's side is tested without Node.js."""
    file = tmp_path / "explorer.mjs"
    file.write_text("export default {}")
    monkeypatch.setattr(widget, "MODULE", file)
    widget.drawing_module.cache_clear()
    yield file
    widget.drawing_module.cache_clear()


def test_sliders_take_any_value(bundle):
    *sliders, picture = sliders_of(explorer_of()).children
    assert [type(slider) for slider in sliders] == [
        ipywidgets.FloatSlider,
        ipywidgets.FloatLogSlider,
    ]
    assert picture.scene == every_kind(1.0, SIZES[25]).to_json()
    sliders[0].value = 3.3
    sliders[1].value = 123.0
    assert picture.scene == every_kind(3.3, 123.0).to_json()
    assert picture._esm == "export default {}"


def test_a_dragged_ring_moves_its_slider(bundle):
    dials = {
        "beta": Dial("beta", 1.0, BETAS, (0, 10, 0.1)),
        "size": Dial("bank", 10.0, [10.0, 20.0], names=["small", "large"]),
    }
    *sliders, picture = sliders_of(explorer_of(**dials)).children
    picture._handle_custom_msg({"beta": 2.5, "size": 17}, [])
    assert [slider.value for slider in sliders] == [2.5, 20.0]
    assert sliders[1].label == "large"
    picture._handle_custom_msg(picture.start, [])
    assert picture.scene == every_kind(1.0, 10.0).to_json()


def test_without_the_bundle_one_sentence_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(widget, "MODULE", tmp_path / "explorer.mjs")
    widget.drawing_module.cache_clear()
    message = refused(lambda: sliders_of(explorer_of()), "missing", error=FileNotFoundError)
    assert "make book" in message
    assert explorer_of()._repr_mimebundle_() == {"text/plain": message}


@every_explorer
@pytest.mark.slow
def test_a_kernel_answers_every_value(name, bundle, request):
    made = EXPLORERS[name]()
    *sliders, picture = sliders_of(made).children
    for slider, dial in zip(sliders, made.dials.values()):
        values = dial.stops
        if dial.live is not None:
            low, high, step = dial.live
            values = (
                np.geomspace(10.0**low, 10.0**high, 31)
                if step == "log"
                else np.linspace(low, high, 31)
            )
            values = [type(slider.value)(value) for value in values]
        times = []
        shown = set()
        for value in islice(cycle(list(values)[-30:]), 30):
            before = perf_counter()
            slider.value = value
            shown.add(json.dumps(picture.scene, allow_nan=False))
            times.append(1e3 * (perf_counter() - before))
        line = f"{name}, {dial.description}: {median(times):.0f} ms a move"
        say_time(request, line, median(times), 100)
        assert len(shown) > 1, dial.description
