"""BEAM and L2R on the testbed: a mask that prices experts, a score of low rank and little slope."""

from dataclasses import replace

import numpy as np
import pytest

from expertbank.reproduction.verify import verify
from expertbank.shipped.testbed import (
    BEAM,
    L2R,
    TOP_K,
    load_priced_routers,
    load_testbed,
    save_priced_routers,
)

# --- what is shipped ---


@pytest.fixture(scope="module")
def shipped():
    return load_priced_routers()


def test_shipped_runs_are_those_that_are_named(shipped):
    columns = shipped.columns()
    assert shipped.columns(family=TOP_K)["n_chosen"].tolist() == [1, 2, 4, 8] * 3
    assert shipped.columns(family=BEAM)["price"].tolist() == [0.001, 0.003, 0.01, 0.03] * 3
    assert shipped.columns(family=L2R)["rank"].tolist() == [2, 8, 32] * 3
    assert np.unique(columns["seed"]).tolist() == [0, 1, 2]
    assert sum(item["bytes"] for item in shipped.manifest["files"].values()) <= 20_000


def test_four_experts_without_a_price_are_the_testbeds_own_runs(shipped):
    given = {"mix": "scripts", "method": "LBL", "scope": 64, "strength": 0.125, "capacity": None}
    own = load_testbed().columns(**given)
    here = shipped.columns(family=TOP_K, n_chosen=4)
    for seed in range(3):
        for name in ("loss_alone", "rate", "domain_information", "step_purity"):
            stored = own[name][own["seed"] == seed]
            np.testing.assert_allclose(here[name][here["seed"] == seed], stored, rtol=1e-3)


def test_a_rate_lies_between_what_experts_leave_and_what_they_can_say(shipped):
    runs = shipped.columns()
    assert (runs["rate"] >= runs["weighted_entropy"] - runs["log_experts"] - 1e-5).all()
    assert (runs["rate"] <= runs["weighted_entropy"] + 1e-5).all()
    assert (runs["log_experts"] <= np.log(runs["experts"]) + 1e-5).all()
    one = shipped.columns(family=TOP_K, n_chosen=1)
    np.testing.assert_allclose(one["rate"], one["entropy"], atol=1e-5)


def test_no_score_of_low_rank_is_steeper_than_its_bound(shipped):
    bound = shipped.manifest["recipe"]["saturation"]
    assert (shipped.columns(family=L2R)["slope"] <= bound).all()


def test_verify_holds_the_rates_against_their_floors(tmp_path):
    assert verify("priced-routers").endswith("rates of 33 runs above their floors")
    row = {"family": TOP_K, "rate": 1.0, "weighted_entropy": 3.0, "log_experts": 1.9}
    save_priced_routers(tmp_path, [row], {"title": "too low"})
    with pytest.raises(ValueError, match="a rate in its table lies below"):
        verify(tmp_path)


# --- the routers ---


@pytest.fixture
def priced(torch):
    from expertbank.training import priced_routers

    return priced_routers


def routed(torch, run):
    """A router, states, and what it makes of them."""
    torch.manual_seed(0)
    routing = run.routing(np.zeros(50, dtype=bool))
    torch.manual_seed(1)
    states = torch.randn(64, 6, run.shape.width)
    tokens = torch.zeros(64, 6, dtype=torch.long)
    return routing, states, routing(states, tokens, torch.arange(64) % 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"family": "DSelect"}, "family is 'DSelect'; allowed are"),
        ({"price": 0.1}, "price is 0.1; allowed is one above 0 for BEAM alone"),
        ({"family": BEAM}, "price is 0.0; allowed is one above 0 for BEAM alone"),
        ({"family": L2R}, "rank is 0; allowed is one above 0 for L2R alone"),
        ({"rank": 2}, "rank is 2; allowed is one above 0 for L2R alone"),
        ({"n_chosen": 0}, "n_chosen"),
        ({"scope": 3}, "must divide 64"),
    ],
)
def test_impossible_runs_are_refused(priced, given, message):
    with pytest.raises(ValueError, match=message):
        priced.PricedRun(**given)


def test_names_tell_runs_apart(priced):
    runs = priced.priced_runs()
    assert len({run.name for run in runs}) == len(runs)


def test_experts_start_alike_in_all_families(torch, priced):
    from expertbank.training.testbed_model import TestbedModel

    kinds = {}, {"family": BEAM, "price": 0.1}, {"family": L2R, "rank": 8}
    started = []
    for kind in kinds:
        torch.manual_seed(0)
        model = TestbedModel(priced.PricedRun(**kind), 50, 6, np.zeros(50, dtype=bool))
        started.append(model.experts.inner)
    assert torch.equal(started[0], started[1])
    assert torch.equal(started[0], started[2])


def test_an_open_mask_changes_nothing_but_the_price(torch, priced):
    plain = routed(torch, priced.PricedRun())
    masked = routed(torch, priced.PricedRun(family=BEAM, price=0.5))
    assert torch.equal(plain[2][0], masked[2][0])
    torch.testing.assert_close(plain[2][1], masked[2][1])
    assert (masked[2][2] - plain[2][2]).item() == pytest.approx(0.5 * 4)


def test_a_closed_mask_leaves_the_best_expert(torch, priced):
    run = priced.PricedRun(family=BEAM, price=0.5)
    routing, states, (chosen, _, auxiliary) = routed(torch, run)
    with torch.no_grad():
        routing.mask.bias.fill_(-1.0)
    given = states, torch.zeros(64, 6, dtype=torch.long), torch.arange(64) % 8
    closed, weights, cheaper = routing(*given)
    assert torch.equal(closed, chosen)
    assert torch.equal(weights[..., 0], torch.ones(64, 6))
    assert not weights[..., 1:].any()
    assert (auxiliary - cheaper).item() == pytest.approx(0.5 * 3)


