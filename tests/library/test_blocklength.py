"""What short words carry: converse <= truth <= achievability, with truths that are counted.

The truths are best codes found by trying all of them, perfect codes, the Reed-Muller code with its
coset leaders, and the two bounds themselves in rational arithmetic.
"""

from fractions import Fraction
from itertools import combinations
from math import comb, exp, expm1, log

import numpy as np
import pytest

from expertbank import bsc_rate
from expertbank.channels import (
    block_error,
    bsc_blocklength,
    bsc_blocklength_bracket,
    bsc_error_bracket,
    symmetric_dispersion,
)
from expertbank.links import index_bits, words_channel

LOG2 = float(np.log(2))


def chance(n, t, p):
    return comb(n, t) * p**t * (1 - p) ** (n - t)


def exact_converse(n, messages, p):
    """1 less the weight of the likeliest 2^n / M noise words, in fractions."""
    left, success = Fraction(2**n) / messages, Fraction(0)
    for t in range(n + 1):
        taken = min(left, Fraction(comb(n, t)))
        success += taken * p**t * (1 - p) ** (n - t)
        left -= taken
    return 1 - success


def exact_union(n, messages, p):
    """The mean over the noise of min(1, (M - 1) x share of words as near), in fractions."""
    ball, total = 0, Fraction(0)
    for t in range(n + 1):
        ball += comb(n, t)
        total += chance(n, t, p) * min(1, (messages - 1) * Fraction(ball, 2**n))
    return total


@pytest.mark.parametrize("n", [1, 5, 16, 40, 300])
@pytest.mark.parametrize("p", [Fraction(1, 1024), Fraction(1, 8), Fraction(3, 8), Fraction(1, 2)])
def test_both_bounds_of_the_error_against_fractions(n, p):
    for messages in (2, 3, 25, 2**10, 2**60):
        low, high = bsc_error_bracket(n, log(messages), float(p))
        assert low == pytest.approx(float(exact_converse(n, messages, p)), rel=1e-9, abs=1e-300)
        guessing = 1 - 1 / messages
        union = min(guessing, float(exact_union(n, messages, p)))
        assert high == pytest.approx(union, rel=1e-9, abs=1e-300)
        assert low <= high <= guessing * (1 + 1e-15)


@pytest.mark.parametrize("n", [5, 16, 100, 300])
@pytest.mark.parametrize("p", [Fraction(1, 1024), Fraction(1, 8), Fraction(3, 8)])
@pytest.mark.parametrize("error", [1e-12, 1e-3, 0.3, 0.9])
def test_both_bounds_of_the_length_are_where_the_error_is_reached(n, p, error):
    low, high = bsc_blocklength_bracket(n, float(p), error)
    assert 0 < low <= high
    # M - 1 as a fraction: a rounding more fails, a rounding less does not. Next to M = 1 it is that
    # of log n!
    for nats, bound in ((low, exact_union), (high, exact_converse)):
        step = 1e-9 * nats + 1e-11
        less = 1 + Fraction(expm1(max(0, nats - step)))
        more = 1 + Fraction(expm1(nats + step))
        assert min(1 - 1 / less, bound(n, less, p)) <= error * (1 + 1e-9)
        assert min(1 - 1 / more, bound(n, more, p)) >= error * (1 - 1e-9)


def best_code(n, messages, p):
    """The least mean error of M equally likely words, over all codes with the word 0."""
    channel = words_channel(index_bits(2**n), p)
    rest = combinations(range(1, 2**n), messages - 1)
    right = max(channel[[0, *words]].max(axis=0).sum() for words in rest)
    return 1 - right / messages


@pytest.mark.parametrize(
    ("n", "messages"), [(2, 2), (3, 2), (3, 3), (3, 4), (4, 2), (4, 3), (4, 4), (4, 6), (5, 3)]
)
@pytest.mark.parametrize("p", [0.01, 0.11, 0.3, 0.45])
def test_the_best_of_all_codes_lies_in_the_bracket(n, messages, p):
    truth = best_code(n, messages, p)
    low, high = bsc_error_bracket(n, log(messages), p)
    assert low <= truth + 1e-14 and truth <= high
    # and so do the numbers of words
    for more, error in ((0, truth * 1.0001), (1, truth * 0.9999)):
        least, most = bsc_blocklength_bracket(n, p, error)
        assert log(messages) <= most + 1e-9 or more
        assert int(exp(least) * (1 + 1e-12)) < messages or not more


