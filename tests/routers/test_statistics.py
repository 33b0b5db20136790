"""Statistics of a router: every sum against the raw arrays, merging against one pass, memory,
files, bad input."""

import itertools
import json
import math
import operator
import tracemalloc
from dataclasses import fields
from pathlib import Path

import dask
import dask.bag
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from expertbank.information import entropy
from expertbank.routers import (
    Agreement,
    LayerStatistics,
    RouterStatistics,
    load_statistics,
    merge_statistics,
)
from expertbank.routers._counting import groups_of
from expertbank.routers.statistics import KEPT
from expertbank.shipped.manifest import REPOSITORY, check_file, read_manifest

OLD_FILE = Path(__file__).with_name("statistics_before_steps.npz")
E, K, D, P, V = 7, 3, 4, 5, 11
SIZES = {"n_domains": D, "n_positions": P, "n_tokens": V}


def distinct(rng, n, n_experts=E, k=K, skew=None):
    """Rows (n, k) of distinct experts in random order; `skew` (n, E) makes some likelier."""
    noise = rng.gumbel(size=(n, n_experts)) + (0 if skew is None else skew)
    return rng.permuted(noise.argsort(axis=1)[:, -k:], axis=1)


def tokens(seed=0, n_sequences=30, length=6, empty=0.1):
    """What a run may send: everything at once, whole sequences, some slots empty, some labels
    unknown."""
    rng = np.random.default_rng(seed)
    n = n_sequences * length
    domain = np.repeat(rng.integers(0, D, n_sequences), length)
    chosen = distinct(rng, n, skew=2 * np.eye(D, E)[domain])
    chosen[rng.random(chosen.shape) < empty] = -1
    return {
        "chosen": chosen,
        "weights": rng.random((n, K)) + 0.1,
        "probabilities": rng.dirichlet(np.ones(E), n),
        "domain": np.where(np.arange(n) % 17 == 0, -1, domain),
        "sequence": np.repeat(1000 * seed + np.arange(n_sequences), length),
        "position": np.arange(n) % length - 1,  # the first has none
        "token": rng.integers(-1, V, n),
        "phase": np.arange(n) % 7 % 3 - 1,
        "step": np.repeat(np.arange(n_sequences), length),
        "mask": rng.random(n) < 0.9,
    }


def counted(batches, **more):
    statistics = RouterStatistics(E, K, **SIZES, **more)
    for batch in batches:
        statistics.update(0, **batch)
    return statistics


def split(batch, cuts):
    """Batches of whole sequences: `cuts` say which batch each sequence goes to."""
    index = np.asarray(cuts)[np.unique(batch["sequence"], return_inverse=True)[1]]
    return [{name: value[index == i] for name, value in batch.items()} for i in set(cuts)]


def assert_same(one, other):
    assert one.configuration == other.configuration and list(one.layers) == list(other.layers)
    for name, layer in one.layers.items():
        for field in fields(LayerStatistics):
            mine, theirs = getattr(layer, field.name), getattr(other.layers[name], field.name)
            assert mine.dtype == theirs.dtype and mine.shape == theirs.shape, field.name
            if mine.dtype == np.int64:
                np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
            else:
                np.testing.assert_allclose(mine, theirs, rtol=1e-12, err_msg=field.name)


# --- every sum, token by token ---