def test_the_price_pulls_at_the_mask_as_a_logistic_function_does(torch, priced):
    logits = torch.tensor([[2.0, -1.0, 0.5]], requires_grad=True)
    mask = priced.open_mask(logits)
    assert mask.tolist() == [[1.0, 0.0, 1.0]]
    mask.sum().backward()
    soft = logits.detach().sigmoid()
    torch.testing.assert_close(logits.grad, soft * (1 - soft))


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_a_score_of_low_rank_is_bounded_in_slope_and_size(torch, priced, rank):
    routing, states, _ = routed(torch, priced.PricedRun(family=L2R, rank=rank))
    bound = priced.SATURATION
    for reach in (1e-3, 1.0, 100.0):
        others = states + reach * torch.randn_like(states)
        apart = (routing.scores(states) - routing.scores(others)).abs().amax(dim=2)
        assert (apart <= bound * (states - others).norm(dim=2) * (1 + 1e-4) + 1e-5).all()
    assert routing.scores(1e4 * states).abs().max() <= bound**2
    steepest = priced._slope(routing, states)
    assert 0 < steepest <= bound
    # a linear score has no such bound: three times the weights, three times the slope
    linear = routed(torch, priced.PricedRun())[0]
    before = priced._slope(linear, states)
    with torch.no_grad():
        linear.linear.weight.mul_(3)
    assert priced._slope(linear, states) == pytest.approx(3 * before)


def test_a_score_sees_its_own_few_directions_alone(torch, priced):
    routing, states, _ = routed(torch, priced.PricedRun(family=L2R, rank=4))
    basis = torch.linalg.qr(routing.projection).Q
    across = torch.randn_like(states)
    across = across - across @ basis @ basis.T
    torch.testing.assert_close(routing.scores(states), routing.scores(states + across))
    along = torch.randn_like(states) @ basis @ basis.T
    assert (routing.scores(states) - routing.scores(states + along)).abs().mean() > 0.1


# --- small runs, from start to sealed results ---


@pytest.fixture
def small(monkeypatch, torch, priced):
    """A run of each family, of three steps on sequences of random words."""
    from expertbank.training import testbed_model

    size = replace(testbed_model.SIZES["small"], steps=3, width=32, expert_width=8)
    monkeypatch.setitem(testbed_model.SIZES, "small", size)
    words = np.random.default_rng(0).integers(0, 50, (8, 8, 6))
    return words, words, 50, np.arange(50) < 25


def test_a_run_without_a_price_is_one_of_the_testbed(priced, small):
    from expertbank.training.testbed_model import Run, train_run

    numbers, _ = train_run(Run(strength=0.125), *small)
    found = priced.train_priced(priced.PricedRun(), *small)
    assert found.items() >= numbers.items()
    assert found["experts"] == 4
    assert found["log_experts"] == pytest.approx(np.log(4))


def test_every_family_is_measured_alike(priced, small):
    kinds = {"family": BEAM, "price": 5.0}, {"family": L2R, "rank": 2}, {"n_chosen": 1}
    for kind in kinds:
        found = priced.train_priced(priced.PricedRun(**kind), *small)
        assert 1 <= found["experts"] <= found["dropped"] * -4 + 4 + 1e-9 or "n_chosen" in kind
        assert found["rate"] >= found["weighted_entropy"] - found["log_experts"] - 1e-6
        assert 0 <= found["changed"] < 1
        assert found["slope"] > 0


def test_a_state_that_is_not_shaken_keeps_its_experts(priced, small, monkeypatch):
    monkeypatch.setattr(priced, "SHAKE", 0.0)
    found = priced.train_priced(priced.PricedRun(family=BEAM, price=0.01), *small)
    assert found["changed"] == 0
    monkeypatch.setattr(priced, "SHAKE", 10.0)
    shaken = priced.train_priced(priced.PricedRun(family=BEAM, price=0.01), *small)
    assert shaken["changed"] > 0.3


def test_a_stopped_training_goes_on_where_it_stopped(priced, small, monkeypatch, tmp_path):
    class Words:
        train = held_out = small[0]
        vocabulary = 50
        languages = ()

    monkeypatch.setattr(priced, "load_mix", lambda *_: Words)
    monkeypatch.setattr(priced, "placed_tokens", lambda _: small[3])
    monkeypatch.setattr(priced, "made_with", lambda *_: {"data": "words"})
    runs = priced.priced_runs()
    some = [runs[0], runs[4], runs[8]]
    monkeypatch.setattr(priced, "priced_runs", lambda: some)
    priced.train_priced_routers(tmp_path / "one", n_jobs=1)
    real = priced.train_priced

    def stopped(run, *given):
        if run == some[2]:
            raise KeyboardInterrupt
        return real(run, *given)

    monkeypatch.setattr(priced, "train_priced", stopped)
    with pytest.raises(KeyboardInterrupt, match="2 finished parts are kept"):
        priced.train_priced_routers(tmp_path / "two", n_jobs=1)
    again = []
    monkeypatch.setattr(priced, "train_priced", lambda run, *g: again.append(run) or real(run, *g))
    priced.train_priced_routers(tmp_path / "two", n_jobs=1)
    assert again == [some[2]]
    first, second = (load_priced_routers(tmp_path / name) for name in ("one", "two"))
    assert first.manifest["files"] == second.manifest["files"]
    assert second.columns()["family"].tolist() == [TOP_K, BEAM, L2R]
    with pytest.raises(FileExistsError):
        priced.train_priced_routers(tmp_path / "two", n_jobs=1)
