"""Cases that others have published, with their numbers, against the library's public functions.

Every expectation is a printed number or a closed form, worked out here with the standard library
and NumPy. Bits where the source gives bits, nats elsewhere.
"""

from __future__ import annotations

from itertools import product
from math import exp, log, log2, sqrt

import numpy as np
import pytest

from expertbank.bounds import individual_sample_bound, loss_difference_bound, xu_raginsky_bound
from expertbank.channels import (
    bsc_distortion_rate,
    bsc_rate,
    erasure_capacity,
    erasure_channel,
    randomised_response,
    randomised_response_rate,
    symmetric_dispersion,
    uniform_rate,
)
from expertbank.information import kl_divergence, mutual_information
from expertbank.links import index_bits, nearest_words, reed_muller_words, words_channel
from expertbank.privacy import most_informative_mechanism
from expertbank.rate_distortion import critical_lambda, distortion_at_rate, rate_distortion

LOG2 = log(2)
NEVER = 1e6  # stands for an infinite loss: exp(-1e6) is 0


def h(p: float) -> float:
    """Binary entropy in nats."""
    return sum(-q * log(q) for q in (p, 1 - p) if q > 0)


def hamming(k: int) -> np.ndarray:
    return 1 - np.eye(k)


# --- capacities and a curve that dit's own tests check ---


# dit, tests/rate_distortion/test_curves.py: test_simple_rd_1 and _5, slopes 0 to 10 in ten steps,
# of which slope 0 is the single letter. R(D) = 1 - h(D) bits; by its derivative D = 1/(1 + e^slope)
@pytest.mark.parametrize("slope", np.linspace(0, 10, 10)[1:])
def test_dit_uniform_bit_at_nine_slopes(slope):
    point = rate_distortion(hamming(2), 1 / slope)
    distortion = 1 / (1 + exp(slope))
    bits = 1 + distortion * log2(distortion) + (1 - distortion) * log2(1 - distortion)
    assert point.distortion == pytest.approx(distortion, abs=1e-9)
    assert point.rate / LOG2 == pytest.approx(bits, abs=1e-8)
    assert bsc_distortion_rate(bits * LOG2) == pytest.approx(distortion, abs=1e-9)


# dit, tests/algorithms/test_channelcapacity.py: test_channel_capacity_joint1 and _joint2. A Z
# channel whose letter 0 is received as 0 or 1 equally often: log2(5/4) bits at the law (2/5, 3/5)
def test_dit_z_channel():
    channel = np.array([[0.5, 0.5], [1.0, 0.0]])
    law = np.array([2 / 5, 3 / 5])
    # dit prints .32192808, which is what its iteration stops at
    assert mutual_information(channel, law) / LOG2 == pytest.approx(0.32192809, abs=6e-9)
    assert mutual_information(channel, law) / LOG2 == pytest.approx(log2(5 / 4), abs=1e-12)
    # Kuhn and Tucker: no law does better, because both letters say equally much
    for row in channel:
        assert kl_divergence(row, law @ channel) / LOG2 == pytest.approx(log2(5 / 4), abs=1e-12)


# dit, the same file: test_channel_capacity_no_rvnames (erased .3) and _rvnames (.01)
@pytest.mark.parametrize(("erased", "bits"), [(0.3, 0.7), (0.01, 0.99)])
def test_dit_binary_erasure_channel(erased, bits):
    assert erasure_capacity(2, erased) / LOG2 == pytest.approx(bits, abs=1e-12)
    carried = mutual_information(erasure_channel(2, erased), [0.5, 0.5])
    assert carried / LOG2 == pytest.approx(bits, abs=1e-12)


# --- Cover & Thomas, Elements of Information Theory, second edition (2006), chapter 10 ---


# Theorem 10.3.1: a Bernoulli(p) source under Hamming distortion, R(D) = h(p) - h(D) for D <= p
@pytest.mark.parametrize(("p", "distortion"), [(0.5, 0.1), (0.3, 0.1), (0.1, 0.02), (0.2, 0.2)])
def test_cover_thomas_theorem_10_3_1(p, distortion):
    rate = h(p) - h(distortion)
    found = distortion_at_rate(hamming(2), rate, weights=[1 - p, p])
    assert found == pytest.approx(distortion, abs=1e-8)


