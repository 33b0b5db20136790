"""The distortion-rate function of a loss table, every point with a certificate of optimality. Nats.

D(R) is the least expected loss of a gate p(t|x) with I(X;T) <= R, P1 (5) and P2 (27). A price lam
per nat picks the point where a line of slope -lam supports it, P2 (26). How a point is found is in
`solver`: by Newton's method, or by Blahut-Arimoto, P2 (28)-(29), which converges too slowly where
it matters.

Losses (N, R) are a NumPy array or anything that becomes one, a torch tensor (on whatever device it
lies), or a dask array, which is read in chunks and may be larger than memory; or the `Table` that
`tables.table_of` makes of one of these, for several questions at the price of one preparation.
Weights (N,) of the inputs are uniform by default. `cost` (R,) is added to the loss of each expert:
what it costs to compute or to send, in units of loss. Losses and costs are at most 1e300 in size,
and below 1e-292 they count as 0.
"""

from __future__ import annotations

import heapq
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank import solver
from expertbank._checks import ABOVE_0, BELOW_INF, FloatOrArray, as_interval, as_number
from expertbank.information import ULPS
from expertbank.tables import Block, Table, as_table, check_cost, quietly, table_of

# the values of `method`
OPTIMISERS: dict[str, Callable[[Table, np.ndarray, float], solver.Maximum]] = {
    "newton": solver.maximise,
    "blahut-arimoto": solver.expectation_maximisation,
}

# a certificate below it would be rounding, in nats
LEAST_CERTIFICATE = 1e-14

# points that a `band` may take, and those from which on the reader is told
MOST_POINTS = 10_000
MANY_POINTS = 1_000
LONG_SECONDS = 60.0
# points after which the number of all of them is estimated
FIRST_POINTS = 16


class ConvergenceWarning(RuntimeWarning):
    """A certificate stayed above its tolerance, or a curve above its band; the message names
    both."""


class LongSearchWarning(UserWarning):
    """A curve takes many points or long; the message says how many are coming."""


@dataclass(frozen=True)
class RateDistortion:
    """A point on the distortion-rate curve."""

    rate: float
    """I(X;T) in nats"""
    distortion: float
    """expected loss, the experts' costs included"""
    lam: float
    """price of a nat, minus the slope of D(R)"""
    marginal: np.ndarray
    """share of the inputs that each expert serves, (R,)"""
    certificate: float
    """nats, >= 0; distortion + lam * rate is within lam * certificate of its minimum"""
    iterations: int
    """Newton or EM steps"""


