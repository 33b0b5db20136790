"""P1's claims: its two synthetic experiments, its remarks on private and noisy links, Theorem 2."""

from __future__ import annotations

from expertbank.book.claims.evidence import Chain, Evidence, WantedIndex, count_falls
from expertbank.book.claims.registry import PaperClaims
from expertbank.bounds import xu_raginsky_bound
from expertbank.information import mutual_information
from expertbank.privacy import routed_loss
from expertbank.synthetic import BscSelection

P1 = PaperClaims()


# --- experiment 1: a mixture of experts ---


@P1.claim(
    "P1 information",
    "P1 Fig. 2",
    "falls of I(S;W) as alpha rises",
    reported=0,
    method="synthetic bank, exact population",
    tolerance=0,
    reason="a count",
)
def falls_of_the_mixture_information(evidence: Evidence) -> int:
    """Over eleven values of alpha."""
    return count_falls(selection.information for selection in evidence.mixtures)


@P1.claim(
    "P1 gap",
    "P1 Fig. 2",
    "falls of the gap as alpha rises",
    reported=0,
    method="synthetic bank, exact population",
    tolerance=0,
    reason="a count",
)
def falls_of_the_mixture_gap(evidence: Evidence) -> int:
    """Over eleven values of alpha."""
    return count_falls(selection.expected_gap for selection in evidence.mixtures)


@P1.claim(
    "P1 bound",
    "P1 Fig. 2",
    "points on or above the bound's line, alpha > 0",
    reported=0,
    method="synthetic bank, exact population",
    tolerance=0,
    reason="a count",
)
def gaps_above_the_bound(evidence: Evidence) -> int:
    """Gaps at or above Theorem 1 with the figure's sigma = 1 and m = 64."""
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


@P1.claim(
    "P1 BSC bound",
    "P1 Fig. 3",
    "mean risks above D(R_g) + sqrt(2 I/m), beta from 0.2 to 2",
    reported=0,
    method="exact sum over flips",
    tolerance=0,
    reason="a count",
)
def risks_above_the_bound(evidence: Evidence) -> int:
    """Among the nineteen larger values of beta."""
    return points_above(evidence.symmetric[2:])


@P1.claim(
    "P1 BSC bound, small beta",
    "P1 Fig. 3",
    "the same for beta from 0 to 0.1",
    reported=0,
    method="exact sum over flips",
    tolerance=0,
    reason="a posterior that hardly looks at S has I(S;W) near 0, but its mean risk lies above "
    "D(R_g) by Jensen's gap: assumption (8) fails with delta_m = 0, which (13) takes for granted",
)
def risks_above_the_bound_at_small_beta(evidence: Evidence) -> int:
    """Among the two smallest values of beta."""
    return points_above(evidence.symmetric[:2])


@P1.claim(
    "P1 BSC curve",
    "P1 Fig. 3",
    "largest height of a mean risk over D(R_g)",
    reported=0,
    method="exact sum over flips",
    tolerance=0.05,
    reason="'tracks the curve' by eye: a tenth of the axis from 0 to 1/2",
)
def largest_height_over_the_curve(evidence: Evidence) -> float:
    """Over all values of beta."""
    return max(selection.risk - selection.distortion for selection in evidence.symmetric)


# --- Remarks 3 and 4: a private or noisy link carries the index ---


def above_the_cap(chains: list[Chain], wanted: WantedIndex) -> int:
    """Chains that carry more than their cap allows."""
    above = 0
    for channel, cap in chains:
        above += int(mutual_information(channel, wanted.prior) > cap + 1e-9)
    return above


def below_the_limit(chains: list[Chain], wanted: WantedIndex) -> int:
    """Chains whose loss, with the best receiver, lies below D at their cap."""
    below = 0
    for channel, cap in chains:
        loss = routed_loss(wanted.prior, wanted.costs, channel)
        below += int(loss < wanted.curve.lower(cap) - 1e-9)
    return below


@P1.claim(
    "P1 private rate",
    "P1 Remark 3",
    "private gates with I(X;T) above c(epsilon), epsilon from 0.1 to 8",
    reported=0,
    method="8 experts; randomised response and two linear programmes",
    tolerance=0,
    reason="a count",
)
def private_gates_above_the_cap(evidence: Evidence) -> int:
    """With the least c(epsilon) that is known."""
    return above_the_cap(evidence.private_chains, evidence.wanted)


@P1.claim(
    "P1 private loss",
    "P1 Remark 3",
    "private gates with a loss below D(c(epsilon))",
    reported=0,
    method="the same, exact, with the best receiver",
    tolerance=0,
    reason="a count",
)
def private_gates_below_the_limit(evidence: Evidence) -> int:
    """With the least c(epsilon) that is known."""
    return below_the_limit(evidence.private_chains, evidence.wanted)


@P1.claim(
    "P1 link rate",
    "P1 Remark 4",
    "links with I(X;T) above nC, n uses of capacity C",
    reported=0,
    method="8 experts; BSC, 8-ary symmetric, erasure; uncoded, repetition",
    tolerance=0,
    reason="a count",
)
def links_above_the_capacity(evidence: Evidence) -> int:
    """With one to three uses."""
    return above_the_cap(evidence.noisy_chains, evidence.wanted)


@P1.claim(
    "P1 link loss",
    "P1 Remark 4",
    "links with a loss below D(nC)",
    reported=0,
    method="the same, exact, with the best receiver",
    tolerance=0,
    reason="a count",
)
def links_below_the_limit(evidence: Evidence) -> int:
    """With one to three uses."""
    return below_the_limit(evidence.noisy_chains, evidence.wanted)


# --- Theorem 2 ---


@P1.claim(
    "P1 Theorem 2",
    "P1 Theorem 2",
    "mean risks of selected gates above (10), sigma = 1/2",
    reported=0,
    method="90 trained gates a bank, soft and hard, m from 64 to 1,024",
    tolerance=0,
    reason="a count of what exceeds three Monte Carlo errors; "
    "with a measured delta_m it is Theorem 1",
)
def selected_gates_above_theorem_2(evidence: Evidence) -> int:
    """Over both banks, five values of alpha and three of m."""
    return evidence.gates_above_theorem2
