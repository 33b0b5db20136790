"""The distortion-rate function of a loss table, every point with a certificate of optimality. Nats.

D(R) is the least expected loss of a gate p(t|x) with I(X;T) <= R, P1 (5) and P2 (27). A price lam
per nat picks the point where a line of slope -lam supports it, P2 (26). How a point is found is in
`solver`: by Newton's method, or by Blahut-Arimoto, P2 (28)-(29), which converges too slowly where
it matters.

Losses (N, R) are a NumPy array or anything that becomes one, a torch tensor (on whatever device it
lies), or a dask array, which is read in chunks and may be larger than memory. `cost` (R,) is added
to the loss of each expert: what it costs to compute or to send, in units of loss.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy

from expertbank import solver
from expertbank._checks import ABOVE_0, BELOW_INF, as_interval, as_number
from expertbank.tables import Block, Table, as_table, check_cost, quietly, table_of

METHODS = {"newton": solver.maximise, "blahut-arimoto": solver.expectation_maximisation}


class ConvergenceWarning(RuntimeWarning):
    """A certificate stayed above its tolerance; the message names both."""


@dataclass(frozen=True)
class RateDistortion:
    """A point on the distortion-rate curve."""

    rate: float | np.ndarray
    """I(X;T) in nats"""
    distortion: float | np.ndarray
    """expected loss, the experts' costs included"""
    lam: float | np.ndarray
    """price of a nat: minus the slope of D(R)"""
    marginal: np.ndarray
    """share of the inputs that each expert serves, (R,) or (points, R)"""
    certificate: float | np.ndarray
    """>= 0, nats: distortion + lam * rate is within lam * certificate of its minimum"""
    iterations: int | np.ndarray
    """Newton or EM steps"""


@dataclass(frozen=True)
class RateDistortionCurve(RateDistortion):
    """Points on the curve, as arrays; between them the certified band that holds D(R)."""

    ceiling: float
    """loss of the best single expert: D(0)"""
    floor: float
    """mean loss of the best expert of every input: below it no rate leads"""

    def point(self, index: int) -> RateDistortion:
        """One of the points by itself, as `routing` takes it."""
        return RateDistortion(
            *(getattr(self, name)[index] for name in RateDistortion.__dataclass_fields__)
        )

    def lower(self, rate):
        """A lower bound on D(rate): the highest of the points' supporting lines, each lowered by
        its certificate."""
        rate = np.asarray(as_interval(rate, "rate", 0, np.inf, allowed="numbers >= 0"))
        # an infinite price says no more than the ceiling, and that at rate 0
        lines = np.isfinite(self.lam)
        lam, certificate = self.lam[lines], self.certificate[lines]
        heights = self.distortion[lines] + lam * (self.rate[lines] - certificate)
        with np.errstate(invalid="ignore"):  # 0 * inf: the line of lam = 0 is the floor
            values = np.nan_to_num(heights - lam * rate[..., None], nan=self.floor)
        return np.max(values, axis=-1, initial=self.floor)[()]

    def upper(self, rate):
        """An upper bound on D(rate): the chords of the lower convex hull of the points and of the
        ceiling at rate 0."""
        rate = as_interval(rate, "rate", 0, np.inf, allowed="numbers >= 0")
        return np.interp(
            rate, *_hull(np.append(self.rate, 0.0), np.append(self.distortion, self.ceiling))
        )


def rate_distortion(
    losses, lam: float, weights=None, tol: float = 1e-9, *, cost=None, method: str = "newton"
) -> RateDistortion:
    """Minimise E[loss] + lam I(X;T) over gates, for losses (N, R) and input weights (N,), default
    uniform.

    Exact without iterating: lam at or above `critical_lambda` (and inf) is the best single expert
    at rate 0. lam = 0 is the best expert for every input, at the smallest rate among such gates.
    Warns with `ConvergenceWarning` where the certificate does not reach `tol`; raises ValueError
    for a table with entries that are not finite, bad weights or costs, lam < 0, tol <= 0 or another
    method. Source: P2 (26)-(29).
    """
    lam = as_number(lam, "lam", 0, np.inf, allowed="a number >= 0, or inf")
    tol, method = _check_tol(tol), _check_method(method)
    return _warned(_solve(_table(losses, weights, cost), lam, tol, method=method), tol)


