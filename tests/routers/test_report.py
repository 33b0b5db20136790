"""The report on a router: each number against a closed form, a law or another computation; table,
JSON and page."""

import html.parser
import itertools
import json
import math
import re

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from expertbank.cli import main
from expertbank.information import binary_entropy, entropy, mutual_information
from expertbank.routers import (
    Agreement,
    RouterStatistics,
    compare_routing,
    load_statistics,
    merge_statistics,
    routing_report,
    write_html,
)
from expertbank.routers.coactivation import chow_liu_information, total_correlation
from expertbank.routers.conditional_bernoulli import conditional_bernoulli
from expertbank.routers.layer_report import LayerReport
from expertbank.routers.quantities import QUANTITIES
from expertbank.routers.report_page import html_page


def distinct(rng, n, n_experts, k, skew=0.0):
    return (rng.gumbel(size=(n, n_experts)) + skew).argsort(axis=1)[:, -k:]


def counted(n_experts, k, sizes=None, layer=0, **arrays):
    statistics = RouterStatistics(n_experts, k, **(sizes or {}))
    statistics.update(layer, **arrays)
    return statistics


def loaded(n_experts, k, load):
    statistics = RouterStatistics(n_experts, k)
    statistics.add_load(0, load)
    return statistics


def report_of(*arguments, **arrays):
    (layer,) = routing_report(counted(*arguments, **arrays)).layers
    return layer


def a_run(seed=0, n_sequences=60, length=50, n_experts=8, k=2, strength=1.5, layers=(0,)):
    """Statistics of a router that leans on the domain, and the arrays that it was fed, by layer."""
    rng = np.random.default_rng(seed)
    domain = np.repeat(np.arange(n_sequences) % 4, length)
    statistics, fed = RouterStatistics(n_experts, k, n_domains=4, n_positions=length), {}
    for layer in layers:
        logits = rng.gumbel(size=(len(domain), n_experts)) + strength * np.eye(4, n_experts)[domain]
        chosen = logits.argsort(axis=1)[:, -k:]
        probabilities = scipy.special.softmax(logits, axis=1)
        fed[layer] = {
            "chosen": chosen,
            "weights": np.take_along_axis(probabilities, chosen, 1),
            "probabilities": probabilities,
            "domain": domain,
            "sequence": np.repeat(np.arange(n_sequences), length),
            "position": np.arange(len(domain)) % length,
        }
        statistics.update(layer, **fed[layer])
    return statistics, fed


# --- closed forms ---


def test_a_router_that_ignores_the_token_has_no_rate():
    n = 70
    layer = report_of(
        7, 7, chosen=np.tile(np.arange(7), (n, 1)), probabilities=np.full((n, 7), 1 / 7)
    )
    for value in (layer.rate, layer.softmax_rate, layer.variation, layer.max_violation):
        assert value == pytest.approx(0, abs=1e-12)
    assert (
        layer.output_entropy == pytest.approx(np.log(7)) == pytest.approx(layer.conditional_entropy)
    )
    assert layer.utilisation == pytest.approx(1) == layer.balance_loss
    assert (layer.used, layer.dead, layer.dead_experts, layer.empty_slots) == (7, 0, (), 0)
    # all are always chosen
    assert layer.coactivation == pytest.approx(0, abs=1e-12) == layer.coactivation_baseline


def test_fixed_groups_have_the_rate_log_e_over_k_and_experts_in_teams():
    k, groups, n = 4, 8, 32
    chosen = np.repeat(np.arange(groups), n)[:, None] * k + np.arange(k)
    sequence = np.repeat(np.arange(groups), n)
    layer = report_of(
        32, k, {"n_domains": groups}, chosen=chosen, domain=sequence, sequence=sequence
    )
    assert layer.rate_of == "picks" and layer.rate == pytest.approx(np.log(32 / k))
    assert (
        layer.conditional_entropy
        == pytest.approx(np.log(k))
        == pytest.approx(layer.sequence_entropy)
    )
    # the domain is the group: nothing lies between it, the sequence and the cap
    for value in (
        layer.domain_information,
        layer.sequence_information,
        layer.cap,
        layer.fano_floor,
    ):
        assert value == pytest.approx(np.log(groups))
    assert layer.purity == layer.load_purity == 1
    assert layer.coactivation_of == "sets"
    assert layer.coactivation == pytest.approx(32 * binary_entropy(1 / 8) - np.log(8))
    assert layer.coactivation_baseline == pytest.approx(
        32 * binary_entropy(1 / 8) - np.log(math.comb(32, 4))
    )
    (same,) = compare_routing([(0, {"chosen": chosen})], [(0, {"chosen": chosen})], 32).values()
    assert same.information == pytest.approx(np.log(32 / k)) and same.flip_rate == 0


