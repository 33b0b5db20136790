"""Bad input gives one ValueError or FileNotFoundError that names the argument, what was found and
what is allowed.

Every item of the issue's list is here; banks and MNIST have further cases in test_bank.py and
test_training.py.
"""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import expertbank as eb
from expertbank import channels, synthetic
from expertbank.information import miller_madow_bias
from expertbank.learners import empirical_risks, enumerate_datasets
from expertbank.shipped.manifest import read_manifest
from support import refused, skip_or_fail

LOSSES = np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5], [0.2, 0.3, 0.1]])
GATE = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
POINT = eb.rate_distortion(LOSSES, 0.3)

TAKES_LOSSES = {
    "rate_distortion": lambda losses: eb.rate_distortion(losses, 0.3),
    "rate_distortion_curve": eb.rate_distortion_curve,
    "distortion_at_rate": lambda losses: eb.distortion_at_rate(losses, 0.1),
    "critical_lambda": eb.critical_lambda,
    "routing": lambda losses: eb.routing(losses, POINT),
    "simulate": lambda losses: eb.simulate(losses, n_datasets=2),
    "empirical_risks": lambda losses: empirical_risks(losses, 2, 2, 0),
    "enumerate_datasets": lambda losses: enumerate_datasets(losses, 2),
}
TAKES_A_GATE = {
    "channel": eb.mutual_information,
    "gate": eb.gating_rate,
    "posteriors": eb.algorithmic_information,
    "posteriors ": eb.bootstrap_interval,
}
TAKES_RISKS = {
    "alpha_mixture": lambda risks: eb.alpha_mixture(risks, 0.5),
    "gibbs_posterior": lambda risks: eb.gibbs_posterior(risks, 2.0),
}


# --- tables ---


@pytest.mark.parametrize("function", TAKES_LOSSES)
@pytest.mark.parametrize(
    ("losses", "found"),
    [
        (np.zeros((0, 3)), "(0, 3)"),
        (np.zeros((3, 0)), "(3, 0)"),  # R = 0
        ([], "(0,)"),
        ([[]], "(1, 0)"),
        ([0.1, 0.2], "(2,)"),
        (np.zeros((2, 3, 4)), "(2, 3, 4)"),
        (0.5, "()"),
        ([[0, 1], [1]], "losses"),
        ([["a", "b"]], "<U1"),
        ([[1j, 0]], "complex"),
        (None, "()"),
        ([[None, 1.0]], "None"),
    ],
)
def test_loss_tables(function, losses, found):
    refused(lambda: TAKES_LOSSES[function](losses), "losses", found)


@pytest.mark.parametrize("function", TAKES_LOSSES)
@given(
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.sampled_from([float, "f4"]),
)
def test_loss_tables_must_be_finite_everywhere(function, row, column, value, dtype):
    losses = LOSSES.astype(dtype)
    losses[row, column] = value
    before = losses.copy()
    refused(lambda: TAKES_LOSSES[function](losses), "losses", f"{value} at ({row}, {column})")
    np.testing.assert_array_equal(losses, before)


@pytest.mark.parametrize("function", TAKES_RISKS)
@pytest.mark.parametrize(
    ("risks", "found"),
    [
        (0.5, "()"),
        ([], "(0,)"),
        (np.zeros((4, 0)), "(4, 0)"),
        ([0.1, np.nan], "nan at (1,)"),
        ([[1], [1, 2]], ""),
        (["x"], "<U1"),
    ],
)
def test_risks(function, risks, found):
    refused(lambda: TAKES_RISKS[function](risks), "risks", found)


@pytest.mark.parametrize(
    ("population", "found"),
    [
        (np.zeros((5, 2)), "2 experts"),
        (np.zeros(4), "4 experts"),
        (np.zeros((2, 2, 3)), "(2, 2, 3)"),
        (np.zeros((0, 3)), "(0, 3)"),
        (0.5, "()"),
        ([0.1, np.nan, 0.2], "nan at (1,)"),
        ([[0.1, np.inf, 0.2]], "inf at (0, 1)"),
        ("test", "()"),
    ],
)
def test_population(population, found):
    refused(lambda: eb.simulate(LOSSES, n_datasets=2, population=population), "population", found)


