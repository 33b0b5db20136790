"""The scenes of every explorer: one form, every number in its place, and what must be true of them
whatever computed it."""

import itertools
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.stats import spearmanr

from expertbank import (
    critical_lambda,
    entropy,
    information_estimates,
    load_bank,
    rate_distortion,
    rate_distortion_curve,
    simulate,
    top_k_uniform,
    xu_raginsky_bound,
)
from expertbank.book.claims import CLAIMS, TABLE_2
from expertbank.book.explorers import EXPLORERS, explore_bsc, explore_estimators, explore_ladder
from expertbank.book.explorers.banks import gap_quantiles
from expertbank.book.explorers.common import GrowingSamples, winners_of
from expertbank.book.explorers.gates import BANK_TITLES, sharpened
from expertbank.book.explorers.second_look import (
    ALL_NAMES,
    expected_biases,
    rule_points,
    winner_counts,
)
from expertbank.bounds import BY_COUNTS, BY_INFORMATION, BY_THE_GAP
from expertbank.ladder import LadderExperiment
from expertbank.learners import alpha_mixture, draw_experts
from expertbank.shipped.gates import LAMS, gate_family, load_gates
from expertbank.shipped.in_network import sensor_network
from expertbank.shipped.manifest import data_folder
from expertbank.shipped.testbed import load_testbed
from expertbank.synthetic import alpha_curve, moe_bank_losses
from expertbank.theorem2 import theorem2_terms
from references import ROOT

# what the chapters use: dial -> values that must be stops
CHAPTERS_USE = {
    "start": {"n_experts": [25]},
    "alpha_mixture": {"alpha": np.arange(11) / 10, "sample_size": [64, 256, 1024]},
    "bsc": {"beta": [0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10], "crossover": [0.1, 0.2, 0.3, 0.4]},
    "mnist_bank": {"alpha": list(TABLE_2), "sample_size": [256]},
    "blahut_arimoto": {"lam": np.geomspace(1e-3, 10, 31), "number": [2000, 10_000]},
    "estimators": {"n_datasets": [30, 100, 300, 1000], "alpha": [0.25, 0.7, 1]},
    "other_learners": {
        "beta": [0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1, 2, 5],
        "sample_size": [32, 128, 256, 1024, 4096],
    },
    "ladder": {"alpha": [0.1, 0.25, 0.5, 0.7, 1], "sample_size": [64, 256]},
    "gates": {"lam": LAMS["specialists"]},
    "theorem2": {
        "sample_size": [32, 64, 128, 256, 512, 1024, 4096],
        "alpha": np.arange(11) / 10,
    },
    "links": {"error": [0, 0.1], "epsilon": [0.1, 0.5, 1, 2, 3, 5, 8]},
    "testbed": {"scope": [1, 2, 4, 8, 16, 32, 64], "unevenness": [0]},
    "in_network": {"price": [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1], "network": [0, 1, 10]},
}
# what a browser does without: tools of the book, and parts of SciPy that take megabytes
TOOLS = {"pandas", "matplotlib", "IPython", "anywidget", "ipywidgets", "traitlets", "tabulate"}
TOOLS |= {"jinja2", "myst_nb", "torch", "dask", "scipy.stats", "scipy.signal", "scipy.ndimage"}
every_explorer = pytest.mark.parametrize("name", EXPLORERS)


@cache
def made(name):
    return EXPLORERS[name]()


def scene_of(name, **setting):
    explorer = made(name)
    return explorer.scene(**{**explorer.start(), **setting})


def read(scene):
    return {reading.name: reading.value for reading in scene.readings}


def series_of(panel, name):
    (found,) = [series for series in panel.series if series.name == name]
    return np.asarray(found.x, float), np.asarray(found.y, float)


def ring_of(panel):
    return next(mark for mark in panel.marks if mark.kind == "ring")


