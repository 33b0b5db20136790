"""Bounds on the expected generalisation gap of a learner that selects from a bank. Losses in [0,
1], nats.

From loose to tight in what they look at: the number of candidates; I(S;W); what one sample point
tells about W; what W tells about which half of a supersample it was trained on. `bound_ladder`
evaluates all of them on one bank.
"""

from __future__ import annotations

import numpy as np
import scipy

from expertbank._checks import (
    as_count,
    as_distribution,
    as_gate,
    as_interval,
    as_losses,
    as_risks,
    as_weights,
)
from expertbank.information import binary_entropy, mutual_information


def union_bound(n_candidates: int, sample_size: int) -> float:
    """sqrt(log R / (2m)): P2 (22), the bound in expectation for any selection among R candidates.

    The expected maximum of R variables that are 1/(2 sqrt m)-sub-Gaussian (Massart 2000). Assumes
    i.i.d. samples.
    """
    n_candidates = as_count(n_candidates, "n_candidates")
    return float(np.sqrt(np.log(n_candidates) / (2 * as_count(sample_size, "sample_size"))))


def xu_raginsky_bound(information, sample_size: int, sigma: float = 0.5):
    """sigma sqrt(2 I(S;W) / m): P1 Theorem 1 and P2 (21) with sigma = 1 (Xu & Raginsky 2017).

    A loss in [0, 1] is sigma-sub-Gaussian with sigma = 1/2 (Hoeffding's lemma), which is the
    default here.
    """
    information = _nonnegative(information, "information")
    return _positive(sigma, "sigma") * np.sqrt(
        2 * information / as_count(sample_size, "sample_size")
    )


def theorem2_bound(distortion, information, sample_size: int, excess=0.0, sigma: float = 0.5):
    """D(R_g) + delta_m + sigma sqrt(2 I(S;W)/m): P1 Theorem 2, (10), with `excess` the delta_m of
    (8)."""
    best = _nonnegative(distortion, "distortion") + _nonnegative(excess, "excess")
    return best + xu_raginsky_bound(information, sample_size, sigma)


def cumulant_bound(information, sample_size: int, risks, marginal) -> float:
    """min over s > 0 of [I(S;W)/m + E_W psi_W(s)] / s, psi_w the cumulant function of p_w -
    Bernoulli(p_w).

    Xu & Raginsky's argument without Hoeffding's lemma: `risks` (R,) are the candidates' population
    risks p_w and `marginal` (R,) the law of W. For losses in [0, 1] the Bernoulli is the worst case
    of its mean.
    """
    rate = _nonnegative(information, "information") / as_count(sample_size, "sample_size")
    risks, marginal = as_risks(risks), as_distribution(marginal, "marginal")
    # a loss that never varies has psi = 0; as p = 1 it would be inf - inf
    risks = np.where(risks == 1, 0.0, risks)

    def value(log_s):
        s = np.exp(log_s)
        return (rate + marginal @ (s * risks + np.log1p(risks * np.expm1(-s)))) / s

    if rate == 0:
        return 0.0
    best = scipy.optimize.minimize_scalar(
        value, bounds=(-12, 12), method="bounded", options={"xatol": 1e-10}
    )
    return float(best.fun)


def pac_bayes_kl_bound(information, sample_size: int, train_risk) -> float:
    """max{p : kl(train risk || p) <= I(S;W)/m} - train risk: PAC-Bayes-kl in expectation, prior =
    marginal of W.

    E KL(posterior || marginal) is I(S;W), and with that prior joint convexity of kl gives kl(E
    R_S(W) || E R(W)) <= I(S;W)/m, without the logarithm of the high-probability form (Maurer 2004).
    """
    rate = _nonnegative(information, "information") / as_count(sample_size, "sample_size")
    train_risk = as_interval(train_risk, "train_risk", 0, 1)
    return float(binary_kl_inverse(train_risk, rate) - train_risk)


def individual_sample_bound(conditionals, weights=None) -> float:
    """sqrt(I(W;Z) / 2) with Z one sample point: Bu, Zou & Veeravalli (2020), for samples that are
    exchangeable.

    `conditionals` (U, R) are P(W | Z = u), `weights` (U,) the law of Z.
    """
    return float(np.sqrt(mutual_information(conditionals, weights) / 2))


def disintegrated_bound(conditionals, weights=None) -> float:
    """E_Z sqrt(KL(P(W|Z) || P(W)) / 2): the individual-sample bound with the root inside (Negrea et
    al. 2019)."""
    conditionals, weights, divergences = _divergences(conditionals, weights)
    return float(weights @ np.sqrt(divergences / 2))


