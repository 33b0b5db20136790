"""Bounds on the expected generalisation gap of a learner that selects from a bank. Losses in [0, 1], nats.

From loose to tight in what they look at: the number of candidates; I(S;W); what one sample point tells about W;
what W tells about which half of a supersample it was trained on. `bound_ladder` evaluates all of them on one bank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from expertbank._checks import as_count, as_distribution, as_gate, as_interval, as_losses, as_risks, as_weights
from expertbank.information import binary_entropy, mutual_information
from expertbank.learners import empirical_risks, merge_rows, mix_with_uniform

BATCHES = 10  # jackknife groups for Monte Carlo errors
SUPERSAMPLES, SPLITS_PER_SUPERSAMPLE = 100, 4000


def union_bound(n_candidates: int, sample_size: int) -> float:
    """sqrt(log R / (2m)): P2 (22), the bound in expectation for any selection among R candidates.

    The expected maximum of R variables that are 1/(2 sqrt m)-sub-Gaussian (Massart 2000). Assumes i.i.d. samples.
    """
    n_candidates = as_count(n_candidates, "n_candidates")
    return float(np.sqrt(np.log(n_candidates) / (2 * as_count(sample_size, "sample_size"))))


def xu_raginsky_bound(information, sample_size: int, sigma: float = 0.5):
    """sigma sqrt(2 I(S;W) / m): P1 Theorem 1 and P2 (21) with sigma = 1 (Xu & Raginsky 2017).

    A loss in [0, 1] is sigma-sub-Gaussian with sigma = 1/2 (Hoeffding's lemma), which is the default here.
    """
    information = _nonnegative(information, "information")
    return _positive(sigma, "sigma") * np.sqrt(2 * information / as_count(sample_size, "sample_size"))


def theorem2_bound(distortion, information, sample_size: int, excess=0.0, sigma: float = 0.5):
    """D(R_g) + delta_m + sigma sqrt(2 I(S;W)/m): P1 Theorem 2, (10), with `excess` the delta_m of (8)."""
    best = _nonnegative(distortion, "distortion") + _nonnegative(excess, "excess")
    return best + xu_raginsky_bound(information, sample_size, sigma)


def cumulant_bound(information, sample_size: int, risks, marginal) -> float:
    """min over s > 0 of [I(S;W)/m + E_W psi_W(s)] / s, psi_w the cumulant function of p_w - Bernoulli(p_w).

    Xu & Raginsky's argument without Hoeffding's lemma: `risks` (R,) are the candidates' population risks p_w and
    `marginal` (R,) the law of W. For losses in [0, 1] the Bernoulli is the worst case of its mean.
    """
    rate = _nonnegative(information, "information") / as_count(sample_size, "sample_size")
    risks, marginal = as_risks(risks), as_distribution(marginal, "marginal")
    risks = np.where(risks == 1, 0.0, risks)  # a loss that never varies has psi = 0; as p = 1 it would be inf - inf

    def value(log_s):
        s = np.exp(log_s)
        return (rate + marginal @ (s * risks + np.log1p(risks * np.expm1(-s)))) / s

    if rate == 0:
        return 0.0
    best = scipy.optimize.minimize_scalar(value, bounds=(-12, 12), method="bounded", options={"xatol": 1e-10})
    return float(best.fun)


def pac_bayes_kl_bound(information, sample_size: int, train_risk) -> float:
    """max{p : kl(train risk || p) <= I(S;W)/m} - train risk: PAC-Bayes-kl in expectation, prior = marginal of W.

    E KL(posterior || marginal) is I(S;W), and with that prior joint convexity of kl gives
    kl(E R_S(W) || E R(W)) <= I(S;W)/m, without the logarithm of the high-probability form (Maurer 2004).
    """
    rate = _nonnegative(information, "information") / as_count(sample_size, "sample_size")
    train_risk = as_interval(train_risk, "train_risk", 0, 1)
    return float(binary_kl_inverse(train_risk, rate) - train_risk)


def individual_sample_bound(conditionals, weights=None) -> float:
    """sqrt(I(W;Z) / 2) with Z one sample point: Bu, Zou & Veeravalli (2020), for samples that are exchangeable.

    `conditionals` (U, R) are P(W | Z = u), `weights` (U,) the law of Z.
    """
    return float(np.sqrt(mutual_information(conditionals, weights) / 2))


def disintegrated_bound(conditionals, weights=None) -> float:
    """E_Z sqrt(KL(P(W|Z) || P(W)) / 2): the individual-sample bound with the root inside (Negrea et al. 2019)."""
    conditionals, weights, divergences = _divergences(conditionals, weights)
    return float(weights @ np.sqrt(divergences / 2))


def disintegrated_kl_bound(conditionals, losses, weights=None) -> float:
    """E_Z [a_Z - min{b : kl(b || a_Z) <= KL(P(W|Z) || P(W))}], a_z = E_{P(W)} loss(W, z).

    The same with the exact cumulant function of a 0-1 loss in place of Hoeffding's. `losses` (U, R).
    """
    conditionals, weights, divergences = _divergences(conditionals, weights)
    means = as_losses(losses) @ (weights @ conditionals)
    means = np.where(means > 1 - 1e-12, 1.0, means)  # 1 less rounding would let the mean fall by budget / 37
    return float(weights @ (means - _lowest_mean(means, divergences)))


def total_variation_bound(conditionals, weights=None) -> float:
    """E_Z TV(P(W|Z), P(W)): a loss in [0, 1] cannot move by more (Rodriguez-Galvez et al. 2021)."""
    conditionals = as_gate(conditionals, "conditionals")
    weights = as_weights(weights, len(conditionals))
    return float(weights @ np.abs(conditionals - weights @ conditionals).sum(axis=1)) / 2


def conditional_mi_bound(conditional_information, sample_size: int):
    """sqrt(2 I(W;U|supersample) / m): Steinke & Zakynthinou (2020). U says which half of each pair trained W."""
    information = _nonnegative(conditional_information, "conditional_information")
    return np.sqrt(2 * information / as_count(sample_size, "sample_size"))


def evaluated_cmi_bound(evaluated_information, sample_size: int):
    """sqrt(2 I(losses of W on the supersample; U | supersample) / m): the evaluated form (e-CMI) of the same paper.

    It forgets which of several candidates W is when they lose on the same points.
    """
    return conditional_mi_bound(evaluated_information, sample_size)


def loss_difference_bound(conditionals, losses, weights=None) -> float:
    """sqrt(2 I(D;U)), D the difference of W's 0-1 losses within a pair: Wang & Mao (2023), loss-difference MI.

    With p = P(wrong on the ghost point only) and q = P(wrong on the training point only), I(D;U) is
    (p + q)(log 2 - h(p/(p + q))): given that the two losses differ, their order is a binary channel.
    """
    conditionals = as_gate(conditionals, "conditionals")
    weights, losses = as_weights(weights, len(conditionals)), as_losses(losses).astype(float)
    risks = weights @ losses
    ghost = float(weights @ (conditionals * (1 - losses) * risks).sum(axis=1))
    trained = float(weights @ (conditionals * losses * (1 - risks)).sum(axis=1))
    differ = ghost + trained
    if differ == 0:
        return 0.0
    return float(np.sqrt(2 * differ * max(0.0, np.log(2) - binary_entropy(min(1.0, ghost / differ)))))


def binary_kl_inverse(q, budget):
    """The largest p >= q with kl(q || p) <= budget nats, elementwise for q in [0, 1]."""
    q, budget = as_interval(q, "q", 0, 1), _nonnegative(budget, "budget")
    from scipy.optimize import elementwise  # loaded where it is used

    roots = elementwise.find_root(lambda p, q, c: _binary_kl(q, p) - c, (q, np.nextafter(1, 0)), args=(q, budget))
    return np.where(roots.success, roots.x, np.where(budget > 0, 1.0, q))[()]


def _lowest_mean(means, budgets):
    """The least b <= mean with kl(b || mean) <= budget, elementwise."""
    from scipy.optimize import elementwise  # loaded where it is used

    # Pinsker's inequality brings the lower end of the bracket close; with 1e-12 that leaves 9 steps of 23
    least = np.maximum(0.0, means - np.sqrt(budgets / 2) - 1e-9)
    roots = elementwise.find_root(
        lambda b, a, c: _binary_kl(b, a) - c, (least, means), args=(means, budgets), tolerances={"xatol": 1e-12}
    )
    return np.where(roots.success, roots.x, np.where(budgets > 0, 0.0, means))


def _binary_kl(q, p):
    return scipy.special.rel_entr(q, p) + scipy.special.rel_entr(1 - q, 1 - p)


def _divergences(conditionals, weights):
    conditionals = as_gate(conditionals, "conditionals")
    weights = as_weights(weights, len(conditionals))
    return conditionals, weights, scipy.special.rel_entr(conditionals, weights @ conditionals).sum(axis=1)


def _nonnegative(value, name: str):
    return as_interval(value, name, 0, np.inf, allowed="a number >= 0")


def _positive(value, name: str):
    if not np.all(_nonnegative(value, name) > 0):
        raise ValueError(f"{name} is {value}; allowed is a number > 0")
    return value


# --- the ladder: all of them on one bank ---


@dataclass(frozen=True)
class BoundLadder:
    """Every bound on one bank at one alpha, with Monte Carlo standard errors. Names are those of the functions."""

    alpha: float
    gap: float
    """E[R(W) - R_S(W)] on the pool as exact population"""
    gap_error: float
    values: dict[str, float]
    errors: dict[str, float]
    """0 for what is computed in closed form"""


def bound_ladder(
    losses, alpha: float, sample_size: int = 256, rng: np.random.Generator | int = 0, n_datasets: int = 20_000
) -> BoundLadder:
    """All bounds for the alpha-mixture on 0-1 losses (N, R), the pool being the exact population.

    P(W | Z = u) comes from the same M samples of the other m - 1 points for every u, so that differences between
    the u are not drowned in Monte Carlo noise; errors are jackknifed over groups of those samples. The two
    conditional bounds use `SUPERSAMPLES` supersamples. Raises ValueError for losses other than 0 and 1.
    """
    return LadderExperiment(losses, sample_size, rng, n_datasets).at(alpha)


class LadderExperiment:
    """The Monte Carlo behind `bound_ladder`, done once; every posterior is linear in alpha, so `at` is quick."""

    def __init__(self, losses, sample_size: int = 256, rng=0, n_datasets: int = 20_000):
        losses = as_losses(losses)
        if not np.isin(losses, (0, 1)).all():
            raise ValueError("losses hold values other than 0 and 1; the ladder is for 0-1 losses")
        self.sample_size = as_count(sample_size, "sample_size")
        n_datasets = as_count(n_datasets, "n_datasets", at_least=BATCHES)
        rng = np.random.default_rng(rng)
        rows, counts, _ = merge_rows(losses)
        self.rows, self.weights, self.risks = rows.astype(float), counts / counts.sum(), losses.mean(axis=0)
        self.winners = self._winners_given_one(losses, rows, n_datasets, rng)  # (BATCHES, U, R)
        self.supersamples = self._winners_on_supersamples(losses, rng)

    def at(self, alpha: float, errors: bool = True) -> BoundLadder:
        """The ladder at one alpha. Without the jackknifed `errors`, which are then nan, it is eleven times as fast."""
        alpha = as_interval(alpha, "alpha", 0, 1)
        total = self.winners.sum(axis=0)
        values = self._from_winners(total, alpha)
        left_out = [self._from_winners(total - batch, alpha) for batch in (self.winners if errors else ())]
        errors = {name: _jackknife_error([other[name] for other in left_out]) for name in values}
        for name, information in zip(("conditional_mi_bound", "evaluated_cmi_bound"), self._conditional(alpha)):
            mean = max(0.0, float(information.mean()))
            values[name] = float(conditional_mi_bound(mean, self.sample_size))
            standard = float(information.std(ddof=1) / np.sqrt(len(information)))
            errors[name] = values[name] * standard / (2 * mean) if mean > 0 else 0.0  # through the root
        return BoundLadder(float(alpha), values.pop("gap"), errors.pop("gap"), values, errors)

    def _from_winners(self, counts: np.ndarray, alpha: float) -> dict[str, float]:
        """What follows from how often each expert wins given one sample point: counts (U, R)."""
        m, n_experts = self.sample_size, counts.shape[1]
        conditionals = mix_with_uniform(counts / counts.sum(axis=1, keepdims=True), alpha)
        marginal = self.weights @ conditionals
        posterior = mix_with_uniform(np.eye(n_experts)[0], alpha)
        information = max(0.0, float(scipy.special.entr(marginal).sum() - scipy.special.entr(posterior).sum()))
        train_risk = min(1.0, float(self.weights @ (conditionals * self.rows).sum(axis=1)))  # rounding
        of_one = (conditionals, self.weights)
        return {
            "gap": float(marginal @ self.risks) - train_risk,
            "union_bound": union_bound(n_experts, m),
            "xu_raginsky_bound_sigma_1": float(xu_raginsky_bound(information, m, sigma=1)),
            "xu_raginsky_bound": float(xu_raginsky_bound(information, m)),
            "cumulant_bound": cumulant_bound(information, m, self.risks, marginal),
            "pac_bayes_kl_bound": pac_bayes_kl_bound(information, m, train_risk),
            "individual_sample_bound": individual_sample_bound(*of_one),
            "disintegrated_bound": disintegrated_bound(*of_one),
            "loss_difference_bound": loss_difference_bound(conditionals, self.rows, self.weights),
            "total_variation_bound": total_variation_bound(*of_one),
            "disintegrated_kl_bound": disintegrated_kl_bound(conditionals, self.rows, self.weights),
        }

    def _winners_given_one(self, losses, rows, n_datasets, rng) -> np.ndarray:
        """How often each expert wins when one sample point has loss row u, (BATCHES, U, R)."""
        n_experts, others = losses.shape[1], self.sample_size - 1
        # mistakes on the other points, with the index behind the comma: the least number is the winner
        kind = np.min_scalar_type(-(self.sample_size + 1) * n_experts)  # short integers are compared many at a time
        keys = np.zeros((n_datasets, n_experts), np.int64)
        if others:
            keys += np.rint(empirical_risks(losses, others, n_datasets, rng) * others).astype(np.int64)
        keys = np.ascontiguousarray((keys * n_experts + np.arange(n_experts)).T, kind)
        batch = np.arange(n_datasets) * BATCHES // n_datasets * n_experts
        winners = [
            np.bincount((keys + row[:, None]).min(axis=0) % n_experts + batch, minlength=BATCHES * n_experts)
            for row in rows.astype(kind) * kind.type(n_experts)
        ]
        return np.reshape(winners, (-1, BATCHES, n_experts)).swapaxes(0, 1)

    def _winners_on_supersamples(self, losses, rng) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each supersample: how often each expert wins over random halves (R,), and its loss pattern (R,)."""
        found = []
        for _ in range(SUPERSAMPLES):
            first, second = losses[rng.integers(len(losses), size=(2, self.sample_size))].astype(np.int16)
            _, pattern = np.unique(np.concatenate([first, second]), axis=1, return_inverse=True)
            halves = rng.integers(0, 2, (SPLITS_PER_SUPERSAMPLE, self.sample_size))
            mistakes = first.sum(axis=0) + halves.astype(np.float32) @ (second - first).astype(np.float32)
            wins = np.bincount(mistakes.argmin(axis=1), minlength=losses.shape[1])
            found.append((wins / SPLITS_PER_SUPERSAMPLE, pattern))
        return found

    def _conditional(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """I(W;U | supersample) and I(losses of W;U | supersample), one value per supersample, bias corrected."""
        wins, patterns = map(np.stack, zip(*self.supersamples))
        each = np.eye(wins.shape[1])
        return tuple(_mixture_information(wins, alpha, groups) for groups in (each, each[patterns]))


def _mixture_information(wins, alpha, groups) -> np.ndarray:
    """I(group of W;S), (S,), of alpha-mixtures whose best expert has frequencies `wins` (S, R), less the delta-method
    bias. `groups` (R, G) or (S, R, G) says which experts look alike, as rows of an identity matrix.
    """
    posteriors = mix_with_uniform(np.eye(wins.shape[1]), alpha) @ groups  # row r: the posterior when r is best
    mean, square = ((wins[:, None] @ law)[:, 0] for law in (posteriors, posteriors**2))
    variance = np.divide(square - mean**2, mean, where=mean > 0, out=np.zeros_like(mean))
    given = (wins * scipy.special.entr(posteriors).sum(axis=-1)).sum(axis=-1)
    return scipy.special.entr(mean).sum(axis=-1) - given + variance.sum(axis=-1) / (2 * SPLITS_PER_SUPERSAMPLE)


def _jackknife_error(left_out: list[float]) -> float:
    return float(np.sqrt((len(left_out) - 1) * np.var(left_out))) if left_out else np.nan