def rate_distortion_curve(
    losses,
    lams=None,
    weights=None,
    tol: float = 1e-9,
    *,
    band: float | None = None,
    cost=None,
    method="newton",
) -> RateDistortionCurve:
    """The curve at every lam, in the given order, or adapted until its certified band is nowhere
    wider than `band`.

    With neither, the grid goes from the critical lam, where the rate leaves 0, down three decades
    below the spread of the losses, and ends at 0 exactly. With `band` (in units of loss), from the
    two ends on, every chord that may lie further above the curve is split at the price of its own
    slope; on a straight piece the first chord is the last. Raises and warns as `rate_distortion`
    does.
    """
    table, tol, method = _table(losses, weights, cost), _check_tol(tol), _check_method(method)
    if band is not None:
        if lams is not None:
            raise ValueError("lams and band are both given; allowed is one of them")
        band = as_number(band, "band", ABOVE_0, BELOW_INF, allowed="a positive number")
        return _curve(table, _warned(_banded(table, band, tol, method), tol))
    if lams is None:
        lams = default_lams(_critical_lambda(table), table.spread)
    lams = np.atleast_1d(as_interval(lams, "lams", 0, np.inf, allowed="numbers >= 0, or inf"))
    if lams.ndim != 1 or lams.size == 0:
        raise ValueError(f"lams has shape {lams.shape}; allowed is a list of at least one value")
    return _curve(table, _warned(_followed(table, lams, tol, method), tol))


def distortion_at_rate(losses, rate: float, weights=None, tol: float = 1e-9, *, cost=None) -> float:
    """D(rate): the least expected loss of a gate with I(X;T) <= rate nats, P1 (5), P2 (27).

    The answer is a chord of the curve, so it is achievable, and at most a relative 1e-9 of the
    curve's height (plus lam * tol) above the truth: the dual line of the chord's own slope proves
    it.
    """
    table, tol = _table(losses, weights, cost), _check_tol(tol)
    rate = as_number(rate, "rate", 0, np.inf, allowed="a number >= 0")
    left, right = _alone(table, np.inf), _solve(table, 0.0, tol)
    if rate >= right.rate:
        return right.distortion
    if rate == 0:
        return left.distortion
    height = left.distortion - right.distortion
    while True:
        lam, middle, above = _between(table, left, right, tol, "newton")
        if above <= 1e-9 * height + lam * tol:
            _warned(middle, tol)
            return left.distortion - lam * (rate - left.rate)
        left, right = (middle, right) if middle.rate <= rate else (left, middle)


def critical_lambda(losses, weights=None, *, cost=None) -> float:
    """The least lam at which one expert for all inputs is optimal and the gate's rate is 0.

    The best expert t* is optimal exactly when max_t E exp(-(l_t - l_t*)/lam) <= 1. It is inf where
    another expert ties with t* on average without being its copy, and 0 where t* is best on every
    input.
    """
    return _critical_lambda(_table(losses, weights, cost))


def default_lams(critical: float, spread: float, points: int = 40) -> np.ndarray:
    """A grid from the critical lam (or 100 spreads, if that is smaller) down to a thousandth of
    that or of the spread, whichever is smaller, then 0."""
    if critical == 0 or spread == 0:
        return np.array([0.0])
    top = min(critical, 100 * spread)
    return np.append(np.geomspace(top, 1e-3 * min(top, spread), points - 1), 0.0)