def test_dead_experts_are_named_and_the_load_is_one_family():
    chosen = np.array([[0, 1]] * 3 + [[0, 2]] * 5)
    layer = report_of(6, 2, chosen=chosen)
    load = np.array([8, 3, 5, 0, 0, 0]) / 16
    assert layer.dead_experts == (3, 4, 5) and (layer.used, layer.dead) == (3, 3)
    np.testing.assert_allclose(layer.load, load)
    assert layer.load_entropy == pytest.approx(entropy(load))
    assert layer.variation == pytest.approx(load.std() / load.mean())
    assert layer.variation**2 == pytest.approx(6 * np.exp(-layer.collision_entropy) - 1)
    assert (
        layer.max_violation
        == pytest.approx(6 * np.exp(-layer.min_entropy) - 1)
        == pytest.approx(6 * 8 / 16 - 1)
    )
    assert layer.utilisation == pytest.approx(1 - np.abs(load - 1 / 6).sum() / 2)


def test_weights_are_scaled_token_by_token_and_their_sum_is_told():
    weights = np.array([[0.3, 0.1], [0.2, 0.2], [1.5, 0.5]])
    chosen = np.array([[0, 1], [2, 1], [1, 0]])
    gate = np.zeros((3, 3))
    np.put_along_axis(gate, chosen, weights / weights.sum(axis=1, keepdims=True), 1)
    layer = report_of(3, 2, chosen=chosen, weights=weights)
    assert layer.rate_of == "weights" and layer.rate == pytest.approx(mutual_information(gate))
    assert layer.conditional_entropy == pytest.approx(entropy(gate).mean())
    assert layer.weight_sum == pytest.approx((0.4 + 0.4 + 2) / 3)


def test_a_softmax_alone_gives_rate_and_load():
    gate = np.random.default_rng(0).dirichlet(np.ones(5), 40)
    layer = report_of(5, 2, probabilities=gate)
    assert layer.rate_of == "softmax" and layer.rate == layer.softmax_rate == pytest.approx(
        mutual_information(gate)
    )
    np.testing.assert_allclose(layer.load, gate.mean(axis=0))
    assert (
        layer.balance_loss is None
        and layer.coactivation is None
        and layer.domain_information is None
    )


def test_pooling_layers_hides_that_each_is_out_of_balance():
    """Layer 0 uses the first half of the experts only, layer 1 the second: pooled, the loss is that
    of balance."""
    statistics, half = RouterStatistics(8, 1), np.repeat([1.0, 0.0], 4) / 4
    for layer, first in ((0, 0), (1, 4)):
        probabilities = np.tile(np.roll(half, first), (400, 1))
        statistics.update(layer, np.arange(400)[:, None] % 4 + first, probabilities=probabilities)
    report = routing_report(statistics)
    assert report.pooled_balance_loss == pytest.approx(1)
    for layer in report.layers:
        assert (
            layer.balance_loss == pytest.approx(2)
            and layer.utilisation == pytest.approx(0.5)
            and layer.dead == 4
        )
    assert "pooled over layers 1.0000, of single layers up to 2.0000" in report.table()


def test_a_dropped_token_counts_as_empty_slots():
    layer = report_of(4, 2, chosen=[[0, 1], [2, -1], [-1, -1], [3, 0]])
    assert layer.empty_slots == pytest.approx(3 / 8) and layer.tokens == 4
    # T is the expert of a slot: of 5 slots, 4 in rows of two
    assert layer.conditional_entropy == pytest.approx(4 / 5 * np.log(2))
    nothing = report_of(4, 2, chosen=[[-1, -1]])
    assert nothing.empty_slots == 1 and nothing.rate is None and nothing.load == ()
    assert report_of(4, 2, chosen=[[0, 1]], mask=[False]) == LayerReport(0, 0)


