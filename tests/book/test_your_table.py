"""Anyone's loss table as a page: `expertbank curve` and `expertbank bounds` with --html."""

import json
import re

import numpy as np
import pytest

from expertbank import critical_lambda, rate_distortion, simulate, xu_raginsky_bound
from expertbank.book.your_table import explore_choice, explore_curve, facts, page
from expertbank.cli import main

TABLES = {
    "mistakes": np.random.default_rng(0).integers(0, 2, (300, 4)),
    "any losses": np.random.default_rng(1).normal(2, 30, (200, 5)),
    "one expert wins": np.array([[0.0, 1.0], [0.0, 1.0]]),
    "all the same": np.zeros((3, 2)),
    "a tie": np.array([[0.0, 1.0], [1.0, 0.0]]),
    "tiny losses": np.random.default_rng(2).random((50, 3)) * 1e-9,
}


@pytest.fixture(params=TABLES, ids=str)
def losses(request):
    return TABLES[request.param]


def reading(scene, name):
    return next(one.value for one in scene.readings if one.name == name)


def test_the_curve_is_the_solvers(losses):
    explorer = explore_curve(losses)
    lam = explorer.start()["lam"]
    scene = explorer.scene(lam=lam)
    point = rate_distortion(losses, lam)
    assert reading(scene, "rate") == pytest.approx(point.rate, abs=1e-6)
    assert reading(scene, "mean loss") == pytest.approx(point.distortion, rel=1e-6, abs=1e-15)
    assert reading(scene, "price at which routing stops") == critical_lambda(losses)
    [panel] = scene.panels
    band = panel.series[0]
    assert (np.asarray(band.y) <= np.asarray(band.top) + 1e-12 * np.ptp(losses)).all()
    assert min(np.min(series.y) for series in panel.series) >= panel.y.low - 1e-9
    assert explorer.packed()["columns"]


def test_the_selection_is_the_simulations(losses):
    explorer = explore_choice(losses, n_datasets=500)
    scene = explorer.scene(alpha=1.0, sample_size=64)
    run = simulate(losses, 1.0, 64, 20_000, rng=3)
    spread = np.ptp(losses)
    assert reading(scene, "information I(S;W)") == pytest.approx(run.information, abs=0.1)
    assert reading(scene, "gap") == pytest.approx(run.gap, abs=0.02 * spread + 1e-12)
    width = 1.0 if losses.min() >= 0 and losses.max() <= 1 else spread
    bound = xu_raginsky_bound(reading(scene, "information I(S;W)"), 64, width / 2)
    assert reading(scene, "bound of Theorem 1") == pytest.approx(bound)
    assert explorer.packed()["columns"]


def test_facts_count_what_is_there():
    rows = np.array([[0, 1, 1], [0, 1, 1], [1, 0, 1]])
    said = " ".join(facts(rows))
    assert "3 inputs, 3 experts" in said and "2 of the rows" in said and "number 0" in said
    with pytest.raises(ValueError, match="shape"):
        facts([0.0, 1.0])


@pytest.mark.parametrize("command", ["curve", "bounds"])
def test_a_page_needs_no_other_file(command, tmp_path, browser, capsys):
    table = tmp_path / "<b>losses & more.npy"
    np.save(table, TABLES["mistakes"])
    out = tmp_path / "out.html"
    assert main([command, str(table), "--html", str(out)]) == 0
    printed = capsys.readouterr().out
    text = out.read_text()
    assert not re.search(r"<(link|img|script|iframe)[^>]*\s(src|href)=", text)
    assert "<b>losses" not in text
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    problems = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.route("http*://**/*", lambda route: problems.append(route.request.url) or route.abort())
    tab.goto(out.as_uri())
    tab.locator(".explorer-svg svg").first.wait_for()
    before = tab.locator(".explorer-readings").inner_text()
    tab.locator(".explorer-dial input").first.press("ArrowLeft")
    tab.wait_for_function(
        "before => document.querySelector('.explorer-readings').innerText !== before", arg=before
    )
    width = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    # the numbers of the shell stand in the page too
    last = [line for line in printed.splitlines() if line.strip()][-1]
    numbers = re.findall(r"\d\.\d{4}", last)[:1] if command == "bounds" else [last.split(",")[0]]
    assert all(number in tab.locator("table").last.inner_text() for number in numbers)
    assert problems == []
    tab.close()


def test_bad_wishes_get_a_sentence(tmp_path, capsys, monkeypatch):
    table = tmp_path / "losses.npy"
    np.save(table, TABLES["mistakes"])
    assert main(["curve", str(table), "--html", str(table)]) == 2
    assert "same file" in capsys.readouterr().err
    assert main(["curve", str(table), "--stream", "--html", str(tmp_path / "out.html")]) == 2
    assert "--html draws a table that fits in memory" in capsys.readouterr().err
    monkeypatch.setattr(page, "SCRIPT", tmp_path / "none.js")
    assert main(["curve", str(table), "--html", str(tmp_path / "out.html")]) == 2
    assert "needed to draw" in capsys.readouterr().err
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["losses.npy"]'