@cache
def some_scenes(name):
    """Scenes at the ends, the middle and the start of every dial, computed once for all tests."""
    dials = {key: dial for key, dial in made(name).dials.items() if len(dial.stops)}
    few = []
    for dial in dials.values():
        places = {0, 1, len(dial.stops) // 3, len(dial.stops) // 2, len(dial.stops) - 1}
        few.append([dial.start, *(list(dial.stops)[place] for place in places)])
    settings = dict.fromkeys(itertools.product(*few))
    return [scene_of(name, **dict(zip(dials, values))) for values in settings]


def form_of(scene):
    panels = []
    for panel in scene.panels:
        series = [(one.name, one.kind, one.look, np.size(one.x)) for one in panel.series]
        marks = [(mark.name, mark.kind, mark.low is None) for mark in panel.marks]
        track = None
        if panel.track is not None:
            track = (panel.track.dial, tuple(panel.track.values))
        panels.append((panel.x, panel.y, panel.title, series, marks, track))
    return panels, [(one.name, one.digits, one.unit, one.error is None) for one in scene.readings]


def assert_within(axis, values):
    values = np.asarray(values, dtype=float)
    assert np.isfinite(values).all(), axis.label
    room = 1e-9 * (axis.high - axis.low)
    assert (values >= axis.low - room).all(), (axis.label, values.min())
    assert (values <= axis.high + room).all(), (axis.label, values.max())


# --- every explorer ---


@every_explorer
def test_scenes_have_one_form_and_stay_within_their_axes(name):
    first, *others = some_scenes(name)
    for scene in [first, *others]:
        assert form_of(scene) == form_of(first)
        for panel in scene.panels:
            for one in [*panel.series, *[track for track in [panel.track] if track]]:
                assert np.shape(one.x) == np.shape(one.y)
                assert_within(panel.x, one.x)
                assert_within(panel.y, one.y)
            for one in panel.series:
                if one.top is not None:
                    assert_within(panel.y, one.top)
                    assert (np.asarray(one.top) >= np.asarray(one.y) - 1e-12).all()
            for mark in panel.marks:
                assert_within(panel.x, mark.x)
                ends = [end for end in (mark.low, mark.high) if end is not None]
                assert_within(panel.y, [mark.y, *ends])
                assert mark.low is None or mark.low - 1e-9 <= mark.y <= mark.high + 1e-9


@every_explorer
def test_readings_are_few_finite_and_in_words(name):
    for scene in some_scenes(name):
        assert 4 <= len(scene.readings) <= 7
        for reading in scene.readings:
            # where two experts tie, no price ends routing
            assert np.isfinite(reading.value) or "price at which" in reading.name
            assert "_" not in reading.name and len(reading.name) <= 40
    alt = made(name).alt
    assert 60 < len(alt) < 400 and alt.endswith(".")


@every_explorer
def test_what_the_chapter_uses_are_stops(name):
    explorer = made(name)
    for dial in explorer.dials.values():
        stops = np.asarray(dial.stops)
        assert not len(stops) or (dial.start in stops and (np.diff(stops) > 0).all())
    for key, values in CHAPTERS_USE[name].items():
        stops = np.asarray(explorer.dials[key].stops)
        far = [np.abs(stops - value).min() for value in values]
        assert max(far) <= 1e-12 * max(1, *values), (key, far)


# dials that count what there are few of, beside the fine ones: (explorer, dial) -> how many stops
COUNTED = {("start", "n_experts"): 4, ("in_network", "network"): 11}
# explorers with one fine dial: each stop of another would be ten more trained networks
ONE_FINE = {"in_network"}


@every_explorer
def test_two_dials_of_a_page_feel_continuous(name):
    counts = {key: len(dial.stops) for key, dial in made(name).dials.items() if len(dial.stops)}
    fine = [key for key, count in counts.items() if count >= 51]
    assert len(fine) == (1 if name in ONE_FINE else 2), counts
    for key in counts.keys() - fine:
        assert counts[key] == COUNTED[name, key]


@every_explorer
def test_a_kernel_may_ask_for_values_between_the_stops(name):
    explorer = made(name)
    for key, dial in explorer.dials.items():
        if dial.live is None:
            continue
        low, high, step = dial.live
        value = 0.37 * low + 0.63 * high
        if step == "log":
            value = 10**value
        elif isinstance(step, int):
            value = round(value)
        assert form_of(scene_of(name, **{key: value})) == form_of(scene_of(name))


@every_explorer
def test_the_ring_stands_on_its_track(name):
    for scene in some_scenes(name):
        for panel in scene.panels:
            if panel.track is None:
                continue
            ring = ring_of(panel)
            away = np.hypot(
                (np.asarray(panel.track.x) - ring.x) / (panel.x.high - panel.x.low),
                (np.asarray(panel.track.y) - ring.y) / (panel.y.high - panel.y.low),
            )
            assert away.min() < 1e-9, panel.title


def test_every_explorer_is_of_a_chapter():
    assert all((ROOT / "chapters" / f"{name}.md").is_file() for name in EXPLORERS)
    assert all(made(name).name == name for name in EXPLORERS)


@every_explorer
def test_its_chapter_says_what_to_try_and_what_to_look_for(name):
    text = (ROOT / "chapters" / f"{name}.md").read_text()
    below = re.split(r"^explore_\w+\(.*\)$", text, flags=re.M)[1].split("\n## ")[0]
    found = re.search(r"^Try .+: .{15,}\.$", below, re.M)
    assert found, f"{name}: a sentence below the explorer, 'Try ...: what happens.'"


# --- the channel ---


def entropy_of(p):
    return 0.0 if p in (0, 1) else -p * np.log(p) - (1 - p) * np.log(1 - p)


@pytest.mark.parametrize("beta", [0, 0.1, 1, 10])
def test_bsc_readings_meet_the_closed_form(beta):
    (panel,) = (scene := scene_of("bsc", beta=beta)).panels
    found = read(scene)
    ring = ring_of(panel)
    least = brentq(lambda p: entropy_of(p) - (np.log(2) - ring.x), 0, 0.5, xtol=1e-14)
    assert ring.low == pytest.approx(least, abs=1e-9)
    assert found["above D(R) by"] == pytest.approx(ring.y - least, abs=1e-9)
    term = np.sqrt(2 * found["information I(S;W)"] / 100)
    assert found["room under (13)"] == pytest.approx(term - (ring.y - least), abs=1e-9)
    x, y = series_of(panel, "D(R)")
    assert np.allclose(x, [np.log(2) - entropy_of(p) for p in y], atol=1e-12)


def test_one_candidate_of_the_bsc_lies_on_the_curve():
    scene = explore_bsc([0.2]).scene(beta=1, crossover=0.1, sample_size=100)
    assert read(scene)["above D(R) by"] == pytest.approx(0, abs=1e-9)
    assert ring_of(scene.panels[0]).x == pytest.approx(np.log(2) - entropy_of(0.2))


@pytest.mark.parametrize(("crossover", "rounded"), [(0.1, 0.095), (0.2, 0.102)])
def test_the_bsc_crosses_its_bound_at_a_stop(crossover, rounded):
    betas = np.asarray(made("bsc").dials["beta"].stops)
    scenes = [scene_of("bsc", beta=beta, crossover=crossover) for beta in betas]
    room = np.array([read(scene)["room under (13)"] for scene in scenes])
    (crossing,) = betas[np.abs(room) < 1e-7]
    assert round(crossing, 3) == rounded
    assert (room[betas < crossing] < 0).all() and (room[betas > crossing] > 0).all()


def test_alpha_mixture_is_that_of_the_library():
    losses = moe_bank_losses(dimension=20, n_experts=4, n_candidates=25, n_inputs=30_000, rng=1)
    curve = alpha_curve(losses[:20_000], [0.7], 256, 4000, losses[20_000:], rng=2)
    scene = scene_of("alpha_mixture", alpha=0.7, sample_size=256)
    found = read(scene)
    assert found["information I(S;W)"] == pytest.approx(curve.information[0], abs=0.03)
    assert abs(found["gap"] - curve.gap[0]) < 4 * np.sqrt(2) * curve.gap_error[0]
    shift = found["gap on the test set"] - found["gap"]
    assert shift == pytest.approx(curve.test_gap[0] - curve.gap[0], abs=1e-3)
    for scene in some_scenes("alpha_mixture"):
        found = read(scene)
        assert found["gap"] <= found["bound with σ = 1/2"] <= found["bound with σ = 1"]


# --- growing datasets ---


def test_growing_samples_are_means_of_the_same_draws():
    pool = np.random.default_rng(0).random((40, 3))
    samples = GrowingSamples(pool, [4, 9], 5)
    for size in (3, 4, 7, 9):
        expected = pool[samples.draws[:, :size]].mean(axis=1)
        assert np.allclose(samples.risks(size), expected, atol=1e-6)
    whole = GrowingSamples(np.rint(255 * pool).astype(np.uint8), [4, 9], 5, unit=1 / 255)
    assert np.allclose(whole.risks(9), samples.risks(9), atol=2e-3)


def test_winners_say_what_a_simulation_says():
    pool = load_bank().losses("train")
    risks = GrowingSamples(pool, [256], 4000).risks(256)
    found = winners_of(risks, pool.mean(axis=0))
    for alpha in (0.25, 1.0):
        posteriors = alpha_mixture(risks, alpha)
        estimates = information_estimates(posteriors)
        assert found.information(alpha)[0] == pytest.approx(estimates["delta"], abs=1e-9)
        assert np.allclose(found.marginal(alpha)[0], posteriors.mean(axis=0))


def test_quantiles_of_the_gap_meet_drawn_runs():
    rng = np.random.default_rng(0)
    risks = rng.binomial(64, [0.1, 0.12, 0.2], size=(20_000, 3)) / 64
    gaps = np.array([0.1, 0.12, 0.2]) - risks
    alphas = np.array([0.0, 0.4, 1.0])
    low, high = gap_quantiles(gaps, risks.argmin(axis=1), alphas, 1 / 64)
    for alpha, ends in zip(alphas, zip(low, high)):
        chosen = draw_experts(alpha_mixture(risks, alpha), rng)
        drawn = gaps[np.arange(len(gaps)), chosen]
        assert np.allclose(ends, np.quantile(drawn, [0.05, 0.95]), atol=1 / 64)


# --- banks ---


@pytest.mark.parametrize("alpha", [0.25, 0.7, 1.0])
def test_mnist_bank_reads_as_its_chapter(alpha):
    bank = load_bank()
    pool = bank.losses("train")
    chapter = simulate(pool, alpha, 256, 20_000, population=bank.losses("test"), rng=0)
    exact = simulate(pool, alpha, 256, 20_000, rng=0)
    found = read(scene_of("mnist_bank", alpha=alpha, sample_size=256))
    assert found["information I(S;W)"] == pytest.approx(chapter.information, abs=0.02)
    error = 5 * exact.gap_error
    assert found["mean gap, population = pool"] == pytest.approx(exact.expected_gap, abs=error)
    test_gap = found["mean gap, population = test split"]
    assert test_gap == pytest.approx(chapter.expected_gap, abs=error)
    bound = xu_raginsky_bound(found["information I(S;W)"], 256, sigma=1)
    assert found["bound with σ = 1"] == pytest.approx(float(bound))


def test_crosses_are_the_values_of_the_papers():
    left, right = scene_of("mnist_bank").panels
    for panel, name in ((left, "gap"), (right, "information")):
        crosses = {mark.x: mark.y for mark in panel.marks if mark.kind == "cross"}
        reported = {row.key: row.reported for row in CLAIMS}
        for alpha, value in crosses.items():
            # the paper prints 0 for no information, which the claims hold too
            assert value == reported[f"II {name} {alpha:g}"]
    (cross,) = [mark for mark in scene_of("estimators").panels[0].marks if mark.kind == "cross"]
    assert (cross.x, -cross.y) == (300, 0.04)


def test_blahut_arimoto_collapses_at_the_critical_price():
    losses = load_bank().losses("test")
    for number, rounded in ((2000, 30.5), (10_000, 12.2)):
        critical = critical_lambda(losses[:number])
        assert round(critical, 1) == rounded
        lams = np.asarray(made("blahut_arimoto").dials["lam"].stops)
        (stop,) = lams[np.isclose(lams, critical, rtol=1e-9)]
        beyond = [lam for lam in lams if lam >= stop]
        assert len(beyond) >= 3
        for lam in beyond:
            scene = scene_of("blahut_arimoto", lam=lam, number=number)
            assert read(scene)["rate"] == pytest.approx(0, abs=1e-9)
            assert read(scene)["price at which routing stops"] == pytest.approx(critical)
        assert read(scene_of("blahut_arimoto", lam=lams[lams < stop][-1]))["rate"] > 0


@pytest.mark.parametrize("lam", [0.1, 1, 10])
def test_a_supporting_line_lies_below_the_curve(lam):
    left, right = scene_of("blahut_arimoto", lam=lam).panels
    x, y = series_of(left, "D(R)")
    (low, high), (top, bottom) = series_of(left, "supporting line, slope −λ")
    assert (y >= top + (bottom - top) * (x - low) / (high - low) - 1e-8).all()
    assert (bottom - top) / (high - low) == pytest.approx(-lam)
    _, shares = series_of(right, "share")
    assert shares.sum() == pytest.approx(1)
    losses = load_bank().losses("test")[:2000]
    assert y.max() == pytest.approx(losses.mean(axis=0).min())
    assert y.min() == pytest.approx(losses.min(axis=1).mean(), abs=1e-6)


def test_start_reads_as_its_page():
    lams = made("start").dials["lam"].stops
    found = read(scene_of("start", lam=lams[0]))
    losses = load_bank().losses("test")[:2000]
    assert found["answered wrongly"] == pytest.approx(100 * losses.min(axis=1).mean(), abs=1e-6)
    best = 100 * losses.mean(axis=0).min()
    assert found["by the best single expert"] == pytest.approx(best)
    assert found["of what routing can save"] == pytest.approx(100)
    for scene in some_scenes("start"):
        x, y = series_of(scene.panels[0], "the best gate there is: D(R)")
        seen, paid = series_of(scene.panels[0], "a gate that sees only the image")
        assert (paid >= np.interp(seen, x, y) - 1e-6).all()


def test_experts_that_copy_leave_less_to_buy():
    losses = load_bank().losses("test")[:2000].astype(float)
    best = losses.mean(axis=0).argmin()
    half = 0.5 * losses + 0.5 * losses[:, [best]]
    found = read(scene_of("start", lam=0.5, copied=50))
    point = rate_distortion(half, 0.5)
    assert found["routing per image"] == pytest.approx(point.rate, abs=1e-6)
    assert found["answered wrongly"] == pytest.approx(100 * point.distortion, abs=1e-6)
    # a nat is worth half as much: at half the price as many are bought as of experts of their own
    assert point.rate == pytest.approx(read(scene_of("start", lam=1))["routing per image"])
    alike = read(scene_of("start", lam=0.01, copied=100))
    assert alike["routing per image"] == alike["of what routing can save"] == 0


# --- a second look ---


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_expected_biases_meet_every_outcome(alpha):
    shares = np.array([0.5, 0.3, 0.2])
    posteriors = alpha_mixture(1 - np.eye(3), alpha)
    marginal = shares @ posteriors
    truth = float(shares @ (posteriors * np.log(posteriors / marginal + 1e-300)).sum(axis=1))
    expected = dict.fromkeys(("plug-in", "Miller-Madow", "delta", "jackknife"), -truth)
    for outcome in itertools.product(range(3), repeat=4):
        chance = np.prod(shares[list(outcome)])
        for name, value in information_estimates(posteriors[list(outcome)]).items():
            expected[name] += chance * value
    found = expected_biases(winner_counts(shares, 4), shares, alpha)
    assert found == pytest.approx(expected, abs=1e-9)


def test_estimators_read_as_their_chapter():
    found = read(scene_of("estimators", n_datasets=300, alpha=0.7))
    corrected = found["bias, Miller-Madow"] - found["bias, plug-in"]
    assert corrected == pytest.approx(24 / 600)
    assert abs(found["bias, delta"]) < 0.1 * abs(found["bias, plug-in"])
    uniform = explore_estimators(np.full(4, 0.25)).scene(n_datasets=300, alpha=0.0)
    assert read(uniform)["true I(S;W)"] == pytest.approx(0, abs=1e-12)
    assert read(uniform)["bias, plug-in"] == pytest.approx(0, abs=1e-12)


def test_rules_stay_below_the_bound_and_gibbs_follows_its_identity():
    for scene in some_scenes("other_learners"):
        found = read(scene)
        assert 0 <= found["gap"] <= found["bound with σ = 1/2"]
        assert found["risk of the selected expert"] >= found["best single expert"]
        for series in scene.panels[0].series[1:]:
            gap = np.asarray(series.y)
            assert (gap <= np.sqrt(np.asarray(series.x) / 2) + 1e-4).all(), series.name
    # G = (I + lautum information) / (beta m) is at least I / (beta m)
    found = read(scene_of("other_learners", beta=1, sample_size=256))
    assert found["gap"] >= found["information I(S;W)"] / 256


def test_rule_points_meet_other_estimates():
    risks = np.random.default_rng(0).random((500, 6))
    posteriors = top_k_uniform(risks, 2)
    information, gap, risk = rule_points(posteriors[None], risks, np.full(6, 0.5))[:, 0]
    assert information == pytest.approx(information_estimates(posteriors)["delta"])
    own = (posteriors * (0.5 - risks)).sum(axis=1).mean()
    blind = posteriors.mean(axis=0) @ (0.5 - risks).mean(axis=0)
    assert gap == pytest.approx((own - blind) * 500 / 499)
    assert risk == pytest.approx(0.5)


LOOSER_FIRST = (
    ["union", "Theorem 1, σ = 1/2", "individual sample", "disintegrated", "inverse binary kl"],
    ["Theorem 1, σ = 1/2", "Kearns-Saul", "Okamoto", "exact cumulants"],
    ["Theorem 1, σ = 1", "conditional MI"],
    ["Hellinger info", "loss difference", "chi-square info", "Jensen-Shannon"],
    ["samplewise eCMI, kl", "Jensen-Shannon"],
)


def test_the_ladder_tells_three_kinds_apart():
    """A colour for each: what a bound looks at."""
    (panel,) = scene_of("ladder").panels
    kinds = {series.name.removeprefix("by "): series for series in panel.series}
    assert set(kinds) == {BY_COUNTS, BY_INFORMATION, BY_THE_GAP}
    assert len({series.look for series in panel.series}) == 3
    found = np.take(panel.y.categories, kinds[BY_COUNTS].y)
    assert found.tolist() == ["union"]
    assert "Jensen-Shannon" in np.take(panel.y.categories, kinds[BY_THE_GAP].y)


def test_bounds_are_in_order_and_none_is_below_the_gap():
    for scene in some_scenes("ladder"):
        (panel,) = scene.panels
        by_name = {}
        for series in panel.series:
            by_name |= dict(zip(np.take(panel.y.categories, series.y), series.x))
        assert set(by_name) == set(panel.y.categories)
        assert min(by_name.values()) >= 0.99
        for names in LOOSER_FIRST:
            assert (np.diff([by_name[name] for name in names]) <= 1e-9).all()
        assert by_name["Theorem 1, σ = 1"] == pytest.approx(2 * by_name["Theorem 1, σ = 1/2"])


@pytest.mark.parametrize(("alpha", "sample_size"), [(0.43, 32), (0.7, 45), (0.43, 90)])
def test_between_its_experiments_the_ladder_is_nearly_exact(alpha, sample_size):
    pool = load_bank().losses("train")[:3000]
    by_size = {m: LadderExperiment(pool, m, rng=0, n_datasets=2000) for m in (32, 64, 128)}
    scene = explore_ladder(list(by_size.values())).scene(alpha, sample_size)
    asked = by_size.get(sample_size)
    if asked is None:
        asked = LadderExperiment(pool, sample_size, rng=0, n_datasets=2000)
    exact = asked.at(alpha, errors=False)
    multiples = np.concatenate([series.x for series in scene.panels[0].series])
    values = exact.values | asked.further(alpha)
    expected = sorted((values[key] / exact.gap for key in ALL_NAMES), reverse=True)
    # between sizes the datasets are others, and differ by their noise
    room = 2e-3 if sample_size in by_size else 0.05
    assert np.allclose(sorted(multiples, reverse=True), expected, rtol=room)


# --- gates ---


def test_no_gate_lies_below_the_curve():
    losses = load_bank("specialists").losses("test")
    curve = rate_distortion_curve(losses, band=1e-4)
    left, _ = scene_of("gates").panels
    for series in left.series[2:]:
        assert series.kind == "dots"
        assert (np.asarray(series.y) >= curve.lower(series.x) - 2e-3).all()
    rates = []
    for lam in made("gates").dials["lam"].stops:
        scene = scene_of("gates", lam=lam)
        found = read(scene)
        assert found["above D by"] >= -1e-9
        _, load = series_of(scene.panels[1], "load")
        assert load.sum() == pytest.approx(1)
        rates.append(found["rate"])
    assert (np.diff(rates) <= 1e-9).all()


def test_sharper_gates_pay_more_bits_for_less():
    soft = read(scene_of("gates", lam=0.5))
    sharp = read(scene_of("gates", lam=0.5, sharpness=4))
    assert sharp["rate"] > soft["rate"] and sharp["expected loss"] < soft["expected loss"]
    rates, losses = series_of(scene_of("gates").panels[0], "routing on estimates, by price")
    order = np.argsort(rates)
    assert sharp["expected loss"] > np.interp(sharp["rate"], rates[order], losses[order])
    gates = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    logs = np.log(gates / gates.max(axis=1, keepdims=True))
    same, entropies = sharpened(logs, 1.0)
    assert np.allclose(same, gates)
    assert np.allclose(entropies, [entropy(row) for row in gates])
    assert np.allclose(sharpened(logs, 32.0)[0][1], [0, 1, 0], atol=1e-6)


def test_theorem_2_holds_and_its_terms_are_those_of_the_library():
    bank = load_bank("specialists")
    losses, rates = gate_family(load_gates(), bank, "soft")
    curve = rate_distortion_curve(bank.losses("test"), band=1e-3)
    terms = theorem2_terms(losses, rates, curve, 1.0, 256, 1000, rng=0)
    found = read(scene_of("theorem2", sample_size=256, alpha=1))
    assert found["specialists: risk"] == pytest.approx(terms.population_risk[0], abs=2e-3)
    error = 5 * terms.gap_error[0]
    assert found["specialists: gap"] == pytest.approx(terms.gap[0], abs=error)
    assert found["specialists: right side, σ = 1/2"] == pytest.approx(terms.bound()[0], abs=5e-3)
    for scene in some_scenes("theorem2"):
        found = read(scene)
        for name in BANK_TITLES.values():
            assert found[f"{name}: risk"] <= found[f"{name}: right side, σ = 1/2"] + 1e-3


def test_links_obey_the_limit_and_data_processing():
    for scene in some_scenes("links"):
        found = read(scene)
        assert found["limit"] <= found["loss of the staircase"] + 1e-9
        assert found["loss of the staircase"] <= found["loss of randomised response"] + 1e-9
        allowed = min(found["privacy allows"], found["the link carries"])
        assert found["staircase carries"] <= allowed + 1e-9
        (panel,) = scene.panels
        names = ("D at the least cap", "staircase, the best mechanism", "randomised response")
        limit, best, response = (series_of(panel, name)[1] for name in names)
        assert (limit <= best + 1e-9).all() and (best <= response + 1e-9).all()
        assert (np.diff(limit) >= -1e-9).all()


def test_the_limit_of_scope_is_that_of_the_chapter():
    limits = {scope: read(scene_of("testbed", scope=scope)) for scope in (1, 2, 64)}
    name = "limit on I(D;T)"
    assert limits[1][name] == pytest.approx(0, abs=1e-12)
    assert limits[2][name] == pytest.approx(56 / 63 * np.log(2))
    assert limits[64][name] == pytest.approx(np.log(8))
    # with the unevenness that a run has, its own limit holds it
    runs = load_testbed().rows(mix="scripts", capacity=None, method="LBL")
    for _, run in runs.iterrows():
        uneven = max(0.0, np.log(32) - run["sequence_entropy"])
        found = read(scene_of("testbed", scope=int(run["scope"]), unevenness=uneven))
        assert run["domain_information"] <= found[name] + 1e-5
    learned = load_testbed().rows(mix="scripts", capacity=None).query("method != 'reference'")
    rho = spearmanr(learned["scope"], learned["domain_information"]).statistic
    assert rho > 0.5
    assert read(scene_of("testbed", scope=64))["runs balanced this narrowly"] == len(learned)


def test_explorers_need_numpy_and_scipy_alone():
    code = f"""
import sys
from expertbank.book.explorers import EXPLORERS
for make in EXPLORERS.values():
    made = make()
    made.scene(**made.start())
tools = {TOOLS}
loaded = {{name for name in sys.modules if name in tools or name.partition(".")[0] in tools}}
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_price_leaves_what_the_runs_at_that_price_have():
    runs = pd.read_csv(data_folder() / "in-network" / "networks.csv")
    for network, price in ((0, 0.0003), (0, 0.1), (4, 0.01), (10, 0.003)):
        found = read(scene_of("in_network", price=price, network=network))
        own = runs if network == 0 else runs[runs["seed"] == network - 1]
        priced = own[own["price"] == price]
        free = own[own["arm"] == "D-INL"]
        assert found["rate of all gates"] == pytest.approx(priced["rate"].mean())
        assert found["classified rightly"] == pytest.approx(100 * priced["accuracy"].mean())
        saved = 100 * (1 - priced["rate"].mean() / free["rate"].mean())
        assert found["less than without a price"] == pytest.approx(saved)
        dense = own[own["arm"] == "dense"]["accuracy"].mean()
        assert found["by dense exchange"] == pytest.approx(100 * dense)


def test_a_map_goes_along_every_link_there_and_back():
    panel = scene_of("in_network", network=3).panels[1]
    places = sensor_network(2).places
    x, y = series_of(panel, "links")
    assert len(x) == 2 * 27 + 1
    nodes = [int(np.argmin(np.hypot(*(places - place).T))) for place in zip(x, y)]
    steps = [tuple(sorted(pair)) for pair in itertools.pairwise(nodes)]
    wanted = sorted(map(tuple, sensor_network(2).links.tolist()))
    assert sorted(steps) == sorted(wanted * 2)