def test_every_sum_is_that_of_a_loop_over_tokens():
    batch = tokens()
    (layer,) = counted([batch]).layers.values()
    expected = {
        field.name: np.zeros_like(getattr(layer, field.name)) for field in fields(LayerStatistics)
    }
    by_sequence, kept = {}, {}
    sets = [set(row[row >= 0].tolist()) for row in RouterStatistics(E, K).sets]
    for i in np.flatnonzero(batch["mask"]):
        row, label = (
            batch["chosen"][i],
            {name: batch[name][i] for name in ("domain", "position", "token", "sequence", "phase")},
        )
        taken = row[row >= 0]
        expected["tokens"] += 1
        expected["sizes"][len(taken)] += 1
        expected["sets"][sets.index(set(taken.tolist()))] += 1
        for a, b in itertools.permutations(taken, 2):
            expected["pairs"][a, b] += 1
        for expert in taken:
            expected["slots"][expert] += 1
            expected["sequence_slots"][expert] += 1
            by_sequence.setdefault(label["sequence"], np.zeros(E))[expert] += 1
            if label["domain"] >= 0:
                expected["domains"][label["domain"], expert] += 1
                if label["position"] >= 0:
                    expected["positions"][label["position"], label["domain"], expert] += 1
            if label["token"] >= 0:
                expected["token_slots"][label["token"], expert] += 1
            if label["phase"] >= 0:
                expected["phases"][label["phase"], expert] += 1
            if label["domain"] >= 0:
                expected["known_slots"] += 1
                kept.setdefault((label["sequence"], label["domain"]), np.zeros(E))[expert] += 1
        if len(taken):
            weight = batch["weights"][i][row >= 0]
            expected["weighted"] += 1
            expected["weight_sum"] += weight.sum()
            np.add.at(expected["weight_load"], taken, weight / weight.sum())
            expected["weight_entropy"] += entropy(weight / weight.sum())
        expected["probable"] += 1
        expected["probability_sum"] += batch["probabilities"][i]
        expected["probability_entropy"] += entropy(batch["probabilities"][i])
    for i, ((sequence, domain), slots) in enumerate(sorted(kept.items())):
        expected["kept_ids"][i], expected["kept_domains"][i] = sequence, domain
        expected["kept_slots"][i] = slots
    expected["kept_ids"][len(kept) :] = expected["kept_domains"][len(kept) :] = -1
    expected["sequences"] += len(by_sequence)
    expected["sequence_cells"] += sum((counts > 0).sum() for counts in by_sequence.values())
    expected["sequence_entropy"] += sum(
        counts.sum() * entropy(counts / counts.sum()) for counts in by_sequence.values()
    )
    for counts in by_sequence.values():  # each is a step here
        violation = E * counts.max() / counts.sum() - 1
        place = round(np.log(1 + violation) / np.log(E) * (len(layer.step_counts) - 1))
        expected["step_counts"][place] += 1
        expected["step_sums"][place] += violation
    for name, value in expected.items():
        np.testing.assert_allclose(
            getattr(layer, name), value, rtol=1e-12, atol=1e-12, err_msg=name
        )


def test_the_order_of_slots_and_of_tokens_says_nothing():
    batch = tokens()
    rng = np.random.default_rng(1)
    slots = rng.permuted(np.tile(np.arange(K), (len(batch["chosen"]), 1)), axis=1)
    shuffled = {
        **batch,
        **{name: np.take_along_axis(batch[name], slots, 1) for name in ("chosen", "weights")},
    }
    order = rng.permutation(len(slots))
    assert_same(
        counted([batch]), counted([{name: value[order] for name, value in shuffled.items()}])
    )


def test_masked_tokens_may_hold_anything():
    batch = tokens()
    out = ~batch["mask"]
    spoilt = {name: value.copy() for name, value in batch.items()}
    spoilt["chosen"][out], spoilt["weights"][out], spoilt["probabilities"][out] = 99, np.nan, -3
    spoilt["domain"][out], spoilt["token"][out] = 99, -7
    assert_same(counted([batch]), counted([spoilt]))


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.int64, np.uint64])
def test_integers_of_any_width(kind):
    batch = tokens(empty=0)
    assert_same(counted([batch]), counted([{**batch, "chosen": batch["chosen"].astype(kind)}]))


@pytest.mark.parametrize("kind", ["float16", "float32", "bfloat16"])
def test_short_floats_may_miss_one_as_everywhere(kind):
    rows = np.random.default_rng(0).dirichlet(np.ones(E), 50)
    rows[0] *= 1.002
    if kind == "bfloat16":
        torch = pytest.importorskip("torch")
        short = torch.tensor(rows).to(torch.bfloat16)
    else:
        short = rows.astype(kind)
    statistics = RouterStatistics(E, K)
    statistics.update(0, probabilities=short)
    exact = np.asarray(short.tolist())
    expected = (exact / exact.sum(axis=1, keepdims=True)).sum(axis=0)
    np.testing.assert_allclose(statistics.layers[0].probability_sum, expected, rtol=1e-5)


@pytest.mark.parametrize(("n_experts", "k"), [(6, 2), (8, 8), (5, 1), (32, 4)])
def test_sets_are_numbered_one_by_one(n_experts, k):
    statistics = RouterStatistics(n_experts, k)
    assert len(statistics.sets) == sum(math.comb(n_experts, size) for size in range(k + 1))
    np.testing.assert_array_equal(
        statistics.set_numbering.numbers(statistics.sets.T), np.arange(len(statistics.sets))
    )
    rows = np.sort(statistics.sets, axis=1)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_too_many_sets_are_left_to_their_pairs():
    statistics = RouterStatistics(64, 8)
    statistics.update(0, distinct(np.random.default_rng(0), 50, 64, 8))
    assert statistics.sets is None and statistics.layers[0].sets.size == 0
    assert statistics.layers[0].pairs.sum() == 50 * 8 * 7