def test_routing_needs_one_point_of_the_same_bank():
    refused(lambda: eb.routing(LOSSES[:, :2], POINT), "point", "2 experts")
    refused(
        lambda: eb.routing(LOSSES, eb.rate_distortion_curve(LOSSES, [0.1, 0.2])), "point", "(2, 3)"
    )


# --- gates, distributions, weights ---


@pytest.mark.parametrize("name", TAKES_A_GATE)
@pytest.mark.parametrize(
    ("gate", "found"),
    [
        ([[0.5, 0.4]], "0.1"),
        ([[0.5, 0.5], [0.7, 0.7]], "0.4"),
        ([[1.5, -0.5]], "-0.5"),
        ([[0.5, np.nan]], "nan at (0, 1)"),
        ([[np.inf, 0]], "inf at (0, 0)"),
        ([0.5, 0.5], "(2,)"),
        (np.zeros((0, 2)), "(0, 2)"),
        (np.zeros((2, 0)), "(2, 0)"),
        ([[0.5, 0.5], [1]], ""),
        ([["a"]], "<U1"),
    ],
)
def test_gates(name, gate, found):
    refused(lambda: TAKES_A_GATE[name](gate), name.strip(), found)


@given(st.integers(0, 1), st.integers(0, 2), st.floats(1e-5, 10))
def test_any_row_that_does_not_sum_to_one(row, column, extra):
    for sign in (1, -1):
        gate = GATE.copy()
        gate[row, column] += sign * extra
        refused(partial(eb.gating_rate, gate), "gate")
        refused(partial(eb.entropy, gate), "p")


def test_rounded_rows_are_accepted():
    gate = np.random.default_rng(0).dirichlet(np.ones(25), 50).astype(np.float32)
    assert eb.gating_rate(gate) == pytest.approx(eb.gating_rate(gate.astype(float)), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "name", "found"),
    [
        (lambda: eb.entropy([0.5, 0.6]), "p", "0.1"),
        (lambda: eb.entropy([]), "p", "(0,)"),
        (lambda: eb.entropy(1.0), "p", "()"),
        (lambda: eb.kl_divergence([0.5, 0.5], [0.5, 0.6]), "q", "0.1"),
        (lambda: eb.kl_divergence([0.5, 0.5], [1 / 3] * 3), "q", "3"),
        (lambda: eb.kl_divergence([1 / 3] * 3, [1.0]), "q", "1"),
    ],
)
def test_distributions(call, name, found):
    refused(call, name, found)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda weights: eb.rate_distortion(LOSSES, 0.3, weights), "weights"),
        (lambda weights: eb.rate_distortion_curve(LOSSES, [0.3], weights), "weights"),
        (lambda weights: eb.distortion_at_rate(LOSSES, 0.1, weights), "weights"),
        (lambda weights: eb.critical_lambda(LOSSES, weights), "weights"),
        (lambda weights: enumerate_datasets(LOSSES, 2, weights), "weights"),
        (lambda weights: eb.gating_rate(GATE[[0, 1, 1]], weights), "weights"),
        (lambda weights: eb.mutual_information(GATE[[0, 1, 1]], weights), "input_dist"),
    ],
)
@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ([1, 2], "(2,)"),
        (1.0, "()"),
        ([[1, 1, 1]], "(1, 3)"),
        ([0, 0, 0], "0"),
        ([1, -1e-9, 1], "-1e-09"),
        ([1, np.nan, 1], "nan at (1,)"),
        ([1, np.inf, 1], "inf at (1,)"),
        (["a", "b", "c"], "<U1"),
    ],
)
def test_weights(call, name, weights, found):
    refused(lambda: call(weights), name, found)


# --- costs, methods, bands ---

TAKES_A_COST = {
    "rate_distortion": lambda cost: eb.rate_distortion(LOSSES, 0.3, cost=cost),
    "rate_distortion_curve": lambda cost: eb.rate_distortion_curve(LOSSES, [0.3], cost=cost),
    "distortion_at_rate": lambda cost: eb.distortion_at_rate(LOSSES, 0.1, cost=cost),
    "critical_lambda": lambda cost: eb.critical_lambda(LOSSES, cost=cost),
    "routing": lambda cost: eb.routing(LOSSES, POINT, cost=cost),
}


