"""Explorers of anyone's loss table: its D(R), and how far a selection from it fools itself.

Here are NumPy and SciPy alone: the same functions answer in a kernel, behind the command line and
in a page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import as_losses
from expertbank.book.explorers.banks import drawn_curve, point_at, supporting_line
from expertbank.book.explorers.common import (
    ALPHA_STOPS,
    FIRST,
    SECOND,
    THIRD,
    GrowingSamples,
    Winners,
    alpha_dial,
    doublings,
    winners_of,
)
from expertbank.book.explorers.dial import Dial
from expertbank.book.explorers.explorer import Explorer
from expertbank.book.explorers.scene import Axis, Mark, Panel, Reading, Scene, Series, Track
from expertbank.book.your_table.selection import width_of
from expertbank.bounds import union_bound, xu_raginsky_bound
from expertbank.rate_distortion import critical_lambda, rate_distortion_curve
from expertbank.tables import Table, merge_rows, table_of

PRICES = 61
PRICES_OF_LARGE = 25  # where each of them costs seconds
LARGE = 2_000_000  # numbers
CHEAPEST = 1e-3  # of the price from which on routing does not pay
BAND_POINTS = 121
MOST_DRAWS = 40_000_000  # points of datasets that are summed before the first picture


def facts(losses: ArrayLike) -> list[str]:
    """What a loss table (N, R) holds, in sentences.

    Raises ValueError for what is no table of finite numbers with two experts or more.

    >>> for sentence in facts([[0, 1], [1, 0], [1, 0]]):
    ...     print(sentence)
    3 inputs, 2 experts; all losses are 0 or 1: mistakes.
    2 of the rows are distinct.
    The best single expert is number 1, counted from 0: mean loss 0.3333.
    With the best expert of every input the mean loss is 0.
    """
    table = as_losses(losses)
    n_inputs, n_experts = table.shape
    if n_experts < 2:
        raise ValueError("losses has one column; two experts are the fewest to route between")
    low = float(table.min())
    high = float(table.max())
    kind = f"losses lie between {low:g} and {high:g}"
    if np.isin(table, (0, 1)).all():
        kind = "all losses are 0 or 1: mistakes"
    means = table.mean(axis=0)
    best = int(means.argmin())
    rows = merge_rows(table)[0]
    return [
        f"{n_inputs:,} inputs, {n_experts} experts; {kind}.",
        f"{len(rows):,} of the rows are distinct.",
        f"The best single expert is number {best}, counted from 0: mean loss {means[best]:.4g}.",
        f"With the best expert of every input the mean loss is {table.min(axis=1).mean():.4g}.",
    ]


class TableCurve:
    """D(R) of a loss table (N, R) at prices from where routing stops to paying down to a thousandth
    of it. `say` hears which price is being solved.

    >>> curve = TableCurve(np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> len(curve.points()), curve.critical
    (61, inf)
    """

    def __init__(self, losses: np.ndarray, say: Callable[[str], Any] | None = None) -> None:
        self.table = table_of(losses)
        self.critical = critical_lambda(self.table)
        top = self.critical
        if not 0 < top < np.inf:
            # one expert is best everywhere, or two tie on average: prices of the losses' own size
            top = float(np.ptp(losses, axis=1).mean())
        if top == 0:
            top = 1.0
        n_prices = PRICES if losses.size <= LARGE else PRICES_OF_LARGE
        self.lams = np.geomspace(CHEAPEST * top, top, n_prices).tolist()
        if say is not None:
            _tell_prices(self.table, n_prices, say)
        self.curve = rate_distortion_curve(self.table, self.lams)
        reach = 1.05 * max(float(self.curve.rate.max()), 1e-6)
        room = self.curve.ceiling - self.curve.floor
        if room == 0:
            room = 1.0
        self.x = Axis("rate I(X;T), nats per input", 0, reach)
        self.y = Axis("mean loss", self.curve.floor - 0.05 * room, self.curve.ceiling + 0.05 * room)
        rates = np.linspace(0, float(self.curve.rate.max()), BAND_POINTS)
        band = (self.curve.lower(rates), self.curve.upper(rates))
        self.series = [
            Series("certified: D(R) lies here", rates, band[0], "band", FIRST, band[1]),
            replace(drawn_curve(self.curve), name="D(R), the best loss at a rate", look=FIRST),
        ]
        self.track = Track("lam", np.array(self.lams), self.curve.rate, self.curve.distortion)
        self.width = float(np.max(band[1] - band[0]))

    def scene(self, lam: float) -> Scene:
        curve = self.curve
        point = point_at(self.table, curve, self.lams, lam)
        ends = supporting_line(point, self.x.high, self.y.low)
        line = Series("what one more nat would buy", *ends, look=SECOND)
        marks = [
            Mark("gate at this price", point.rate, point.distortion),
            Mark("best single expert", 0, curve.ceiling, "rule", THIRD),
            Mark("best expert of every input", 0, curve.floor, "rule", THIRD),
        ]
        readings = [
            Reading("rate", point.rate, 4, "nats"),
            Reading("mean loss", point.distortion, -4),
            Reading("certificate", point.certificate, -2, "nats"),
            Reading("best single expert", curve.ceiling, -4),
            Reading("best expert of every input", curve.floor, -4),
            Reading("price at which routing stops", self.critical, -4),
            Reading("width of the certified band", self.width, -2),
        ]
        return Scene([Panel(self.x, self.y, [*self.series, line], marks, self.track)], readings)

    def points(self) -> list[list[float]]:
        """Price, rate in nats, loss and certificate in nats of every point."""
        curve = self.curve
        columns = [curve.lam, curve.rate, curve.distortion, curve.certificate]
        return np.transpose(columns).tolist()

    def explorer(self) -> Explorer:
        """The scenes by the price of a nat."""
        alt = (
            "Mean loss against nats of routing per input: a falling convex curve from the best "
            "single expert towards the best expert of every input, with a ring at the chosen price "
            "of a nat."
        )
        low = np.log10(self.lams[0])
        high = np.log10(self.lams[-1])
        # where a quarter of the nats is spent that the cheapest price buys
        rates = self.curve.rate
        start = self.lams[int(np.abs(rates - rates.max() / 4).argmin())]
        dials = {"lam": Dial("price λ of a nat", start, self.lams, (low, high, "log"))}
        return Explorer("your_curve", self.scene, dials, alt)


def _tell_prices(table: Table, n_prices: int, say: Callable[[str], Any]) -> None:
    """Let a table say which price is being solved."""
    plain = table.set_price
    places = count(1)

    def set_price(lam: float) -> None:
        place = next(places)
        if place <= n_prices:
            say(f"Solving price {place} of {n_prices} of the curve")
        plain(lam)

    table.set_price = set_price


def explore_curve(losses: ArrayLike) -> Explorer:
    """The certified D(R) of a loss table (N, R) of finite numbers, by the price of a nat.

    >>> explorer = explore_curve([[0, 1], [1, 0]])
    >>> [reading.name for reading in explorer.scene(lam=0.5).readings][:2]
    ['rate', 'mean loss']
    """
    return TableCurve(as_losses(losses)).explorer()


class _Choice:
    """An alpha-mixture over the experts of a table, on datasets that grow."""

    def __init__(self, losses: np.ndarray, n_datasets: int) -> None:
        # a loss in [a, b] is sub-Gaussian with sigma = (b - a)/2, and so every bound scales
        self.width = width_of(losses)
        self.risks = losses.mean(axis=0)
        self.n_experts = losses.shape[1]
        self.sizes = doublings(16, 1024, 10)
        self.samples = GrowingSamples(losses, self.sizes, n_datasets)
        self.alpha = Axis("α, weight of the data", 0, 1)
        whole = [winners_of(self.samples.risks(size), self.risks) for size in self.sizes]
        most = max(float(found.information(1)[0]) for found in whole)
        if most == 0:
            # one expert always wins
            most = float(np.log(self.n_experts))
        self.gap = Axis("generalisation gap", 0, 1.05 * float(self._bound(most, 64)))
        self.nats = Axis("information I(S;W), nats", 0, 1.05 * most)
        self.along = lru_cache(maxsize=128)(self._along)

    def _bound(self, information: ArrayLike, sample_size: float) -> np.ndarray:
        bound = xu_raginsky_bound(information, int(sample_size), sigma=self.width / 2)
        return np.asarray(bound, dtype=float)

    def _along(self, sample_size: float) -> tuple[Winners, list[Panel]]:
        """The panels without what stands at one alpha."""
        found = winners_of(self.samples.risks(sample_size), self.risks)
        information = found.information(ALPHA_STOPS)
        gaps = found.gap * ALPHA_STOPS
        bound = np.minimum(self._bound(information, sample_size), self.gap.high)
        series = [
            Series("bound of Theorem 1", ALPHA_STOPS, bound, look=SECOND),
            Series("gap", ALPHA_STOPS, gaps, look=FIRST),
        ]
        tracks = [Track("alpha", ALPHA_STOPS, ALPHA_STOPS, y) for y in (gaps, information)]
        told = Series("information", ALPHA_STOPS, information, look=FIRST)
        return found, [
            Panel(self.alpha, self.gap, series, track=tracks[0], title="what it overfits"),
            Panel(self.alpha, self.nats, [told], track=tracks[1], title="what it reveals"),
        ]

    def scene(self, alpha: float, sample_size: float) -> Scene:
        found, (gaps, told) = self.along(sample_size)
        nats = float(found.information(alpha)[0])
        gap = found.gap * alpha
        bound = float(self._bound(nats, sample_size))
        union = self.width * float(union_bound(self.n_experts, int(sample_size)))
        top = min(bound, self.gap.high)
        rings = (
            Mark("learner, up to the bound", alpha, gap, low=gap, high=top),
            Mark("learner, up to the bound", alpha, nats),
        )
        panels = [replace(panel, marks=[ring]) for panel, ring in zip((gaps, told), rings)]
        readings = [
            Reading("information I(S;W)", nats, 3, "nats"),
            Reading("gap", gap, -3, error=alpha * found.gap_error),
            Reading("bound of Theorem 1", bound, -3),
            Reading("bound over gap", bound / gap if gap > 0 else np.nan, -2),
            Reading("union bound", union, -3),
        ]
        return Scene(panels, readings)


def explore_choice(losses: ArrayLike, n_datasets: int = 2000) -> Explorer:
    """What an alpha-mixture reveals and overfits when it selects an expert of a loss table (N, R)
    by m samples from it: by alpha and m. The table is the population.

    Raises ValueError where the datasets hold more numbers than a page should wait for.
    """
    table = as_losses(losses)
    n_draws = 1024 * n_datasets
    if n_draws > MOST_DRAWS:
        raise ValueError(f"n_datasets is {n_datasets:,}; at most {MOST_DRAWS // 1024:,} are drawn")
    choice = _Choice(table, n_datasets)
    alt = (
        "Left, the mean generalisation gap against alpha, a straight line below the curved bound "
        "of Theorem 1. Right, the information I(S;W), a convex rising curve. Rings mark alpha."
    )
    dials = {
        "alpha": alpha_dial(1),
        "sample_size": Dial("sample size m", 256, choice.sizes, (16, 1024, 1)),
    }
    return Explorer("your_choice", choice.scene, dials, alt)
