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
LARGEST_PRIVACY = 700.0  # e^eps is finite

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
    ghost_only, training_only, _ = _pair_chances(conditionals, losses, weights)
    return float(np.sqrt(2 * _order_information(ghost_only, training_only)))


def samplewise_kl_bound(
    conditionals: ArrayLike, losses: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """max{p : kl(q || (p+q)/2) <= I(L0,L1;U)} - q, q the training risk (Hellstrom & Durisi 2022).

    L0, L1 are W's losses on the two points of one pair, U says which of them trained W. Under the
    joint law the loss on the point U has mean q, with another coin in place of U it has mean
    (p+q)/2, and data processing gives the inequality. Nothing conditions the information, neither
    on the pair nor on the supersample: U is independent of both, so conditioning can only raise it.
    I(L0,L1;U) is the I(D;U) of `loss_difference_bound`, since equal losses tell nothing of U.
    Arguments, assumptions and errors as there. About sqrt 2 times a small gap.

    >>> round(samplewise_kl_bound([[0.6, 0.4], [0.4, 0.6]], losses=[[0, 1], [1, 0]]), 4)
    0.141
    """
    ghost_only, training_only, both = _pair_chances(conditionals, losses, weights)
    nats = _order_information(ghost_only, training_only)
    train_risk = min(1.0, training_only + both)
    rise = largest_rise(train_risk, 1 - train_risk, nats)
    return float(min(2 * rise, 1 - train_risk))


def jensen_shannon_bound(information: ArrayLike, train_risk: ArrayLike) -> FloatOrArray:
    """max{p : JS(q, p) <= I(L;U)} - q, JS = [kl(q || (p+q)/2) + kl(p || (p+q)/2)] / 2.

    L is W's loss on one point, U whether that point trained W; q is the training risk (Dong et al.
    2025). Given U the loss has mean q or p, and the two coins are what data processing leaves. For
    a 0-1 loss they are all there is: I(L;U) = JS(q, p), and the bound *is* the gap. That costs the
    information, which cannot be found without p: the rung restates the gap and predicts nothing.
    Within a relative 1e-12, never below. Elementwise; raises ValueError for information below 0 or
    a training risk outside [0, 1].

    >>> from expertbank import binary_entropy
    >>> q, p = 0.1, 0.3
    >>> nats = binary_entropy((p + q) / 2) - (binary_entropy(p) + binary_entropy(q)) / 2
    >>> round(float(jensen_shannon_bound(nats, q)), 6)  # the gap itself
    0.2
    """
    nats = _nonnegative(information, "information")
    q = as_interval(train_risk, "train_risk", 0, 1)

    def divergence(rise):
        middle = q + rise / 2
        low = binary_divergence(q, 1 - q, middle, 1 - middle, rise / 2)
        return (low + binary_divergence(q + rise, 1 - q - rise, middle, 1 - middle, -rise / 2)) / 2

    # between (p - q)^2 / 2, Pinsker, and (p - q) log 2
    highest = np.minimum(1 - q, np.sqrt(2 * nats) * (1 + ULPS))
    _, rise = bracketed_root(divergence, nats, np.minimum(nats / np.log(2), highest), highest)
    return np.minimum(rise * (1 + MARGIN), highest)[()]


def f_information_bound(
    conditionals: ArrayLike,
    losses: ArrayLike,
    weights: ArrayLike | None = None,
    divergence: str = "chi_square",
) -> float:
    """The gap by an f-information of D and U, in the manner of Wang & Mao (2024).

    D and U as for `loss_difference_bound`. D (-1)^U is 1 with a chance s (1 + d)/2, -1 with s (1 -
    d)/2, so the gap is s d and I_f(D;U) = s [f(1 + d) + f(1 - d)]/2, s <= 1. `divergence` is
    "chi_square", f = (x - 1)^2, I_f = s d^2, the bound sqrt(I_f); "squared_hellinger", f = (sqrt x
    - 1)^2, I_f >= s d^2/4, 2 sqrt(I_f); or "total_variation", f = abs(x - 1)/2, 2 I_f, which is the
    gap itself. Their order: total variation <= chi square <= `loss_difference_bound` <= Hellinger.
    Bounds on the absolute gap. Conditioning on the supersample raises I_f, as U is independent of
    it. Arguments, assumptions and errors as for `loss_difference_bound`; ValueError for another
    divergence.

    >>> table = [[0.6, 0.4], [0.4, 0.6]], [[0, 1], [1, 0]]
    >>> round(f_information_bound(*table), 4), round(loss_difference_bound(*table), 4)
    (0.1414, 0.1419)
    """
    ghost_only, training_only, _ = _pair_chances(conditionals, losses, weights)
    differ = ghost_only + training_only
    lean = min(1.0, abs(ghost_only - training_only) / differ) if differ > 0 else 0.0
    # 2 - sqrt(1 + d) - sqrt(1 - d), without cancellation
    flat = np.sqrt((1 - lean) * (1 + lean))
    curved = 2 * lean**2 / (1 + flat) / (2 + np.sqrt(2 + 2 * flat))
    bounds = {
        "chi_square": lean * np.sqrt(differ),
        "squared_hellinger": 2 * np.sqrt(differ * curved),
        "total_variation": lean * differ,
    }
    if divergence not in bounds:
        raise ValueError(f"divergence is {divergence!r}; allowed are {', '.join(bounds)}")
    return float(bounds[divergence])


def leave_out_bound(
    conditional_information: ArrayLike, sample_size: int, held_out: int
) -> FloatOrArray:
    """sqrt(N (1 + 1/max(m, k)) I(W;V | supersample) / (2 m k)), N = m + k: leave-k-out CMI.

    The supersample has N points; V is the set of k that do not train W, uniform among all. With W
    held, the mean loss of a random k less that of the other m is N/m times what a mean of k draws
    without replacement misses. Serfling (1974) makes that sub-Gaussian with variance proxy (m +
    1)/(4 k N); the same from the side of the m gives the smaller of the two, and Donsker-Varadhan
    the bound, on the absolute gap, for i.i.d. samples and losses in [0, 1]. With k = 1 it is
    leave-one-out; with k = m it is nearly sqrt(I/m), below the sqrt(2I/m) of pairs at the same
    information; with k to infinity I becomes I(S;W) and the bound Xu & Raginsky's. Our derivation
    of the kind of bound of Lu et al. (2026), whose constants we do not claim. Raises ValueError
    for information below 0 or counts below 1.

    >>> round(float(leave_out_bound(0.1, 256, held_out=256)), 4)
    0.0198
    >>> bool(np.isclose(leave_out_bound(0.1, 256, 10**12), xu_raginsky_bound(0.1, 256)))
    True
    """
    nats = _nonnegative(conditional_information, "conditional_information")
    m = as_count(sample_size, "sample_size")
    k = as_count(held_out, "held_out")
    scale = (1 / m + 1 / k) * (1 + 1 / max(m, k)) / 2
    return np.sqrt(scale) * np.sqrt(nats)


def _order_information(ghost_only: float, training_only: float) -> float:
    """I(D;U) in nats: losses that differ tell U through a binary channel, equal ones nothing."""
    differ = ghost_only + training_only
    if differ == 0:
        return 0.0
    return differ * bsc_rate(min(1.0, ghost_only / differ))  # rounding may exceed 1


def _pair_chances(conditionals, losses, weights) -> tuple[float, float, float]:
    """Chances that W, drawn by P(W | training point), errs on the ghost point alone, on the
    training point alone, on both."""
    conditionals = as_gate(conditionals, "conditionals")
    weights = as_weights(weights, len(conditionals))
    losses = np.asarray(as_interval(as_losses(losses), "losses", 0, 1))
    risks = weights @ losses
    chances_right = weights @ (1 - losses)  # 1 - risks, which rounding may take below 0
    on_training = conditionals * losses
    ghost_only = weights @ (conditionals * (1 - losses) * risks).sum(axis=1)
    training_only = weights @ (on_training * chances_right).sum(axis=1)
    both = weights @ (on_training * risks).sum(axis=1)
    return float(ghost_only), float(training_only), float(both)


# --- bounds on the risk of a private gate ---


def private_gate_kl_bound(
    train_risk: ArrayLike, n_experts: int, sample_size: int, epsilon: float, delta: float = 0.05
) -> FloatOrArray:
    """e^eps max{p : kl(train risk || p) <= log(R/delta)/m}, at most 1: the risk of an eps-LDP gate.

    With probability 1 - delta over the sample it holds for every eps-LDP gate at once, however it
    was learned, on a bank of R experts that did not see the sample. An eps-LDP gate has M nu_t <=
    p(t|x) <= e^eps M nu_t with a law nu and M in [e^-eps, 1]. So R(gate) <= e^eps M R(nu) and M
    R_S(nu) <= R_S(gate). Chernoff's bound for each expert and the concavity of the inverse F of kl
    give R(nu) <= F(R_S(nu)) for all nu, and M F(r/M) is largest at M = 1. Same setting as Akretche
    et al. (2024), whose constants we do not claim. Without a limit on eps no factor below (1 +
    e^eps)/2 can do: a gate that memorises which of two experts is right. Elementwise in
    `train_risk`; raises ValueError for a risk outside [0, 1], counts below 1, epsilon below 0 or
    delta outside (0, 1].

    >>> round(float(private_gate_kl_bound(0.05, n_experts=25, sample_size=10_000, epsilon=0.5)), 4)
    0.0957
    """
    risk = as_interval(train_risk, "train_risk", 0, 1)
    factor, nats = _private_terms(n_experts, sample_size, epsilon, delta)
    return np.minimum(1, factor * binary_kl_inverse(risk, nats))[()]


def private_gate_rademacher_bound(
    train_risk: ArrayLike, n_experts: int, sample_size: int, epsilon: float, delta: float = 0.05
) -> FloatOrArray:
    """e^eps [train risk + sqrt(2 log(R)/m) + sqrt(log(1/delta)/(2m))], at most 1.

    As `private_gate_kl_bound`, with the Rademacher complexity of the laws on R experts, which is at
    most sqrt(log(R)/(2m)) (Massart's lemma), and McDiarmid's inequality in place of Chernoff's.

    >>> limits = {"n_experts": 25, "sample_size": 10_000, "epsilon": 0.5}
    >>> round(float(private_gate_rademacher_bound(0.05, **limits)), 4)
    0.1444
    """
    risk = as_interval(train_risk, "train_risk", 0, 1)
    factor, _ = _private_terms(n_experts, sample_size, epsilon, delta)
    complexity = np.sqrt(2 * np.log(n_experts) / sample_size)
    chance = np.sqrt(np.log(1 / delta) / (2 * sample_size))
    return np.minimum(1, factor * (risk + complexity + chance))[()]


def _private_terms(n_experts, sample_size, epsilon, delta) -> tuple[float, float]:
    """e^eps and log(R/delta)/m of checked arguments."""
    n_experts = as_count(n_experts, "n_experts")
    sample_size = as_count(sample_size, "sample_size")
    epsilon = as_number(epsilon, "epsilon", 0, LARGEST_PRIVACY)
    delta = as_number(delta, "delta", ABOVE_0, 1, "a number in (0, 1]")
    return float(np.exp(epsilon)), float(np.log(n_experts / delta) / sample_size)


# --- three kinds of rung ---

BY_COUNTS = "the number of candidates and the sample size"
BY_INFORMATION = "what W tells about the sample"
BY_THE_GAP = "the terms of the gap itself"
# What a rung looks at. The last kind takes the laws inside the gap, P(W | Z) image by image, or the
# chances whose difference it is: such a rung shows what an argument loses, and predicts nothing.
RUNG_KINDS = {
    "union_bound": BY_COUNTS,
    "private_gate_kl_bound": BY_COUNTS,
    "private_gate_rademacher_bound": BY_COUNTS,
    "xu_raginsky_bound_sigma_1": BY_INFORMATION,
    "xu_raginsky_bound": BY_INFORMATION,
    "kearns_saul_bound": BY_INFORMATION,
    "okamoto_bound": BY_INFORMATION,
    "cumulant_bound": BY_INFORMATION,
    "pac_bayes_kl_bound": BY_INFORMATION,
    "individual_sample_bound": BY_INFORMATION,
    "conditional_mi_bound": BY_INFORMATION,
    "evaluated_cmi_bound": BY_INFORMATION,
    "leave_out_bound": BY_INFORMATION,
    "disintegrated_bound": BY_THE_GAP,
    "total_variation_bound": BY_THE_GAP,
    "disintegrated_kl_bound": BY_THE_GAP,
    "loss_difference_bound": BY_THE_GAP,
    "samplewise_kl_bound": BY_THE_GAP,
    "jensen_shannon_bound": BY_THE_GAP,
    "f_information_bound": BY_THE_GAP,
}


def rung_kind(name: str) -> str:
    """Which of the three kinds a rung of `BoundLadder.values` or `LadderExperiment.further` is of.

    Raises ValueError for an unknown name.

    >>> rung_kind("f_information_bound_chi_square") == BY_THE_GAP
    True
    """
    known = [rung for rung in RUNG_KINDS if name.startswith(rung)]
    if not known:
        raise ValueError(f"name is {name!r}; allowed are {', '.join(RUNG_KINDS)}")
    return RUNG_KINDS[known[0]]


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