# Problem 10.2: one of the two errors costs 1, the other is forbidden. A Z channel is all that is
# left, so R(D) = h(1/2 - D) - h(2D)/2
@pytest.mark.parametrize("distortion", [0.05, 0.125, 0.25, 0.4])
def test_cover_thomas_problem_10_2(distortion):
    losses = np.array([[0.0, NEVER], [1.0, 0.0]])
    rate = h(0.5 - distortion) - h(2 * distortion) / 2
    assert distortion_at_rate(losses, rate) == pytest.approx(distortion, abs=1e-8)


# Problem 10.5: a uniform letter among m, R(D) = log m - h(D) - D log(m - 1)
@pytest.mark.parametrize("m", [3, 5, 25])
@pytest.mark.parametrize("distortion", [0.05, 0.3, 0.6])
def test_cover_thomas_problem_10_5(m, distortion):
    rate = log(m) - h(distortion) - distortion * log(m - 1)
    assert uniform_rate(distortion, m) == pytest.approx(rate, abs=1e-12)
    assert distortion_at_rate(hamming(m), rate) == pytest.approx(distortion, abs=1e-8)


# Problem 10.7: an error is forbidden and an erasure costs 1; a fair bit needs R(D) = 1 - D bits, so
# D = 1 - R: one straight line, of slope -1/log 2 per nat
@pytest.mark.parametrize("bits", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_cover_thomas_problem_10_7(bits):
    losses = np.array([[0.0, NEVER, 1.0], [NEVER, 0.0, 1.0]])
    assert distortion_at_rate(losses, bits * LOG2) == pytest.approx(1 - bits, abs=1e-8)
    assert critical_lambda(losses) == pytest.approx(1 / LOG2, rel=1e-9)


# --- continuous sources, on a grid ---


# Shannon (1959); Cover & Thomas, Theorem 10.3.2: a standard normal under squared error needs
# (1/2) log(1/D) nats, so the price of a nat is 2D. Sums over an even grid are exact to 1e-7 here
@pytest.mark.parametrize(("distortion", "nats"), [(0.5, 0.34657), (0.2, 0.80472)])
def test_gaussian_source_under_squared_error(distortion, nats):
    grid = np.linspace(-6, 6, 81)
    losses = (grid[:, None] - grid) ** 2
    point = rate_distortion(losses, 2 * distortion, weights=np.exp(-(grid**2) / 2))
    assert point.distortion == pytest.approx(distortion, abs=1e-6)
    assert point.rate == pytest.approx(nats, abs=1e-5)


# Berger, Rate Distortion Theory (1971), chapter 4: a Laplace source, E|X| = 1, under absolute error
# needs log(1/D) nats, and the price of a nat is D. On a lattice the same argument is exact:
# Shannon's lower bound H(X) - H(N) is met, with X and N two-sided geometric
@pytest.mark.parametrize(("distortion", "nats"), [(0.5, 0.6931), (0.25, 1.3863)])
def test_laplace_source_under_absolute_error(distortion, nats):
    spacing = distortion / 4
    half = round(12 / spacing)
    grid = spacing * np.arange(-half, half + 1)
    losses = np.abs(grid[:, None] - grid)
    point = rate_distortion(losses, distortion, weights=np.exp(-np.abs(grid)))
    source = two_sided_geometric(exp(-spacing))
    noise = two_sided_geometric(exp(-spacing / distortion))
    assert point.rate == pytest.approx(source[0] - noise[0], abs=1e-4)
    assert point.distortion == pytest.approx(spacing * noise[1], abs=1e-5)
    # the lattice differs from the line by about (spacing / distortion)^2 / 24
    assert point.rate == pytest.approx(nats, abs=5e-3)
    assert point.distortion == pytest.approx(distortion, rel=0.02)


def two_sided_geometric(ratio: float) -> tuple[float, float]:
    """Entropy in nats and mean absolute value of the law proportional to ratio^|k|."""
    mean = 2 * ratio / (1 - ratio**2)
    entropy = log((1 + ratio) / (1 - ratio)) - mean * log(ratio)
    return entropy, mean


# --- local privacy: Kairouz, Oh & Viswanath (2014), of a uniform index among k ---


# The binary mechanism tells by randomised response in which half the index lies. Two letters leave
# nothing else; of six it is optimal at epsilon = .5 still
@pytest.mark.parametrize(
    ("k", "epsilon", "nats"),
    [(2, 0.5, 0.030300), (2, 1.0, 0.110944), (2, 2.0, 0.327813), (6, 0.5, 0.030300)],
)
def test_binary_mechanism(k, epsilon, nats):
    assert LOG2 - h(1 / (1 + exp(epsilon))) == pytest.approx(nats, abs=5e-7)
    uniform = np.full(k, 1 / k)
    best = most_informative_mechanism(uniform, epsilon)
    assert mutual_information(best, uniform) == pytest.approx(nats, abs=5e-7)
    assert bsc_rate(1 / (1 + exp(epsilon))) == pytest.approx(nats, abs=5e-7)


# Randomised response is optimal from some epsilon on
def test_randomised_response_at_a_large_epsilon():
    k, epsilon, nats = 6, 8.0, 1.776688
    uniform = np.full(k, 1 / k)
    assert randomised_response_rate(k, epsilon) == pytest.approx(nats, abs=5e-7)
    for channel in (
        randomised_response(k, epsilon),
        most_informative_mechanism(uniform, epsilon),
    ):
        assert mutual_information(channel, uniform) == pytest.approx(nats, abs=5e-7)


# In between lies subset selection (Ye & Barg 2018; Wang et al. 2016): a random set of d letters,
# which e^epsilon times more often holds the index. The programme has to find it and its d
@pytest.mark.parametrize(
    ("k", "epsilon", "nats"), [(6, 1.0, 0.123284), (8, 2.0, 0.468011), (10, 0.5, 0.031102)]
)
def test_subset_selection(k, epsilon, nats):
    by_size = []
    for d in range(1, k):
        total = d * exp(epsilon) + k - d
        by_size.append(log(k / total) + epsilon * d * exp(epsilon) / total)
    assert max(by_size) == pytest.approx(nats, abs=5e-7)
    uniform = np.full(k, 1 / k)
    best = most_informative_mechanism(uniform, epsilon)
    assert mutual_information(best, uniform) == pytest.approx(nats, abs=5e-7)


# --- short words ---


# Polyanskiy, Poor & Verdu (2010): their BSC of crossover .11, C = .5 bits and V = .89 bits^2
def test_polyanskiy_poor_verdu_bsc():
    assert bsc_rate(0.11) / LOG2 == pytest.approx(0.5, abs=1e-3)
    assert symmetric_dispersion(2, 0.11) / LOG2**2 == pytest.approx(0.89, abs=5e-3)


# MacWilliams & Sloane, The Theory of Error-Correcting Codes (1977), chapter 1: the best decoder
# is right where the noise is a coset leader. RM(1,4) has 1, 16, 120, 560, 875, 448, 28 leaders of
# weight 0 to 6
LEADERS = (1, 16, 120, 560, 875, 448, 28)


def test_coset_leaders_of_the_reed_muller_code():
    words = reed_muller_words(32)
    received = index_bits(2**16)
    distances = (received[:, None, :] != words).sum(axis=2, dtype=np.int8).min(axis=1)
    # of every coset all 32 members are as far from the code as its leader is heavy
    np.testing.assert_array_equal(np.bincount(distances), 32 * np.array(LEADERS))


def test_maximum_likelihood_decoding_of_the_reed_muller_code():
    success = sum(n * 0.1**i * 0.9 ** (16 - i) for i, n in enumerate(LEADERS))
    assert success == pytest.approx(0.957722045, abs=5e-10)
    words = reed_muller_words(32)
    channel = words_channel(words, 0.1)
    assert channel.max(axis=0).sum() / 32 == pytest.approx(success, abs=1e-9)
    answers = nearest_words(index_bits(2**16), words)
    decoded = channel[answers, np.arange(2**16)].sum() / 32
    assert decoded == pytest.approx(success, abs=1e-9)


# --- generalisation ---


def interpolating_learner(losses: np.ndarray, m: int):
    """P(W | Z_1 = z), (N, R), and the gap of a learner that picks a random expert without error on
    its m uniform samples, by enumeration."""
    n = len(losses)
    conditionals = np.zeros(losses.shape)
    gap = 0.0
    for sample in product(range(n), repeat=m):
        perfect = losses[list(sample)].sum(axis=0) == 0
        posterior = perfect / perfect.sum()
        conditionals[sample[0]] += posterior / n ** (m - 1)
        gap += posterior @ losses.mean(axis=0) / n**m
    return conditionals, float(gap)


def difference_information(conditionals: np.ndarray, losses: np.ndarray) -> float:
    """I(D;U) of the two losses' difference and the coin that says which of a pair was trained on,
    from their joint law."""
    n = len(losses)
    joint = np.zeros((3, 2))
    for trained, ghost, coin in product(range(n), range(n), range(2)):
        difference = losses[ghost] - losses[trained]
        if coin:
            difference = -difference
        for value in (-1, 0, 1):
            mass = conditionals[trained] @ (difference == value)
            joint[value + 1, coin] += mass / (2 * n**2)
    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / outer[seen])).sum())