def test_a_load_counted_elsewhere_has_its_entropies_and_nothing_else():
    statistics = RouterStatistics(4, 2)
    statistics.add_load(0, [4, 2, 2, 0])
    (layer,) = routing_report(statistics).layers
    assert layer.output_entropy == layer.load_entropy == pytest.approx(
        1.5 * np.log(2)
    ) and layer.dead_experts == (3,)
    assert layer.rate is None and layer.coactivation is None and layer.empty_slots is None
    for load, message in (([1, 2, 3], r"allowed is \(4,\)"), ([1, 2, 3, -1], "counts of slots")):
        with pytest.raises(ValueError, match=message):
            statistics.add_load(0, load)


# --- what the expert tells about the domain ---


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.permutations(range(5)), min_size=1, max_size=6)),
        min_size=1,
        max_size=8,
    )
)
def test_domain_sequence_and_token_obey_data_processing_and_the_scope_theorem(sequences):
    rows = np.array([row[:2] for _, rows in sequences for row in rows])
    sequence = np.array([i for i, (_, rows) in enumerate(sequences) for _ in rows])
    domain = np.array([domain for domain, rows in sequences for _ in rows])
    layer = report_of(5, 2, {"n_domains": 3}, chosen=rows, domain=domain, sequence=sequence)
    assert layer.fano_floor is None or layer.fano_floor <= layer.domain_information + 1e-12
    assert layer.domain_information <= layer.sequence_information + 1e-12
    assert layer.sequence_information <= min(layer.cap, layer.rate) + 1e-12
    assert layer.cap == pytest.approx(np.log(5) - layer.sequence_entropy)
    assert layer.rate <= np.log(5 / 2) + 1e-12
    assert np.log(5) - layer.output_entropy >= 2 * (1 - layer.utilisation) ** 2 - 1e-12  # Pinsker
    assert layer.null_unit == "sequences"


def test_a_domain_without_influence_has_a_large_p_and_one_with_it_the_smallest():
    p_values, nulls = [], []
    for seed in range(20):
        statistics, _ = a_run(seed, strength=0)
        (layer,) = routing_report(statistics).layers
        p_values.append(layer.domain_p)
        assert layer.family_p == layer.domain_p  # one layer
        assert (layer.domain_information > layer.null_high) == (layer.domain_p <= 0.05)
        nulls.append(layer.null_mean)
        assert abs(layer.excess) < 4 * layer.domain_bias
        # 50 positions of 120 slots: the bias is 50 times as large
        assert layer.given_position == pytest.approx(layer.given_position_bias, rel=0.3)
        assert layer.position_information == pytest.approx(layer.position_bias, rel=0.3)
    # binomial (20, .05): beyond 1 - 3e-4; and even in all
    assert np.sum(np.array(p_values) <= 0.05) <= 5
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3
    # these tokens are independent, and their two experts distinct: (D-1)(E-k)/2N, a little less
    # than for single slots
    assert np.mean(nulls) == pytest.approx(layer.domain_bias * 6 / 7, rel=0.1)
    (layer,) = routing_report(a_run()[0]).layers
    assert layer.domain_information > 5 * layer.null_high and layer.domain_p == 1 / 200


def test_without_sequences_slots_are_dealt_out():
    _, fed = a_run(strength=0)
    arrays = {name: fed[0][name] for name in ("chosen", "domain")}
    layer = report_of(8, 2, {"n_domains": 4}, **arrays)
    assert layer.null_unit == "slots" and layer.null_mean == pytest.approx(
        layer.domain_bias, rel=0.3
    )
    assert layer.sequence_information is None
    assert layer.domain_p is layer.family_p is layer.null_high is layer.permuted is None
    half = {**arrays, "sequence": np.where(np.arange(3000) < 1500, fed[0]["sequence"], -1)}
    # the null must speak of the same slots
    assert report_of(8, 2, {"n_domains": 4}, **half).null_unit == "slots"


def test_room_for_more_domains_than_there_are_changes_nothing():
    _, fed = a_run(strength=0)
    arrays = {name: fed[0][name] for name in ("chosen", "domain", "sequence")}
    tight, roomy = (report_of(8, 2, {"n_domains": d}, **arrays) for d in (4, 64))
    assert roomy == tight
    alone = report_of(
        8, 2, {"n_domains": 4}, **{**arrays, "domain": np.zeros_like(arrays["domain"])}
    )
    assert alone.domain_information == alone.null_mean == 0 and alone.fano_floor is None
    assert alone.domain_p == alone.family_p == 1