@pytest.mark.parametrize("function", TAKES_A_COST)
@pytest.mark.parametrize(
    ("cost", "found"),
    [
        ([1, 2], "(2,)"),
        ([[1, 2, 3]], "(1, 3)"),
        (1.0, "()"),
        ([], "(0,)"),
        ([1, np.nan, 2], "nan at (1,)"),
        ([1, 2, -np.inf], "-inf at (2,)"),
        (["a", "b", "c"], "<U1"),
    ],
)
def test_costs(function, cost, found):
    refused(lambda: TAKES_A_COST[function](cost), "cost", found)


@pytest.mark.parametrize("method", ["ba", "Newton", "", None, 1, ["newton"]])
def test_methods(method):
    refused(lambda: eb.rate_distortion(LOSSES, 0.3, method=method), "method", repr(method))
    refused(lambda: eb.rate_distortion_curve(LOSSES, [0.3], method=method), "method", repr(method))


@pytest.mark.parametrize("band", [0, -1e-3, np.nan, np.inf, "wide", [0.1, 0.2]])
def test_bands(band):
    refused(
        lambda: eb.rate_distortion_curve(LOSSES, band=band),
        "band",
        "" if isinstance(band, list) else f"{band}",
    )


def test_a_band_and_prices_exclude_each_other():
    refused(lambda: eb.rate_distortion_curve(LOSSES, [0.3], band=0.1), "band", "lams")


@pytest.mark.parametrize("rate", [-1e-9, np.nan, [0.1, -1.0], "a"])
def test_rates_of_a_band(rate):
    curve = eb.rate_distortion_curve(LOSSES)
    refused(lambda: curve.lower(rate), "rate")
    refused(lambda: curve.upper(rate), "rate")


# --- tables and weights of other engines ---


@pytest.fixture(params=["dask", "torch"])
def engine(request):
    """A function that takes a NumPy array to another engine."""
    if request.param == "torch":
        return request.getfixturevalue("torch").as_tensor
    try:
        import dask.array
    except ImportError as error:
        skip_or_fail(f"this needs `pip install -e '.[dask]'`: {error}")
    return lambda array: dask.array.from_array(array, chunks=2)


ON_AN_ENGINE = ["rate_distortion", "rate_distortion_curve", "distortion_at_rate", "critical_lambda"]


@pytest.mark.parametrize("function", [*ON_AN_ENGINE, "routing"])
@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 3), (3, 0), ()])
def test_shapes_on_other_engines(function, shape, engine):
    refused(lambda: TAKES_LOSSES[function](engine(np.zeros(shape))), "losses", str(shape))


@pytest.mark.parametrize("function", [*ON_AN_ENGINE, "routing"])
def test_complex_tables_on_other_engines(function, engine):
    refused(lambda: TAKES_LOSSES[function](engine(LOSSES * 1j)), "losses", "complex128")


@pytest.mark.parametrize("function", ON_AN_ENGINE)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 2])  # in the first chunk and in the last
def test_tables_on_other_engines_must_be_finite(function, row, value, engine):
    losses = LOSSES.copy()
    losses[row, 1] = value
    refused(lambda: TAKES_LOSSES[function](engine(losses)), "losses", "NaN or infinity")


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ([1, 2], "(2,)"),
        (1.0, "()"),
        ([0, 0, 0], "0"),
        ([1, -1e-9, 1], "-1e-09"),
        ([1, np.nan, 1], "nan at (1,)"),
        ([1, np.inf, 1], "inf at (1,)"),
    ],
)
def test_weights_on_other_engines(weights, found, engine):
    refused(lambda: eb.rate_distortion(engine(LOSSES), 0.3, weights), "weights", found)
    refused(lambda: eb.critical_lambda(engine(LOSSES), weights), "weights", found)


@pytest.mark.parametrize("engine", ["dask"], indirect=True)
@pytest.mark.parametrize("weights", [[1, 2], [0, 0, 0], [1, -1, 1], [1, np.nan, 1], [1, np.inf, 1]])
def test_weights_that_are_chunked(weights, engine):
    refused(
        lambda: eb.rate_distortion(engine(LOSSES), 0.3, engine(np.array(weights, float))), "weights"
    )