def dense(rng, n_experts, k, n):
    """Full rows, many enough that tables are made and not cells."""
    return {
        "chosen": distinct(rng, n, n_experts, k),
        "weights": rng.random((n, k)).astype(np.float32) + np.float32(0.01),
        "probabilities": rng.dirichlet(np.ones(n_experts), n).astype(np.float32),
        "position": rng.integers(-1, 6, n),
        "domain": rng.integers(-1, 3, n),
        "phase": rng.integers(-1, 2, n),
    }


@pytest.mark.parametrize(("n_experts", "k"), [(5, 1), (6, 2), (6, 4), (64, 8)])
@pytest.mark.parametrize("empty", [0, 0.2])
def test_a_large_batch_gives_what_its_tokens_give_one_by_one(n_experts, k, empty):
    """Tables of many tokens, and the cells of few, are made in different ways."""
    rng = np.random.default_rng(k)
    batch = dense(rng, n_experts, k, 3000)
    batch["chosen"][rng.random(batch["chosen"].shape) < empty] = -1
    whole = RouterStatistics(n_experts, k, n_domains=3, n_positions=6)
    parts = RouterStatistics(n_experts, k, n_domains=3, n_positions=6)
    whole.update(0, **batch, step=np.arange(3000))
    for i in range(3000):
        parts.update(0, **{name: values[i : i + 1] for name, values in batch.items()})
    for name, array in vars(whole.layers[0]).items():
        found = getattr(parts.layers[0], name)
        np.testing.assert_allclose(found, array, rtol=1e-6, atol=1e-9, err_msg=name)


def test_single_precision_is_summed_in_double():
    rng = np.random.default_rng(0)
    batch = dense(rng, 64, 8, 20_000)
    short = RouterStatistics(64, 8)
    long = RouterStatistics(64, 8)
    numbers = {name: batch[name] for name in ("chosen", "weights", "probabilities")}
    short.update(0, **numbers)
    wide = {name: batch[name].astype(float) for name in ("weights", "probabilities")}
    rows = wide["probabilities"]
    wide["probabilities"] = rows / rows.sum(axis=1, keepdims=True)
    long.update(0, batch["chosen"], **wide)
    for name, array in vars(long.layers[0]).items():
        np.testing.assert_allclose(getattr(short.layers[0], name), array, rtol=3e-7, err_msg=name)
    assert batch["weights"].dtype == np.float32  # and what was given is as it was
    np.testing.assert_array_equal(batch["weights"], numbers["weights"])


def test_what_is_given_is_never_written_to():
    rng = np.random.default_rng(1)
    for n in (1, 50):
        batch = dense(rng, 6, 2, n)
        batch["chosen"][0, 0] = -1
        kept = {name: values.copy() for name, values in batch.items()}
        for values in batch.values():
            values.flags.writeable = False
        counted = RouterStatistics(6, 2, n_domains=3, n_positions=6)
        counted.update(0, **batch)
        for name, values in kept.items():
            np.testing.assert_array_equal(batch[name], values)


def test_an_update_makes_no_table_that_is_larger_than_its_tokens():
    """So a step of decoding costs the same whatever room there is for labels: bytes, no clock."""
    peaks = []
    for n_positions in (16, 65_536):
        statistics = RouterStatistics(64, 8, n_domains=8, n_positions=n_positions, n_tokens=1000)
        one = {"chosen": [list(range(8))], "domain": [1], "position": [3], "token": [5], "phase": 1}
        statistics.update(0, **one)
        tracemalloc.start()
        statistics.update(0, **one)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 50_000 and abs(peaks[0] - peaks[1]) < 2_000
    assert statistics.layers[0].positions[3, 1].sum() == 16


@given(
    arrays(np.int64, 40, elements=st.integers(-1, 9)),
    st.booleans(),
)
def test_groups_are_numbered_in_their_order(label, is_sorted):
    label = np.sort(label) if is_sorted else label
    ids, index = groups_of(label)
    assert ids.tolist() == sorted(set(label[label >= 0].tolist()))
    assert all(index[i] == -1 if x < 0 else ids[index[i]] == x for i, x in enumerate(label))