# words, length and the radius of the balls that fill the space: every word, Hamming, Golay, and
# words repeated an odd number of times
PERFECT = [
    (32, 5, 0),
    (16, 7, 1),
    (2**11, 15, 1),
    (2**12, 23, 3),
    (2, 3, 1),
    (2, 9, 4),
    (2, 31, 15),
]


@pytest.mark.parametrize(("messages", "n", "radius"), PERFECT)
@pytest.mark.parametrize("p", [0.001, 0.1, 0.4])
def test_perfect_codes_meet_the_converse(messages, n, radius, p):
    truth = sum(chance(n, t, p) for t in range(radius + 1, n + 1))
    low, high = bsc_error_bracket(n, log(messages), p)
    assert low == pytest.approx(truth, rel=1e-9) and truth <= high
    assert bsc_blocklength_bracket(n, p, truth)[1] == pytest.approx(log(messages), rel=1e-9)


def test_the_reed_muller_code_lies_in_the_bracket():
    """.042277955 by its coset leaders: test_published_cases counts them."""
    low, high = bsc_error_bracket(16, log(32), 0.1)
    assert low < 0.042277955 < high
    least, most = bsc_blocklength_bracket(16, 0.1, 0.042277955)
    assert least < log(32) < most


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
@pytest.mark.parametrize("p", [0.0, 1e-6, 0.05, 0.11, 0.3, 0.49, 0.4999, 0.5])
@pytest.mark.parametrize("error", [1e-9, 1e-3, 0.2])
def test_the_approximation_is_nowhere_impossible(n, p, error):
    found = bsc_blocklength(n, p, error)
    least, most = bsc_blocklength_bracket(n, p, error)
    assert 0 <= found <= most and least <= most
    # Fano: log M - h(e) - e log(M - 1) <= n C, here with log M for log(M - 1)
    fano = (n * float(bsc_rate(p)) + LOG2) / (1 - error)
    assert most <= fano


def test_a_link_that_is_nearly_useless_carries_nearly_nothing():
    """Its capacity is .200 nats in 1000 uses, Fano allows .208; the formula alone has 1.70."""
    assert bsc_blocklength(1000, 0.49, 1e-3) < 0.0071
    capacity, dispersion = float(bsc_rate(0.49)), float(symmetric_dispersion(2, 0.49))
    formula = 1000 * capacity - np.sqrt(1000 * dispersion) * 3.0902323 + log(1000) / 2
    assert formula == pytest.approx(1.70, abs=0.01)


def test_no_code_errs_more_than_guessing_or_less_than_fano_allows():
    flips = np.linspace(0, 0.5, 51)
    capacity, dispersion = bsc_rate(flips), symmetric_dispersion(2, flips)
    for n in (1, 3, 16, 100):
        for messages in (2, 4, 25, 1000):
            found = block_error(n, log(messages), capacity, dispersion)
            assert (found <= 1 - 1 / messages + 1e-15).all()
            entropy = -found * np.log(np.maximum(found, 1e-300))
            entropy -= (1 - found) * np.log(np.maximum(1 - found, 1e-300))
            kept = log(messages) - entropy - found * log(messages - 1)
            assert (kept <= n * capacity + 1e-9).all()
    # at p = .4 the formula alone has .971 for 25 messages in 16 uses
    assert block_error(16, log(25), bsc_rate(0.4), symmetric_dispersion(2, 0.4)) == 0.96


def test_without_dispersion_the_error_is_that_of_what_looks_alike():
    assert block_error(16, log(4), 0, 0) == pytest.approx(0.75, rel=1e-14)
    assert block_error(16, 0.0, 0, 0) == 0
    # 3 letters of a noiseless 4-ary link hold 64 messages, of 100 at most 64 arrive
    assert block_error(3, log(100), log(4), 0) == pytest.approx(0.36, rel=1e-12)
    assert block_error(3, log(64), log(4), 0) == pytest.approx(0, abs=1e-14)
    assert block_error(2, 1000.0, [0.1, 600.0], 0).tolist() == pytest.approx([1, 0])


def test_long_words_are_no_harder():
    assert bsc_blocklength(10**7, 0.11, 1e-3) == pytest.approx(
        10**7 * float(bsc_rate(0.11)), rel=1e-2
    )
    low, high = bsc_blocklength_bracket(10**5, 0.11, 1e-3)
    assert low - 5 < bsc_blocklength(10**5, 0.11, 1e-3) < high and 0 < high - low < 10