def disintegrated_kl_bound(conditionals, losses, weights=None) -> float:
    """E_Z [a_Z - min{b : kl(b || a_Z) <= KL(P(W|Z) || P(W))}], a_z = E_{P(W)} loss(W, z).

    The same with the exact cumulant function of a 0-1 loss in place of Hoeffding's. `losses` (U,
    R).
    """
    conditionals, weights, divergences = _divergences(conditionals, weights)
    means = as_losses(losses) @ (weights @ conditionals)
    # 1 less rounding would let the mean fall by budget / 37
    means = np.where(means > 1 - 1e-12, 1.0, means)
    return float(weights @ (means - _lowest_mean(means, divergences)))


def total_variation_bound(conditionals, weights=None) -> float:
    """E_Z TV(P(W|Z), P(W)): a loss in [0, 1] cannot move by more (Rodriguez-Galvez et al. 2021)."""
    conditionals = as_gate(conditionals, "conditionals")
    weights = as_weights(weights, len(conditionals))
    return float(weights @ np.abs(conditionals - weights @ conditionals).sum(axis=1)) / 2


def conditional_mi_bound(conditional_information, sample_size: int):
    """sqrt(2 I(W;U|supersample) / m): Steinke & Zakynthinou (2020). U says which half of each pair
    trained W."""
    information = _nonnegative(conditional_information, "conditional_information")
    return np.sqrt(2 * information / as_count(sample_size, "sample_size"))


def evaluated_cmi_bound(evaluated_information, sample_size: int):
    """sqrt(2 I(losses of W on the supersample; U | supersample) / m): the evaluated form (e-CMI) of
    the same paper.

    It forgets which of several candidates W is when they lose on the same points.
    """
    return conditional_mi_bound(evaluated_information, sample_size)


def loss_difference_bound(conditionals, losses, weights=None) -> float:
    """sqrt(2 I(D;U)), D the difference of W's 0-1 losses within a pair: Wang & Mao (2023),
    loss-difference MI.

    With p = P(wrong on the ghost point only) and q = P(wrong on the training point only), I(D;U) is
    (p + q)(log 2 - h(p/(p + q))): given that the two losses differ, their order is a binary
    channel.
    """
    conditionals = as_gate(conditionals, "conditionals")
    weights, losses = as_weights(weights, len(conditionals)), as_losses(losses).astype(float)
    risks = weights @ losses
    ghost = float(weights @ (conditionals * (1 - losses) * risks).sum(axis=1))
    trained = float(weights @ (conditionals * losses * (1 - risks)).sum(axis=1))
    differ = ghost + trained
    if differ == 0:
        return 0.0
    return float(
        np.sqrt(2 * differ * max(0.0, np.log(2) - binary_entropy(min(1.0, ghost / differ))))
    )


def binary_kl_inverse(q, budget):
    """The largest p >= q with kl(q || p) <= budget nats, elementwise for q in [0, 1]."""
    q, budget = as_interval(q, "q", 0, 1), _nonnegative(budget, "budget")
    from scipy.optimize import elementwise  # loaded where it is used

    roots = elementwise.find_root(
        lambda p, q, c: _binary_kl(q, p) - c, (q, np.nextafter(1, 0)), args=(q, budget)
    )
    return np.where(roots.success, roots.x, np.where(budget > 0, 1.0, q))[()]


def _lowest_mean(means, budgets):
    """The least b <= mean with kl(b || mean) <= budget, elementwise."""
    from scipy.optimize import elementwise  # loaded where it is used

    # Pinsker's inequality brings the lower end of the bracket close; with 1e-12 that leaves 9 steps
    # of 23
    least = np.maximum(0.0, means - np.sqrt(budgets / 2) - 1e-9)
    roots = elementwise.find_root(
        lambda b, a, c: _binary_kl(b, a) - c,
        (least, means),
        args=(means, budgets),
        tolerances={"xatol": 1e-12},
    )
    return np.where(roots.success, roots.x, np.where(budgets > 0, 0.0, means))


def _binary_kl(q, p):
    return scipy.special.rel_entr(q, p) + scipy.special.rel_entr(1 - q, 1 - p)


def _divergences(conditionals, weights):
    conditionals = as_gate(conditionals, "conditionals")
    weights = as_weights(weights, len(conditionals))
    return (
        conditionals,
        weights,
        scipy.special.rel_entr(conditionals, weights @ conditionals).sum(axis=1),
    )


def _nonnegative(value, name: str):
    return as_interval(value, name, 0, np.inf, allowed="a number >= 0")


def _positive(value, name: str):
    if not np.all(_nonnegative(value, name) > 0):
        raise ValueError(f"{name} is {value}; allowed is a number > 0")
    return value