def routing(losses, point: RateDistortion, *, cost=None):
    """The optimal gate p(t|x), (N, R), of one solved point: proportional to marginal *
    exp(-loss/lam), P2 (28).

    It lies where the losses lie; for a dask array it is computed chunk by chunk, when it is asked
    for.
    """
    losses, library = as_table(losses)
    if np.ndim(point.lam) or point.marginal.shape != tuple(losses.shape[1:]):
        raise ValueError(
            f"point has a marginal of shape {np.shape(point.marginal)}; allowed is one point with "
            f"{losses.shape[1]} experts"
        )
    cost = check_cost(cost, losses.shape[1])
    if library == "dask":
        return losses.rechunk({1: -1}).map_blocks(_routing, point, cost, dtype=float)
    return _routing(losses, point, cost)


@quietly
def _routing(losses, point, cost):
    # among the experts in use: an input of weight 0 may lose so much with all of them that
    # exp(-loss/lam) is 0
    used = np.flatnonzero(point.marginal)
    block = Block(losses[:, used].T, np.ones(len(losses)), None if cost is None else cost[used])
    block.set_price(point.lam)
    block.evaluate(point.marginal[used])
    gate = block.xp.zeros_like(losses, dtype=block.xp.float64)
    gate[:, used] = (block.kernel * block.beside(point.marginal[used])[:, None] / block.z).T
    return gate


def _table(losses, weights, cost) -> Table:
    """What is asked several questions is prepared once, by `table_of`, and given in place of the
    losses."""
    if isinstance(losses, Table):
        return losses
    return table_of(losses, weights, cost)


@quietly
def _critical_lambda(table: Table) -> float:
    least, most, mean, size = table.differences()
    critical, rising, done = 0.0, least < 0, []
    while rising.any():
        # the closest competitor on average first: its lambda is most often the largest
        t = min(np.flatnonzero(rising), key=mean.__getitem__)
        critical = max(critical, _challenge(table, t, -least[t], most[t], mean[t], size[t]))
        if critical == np.inf:
            break
        done.append(t)
        rising = table.challengers(critical)
        rising[done] = False
    return critical


def _challenge(table: Table, t: int, gain: float, most: float, mean: float, size: float) -> float:
    """The lam above which expert t cannot improve on the best expert: E exp(-difference/lam) =
    1."""
    # in units of the gain, the largest loss that t would save
    most, mean, size = most / gain, mean / gain, size / gain
    if mean <= 1e-14 * most:
        return np.inf  # as good on average, and better somewhere

    def slope(price):  # of log E exp(-price * difference) / price: increasing, and -mean at 0
        if price <= 1:  # small exponents: log of the mean would round the difference to 1 away
            return np.log1p(table.challenge(t, price / gain, 0.0)) / price
        return (price + np.log(table.challenge(t, price / gain, price))) / price

    # e^x - 1 - x <= (e/2) x^2 for x <= 1, so the slope is negative at `low`
    low = high = mean / size / (2 * max(1.0, most))
    if slope(low) >= 0:
        return np.inf  # the means differ by less than rounding
    while slope(high) < 0:
        high *= 2
    return gain / scipy.optimize.brentq(slope, low, high, xtol=1e-300, rtol=1e-14)


def _alone(table: Table, lam: float) -> RateDistortion:
    """The best single expert for all inputs."""
    share = np.eye(table.n_experts)[table.best]
    return RateDistortion(0.0, table.ceiling, lam, share, 0.0, 0)


@quietly
def _solve(table: Table, lam: float, tol: float, method="newton", start=None) -> RateDistortion:
    if lam == np.inf:
        return _alone(table, lam)
    table.set_price(lam)
    if start is None:
        alone = _alone(table, lam)
        # the gradient there says quickly that others are wanted, but only roughly that they are not
        if table.evaluate(alone.marginal)[1].max() <= 1 + 1e-9 and not table.challengers(lam).any():
            return alone
        start = np.full(table.n_experts, 1 / table.n_experts)
    x, f, g, certificate, steps = METHODS[method](table, start, tol)
    # rate and distortion of the gate x_t K_ti / z_i, whose own marginal is x g
    marginal = x * g
    excess = table.mean_excess(x)
    rate = -f - float(marginal @ np.log(np.where(marginal > 0, g, 1)))
    if lam > 0:
        rate -= excess / lam
    return RateDistortion(
        max(0.0, rate), table.floor + excess, lam, marginal / marginal.sum(), certificate, steps
    )


