"""Gates p(t|x) judged on a loss table: rate, loss and load; and the shipped trained gates.

The trained gates see only the input. They, and what two regressions expect each expert to lose on an input, were
made by `training.gates`; their folder holds `gates.csv`, `gates.npz` and a manifest that seals both. Rates in nats.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy

from expertbank._checks import as_count, as_distribution, as_gate, as_losses, as_number
from expertbank.bank import SPLITS, ExpertBank, matching, open_sealed, seal, write_atomically
from expertbank.information import algorithmic_information
from expertbank.rate_distortion import rate_distortion, rate_distortion_curve, routing

FILES = ("gates.csv", "gates.npz")
DECISIONS, ORACLE = ("soft", "hard"), "oracle"
FAMILIES, ESTIMATES = ("linear", "cnn", "prototype"), ("distilled", "neighbours")
SEEDS, EXAMPLE = 3, ("cnn", 4, 0)  # family, index of the price, seed
STEPS = 255  # losses are shipped in as many steps
# prices of a nat at which gates are trained: where the experts differ little, a nat is worth little
LAMS = {"mnist": np.geomspace(1e-3, 0.3, 10), "specialists": np.geomspace(0.02, 2, 10)}


@dataclass(frozen=True)
class Judgement:
    """A gate on a loss table."""

    rate: float
    """I(X;T) in nats, plug-in, P2 (24)"""
    rate_interval: tuple[float, float]
    """normal interval at 95% around the rate less its bias"""
    loss: float
    """expected loss"""
    loss_error: float
    """its standard error"""
    load: np.ndarray
    """share of the inputs that each expert serves, (R,)"""


def judge_gate(gate, losses) -> Judgement:
    """Rate, loss and load of a gate (N, R) on the losses (N, R) of the same inputs, better held out."""
    gate, losses = as_gate(gate), as_losses(losses)
    if gate.shape != losses.shape:
        raise ValueError(f"gate has shape {gate.shape}, losses {losses.shape}; they must be of the same inputs")
    # the mean divergence of rows from their mixture, whatever the rows are: posteriors there, a gate here
    found = algorithmic_information(gate)
    paid = (gate * losses).sum(axis=1)
    error = paid.std(ddof=1) / np.sqrt(len(paid)) if len(paid) > 1 else np.inf
    low, high = (max(0.0, end) for end in found.interval)
    return Judgement(found.information, (low, high), float(paid.mean()), float(error), gate.mean(axis=0))


def harden(gate) -> np.ndarray:
    """The gate (N, R) that always takes the most probable expert, the first of several; its rate is H(T)."""
    gate = as_gate(gate)
    return np.eye(gate.shape[1])[gate.argmax(axis=1)]


def fit_linear_gate(features, losses, lam: float, ridge: float = 1e-6) -> np.ndarray:
    """Weights (F + 1, R) of the softmax gate on features (N, F), the last row a bias, that minimises P2 (26).

    Expected loss + lam I(X;T) + ridge times the squared weights, over all inputs at once, by L-BFGS-B from uniform
    routing: no minibatch, so no bias of the rate. Not convex: a local minimum. Raises ValueError where shapes differ.
    """
    features, losses = np.asarray(features, dtype=float), as_losses(losses).astype(float)
    lam = as_number(lam, "lam", 0, np.inf, allowed="a number >= 0")
    if features.ndim != 2 or len(features) != len(losses) or not np.isfinite(features).all():
        raise ValueError(f"features has shape {features.shape}; allowed are finite numbers (N, F), N = {len(losses)}")
    inputs = _with_bias(features)
    shape = inputs.shape[1], losses.shape[1]

    def objective(flat):
        weights = flat.reshape(shape)
        log_gate = scipy.special.log_softmax(inputs @ weights, axis=1)
        gate = np.exp(log_gate)
        price = losses + lam * (log_gate - np.log(np.maximum(gate.mean(axis=0), 1e-300)))
        paid = (gate * price).sum(axis=1, keepdims=True)
        slope = inputs.T @ (gate * (price - paid)) / len(inputs)
        return paid.mean() + ridge * (flat @ flat), slope.ravel() + 2 * ridge * flat

    start = 1e-3 * np.random.default_rng(0).standard_normal(shape).ravel()
    return scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B").x.reshape(shape)


def linear_gate(weights, features) -> np.ndarray:
    """p(t|x) (N, R) of `fit_linear_gate`'s weights on features (N, F)."""
    return scipy.special.softmax(_with_bias(np.asarray(features, dtype=float)) @ weights, axis=1)


def _with_bias(features: np.ndarray) -> np.ndarray:
    return np.hstack([features, np.ones((len(features), 1))])


