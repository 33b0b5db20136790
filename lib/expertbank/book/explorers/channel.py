"""Scenes of the part *The gate as a channel*: P1's two experiments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from expertbank.book.explorers.common import (
    ALPHA_STOPS,
    FIRST,
    FOURTH,
    LIMIT,
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
from expertbank.channels import bsc_distortion_rate, bsc_rate
from expertbank.synthetic import bsc_selection, bsc_threshold, moe_bank_losses

# --- the alpha-mixture ---


class _AlphaMixture:
    """The learner on datasets that grow, so that a dial for m changes m and not the luck."""

    def __init__(self, pool: np.ndarray, test: np.ndarray, n_datasets: int, seed: int) -> None:
        self.sizes = doublings(64, 1024, 13)
        self.samples = GrowingSamples(pool, self.sizes, n_datasets, seed=seed)
        self.risks = pool.mean(axis=0)
        self.shift = test.mean(axis=0) - self.risks
        self.span = np.linspace(0, 1.02 * np.log(pool.shape[1]), 201)
        top = float(xu_raginsky_bound(self.span[-1], int(self.sizes[0]), sigma=1))
        self.x = Axis("information I(S;W), nats", 0, float(self.span[-1]))
        self.y = Axis("generalisation gap", -0.1 * top, top)
        self.along = lru_cache(maxsize=128)(self._along)

    def _along(self, sample_size: float, candidates: int) -> tuple[Winners, list[Series], Track]:
        risks = self.samples.risks(sample_size)[:, :candidates]
        found = winners_of(risks, self.risks[:candidates])
        information = found.information(ALPHA_STOPS)
        gap = found.gap * ALPHA_STOPS
        error = 2 * found.gap_error * ALPHA_STOPS
        test_gap = gap + found.marginal(ALPHA_STOPS) @ self.shift[:candidates]
        bound = xu_raginsky_bound(self.span, int(sample_size), sigma=1)
        series = [
            Series("bound, σ = 1", self.span, bound, look=LIMIT),
            Series("bound, σ = 1/2", self.span, bound / 2, look=SECOND),
            Series("± 2 standard errors", information, gap - error, "band", FIRST, gap + error),
            Series("gap, pool as population", information, gap, look=FIRST),
            Series("gap, separate test set", information, test_gap, look=FOURTH),
        ]
        return found, series, Track("alpha", ALPHA_STOPS, information, gap)

    def scene(self, alpha: float, sample_size: float, candidates: float) -> Scene:
        found, series, track = self.along(sample_size, int(candidates))
        information = float(found.information(alpha)[0])
        gap = alpha * found.gap
        shift = float(found.marginal(alpha)[0] @ self.shift[: int(candidates)])
        bound = float(xu_raginsky_bound(information, int(sample_size), sigma=1))
        ring = Mark("learner, up to both bounds", information, gap, low=gap, high=bound)
        readings = [
            Reading("information I(S;W)", information, 3, "nats"),
            Reading("gap", gap, 4, error=alpha * found.gap_error),
            Reading("gap on the test set", gap + shift, 4),
            Reading("bound with σ = 1", bound, 4),
            Reading("bound with σ = 1/2", bound / 2, 4),
        ]
        return Scene([Panel(self.x, self.y, series, [ring], track)], readings)


def synthetic_bank(
    dimension: int = 20, n_experts: int = 4, n_candidates: int = 25, rng: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Losses of P1's candidates on a pool (20000, R) and on a test set (10000, R), by default those
    of the chapter's main run."""
    losses = moe_bank_losses(dimension, n_experts, n_candidates, n_inputs=30_000, rng=rng)
    return losses[:20_000], losses[20_000:]


def explore_alpha_mixture(
    pool: np.ndarray | None = None,
    test: np.ndarray | None = None,
    n_datasets: int = 4000,
    seed: int = 0,
) -> Explorer:
    """The plane of information and gap by alpha and sample size m; with a kernel also by the number
    of candidates.

    Losses (N, R) of the pool and of a separate test set; without them those of the chapter's main
    run.
    """
    if pool is None or test is None:
        pool, test = synthetic_bank()
    learner = _AlphaMixture(pool, test, n_datasets, seed)
    most = pool.shape[1]
    alt = (
        "Generalisation gap against I(S;W): the alpha-mixture as a rising line, two bounds as "
        "curves above it. A ring marks the chosen alpha, and a line rises from it to the bounds."
    )
    dials = {
        "alpha": alpha_dial(),
        "sample_size": Dial("sample size m", 256, learner.sizes, (64, 1024, 1)),
        "candidates": Dial("candidates", most, live=(2, most, 1)),
    }
    return Explorer("alpha_mixture", learner.scene, dials, alt)