# --- steps ---


def violations(loads):
    return [len(load) * load.max() / load.sum() - 1 for load in loads]


def test_quantiles_of_steps_are_those_of_their_exact_values():
    rng = np.random.default_rng(0)
    statistics = RouterStatistics(32, 4)
    loads = []
    for n in rng.integers(1, 200, 300):
        chosen = distinct(rng, n, 32, 4, skew=np.linspace(0, 2, 32))
        statistics.update(0, chosen)
        loads.append(np.bincount(chosen.ravel(), minlength=32))
    layer = statistics.layers[0]
    exact = np.array(violations(loads))
    assert layer.steps == 300
    assert layer.mean_step_violation == pytest.approx(exact.mean(), rel=1e-12)
    for share in (0, 0.05, 0.5, 0.95, 1):
        wanted = np.quantile(exact, share, method="inverted_cdf")
        # bins are even in log(1 + MaxVio)
        width = np.log(32) / (len(layer.step_counts) - 1)
        assert np.log1p(layer.step_violation(share)) == pytest.approx(np.log1p(wanted), abs=width)
    assert len(loads) > 100 and layer.step_violation(1) >= layer.step_violation(0.5)


def test_steps_within_a_batch_are_told_apart_and_empty_ones_are_none():
    statistics = RouterStatistics(4, 2)
    chosen = [[0, 1], [2, 3], [0, 1], [0, 1], [-1, -1], [2, 3]]
    statistics.update(0, chosen, step=[0, 0, 7, 7, 9, -1])
    layer = statistics.layers[0]
    assert layer.steps == 2 and layer.tokens == 6
    assert (layer.step_violation(0), layer.step_violation(1)) == (0, pytest.approx(1))
    statistics.update(1, chosen, step=-1)
    assert statistics.layers[1].steps == 0 and np.isnan(statistics.layers[1].step_violation(0.5))
    statistics.update(2, [[-1, -1]])
    assert statistics.layers[2].steps == 0
    one = RouterStatistics(1, 1)
    one.update(0, [[0], [0]])
    assert one.layers[0].step_violation(1) == 0


def test_the_maximum_over_a_run_hides_what_its_steps_pay():
    """Two routers of the same load over the run; one sends each step to one half."""
    even = RouterStatistics(8, 1)
    waves = RouterStatistics(8, 1)
    for i in range(20):
        even.update(0, np.arange(64)[:, None] % 8)
        waves.update(0, np.arange(64)[:, None] % 4 + 4 * (i % 2))
    np.testing.assert_array_equal(even.layers[0].slots, waves.layers[0].slots)
    assert even.layers[0].mean_step_violation == 0
    assert waves.layers[0].mean_step_violation == pytest.approx(1)


# --- windows ---


def test_a_window_is_what_was_counted_in_it():
    statistics = RouterStatistics(E, K, **SIZES)
    statistics.update(0, **tokens(0))
    statistics.update(0, **tokens(1))
    before = statistics.copy()
    statistics.update(0, **tokens(2))
    statistics.update("new", **tokens(3))
    window = statistics - before
    alone = RouterStatistics(E, K, **SIZES)
    alone.update(0, **tokens(2))
    alone.update("new", **tokens(3))
    for name, layer in alone.layers.items():
        for field, array in vars(layer).items():
            found = getattr(window.layers[name], field)
            np.testing.assert_allclose(found, array, rtol=1e-9, err_msg=field)
    assert window.layers[0].step_violation(1) == pytest.approx(
        alone.layers[0].step_violation(1), rel=1e-9
    )
    assert_same(before + window, statistics)
    assert (statistics - statistics).layers[0].tokens == 0


@given(st.integers(0, 5), st.integers(3, 40))
def test_a_window_added_again_gives_the_whole_also_of_kept_sequences(cut, n_kept):
    parts = [tokens(seed) for seed in range(6)]
    for part in parts[3:]:  # sequences that go on
        part["sequence"] = part["sequence"] % 1000
    early = (
        counted(parts[:cut], n_kept=n_kept)
        if cut
        else RouterStatistics(E, K, **SIZES, n_kept=n_kept)
    )
    late = counted(parts, n_kept=n_kept)
    window = late - early
    assert_same(early + window, late)