@dataclass(frozen=True)
class RoutedByEstimate:
    """What gates reach that route optimally by estimated losses; arrays over prices."""

    lam: np.ndarray
    rate: np.ndarray
    """I(X;T) in nats"""
    loss: np.ndarray
    """what such a gate really loses: an upper bound on the frontier of gates that see x"""
    hoped: np.ndarray
    """what it would lose were the estimates true"""
    ceiling: float
    """what the expert that looks best on average really loses: the gate of rate 0"""

    def at(self, rate):
        """Loss reached with at most `rate` nats, between the prices by mixing the two gates beside it."""
        order = np.argsort(self.rate)
        rates, reached = np.append(0, self.rate[order]), np.append(self.ceiling, self.loss[order])
        return np.interp(rate, rates, np.minimum.accumulate(reached))


def route_by_estimate(estimates, losses, lams) -> RoutedByEstimate:
    """Solve D(R) for estimated losses E[loss | x] (N, R) and pay the true losses (N, R).

    The best gate that sees only x solves the problem of the conditional means. With estimates in their place this
    gives gates that exist, so their loss lies above the frontier of all gates that see x; D of `losses`, whose gate
    sees the label through the loss, lies below it.
    """
    estimates, losses, lams = as_losses(estimates), as_losses(losses), np.sort(np.asarray(lams, dtype=float))[::-1]
    curve = rate_distortion_curve(estimates, lams)
    gates = (routing(estimates, curve.point(i)) for i in range(len(lams)))
    paid = [float((gate * losses).sum() / len(losses)) for gate in gates]
    ceiling = float(losses[:, estimates.mean(axis=0).argmin()].mean())
    return RoutedByEstimate(lams, curve.rate, np.array(paid), curve.distortion, ceiling)


@dataclass(frozen=True)
class Distance:
    """Why a gate that sees x loses more than D(R) of the label-seeing gate at its rate; arrays over gates."""

    total: np.ndarray
    """held-out loss less D(rate)"""
    label_access: np.ndarray
    """the best known gate that sees x, less D(rate): from above, as a better one may exist"""
    generalisation: np.ndarray
    """held-out loss less training loss"""
    family: np.ndarray
    """the rest: what this family, so trained, leaves on its own training inputs"""


def explain_distance(rate, train_loss, test_loss, curve, known: Sequence[RoutedByEstimate]) -> Distance:
    """Split the distance of gates (G,) to a curve into three terms that add up to it, in units of loss.

    `curve` is the certified D(R) of the held-out losses, `known` what gates that see x reach there.
    """
    rate, train_loss, test_loss = (np.asarray(values, dtype=float) for values in (rate, train_loss, test_loss))
    frontier, reached = curve.upper(rate), np.min([gates.at(rate) for gates in known], axis=0)
    generalisation = test_loss - train_loss
    return Distance(test_loss - frontier, reached - frontier, generalisation, test_loss - reached - generalisation)


@dataclass(frozen=True)
class MinibatchRate:
    """Mean over minibatches of an estimate of I(X;T), nats."""

    value: float
    error: float
    """standard error of the mean"""


def minibatch_rate(gate, batch_size: int, marginal=None, n_batches: int = 500, rng=0) -> MinibatchRate:
    """I(X;T) of a gate (N, R) as training sees it: from batches of its rows, drawn with replacement.

    Without `marginal` (R,) each batch is compared with its own mean, which lies too low by about
    (1/2B) sum_t Var(p(t|x)) / p(t). With the gate's marginal the mean of KL(p(.|x) || marginal) is unbiased.
    """
    gate, rng = as_gate(gate), np.random.default_rng(rng)
    batch_size, n_batches = as_count(batch_size, "batch_size"), as_count(n_batches, "n_batches", 2)
    if marginal is not None:
        marginal = as_distribution(marginal, "marginal")
        if marginal.shape != gate.shape[1:]:
            raise ValueError(
                f"marginal has shape {marginal.shape}; allowed is ({gate.shape[1]},), as the gate has experts"
            )
    found = np.empty(n_batches)
    for i in range(n_batches):
        rows = gate[rng.integers(len(gate), size=batch_size)]
        compared = rows.mean(axis=0) if marginal is None else marginal
        found[i] = scipy.special.rel_entr(rows, compared).sum(axis=1).mean()
    return MinibatchRate(float(found.mean()), float(found.std(ddof=1) / np.sqrt(n_batches)))


# --- the shipped sweep ---