@pytest.mark.parametrize("engine", ["dask"], indirect=True)
@pytest.mark.parametrize("function", ON_AN_ENGINE)
def test_chunks_of_unknown_length(function, engine):
    losses = engine(LOSSES)
    refused(
        lambda: TAKES_LOSSES[function](losses[losses[:, 0] > 0.1]), "losses", "compute_chunk_sizes"
    )


def test_a_point_of_another_bank_on_other_engines(engine):
    refused(lambda: eb.routing(engine(LOSSES[:, :2]), POINT), "point", "2 experts")


def test_a_tensor_that_is_learned_is_a_table(torch):
    losses = torch.tensor(LOSSES, requires_grad=True)
    assert eb.rate_distortion(losses, 0.3).rate == pytest.approx(POINT.rate, abs=1e-9)


def test_large_weights_are_only_weights():
    assert eb.rate_distortion(LOSSES, np.inf, [1e308] * 3).distortion == pytest.approx(
        LOSSES.mean(axis=0).min()
    )


# --- numbers ---

outside_01 = st.floats().filter(lambda x: not 0 <= x <= 1)
negative = st.floats().filter(lambda x: not x >= 0)
below_one = st.integers(max_value=0) | st.floats() | st.just(True) | st.just("3") | st.none()


@given(outside_01)
def test_alpha(alpha):
    refused(lambda: eb.alpha_mixture([0.1, 0.2], alpha), "alpha", f"{alpha:g}")
    refused(lambda: eb.simulate(LOSSES, alpha, n_datasets=2), "alpha", f"{alpha:g}")


@given(negative)
def test_lambda(lam):
    refused(lambda: eb.rate_distortion(LOSSES, lam), "lam", f"{lam:g}")
    refused(lambda: eb.rate_distortion_curve(LOSSES, [0.1, lam]), "lams", f"{lam:g}")
    refused(lambda: eb.distortion_at_rate(LOSSES, lam), "rate", f"{lam:g}")


@given(negative | st.just(0.0))
def test_tolerance(tol):
    refused(lambda: eb.rate_distortion(LOSSES, 0.1, tol=tol), "tol", f"{tol:g}")
    refused(lambda: eb.rate_distortion_curve(LOSSES, [0.1], tol=tol), "tol", f"{tol:g}")
    refused(lambda: eb.distortion_at_rate(LOSSES, 0.1, tol=tol), "tol", f"{tol:g}")


@given(negative)
def test_bounds(value):
    found = f"{value:g}"
    refused(lambda: eb.xu_raginsky_bound(value, 10), "information", found)
    refused(lambda: eb.xu_raginsky_bound(1, 10, sigma=value), "sigma", found)
    refused(lambda: eb.theorem2_bound(value, 1, 10), "distortion", found)
    refused(lambda: eb.theorem2_bound(0.1, 1, 10, excess=value), "excess", found)
    refused(lambda: eb.gibbs_posterior([0.1, 0.2], value), "inverse_temperature", found)
    refused(lambda: eb.bsc_distortion_rate(value), "rate", found)


@given(below_one)
def test_counts(count):
    found = repr(count)
    refused(lambda: eb.simulate(LOSSES, sample_size=count), "sample_size", found)
    refused(lambda: eb.simulate(LOSSES, n_datasets=count), "n_datasets", found)
    refused(lambda: empirical_risks(LOSSES, count, 2, 0), "sample_size", found)
    refused(lambda: enumerate_datasets(LOSSES, count), "sample_size", found)
    refused(lambda: eb.xu_raginsky_bound(1, count), "sample_size", found)
    refused(lambda: eb.theorem2_bound(0.1, 1, count), "sample_size", found)
    refused(lambda: eb.union_bound(count, 10), "n_candidates", found)
    refused(lambda: eb.union_bound(10, count), "sample_size", found)
    refused(lambda: eb.bootstrap_interval(GATE, n_resamples=count), "n_resamples", found)
    refused(lambda: miller_madow_bias(count, 10), "n_outcomes", found)
    refused(lambda: synthetic.random_moe(count, 2, 0), "dimension", found)
    refused(lambda: synthetic.moe_bank_losses(2, 2, count, 5, 0), "n_candidates", found)
    refused(lambda: synthetic.bsc_selection([0.1], 0.1, count, 1), "sample_size", found)
    refused(lambda: channels.symmetric_channel(count, 0.1), "k", found)
    refused(lambda: channels.bsc_blocklength(count, 0.1, 0.1), "n_uses", found)