@pytest.mark.parametrize(
    ("later", "earlier", "message"),
    [
        ([tokens(0)], [tokens(1), tokens(2)], "layer 0 has counted less tokens than before"),
        ([tokens(0, 60)], [tokens(1, 5)], "layer 0 "),
    ],
)
def test_what_is_no_earlier_state_is_refused(later, earlier, message):
    whole = counted(later)
    with pytest.raises(ValueError, match=message):
        whole - counted(earlier)
    assert_same(whole, counted(later))


def test_other_things_are_not_subtracted():
    one = counted([tokens(0)])
    with pytest.raises(ValueError, match="cannot subtract int from"):
        one - 1
    with pytest.raises(ValueError, match="both must be made with the same numbers"):
        one - RouterStatistics(E, K)
    other = RouterStatistics(E, K, **SIZES)
    other.update("gone", **tokens(0))
    with pytest.raises(ValueError, match="have a layer 'gone', the later have not"):
        one - other
    twice = {"chosen": [[0, 1, 2]], "domain": [0], "sequence": [1]}
    again = {**twice, "sequence": [2]}
    with pytest.raises(ValueError, match="no longer has the sequences that were kept before"):
        counted([twice, twice]) - counted([again])


# --- merging ---


@given(st.lists(st.integers(0, 3), min_size=30, max_size=30), st.randoms())
def test_merging_any_split_in_any_order_equals_one_pass(cuts, random):
    batch = tokens()
    parts = [counted([part]) for part in split(batch, cuts)]
    random.shuffle(parts)
    once = counted([batch])
    assert_same(merge_statistics(parts), once)
    assert_same(counted(split(batch, cuts)), once)
    for part in parts[:-1]:
        assert (parts[-1] + part).layers[0].tokens == parts[-1].layers[0].tokens + part.layers[
            0
        ].tokens


def test_a_merge_leaves_its_parts_alone_and_takes_over_layers():
    one, other = counted([tokens(0)]), RouterStatistics(E, K, **SIZES)
    other.update("last", **tokens(1))
    merged = one + other
    assert list(merged.layers) == [0, "last"]
    merged.update("last", **tokens(2))
    assert_same(one, counted([tokens(0)]))
    assert other.layers["last"].tokens < merged.layers["last"].tokens


@pytest.mark.parametrize("how", ["bag", "delayed"])
def test_dask_reduces_a_tree_to_the_same_statistics(how):
    batches = [tokens(seed) for seed in range(9)]
    once = counted(batches)
    if how == "bag":
        bag = dask.bag.from_sequence(batches, npartitions=5).map(lambda batch: counted([batch]))
        task = bag.fold(operator.add, split_every=2)
    else:
        parts = [dask.delayed(counted)([batch]) for batch in batches]
        while len(parts) > 1:
            parts = [
                dask.delayed(merge_statistics)(parts[i : i + 3]) for i in range(0, len(parts), 3)
            ]
        (task,) = parts
    assert_same(task.compute(scheduler="threads", num_workers=2), once)


def test_memory_does_not_grow_with_what_is_counted():
    statistics = counted([tokens(0)])
    before, pieces = statistics.nbytes, len(vars(statistics))
    for seed in range(1, 20):
        statistics.update(0, **tokens(seed, n_sequences=10 * seed))
    assert statistics.nbytes == before and len(vars(statistics)) == pieces
    assert statistics.layers[0].tokens > 50 * counted([tokens(0)]).layers[0].tokens


# --- the sequences that are kept ---


def some_sequences(rng, ids):
    """Tokens of these sequences, each of its own domain; an id is what it is wherever it comes."""
    sequence = np.repeat(ids, 4)
    return {
        "chosen": distinct(rng, len(sequence)),
        "domain": sequence % D,
        "sequence": sequence,
    }


