"""The evidence for specialisation: p values against enumeration and against routers without any,
files of the first format, and the orders of information that need more than the reader may think.
"""

import itertools
import json
from dataclasses import fields

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from expertbank.information import entropy
from expertbank.routers import (
    LayerStatistics,
    RouterStatistics,
    load_statistics,
    routing_report,
    write_html,
)
from expertbank.routers.measures import adjusted_p, permutation_p, relabelled_information
from expertbank.routers.statistics import KEPT, OLD_FORMAT

E = 8


def information(table):
    """I of a table of counts by its three entropies."""
    shares = np.asarray(table) / np.sum(table)
    joint = entropy(shares.ravel())
    return entropy(shares.sum(axis=0)) + entropy(shares.sum(axis=1)) - joint


def null_router(rng, domains, lengths, n_layers=1, habit=0.5, copies=False):
    """Statistics of a router whose texts have expert habits of their own, so that tokens of one are
    alike, and whose domains say nothing about them."""
    sequence = np.repeat(np.arange(len(domains)), lengths)
    n_domains = int(max(domains)) + 1
    statistics = RouterStatistics(E, 1, n_domains=n_domains, seed=int(rng.integers(2**31)))
    for layer in range(n_layers):
        if not (layer and copies):
            habits = rng.dirichlet(np.full(E, habit), len(domains)).cumsum(axis=1)
            chosen = (rng.random(len(sequence))[:, None] > habits[sequence]).sum(axis=1)
        rows = np.minimum(chosen, E - 1)[:, None]
        statistics.update(layer, rows, domain=np.asarray(domains)[sequence], sequence=sequence)
    return statistics


# --- p values ---


@given(st.integers(1, 40), st.integers(0, 100))
def test_a_p_value_is_a_rank_and_never_too_small(n, percent):
    """Of n + 1 values, each as likely to be the true one, at most a share a has p <= a; the 95%
    quantile of 20 lets two of 21 through."""
    values = np.random.default_rng(n).permutation(n + 1).astype(float)
    level = percent / 100
    p = [permutation_p(value, np.delete(values, i)) for i, value in enumerate(values)]
    assert sorted(p) == pytest.approx((1 + np.arange(n + 1)) / (n + 1))
    assert np.mean(np.array(p) <= level) <= level + 1e-12
    if n == 20:
        above = [v > np.quantile(np.delete(values, i), 0.95) for i, v in enumerate(values)]
        assert np.mean(above) == pytest.approx(2 / 21)
        assert np.mean(np.array(p) <= 0.05) == pytest.approx(1 / 21)


