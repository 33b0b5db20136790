"""Bounds on the expected generalisation gap of a learner that selects from a bank.

Samples are i.i.d., losses lie in [0, 1], information is in nats. By what they look at: the number
of candidates; I(S;W), with or without the candidates' risks; what one sample point tells about W;
what W tells about which half of a supersample it was trained on. The bounds by one point or one
pair also assume a learner that ignores the order of its sample. `expertbank.ladder` evaluates all
of them on one bank.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import (
    ABOVE_0,
    FloatOrArray,
    as_count,
    as_distribution,
    as_gate,
    as_interval,
    as_losses,
    as_number,
    as_risks,
    as_weights,
)
from expertbank.channels import bsc_rate
from expertbank.information import (
    MARGIN,
    TINY,
    ULPS,
    binary_divergence,
    bracketed_root,
    divergences_from_mixture,
    largest_drop,
    largest_rise,
    mutual_information,
)

LARGEST_SIGMA = 1e150  # times the root of any number of nats it is finite

# --- bounds by the number of candidates and by I(S;W) ---


def union_bound(n_candidates: int, sample_size: int) -> float:
    """sqrt(log R / (2m)): P2 (22), the bound in expectation for any selection among R candidates.

    The expected maximum of R variables that are 1/(2 sqrt m)-sub-Gaussian (Massart 2000). Assumes
    i.i.d. samples. Raises ValueError for counts below 1.

    >>> round(union_bound(25, 256), 4)
    0.0793
    """
    n_candidates = as_count(n_candidates, "n_candidates")
    sample_size = as_count(sample_size, "sample_size")
    return float(np.sqrt(np.log(n_candidates) / (2 * sample_size)))


def xu_raginsky_bound(information: ArrayLike, sample_size: int, sigma: float = 0.5) -> FloatOrArray:
    """sigma sqrt(2 I(S;W) / m): P1 Theorem 1 and P2 (21) with sigma = 1 (Xu & Raginsky 2017).

    `information` is in nats, a number or an array. A loss in [0, 1] is sigma-sub-Gaussian with
    sigma = 1/2 (Hoeffding's lemma), which is the default here. Raises ValueError for information
    below 0, sigma not above 0 or a sample size below 1.

    A selection that leaks all of log R nats gets the union bound, one that leaks less a lower one:

    >>> information = np.array([np.log(25), 0.1, 0.0])
    >>> xu_raginsky_bound(information, 256).round(4).tolist()
    [0.0793, 0.014, 0.0]
    """
    nats = _nonnegative(information, "information")
    sigma = as_number(sigma, "sigma", ABOVE_0, LARGEST_SIGMA, "a number > 0 and up to 1e150")
    return sigma * np.sqrt(2 / as_count(sample_size, "sample_size")) * np.sqrt(nats)


def theorem2_bound(
    distortion: ArrayLike,
    information: ArrayLike,
    sample_size: int,
    excess: ArrayLike = 0.0,
    sigma: float = 0.5,
) -> FloatOrArray:
    """D(R_g) + delta_m + sigma sqrt(2 I(S;W)/m): P1 Theorem 2, (10).

    `excess` is the delta_m of (8), how far the learner's training risk lies above `distortion`, in
    units of loss; information is in nats. Numbers or arrays of one shape. Raises ValueError for a
    term below 0 and as `xu_raginsky_bound` does.

    >>> round(float(theorem2_bound(distortion=0.05, information=0.1, sample_size=256)), 4)
    0.064
    """
    best = _nonnegative(distortion, "distortion") + _nonnegative(excess, "excess")
    return best + xu_raginsky_bound(information, sample_size, sigma)


def kearns_saul_bound(
    information: ArrayLike, sample_size: int, risks: ArrayLike, marginal: ArrayLike
) -> FloatOrArray:
    """sqrt(2 E[sigma_W^2] I(S;W) / m), sigma_p^2 = (1 - 2p) / (2 log((1 - p)/p)).

    This is the least variance proxy of a Bernoulli(p) loss on both sides of its mean (Kearns & Saul
    1998): 0 at p = 0 and 1, never above Hoeffding's 1/4, which it is at p = 1/2 only. For i.i.d.
    samples and losses in [0, 1] the bound holds for the absolute gap. Arguments, and why the
    Bernoulli is the worst case, as for `cumulant_bound`; `information` may be an array. Raises
    ValueError for information below 0, risks outside [0, 1] or a marginal that does not sum to 1.

    >>> round(float(kearns_saul_bound(0.1, 256, risks=[0.01, 0.02], marginal=[0.5, 0.5])), 4)
    0.0095
    """
    return _variance_proxy_bound(_two_sided_proxy, information, sample_size, risks, marginal)


def okamoto_bound(
    information: ArrayLike, sample_size: int, risks: ArrayLike, marginal: ArrayLike
) -> FloatOrArray:
    """sqrt(2 E[v_W] I(S;W) / m) with v_p = p (1 - p), the variance, for risks up to 1/2.

    A positive gap means training risks below the mean, and on that side a Bernoulli(p) loss with
    p <= 1/2 is as thin as its variance says (Okamoto 1958): tilted down, its mean moves away from
    1/2, and its variance falls. Above 1/2 the two-sided proxy of `kearns_saul_bound` is the least
    for this side too, and stands in. So the bound is for the gap, not for its absolute value.
    Assumptions, arguments and errors as for `kearns_saul_bound`, which is never smaller.

    >>> round(float(okamoto_bound(0.1, 256, risks=[0.01, 0.02], marginal=[0.5, 0.5])), 4)
    0.0034
    """
    return _variance_proxy_bound(_lower_tail_proxy, information, sample_size, risks, marginal)


def cumulant_bound(
    information: float, sample_size: int, risks: ArrayLike, marginal: ArrayLike
) -> float:
    """min over s > 0 of [I(S;W)/m + E_W psi_W(s)] / s.

    Here psi_w is the cumulant function of p_w - Bernoulli(p_w). This is Xu & Raginsky's argument
    without Hoeffding's lemma: `risks` (R,) are the candidates' population risks p_w and `marginal`
    (R,) the law of W. For losses in [0, 1] the Bernoulli is the worst case of its mean. Within a
    relative 1e-12 of the minimum, never below it, and never above `xu_raginsky_bound`. Raises
    ValueError for information below 0, risks outside [0, 1] or a marginal that does not sum to 1.

    Good experts vary little, and the bound uses it:

    >>> round(cumulant_bound(0.1, 256, risks=[0.01, 0.02], marginal=[0.5, 0.5]), 4)
    0.0033
    >>> round(float(xu_raginsky_bound(0.1, 256)), 4)
    0.014
    """
    information = _nonnegative(information, "information")
    rate = information / as_count(sample_size, "sample_size")
    p = as_interval(as_risks(risks), "risks", 0, 1)
    not_p = 1 - p
    marginal = as_distribution(marginal, "marginal")

    # tilted by s each mean falls by a `drop` and pays kl nats for it, and psi is s drop - kl
    def tilted(s):
        kept = np.exp(-s)
        total = np.maximum(not_p + p * kept, TINY)
        drop = p * not_p * -np.expm1(-s) / total
        paid = binary_divergence(p * kept / total, not_p / total, p, not_p, drop)
        return marginal @ drop, marginal @ paid

    # a variance is at most 1/4; from s = 1000 on nothing changes
    lowest = np.sqrt(8 * rate)
    _, s = bracketed_root(lambda s: tilted(s)[1], rate, lowest, max(lowest, 1000.0))
    # the minimum is where all of the rate is paid; elsewhere it is no minimum, but still a bound
    drop, paid = tilted(s)
    bound = drop + max(0.0, rate - paid) / max(s, TINY)
    all_that_vary = marginal @ np.where(not_p > 0, p, 0)  # what they lose at most: s = inf
    hoeffding = xu_raginsky_bound(information, sample_size)
    return float(min(bound * (1 + MARGIN), min(hoeffding, all_that_vary) * (1 + ULPS)))


def pac_bayes_kl_bound(information: float, sample_size: int, train_risk: float) -> float:
    """max{p : kl(train risk || p) <= I(S;W)/m} - train risk: PAC-Bayes-kl in expectation.

    The prior is the marginal of W, so E KL(posterior || prior) is I(S;W), and with that prior joint
    convexity of kl gives kl(E R_S(W) || E R(W)) <= I(S;W)/m, without the logarithm of the
    high-probability form (Maurer 2004). Within a relative 1e-12, never below. Raises ValueError for
    information below 0 or a training risk outside [0, 1].

    >>> round(pac_bayes_kl_bound(0.1, 256, train_risk=0.01), 4)
    0.003
    """
    information = _nonnegative(information, "information")
    rate = information / as_count(sample_size, "sample_size")
    train_risk = as_interval(train_risk, "train_risk", 0, 1)
    return float(largest_rise(train_risk, 1 - train_risk, rate))


# --- bounds by what one sample point tells about W ---


def individual_sample_bound(conditionals: ArrayLike, weights: ArrayLike | None = None) -> float:
    """sqrt(I(W;Z) / 2) with Z one sample point: Bu, Zou & Veeravalli (2020).

    For i.i.d. samples and a learner that ignores their order, so that every point tells the same
    about W. `conditionals` (U, R) are P(W | Z = u), `weights` (U,) the
    law of Z, default uniform. Raises ValueError for rows that do not sum to 1 or bad weights.

    >>> round(individual_sample_bound([[0.6, 0.4], [0.4, 0.6]]), 4)
    0.1003
    """
    return float(np.sqrt(mutual_information(conditionals, weights) / 2))


def disintegrated_bound(conditionals: ArrayLike, weights: ArrayLike | None = None) -> float:
    """E_Z sqrt(KL(P(W|Z) || P(W)) / 2): the individual-sample bound with the root inside.

    Source: Rodriguez-Galvez et al. (2021). Arguments, assumptions and errors as for
    `individual_sample_bound`, which is never smaller.

    >>> conditionals = [[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]]
    >>> round(disintegrated_bound(conditionals), 4), round(individual_sample_bound(conditionals), 4)
    (0.1923, 0.2082)
    """
    _, weights, divergences = _divergences(conditionals, weights)
    return float(weights @ np.sqrt(divergences / 2))


def disintegrated_kl_bound(
    conditionals: ArrayLike, losses: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """E_Z [a_Z - min{b : kl(b || a_Z) <= KL(P(W|Z) || P(W))}], a_z = E_{P(W)} loss(W, z).

    `disintegrated_bound` with the exact cumulant function of a 0-1 loss in place of Hoeffding's,
    under the same assumptions, for the gap and not for its absolute value. `conditionals` (U, R)
    are P(W | Z = u), `losses` (U, R), `weights` (U,) the law of Z. Raises ValueError for rows that
    do not sum to 1, losses that are no table or bad weights.

    >>> round(disintegrated_kl_bound([[0.6, 0.4], [0.4, 0.6]], losses=[[0, 1], [1, 0]]), 4)
    0.1
    """
    marginal, weights, divergences = _divergences(conditionals, weights)
    mistakes = np.asarray(as_interval(as_losses(losses), "losses", 0, 1))
    wrong = mistakes @ marginal
    right = (1 - mistakes) @ marginal  # 0 where W must err, which 1 - wrong need not be
    drops = largest_drop(wrong / (wrong + right), right / (wrong + right), divergences)
    return float(weights @ drops)


def total_variation_bound(conditionals: ArrayLike, weights: ArrayLike | None = None) -> float:
    """E_Z TV(P(W|Z), P(W)): a loss in [0, 1] cannot move by more (Rodriguez-Galvez et al. 2021).

    Arguments, assumptions and errors as for `individual_sample_bound`.

    >>> round(total_variation_bound([[0.6, 0.4], [0.4, 0.6]]), 4)
    0.1
    """
    conditionals = as_gate(conditionals, "conditionals")
    marginal, weights, _ = _divergences(conditionals, weights)
    return float(weights @ np.abs(conditionals - marginal).sum(axis=1)) / 2


# --- bounds by what W tells about the halves of a supersample ---


def conditional_mi_bound(conditional_information: ArrayLike, sample_size: int) -> FloatOrArray:
    """sqrt(2 I(W;U|supersample) / m): Steinke & Zakynthinou (2020).

    U says which half of each of the m pairs trained W; the information is in nats, a number or an
    array, and at most m log 2. Raises ValueError for information below 0.

    >>> round(float(conditional_mi_bound(0.1, 256)), 4)
    0.028
    """
    nats = _nonnegative(conditional_information, "conditional_information")
    return np.sqrt(2 / as_count(sample_size, "sample_size")) * np.sqrt(nats)


def evaluated_cmi_bound(evaluated_information: ArrayLike, sample_size: int) -> FloatOrArray:
    """sqrt(2 I(losses of W on the supersample; U | supersample) / m): e-CMI of the same paper.

    The evaluated form forgets which of several candidates W is when they lose on the same points.
    Otherwise as `conditional_mi_bound`.

    >>> round(float(evaluated_cmi_bound(0.05, 256)), 4)
    0.0198
    """
    return conditional_mi_bound(evaluated_information, sample_size)


def loss_difference_bound(
    conditionals: ArrayLike, losses: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """sqrt(2 I(D;U)), D the difference of W's 0-1 losses within a pair: Wang & Mao (2023).

    With p = P(wrong on the ghost point only) and q = P(wrong on the training point only), I(D;U) is
    (p + q)(log 2 - h(p/(p + q))): given that the two losses differ, their order is a binary
    channel. `conditionals` (U, R) are P(W | Z = u), `losses` (U, R) 0-1, `weights` (U,) the law of
    Z. Raises ValueError as `disintegrated_kl_bound` does.

    >>> round(loss_difference_bound([[0.6, 0.4], [0.4, 0.6]], losses=[[0, 1], [1, 0]]), 4)
    0.1419
    """
    conditionals = as_gate(conditionals, "conditionals")
    weights = as_weights(weights, len(conditionals))
    losses = np.asarray(as_interval(as_losses(losses), "losses", 0, 1))
    risks = weights @ losses
    ghost_only = float(weights @ (conditionals * (1 - losses) * risks).sum(axis=1))
    chances_right = weights @ (1 - losses)  # 1 - risks, which rounding may take below 0
    training_only = float(weights @ (conditionals * losses * chances_right).sum(axis=1))
    differ = ghost_only + training_only
    if differ == 0:
        return 0.0
    share = min(1.0, ghost_only / differ)  # rounding may exceed 1
    return float(np.sqrt(2 * differ * bsc_rate(share)))


# --- variance proxies of a Bernoulli loss ---


def _two_sided_proxy(risks: np.ndarray) -> np.ndarray:
    """The least v with log E exp(s (loss - p)) <= v s^2 / 2 for all real s: Kearns & Saul."""
    rarer = np.minimum(risks, 1 - risks)
    imbalance = 1 - 2 * rarer
    log_odds = np.log1p(imbalance / np.maximum(rarer, TINY))
    proxies = imbalance / np.maximum(2 * log_odds, TINY)
    return np.select([rarer == 0, imbalance > 0], [0.0, proxies], 0.25)


def _lower_tail_proxy(risks: np.ndarray) -> np.ndarray:
    """The same for s <= 0 alone."""
    return np.where(risks <= 0.5, risks * (1 - risks), _two_sided_proxy(risks))


def _variance_proxy_bound(proxy_of, information, sample_size, risks, marginal) -> FloatOrArray:
    """sqrt(2 E[proxy of W] I(S;W) / m), from min over s of [I/m + E[proxy] s^2 / 2] / s."""
    nats = _nonnegative(information, "information")
    risks = as_interval(as_risks(risks), "risks", 0, 1)
    proxy = as_distribution(marginal, "marginal") @ proxy_of(risks)
    scale = np.sqrt(2 * proxy / as_count(sample_size, "sample_size"))
    # nobody whose loss varies not at all overfits, whatever is known of the sample
    return scale * np.sqrt(nats) if scale > 0 else np.zeros_like(nats)[()]


# --- the inverse of the binary divergence ---


def binary_kl_inverse(q: ArrayLike, budget: ArrayLike) -> FloatOrArray:
    """The largest p >= q with kl(q || p) <= budget nats, elementwise for q in [0, 1].

    kl(q || p) is the divergence of Bernoulli(q) from Bernoulli(p). An upper bound on a mean: within
    a relative 1e-12, never below. Raises ValueError for q outside [0, 1] or a budget below 0.

    With q = 0 the answer is 1 - exp(-budget):

    >>> round(float(binary_kl_inverse(0.0, np.log(2))), 4)
    0.5
    """
    start = as_interval(q, "q", 0, 1)
    rise = largest_rise(start, 1 - start, _nonnegative(budget, "budget"))
    return np.where(rise > 0, np.minimum(np.nextafter(start + rise, 2), 1), start)[()]


def _divergences(conditionals, weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P(W) (R,) under the checked weights (U,), and KL(P(W|Z = u) || P(W)), (U,)."""
    conditionals = as_gate(conditionals, "conditionals")
    weights = as_weights(weights, len(conditionals))
    marginal, divergences = divergences_from_mixture(conditionals, weights)
    return marginal, weights, divergences


def _nonnegative(value: ArrayLike, name: str) -> FloatOrArray:
    return as_interval(value, name, 0, np.inf, allowed="a number >= 0")
