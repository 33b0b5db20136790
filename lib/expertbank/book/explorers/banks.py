"""Scenes of the parts *Finite banks on MNIST* and *A second look*."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from expertbank.book.claims import TABLE_2
from expertbank.book.explorers.common import (
    ALPHA_STOPS,
    FIRST,
    FOURTH,
    LIMIT,
    PAPER,
    SECOND,
    GrowingSamples,
    Winners,
    alpha_dial,
    doublings,
    winners_of,
    with_stops,
)
from expertbank.book.explorers.explorer import Dial, Explorer
from expertbank.book.explorers.scene import Axis, Mark, Panel, Reading, Scene, Series, Track
from expertbank.bounds import xu_raginsky_bound
from expertbank.rate_distortion import (
    RateDistortion,
    RateDistortionCurve,
    critical_lambda,
    rate_distortion,
    rate_distortion_curve,
)
from expertbank.shipped.bank import ExpertBank, load_bank
from expertbank.tables import Table, table_of

# --- the MNIST bank ---

MIDDLE_90 = (0.05, 0.95)
POOL = "population = pool"
TEST_SPLIT = "population = test split"
TABLE_2_CROSSES = [
    [Mark("P2, m = 256", alpha, row[name], "cross", PAPER) for alpha, row in TABLE_2.items()]
    for name in ("gap", "information")
]


def gap_quantiles(
    gaps: np.ndarray, winner: np.ndarray, alphas: np.ndarray, step: float
) -> np.ndarray:
    """The 5% and 95% quantiles (2, A) of the gap of one run of the alpha-mixture.

    From the gaps (M, R) of every expert and the winner (M,) on M datasets, without drawing W: the
    law is (1 - alpha) times that of all experts plus alpha times that of the winner. Between
    multiples of `step`, the unit in which a training risk can change, the law is interpolated.

    >>> gaps = np.array([[0.0, 1.0]])
    >>> gap_quantiles(gaps, np.array([1]), np.array([0.0, 1.0]), step=0.01).round(1) + 0  # no -0
    array([[0., 1.],
           [1., 1.]])
    """
    of_winner = np.sort(gaps[np.arange(len(gaps)), winner])
    of_all = np.sort(gaps, axis=None)
    grid = np.arange(of_all[0] - step, of_all[-1] + step, step)
    below_all = np.searchsorted(of_all, grid, side="right") / of_all.size
    below_winner = np.searchsorted(of_winner, grid, side="right") / of_winner.size
    found = []
    for alpha in alphas:
        below = (1 - alpha) * below_all + alpha * below_winner
        found.append(np.interp(MIDDLE_90, below, grid))
    return np.transpose(found)


class _BankLearner:
    """An alpha-mixture over a bank, on datasets that grow."""

    def __init__(self, bank: ExpertBank, n_datasets: int, seed: int) -> None:
        pool = bank.losses("train")
        self.risks = pool.mean(axis=0)
        self.shift = bank.losses("test").mean(axis=0) - self.risks
        self.sizes = doublings(64, 1024, 13)
        self.samples = GrowingSamples(pool, self.sizes, n_datasets, seed=seed)
        # the paper has one bank
        self.crosses = TABLE_2_CROSSES if bank.name == "mnist" else [[], []]
        self.alpha = Axis("α", 0, 1)
        self.gap = Axis("generalisation gap of a run", -0.1, 0.1)
        self.nats = Axis("information I(S;W), nats", 0, float(np.log(bank.n_experts)))
        self.along = lru_cache(maxsize=128)(self._along)

    def gaps(self, found: Winners, alpha: ArrayLike) -> dict[str, np.ndarray]:
        """Mean gaps (A,) by population."""
        own = found.gap * np.atleast_1d(alpha)
        return {POOL: own, TEST_SPLIT: own + found.marginal(alpha) @ self.shift}

    def _along(self, sample_size: float) -> tuple[Winners, list[Panel]]:
        """The panels without what stands at one alpha."""
        risks = self.samples.risks(sample_size)
        found = winners_of(risks, self.risks)
        populations = {POOL: self.risks, TEST_SPLIT: self.risks + self.shift}
        bands = []
        lines = []
        ends = np.array([0.0, 1.0])
        for (name, population), look in zip(populations.items(), (FIRST, FOURTH)):
            low, high = gap_quantiles(
                population - risks, risks.argmin(axis=1), ALPHA_STOPS, 1 / sample_size
            )
            bands.append(Series(f"90% of runs, {name}", ALPHA_STOPS, low, "band", look, high))
            lines.append(Series(f"mean, {name}", ends, self.gaps(found, ends)[name], look=look))
        information = found.information(ALPHA_STOPS)
        mean_gaps = self.gaps(found, ALPHA_STOPS)[POOL]
        tracks = [Track("alpha", ALPHA_STOPS, ALPHA_STOPS, y) for y in (mean_gaps, information)]
        curve = Series("information", ALPHA_STOPS, information)
        return found, [
            Panel(self.alpha, self.gap, [*bands, *lines], track=tracks[0], title="gap"),
            Panel(self.alpha, self.nats, [curve], track=tracks[1], title="information"),
        ]

    def scene(self, alpha: float, sample_size: float) -> Scene:
        found, panels = self.along(sample_size)
        nats = float(found.information(alpha)[0])
        gaps = {name: float(gap[0]) for name, gap in self.gaps(found, alpha).items()}
        bound = float(xu_raginsky_bound(nats, int(sample_size), sigma=1))
        rings = [
            [Mark("learner", alpha, gap) for gap in gaps.values()],
            [Mark("learner", alpha, nats)],
        ]
        marked = [
            replace(panel, marks=[*rings_here, *crosses])
            for panel, rings_here, crosses in zip(panels, rings, self.crosses)
        ]
        readings = [
            Reading("information I(S;W)", nats, 3, "nats"),
            Reading(f"mean gap, {POOL}", gaps[POOL], 4, error=alpha * found.gap_error),
            Reading(f"mean gap, {TEST_SPLIT}", gaps[TEST_SPLIT], 4),
            Reading("bound with σ = 1", bound, 4),
        ]
        return Scene(marked, readings)


def explore_mnist_bank(
    bank: ExpertBank | None = None, n_datasets: int = 5000, seed: int = 0
) -> Explorer:
    """Gap and information of an alpha-mixture over a bank against alpha, by alpha and sample size
    m, for both populations: means, and where 90% of single runs lie."""
    learner = _BankLearner(load_bank() if bank is None else bank, n_datasets, seed)
    alt = (
        "Left, the generalisation gap against alpha: two straight lines, one for each population, "
        "in wide bands that hold 90% of single runs, and the paper's values as crosses. Right, the "
        "information I(S;W), a convex rising curve. Rings mark the chosen alpha."
    )
    dials = {
        "alpha": alpha_dial(),
        "sample_size": Dial("sample size m", 256, learner.sizes, (64, 1024, 1)),
    }
    return Explorer("mnist_bank", learner.scene, dials, alt)


# --- Blahut-Arimoto curves ---

SERVES = 0.01


def point_at(
    table: Table, curve: RateDistortionCurve, lams: list[float], lam: float
) -> RateDistortion:
    """The point at a price: of the curve, where it is one of the curve's own, else solved."""
    if lam in lams:
        return curve.point(lams.index(lam))
    return rate_distortion(table, lam)


