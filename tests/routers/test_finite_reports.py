"""Every number of a report is finite or None, whatever a router did."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expertbank.routers import RouterStatistics, routing_report
from expertbank.routers.agreement import Agreement


def choices_of(rng, n, n_experts, k):
    """Distinct experts (n, k), some slots or all of them empty: at random, or the same for all."""
    rows = np.array([rng.permutation(n_experts)[:k] for _ in range(n)])
    if rng.random() < 0.3:
        rows[:] = rows[0]
    rows[rng.random(rows.shape) < rng.choice([0, 0, 0.5, 1])] = -1
    return rows


def statistics_of(rng):
    """Statistics of a router with whatever labels and amounts, of one layer or two."""
    n_experts = int(rng.integers(1, 7))
    k = int(rng.integers(1, n_experts + 1))
    n_domains, n_positions, n_tokens = rng.integers(0, 4, 3).tolist()
    rooms = {"n_domains": n_domains, "n_positions": n_positions, "n_tokens": n_tokens}
    statistics = RouterStatistics(n_experts, k, n_kept=int(rng.choice([0, 2, 64])), **rooms)
    for layer in range(int(rng.integers(1, 3))):
        n = int(rng.integers(1, 9))
        chosen = choices_of(rng, n, n_experts, k)
        given_too = {}
        for label, room in (("domain", n_domains), ("position", n_positions), ("token", n_tokens)):
            if room and rng.random() < 0.8:
                given_too[label] = rng.integers(-1, room, n)
        if rng.random() < 0.7:
            given_too["sequence"] = np.sort(rng.integers(0, 4, n))
        if rng.random() < 0.5:
            sizes = [5e-324, 1e-310, 1e-17, 1, 1e30, 1e300]
            given_too["weights"] = rng.choice(sizes, chosen.shape)
        if rng.random() < 0.5:
            given_too["probabilities"] = rng.dirichlet(np.full(n_experts, 0.01), n)
        statistics.update(layer, chosen, **given_too)
        if rng.random() < 0.2:
            statistics.add_load(layer, rng.integers(0, 3, n_experts))
    return statistics


@settings(max_examples=250)
@given(st.integers(0, 2**32 - 1))
def test_every_number_of_a_report_is_finite_or_none(seed):
    rng = np.random.default_rng(seed)
    statistics = statistics_of(rng)
    n_experts = statistics.n_experts
    agreement = Agreement(n_experts, n_experts + int(rng.integers(0, 2)))
    if rng.random() < 0.8:
        rows = choices_of(rng, 5, n_experts, 1)
        agreement.update(rows, choices_of(rng, 5, n_experts, 1))
    report = routing_report(statistics, {0: agreement}, relabellings=19)
    for layer in report.layers:
        for name, value in vars(layer).items():
            if isinstance(value, float):
                assert math.isfinite(value), name
    written = json.loads(json.dumps(report.json(), allow_nan=False))
    assert len(written["layers"]) == len(report.layers)
    assert "nan" not in report.table().replace("domi", "")


@pytest.mark.parametrize("room", ["n_experts", "n_domains", "n_positions", "n_tokens", "n_kept"])
def test_absurd_room_is_one_sentence(room):
    sizes = {"n_experts": 4, "n_chosen": 2, "n_domains": 2, room: 10**10}
    with pytest.raises(ValueError, match="allowed") as caught:
        RouterStatistics(**sizes)
    assert "\n" not in str(caught.value)


def test_absurdly_many_relabellings_are_one_sentence():
    statistics = RouterStatistics(n_experts=2, n_chosen=1, n_domains=2)
    statistics.update(0, [[0], [1]], domain=[0, 1], sequence=[0, 1])
    with pytest.raises(ValueError, match="allowed"):
        routing_report(statistics, relabellings=10**10)


def test_amounts_whose_sums_would_overflow_are_refused():
    statistics = RouterStatistics(n_experts=2, n_chosen=1)
    with pytest.raises(
        ValueError, match=r"weights holds 1.7e\+308; allowed are numbers >= 0, up to"
    ):
        statistics.update(0, [[0], [1]], weights=[[1.7e308], [1.7e308]])