@dataclass(frozen=True)
class RateDistortionCurve:
    """P points on the curve, as arrays; between them the certified band that holds D(R)."""

    rate: np.ndarray
    """I(X;T) in nats, (P,)"""
    distortion: np.ndarray
    """expected loss, the experts' costs included, (P,)"""
    lam: np.ndarray
    """price of a nat, minus the slope of D(R), (P,)"""
    marginal: np.ndarray
    """share of the inputs that each expert serves, (P, R)"""
    certificate: np.ndarray
    """nats, >= 0, (P,); distortion + lam * rate is within lam * certificate of its minimum"""
    iterations: np.ndarray
    """Newton or EM steps, (P,)"""
    ceiling: float
    """D(0), the loss of the best single expert"""
    floor: float
    """mean loss of the best expert of every input; below it no rate leads"""

    def point(self, index: int) -> RateDistortion:
        """One of the points by itself, as `routing` takes it.

        >>> rate_distortion_curve([[0, 1], [1, 0]], lams=[2, 0.5, 0]).point(1).lam
        0.5
        """
        return RateDistortion(
            rate=float(self.rate[index]),
            distortion=float(self.distortion[index]),
            lam=float(self.lam[index]),
            marginal=self.marginal[index],
            certificate=float(self.certificate[index]),
            iterations=int(self.iterations[index]),
        )

    def lower(self, rate: ArrayLike) -> FloatOrArray:
        """A lower bound on D(rate) for rates >= 0: the highest of the points' supporting lines,
        each lowered by its certificate.

        >>> curve = rate_distortion_curve([[0, 1], [1, 0]], lams=[2, 0.5, 0])
        >>> low, high = curve.lower(0.2), curve.upper(0.2)
        >>> bool(low <= distortion_at_rate([[0, 1], [1, 0]], 0.2) <= high)
        True
        """
        rate = np.asarray(as_interval(rate, "rate", 0, np.inf, allowed="numbers >= 0"))
        # an infinite price says no more than the ceiling, and that at rate 0
        lines = np.isfinite(self.lam)
        lam = self.lam[lines]
        paid = lam * self.rate[lines]
        heights = self.distortion[lines] + paid - lam * self.certificate[lines]
        # and lowered by what the sums of losses and of nats may be off by
        heights -= ULPS * (np.abs(self.distortion[lines]) + paid + lam)
        with np.errstate(invalid="ignore"):  # 0 * inf: the line of lam = 0 is the floor
            fall = lam * (1 + ULPS) * rate[..., None]
            values = np.nan_to_num(heights - fall, nan=self.floor)
        return np.max(values, axis=-1, initial=self.floor)[()]

    def upper(self, rate: ArrayLike) -> FloatOrArray:
        """An upper bound on D(rate) for rates >= 0: the chords of the lower convex hull of the
        points and of the ceiling at rate 0.

        >>> float(rate_distortion_curve([[0, 1], [1, 0]], lams=[2, 0]).upper(0))  # the ceiling
        0.5
        """
        rate = np.asarray(as_interval(rate, "rate", 0, np.inf, allowed="numbers >= 0"))
        hull = _hull(np.append(self.rate, 0.0), np.append(self.distortion, self.ceiling))
        return np.interp(rate, hull[:, 0], hull[:, 1])


# --- what a reader asks ---


def rate_distortion(
    losses: Any,
    lam: float,
    weights: ArrayLike | None = None,
    tol: float = 1e-9,
    *,
    cost: ArrayLike | None = None,
    method: str = "newton",
) -> RateDistortion:
    """Minimise E[loss] + lam I(X;T) over gates, for losses (N, R) and input weights (N,), default
    uniform: P2 (26)-(29).

    Exact without iterating: lam at or above `critical_lambda` (and inf) is the best single expert
    at rate 0. lam = 0 is the best expert for every input, at the smallest rate among such gates.
    `method` is `"newton"` or `"blahut-arimoto"`. Warns with `ConvergenceWarning` where the
    certificate does not reach `tol`; raises ValueError for a table with entries that are not
    finite, bad weights or costs, lam < 0, tol <= 0 or another method.

    >>> point = rate_distortion([[0, 1], [1, 0]], lam=0.5)
    >>> round(point.distortion, 4), round(point.rate, 4)  # the error p of log(1/p - 1) = 1/lam
    (0.1192, 0.3278)
    """
    lam = as_number(lam, "lam", 0, np.inf, allowed="a number >= 0, or inf")
    tol = _check_tol(tol)
    method = _check_method(method)
    point = _solve(_table(losses, weights, cost), lam, tol, method)
    _warn_if_missed([point], tol)
    return point