def _followed(table: Table, lams, tol: float, method: str) -> list[RateDistortion]:
    """Points at the given prices, solved from the highest down, each from where the ones before it
    lead."""
    points, before, last = {}, None, None
    for lam in sorted(set(lams.tolist()), reverse=True):
        start = None
        if last is not None:
            start = (
                last
                if before is None
                else np.where(last > 0, np.maximum(2 * last - before, last / 10), 0)
            )
            start = start / start.sum()
        points[lam] = point = _solve(table, lam, tol, method, start)
        if point.rate > 0:
            before, last = last, point.marginal
    return [points[lam] for lam in lams.tolist()]


def _between(table, left, right, tol, method="newton"):
    """The slope of the chord of two points, the point where it supports the curve, and the chord's
    height above it."""
    lam = (left.distortion - right.distortion) / (right.rate - left.rate)
    start = (left.marginal + right.marginal) / 2
    middle = _solve(table, lam, tol, method, start)
    return (
        lam,
        middle,
        (left.distortion + lam * left.rate) - (middle.distortion + lam * middle.rate),
    )


def _banded(table: Table, band: float, tol: float, method: str) -> list[RateDistortion]:
    """Points from the best single expert to lam = 0 with chords nowhere more than `band` above the
    lower bound."""
    left, right = _alone(table, np.inf), _solve(table, 0.0, tol, method)
    points, open_chords = [left, right], [(left, right)] if right.rate > 0 else []
    while open_chords:
        left, right = open_chords.pop()
        lam, middle, above = _between(table, left, right, tol, method)
        points.append(middle)
        # a point that is not between the two can narrow the band no further
        if above + lam * middle.certificate > band and left.rate < middle.rate < right.rate:
            open_chords += [(left, middle), (middle, right)]
    return sorted(points, key=lambda point: -point.lam)


def _curve(table: Table, points: list[RateDistortion]) -> RateDistortionCurve:
    fields = (
        np.array([getattr(point, name) for point in points])
        for name in RateDistortion.__dataclass_fields__
    )
    return RateDistortionCurve(*fields, ceiling=table.ceiling, floor=table.floor)


def _hull(x, y):
    """The lower convex hull of points in the plane, left to right, down to its lowest point."""
    hull = []
    for point in sorted(zip(x.tolist(), y.tolist())):
        while len(hull) > 1 and _turn(*hull[-2:], point) <= 0:
            hull.pop()
        hull.append(point)
    hull = hull[: 1 + min(range(len(hull)), key=lambda i: hull[i][1])]
    return zip(*hull)


def _turn(a, b, c) -> float:
    """Positive where the path a, b, c turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _warned(points, tol: float):
    """The points themselves, after a warning where one of them is not certified to `tol`."""
    listed = points if isinstance(points, list) else [points]
    missed = [point for point in listed if not point.certificate <= tol]  # NaN would be one of them
    if missed:
        worst = max(missed, key=lambda point: point.certificate)
        message = (
            f"lam = {worst.lam:.6g}: certificate {worst.certificate:.3g} above tol = {tol:.3g} "
            f"after {worst.iterations} iterations"
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    return points


def _check_method(method) -> str:
    if method not in tuple(METHODS):
        raise ValueError(f"method is {method!r}; allowed are {', '.join(METHODS)}")
    return method


def _check_tol(tol) -> float:
    return as_number(tol, "tol", ABOVE_0, BELOW_INF, allowed="a positive number of nats")