@dataclass(frozen=True)
class GateSweep:
    """Trained gates of every bank, family, price and seed, judged on both splits, soft and hardened."""

    folder: Path = field(repr=False)
    manifest: dict = field(repr=False)
    table: np.ndarray = field(repr=False)
    """a row for each gate, split and decision, with rate, rate_low, rate_high, loss and loss_error"""
    _arrays: dict = field(repr=False)

    def rows(self, **wanted) -> np.ndarray:
        """The rows of `table` whose columns have the wanted values: `rows(bank="mnist", split="test")`."""
        return self.table[matching(self.table, wanted, "gate")]

    def loads(self, **wanted) -> np.ndarray:
        """Share of the inputs that each expert serves, (rows, R), for the same rows."""
        return self._arrays["loads"][matching(self.table, wanted, "gate")]

    def candidates(self, bank: str) -> np.ndarray:
        """The K trained gates of a bank: their rows on the test split, soft, in the order of `losses` and `chosen`."""
        rows = self.rows(bank=bank, split="test", decision="soft")
        return rows[rows["family"] != ORACLE]

    def losses(self, bank: str) -> np.ndarray:
        """Expected loss (N, K) of each trained gate on each test input, in steps of 1/255."""
        return self._array(bank, "losses") / STEPS

    def chosen(self, bank: str) -> np.ndarray:
        """Most probable expert (N, K) uint8 of each trained gate on each test input."""
        return self._array(bank, "chosen")

    def example(self, bank: str) -> np.ndarray:
        """p(t|x) (N, R) of one trained gate on the test split: a CNN at a middle price, seed 0."""
        gate = self._array(bank, "example").astype(float)
        return gate / gate.sum(axis=1, keepdims=True)  # it is shipped in half precision

    def estimates(self, bank: str, kind: str) -> np.ndarray:
        """E[loss | x] (N, R) of the test inputs, `"distilled"` by a CNN or from pixel `"neighbours"`."""
        if kind not in ESTIMATES:
            raise ValueError(f"kind is {kind!r}; allowed are {ESTIMATES}")
        return self._array(bank, kind) / STEPS

    def _array(self, bank: str, name: str) -> np.ndarray:
        if bank not in LAMS:
            raise ValueError(f"bank is {bank!r}; allowed are {tuple(LAMS)}")
        return self._arrays[f"{bank}_{name}"]


def load_gates(folder: str | os.PathLike | None = None) -> GateSweep:
    """The shipped sweep (default: the repository's `data/gates`) after checking its hashes.

    Raises FileNotFoundError where it is missing, ValueError where it is damaged.
    """
    folder, manifest, (table, arrays) = open_sealed(folder, "gates", FILES)
    rows = np.genfromtxt(table, delimiter=",", names=True, dtype=None, encoding="utf-8")
    with np.load(arrays, allow_pickle=False) as archive:
        return GateSweep(folder, manifest, rows, {key: archive[key] for key in archive.files})


def save_gates(folder, rows: Sequence[dict], arrays: dict, manifest: dict) -> None:
    """Write `gates.csv`, `gates.npz` and, last, the manifest that seals them, each atomically."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / FILES[0], lambda file: file.write(text.getvalue().encode()))
    write_atomically(folder / FILES[1], lambda file: np.savez_compressed(file, **arrays))
    seal(folder, manifest, FILES)


def as_steps(losses) -> np.ndarray:
    """Losses in [0, 1] as uint8 in steps of 1/255."""
    return np.rint(np.asarray(losses) * STEPS).astype(np.uint8)


def judge_splits(bank: str, family: str, lam: float, seed: int, gates: Sequence, losses: Sequence):
    """Rows of `gates.csv` and loads (4, R) of one gate, given as each split's p(t|x) and losses: soft and hardened."""
    rows, loads = [], []
    for split, soft, table in zip(SPLITS, gates, losses, strict=True):
        for decision, routed in zip(DECISIONS, (soft, harden(soft)), strict=True):
            judged = judge_gate(routed, table)
            low, high = judged.rate_interval
            numbers = {"rate": judged.rate, "rate_low": low, "rate_high": high}
            numbers |= {"loss": judged.loss, "loss_error": judged.loss_error}
            named = {"bank": bank, "family": family, "lam": lam, "seed": seed, "split": split, "decision": decision}
            rows.append({**named, **{name: round(value, 6) for name, value in numbers.items()}})
            loads.append(judged.load)
    return rows, np.array(loads, dtype=np.float32)


def judge_oracle(bank: ExpertBank) -> tuple[list[dict], np.ndarray]:
    """Rows and loads of the gate that sees the label: the posterior of P2 (28), its marginal solved on train."""
    losses, rows, loads = [bank.losses(split) for split in SPLITS], [], []
    for lam in LAMS[bank.name].tolist():
        point = rate_distortion(losses[0], lam)
        gates = [routing(table, point) for table in losses]
        judged_rows, judged_loads = judge_splits(bank.name, ORACLE, lam, 0, gates, losses)
        rows, loads = rows + judged_rows, [*loads, judged_loads]
    return rows, np.concatenate(loads)
