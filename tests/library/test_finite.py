"""Every number of the library is finite on every valid input, and a certified band holds the truth.

Inputs are what hostile users give: experts that are alike, one expert, one input, posteriors in the
corners, weights from the smallest float to 1e300, losses up to 1e300, a million samples. What may
be infinite stands in `INFINITE`, with the reason.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
import warnings

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import expertbank as eb
from expertbank import bounds, channels, gates, information, ladder, synthetic
from expertbank.cli import main
from expertbank.learners import empirical_risks
from expertbank.rate_distortion import ConvergenceWarning, LongSearchWarning
from support import refused

# a module that a function of the same name hides
CURVES = sys.modules["expertbank.rate_distortion"]

# numbers that may be infinite on valid input: where, and why
INFINITE = {
    "kl_divergence": "p has mass where q has none",
    "algorithmic_information.standard_error": "one dataset says nothing of the spread",
    "algorithmic_information.interval": "the same",
    "simulate.algorithmic.standard_error": "the same",
    "simulate.algorithmic.interval": "the same",
    "simulate.gap_error": "the same",
    "judge_gate.rate_interval": "the same, of one input",
    "judge_gate.loss_error": "the same",
    "critical_lambda": "another expert ties with the best on average",
    "rate_distortion_curve band.lam": "the first point of an adapted curve is the best expert",
}
MAGNITUDES = [0, 5e-324, 1e-310, 1e-300, 1e-100, 1e-9, 0.1, 1, 1, 2, 1e9, 1e100, 1e300]
seeds = st.integers(0, 2**32 - 1)


def numbers(result, name):
    """Every number of a result, properties included, under the name of where it stands."""
    if isinstance(result, dict):
        for key, value in result.items():
            yield from numbers(value, f"{name}.{key}".lstrip("."))
    elif isinstance(result, tuple):
        for value in result:
            yield from numbers(value, name)
    elif dataclasses.is_dataclass(result):
        own = [field.name for field in dataclasses.fields(result)]
        made = [key for key, value in vars(type(result)).items() if isinstance(value, property)]
        for key in own + made:
            yield from numbers(getattr(result, key), f"{name}.{key}")
    elif result is not None:
        yield name, np.asarray(result, dtype=float)


def assert_finite(result, name=""):
    for place, value in numbers(result, name):
        assert not np.isnan(value).any(), place
        assert np.isfinite(value).all() or place in INFINITE, place


# --- inputs ---


def mistakes_of(rng):
    """A table (N, R) of 0 and 1: random, of equal experts, or nearly constant."""
    shape = rng.integers(1, 9, 2)
    share = rng.choice([0, 0.02, 0.5, 0.5, 0.5, 0.98, 1])
    table = (rng.random(shape) < share).astype(int)
    return np.repeat(table[:, :1], shape[1], axis=1) if rng.random() < 0.3 else table


def losses_of(rng):
    """A table (N, R) of losses of any size, sign and resolution."""
    shape = rng.integers(1, 7, 2)
    kind = rng.integers(7)
    if kind == 0:
        return mistakes_of(rng).astype(float)
    if kind == 1:
        return rng.choice(MAGNITUDES, shape)
    if kind == 2:
        return rng.choice(MAGNITUDES, shape) * rng.choice([-1, 1], shape)
    if kind == 3:
        return rng.random(shape) * 10.0 ** rng.integers(-300, 300)
    if kind == 4:
        return 1e8 + rng.random(shape) * 10.0 ** rng.integers(-9, 2)
    if kind == 5:
        return rng.integers(0, 2, shape) * rng.choice(MAGNITUDES)
    return 10.0 ** rng.uniform(-12, 12, shape)


def weights_of(rng, n):
    """Weights (n,) of any size, or None."""
    kind = rng.integers(4)
    weights = np.ones(n)
    if kind == 1:
        weights = 10.0 ** rng.uniform(-300, 300, n)
    elif kind == 2:
        weights = rng.choice([0, 5e-324, 1e-310, 1e-300, 1, 1e300], n)
    elif kind == 3:
        weights = rng.random(n)
    return weights if kind and weights.max() > 0 else None


def posteriors_of(rng):
    """Distributions (M, R): corners, uniform, alike, concentrated down to the smallest floats."""
    n, r = rng.integers(1, 9, 2)
    kind = rng.integers(5)
    if kind == 0:
        return np.eye(r)[rng.integers(0, r, n)]
    if kind == 1:
        return np.full((n, r), 1 / r)
    if kind == 2:
        return np.tile(rng.dirichlet(np.ones(r)), (n, 1))
    if kind == 3:
        rows = rng.choice([5e-324, 1e-310, 1e-200, 1e-17, 1], (n, r))
        rows[:, 0] = 1
        return rows / rows.sum(axis=1, keepdims=True)
    return rng.dirichlet(np.full(r, rng.choice([0.01, 1, 100])), n)


# --- information and bounds ---


def test_equal_experts_bound_the_gap_by_nothing():
    for row in ([0.1, 0.9], [1 / 3] * 3, [0.2] * 5, [1.0], [0.0, 1.0], [1e-310, 1.0]):
        for n in (1, 3, 5, 7, 49):
            conditionals = np.tile(row, (n, 1))
            assert bounds.disintegrated_bound(conditionals) == 0
            assert bounds.individual_sample_bound(conditionals) == 0
            assert bounds.total_variation_bound(conditionals) == 0
            assert eb.mutual_information(conditionals) == 0
            assert eb.algorithmic_information(conditionals).information == 0


@settings(max_examples=400)
@given(seeds)
def test_information_is_finite_and_not_negative(seed):
    rng = np.random.default_rng(seed)
    q = posteriors_of(rng)
    weights = weights_of(rng, len(q))
    found = {
        "mutual_information": eb.mutual_information(q, weights),
        "gating_rate": eb.gating_rate(q, weights),
        "entropy": eb.entropy(q),
        "kl_divergence": eb.kl_divergence(q, q[::-1]),
        "kl_divergence itself": eb.kl_divergence(q, q),
        "algorithmic_information": eb.algorithmic_information(q),
        "judge_gate": gates.judge_gate(q, rng.choice(MAGNITUDES, q.shape)),
        "joint_information": information.joint_information(rng.choice(MAGNITUDES[1:10], q.shape)),
    }
    if len(q) > 1:
        method = ("percentile", "BCa")[seed % 2]
        found["estimates"] = eb.information_estimates(q)
        found["bootstrap"] = eb.bootstrap_interval(q, n_resamples=20, method=method, rng=seed)
    assert_finite(found)
    divergences = eb.kl_divergence(q, q[::-1])
    assert (np.append(divergences, found["mutual_information"]) >= 0).all()
    assert (found["kl_divergence itself"] == 0).all()


@settings(max_examples=600)
@given(seeds)
@example(5168)
@example(1900)
def test_bounds_are_finite(seed):
    rng = np.random.default_rng(seed)
    q = posteriors_of(rng)
    weights = weights_of(rng, len(q))
    m = int(rng.choice([1, 2, 10, 1000, 10**6, 10**15]))
    nats = float(rng.choice([0, 5e-324, 1e-300, 1e-17, 0.1, 3, 1e300]))
    risks = rng.choice([0, 5e-324, 1e-17, 0.1, 0.5, 1 - 1e-16, 1], q.shape[1])
    point = float(rng.choice(risks))
    losses = rng.integers(0, 2, q.shape)
    found = {
        "union": eb.union_bound(q.shape[1], m),
        "xu_raginsky": eb.xu_raginsky_bound(nats, m, sigma=float(rng.choice([1e-300, 1, 1e150]))),
        "theorem2": eb.theorem2_bound(point, nats, m),
        "kearns_saul": bounds.kearns_saul_bound(nats, m, risks, q[0]),
        "okamoto": bounds.okamoto_bound(nats, m, risks, q[0]),
        "cumulant": bounds.cumulant_bound(nats, m, risks, q[0]),
        "pac_bayes": bounds.pac_bayes_kl_bound(nats, m, point),
        "kl_inverse": bounds.binary_kl_inverse(point, nats),
        "individual": bounds.individual_sample_bound(q, weights),
        "disintegrated": bounds.disintegrated_bound(q, weights),
        "disintegrated_kl": bounds.disintegrated_kl_bound(q, losses, weights),
        "total_variation": bounds.total_variation_bound(q, weights),
        "loss_difference": bounds.loss_difference_bound(q, losses, weights),
        "conditional_mi": bounds.conditional_mi_bound(nats, m),
        "bsc": channels.bsc_distortion_rate(nats),
    }
    assert_finite(found)
    assert min(found.values()) >= 0
    # the weaker of two is never below the stronger, but for rounding and for what tiny floats lose
    assert found["disintegrated"] <= found["individual"] * (1 + 1e-12) + 1e-150
    assert found["kearns_saul"] >= found["okamoto"] * (1 - 1e-12)


@pytest.fixture
def short_ladder(monkeypatch):
    monkeypatch.setattr(ladder, "SUPERSAMPLES", 4)
    monkeypatch.setattr(ladder, "SPLITS_PER_SUPERSAMPLE", 40)


def test_the_ladder_is_finite_on_every_table_of_mistakes(short_ladder):
    for seed in range(100):
        rng = np.random.default_rng(seed)
        m = int(rng.choice([1, 2, 3, 16, 100]))
        experiment = ladder.LadderExperiment(mistakes_of(rng), m, seed, n_datasets=20)
        for alpha in (1.0, 0.7):
            assert_finite(experiment.at(alpha), f"ladder {seed}")


@pytest.mark.parametrize("m", [10_000, 10_001, 10**6])
def test_the_ladder_takes_a_million_samples(short_ladder, m):
    table = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    found = ladder.bound_ladder(table, 0.7, m, n_datasets=10)
    assert_finite(found, "ladder")


def test_heads_are_counted_as_they_are_tossed(monkeypatch):
    difference = np.random.default_rng(0).integers(-1, 2, (50, 3)).astype(np.int16)
    n_splits = ladder.SPLITS_PER_SUPERSAMPLE
    tossed = ladder._differences_on_halves(difference, np.random.default_rng(1), n_splits)
    monkeypatch.setattr(ladder, "TOSSED_ONE_BY_ONE", 10)
    monkeypatch.setattr(ladder, "HEADS_AT_ONCE", 1000)  # in several parts
    counted = ladder._differences_on_halves(difference, np.random.default_rng(1), n_splits)
    assert tossed.shape == counted.shape
    for moment in (np.mean, np.std):
        a, b = moment(tossed, axis=0), moment(counted, axis=0)
        np.testing.assert_allclose(a, b, atol=0.25)
    np.testing.assert_allclose(counted.mean(axis=0), difference.sum(axis=0) / 2, atol=0.25)


@settings(max_examples=100)
@given(seeds)
def test_the_experiment_is_finite(seed):
    rng = np.random.default_rng(seed)
    losses = losses_of(rng)
    m = int(rng.choice([1, 2, 30, 100_001, 10**6, 10**15]))
    run = eb.simulate(losses, 0.7, m, int(rng.integers(1, 4)), rng=seed)
    assert_finite(run, "simulate")
    assert_finite(eb.gibbs_posterior(losses, float(rng.choice([0, 1, 1e308]))), "gibbs")
    assert_finite(eb.epsilon_greedy(losses, 0.1), "greedy")
    assert_finite(eb.top_k_uniform(losses, 1), "top_k")


def test_many_samples_are_counted_as_they_are_drawn():
    losses = np.array([[0.0, 1.0], [1.0, 0.0], [0.25, 0.5]])
    risks = empirical_risks(losses, 200_000, 200, rng=0)
    error = losses.std(axis=0) / np.sqrt(200_000)
    np.testing.assert_allclose(risks.mean(axis=0), losses.mean(axis=0), atol=3 * error.max() / 14)
    np.testing.assert_allclose(risks.std(axis=0), error, rtol=0.2)


# --- curves ---


@settings(max_examples=150)
@given(seeds)
def test_curves_are_finite_and_their_lower_end_is_below_the_upper(seed):
    rng = np.random.default_rng(seed)
    losses = losses_of(rng)
    weights = weights_of(rng, len(losses))
    spread = float((losses.max(axis=1) - losses.min(axis=1)).max())
    curves = {"rate_distortion_curve": eb.rate_distortion_curve(losses, weights=weights)}
    if spread > 1e-200:
        band = 1e-3 * spread
        adapted = eb.rate_distortion_curve(losses, weights=weights, band=band)
        curves["rate_distortion_curve band"] = adapted
    assert_finite(curves)
    for curve in curves.values():
        ends = np.linspace(0, 1.2 * curve.rate.max(), 40)
        rates = np.unique(np.concatenate([curve.rate, ends]))
        assert (curve.lower(rates) <= curve.upper(rates)).all()
    found = {
        "critical_lambda": eb.critical_lambda(losses, weights),
        "distortion_at_rate": eb.distortion_at_rate(losses, 0.1, weights),
        "rate_distortion": eb.rate_distortion(losses, 1e-3 * spread, weights),
        "routing": eb.routing(losses, eb.rate_distortion(losses, spread, weights)),
    }
    assert_finite(found)


@settings(max_examples=25)
@given(seeds)
def test_error_bars_are_finite(seed):
    rng = np.random.default_rng(seed)
    losses = losses_of(rng)
    assert_finite(eb.curve_bootstrap(losses, n_resamples=3, rng=seed), "bootstrap")
    if len(losses) > 1:
        assert_finite(eb.split_optimism(losses, n_splits=2, rng=seed), "optimism")
    cost = rng.random(losses.shape[1])
    assert_finite(eb.accuracy_rate_cost(losses, cost, [0, 1e9], [0, 1.0]), "surface")


def exact_gate(losses, weights, marginal, lam):
    """Rate and distortion of the gate of a marginal at a price, and the certificate of its value,
    in 50 digits."""
    shares = [mpmath.mpf(float(x)) for x in marginal]
    total = mpmath.fsum(shares)
    shares = [x / total for x in shares]
    tops = [min(row) for row in losses]
    kernel = [[mpmath.exp(-(value - top) / lam) for value in row] for row, top in zip(losses, tops)]
    z = [mpmath.fdot(shares, row) for row in kernel]
    gate = [[x * k / total for x, k in zip(shares, row)] for row, total in zip(kernel, z)]
    own = [mpmath.fsum(w * row[t] for w, row in zip(weights, gate)) for t in range(len(shares))]
    distortion = mpmath.fsum(w * mpmath.fdot(g, row) for w, g, row in zip(weights, gate, losses))
    rate = mpmath.fsum(
        w * p * mpmath.log(p / own[t])
        for w, g in zip(weights, gate)
        for t, p in enumerate(g)
        if p > 0
    )
    gradient = [
        mpmath.fsum(w * row[t] / total for w, row, total in zip(weights, kernel, z))
        for t in range(len(shares))
    ]
    least = mpmath.fdot(weights, tops)
    value = least - lam * mpmath.fsum(w * mpmath.log(total) for w, total in zip(weights, z))
    return rate, distortion, value - lam * mpmath.log(max(gradient))


def test_bands_hold_what_fifty_digits_say():
    """The lower end lies below gates that exist, the upper end above the dual bound of every
    price: both recomputed from the marginals alone."""
    rng = np.random.default_rng(4)
    n_compared = 0
    while n_compared < 150:
        losses = losses_of(rng)
        weights = weights_of(rng, len(losses))
        spread = float((losses.max(axis=1) - losses.min(axis=1)).max())
        if not spread > 1e-200:
            continue
        n_compared += 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            curve = eb.rate_distortion_curve(losses, weights=weights, band=0.01 * spread)
        with mpmath.workdps(50):
            raw = np.ones(len(losses)) if weights is None else weights / weights.max()
            shares = [mpmath.mpf(float(w)) for w in raw]
            exact = [[mpmath.mpf(float(x)) for x in row] for row in losses]
            shares = [w / mpmath.fsum(shares) for w in shares]
            # losses are sums of as many digits as the largest has
            rounding = 1e-12 * spread + 1e-14 * float(np.abs(losses).max())
            for index, lam in enumerate(curve.lam.tolist()):
                if not 0 < lam < np.inf:
                    continue
                rate, distortion, dual = exact_gate(exact, shares, curve.marginal[index], lam)
                slack = rounding + 1e-13 * lam
                assert curve.lower(float(rate)) <= distortion + slack
                for at in np.linspace(0, float(curve.rate.max()), 7).tolist():
                    assert curve.upper(at) >= dual - lam * at - slack


# --- limits ---


def test_a_curve_says_how_many_points_are_coming():
    losses = np.exp(3 * np.random.default_rng(0).standard_normal((40, 4)))
    with pytest.warns(LongSearchWarning, match=r"takes about [\d,]+ points") as caught:
        curve = eb.rate_distortion_curve(losses, band=3e-5)
    assert caught[0].filename == __file__
    said = int(str(caught[0].message).split("about ")[1].split(" ")[0].replace(",", ""))
    assert said / 2 < len(curve.lam) < said * 2
    assert (curve.upper(curve.rate) - curve.lower(curve.rate)).max() <= 3e-5


def test_a_slow_curve_says_how_long_it_takes(monkeypatch):
    monkeypatch.setattr(CURVES, "LONG_SECONDS", 0.0)
    with pytest.warns(LongSearchWarning, match=r"some \d+ seconds more"):
        eb.rate_distortion_curve(np.random.default_rng(0).random((60, 4)), band=1e-4)


@pytest.mark.parametrize(("delayed", "warns"), [(1, False), (2, False), (14, True)])
def test_a_delay_of_a_point_or_two_is_not_taken_for_all(monkeypatch, delayed, warns):
    # two readings of the clock a point: a delayed one takes 1,000 s, the others a millisecond
    steps = itertools.chain([1e-3, 1e3] * delayed, itertools.repeat(1e-3))
    monkeypatch.setattr(CURVES.time, "monotonic", itertools.accumulate(steps).__next__)
    losses = np.random.default_rng(0).random((60, 4))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        eb.rate_distortion_curve(losses, band=1e-4)
    assert [found.category for found in caught] == [LongSearchWarning] * warns


def test_a_curve_ends_at_the_most_points_and_says_what_was_reached(monkeypatch):
    monkeypatch.setattr(CURVES, "MOST_POINTS", 40)
    losses = np.random.default_rng(0).random((60, 4))
    with pytest.warns(ConvergenceWarning, match="40 points") as caught:
        curve = eb.rate_distortion_curve(losses, band=1e-9)
    reached = float(str(caught[0].message).split("certain to ")[1].split()[0])
    rates = np.linspace(0, curve.rate.max(), 500)
    width = (curve.upper(rates) - curve.lower(rates)).max()
    assert len(curve.lam) == 40
    assert 1e-9 < width <= reached * 1.01


def test_a_few_points_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eb.rate_distortion_curve(np.random.default_rng(0).random((60, 4)), band=1e-3)


@pytest.mark.parametrize("large", [1.7e308, -1.7e308, 1e301])
def test_what_is_too_large_is_not_called_infinite(large):
    losses = np.array([[0.0, large], [1.0, 0.0]])
    calls = {
        "losses": [
            lambda: eb.rate_distortion(losses, 1.0),
            lambda: eb.rate_distortion_curve(losses),
            lambda: eb.simulate(losses),
        ],
        "risks": [lambda: eb.gibbs_posterior(losses, 1.0)],
        "cost": [lambda: eb.critical_lambda(np.eye(2), cost=[0.0, large])],
    }
    for name, functions in calls.items():
        for function in functions:
            message = refused(function, name, f"{large:.3g}")
            assert "NaN" not in message
            assert "1e+300" in message


GATE = np.eye(3)
SIZES = {
    "simulate datasets": lambda n: eb.simulate(GATE, n_datasets=n),
    "ladder samples": lambda n: eb.bound_ladder(np.eye(3, dtype=int), 1.0, n),
    "ladder datasets": lambda n: eb.bound_ladder(np.eye(3, dtype=int), 1.0, 16, n_datasets=n),
    "bootstrap": lambda n: eb.bootstrap_interval(GATE, n_resamples=n),
    "curve_bootstrap": lambda n: eb.curve_bootstrap(GATE, n_resamples=n),
    "split_optimism": lambda n: eb.split_optimism(GATE, n_splits=n),
    "candidates": lambda n: synthetic.moe_bank_losses(3, 2, n, 10, 0),
    "inputs": lambda n: synthetic.moe_bank_losses(3, 2, 4, n, 0),
    "experts": lambda n: synthetic.moe_bank_losses(3, n, 4, 10, 0),
    "dimension": lambda n: synthetic.moe_bank_losses(n, 2, 4, 10, 0),
    "bits": lambda n: synthetic.bsc_selection([0.1, 0.2], 0.2, n, 1.0),
    "bit datasets": lambda n: synthetic.bsc_selection([0.1, 0.2], 0.2, 10, 1.0, n_datasets=n),
    "letters": lambda n: channels.symmetric_channel(n, 0.1),
    "erasures": lambda n: channels.erasure_channel(n, 0.1),
    "uses": lambda n: channels.bsc_blocklength(n, 0.1, 1e-3),
    "batches": lambda n: gates.minibatch_rate(GATE, 4, n_batches=n),
    "batch": lambda n: gates.minibatch_rate(GATE, n),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("size", [10**10, 10**15, 10**400], ids=["1e10", "1e15", "1e400"])
def test_an_absurd_size_is_one_sentence(name, size):
    with pytest.raises(ValueError, match="allowed") as caught:
        SIZES[name](size)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("size", [10**10, 10**15])
def test_a_formula_takes_any_count(size):
    assert_finite(eb.union_bound(size, size), "union")
    assert_finite(channels.symmetric_capacity(size, [0, 0.1, 1]), "capacity")
    assert_finite(channels.symmetric_dispersion(size, [0, 0.1, 1]), "dispersion")
    assert_finite(eb.simulate(GATE, sample_size=size, n_datasets=3), "simulate")


def test_many_candidates_are_one_line_on_the_command_line(tmp_path, capsys):
    np.save(tmp_path / "mistakes.npy", np.eye(3, dtype=int))
    for option in ("--sample-size", "--datasets"):
        arguments = ["bounds", str(tmp_path / "mistakes.npy"), option, str(10**10)]
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert not out
        assert err.count("\n") == 1
        assert "10000000000" in err


# what PYTHONOPTIMIZE=2 must leave as it is: no docstring is there, and no assert is run
WITHOUT_DOCSTRINGS = """
import sys
from expertbank.cli import main

assert False, "not run: that is the point"
if main.__doc__ is not None:
    raise SystemExit("docstrings are there")
for command in ([], ["curve"], ["bounds"], ["report"], ["routes", "report"]):
    try:
        main([*command, "--help"])
    except SystemExit as stop:
        if stop.code:
            raise
for arguments in (["rate", "gate.npy"], ["curve", "gate.npy"], ["bounds", "gate.npy"]):
    if main(arguments):
        raise SystemExit(str(arguments))
"""


def test_python_without_docstrings_runs_the_library_and_its_commands(tmp_path):
    np.save(tmp_path / "gate.npy", np.eye(3))
    outputs = []
    for level in ("2", "0"):
        script = WITHOUT_DOCSTRINGS
        if level == "0":
            script = script.replace("assert False", "assert True").replace("is not None", "is None")
        found = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=os.environ | {"PYTHONOPTIMIZE": level},
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        outputs.append(found.stdout)
    assert outputs[0] == outputs[1]
    assert "examples:" in outputs[0]
