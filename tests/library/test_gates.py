"""Gates: the rate term's gradient, judging, the small live gate, what gates that see x reach, the
shipped sweep."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from expertbank import (
    entropy,
    gating_rate,
    load_bank,
    mutual_information,
    rate_distortion,
    rate_distortion_curve,
    routing,
)
from expertbank.gates import (
    explain_distance,
    fit_linear_gate,
    harden,
    judge_gate,
    linear_gate,
    minibatch_rate,
    route_by_estimate,
    route_by_guess,
)
from expertbank.shipped.gates import DECISIONS, GATE_SEEDS, LAMS, ORACLE, load_gates, save_gates
from expertbank.shipped.testbed import load_testbed

RNG = np.random.default_rng(5)
GATE = RNG.dirichlet(np.full(6, 0.5), size=400)
LOSSES = (RNG.random((400, 6)) < 0.4).astype(np.uint8)


@pytest.fixture(scope="module")
def sweep():
    return load_gates()


@pytest.fixture(scope="module", params=list(LAMS))
def bank(request):
    return load_bank(request.param)


# --- the objective ---


def test_gradient_of_the_rate_term_is_that_of_the_rate(torch):
    """With the gate's own marginal held fixed: against finite differences of I(X;T) itself, in
    float64."""
    from expertbank.training.gates import rate_term

    logits = torch.tensor(RNG.normal(size=(40, 5)), dtype=torch.float64, requires_grad=True)
    log_gate = torch.log_softmax(logits, 1)
    value = rate_term(log_gate, log_gate.detach().exp().mean(0))
    value.backward()
    assert value.item() == pytest.approx(gating_rate(log_gate.detach().exp().numpy()), abs=1e-12)

    def rate_at(shift, row, column):
        moved = logits.detach().numpy().copy()
        moved[row, column] += shift
        return gating_rate(np.exp(moved) / np.exp(moved).sum(axis=1, keepdims=True))

    for row, column in ((0, 0), (7, 3), (39, 4)):
        slope = (rate_at(1e-5, row, column) - rate_at(-1e-5, row, column)) / 2e-5
        assert float(logits.grad[row, column]) == pytest.approx(slope, rel=1e-6)


def test_gradient_over_minibatches_is_unbiased_only_with_the_true_marginal(torch):
    from expertbank.training.gates import rate_term

    base = torch.tensor(RNG.normal(size=(64, 4)) * 2, dtype=torch.float64)
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def gradient(rows, marginal=None):
        log_gate = torch.log_softmax(scale * base[rows], 1)
        marginal = log_gate.detach().exp().mean(0) if marginal is None else marginal
        return float(torch.autograd.grad(rate_term(log_gate, marginal), scale)[0])

    whole = torch.arange(64)
    truth = torch.softmax(base, 1).mean(0)
    exact = gradient(whole)
    parts = whole.reshape(16, 4)
    assert np.mean([gradient(part, truth) for part in parts]) == pytest.approx(exact, rel=1e-9)
    # a batch's own marginal is not enough
    assert abs(np.mean([gradient(part) for part in parts]) / exact - 1) > 0.05


def test_objective_is_that_of_the_solver(torch):
    from expertbank.training.gates import gate_objective

    losses = LOSSES[:50].astype(float)
    point = rate_distortion(losses, 0.3)
    log_gate = torch.from_numpy(np.log(np.maximum(routing(losses, point), 1e-300)))
    value = gate_objective(
        log_gate, torch.from_numpy(losses), torch.from_numpy(point.marginal).clamp(min=1e-300), 0.3
    )
    assert float(value) == pytest.approx(point.distortion + 0.3 * point.rate, abs=1e-8)


def test_price_falls_to_its_end_and_never_below(torch):
    from expertbank.training.gates import ANNEALED, annealed

    path = [annealed(0.02, 0.2, p) for p in np.linspace(0, 1, 101)]
    assert path[0] == pytest.approx(0.2) and path[-1] == 0.02 and (np.diff(path) <= 0).all()
    assert annealed(0.02, 0.2, ANNEALED) == pytest.approx(0.02)
    assert annealed(0.5, 0.2, 0.1) == 0.5  # a high price needs no way down
    assert annealed(0, 0.2, 1) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("family", ["linear", "cnn", "prototype"])
def test_every_family_learns_a_rule_that_is_in_the_picture(torch, family):
    """Expert 0 is right where a corner is dark, expert 1 where it is bright; a nat is cheap, so the
    gate finds out."""
    from expertbank.training.gates import GateRecipe, gate_probabilities, train_gate

    bright = RNG.random(600) < 0.5
    images = RNG.integers(0, 60, size=(600, 28, 28)).astype(np.uint8)
    images[:, :8, :8] += (150 * bright[:, None, None]).astype(np.uint8)
    losses = np.stack([bright, ~bright, np.ones(600, bool)], axis=1).astype(np.uint8)
    recipe = GateRecipe("mnist", family, 0.01, seed=1, epochs=16, batch_size=50)
    judged = judge_gate(gate_probabilities(train_gate(images, losses, recipe), images), losses)
    assert judged.loss < 0.05 and judged.rate == pytest.approx(np.log(2), abs=0.15)
    dear = GateRecipe("mnist", family, 10.0, seed=1, epochs=4, batch_size=50)
    assert (
        judge_gate(gate_probabilities(train_gate(images, losses, dear), images), losses).rate < 0.01
    )


def test_training_repeats_and_leaves_the_global_generator_alone(torch):
    from expertbank.training.gates import GateRecipe, gate_probabilities, train_gate

    images, recipe = (
        RNG.integers(0, 256, size=(100, 28, 28), dtype=np.uint8),
        GateRecipe("mnist", "linear", 0.1, epochs=1),
    )
    before = torch.get_rng_state()
    one, other = (
        gate_probabilities(train_gate(images, LOSSES[:100], recipe), images) for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_allclose(one.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"family": "forest"}, r"family is 'forest'; allowed are \('linear', 'cnn', 'prototype'\)"),
        ({"lam": -1.0}, "lam is -1; allowed is a number >= 0"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_bad_gate_recipes(torch, given, message):
    from expertbank.training.gates import GateRecipe

    with pytest.raises(ValueError, match=message):
        GateRecipe(**{"bank": "mnist", "family": "linear", "lam": 0.1, **given})


# --- judging ---


def test_judged_by_hand():
    gate = np.array([[1.0, 0.0], [0.5, 0.5]])
    judged = judge_gate(gate, [[0, 1], [1, 0]])
    assert judged.loss == 0.25 and judged.loss_error == 0.25
    np.testing.assert_allclose(judged.load, [0.75, 0.25])
    assert judged.rate == pytest.approx(entropy([0.75, 0.25]) - np.log(2) / 2)
    assert judged.rate_interval[0] >= 0


def test_interval_of_the_rate_covers():
    truth, held = mutual_information(GATE), 0
    for _ in range(200):
        low, high = judge_gate(GATE[RNG.integers(400, size=300)], np.zeros((300, 6))).rate_interval
        held += low <= truth <= high
    assert held >= 180  # 190 expected, 180 or fewer has probability 0.003


def test_a_hardened_gate_costs_the_entropy_of_its_load():
    hard = harden(GATE)
    np.testing.assert_array_equal(hard.argmax(axis=1), GATE.argmax(axis=1))
    judged = judge_gate(hard, LOSSES)
    assert judged.rate == pytest.approx(entropy(judged.load))


def test_judging_needs_the_same_inputs():
    with pytest.raises(
        ValueError,
        match=r"gate has shape \(400, 6\), losses \(10, 6\); they must be of the same inputs",
    ):
        judge_gate(GATE, LOSSES[:10])


def test_minibatches_of_their_own_marginal_rate_too_low():
    truth, marginal = gating_rate(GATE), GATE.mean(axis=0)
    for size in (16, 64, 256):
        own, fixed = (
            minibatch_rate(GATE, size, n_batches=2000),
            minibatch_rate(GATE, size, marginal, n_batches=2000),
        )
        assert abs(fixed.value - truth) < 4 * fixed.error
        bias = (GATE.var(axis=0) / marginal).sum() / (2 * size)
        assert own.value - truth == pytest.approx(-bias, rel=0.15, abs=4 * own.error)
    with pytest.raises(ValueError, match=r"marginal has shape \(3,\)"):
        minibatch_rate(GATE, 16, [0.2, 0.3, 0.5])


# --- the small live gate ---


def test_linear_gate_finds_the_solvers_optimum_when_features_name_the_row():
    """With one feature for each distinct row of losses the family holds every gate: its optimum is
    D + lam I."""
    rng = np.random.default_rng(0)  # other tables have local minima, where nats are cheap
    rows, kind = rng.random((5, 3)), rng.integers(5, size=300)
    losses, features = rows[kind], np.eye(5)[kind]
    for lam in (0.05, 0.2):
        judged = judge_gate(
            linear_gate(fit_linear_gate(features, losses, lam, ridge=0), features), losses
        )
        best = rate_distortion(losses, lam)
        assert judged.loss + lam * judged.rate == pytest.approx(
            best.distortion + lam * best.rate, abs=2e-5
        )
        assert judged.loss + lam * judged.rate >= best.distortion + lam * best.rate - 1e-9


@pytest.mark.parametrize("features", [np.zeros(400), np.zeros((3, 2)), np.full((400, 2), np.nan)])
def test_bad_features(features):
    with pytest.raises(ValueError, match="allowed are finite numbers \\(N, F\\), N = 400"):
        fit_linear_gate(features, LOSSES, 0.1)


# --- what gates that see x can reach ---


def test_true_losses_as_estimates_reach_the_frontier():
    lams = np.array([0.3, 0.1, 0.05])
    reached, curve = route_by_estimate(LOSSES, LOSSES, lams), rate_distortion_curve(LOSSES, lams)
    np.testing.assert_allclose(reached.loss, curve.upper(reached.rate), atol=1e-6)
    np.testing.assert_allclose(reached.loss, reached.hoped, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.02, 0.5))
def test_no_estimate_beats_the_frontier(seed, lam):
    rng = np.random.default_rng(seed)
    losses, estimates = (rng.random((40, 4)) < 0.4).astype(float), rng.random((40, 4))
    reached = route_by_estimate(estimates, losses, [lam])
    assert (
        reached.loss[0]
        >= rate_distortion_curve(losses, np.geomspace(1, 0.005, 25)).lower(reached.rate[0]) - 1e-9
    )


def test_distance_adds_up():
    curve = rate_distortion_curve(LOSSES, band=1e-5)
    noisy = np.clip(LOSSES + RNG.normal(0, 0.3, LOSSES.shape), 0, 1)
    known = [route_by_estimate(noisy, LOSSES, np.geomspace(1, 0.01, 20))]
    rate, train, test = np.array([0.05, 0.2]), np.array([0.3, 0.2]), np.array([0.33, 0.25])
    found = explain_distance(rate, train, test, curve, known)
    parts = found.bracket + found.generalisation + found.not_learned
    np.testing.assert_allclose(parts, found.total)
    np.testing.assert_allclose(found.total, test - curve.upper(rate))
    assert (found.bracket >= -1e-9).all()
    np.testing.assert_allclose(found.not_learned, train - known[0].at(rate))


def test_a_guess_is_routed_on_as_if_it_were_the_label():
    predictions = RNG.integers(10, size=(300, 5))
    labels = RNG.integers(10, size=300)
    losses = predictions != labels[:, None]
    lams = [0.5, 0.2, 0.01]
    told = route_by_guess(predictions, labels, losses, lams)
    np.testing.assert_allclose(told.loss, route_by_estimate(losses, losses, lams).loss)
    with pytest.raises(ValueError, match=r"guessed has shape \(4,\), predictions \(300, 5\)"):
        route_by_guess(predictions, labels[:4], losses, lams)


def test_a_guess_costs_at_most_twice_its_error():
    """D <= loss <= D + 2 e of the chapter, with D of a small table from SLSQP over all its
    gates."""
    rng = np.random.default_rng(11)
    for wrong in (0, 1, 3):
        predictions = rng.integers(3, size=(12, 3))
        labels = rng.integers(3, size=12)
        guessed = labels.copy()
        guessed[:wrong] = (labels[:wrong] + 1) % 3
        losses = (predictions != labels[:, None]).astype(float)
        reached = route_by_guess(predictions, guessed, losses, [0.2])
        least = least_loss(losses, float(reached.rate[0]))
        assert least - 1e-5 <= reached.loss[0] <= least + 2 * wrong / 12 + 1e-5


def least_loss(losses, rate):
    """D(rate) of a small table: the least of several runs of SLSQP over all gates."""
    share = losses.ravel() / len(losses)

    def divergence(flat):
        gate = np.maximum(flat.reshape(losses.shape), 1e-12)
        return np.log(gate / gate.mean(axis=0)).ravel()

    rate_left = {
        "type": "ineq",
        "fun": lambda flat: rate - flat @ divergence(flat) / len(losses),
        "jac": lambda flat: -divergence(flat) / len(losses),
    }
    rows = np.kron(np.eye(len(losses)), np.ones(losses.shape[1]))
    whole = {"type": "eq", "fun": lambda flat: rows @ flat - 1, "jac": lambda _: rows}
    found = []
    for seed in range(3):
        start = np.random.default_rng(seed).dirichlet(np.full(losses.shape[1], 5), len(losses))
        run = minimize(
            lambda flat: share @ flat,
            start.ravel(),
            jac=lambda _: share,
            method="SLSQP",
            bounds=[(0, 1)] * losses.size,
            constraints=[rate_left, whole],
            options={"maxiter": 500},
        )
        if run.success:
            found.append(run.fun)
    return min(found)


# --- the shipped sweep ---


def test_the_sweep_is_whole(sweep, bank):
    families = ("linear", "cnn", "prototype")
    assert len(LAMS[bank.name]) >= 10 and GATE_SEEDS >= 3
    for split in ("train", "test"):
        for decision in DECISIONS:
            for family in families:
                rows = sweep.rows(bank=bank.name, family=family, split=split, decision=decision)
                assert set(zip(rows["lam"], rows["seed"])) == {
                    (lam, seed) for lam in LAMS[bank.name] for seed in range(GATE_SEEDS)
                }
            assert len(
                sweep.rows(bank=bank.name, family=ORACLE, split=split, decision=decision)
            ) == len(LAMS[bank.name])
    assert (
        len(sweep.candidates(bank.name))
        == sweep.losses(bank.name).shape[1]
        == sweep.chosen(bank.name).shape[1]
    )
    predictions = bank.manifest["files"]["predictions.npz"]["sha256"]
    assert sweep.manifest["banks"][bank.name] == predictions  # trained on the bank that is shipped


def test_rows_follow_from_the_shipped_arrays(sweep, bank):
    losses = bank.losses("test")
    soft = sweep.candidates(bank.name)
    # steps of 1/255
    np.testing.assert_allclose(sweep.losses(bank.name).mean(axis=0), soft["loss"], atol=1e-3)
    hard = sweep.rows(bank=bank.name, split="test", decision="hard")
    hard = hard[hard["family"] != ORACLE]
    loads = sweep.loads(bank=bank.name, split="test", decision="hard")[: len(hard)]
    for i, chosen in enumerate(sweep.chosen(bank.name).T):
        assert losses[np.arange(len(losses)), chosen].mean() == pytest.approx(
            hard["loss"][i], abs=2e-6
        )
        np.testing.assert_allclose(
            np.bincount(chosen, minlength=losses.shape[1]) / len(chosen), loads[i], atol=1e-6
        )
        assert entropy(loads[i] / loads[i].sum()) == pytest.approx(hard["rate"][i], abs=1e-5)
    example = judge_gate(sweep.example(bank.name), losses)
    row = soft[(soft["family"] == "cnn") & (soft["seed"] == 0)].iloc[4]
    assert example.rate == pytest.approx(row["rate"], abs=2e-3) and example.loss == pytest.approx(
        row["loss"], abs=1e-3
    )


@pytest.mark.slow
def test_columns_are_the_rows_without_pandas(sweep):
    for shipped, wanted in (
        (sweep, {"bank": "mnist", "decision": "hard"}),
        (load_testbed(), {"mix": "scripts", "capacity": None}),
    ):
        rows = shipped.rows(**wanted)
        columns = shipped.columns(**wanted)
        assert list(columns) == list(rows.columns)
        for name, values in columns.items():
            np.testing.assert_array_equal(values, rows[name].to_numpy(values.dtype))


def test_no_gate_lies_below_the_frontier(sweep, bank):
    for split in ("train", "test"):
        curve = rate_distortion_curve(bank.losses(split))
        rows = sweep.rows(bank=bank.name, split=split)
        assert (rows["loss"] >= curve.lower(rows["rate"]) - 1e-5).all()
        oracle = sweep.rows(bank=bank.name, split=split, family=ORACLE, decision="soft")
        # its marginal comes from the other split
        assert (oracle["loss"] - curve.upper(oracle["rate"]) < 0.01).all()


def test_rates_obey_the_laws(sweep):
    table = sweep.table
    assert ((table["rate"] >= 0) & (table["rate"] <= np.log(25))).all()
    assert (table["rate_low"] <= table["rate_high"]).all()
    loads = sweep._arrays["loads"]
    np.testing.assert_allclose(loads.sum(axis=1), 1, atol=1e-5)
    # I(X;T) <= H(T)
    assert (table["rate"] <= entropy(loads / loads.sum(axis=1, keepdims=True)) + 1e-5).all()


def test_a_higher_price_buys_fewer_nats(sweep):
    for bank in LAMS:
        for family in ("linear", "cnn", "prototype"):
            rows = sweep.rows(bank=bank, family=family, split="train", decision="soft")
            means = [rows["rate"][rows["lam"] == lam].mean() for lam in LAMS[bank]]
            assert means[0] > means[-1] and np.argmax(means) < 5


@pytest.mark.slow
def test_estimates_reach_below_the_best_expert_and_not_below_the_frontier(sweep, bank):
    losses = bank.losses("test")
    curve = rate_distortion_curve(losses)
    for kind in ("distilled", "neighbours"):
        estimates = sweep.estimates(bank.name, kind)
        assert estimates.shape == losses.shape
        reached = route_by_estimate(estimates, losses, LAMS[bank.name])
        assert (reached.loss >= curve.lower(reached.rate) - 1e-9).all()
        assert reached.loss.min() < losses.mean(axis=0).min()


# error of the vote, the most it leaves to the label, and how far above it all soft gates lie
VOTES = {"mnist": (0.0283, 0.0126, 0.0147), "specialists": (0.0555, 0.0514, 0.0226)}


@pytest.mark.slow
def test_a_voted_label_comes_nearer_to_the_frontier_than_any_trained_gate(sweep, bank):
    losses = bank.losses("test")
    voted = sweep.voted(bank.name)
    assert voted.shape == (len(losses),) and voted.dtype == np.uint8
    wrong, bracket, nearest = VOTES[bank.name]
    assert (voted != bank.labels("test")).mean() == pytest.approx(wrong, abs=1e-6)
    lams = np.geomspace(0.004, 4, 40)
    reached = route_by_guess(bank.predictions("test"), voted, losses, lams)
    curve = rate_distortion_curve(losses)
    assert (reached.loss >= curve.lower(reached.rate) - 1e-9).all()
    excess = reached.loss - curve.upper(reached.rate)
    assert excess.max() < bracket < 2 * wrong
    soft = sweep.candidates(bank.name)
    assert (soft["loss"] - reached.at(soft["rate"])).min() > nearest
    hard = sweep.rows(bank=bank.name, split="test", decision="hard")
    hard = hard[hard["family"] != ORACLE]
    # one expert for all is on both curves
    assert (hard["loss"] - reached.at(hard["rate"])).min() > -1e-6


def test_a_voted_label_needs_no_more_nats_than_stated(sweep):
    """P2's bank, worked without the curve: the optimal gate of the guessed losses by its
    definition, p(t|x) in proportion to q(t) exp(-loss / lam)."""
    bank = load_bank("mnist")
    guessed = (bank.predictions("test") != sweep.voted("mnist")[:, None]).astype(float)
    for lam, rate, loss in ((0.05, 0.1200, 0.0376), (0.5, 0.0353, 0.0565), (1.0, 0.0097, 0.0704)):
        marginal = rate_distortion(guessed, lam).marginal
        gate = marginal * np.exp(-guessed / lam)
        gate /= gate.sum(axis=1, keepdims=True)
        shares = gate.mean(axis=0)
        logs = np.log(np.maximum(gate, 1e-300)) - np.log(np.maximum(shares, 1e-300))
        assert (gate * logs).sum(axis=1).mean() == pytest.approx(rate, abs=1e-4)
        paid = (gate * bank.losses("test")).sum(axis=1).mean()
        assert paid == pytest.approx(loss, abs=1e-4)


@pytest.mark.slow
def test_shipped_votes_are_those_of_the_nearest_training_images(sweep, bank, mnist_root, torch):
    """Brute force, image by image, on a slice."""
    from expertbank.training.datasets import load_mnist
    from expertbank.training.experts import judged_on, recipe_of
    from expertbank.training.gates import voted_labels

    recipe = recipe_of(bank.manifest)
    images, labels = load_mnist("train", mnist_root)
    known = judged_on(images, "train", recipe)
    asked = judged_on(load_mnist("test", mnist_root)[0], "test", recipe)[:40]
    shipped = sweep.voted(bank.name)[:40]
    np.testing.assert_array_equal(voted_labels(known, labels, asked), shipped)
    for image, label in zip(asked[:8].astype(int), shipped):
        squares = ((known.astype(np.int32) - image) ** 2).sum(axis=(1, 2))
        three = [int(labels[i]) for i in np.argsort(squares, kind="stable")[:3]]
        assert label == max(three, key=three.count)  # max takes the first of several


@pytest.fixture
def copied(tmp_path, sweep):
    return shutil.copytree(sweep.folder, tmp_path / "gates")


def test_a_damaged_sweep_is_refused(copied):
    text = (copied / "gates.csv").read_text()
    (copied / "gates.csv").write_text(text.replace("linear", "lineal", 1))
    with pytest.raises(ValueError, match=r"gates\.csv has sha256"):
        load_gates(copied)
    (copied / "gates.csv").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"gates\.csv is missing, though the manifest lists it"
    ):
        load_gates(copied)
    (copied / "manifest.json").write_text('{"files": {}}')
    with pytest.raises(ValueError, match=r"manifest\.json is not a gates manifest"):
        load_gates(copied)


def test_saving_what_was_loaded_gives_the_same_sweep(copied, tmp_path, sweep):
    save_gates(
        tmp_path / "again",
        sweep.table.to_dict("records"),
        sweep._arrays,
        {k: v for k, v in sweep.manifest.items() if k != "files"},
    )
    again = load_gates(tmp_path / "again")
    assert again.table.equals(sweep.table)
    assert (tmp_path / "again" / "gates.csv").read_bytes() == (copied / "gates.csv").read_bytes()
    assert (
        json.loads((tmp_path / "again" / "manifest.json").read_text())["banks"]
        == sweep.manifest["banks"]
    )


def test_unknown_names(sweep, tmp_path):
    with pytest.raises(ValueError, match=r"no column \['price'\]; allowed are"):
        sweep.rows(price=1)
    with pytest.raises(ValueError, match="no gate with"):
        sweep.rows(bank="cifar")
    with pytest.raises(ValueError, match="bank is 'cifar'; allowed are"):
        sweep.losses("cifar")
    with pytest.raises(ValueError, match="kind is 'guessed'; allowed are"):
        sweep.estimates("mnist", "guessed")
    with pytest.raises(FileNotFoundError, match="`make gates` makes them anew"):
        load_gates(tmp_path)


def test_a_killed_sweep_goes_on_and_a_finished_one_is_not_overwritten(
    torch, mnist_root, tmp_path, monkeypatch
):
    from expertbank.training import gates

    trained = []

    def tiny(images, losses, recipe):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(recipe.name)
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(784, losses.shape[1]), torch.nn.LogSoftmax(1)
        )

    def few(data, split, root=None, download=False):
        return tuple(array[:60] for array in whole(data, split, mnist_root))

    def head(name, root=None, sha256=None):
        full = load_bank(name)
        manifest = full.manifest
        if sha256 is not None:
            manifest = manifest | {"files": {"predictions.npz": {"sha256": sha256}}}
        return type(full)(
            full.name, full.folder, manifest, {k: v[:60] for k, v in full._arrays.items()}
        )

    whole = gates.load_images
    for name, stub in {"load_images": few, "load_bank": head, "train_gate": tiny}.items():
        monkeypatch.setattr(gates, name, stub)
    monkeypatch.setattr(gates, "judged_on", lambda images, split, recipe: images)
    monkeypatch.setattr(
        gates, "REGRESSIONS", {k: lambda i, losses, u: losses[:60] for k in gates.REGRESSIONS}
    )
    with pytest.raises(KeyboardInterrupt):
        gates.train_gates(tmp_path / "gates", n_jobs=1)
    assert not (tmp_path / "gates").exists() and len(trained) == 3
    before = list(trained)
    trained.clear()
    # what is there was not made by another recipe, nor from other banks
    with monkeypatch.context() as patch:
        patch.setattr(gates, "BEGIN", 0.5)
        with pytest.raises(
            ValueError, match=r"was begun with recipe\.begin 0\.25, not 0\.5; remove"
        ):
            gates.train_gates(tmp_path / "gates", n_jobs=1)
    with monkeypatch.context() as patch:
        patch.setattr(gates, "load_bank", lambda name, root: head(name, root, "0" * 64))
        with pytest.raises(
            ValueError, match=r"begun with banks\.mnist \w+.*, not 000.*; remove it"
        ):
            gates.train_gates(tmp_path / "gates", n_jobs=1)
    assert not trained
    monkeypatch.setattr(
        gates, "train_gate", lambda i, lo, r: trained.append(r.name) or tiny.__wrapped__(lo)
    )
    tiny.__wrapped__ = lambda losses: torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(784, losses.shape[1]), torch.nn.LogSoftmax(1)
    )
    gates.train_gates(tmp_path / "gates", n_jobs=1)
    assert not set(before) & set(trained) and len(before) + len(trained) == len(
        gates.shipped_gates()
    )
    assert load_gates(tmp_path / "gates").losses("mnist").shape == (60, 90)
    assert not (tmp_path / "gates.partial").exists()
    with pytest.raises(FileExistsError, match="already holds gates"):
        gates.train_gates(tmp_path / "gates")
