"""A price on nats buys privacy: Remark 3 of P1 from both sides, from one curve. Nats.

**Statement.** Let losses of each expert vary over inputs by at most `spread`. The rate-optimal gate
at price lam, p(t|x) = q_t exp(-l_t(x)/lam) / Z(x), is (2 spread / lam)-locally private. So with
D_eps the least loss of an eps-private gate, c(eps) any limit on the rate of such a gate, and
D(at lam) the loss of that gate,

    D(c(eps)) <= D_eps <= D(at lam = 2 spread / eps).

*Proof.* The gate is the exponential mechanism of McSherry & Talwar (2007), with scores -l and base
q. With d_t = l_t(x) - l_t(x') a numerator grows by exp(-d_t/lam), and 1/Z by at most exp(max_s d_s
/ lam): p(t|x)/p(t|x') <= exp((max_s d_s - d_t)/lam), and both are at most the spread in size. The
left side is Remark 3, the right the gate itself.

The gate's own level, `privacy.privacy_level`, is smaller than 2 spread / lam, so that a smaller
price keeps eps and loses less: `price_bracket` searches for it. The optimal private gate is no
rate-optimal gate: D_eps stays below the right side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import ABOVE_0, as_losses, as_number, as_weights
from expertbank.channels import ldp_sharp_cap
from expertbank.privacy import LARGEST_EPSILON, privacy_level
from expertbank.rate_distortion import (
    RateDistortion,
    distortion_at_rate,
    rate_distortion,
    routing,
)
from expertbank.tables import merge_rows

HALVINGS = 12  # of the stretch of prices, on a log scale, in which the level is eps


@dataclass(frozen=True)
class PriceBracket:
    """What privacy eps costs at least and at most by D(R) alone; `price_bracket` makes it."""

    epsilon: float
    lower: float
    """D(c(eps)), below every eps-private gate"""
    upper: float
    """loss of the rate-optimal gate at price 2 spread / eps"""
    exact: float
    """the least loss found of a rate-optimal gate whose own level is at most eps"""
    lam: float
    """its price"""
    level: float
    """its level"""


def gate_level(losses: ArrayLike, point: RateDistortion) -> float:
    """The least epsilon, in nats, at which the rate-optimal gate of a point is locally private on
    losses (N, R).

    Raises ValueError for a bad table, or a point of another table's experts.

    >>> losses = [[0, 1], [1, 0]]
    >>> point = rate_distortion(losses, lam=0.5)
    >>> round(gate_level(losses, point), 4)  # of at most 2 / 0.5
    2.0
    """
    losses = as_losses(losses).astype(float)
    rows, _, _ = merge_rows(losses, np.full(len(losses), 1 / len(losses)))
    return privacy_level(np.asarray(routing(rows, point)))


def price_bracket(
    losses: ArrayLike, epsilon: float, weights: ArrayLike | None = None
) -> PriceBracket:
    """Both sides of Remark 3 on losses (N, R) at a privacy of epsilon, by the module's statement.

    c(eps) is `channels.ldp_sharp_cap`. Input weights (N,) are uniform by default; inputs of weight
    0 are no inputs. Raises ValueError for a bad table, weights or epsilon outside (0, 30].

    >>> bracket = price_bracket([[0, 1], [1, 0]], np.log(3))
    >>> round(bracket.lower, 4), round(bracket.exact, 4), round(bracket.upper, 4)  # D_eps is 1/4
    (0.2346, 0.25, 0.366)
    """
    losses = as_losses(losses).astype(float)
    epsilon = as_number(epsilon, "epsilon", ABOVE_0, LARGEST_EPSILON)
    weights = as_weights(weights, len(losses))
    rows, weights, _ = merge_rows(losses[weights > 0], weights[weights > 0])
    spread = float(np.ptp(rows, axis=0).max())
    lower = distortion_at_rate(rows, float(ldp_sharp_cap(epsilon)), weights)
    dear = 2 * spread / epsilon
    point = rate_distortion(rows, dear, weights)
    best = point
    # private at `dear`, not private at `cheap`, as far as the level falls with the price
    cheap = dear / 4
    for _ in range(HALVINGS):
        if spread == 0:
            break
        lam = float(np.sqrt(dear * cheap))
        tried = rate_distortion(rows, lam, weights)
        if gate_level(rows, tried) <= epsilon:
            dear = lam
            best = min(best, tried, key=lambda found: found.distortion)
        else:
            cheap = lam
    return PriceBracket(
        epsilon=epsilon,
        lower=lower,
        upper=point.distortion,
        exact=best.distortion,
        lam=best.lam,
        level=gate_level(rows, best),
    )