# --- the binary symmetric channel ---

NINE_CANDIDATES = np.linspace(0.05, 0.45, 9)
HIGHEST_RISK = 0.52


def _limited(risk: ArrayLike) -> np.ndarray:
    """What stays within the picture, which a bound may leave."""
    return np.minimum(risk, HIGHEST_RISK)


class _SymmetricChannel:
    """P1's experiment 2 in exact sums: `points` are information, rate, risk, D(rate) and the term
    of (13), (5, P)."""

    def __init__(self, candidates: np.ndarray) -> None:
        self.candidates = candidates
        betas = with_stops(np.geomspace(0.01, 100, 61), 0, 0.03, 0.3, 3, 30)
        crossings = [bsc_threshold(candidates, p, 100) for p in (0.1, 0.2, 0.3, 0.4)]
        self.betas = with_stops(betas, *[beta for beta in crossings if 0 < beta < 100])
        p = np.linspace(0, 0.5, 201)
        self.frontier = Series("D(R)", bsc_rate(p), p, look=LIMIT)
        self.x = Axis("mean gating rate, nats", 0, float(np.log(2)))
        self.y = Axis("mean risk", 0, HIGHEST_RISK)
        self.along = lru_cache(maxsize=256)(self._along)

    def points(self, betas: Sequence[float], crossover: float, sample_size: float) -> np.ndarray:
        m = int(sample_size)
        found = [bsc_selection(self.candidates, crossover, m, beta) for beta in betas]
        information, rate, risk = np.transpose([(x.information, x.rate, x.risk) for x in found])
        term = xu_raginsky_bound(information, m, sigma=1)
        return np.array([information, rate, risk, bsc_distortion_rate(rate), term])

    def _along(self, crossover: float, sample_size: float) -> tuple[np.ndarray, list, Track]:
        points = self.points(self.betas, crossover, sample_size)
        _, rate, risk, least, term = points
        series = [
            self.frontier,
            Series("(13) at the rate of the learner", rate, _limited(least + term), look=SECOND),
            Series("learner, by β", rate, risk, look=FIRST),
        ]
        return points, series, Track("beta", np.array(self.betas), rate, risk)

    def scene(self, beta: float, crossover: float, sample_size: float) -> Scene:
        points, series, track = self.along(crossover, sample_size)
        if beta in self.betas:
            point = points[:, self.betas.index(beta)]
        else:
            point = self.points([beta], crossover, sample_size)[:, 0]
        information, rate, risk, least, term = point.tolist()
        top = max(risk, float(_limited(least + term)))
        ring = Mark("learner, from D(R) to (13)", rate, risk, low=least, high=top)
        readings = [
            Reading("information I(S;W)", information, 3, "nats"),
            Reading("mean rate", rate, 3, "nats"),
            Reading("mean risk", risk, 4),
            Reading("above D(R) by", risk - least, 4),
            Reading("(13) allows above D(R)", term, 4),
            Reading("room under (13)", term - (risk - least), 4),
        ]
        return Scene([Panel(self.x, self.y, series, [ring], track)], readings)


def explore_bsc(candidates: ArrayLike = NINE_CANDIDATES) -> Explorer:
    """The plane of rate and risk of P1 experiment 2, by beta and the true crossover p*; with a
    kernel also by the sample size m. Every number is an exact sum."""
    learner = _SymmetricChannel(np.asarray(candidates, dtype=float))
    alt = (
        "Mean risk against mean gating rate: the falling curve D(R), the learner's line for rising "
        "inverse temperature beta just above it, and the bound (13) at each of its rates. A ring "
        "marks the chosen beta, and a line joins it to D(R) and to (13)."
    )
    crossovers = (np.arange(51) / 100).tolist()
    dials = {
        "beta": Dial("inverse temperature β", 1, learner.betas, (-2, 2, "log")),
        "crossover": Dial("true crossover p*", 0.1, crossovers, (0.0, 0.5, 0.005)),
        "sample_size": Dial("sample size m", 100, live=(20, 2500, 1)),
    }
    return Explorer("bsc", learner.scene, dials, alt)