@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_kept_are_the_same_whichever_way_sequences_come(random, seed):
    """Also where one comes in pieces, through updates and through merges: all of it, or nothing."""
    rng = np.random.default_rng(seed)
    batch = some_sequences(rng, np.arange(60) * 7)
    once = counted([batch], n_kept=16, seed=seed).layers[0]
    pieces = [{name: value[i : i + 3] for name, value in batch.items()} for i in range(0, 240, 3)]
    random.shuffle(pieces)
    middle = random.randrange(len(pieces) + 1)
    parts = [counted(some, n_kept=16, seed=seed) for some in (pieces[:middle], pieces[middle:])]
    whole = [part for part in parts if part.layers]
    found = merge_statistics(whole).layers[0]
    for name in KEPT:
        np.testing.assert_array_equal(getattr(found, name), getattr(once, name), err_msg=name)
    counts = np.array(
        [np.bincount(rows.ravel(), minlength=E) for rows in np.split(batch["chosen"], 60)]
    )
    np.testing.assert_array_equal(once.kept_slots, counts[once.kept_ids // 7])
    np.testing.assert_array_equal(once.kept_domains, once.kept_ids % D)


def test_every_sequence_is_kept_as_often_as_any_other():
    """A chi-square of 60 sequences over 400 seeds, of which each keeps 15: beyond 1 - 1e-4."""
    times = np.zeros(60)
    for seed in range(400):
        kept = counted(
            [some_sequences(np.random.default_rng(0), np.arange(60))], n_kept=15, seed=seed
        )
        times[kept.layers[0].kept_ids] += 1
    assert times.sum() == 400 * 15
    assert ((times - 100) ** 2 / (100 * 0.75)).sum() < 111


def test_a_sequence_of_two_domains_is_seen_in_one_update_and_across():
    chosen = [[0, 1, 2], [3, 4, 5]]
    together = counted([{"chosen": chosen, "domain": [0, 1], "sequence": [5, 5]}]).layers[0]
    assert together.mixed_sequences == 1 and together.kept_domains[0] == -2
    halves = [
        {"chosen": chosen[:1], "domain": [0], "sequence": [5]},
        {"chosen": chosen[1:], "domain": [1], "sequence": [5]},
    ]
    for apart in (counted(halves), merge_statistics([counted([half]) for half in halves])):
        layer = apart.layers[0]
        assert layer.mixed_sequences == 0 and layer.kept_domains[0] == -2
        assert layer.kept_slots[0].sum() == 6 and (layer.kept_ids[1:] == -1).all()
    unknown = counted([{"chosen": chosen, "domain": [0, -1], "sequence": [5, 5]}]).layers[0]
    assert unknown.mixed_sequences == 0 and unknown.kept_domains[0] == 0
    assert unknown.known_slots == unknown.kept_slots.sum() == 3


# --- files ---


def test_a_saved_file_comes_back_whole(tmp_path, contents):
    statistics = counted([tokens(0)], seed=9)
    statistics.update("model.layers.1.mlp", **tokens(1))
    statistics.save(tmp_path / "routes.npz")
    again = load_statistics(tmp_path / "routes.npz")
    assert_same(again, statistics)
    again.update(0, **tokens(2))  # it goes on
    assert list(contents(tmp_path)) == ["routes.npz"]


def test_a_file_of_an_earlier_version_loads_and_says_what_it_did_not_record():
    """Written by `RouterStatistics.save` of commit 6e704e5, before steps and phases were kept, of
    `counted([tokens(0)])` without them."""
    old = load_statistics(OLD_FILE)
    batch = tokens(0)
    now = counted([{**batch, "step": -1, "phase": -1}])
    assert_same(old, now)
    assert old.layers[0].steps == old.layers[0].phases.sum() == 0
    both = old + counted([batch])
    assert both.layers[0].tokens == 2 * now.layers[0].tokens and both.layers[0].steps == 30
    assert 0 < both.layers[0].phases.sum() < both.layers[0].slots.sum() / 2
    assert ((now + counted([tokens(1)])) - old).layers[0].steps == 30


def test_a_file_of_a_later_version_is_refused_by_its_name(tmp_path):
    counted([tokens(0)]).save(tmp_path / "now.npz")
    with np.load(tmp_path / "now.npz") as archive:
        content = dict(archive)
    header = json.loads(str(content["header"]))
    assert header["writer"].startswith("expertbank ")
    header["format"] = "expertbank router statistics 9"
    header["writer"] = "expertbank 99.1"
    content["header"] = np.array(json.dumps(header))
    np.savez(tmp_path / "later.npz", **content)
    with pytest.raises(ValueError, match=r"statistics 9', written by expertbank 99\.1; allowed"):
        load_statistics(tmp_path / "later.npz")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, contents):
    counted([tokens(0)]).save(tmp_path / "routes.npz")
    before = contents(tmp_path)
    monkeypatch.setattr(np, "savez_compressed", lambda file, **_: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        counted([tokens(1)]).save(tmp_path / "routes.npz")
    assert contents(tmp_path) == before


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_statistics(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", counts=np.ones(3))
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "pickled.npz", header=np.array([{}], dtype=object))
    counted([tokens(0)]).save(tmp_path / "routes.npz")
    with np.load(tmp_path / "routes.npz") as archive:
        np.savez(tmp_path / "changed.npz", **{**archive, "0.slots": np.ones(E + 1, np.int64)})
        np.savez(
            tmp_path / "less.npz",
            **{name: archive[name] for name in archive.files if name != "0.pairs"},
        )
    for name in ("other", "torn", "pickled", "changed", "less"):
        with pytest.raises(ValueError, match=rf"{name}.npz.* cannot be read"):
            load_statistics(tmp_path / f"{name}.npz")


# --- two runs ---


@given(
    arrays(np.int8, (20, 3), elements=st.integers(0, 4), unique=False),
    arrays(np.int8, (20, 2), elements=st.integers(0, 4), unique=False),
)
def test_agreement_is_that_of_the_sets(first, second):
    for rows in (first, second):  # an expert named again is an empty slot
        for row in rows:
            row[[i for i in range(len(row)) if row[i] in row[:i]]] = -1
    agreement = Agreement(5)
    agreement.update(first, second)
    sets = [({*a[a >= 0].tolist()}, {*b[b >= 0].tolist()}) for a, b in zip(first, second)]
    most = sum(max(len(a), len(b)) for a, b in sets)
    assert agreement.flip_rate == pytest.approx(1 - sum(len(a & b) for a, b in sets) / most)
    best = max(
        sum(len({order[i] for i in a} & b) for a, b in sets)
        for order in itertools.permutations(range(5))
    )
    assert agreement.matched_flip_rate == pytest.approx(1 - best / most)
    halves = [Agreement(5), Agreement(5)]
    halves[0].update(first[:7], second[:7])
    halves[1].update(first[7:], second[7:])
    merged = halves[1] + halves[0]
    np.testing.assert_array_equal(merged.pairs, agreement.pairs)
    assert (merged.flip_rate, merged.information) == (agreement.flip_rate, agreement.information)


def test_agreement_of_the_same_of_renamed_and_of_independent_runs():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 4, 4000)
    # experts 2g and 2g + 1: fixed groups of k = 2 among E = 8
    chosen = group[:, None] * 2 + np.arange(2)
    names = (np.arange(8) + 2) % 8
    same, renamed, apart, fewer = Agreement(8), Agreement(8), Agreement(8), Agreement(8, 4)
    same.update(chosen, chosen[:, ::-1])
    renamed.update(chosen, names[chosen])
    apart.update(chosen, rng.integers(0, 4, 4000)[:, None] * 2 + np.arange(2))
    fewer.update(chosen, group[:, None])
    assert same.flip_rate == same.matched_flip_rate == 0
    shares = np.bincount(group) / 4000
    assert same.information == pytest.approx(entropy(shares)) == pytest.approx(renamed.information)
    assert renamed.flip_rate == 1 and renamed.matched_flip_rate == 0
    # the two of a group are always chosen together
    np.testing.assert_array_equal(renamed.matching // 2, names // 2)
    assert (
        apart.flip_rate
        == pytest.approx(apart.chance_flip_rate, abs=0.03)
        == pytest.approx(0.75, abs=0.03)
    )
    assert apart.information < 0.01
    assert np.isnan(fewer.flip_rate) and fewer.information == pytest.approx(entropy(shares))
    assert fewer.matched_flip_rate == pytest.approx(0.5) and (fewer.matching < 0).sum() == 4


# --- bad input ---

GOOD = np.array([[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither chosen nor probabilities"),
        ({"chosen": [[0, 1, 1], [0, 1, 2]]}, r"row \[0, 1, 1\] that names an expert twice"),
        ({"chosen": [[0, 1, 7], [0, 1, 2]]}, r"chosen holds 7; allowed are 0 to 6, and -1"),
        ({"chosen": [[0, 1, -2], [0, 1, 2]]}, r"chosen holds -2"),
        ({"chosen": [[0.0, 1, 2]]}, "chosen has dtype float64; allowed are integers"),
        ({"chosen": [0, 1]}, r"chosen has shape \(2,\); allowed is \(2, k\) with k from 1 to 3"),
        ({"chosen": [[0, 1, 2, 3]]}, r"chosen has shape \(1, 4\)"),
        (
            {"chosen": GOOD, "weights": [[1, 1, 1]]},
            r"weights has shape \(1, 3\); allowed is \(2, 3\)",
        ),
        (
            {"chosen": GOOD, "weights": -np.ones((2, 3))},
            "weights holds -1; allowed are numbers >= 0",
        ),
        ({"chosen": GOOD, "weights": np.zeros((2, 3))}, "sum to 0; mask such tokens"),
        ({"chosen": GOOD, "weights": np.full((2, 3), np.inf)}, "weights holds inf"),
        ({"chosen": GOOD, "probabilities": np.ones((2, 7))}, "take the softmax of logits"),
        ({"chosen": GOOD, "probabilities": np.ones((2, 6)) / 6}, r"allowed is \(2, 7\)"),
        ({"chosen": GOOD, "domain": [0]}, r"domain has shape \(1,\); allowed is \(2,\)"),
        ({"chosen": GOOD, "domain": [0, 4]}, "domain holds 4; allowed are 0 to 3"),
        ({"chosen": GOOD, "token": [0, 1]}, "token is given, but n_tokens is 0"),
        ({"chosen": GOOD, "sequence": [0.5, 1]}, "sequence has dtype float64"),
        ({"chosen": GOOD, "phase": 2}, "phase holds 2; allowed are 0 to 1, and -1 for none"),
        ({"chosen": GOOD, "phase": [0, -2]}, "phase holds -2; allowed are 0 to 1"),
        ({"chosen": GOOD, "phase": [0]}, r"phase has shape \(1,\); allowed is \(2,\)"),
        ({"chosen": GOOD, "phase": "prompt"}, "phase has dtype <U6; allowed are integers"),
        ({"probabilities": np.full((2, 7), 1 / 7), "phase": 0}, "phase without chosen"),
        ({"chosen": GOOD, "mask": [True]}, r"mask has shape \(1,\)"),
        ({"chosen": np.ma.array(GOOD, mask=GOOD > 3)}, "chosen is a masked array"),
        ({"chosen": GOOD, "domain": np.ma.array([0, 9], mask=[0, 1])}, "domain is a masked array"),
        (
            {"chosen": GOOD, "probabilities": np.full((2, 7), 1.002 / 7)},
            r"sums to 1 \+- 0.002; allowed are rows that sum to 1",
        ),
        ({"chosen": GOOD, "mask": [2, 0]}, "True for what counts"),
        ({"probabilities": np.full((2, 7), 1 / 7), "domain": [0, 1]}, "domain without chosen"),
        ({"chosen": GOOD, "layer": 1.5}, "layer is 1.5"),
    ],
)
def test_a_refused_batch_says_why_and_changes_nothing(arguments, message):
    statistics = RouterStatistics(E, K, n_domains=D)
    statistics.update(0, GOOD, domain=[0, 1])
    before = {name: value.copy() for name, value in vars(statistics.layers[0]).items()}
    with pytest.raises(ValueError, match=message):
        statistics.update(**{"layer": 0, **arguments})
    assert list(statistics.layers) == [0]
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(statistics.layers[0], name), value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RouterStatistics(4, 5), "n_chosen is 5; allowed is at most 4"),
        (lambda: RouterStatistics(0, 1), "n_experts is 0"),
        (lambda: RouterStatistics(4, 2, n_domains=-1), "n_domains is -1"),
        (
            lambda: RouterStatistics(4, 2) + RouterStatistics(4, 2, seed=1),
            "both must be made with the same numbers",
        ),
        (lambda: RouterStatistics(4, 2) + 1, "cannot merge int"),
        (lambda: merge_statistics([]), "no statistics to merge"),
        (lambda: Agreement(3) + Agreement(4), "cannot merge tables"),
        (lambda: Agreement(3).update([[0]], [[0], [1]]), "other has shape"),
        (lambda: Agreement(3).update([[0, 3]], [[0, 1]]), "chosen holds 3"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_saved_statistics_of_the_chapter_are_sealed_and_load():
    folder = REPOSITORY / "data" / "routers"
    file = check_file(
        folder, read_manifest(folder, ["tiny_mixtral.npz"], "routing"), "tiny_mixtral.npz"
    )
    statistics = load_statistics(file)
    assert sorted(statistics.layers) == [0, 1]
    assert all(layer.slots.sum() == 2 * layer.tokens for layer in statistics.layers.values())