def rate_distortion_curve(
    losses: Any,
    lams: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    tol: float = 1e-9,
    *,
    band: float | None = None,
    cost: ArrayLike | None = None,
    method: str = "newton",
) -> RateDistortionCurve:
    """The curve at every lam, in the given order, or adapted until its certified band is nowhere
    wider than `band`.

    With neither, the grid goes from the critical lam, where the rate leaves 0, down three decades
    below the spread of the losses, and ends at 0 exactly. With `band` (in units of loss), from the
    two ends on, the chord that may lie furthest above the curve is split at the price of its own
    slope, until none may lie more than `band` above; on a straight piece the first chord is the
    last. Where that takes many points or long, a `LongSearchWarning` says how many are coming, and
    after `MOST_POINTS` it ends with a warning that says which band was reached. Raises and warns as
    `rate_distortion` does, and raises ValueError where both are given.

    >>> curve = rate_distortion_curve([[0, 1], [1, 0]], lams=[2, 0.5, 0])
    >>> curve.rate.round(4).tolist(), curve.distortion.round(4).tolist()
    ([0.0303, 0.3278, 0.6931], [0.3775, 0.1192, 0.0])
    """
    table = _table(losses, weights, cost)
    tol = _check_tol(tol)
    method = _check_method(method)
    if band is not None:
        if lams is not None:
            raise ValueError("lams and band are both given; allowed is one of them")
        band = as_number(band, "band", ABOVE_0, BELOW_INF, allowed="a positive number")
        points = _banded(table, band, tol, method)
    else:
        if lams is None:
            lams = default_lams(_critical_lambda(table), table.spread)
        lams = np.atleast_1d(as_interval(lams, "lams", 0, np.inf, allowed="numbers >= 0, or inf"))
        if lams.ndim != 1 or lams.size == 0:
            raise ValueError(
                f"lams has shape {lams.shape}; allowed is a list of at least one value"
            )
        points = _followed(table, lams, tol, method)
    _warn_if_missed(points, tol)
    return _curve(table, points)


def distortion_at_rate(
    losses: Any,
    rate: float,
    weights: ArrayLike | None = None,
    tol: float = 1e-9,
    *,
    cost: ArrayLike | None = None,
) -> float:
    """D(rate): the least expected loss of a gate with I(X;T) <= rate nats, P1 (5), P2 (27).

    The answer is a chord of the curve, so it is achievable, and at most a relative 1e-9 of the
    curve's height (plus 2e-14 nats at the price lam there) above the truth: the dual line of the
    chord's own slope proves it. Points on the way are solved to `tol` or as far as that takes.
    Raises and warns as `rate_distortion` does, and raises ValueError for a rate < 0.

    >>> from expertbank import binary_entropy_inverse
    >>> least = distortion_at_rate([[0, 1], [1, 0]], 0.2)
    >>> fair_bit = float(binary_entropy_inverse(np.log(2) - 0.2))  # Shannon's answer
    >>> round(least, 6), round(fair_bit, 6)
    (0.194827, 0.194827)
    """
    table = _table(losses, weights, cost)
    tol = _check_tol(tol)
    rate = as_number(rate, "rate", 0, np.inf, allowed="a number >= 0")
    left = _alone(table, np.inf)
    right = _solve(table, 0.0, tol)
    if rate >= right.rate:
        return right.distortion
    if rate == 0:
        return left.distortion
    height = left.distortion - right.distortion
    while True:
        lam = _chord_price(left, right)
        if lam is None:
            _warn_if_missed([left, right], tol)
            break
        # a high price makes much of a small certificate
        needed = min(tol, max(1e-10 * height / lam, LEAST_CERTIFICATE))
        middle, above = _between(table, left, right, lam, needed)
        # one that is not between the two cannot bring them closer: they differ by rounding
        is_between = left.rate < middle.rate < right.rate
        if above <= 5e-10 * height + lam * needed or not is_between:
            _warn_if_missed([middle], tol)
            break
        if middle.rate <= rate:
            left = middle
        else:
            right = middle
    ends = (left.distortion, min(left.distortion, right.distortion))
    return float(np.interp(rate, (left.rate, right.rate), ends))


def critical_lambda(
    losses: Any, weights: ArrayLike | None = None, *, cost: ArrayLike | None = None
) -> float:
    """The least lam at which one expert for all inputs is optimal and the gate's rate is 0.

    The best expert t* is optimal exactly when max_t E exp(-(l_t - l_t*)/lam) <= 1. It is inf where
    another expert ties with t* on average without being its copy, and 0 where t* is best on every
    input. Raises ValueError as `rate_distortion` does.

    >>> losses = [[0, 1], [1, 0], [1, 0]]
    >>> critical = critical_lambda(losses)
    >>> round(critical, 4), rate_distortion(losses, critical).rate  # 1 / log 2
    (1.4427, 0.0)
    """
    return _critical_lambda(_table(losses, weights, cost))


