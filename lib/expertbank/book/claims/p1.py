"""P1's claims: its two synthetic experiments, its remarks on private and noisy links, Theorem 2.

Each docstring says what the row of the report says: the quantity, and why its tolerance.
"""

from __future__ import annotations

from expertbank.book.claims.evidence import Chain, Evidence, WantedIndex, count_falls
from expertbank.book.claims.registry import PaperClaims
from expertbank.bounds import xu_raginsky_bound
from expertbank.information import mutual_information
from expertbank.privacy import routed_loss
from expertbank.synthetic import BscSelection

P1 = PaperClaims()


# --- experiment 1: a mixture of experts ---


@P1.claim("P1 Fig. 2", method="synthetic bank, exact population")
def falls_of_the_mixture_information(evidence: Evidence) -> int:
    """falls of I(S;W) as alpha rises"""
    return count_falls(selection.information for selection in evidence.mixtures)


@P1.claim("P1 Fig. 2", method="synthetic bank, exact population")
def falls_of_the_mixture_gap(evidence: Evidence) -> int:
    """falls of the gap as alpha rises"""
    return count_falls(selection.expected_gap for selection in evidence.mixtures)


@P1.claim("P1 Fig. 2", method="synthetic bank, exact population")
def gaps_above_the_bound(evidence: Evidence) -> int:
    """points on or above the bound's line, alpha > 0"""
    above = 0
    for selection in evidence.mixtures[1:]:
        bound = xu_raginsky_bound(selection.information, 64, sigma=1)
        above += int(selection.expected_gap >= bound)
    return above


# --- experiment 2: the symmetric channel ---


def points_above(selections: list[BscSelection]) -> int:
    """Mean risks above (13) of P1, with its sigma = 1 and m = 100."""
    above = 0
    for selection in selections:
        bound = xu_raginsky_bound(selection.information, 100, sigma=1)
        above += int(selection.risk > selection.distortion + bound)
    return above


@P1.claim("P1 Fig. 3", method="exact sum over flips")
def risks_above_the_bound(evidence: Evidence) -> int:
    """mean risks above D(R_g) + sqrt(2 I/m), beta from 0.2 to 2"""
    return points_above(evidence.symmetric[2:])


@P1.claim("P1 Fig. 3", method="exact sum over flips")
def risks_above_the_bound_at_small_beta(evidence: Evidence) -> int:
    """the same for beta from 0 to 0.1

    a posterior that hardly looks at S has I(S;W) near 0, but its mean risk lies above D(R_g) by
    Jensen's gap: assumption (8) fails with delta_m = 0, which (13) takes for granted
    """
    return points_above(evidence.symmetric[:2])


@P1.claim("P1 Fig. 3", method="exact sum over flips", tolerance=0.05)
def largest_height_over_the_curve(evidence: Evidence) -> float:
    """largest height of a mean risk over D(R_g)

    'tracks the curve' by eye: a tenth of the axis from 0 to 1/2
    """
    return max(selection.risk - selection.distortion for selection in evidence.symmetric)


# --- Remarks 3 and 4: a private or noisy link carries the index ---


def above_the_cap(chains: list[Chain], wanted: WantedIndex) -> int:
    """Chains that carry more than their cap allows."""
    rates = [mutual_information(channel, wanted.prior) for channel, _ in chains]
    return sum(bool(rate > cap + 1e-9) for rate, (_, cap) in zip(rates, chains, strict=True))


def below_the_limit(chains: list[Chain], wanted: WantedIndex) -> int:
    """Chains whose loss, with the best receiver, lies below D at their cap."""
    below = 0
    for channel, cap in chains:
        loss = routed_loss(wanted.prior, wanted.costs, channel)
        below += int(loss < wanted.curve.lower(cap) - 1e-9)
    return below


@P1.claim("P1 Remark 3", method="8 experts; randomised response and two linear programmes")
def private_gates_above_the_cap(evidence: Evidence) -> int:
    """private gates with I(X;T) above c(epsilon), epsilon from 0.1 to 8"""
    return above_the_cap(evidence.private_chains, evidence.wanted)


@P1.claim("P1 Remark 3", method="the same, exact, with the best receiver")
def private_gates_below_the_limit(evidence: Evidence) -> int:
    """private gates with a loss below D(c(epsilon))"""
    return below_the_limit(evidence.private_chains, evidence.wanted)


@P1.claim("P1 Remark 4", method="8 experts; BSC, 8-ary symmetric, erasure; uncoded, repetition")
def links_above_the_capacity(evidence: Evidence) -> int:
    """links with I(X;T) above nC, n uses of capacity C"""
    return above_the_cap(evidence.noisy_chains, evidence.wanted)


@P1.claim("P1 Remark 4", method="the same, exact, with the best receiver")
def links_below_the_limit(evidence: Evidence) -> int:
    """links with a loss below D(nC)"""
    return below_the_limit(evidence.noisy_chains, evidence.wanted)


# --- Theorem 2 ---


@P1.claim("P1 Theorem 2", method="90 trained gates a bank, soft and hard, m from 64 to 1,024")
def selected_gates_above_theorem_2(evidence: Evidence) -> int:
    """mean risks of selected gates above (10), sigma = 1/2

    a count of what exceeds three Monte Carlo errors; with a measured delta_m it is Theorem 1
    """
    return evidence.gates_above_theorem2