def supporting_line(
    point: RateDistortion, reach: float, floor: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Ends (2,) and (2,) of the line of slope -lam through a point of a curve, from rate 0 to where
    it meets the loss `floor` or the rate `reach`.

    >>> x, y = supporting_line(rate_distortion([[0, 1], [1, 0]], lam=0.5), reach=0.7)
    >>> x.round(3).tolist(), y.round(3).tolist()
    ([0.0, 0.566], [0.283, 0.0])
    """
    height = point.distortion + point.lam * point.rate
    end = min(reach, (height - floor) / point.lam)
    return np.array([0.0, end]), np.array([height, height - point.lam * end])


def drawn_curve(curve: RateDistortionCurve) -> Series:
    """D(R) as a line from rate 0 on."""
    order = np.argsort(curve.lam)[::-1]
    x = np.append(0, curve.rate[order])
    y = np.append(curve.ceiling, curve.distortion[order])
    return Series("D(R)", x, y, look=LIMIT)


class _PricedCurves:
    """D(R) of the first rows of a table, at the same prices for every number of rows."""

    def __init__(self, losses: np.ndarray, first: int, n_stops: int) -> None:
        self.losses = losses
        whole = np.rint(np.linspace(len(losses) / 40, len(losses), n_stops))
        self.numbers = with_stops(whole, first)
        criticals = [critical_lambda(losses[:number]) for number in (first, len(losses))]
        self.lams = with_stops(np.geomspace(1e-3, 10, 61), 15, 20, 50, 100, *criticals)
        self.solved = lru_cache(maxsize=128)(self._solved)
        # where a nat is cheapest a curve reaches furthest
        parts = [losses[: int(number)] for number in self.numbers]
        furthest = max(rate_distortion(part, self.lams[0]).rate for part in parts)
        highest = max(part.mean(axis=0).min() for part in parts)
        n_experts = losses.shape[1]
        self.experts = np.arange(n_experts)
        self.rate = Axis("rate I(X;T), nats", 0, 1.05 * furthest)
        self.loss = Axis("expected loss", 0, 1.1 * float(highest))
        self.expert = Axis("expert", -0.6, n_experts - 0.4)
        self.share = Axis("share of images served", 0, 1)

    def _solved(self, number: float) -> tuple[Table, RateDistortionCurve, Series, float]:
        table = table_of(self.losses[: int(number)])
        curve = rate_distortion_curve(table, self.lams)
        return table, curve, drawn_curve(curve), critical_lambda(table)

    def scene(self, lam: float, number: float) -> Scene:
        table, curve, frontier, critical = self.solved(number)
        point = point_at(table, curve, self.lams, lam)
        x, y = supporting_line(point, self.rate.high)
        line = Series("supporting line, slope −λ", x, np.minimum(y, self.loss.high), look=SECOND)
        ring = Mark("gate at this price", point.rate, point.distortion)
        track = Track("lam", np.array(self.lams), curve.rate, curve.distortion)
        bars = Series("share", self.experts, point.marginal, "bars")
        panels = [
            Panel(self.rate, self.loss, [frontier, line], [ring], track, "curve"),
            Panel(self.expert, self.share, [bars], title="who serves"),
        ]
        readings = [
            Reading("rate", point.rate, 4, "nats"),
            Reading("expected loss", point.distortion, 4),
            Reading("best single expert", curve.ceiling, 4),
            Reading("best expert of every image", curve.floor, 4),
            Reading("experts that serve at least 1%", (point.marginal >= SERVES).sum(), 0),
            Reading("price at which routing stops", critical, 2),
        ]
        return Scene(panels, readings)


def explore_blahut_arimoto(
    losses: np.ndarray | None = None, first: int = 2000, n_stops: int = 79
) -> Explorer:
    """Points of D(R) by lambda, with the supporting line and the share of each expert, for the
    first so many rows of a loss table (N, R), default MNIST's test split.

    Where two experts tie on average no price ends routing; then that price is infinite.
    """
    table = load_bank().losses("test") if losses is None else np.asarray(losses)
    first = min(first, len(table))
    curves = _PricedCurves(table, first, n_stops)
    alt = (
        "Left: expected loss against rate, a falling convex curve with its supporting line at the "
        "chosen price. Right: the share of images that each expert serves there."
    )
    rows = (int(curves.numbers[0]), len(table), 1)
    dials = {
        "lam": Dial("price λ of a nat", 1, curves.lams, (-3, 2, "log")),
        "number": Dial("test images, from the first on", first, curves.numbers, rows),
    }
    return Explorer("blahut_arimoto", curves.scene, dials, alt)