def test_every_number_is_that_of_the_raw_arrays():
    statistics, fed = a_run(n_sequences=20, length=30, k=3)
    (layer,) = routing_report(statistics).layers
    arrays = fed[0]
    slots = arrays["chosen"].ravel()

    def information(label):
        table = np.histogram2d(np.repeat(label, 3), slots, bins=(label.max() + 1, 8), range=None)[0]
        return entropy(table.sum(1) / table.sum()) + entropy(table.sum(0) / table.sum()) - entropy(
            table.ravel() / table.sum()
        )  # fmt: skip

    assert layer.domain_information == pytest.approx(information(arrays["domain"]))
    assert layer.sequence_information == pytest.approx(information(arrays["sequence"]))
    assert layer.position_information == pytest.approx(information(arrays["position"]))
    pair = arrays["domain"] * 30 + arrays["position"]
    assert layer.given_position == pytest.approx(
        information(pair) - information(arrays["position"])
    )
    gate = np.zeros((600, 8))
    np.put_along_axis(
        gate, arrays["chosen"], arrays["weights"] / arrays["weights"].sum(1, keepdims=True), 1
    )
    assert layer.rate == pytest.approx(mutual_information(gate))
    assert layer.softmax_rate == pytest.approx(mutual_information(arrays["probabilities"]))
    shares = np.bincount(slots, minlength=8) / slots.size
    assert layer.balance_loss == pytest.approx(8 * shares @ arrays["probabilities"].mean(axis=0))
    _, counts = np.unique(np.sort(arrays["chosen"], axis=1), axis=0, return_counts=True)
    single = np.array([(arrays["chosen"] == i).any(axis=1).mean() for i in range(8)])
    assert layer.coactivation == pytest.approx(binary_entropy(single).sum() - entropy(counts / 600))
    tokens = report_of(8, 3, {"n_tokens": 30}, chosen=arrays["chosen"], token=arrays["position"])
    assert tokens.token_information == pytest.approx(layer.position_information)


def test_a_report_of_merged_parts_is_that_of_one_pass():
    parts = [a_run(seed)[0] for seed in range(4)]
    once = RouterStatistics(8, 2, n_domains=4, n_positions=50)
    for seed in range(4):
        once.update(0, **a_run(seed)[1][0])
    expected = routing_report(once).json()["layers"][0]
    for order in (parts, parts[::-1]):
        found = routing_report(merge_statistics(order)).json()["layers"][0]
        for name, value in found.items():
            assert value == expected[name] or value == pytest.approx(expected[name], rel=1e-10), (
                name
            )


# --- experts chosen together ---


@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(1, 6))
def test_the_tree_is_a_lower_bound_of_the_total_correlation_and_exact_for_a_tree(
    seed, n_experts, k
):
    k = min(k, n_experts)
    rng = np.random.default_rng(seed)
    statistics = counted(
        n_experts, k, chosen=distinct(rng, 40, n_experts, k, 2 * rng.normal(size=n_experts))
    )
    exact, _ = total_correlation(statistics.layers[0])
    tree = chow_liu_information(statistics.layers[0])
    assert -1e-12 <= tree <= exact + 1e-9


def test_the_tree_is_the_best_of_all():
    """All 125 trees on five experts (Cayley), by their Prüfer words; sizes of the sets vary."""
    rng = np.random.default_rng(2)
    chosen = distinct(rng, 200, 5, 3, np.repeat(2 * rng.normal(size=(4, 5)), 50, axis=0))
    chosen[::7, 1] = -1
    member = np.array([[i in row for i in range(5)] for row in chosen])

    def pairwise(i, j):
        joint = np.histogram2d(member[:, i], member[:, j], bins=2)[0] / 200
        return entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint.ravel())

    edges = {(i, j): pairwise(i, j) for i in range(5) for j in range(i + 1, 5)}
    trees = []
    for word in itertools.product(range(5), repeat=3):
        degree, total, word = 1 + np.bincount(word, minlength=5), 0.0, list(word)
        for node in word:
            leaf = int(np.flatnonzero(degree == 1)[0])
            total += edges[min(leaf, node), max(leaf, node)]
            degree[[leaf, node]] -= 1
        total += edges[tuple(np.flatnonzero(degree == 1))]
        trees.append(total)
    found = chow_liu_information(counted(5, 3, chosen=chosen).layers[0])
    assert len(trees) == 125 and found == pytest.approx(max(trees))