@pytest.mark.parametrize("count", [1, np.int64(3), np.uint8(2)])
def test_integers_of_any_kind_are_counts(count):
    assert eb.union_bound(25, count) > 0


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda value: eb.alpha_mixture([0.1, 0.2], value), "alpha"),
        (lambda value: eb.simulate(LOSSES, value), "alpha"),
        (lambda value: eb.gibbs_posterior([0.1, 0.2], value), "inverse_temperature"),
        (lambda value: eb.rate_distortion(LOSSES, value), "lam"),
        (lambda value: eb.rate_distortion(LOSSES, 0.1, tol=value), "tol"),
        (lambda value: eb.distortion_at_rate(LOSSES, value), "rate"),
        (lambda value: eb.algorithmic_information(GATE, value), "confidence"),
        (lambda value: eb.bootstrap_interval(GATE, value), "confidence"),
        (lambda value: channels.symmetric_channel(3, value), "error"),
        (lambda value: channels.erasure_channel(3, value), "erased"),
        (lambda value: channels.randomised_response(3, value), "epsilon"),
        (lambda value: channels.bsc_blocklength(10, value, 0.1), "crossover"),
        (lambda value: channels.bsc_blocklength(10, 0.1, value), "block_error"),
    ],
)
@pytest.mark.parametrize("value", [[0.1, 0.2], "0.1", None, 1j])
def test_one_number_is_one_number(call, name, value):
    refused(lambda: call(value), name)


@pytest.mark.parametrize(
    ("call", "name", "found"),
    [
        (lambda: eb.gibbs_posterior([0.1, 0.2], np.inf), "inverse_temperature", "inf"),
        (lambda: eb.rate_distortion_curve(LOSSES, []), "lams", "(0,)"),
        (lambda: eb.rate_distortion_curve(LOSSES, [[0.1]]), "lams", "(1, 1)"),
        (lambda: eb.rate_distortion_curve(LOSSES, ["a"]), "lams", "a"),
        (lambda: eb.rate_distortion(LOSSES, 0.1, tol=np.inf), "tol", "inf"),
        (lambda: eb.xu_raginsky_bound(1, 10, sigma=0), "sigma", "0"),
        (lambda: eb.xu_raginsky_bound([1, np.nan], 10), "information", "nan"),
        (lambda: eb.algorithmic_information(GATE, 1), "confidence", "1"),
        (lambda: eb.algorithmic_information(GATE, 0), "confidence", "0"),
        (lambda: eb.bootstrap_interval(GATE, 1.5), "confidence", "1.5"),
        (lambda: eb.bootstrap_interval(GATE[:1]), "posteriors", "(1, 3)"),
        (lambda: eb.binary_entropy(1.1), "p", "1.1"),
        (lambda: eb.binary_entropy([0.5, np.nan]), "p", "nan"),
        (lambda: eb.binary_entropy_inverse(0.7), "h", "0.7"),
        (lambda: eb.binary_entropy_inverse(-1e-9), "h", "-1e-09"),
        (lambda: channels.bsc_rate(-0.1), "crossover", "-0.1"),
        (lambda: channels.symmetric_channel(1, 0.1), "k", "1"),
        (lambda: channels.symmetric_capacity(3, 1.5), "error", "1.5"),
        (lambda: channels.uniform_rate(-0.5, 3), "distortion", "-0.5"),
        (lambda: channels.erasure_capacity(3, 2), "erased", "2"),
        (lambda: channels.randomised_response(3, -1), "epsilon", "-1"),
        (lambda: channels.randomised_response_rate(3, np.nan), "epsilon", "nan"),
        (lambda: channels.ldp_rate_cap(3, -1), "epsilon", "-1"),
        (lambda: channels.ldp_contraction(-1), "epsilon", "-1"),
        (lambda: channels.bsc_contraction(2), "crossover", "2"),
        (lambda: channels.bsc_blocklength(10, 0.6, 0.1), "crossover", "0.6"),
        (lambda: channels.bsc_blocklength(10, 0.1, 0), "block_error", "0"),
        (lambda: channels.bsc_blocklength(10, 0.1, 1), "block_error", "1"),
        (lambda: synthetic.bsc_selection([0.1, 0], 0.1, 10, 1), "candidates", "0."),
        (lambda: synthetic.bsc_selection([0.1, 0.6], 0.1, 10, 1), "candidates", "0.6"),
        (lambda: synthetic.bsc_selection([], 0.1, 10, 1), "candidates", "[]"),
        (lambda: synthetic.bsc_selection([0.1], 1.1, 10, 1), "crossover", "1.1"),
        (lambda: synthetic.bsc_selection([0.1], 0.1, 10, -1), "inverse_temperature", "-1"),
        (lambda: synthetic.bsc_posteriors([0.1], [11], 10, 1), "flips", "11"),
        (lambda: synthetic.alpha_curve(LOSSES, [0.1, 1.1], 3, 5), "alphas", "1.1"),
        (lambda: synthetic.alpha_curve(LOSSES, [0.1], 3, 5, test=LOSSES[:, :2]), "test", "2"),
        (lambda: synthetic.alpha_curve(LOSSES, [0.1], 3, 1), "n_datasets", "1"),
    ],
)
def test_other_numbers(call, name, found):
    refused(call, name, found)


