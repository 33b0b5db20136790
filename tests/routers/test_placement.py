"""Placements of experts and what they cost, against plain loops and known answers."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from expertbank.cli import main
from expertbank.routers import RouterStatistics, read_routing
from expertbank.routers.communication import Communication, dropped_share, judge_placements
from expertbank.routers.placement import ENGINES, PLACEMENTS, place, save_placement
from expertbank.shipped.manifest import data_folder


def layer_of(chosen, n_experts):
    statistics = RouterStatistics(n_experts, np.shape(chosen)[1])
    statistics.update(0, chosen)
    return statistics.layers[0]


def distinct(rng, n, n_experts, k, skew=0.0):
    return (rng.gumbel(size=(n, n_experts)) + skew).argsort(axis=1)[:, -k:]


def by_hand(chosen, placement, n_devices, step):
    """Devices a token, tokens sent, and the busiest device, where every expert has one copy."""
    home_of = {expert: p * n_devices // len(placement) for p, expert in enumerate(placement)}
    served = sent = 0
    busiest = []
    for first in range(0, len(chosen), step):
        some = chosen[first : first + step]
        load = [0] * n_devices
        for i, row in enumerate(some):
            devices = {home_of[e] for e in row if e >= 0}
            served += len(devices)
            sent += len(devices - {i * n_devices // len(some)})
            for e in row:
                if e >= 0:
                    load[home_of[e]] += 1
        busiest.append(max(load) * n_devices / sum(load))
    return served / len(chosen), sent / len(chosen), busiest


@pytest.mark.parametrize("seed", range(4))
def test_costs_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    chosen = distinct(rng, 203, 12, 3, rng.normal(size=12))
    chosen[::5, 2] = -1
    placement = rng.permutation(12)
    paid = Communication(placement, 4, step=50)
    paid.update(chosen)
    served, sent, busiest = by_hand(chosen.tolist(), placement.tolist(), 4, 50)
    assert paid.devices_a_token == pytest.approx(served)
    assert paid.sent_a_token == pytest.approx(sent)
    assert paid.busiest == pytest.approx(busiest)
    assert paid.traffic.sum() == pytest.approx(served * 203)
    assert paid.busiest_device(1) == max(busiest)


def test_parts_add_up_and_masks_leave_out():
    chosen = distinct(np.random.default_rng(0), 200, 8, 2)
    whole, one, other = (Communication(np.arange(8), 2, step=50) for _ in range(3))
    whole.update(chosen)
    one.update(chosen[:100])
    other.update(np.vstack([chosen[100:], chosen[:7]]), mask=np.arange(107) < 100)
    both = one + other
    assert both.tokens == 200 and both.busiest == whole.busiest
    assert (both.traffic == whole.traffic).all()
    with pytest.raises(ValueError, match="another placement"):
        one + Communication(np.arange(8)[::-1], 2, step=50)


def test_a_copy_at_home_costs_nothing():
    everywhere = Communication(np.tile(np.arange(4), 2), 2, step=10)
    everywhere.update(distinct(np.random.default_rng(1), 40, 4, 2))
    assert everywhere.sent_a_token == 0 and everywhere.devices_a_token == 1


def test_copies_take_turns_where_no_device_is_nearer():
    # expert 0 is on devices 1 and 2, all tokens of the first third live on device 0
    paid = Communication([1, 2, 0, 3, 0, 4], 3, step=30)
    paid.update(np.zeros((30, 1), int))
    assert paid.traffic[0].tolist() == [0, 5, 5]
    assert paid.traffic[1].tolist() == [0, 10, 0]


def pairs_inside(placement, chosen, n_devices):
    paid = Communication(placement, n_devices, step=len(chosen))
    paid.update(chosen)
    return paid


def test_company_finds_the_teams_whatever_their_numbers():
    rng = np.random.default_rng(3)
    names = rng.permutation(16)
    team = np.repeat(np.arange(4), 1000)
    chosen = names[4 * team[:, None] + distinct(rng, 4000, 4, 3)]
    layer = layer_of(chosen, 16)
    placement = place(layer, 4)
    assert {frozenset(row) for row in placement.reshape(4, 4).tolist()} == {
        frozenset(row) for row in names.reshape(4, 4).tolist()
    }
    assert pairs_inside(placement, chosen, 4).devices_a_token == 1


def test_company_is_near_the_best_of_all_placements():
    """All 10 ways to put six experts on two devices."""
    rng = np.random.default_rng(5)
    for _ in range(10):
        chosen = distinct(rng, 500, 6, 2, np.repeat(2 * rng.normal(size=(5, 6)), 100, axis=0))
        layer = layer_of(chosen, 6)
        most = max(1.02 * chosen.size / 2, device_load(place(layer, 2, "load"), chosen))
        costs = []
        for half in itertools.combinations(range(1, 6), 2):
            placement = [0, *half, *sorted(set(range(1, 6)) - set(half))]
            if device_load(placement, chosen) <= most:
                costs.append(pairs_inside(placement, chosen, 2).devices_a_token)
        found = place(layer, 2)
        assert device_load(found, chosen) <= most
        cost = pairs_inside(found, chosen, 2).devices_a_token
        assert cost <= np.median(costs) and cost <= min(costs) + 0.1


def device_load(placement, chosen):
    """The slots of the device that serves most, of two."""
    first = np.isin(chosen, placement[: len(placement) // 2]).sum()
    return max(first, chosen.size - first)


def test_load_and_replicas_even_out():
    rng = np.random.default_rng(2)
    chosen = distinct(rng, 5000, 16, 2, 1.5 * np.sort(rng.normal(size=16)))
    layer = layer_of(chosen, 16)
    total = {}
    for kind, n_replicas in (("contiguous", 0), ("load", 0), ("replicated", 4)):
        placement = place(layer, 4, kind, n_replicas)
        assert set(placement) == set(range(16)) and len(placement) == 16 + n_replicas
        paid = Communication(placement, 4, step=5000)
        paid.update(chosen)
        total[kind] = paid.busiest[0]
    assert total["load"] < total["contiguous"]
    assert total["replicated"] < 1.1
    # no device holds two copies of one expert
    rows = place(layer, 4, "replicated", 4).reshape(4, 5)
    assert all(len(set(row)) == 5 for row in rows)


def test_the_shipped_routers_judged_on_other_texts():
    """Four devices: fewer of them a token by company than in order, on texts not fitted."""
    for run in ("narrow", "wide"):
        path = data_folder() / "testbed" / f"routing-{run}.npz"
        kinds = {"contiguous": 0, "coactivation": 0}
        found = judge_placements(
            lambda path=path: read_routing(path), RouterStatistics(32, 4), 4, kinds
        )
        [layer] = found.values()
        assert layer["contiguous"].tokens == 8192
        assert layer["coactivation"].devices_a_token < 0.85 * layer["contiguous"].devices_a_token


def test_without_sequences_the_second_half_is_judged():
    rows = np.vstack([np.tile([[0, 2], [1, 3]], (50, 1)), np.tile([[0, 1], [2, 3]], (50, 1))])
    found = judge_placements(
        lambda: [(0, {"chosen": rows})], RouterStatistics(4, 2), 2, {"coactivation": 0}
    )
    assert found[0]["coactivation"].devices_a_token == 2  # another company than was fitted
    with pytest.raises(ValueError, match="no choices"):
        judge_placements(lambda: [(0, {"load": rows[0]})], RouterStatistics(4, 2), 2, {"load": 0})


def test_dropped_slots_are_those_of_a_plain_loop():
    rng = np.random.default_rng(4)
    chosen = distinct(rng, 130, 8, 2, rng.normal(size=8))
    for factor in (0.5, 1, 1.25, 2):
        dropped = 0
        for first in range(0, 130, 32):
            some = chosen[first : first + 32]
            load = np.bincount(some.ravel(), minlength=8)
            room = np.ceil(factor * some.size / 8)
            dropped += sum(max(0, each - room) for each in load)
        assert dropped_share(chosen, 8, [factor], step=32)[0] == pytest.approx(dropped / 260)
    assert dropped_share(chosen, 8, [8], step=32)[0] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_maps_are_what_engines_load(engine, tmp_path):
    rows = {0: np.array([0, 1, 2, 3, 0, 1]), 1: np.array([0, 2, 0, 1, 0, 3])}
    save_placement(tmp_path / "map.json", rows, 3, engine)
    content = json.loads((tmp_path / "map.json").read_text())
    if engine == "vllm-ascend":
        assert content["moe_layer_count"] == 2
        layer = content["layer_list"][1]
        assert layer["layer_id"] == 1 and layer["device_count"] == 3
        assert layer["device_list"][2] == {"device_id": 2, "device_expert": [0, 3]}
        return
    if engine == "sglang":
        content = content["physical_to_logical_map"]
    assert content == [[0, 1, 2, 3, 0, 1], [0, 2, 0, 1, 0, 3]]


LAYER = layer_of([[0, 1], [2, 3]], 4)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: place(LAYER, 3), "evenly"),
        (lambda: place(LAYER, 2, "at random"), PLACEMENTS[0]),
        (lambda: place(LAYER, 2, "load", 2), "n_replicas"),
        (lambda: place(RouterStatistics(4, 2)._layer(0), 2), "no choices"),
        (lambda: place(layer_of([[0], [1]], 2), 2), "chosen together"),
        (lambda: Communication([0, 2], 2), "leaves an expert out"),
        (lambda: Communication([0, 1, 2], 2), "evenly"),
        (lambda: Communication([0.5, 1], 2), "leaves an expert out"),
        (lambda: save_placement("x", {0: [0, 1]}, 2, "tgi"), "sglang"),
        (lambda: save_placement("x", {0: [0, 1], 1: [0]}, 1), "slots"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_the_command_writes_a_map_and_judges_it_on_other_texts(tmp_path, capsys):
    path = str(data_folder() / "testbed" / "routing-wide.npz")
    out = tmp_path / "map.json"
    assert main(["routes", "place", path, "--devices", "4", "--out", str(out)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    means = {line[1]: float(line[2]) for line in lines[1:]}
    assert list(means) == ["contiguous", "load", "coactivation"]
    assert means["coactivation"] < 0.85 * means["contiguous"]
    [row] = json.loads(out.read_text())["physical_to_logical_map"]
    assert sorted(row) == list(range(32))
    before = out.read_bytes()
    assert main(["routes", "place", path, "--devices", "5", "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert out.read_bytes() == before