def default_lams(critical: float, spread: float, points: int = 40) -> np.ndarray:
    """A grid (points,) from the critical lam (or 100 spreads, if that is smaller) down to a
    thousandth of that or of the spread, whichever is smaller, then 0.

    >>> default_lams(2.0, 1.0, points=5).round(3).tolist()
    [2.0, 0.159, 0.013, 0.001, 0.0]
    """
    if critical == 0 or spread == 0:
        return np.array([0.0])
    top = min(critical, 100 * spread)
    return np.append(np.geomspace(top, 1e-3 * min(top, spread), points - 1), 0.0)


def routing(losses: Any, point: RateDistortion, *, cost: ArrayLike | None = None) -> Any:
    """The optimal gate p(t|x), (N, R), of one solved point: proportional to marginal *
    exp(-loss/lam), P2 (28).

    It lies where the losses lie; for a dask array it is computed chunk by chunk, when it is asked
    for. Raises ValueError for a curve in place of a point, or a point of another table's experts.

    >>> losses = [[0, 1], [1, 0]]
    >>> routing(losses, rate_distortion(losses, lam=0.5)).round(4).tolist()
    [[0.8808, 0.1192], [0.1192, 0.8808]]
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
def _routing(losses: Any, point: RateDistortion, cost: np.ndarray | None) -> Any:
    # among the experts in use: an input of weight 0 may lose so much with all of them that
    # exp(-loss/lam) is 0
    used = np.flatnonzero(point.marginal)
    shares = point.marginal[used]
    block = Block(losses[:, used].T, np.ones(len(losses)), None if cost is None else cost[used])
    block.set_price(point.lam)
    block.evaluate(shares)
    gate = block.xp.zeros_like(losses, dtype=block.xp.float64)
    gate[:, used] = (block.kernel * block.beside(shares)[:, None] / block.z).T
    return gate


# --- the price at which the rate leaves 0 ---


@quietly
def _critical_lambda(table: Table) -> float:
    least, most, mean, size = table.differences()
    critical = 0.0
    rising = least < 0
    done = []
    while rising.any():
        # the closest competitor on average first: its lambda is most often the largest
        t = int(min(np.flatnonzero(rising), key=mean.__getitem__))
        own = _challenge(table, t, -least[t], most[t], mean[t], size[t])
        critical = max(critical, own)
        if critical == np.inf:
            break
        done.append(t)
        rising = table.challengers(critical)
        rising[done] = False
    return float(critical)


def _challenge(table: Table, t: int, gain: float, most: float, mean: float, size: float) -> float:
    """The lam above which expert t cannot improve on the best expert: E exp(-difference/lam) =
    1."""
    # in units of the gain, the largest loss that t would save
    most = most / gain
    mean = mean / gain
    size = size / gain
    if mean <= 1e-14 * most:
        return np.inf  # as good on average, and better somewhere

    def slope(price):  # of log E exp(-price * difference) / price: increasing, and -mean at 0
        if price <= 1:  # small exponents: log of the mean would round the difference to 1 away
            return np.log1p(table.challenge(t, price / gain, 0.0)) / price
        return (price + np.log(table.challenge(t, price / gain, price))) / price

    # e^x - 1 - x <= (e/2) x^2 for x <= 1, so the slope is negative at `low`
    low = mean / size / (2 * max(1.0, most))
    if slope(low) >= 0:
        return np.inf  # the means differ by less than rounding
    high = low
    while slope(high) < 0:
        high *= 2
    return gain / scipy.optimize.brentq(slope, low, high, xtol=1e-300, rtol=1e-14)


# --- points, one by one and along a curve ---


def _table(losses: Any, weights: ArrayLike | None, cost: ArrayLike | None) -> Table:
    """What is asked several questions is prepared once, by `table_of`, and given in place of the
    losses."""
    if isinstance(losses, Table):
        return losses
    return table_of(losses, weights, cost)


def _alone(table: Table, lam: float) -> RateDistortion:
    """The best single expert for all inputs."""
    share = np.eye(table.n_experts)[table.best]
    return RateDistortion(
        rate=0.0,
        distortion=table.ceiling,
        lam=lam,
        marginal=share,
        certificate=0.0,
        iterations=0,
    )


@quietly
def _solve(
    table: Table, lam: float, tol: float, method: str = "newton", start: np.ndarray | None = None
) -> RateDistortion:
    """The point at one price, from a start (R,) on the simplex, default uniform."""
    if lam == np.inf:
        return _alone(table, lam)
    table.set_price(lam)
    if start is None:
        alone = _alone(table, lam)
        if _is_best_alone(table, lam, alone.marginal):
            return alone
        start = np.full(table.n_experts, 1 / table.n_experts)
    x, f, g, certificate, steps = OPTIMISERS[method](table, start, tol)
    # rate and distortion of the gate x_t K_ti / z_i, whose own marginal is x g
    marginal = x * g
    excess = table.mean_excess(x)
    # the gradient of an expert that is in use is not as small
    rate = -f - float(marginal @ np.log(np.maximum(g, 1e-300)))
    if lam > 0:
        rate -= excess / lam
    return RateDistortion(
        rate=max(0.0, rate),
        distortion=table.floor + excess,
        lam=lam,
        marginal=marginal / marginal.sum(),
        certificate=certificate,
        iterations=steps,
    )


def _is_best_alone(table: Table, lam: float, share: np.ndarray) -> bool:
    """Whether the best single expert, with this share (R,), is optimal at the price that is set."""
    _, gradient, _ = table.evaluate(share)
    if not gradient.max() <= 1 + 1e-9:
        return False
    # clearly below 1 is below 1, where no exponential comes near the smallest floats
    beside = np.delete(gradient, table.best)
    if table.spread < 500 * lam and (beside < 1 - 1e-9).all():
        return True
    return not table.challengers(lam).any()


def _followed(table: Table, lams: np.ndarray, tol: float, method: str) -> list[RateDistortion]:
    """Points at the given prices, solved from the highest down, each from where the ones before it
    lead."""
    points = {}
    before = None
    last = None
    for lam in sorted(set(lams.tolist()), reverse=True):
        start = None if last is None else _extrapolated(before, last)
        point = _solve(table, lam, tol, method, start)
        points[lam] = point
        if point.rate > 0:
            before = last
            last = point.marginal
    return [points[lam] for lam in lams.tolist()]


def _extrapolated(before: np.ndarray | None, last: np.ndarray) -> np.ndarray:
    """Where two marginals (R,) lead, as a start for the next: an expert in use keeps a tenth."""
    start = last
    if before is not None:
        start = np.maximum(2 * last - before, last / 10)
    return start / start.sum()


def _chord_price(left: RateDistortion, right: RateDistortion) -> float | None:
    """Minus the slope of the chord of two points; None where it does not fall as one of a convex
    curve does, between the prices of its ends: then they differ by rounding."""
    fall = left.distortion - right.distortion
    rise = right.rate - left.rate
    if not (fall > 0 and rise > 0):
        return None
    lam = float(fall) / float(rise)
    return lam if right.lam < lam < left.lam else None


def _between(
    table: Table,
    left: RateDistortion,
    right: RateDistortion,
    lam: float,
    tol: float,
    method: str = "newton",
) -> tuple[RateDistortion, float]:
    """The point at the price of the chord of two points, and the chord's height above it."""
    start = (left.marginal + right.marginal) / 2
    middle = _solve(table, lam, tol, method, start)
    on_chord = left.distortion + lam * left.rate
    return middle, on_chord - (middle.distortion + lam * middle.rate)