# --- files ---


def damage(path, change):
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data))


def one_bit(data):
    data[100] ^= 1
    return data


def other_hash(data):
    return re.sub(rb'"sha256": "\w', b'"sha256": "0', data)


NO_MANIFEST = r"manifest\.json is not a bank manifest .*; restore it from git"
DAMAGE = {
    "truncated": (
        lambda f: damage(f / "predictions.npz", lambda d: d[:-1]),
        r"has \d+ bytes, the manifest says \d+",
    ),
    "corrupted": (
        lambda f: damage(f / "predictions.npz", one_bit),
        r"has sha256 \w+, the manifest says \w+",
    ),
    "wrong hash": (
        lambda f: damage(f / "manifest.json", other_hash),
        r"manifest\.json was changed after it was sealed",
    ),
    "cut manifest": (lambda f: damage(f / "manifest.json", lambda d: d[:-20]), NO_MANIFEST),
    "binary manifest": (
        lambda f: damage(f / "manifest.json", lambda d: b"\xff\xfe\x00"),
        NO_MANIFEST,
    ),
    "no predictions": (
        lambda f: (f / "predictions.npz").unlink(),
        r"predictions\.npz is missing, though the manifest",
    ),
    "no manifest": (
        lambda f: (f / "manifest.json").unlink(),
        r"no bank named 'tiny' in .*; allowed are \[\]",
    ),
    "unknown": (
        lambda f: f.rename(f.with_name("tinny")),
        r"no bank named 'tiny' in .*; allowed are \['tinny'\]",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_banks(tiny_bank, contents, kind):
    root = tiny_bank[0]
    prepare, says = DAMAGE[kind]
    prepare(root / "tiny")
    before = contents(root)
    error = (
        FileNotFoundError if kind in ("no predictions", "no manifest", "unknown") else ValueError
    )
    with pytest.raises(error, match=says) as caught:
        eb.load_bank("tiny", root)
    assert caught.type is error and "\n" not in str(caught.value)
    assert str(root) in str(caught.value)  # says which file or folder
    assert contents(root) == before


def test_manifest_without_the_file_that_was_asked_for(tiny_bank):
    from expertbank.shipped.manifest import check_file

    folder = tiny_bank[0] / "tiny"
    with pytest.raises(
        FileNotFoundError, match=r"tiny has no weights\.safetensors; its manifest lists"
    ):
        check_file(folder, read_manifest(folder), "weights.safetensors")


def test_half_downloaded_mnist(torch, tmp_path, contents):
    from expertbank.training.datasets import RAW_FILES, load_mnist

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in RAW_FILES:
        with pytest.raises(
            FileNotFoundError, match=rf"MNIST in .*raw lacks .*{name}.*; point EXPERTBANK_DATA"
        ):
            load_mnist("train", tmp_path)
        (raw / name).write_bytes(b"half of it")
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match=r"-ubyte has md5 \w+, MNIST has \w+: incomplete download\?"
    ):
        load_mnist("test", tmp_path)
    assert contents(tmp_path) == before