@pytest.mark.parametrize("seed", range(5))
def test_over_all_assignments_no_family_is_rejected_too_often(seed):
    """Six texts, three of each domain, in four layers that depend on one another: with each of the
    20 assignments as the true one and the others as relabellings, the share of families of which
    one layer has p <= a is at most a."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 20, (4, 6, 3))
    counts[1] = counts[0] + rng.integers(0, 3, (6, 3))
    values = []
    for first in itertools.combinations(range(6), 3):
        own = np.isin(np.arange(6), first)
        tables = [[layer[own].sum(axis=0), layer[~own].sum(axis=0)] for layer in counts]
        values.append([information(table) for table in tables])
    values = np.transpose(values)  # (layers, assignments)
    p = [adjusted_p(values[:, i], np.delete(values, i, axis=1)) for i in range(20)]
    smallest = np.min(p, axis=1)
    for level in np.arange(1, 20) / 20:
        assert np.mean(smallest <= level + 1e-12) <= level + 1e-12
    alone = [permutation_p(values[0, 0], values[0, 1:])]
    assert adjusted_p(values[:1, 0], values[:1, 1:]) == pytest.approx(alone)
    assert p[0][0] >= alone[0]
    # some family is rejected: the test has power left
    assert smallest.min() <= 0.1


def test_relabellings_are_permutations():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (5, 3))
    labels = np.array([0, 0, 1, 1, 1])
    every = set()
    for order in itertools.permutations(labels):
        own = np.array(order) == 0
        every.add(round(information([counts[own].sum(axis=0), counts[~own].sum(axis=0)]), 10))
    drawn = relabelled_information(counts, labels, 400)
    assert {round(value, 10) for value in drawn.tolist()} == every and len(every) == 10


def test_many_labels_are_relabelled_in_blocks(monkeypatch):
    rng = np.random.default_rng(1)
    counts, labels = rng.integers(0, 9, (40, 6)), np.arange(40) // 2
    at_once = relabelled_information(counts, labels, 30)
    monkeypatch.setattr("expertbank.routers.measures.MOST_CELLS", 500)
    np.testing.assert_array_equal(relabelled_information(counts, labels, 30), at_once)


SETTINGS = {
    "64 texts, equal shares": {"domains": np.arange(64) % 4, "lengths": 40},
    "8 texts, equal shares": {"domains": np.arange(8) % 4, "lengths": 40},
    "60 texts, 54 of one domain": {
        "domains": np.repeat(np.arange(4), [54, 2, 2, 2]),
        "lengths": 40,
    },
    "lengths from 2 to 200": {"domains": np.arange(40) % 2, "lengths": None},
    "four layers alike": {"domains": np.arange(40) % 2, "lengths": 40, "copies": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_routers_that_ignore_the_domain_are_rejected_as_often_as_the_level_says(name):
    """400 routers of 4 layers: p and the corrected p at 5% within binomial limits of 1 - 1e-4. The
    quantile of 20 uniform relabellings rejects 19% of the second setting, 10% of the first."""
    setting = dict(SETTINGS[name])
    single, family = [], 0
    for seed in range(400):
        rng = np.random.default_rng([seed, len(name)])
        if setting["lengths"] is None:
            lengths = rng.integers(2, 200, len(setting["domains"]))
        else:
            lengths = np.full(len(setting["domains"]), setting["lengths"])
        statistics = null_router(
            rng, setting["domains"], lengths, 4, copies=setting.get("copies", False)
        )
        layers = routing_report(statistics).layers
        single += [layer.domain_p <= 0.05 for layer in layers]
        family += min(layer.family_p for layer in layers) <= 0.05
    few = 400 if setting.get("copies") else 1600  # independent ones
    low, high = scipy.stats.binom.interval(1 - 1e-4, few, 0.05)
    assert low <= np.mean(single) * few <= high
    low, high = scipy.stats.binom.interval(1 - 1e-4, 400, 0.05)
    assert low <= family <= high


def test_with_many_layers_the_corrected_p_is_the_one_to_go_by():
    """Twenty layers without effect beside one with: one in twenty is small by chance alone."""
    rng = np.random.default_rng(3)
    domains = np.arange(60) % 3
    statistics = null_router(rng, domains, np.full(60, 30), 20)
    sequence = np.repeat(np.arange(60), 30)
    leans = rng.random(len(sequence)) < 0.3
    chosen = np.where(leans, domains[sequence], rng.integers(0, E, len(sequence)))[:, None]
    statistics.update("leaning", chosen, domain=domains[sequence], sequence=sequence)
    report = routing_report(statistics, relabellings=999)
    single = [layer.domain_p for layer in report.layers]
    assert report.layers[-1].layer == "leaning" and report.layers[-1].family_p == 1 / 1000
    assert min(single[:-1]) <= 0.05
    assert min(layer.family_p for layer in report.layers[:-1]) > 0.05
    assert all(layer.family_p >= layer.domain_p for layer in report.layers)
    # the family is that of the statistics, whichever layers one picks to look at
    (picked,) = routing_report(statistics, layers=[7], relabellings=999).layers
    assert picked == report.layers[7]


def test_layers_of_other_sequences_are_corrected_by_their_number():
    rng = np.random.default_rng(4)
    statistics = null_router(rng, np.arange(20) % 2, np.full(20, 10))
    other = null_router(rng, np.arange(24) % 2, np.full(24, 10))
    statistics.layers["other"] = other.layers[0]
    for layer in routing_report(statistics).layers:
        assert layer.family_p == pytest.approx(min(1, 2 * layer.domain_p))


def test_beyond_what_is_kept_a_random_sample_is_permuted():
    rng = np.random.default_rng(5)
    domains, length = np.arange(300) % 3, 20
    sequence = np.repeat(np.arange(300), length)
    habits = rng.dirichlet(np.full(E, 0.5), 300).cumsum(axis=1)[sequence]
    chosen = np.minimum((rng.random(len(sequence))[:, None] > habits).sum(axis=1), E - 1)[:, None]
    layers = []
    for n_kept in (100, 1024):
        statistics = RouterStatistics(E, 1, n_domains=3, n_kept=n_kept)
        statistics.update(0, chosen, domain=domains[sequence], sequence=sequence)
        report = routing_report(statistics)
        layers += report.layers
        assert ("random sample" in report.table()) == (n_kept == 100)
    few, all_of_them = layers
    assert (few.permuted, all_of_them.permuted) == (100, 300)
    assert few.domain_information == all_of_them.domain_information
    assert few.null_mean == pytest.approx(all_of_them.null_mean, rel=0.15)
    none = RouterStatistics(E, 1, n_domains=3, n_kept=0)
    none.update(0, chosen, domain=domains[sequence], sequence=sequence)
    (layer,) = routing_report(none).layers
    assert layer.domain_p is None and layer.null_unit == "slots"


@pytest.mark.slow
def test_a_caution_stands_where_lengths_differ_by_domain_and_p_is_wrong():
    """Two long texts make a domain that stands out by chance: 5% are more than 20%."""
    domains = np.repeat([0, 1], [38, 2])
    rejected = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        report = routing_report(null_router(rng, domains, np.where(domains, 400, 20)))
        rejected += report.layers[0].domain_p <= 0.05
    assert rejected > 20
    assert report.layers[0].length_ratio == pytest.approx(20)
    assert "20.0 times as long" in report.table()
    even = routing_report(null_router(rng, domains, np.full(40, 20)))
    assert even.layers[0].length_ratio == 1 and "times as long" not in even.table()


# --- files of the first format ---


def save_old(path, statistics, tables):
    """A file as the first format had it, with slots by random domain for each layer."""
    sizes = {**statistics.configuration, "relabellings": len(next(iter(tables.values())))}
    del sizes["n_kept"]
    header = {"format": OLD_FORMAT, "sizes": sizes, "layers": list(statistics.layers)}
    arrays = {"header": np.array(json.dumps(header))}
    for i, (name, layer) in enumerate(statistics.layers.items()):
        for field in fields(LayerStatistics):
            if field.name not in (*KEPT, "mixed_sequences", "known_slots"):
                arrays[f"{i}.{field.name}"] = getattr(layer, field.name)
        arrays[f"{i}.null"] = tables[name]
    np.savez(path, **arrays)


@pytest.mark.parametrize("n", [20, 0])
def test_a_file_with_relabellings_still_loads_and_says_that_they_are_few(tmp_path, n):
    rng = np.random.default_rng(6)
    domains, lengths = np.arange(30) % 3, np.full(30, 10)
    statistics = null_router(rng, domains, lengths, 2)
    tables = {}
    for name, layer in statistics.layers.items():
        tables[name] = np.zeros((n, 3, E), np.int64)
        for table in tables[name]:
            np.add.at(table, rng.integers(0, 3, 30), layer.kept_slots[:30])
    save_old(tmp_path / "old.npz", statistics, tables)
    old = load_statistics(tmp_path / "old.npz")
    report = routing_report(old)
    text = report.table()
    write_html(report, tmp_path / "old.html")
    for name, layer in zip(old.layers, report.layers, strict=True):
        found = information(statistics.layers[name].domains)
        assert layer.domain_information == pytest.approx(found)
        if not n:
            assert layer.domain_p is None and layer.null_unit == "slots"
            continue
        null = np.array([information(table) for table in tables[name]])
        assert layer.domain_p == (1 + (null >= found).sum()) / 21
        assert layer.null_mean == pytest.approx(null.mean())
        assert layer.family_p >= layer.domain_p and layer.capped is None
    assert ("20 relabellings are too few" in text) == (n == 20)
    assert ("20 relabellings are too few" in (tmp_path / "old.html").read_text()) == (n == 20)
    # counting goes on, but these relabellings no longer speak of all slots
    old.update(0, [[1]], domain=[0], sequence=[99])
    assert routing_report(old).layers[0].domain_p is None
    with pytest.raises(ValueError, match="both must be made with the same numbers"):
        old + statistics
    save_old(tmp_path / "bad.npz", statistics, {name: np.zeros((2, 5, E)) for name in tables})
    with pytest.raises(ValueError, match="null is float64 of shape"):
        load_statistics(tmp_path / "bad.npz")


# --- what is at most what ---


def test_i_of_weights_may_lie_below_what_the_sequence_tells():
    """Two texts take experts {0, 1} and {0, 2}, each with all but no weight on the second: T of the
    weights is always 0, T of the picks tells the text."""
    arrays = {
        "chosen": [[0, 1]] * 4 + [[0, 2]] * 4,
        "domain": np.repeat([0, 1], 4),
        "sequence": np.repeat([0, 1], 4),
    }
    statistics = RouterStatistics(3, 2, n_domains=2)
    statistics.update("picks", **arrays)
    statistics.update("weights", weights=[[1.0, 1e-9]] * 8, **arrays)
    picks, weights = routing_report(statistics).layers
    expected = 1.5 * np.log(2) - np.log(2)
    for layer in (picks, weights):
        assert layer.capped == "yes"
        assert layer.sequence_information == pytest.approx(expected)
        assert layer.domain_information == pytest.approx(expected)
    assert picks.rate == pytest.approx(expected)
    assert weights.rate < 1e-6 < weights.domain_information


def test_the_cap_does_not_hold_for_a_domain_a_token_and_the_report_says_so(tmp_path):
    """One text in which the expert is the language of the token: H(T|Seq) = log 2, the cap is 0."""
    domain = np.arange(40) % 2
    statistics = RouterStatistics(2, 1, n_domains=2)
    statistics.update(0, domain[:, None], domain=domain, sequence=np.zeros(40, int))
    report = routing_report(statistics)
    (layer,) = report.layers
    assert layer.cap == pytest.approx(0, abs=1e-12)
    assert layer.domain_information == pytest.approx(np.log(2))
    assert layer.capped == "mixed" and layer.domain_p is None and layer.null_unit == "slots"
    assert "tokens of several domains in a sequence" in report.table()
    write_html(report, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "tokens of several domains in a sequence" in page and "It cannot exceed" not in page
    text = np.arange(40) // 20
    whole = RouterStatistics(2, 1, n_domains=2)
    whole.update(0, domain[:, None], domain=text, sequence=text)
    write_html(routing_report(whole), tmp_path / "page.html")
    assert "It cannot exceed" in (tmp_path / "page.html").read_text()


def test_the_order_does_not_hold_for_labels_of_different_tokens_and_the_report_says_so():
    """The first half has domains and no sequences, the second the other way round."""
    half = np.repeat([True, False], 20)
    chosen = np.where(half, np.arange(40) % 2, 0)[:, None]
    statistics = RouterStatistics(2, 1, n_domains=2)
    domain, sequence = np.where(half, np.arange(40) % 2, -1), np.where(half, -1, np.arange(40) % 4)
    statistics.update(0, chosen, domain=domain, sequence=sequence)
    report = routing_report(statistics)
    (layer,) = report.layers
    assert layer.sequence_information == pytest.approx(0, abs=1e-12)
    assert layer.domain_information == pytest.approx(np.log(2))
    assert layer.capped == "apart" and layer.domain_p is None
    assert "known of different tokens: 0" in report.table()


def test_of_choices_alone_the_rate_is_that_of_any_router_with_this_load(tmp_path):
    """Experts by token and experts by lot: the same number, and not called I(X;T)."""
    rng = np.random.default_rng(7)
    by_token = (np.arange(400) % 4)[:, None] * 2 + np.arange(2)
    by_lot = rng.permutation(by_token)
    reports = []
    for chosen in (by_token, by_lot):
        statistics = RouterStatistics(E, 2)
        statistics.update(0, chosen)
        reports.append(routing_report(statistics))
    assert reports[0].layers[0].rate == reports[1].layers[0].rate == pytest.approx(np.log(E / 2))
    lines = reports[1].table().splitlines()
    head = next(line for line in lines if line.startswith("layer"))
    assert "H(T) - log k" in head and "I(X;T)" not in head
    found = reports[1].json()
    assert found["labels"]["rate"] == "H(T) - log k"
    assert "says nothing about what the router looks at" in found["explanations"]["rate"]
    write_html(reports[1], tmp_path / "page.html")
    assert "H(T) - log k" in (tmp_path / "page.html").read_text()
    weighted = RouterStatistics(E, 2)
    weighted.update(0, by_token, weights=np.ones((400, 2)))
    assert routing_report(weighted).json()["labels"]["rate"] == "I(X;T)"


def test_the_balance_loss_may_lie_below_one_and_purity_starts_at_the_commonest_domain():
    statistics = RouterStatistics(2, 1, n_domains=2)
    chosen = np.tile([0, 0, 0, 1], 40)[:, None]
    statistics.update(
        0, chosen, probabilities=np.tile([0.25, 0.75], (160, 1)), domain=[0] * 120 + [1] * 40
    )
    (layer,) = routing_report(statistics).layers
    assert (
        layer.balance_loss == pytest.approx(2 * (0.75 * 0.25 + 0.25 * 0.75))
        and layer.balance_loss < 1
    )
    assert layer.domain_information == pytest.approx(0, abs=1e-12) and layer.purity == 0.75