@pytest.mark.parametrize(("n_experts", "k", "kind"), [(12, 3, "sets"), (70, 6, "tree")])
def test_experts_chosen_at_random_have_the_total_correlation_of_a_fixed_number(n_experts, k, kind):
    layer = report_of(n_experts, k, chosen=distinct(np.random.default_rng(0), 20_000, n_experts, k))
    assert layer.coactivation_of == kind
    assert layer.coactivation == pytest.approx(
        layer.coactivation_baseline + layer.coactivation_bias, rel=0.15
    )
    # teams stand out in either way
    team = np.random.default_rng(0).integers(0, n_experts // k, 20_000)[:, None] * k + np.arange(k)
    teams = report_of(n_experts, k, chosen=team)
    assert teams.coactivation - teams.coactivation_bias > 2 * teams.coactivation_baseline


def test_the_independent_choice_by_enumeration():
    sets = np.array(list(itertools.combinations(range(6), 3)))
    layer = report_of(6, 3, chosen=sets)
    assert layer.coactivation == pytest.approx(layer.coactivation_baseline)
    assert layer.coactivation == pytest.approx(6 * np.log(2) - np.log(20))
    single = [[expert, -1, -1] for expert in range(6)]
    mixed = np.vstack([sets, np.repeat(single, 5, axis=0)])
    layer = report_of(6, 3, chosen=mixed)
    assert layer.coactivation == pytest.approx(layer.coactivation_baseline)


def all_sets(odds, sizes):
    """Sets and their probabilities, where those of a size are as likely as the products of odds."""
    sets, chances = [], []
    for size, share in enumerate(sizes):
        some = list(itertools.combinations(range(len(odds)), size))
        products = np.array([np.prod(odds[list(members)]) for members in some])
        sets += some
        chances += list(share * products / products.sum())
    return sets, np.array(chances)


@pytest.mark.parametrize("sizes", [[0, 0, 1], [0.1, 0.2, 0, 0.7], [0, 0.5, 0.3, 0.1, 0.1], [0, 1]])
@pytest.mark.parametrize("seed", range(3))
def test_the_law_of_most_entropy_by_enumeration(sizes, seed):
    odds = np.exp(2 * np.random.default_rng(seed).normal(size=6))
    odds[0] *= seed  # an expert that nobody takes
    sets, chances = all_sets(odds, sizes)
    member = np.array([[i in members for i in range(6)] for members in sets], float)
    pairs = member.T @ (chances[:, None] * member)
    law = conditional_bernoulli(np.diag(pairs), sizes)
    np.testing.assert_allclose(law.marginals, np.diag(pairs), atol=1e-8)
    assert law.entropy == pytest.approx(entropy(chances), abs=1e-8)
    np.testing.assert_allclose(law.pairs, pairs - np.diag(np.diag(pairs)), atol=1e-8)


def test_no_law_with_the_same_loads_has_more_entropy():
    """Moving weight round a cycle of four sets keeps every load."""
    odds = np.exp(np.random.default_rng(0).normal(size=5))
    sets, chances = all_sets(odds, [0, 0, 1])
    law = conditional_bernoulli(
        [chances[[i in s for s in sets]].sum() for i in range(5)], [0, 0, 1]
    )
    for moved in (-1e-3, 1e-3):
        other = chances.copy()
        for sign, members in ((1, (0, 1)), (-1, (1, 2)), (1, (2, 3)), (-1, (0, 3))):
            other[sets.index(members)] += sign * moved
        assert entropy(other) < law.entropy


@pytest.mark.parametrize(("n_experts", "k"), [(12, 3), (70, 6)])
@pytest.mark.parametrize("skew", [0.5, 1, 2])
def test_an_uneven_load_alone_is_no_team(n_experts, k, skew):
    """Where experts were compared with an even choice, this gave +.03 to -.34 nats of teams."""
    rng = np.random.default_rng(1)
    chosen = distinct(rng, 20_000, n_experts, k, skew * rng.normal(size=n_experts))
    layer = report_of(n_experts, k, chosen=chosen)
    excess = layer.coactivation - layer.coactivation_bias - layer.coactivation_baseline
    assert abs(excess) < 0.1 * max(layer.coactivation_baseline, layer.coactivation_bias)


# --- two runs ---


def test_streams_are_paired_token_by_token_however_they_are_cut():
    _, fed = a_run(0, layers=(0, 1))
    _, other = a_run(1, layers=(0, 1))
    whole = {}
    for layer in (0, 1):
        whole[layer] = Agreement(8)
        whole[layer].update(fed[layer]["chosen"], other[layer]["chosen"])

    def pieces(arrays, size):
        for start in range(0, 3000, size):
            for layer in (0, 1):
                yield (
                    layer,
                    {name: values[start : start + size] for name, values in arrays[layer].items()},
                )

    found = compare_routing(pieces(fed, 700), pieces(other, 451), 8)
    for layer in (0, 1):
        np.testing.assert_array_equal(found[layer].pairs, whole[layer].pairs)
    report = routing_report(a_run(0, layers=(0, 1))[0], found)
    for layer in report.layers:
        assert layer.flip_rate == whole[layer.layer].flip_rate
        assert (
            layer.matched_flip_rate <= layer.flip_rate
            and 0 < layer.agreement_information < layer.rate
        )
    short = [(0, {"chosen": fed[0]["chosen"][:-1]})]
    with pytest.raises(ValueError, match="layer 0 has 1 tokens more in the second run"):
        compare_routing(short, [(0, {"chosen": other[0]["chosen"]})], 8)
    with pytest.raises(ValueError, match="layer 1 has 3000 tokens more in the first run"):
        compare_routing(pieces(fed, 3000), [(0, other[0])], 8)
    with pytest.raises(ValueError, match="position differs between the runs"):
        compare_routing(
            [(0, fed[0])], [(0, {**other[0], "position": other[0]["position"][::-1]})], 8
        )
    with pytest.raises(ValueError, match="has no chosen experts"):
        compare_routing([(0, {"load": [1]})], [(0, {"load": [1]})], 8)


# --- table, JSON, page ---


def a_report(layers=(0, 1, 2), agreements=True):
    statistics, fed = a_run(layers=layers)
    _, other = a_run(7, layers=layers)
    found = compare_routing(fed.items(), other.items(), 8) if agreements else None
    return routing_report(statistics, found)


def test_layers_stand_in_their_natural_order():
    statistics = RouterStatistics(4, 1)
    for i in (10, 9, 1):
        statistics.update(f"layers.{i}.gate", [[0], [1]])
    report = routing_report(statistics)
    assert [layer.layer for layer in report.layers] == [
        "layers.1.gate",
        "layers.9.gate",
        "layers.10.gate",
    ]
    assert [
        layer.layer for layer in routing_report(statistics, layers=["layers.10.gate"]).layers
    ] == ["layers.10.gate"]


def test_the_table_is_aligned_holds_every_number_and_explains_each():
    report = a_report()
    for explain in (False, True):
        text = report.table(explain=explain)
        blocks = [block.splitlines() for block in text.split("\n\n")]
        tables = [block for block in blocks if len(block) > 2 and block[1].startswith("layer")]
        assert [table[0] for table in tables] == list(report.groups())
        for table in tables:
            ends = [[match.end() for match in re.finditer(r"\S+", line)][1:] for line in table[2:]]
            assert all(row == ends[0] for row in ends) and len(table) == 3 + len(report.layers)
        assert max(map(len, text.splitlines())) <= 120
        for names in report.groups().values():
            for name in names:
                assert (report.quantity(name).text in re.sub(r"\s+", " ", text)) is explain
    assert f"{report.layers[1].rate:.4f}" in text and f"{report.layers[2].flip_rate:.4f}" in text


def test_every_field_is_explained_in_a_sentence():
    drawn = {"load", "dead_experts", "flips_by_position", "tokens_by_margin", "flips_by_margin"}
    fields = set(LayerReport.__dataclass_fields__) - {"layer", *drawn}
    assert set(QUANTITIES) == fields
    for quantity in QUANTITIES.values():
        assert quantity.unit and quantity.good and not quantity.good.endswith(".")
        assert quantity.text.endswith(".") and 20 < len(quantity.text) < 300
    full = {name for names in a_report().groups().values() for name in names}
    next_layer = {"next_layer", "next_information", "next_bias"}
    phases = {name for name, quantity in QUANTITIES.items() if quantity.group.startswith("Prefill")}
    not_counted = {"token_information", "token_bias", "unrouted", "heard"}
    assert fields - full == not_counted | next_layer | phases


def test_json_comes_back_whole():
    report = a_report()
    text = json.dumps(report.json(), allow_nan=False)
    again = json.loads(text)
    assert again["n_experts"] == 8 and again["units"] == "nats"
    for layer, written in zip(report.layers, again["layers"], strict=True):
        for name, value in written.items():
            found = getattr(layer, name)
            assert value == (list(found) if isinstance(found, tuple) else found), name
    assert set(again["explanations"]) == set(QUANTITIES)
    fewer = Agreement(8, 4)  # no flip rate where experts are not the same
    fewer.update([[0, 1]], [[0, 1]])
    odd = routing_report(counted(8, 2, chosen=[[0, 1]]), {0: fewer})
    assert json.loads(json.dumps(odd.json(), allow_nan=False))["layers"][0]["flip_rate"] is None
    assert "-" in odd.table().split("Agreement")[1]


class Page(html.parser.HTMLParser):
    """Checks that tags nest; collects what a page refers to, its ids and its images."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, text):
        super().__init__()
        self.open, self.references, self.ids, self.images, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.collect(tag, dict(attributes))

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.collect(tag, dict(attributes))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def collect(self, tag, attributes):
        self.references += [
            v for k, v in attributes.items() if k in ("src", "href", "xlink:href", "data", "action")
        ]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(map(str, attributes.values())))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.images += [attributes] if attributes.get("role") == "img" else []


@pytest.mark.parametrize("layers", [(0,), (0, 1, 2), tuple(f"model.<b>{i}</b>" for i in range(14))])
def test_the_page_stands_alone_and_says_everything(layers):
    report = a_report(layers)
    text = html_page(report)
    page = Page(text)
    assert (
        "http" not in text
        and "@import" not in text
        and not {"script", "link", "iframe", "img"} & set(page.tags)
    )
    assert all(re.match("#|data:image/png;base64,", reference) for reference in page.references)
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= set(
        page.ids
    )
    assert len(set(page.ids)) == len(page.ids)
    assert len(page.images) == 9 and all(len(image["aria-label"]) > 60 for image in page.images)
    assert (
        "prefers-color-scheme: dark" in text and 'name="viewport"' in text and 'lang="en"' in text
    )
    for names in report.groups().values():
        for name in names:
            assert html.escape(report.quantity(name).text) in text
    assert f"{report.layers[-1].domain_information:.4f}" in text
    assert "<b>" not in text.replace("&lt;b&gt;", "")


@pytest.mark.parametrize(
    "statistics",
    [
        counted(4, 1, chosen=[[0], [1]]),
        counted(4, 2, chosen=[[-1, -1]]),
        counted(4, 2, probabilities=np.full((3, 4), 0.25)),
        counted(4, 2, chosen=[[0, 1]], mask=[False]),
        counted(300, 8, chosen=distinct(np.random.default_rng(0), 20, 300, 8)),
        counted(1, 1, chosen=[[0]] * 3, probabilities=np.ones((3, 1))),
        loaded(4, 2, [4, 2, 2, 0]),
    ],
    ids=[
        "top-1",
        "all dropped",
        "softmax alone",
        "all masked",
        "mostly dead",
        "one expert",
        "loads alone",
    ],
)
def test_poor_data_still_makes_a_report(statistics, tmp_path):
    report = routing_report(statistics)
    write_html(report, tmp_path / "report.html")
    Page((tmp_path / "report.html").read_text())
    json.dumps(report.json(), allow_nan=False)
    assert not re.search(r"\bnan\b", report.table(explain=True))
    assert max(map(len, report.notes()), default=0) < 200


def test_writing_a_page_changes_no_setting(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_html(a_report(), tmp_path / "one.html")
    assert dict(matplotlib.rcParams) == before
    write_html(a_report(), tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: routing_report(RouterStatistics(4, 2)), "hold no layer; update them first"),
        (lambda: routing_report({}), "statistics is a dict"),
        (
            lambda: routing_report(counted(4, 1, chosen=[[0]]), layers=[3]),
            r"no layer 3; allowed are \[0\]",
        ),
        (lambda: routing_report(counted(4, 1, chosen=[[0]]), {"a": Agreement(4)}), "no layer 'a'"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- the command ---


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def saved(path, seed=0, **more):
    _, fed = a_run(seed, layers=(0, 1))
    layered = {
        name: np.stack([fed[0][name], fed[1][name]])
        for name in ("chosen", "weights", "probabilities")
    }
    np.savez(path, **layered, **{name: fed[0][name] for name in ("domain", "sequence")}, **more)
    return path


def test_routes_report_prints_what_the_library_says_and_writes_both_files(capsys, tmp_path):
    first, second = saved(tmp_path / "a.npz"), saved(tmp_path / "b.npz", seed=1)
    outputs = ("--json", tmp_path / "out.json", "--html", tmp_path / "out.html")
    code, out, err = run(capsys, "routes", "report", first, "--against", second, *outputs)
    statistics, fed = a_run(layers=(0, 1))
    report = routing_report(
        statistics, compare_routing(fed.items(), a_run(1, layers=(0, 1))[1].items(), 8)
    )
    written = json.loads((tmp_path / "out.json").read_text())
    assert code == 0 and err == ""
    for layer, found in zip(report.layers, written["layers"], strict=True):
        for name in (
            "rate",
            "domain_information",
            "null_mean",
            "cap",
            "utilisation",
            "flip_rate",
            "coactivation",
        ):
            assert found[name] == pytest.approx(getattr(layer, name)), name
        assert f"{layer.rate:.4f}" in out
    Page((tmp_path / "out.html").read_text())


def test_routes_report_cuts_a_file_into_steps_where_it_is_told_how_long_they_are(capsys, tmp_path):
    chosen = np.tile([[0], [1], [2], [3], [0], [0], [1], [1]], (4, 1))
    np.savez(tmp_path / "a.npz", chosen=chosen, n_experts=4)
    code, out, _ = run(capsys, "routes", "report", tmp_path / "a.npz")
    assert code == 0 and "MaxVio of steps is not recorded of layers: 0." in out
    outputs = ("--json", tmp_path / "out.json")
    code, out, _ = run(capsys, "routes", "report", tmp_path / "a.npz", "--step", 4, *outputs)
    assert code == 0 and "not recorded" not in out
    [layer] = json.loads((tmp_path / "out.json").read_text())["layers"]
    # four even tokens and four of two experts, in turns
    assert layer["steps"] == 8 and layer["step_violation"] == pytest.approx(0.5)
    assert (layer["step_violation_p50"], layer["step_violation_max"]) == (0, pytest.approx(1))


def test_routes_report_picks_layers_and_takes_statistics(capsys, tmp_path):
    statistics, _ = a_run(layers=(0, 1, "head"))
    statistics.save(tmp_path / "routes.npz")
    assert load_statistics(tmp_path / "routes.npz").layers.keys() == {0, 1, "head"}
    code, out, _ = run(
        capsys,
        "routes",
        "report",
        tmp_path / "routes.npz",
        "--layer",
        "head",
        "--layer",
        1,
        "--explain",
    )
    assert code == 0 and out == routing_report(statistics, layers=["head", 1]).table(explain=True)


def test_routes_report_on_vllms_arrays_asks_for_the_number_of_experts(capsys, tmp_path):
    _, fed = a_run()
    requests = fed[0]["chosen"].reshape(60, 50, 1, 2).astype(np.int16)
    np.savez(tmp_path / "v.npz", **{f"request{i}": request for i, request in enumerate(requests)})
    code, out, err = run(capsys, "routes", "report", tmp_path / "v.npz")
    assert code == 2 and out == "" and "give --experts" in err
    code, out, _ = run(
        capsys, "routes", "report", tmp_path / "v.npz", "--experts", 8, "--positions", 50
    )
    (layer,) = routing_report(a_run()[0]).layers
    assert (
        code == 0
        and f"{layer.sequence_information:.4f}" in out
        and f"{layer.position_information:.4f}" in out
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.npz"], "none.npz does not exist"),
        (["a.npz", "--layer", "7"], "no layer 7; allowed are [0, 1]"),
        (["a.npz", "--experts", "5"], "holds expert"),
        (["s.npz", "--against", "a.npz"], "--against compares two runs choice by choice: "),
        (["a.npz", "--against", "short.npz"], "2900 tokens more in the first run"),
        (["a.npz", "--html", "nowhere/out.html"], "nowhere"),
    ],
)
def test_routes_report_names_the_fix_in_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    saved("a.npz")
    np.savez("short.npz", chosen=np.tile(np.arange(2), (2, 100, 1)), n_experts=8)
    a_run()[0].save("s.npz")
    code, _, err = run(capsys, "routes", "report", *arguments)
    assert code == 2 and err.startswith("expertbank routes report: ") and err.count("\n") == 1
    assert message in err
