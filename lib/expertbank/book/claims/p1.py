"""P1's claims: its two synthetic experiments, its remarks on private and noisy links, Theorem 2.

Each docstring says what the row of the report says: the quantity, and why the verdict can, or
cannot, come out the other way.
"""

from __future__ import annotations

from expertbank.book.claims.evidence import Chain, Evidence, WantedIndex, count_falls
from expertbank.book.claims.registry import Found, PaperClaims, none_of
from expertbank.bounds import xu_raginsky_bound
from expertbank.information import entropy, mutual_information
from expertbank.privacy import routed_loss

P1 = PaperClaims()


# --- experiment 1: a mixture of experts ---

SYNTHETIC_BANK = "synthetic bank at sizes of ours, exact population"


@P1.claim("P1 Fig. 2", "proved", decimals=0, method=SYNTHETIC_BANK)
def falls_of_the_mixture_information(evidence: Evidence) -> Found:
    """falls of I(S;W) as alpha rises

    I(S;W) is convex in alpha and 0 at alpha = 0
    """
    return none_of(count_falls(run.information for run in evidence.mixtures))


@P1.claim("P1 Fig. 2", "proved", decimals=0, method=SYNTHETIC_BANK)
def falls_of_the_mixture_gap(evidence: Evidence) -> Found:
    """falls of the gap as alpha rises

    linear in alpha, 0 for a blind choice and at least 0 for the empirical risk minimiser
    """
    return none_of(count_falls(run.expected_gap for run in evidence.mixtures))


@P1.claim("P1 Fig. 2", "proved", decimals=0, method=SYNTHETIC_BANK)
def gaps_above_the_bound(evidence: Evidence) -> Found:
    """points on or above the bound's line, alpha > 0

    Theorem 1, for losses in [0, 1] and i.i.d. samples
    """
    above = 0
    for run in evidence.mixtures[1:]:
        bound = xu_raginsky_bound(run.information, 64, sigma=1)
        above += int(run.expected_gap >= bound)
    return none_of(above)


# --- experiment 2: the symmetric channel ---

SYMMETRIC = "exact sum over flips at sizes of ours, 21 inverse temperatures from 0 to 2"


@P1.claim("P1 Fig. 3", "compared", decimals=0, method=SYMMETRIC)
def risks_above_the_bound(evidence: Evidence) -> Found:
    """points above (13): mean risks above D(R_g) + sqrt(2 I/m)

    where the posterior hardly looks at S the information term is near 0, but the mean risk stays
    above D(R_g) by Jensen's gap: (13) takes assumption (8) with delta_m = 0 for granted
    """
    above = 0
    for run in evidence.symmetric:
        bound = xu_raginsky_bound(run.information, 100, sigma=1)
        above += int(run.risk > run.distortion + bound)
    return none_of(above)


@P1.claim("P1 Fig. 3", "no number", method=SYMMETRIC)
def largest_height_over_the_curve(evidence: Evidence) -> Found:
    """largest height of a mean risk over D(R_g): "tracks the curve"

    the paper says how it looks, and no number
    """
    return Found(max(run.risk - run.distortion for run in evidence.symmetric))


# --- the rate of a gate ---


@P1.claim("P1, text", "compared", method="eight best experts of the shipped bank, price 0")
def rate_that_buys_nothing(evidence: Evidence) -> Found:
    """nats that randomising takes off a gate without a higher loss; "randomisation that lowers the
    information raises the distortion" asks for none

    where an input has several best experts, a coin among them costs no loss; on a bank without
    such ties the claim would hold
    """
    always_the_first = float(entropy(evidence.wanted.prior))
    saved = always_the_first - float(evidence.wanted.curve.rate.max())
    return Found(saved, holds=saved <= 1e-9)


# --- Remarks 3 and 4: a private or noisy link carries the index ---

MECHANISMS = "8 experts; randomised response and two linear programmes, epsilon from 0.1 to 8"
LINKS = "8 experts; binary, 8-ary and erasing links; uncoded and repeated"


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


@P1.claim("P1 Remark 3", "proved", decimals=0, method=MECHANISMS)
def private_gates_above_the_cap(evidence: Evidence) -> Found:
    """private gates with I(X;T) above c(epsilon)

    an upper bound on the information of every private channel
    """
    return none_of(above_the_cap(evidence.private_chains, evidence.wanted))


@P1.claim("P1 Remark 3", "proved", decimals=0, method=MECHANISMS)
def private_gates_below_the_limit(evidence: Evidence) -> Found:
    """private gates that lose less than D(c(epsilon))

    D is the least loss of any gate at that rate
    """
    return none_of(below_the_limit(evidence.private_chains, evidence.wanted))


@P1.claim("P1 Remark 4", "proved", decimals=0, method=LINKS)
def links_above_the_capacity(evidence: Evidence) -> Found:
    """links that carry more than n uses of their capacity

    data processing
    """
    return none_of(above_the_cap(evidence.noisy_chains, evidence.wanted))


@P1.claim("P1 Remark 4", "proved", decimals=0, method=LINKS)
def links_below_the_limit(evidence: Evidence) -> Found:
    """links whose index loses less than D at that capacity

    D is the least loss of any gate at that rate
    """
    return none_of(below_the_limit(evidence.noisy_chains, evidence.wanted))


# --- Theorem 2 ---


@P1.claim("P1 Theorem 2", "proved", decimals=0, method="90 gates a bank, m from 64 to 1,024")
def selected_gates_above_theorem_2(evidence: Evidence) -> Found:
    """settings in which a selected gate loses more than (10) allows, sigma = 1/2

    with a measured delta_m it is Theorem 1; counted beyond three Monte Carlo errors
    """
    return none_of(evidence.gates_above_theorem2)