# Wang & Mao (2023), on interpolating algorithms: with 0-1 losses and no training error the gap is
# not bounded by I(D;U)/log 2 but equal to it
@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_wang_mao_interpolating_learner(m, seed):
    losses = (np.random.default_rng(seed).random((5, 6)) < 0.4).astype(float)
    losses[:, 0] = 0  # so that no sample is without an expert
    conditionals, gap = interpolating_learner(losses, m)
    information = difference_information(conditionals, losses)
    assert 0 < gap == pytest.approx(information / LOG2, abs=1e-12)
    assert loss_difference_bound(conditionals, losses) == pytest.approx(
        sqrt(2 * gap * LOG2), abs=1e-12
    )


def test_wang_mao_needs_interpolation():
    """A learner that errs on its sample has a gap below I(D;U)/log 2, so that the equality above
    can fail."""
    losses = np.array([[0.0, 1.0], [1.0, 0.0]])
    conditionals = np.array([[0.6, 0.4], [0.4, 0.6]])
    gap = 0.5 - 0.4
    information = loss_difference_bound(conditionals, losses) ** 2 / 2
    assert information == pytest.approx(difference_information(conditionals, losses), abs=1e-12)
    assert information / LOG2 < gap / 5


# Bu, Zou & Veeravalli (2020), section IV: W is the mean of n standard normal samples, the loss is
# (w - z)^2. The gap is 2/n, I(W;Z) = (1/2) log(n/(n-1)) of one sample, and their bound is
# sqrt(2) (n+1)/n sqrt(log(n/(n-1)))
@pytest.mark.parametrize("n", [2, 10, 100])
def test_bu_zou_veeravalli_gaussian_mean(n):
    grid = np.linspace(-7, 7, 101)
    means = grid / sqrt(n)
    spread = sqrt(n - 1) / n  # of W given one sample z, around z/n
    conditionals = np.exp(-(((means - grid[:, None] / n) / spread) ** 2) / 2)
    conditionals /= conditionals.sum(axis=1, keepdims=True)
    information = log(n / (n - 1)) / 2
    found = individual_sample_bound(conditionals, weights=np.exp(-(grid**2) / 2))
    assert found == pytest.approx(sqrt(information / 2), rel=1e-6)
    # w - z is normal with variance (n+1)/n under the product law: its square is sub-Gaussian below
    # its mean with sigma^2 = 2 ((n+1)/n)^2
    sigma = sqrt(2) * (n + 1) / n
    bound = float(xu_raginsky_bound(2 * found**2, 1, sigma=sigma))
    assert bound == pytest.approx(sqrt(2) * (n + 1) / n * sqrt(log(n / (n - 1))), rel=1e-6)
    assert bound > 2 / n