def _banded(table: Table, band: float, tol: float, method: str) -> list[RateDistortion]:
    """Points from the best single expert to lam = 0 with chords nowhere more than `band` above the
    lower bound: of at most `MOST_POINTS`, split where it is widest."""
    left = _alone(table, np.inf)
    right = _solve(table, 0.0, tol, method)
    points = [left, right]
    # a heap of (minus the most that a chord may lie above, a number that tells ties apart, chord)
    wide = [(-np.inf, 0, (left, right))]
    times = []
    while wide and len(points) < MOST_POINTS:
        _, _, (left, right) = heapq.heappop(wide)
        lam = _chord_price(left, right)
        if lam is None:
            continue
        began = time.monotonic()
        middle, above = _between(table, left, right, lam, tol, method)
        times.append(time.monotonic() - began)
        points.append(middle)
        width = above + lam * middle.certificate
        # a point that is not between the two can narrow the band no further
        if width > band and left.rate < middle.rate < right.rate:
            # neither half lies higher than the whole
            heapq.heappush(wide, (-width, len(points), (left, middle)))
            heapq.heappush(wide, (-width, -len(points), (middle, right)))
        if len(points) == FIRST_POINTS:
            # a busy machine delays single points: the median is what a point takes
            _say_what_is_coming(band, [-entry[0] for entry in wide], float(np.median(times)))
    if wide:
        message = (
            f"band = {band:g} is not reached with {MOST_POINTS:,} points, the most that are tried: "
            f"D is certain to {-wide[0][0]:.3g} everywhere"
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    return sorted(points, key=lambda point: -point.lam)


def _say_what_is_coming(band: float, widths: list[float], seconds: float) -> None:
    """A warning where many points are coming, or slow ones, after the first `FIRST_POINTS`, which
    took so many seconds each."""
    # where D is smooth, halves are a quarter as wide: a chord of width w takes one point, or from
    # w = band on one more than two of w / 4, which is about 2.9 sqrt(w / band)
    coming = sum(1.44 * math.sqrt(width / band) for width in widths)
    n_points = min(FIRST_POINTS + coming, MOST_POINTS)
    left = seconds * (n_points - FIRST_POINTS)
    if n_points > MANY_POINTS or left > LONG_SECONDS:
        message = (
            f"band = {band:g} takes about {FIRST_POINTS + coming:,.0f} points, of which at most "
            f"{MOST_POINTS:,} are tried: some {left:.0f} seconds more"
        )
        warnings.warn(message, LongSearchWarning, stacklevel=4)


def _curve(table: Table, points: Sequence[RateDistortion]) -> RateDistortionCurve:
    return RateDistortionCurve(
        rate=np.array([point.rate for point in points]),
        distortion=np.array([point.distortion for point in points]),
        lam=np.array([point.lam for point in points]),
        marginal=np.array([point.marginal for point in points]),
        certificate=np.array([point.certificate for point in points]),
        iterations=np.array([point.iterations for point in points]),
        ceiling=table.ceiling,
        floor=table.floor,
    )


def _hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The corners (H, 2) of the lower convex hull of points in the plane, left to right, down to
    its lowest point."""
    corners = []
    for point in sorted(zip(x.tolist(), y.tolist())):
        while len(corners) > 1 and _turn(corners[-2], corners[-1], point) <= 0:
            corners.pop()
        corners.append(point)
    hull = np.array(corners)
    return hull[: 1 + np.argmin(hull[:, 1])]


def _turn(a: tuple, b: tuple, c: tuple) -> float:
    """Positive where the path a, b, c turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


# --- arguments, and answers that are not good enough ---


def _warn_if_missed(points: Sequence[RateDistortion], tol: float) -> None:
    """A warning where one of the points is not certified to `tol`."""
    missed = [point for point in points if not point.certificate <= tol]  # NaN would be one of them
    if missed:
        worst = max(missed, key=lambda point: point.certificate)
        message = (
            f"lam = {worst.lam:.6g}: certificate {worst.certificate:.3g} above tol = {tol:.3g} "
            f"after {worst.iterations} iterations"
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)


def _check_method(method: str) -> str:
    if method not in tuple(OPTIMISERS):
        raise ValueError(f"method is {method!r}; allowed are {', '.join(OPTIMISERS)}")
    return method


def _check_tol(tol: float) -> float:
    return as_number(tol, "tol", ABOVE_0, BELOW_INF, allowed="a positive number of nats")
