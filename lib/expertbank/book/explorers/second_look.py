"""Scenes of the part *A second look*."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.special import entr, xlog1py, xlogy

from expertbank.book.claims import CLAIMS
from expertbank.book.explorers.common import (
    FIRST,
    FOURTH,
    LIMIT,
    PAPER,
    SECOND,
    THIRD,
    GrowingSamples,
    alpha_dial,
    doublings,
    winners_of,
    with_stops,
)
from expertbank.book.explorers.explorer import Dial, Explorer
from expertbank.book.explorers.scene import Axis, Mark, Panel, Reading, Scene, Series, Track
from expertbank.bounds import (
    BY_COUNTS,
    BY_INFORMATION,
    BY_THE_GAP,
    rung_kind,
    xu_raginsky_bound,
)
from expertbank.information import (
    kl_divergence,
    log_choices,
    miller_madow_bias,
    mutual_information,
)
from expertbank.ladder import LadderExperiment
from expertbank.learners import (
    empirical_risks,
    gibbs_posterior,
    mix_with_uniform,
    top_k_uniform,
)
from expertbank.shipped.bank import ExpertBank, load_bank

# --- estimators ---

MOST_DATASETS = 3000
ESTIMATOR_LOOKS = {"plug-in": FIRST, "Miller-Madow": SECOND, "delta": THIRD, "jackknife": LIMIT}


def winner_counts(shares: np.ndarray, n_datasets: float) -> np.ndarray:
    """How many experts are expected to win k of M datasets, (M + 1,), for shares (R,).

    >>> winner_counts(np.array([0.5, 0.5]), 2).round(4).tolist()  # twice (1/4, 1/2, 1/4)
    [0.5, 1.0, 0.5]
    """
    wins = np.arange(n_datasets + 1)
    share = shares[:, None]
    log_chances = xlogy(wins, share) + xlog1py(n_datasets - wins, -share)
    return np.exp(log_choices(n_datasets, wins) + log_chances).sum(axis=0)


def expected_biases(counts: np.ndarray, shares: np.ndarray, alpha: float) -> dict[str, float]:
    """Bias in nats of each estimate of `information_estimates` for the alpha-mixture, exactly.

    An estimate is a sum over experts of functions of how often each wins, a binomial variable: the
    expectation needs `counts` (M + 1,) of `winner_counts` alone. Of two datasets that two experts
    win by a fair coin, half give 0 in place of log 2:

    >>> shares = np.array([0.5, 0.5])
    >>> round(expected_biases(winner_counts(shares, 2), shares, alpha=1)["plug-in"], 4)
    -0.3466
    """
    m = len(counts) - 1
    n_experts = len(shares)
    wins = np.arange(m + 1)
    uniform = (1 - alpha) / n_experts

    def entropies(won: np.ndarray, of: int) -> np.ndarray:
        return entr(uniform + alpha * won / of)

    truth = entr(uniform + alpha * shares).sum()
    plug_in = float(counts @ entropies(wins, m) - truth)
    # what the delta estimate adds
    share = wins / m
    chance = uniform + alpha * share
    variance = alpha**2 * share * (1 - share)
    relative = np.divide(variance, chance, out=np.zeros(m + 1), where=chance > 0)
    added = float(counts @ relative) / (2 * m)
    # the jackknife leaves out one dataset, which takes a win from its winner
    kept = entropies(np.minimum(wins, m - 1), m - 1)
    less = entropies(np.maximum(wins - 1, 0), m - 1)
    left_out = float(counts @ ((m - wins) * kept + wins * less)) / m - truth
    return {
        "plug-in": plug_in,
        "Miller-Madow": plug_in + miller_madow_bias(n_experts, m),
        "delta": plug_in + added,
        "jackknife": m * plug_in - (m - 1) * left_out,
    }


class _Estimators:
    """Exact biases for winners of one law, by datasets M and alpha."""

    def __init__(self, law: np.ndarray) -> None:
        self.law = law
        self.sizes = with_stops(np.rint(np.geomspace(30, MOST_DATASETS, 61)), 100, 300, 1000)
        self.x = Axis("datasets M", 30, MOST_DATASETS, "log")
        self.y = Axis("bias of the estimate, nats", -0.4, 0.4)
        assumed = next(claim.reported for claim in CLAIMS if claim.key == "miller_madow_term")
        assert assumed is not None
        self.paper = Mark("P2: what its correction assumes", 300, -assumed, "cross", PAPER)
        self.counts = lru_cache(maxsize=128)(partial(winner_counts, law))
        self.truth = lru_cache(maxsize=64)(self._truth)
        self.along = lru_cache(maxsize=64)(self._along)

    def _truth(self, alpha: float) -> tuple[float, float]:
        """I(S;W), and the standard deviation of what one dataset says about it."""
        channel = mix_with_uniform(np.eye(len(self.law)), alpha)
        found = mutual_information(channel, self.law)
        divergences = kl_divergence(channel, self.law @ channel)
        return found, float(np.sqrt(self.law @ (divergences - found) ** 2))

    def _along(self, alpha: float) -> tuple[list[Series], Track]:
        error = self.truth(alpha)[1] / np.sqrt(self.sizes)
        rows = [expected_biases(self.counts(size), self.law, alpha) for size in self.sizes]
        name = "± 1 standard error of one estimate"
        places = np.array(self.sizes)
        series = [Series(name, places, -error, "band", FOURTH, error)]
        for name, look in ESTIMATOR_LOOKS.items():
            series.append(Series(name, places, np.array([row[name] for row in rows]), look=look))
        return series, Track("n_datasets", places, places, series[1].y)

    def scene(self, n_datasets: float, alpha: float) -> Scene:
        series, track = self.along(alpha)
        biases = expected_biases(self.counts(n_datasets), self.law, alpha)
        information, spread = self.truth(alpha)
        marks = [Mark("plug-in here", n_datasets, biases["plug-in"]), self.paper]
        readings = [
            Reading("true I(S;W)", information, 3, "nats"),
            *(Reading(f"bias, {name}", bias, 4) for name, bias in biases.items()),
            Reading("standard error", spread / np.sqrt(n_datasets), 4),
        ]
        return Scene([Panel(self.x, self.y, series, marks, track)], readings)


def shares_won(bank: ExpertBank) -> np.ndarray:
    """How often each expert has the lowest risk on 256 training images, (R,), of 100,000 draws."""
    pool = bank.losses("train")
    winner = empirical_risks(pool, 256, 100_000, rng=9).argmin(axis=1)
    return np.bincount(winner, minlength=pool.shape[1]) / len(winner)


def explore_estimators(shares: ArrayLike | None = None) -> Explorer:
    """Exact bias of four estimates of I(S;W) against the number of datasets M, by M and alpha.

    `shares` (R,) says how often each expert wins; without it they come from 100,000 datasets of the
    MNIST bank.
    """
    if shares is None:
        shares = shares_won(load_bank())
    estimators = _Estimators(np.asarray(shares, dtype=float))
    alt = (
        "Bias of four estimates of I(S;W) against the number of datasets on a logarithmic axis: "
        "the plug-in comes up to zero from below, delta method and jackknife stay near zero, and "
        "Miller-Madow lies above zero unless alpha is 1. A band shows one standard error."
    )
    alphas = with_stops(np.arange(51) / 50, 0.25)
    dials = {
        "n_datasets": Dial("datasets M", 300, estimators.sizes, (30, MOST_DATASETS, 1)),
        "alpha": alpha_dial(stops=alphas),
    }
    return Explorer("estimators", estimators.scene, dials, alt)


# --- other learners ---

RULE_LOOKS = {"alpha-mixture": FIRST, "top-k": THIRD, "Gibbs": SECOND}
LEAST_GAP = 5e-5


def rule_points(posteriors: np.ndarray, risks: np.ndarray, population: np.ndarray) -> np.ndarray:
    """I(S;W) in nats less its bias, gap and population risk of K rules, (3, K), from their
    posteriors (K, M, R).

    The gap is a covariance, so that a blind choice has none, and nearly no noise.

    >>> risks = np.array([[0.0, 0.4], [0.4, 0.0]])
    >>> posteriors = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> rule_points(posteriors, risks, np.array([0.2, 0.2]))[:, 0].round(3).tolist()
    [0.693, 0.4, 0.2]
    """
    n_datasets = len(risks)
    marginal = posteriors.mean(axis=1)
    varied = posteriors - marginal[:, None]
    variance = (varied**2).mean(axis=1)
    bias = np.divide(variance, marginal, out=np.zeros_like(marginal), where=marginal > 0)
    found = entr(marginal).sum(axis=1) - entr(posteriors).sum(axis=(1, 2)) / n_datasets
    corrected = found + bias.sum(axis=1) / (2 * n_datasets)
    information = np.clip(corrected, 0, np.log(len(population)))
    gap = np.einsum("kmr,mr->k", varied, population - risks) / (n_datasets - 1)
    return np.array([information, gap, marginal @ population])


class _Rules:
    """Three selection rules on datasets that grow."""

    def __init__(self, bank: ExpertBank, n_datasets: int, seed: int) -> None:
        pool = bank.losses("train")
        self.population = pool.mean(axis=0)
        self.sizes = doublings(32, 4096, 8)
        self.betas = with_stops(np.geomspace(0.02, 5, 51), 0.05, 0.1, 0.2, 0.4, 0.7, 1, 2)
        self.samples = GrowingSamples(pool, self.sizes, n_datasets, seed=seed)
        self.per_point = Axis("information per sample point I(S;W)/m, nats", 1e-6, 0.12, "log")
        self.gap = Axis("generalisation gap", LEAST_GAP, 0.3, "log")
        self.nats = Axis("information I(S;W), nats", 0, float(np.log(bank.n_experts)))
        reach = (float(0.98 * self.population.min()), float(1.02 * self.population.mean()))
        self.risk = Axis("risk of the selected expert", *reach)
        ends = np.array([self.per_point.low, self.per_point.high])
        self.bound = Series("bound, σ = 1/2", ends, np.sqrt(ends / 2), look=LIMIT)
        self.along = lru_cache(maxsize=64)(self._along)

    def gibbs(self, betas: Sequence[float], risks: np.ndarray, sample_size: float) -> np.ndarray:
        scaled = np.reshape(betas, (-1, 1, 1)) * risks
        return rule_points(gibbs_posterior(scaled, sample_size), risks, self.population)

    def _along(self, sample_size: float) -> tuple[np.ndarray, list[Series], list[Series]]:
        """The points of the Gibbs rule (3, B), and the lines of both panels."""
        risks = self.samples.risks(sample_size)
        found = winners_of(risks, self.population)
        alphas = np.geomspace(0.1, 1, 31)
        risk = found.marginal(alphas) @ self.population
        ks = range(len(self.population) - 2, 0, -1)
        some = np.array([top_k_uniform(risks, k) for k in ks])
        points = {
            "alpha-mixture": np.array([found.information(alphas), alphas * found.gap, risk]),
            "top-k": rule_points(some, risks, self.population),
            "Gibbs": self.gibbs(self.betas, risks, sample_size),
        }
        left = [self.bound]
        right = []
        for name, (information, gap, risk) in points.items():
            look = RULE_LOOKS[name]
            left.append(Series(name, *self.place(information / sample_size, gap), look=look))
            right.append(Series(name, information, risk, look=look))
        return points["Gibbs"], left, right

    def place(self, per_point: ArrayLike, gap: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """A point of the left panel, whose axes have no zero."""
        return np.maximum(per_point, self.per_point.low), np.maximum(gap, LEAST_GAP)

    def scene(self, beta: float, sample_size: float) -> Scene:
        points, left, right = self.along(sample_size)
        if beta in self.betas:
            point = points[:, self.betas.index(beta)]
        else:
            point = self.gibbs([beta], self.samples.risks(sample_size), sample_size)[:, 0]
        nats, gap, risk = point.tolist()
        x, y = self.place(nats / sample_size, gap)
        rings = [Mark("Gibbs rule", float(x), float(y)), Mark("Gibbs rule", nats, risk)]
        panels = [
            Panel(self.per_point, self.gap, left, rings[:1], title="what it overfits"),
            Panel(self.nats, self.risk, right, rings[1:], title="its risk"),
        ]
        readings = [
            Reading("information I(S;W)", nats, 3, "nats"),
            Reading("gap", gap, 4),
            Reading("bound with σ = 1/2", float(xu_raginsky_bound(nats, int(sample_size))), 4),
            Reading("risk of the selected expert", risk, 4),
            Reading("best single expert", self.population.min(), 4),
        ]
        return Scene(panels, readings)


def explore_other_learners(
    bank: ExpertBank | None = None, n_datasets: int = 1500, seed: int = 0
) -> Explorer:
    """Gap and risk of three selection rules against their information, by the inverse temperature
    of the Gibbs rule and the sample size m."""
    rules = _Rules(load_bank() if bank is None else bank, n_datasets, seed)
    alt = (
        "Left, gap against information per sample point on logarithmic axes: lines of three "
        "selection rules below the straight line of the bound. Right, the risk of the selected "
        "expert against information. Rings mark the Gibbs rule."
    )
    dials = {
        "beta": Dial("inverse temperature β of Gibbs", 0.4, rules.betas, (-1.7, 0.7, "log")),
        "sample_size": Dial("sample size m", 256, rules.sizes, (32, 4096, 1)),
    }
    return Explorer("other_learners", rules.scene, dials, alt)


# --- the ladder of bounds ---

LADDER_NAMES = {
    "union_bound": "union",
    "xu_raginsky_bound_sigma_1": "Theorem 1, σ = 1",
    "xu_raginsky_bound": "Theorem 1, σ = 1/2",
    "kearns_saul_bound": "Kearns-Saul",
    "okamoto_bound": "Okamoto",
    "cumulant_bound": "exact cumulants",
    "pac_bayes_kl_bound": "PAC-Bayes-kl",
    "individual_sample_bound": "individual sample",
    "disintegrated_bound": "disintegrated",
    "loss_difference_bound": "loss difference",
    "total_variation_bound": "total variation",
    "disintegrated_kl_bound": "inverse binary kl",
    "conditional_mi_bound": "conditional MI",
    "evaluated_cmi_bound": "evaluated CMI",
}
FURTHER_NAMES = {
    "f_information_bound_squared_hellinger": "Hellinger info",
    "f_information_bound_chi_square": "chi-square info",
    "samplewise_kl_bound": "samplewise eCMI, kl",
    "jensen_shannon_bound": "Jensen-Shannon",
    "leave_out_bound": "leave-half-out MI",
}
ALL_NAMES = LADDER_NAMES | FURTHER_NAMES
KIND_LOOKS = {BY_COUNTS: THIRD, BY_INFORMATION: FIRST, BY_THE_GAP: FOURTH}
# every bound is computed at these, chapters' own among them, and interpolated between them
LADDER_ALPHAS = np.arange(2, 21) / 20


# sample sizes of the experiments; between them the same
LADDER_SIZES = (64, 256)


class _Ladder:
    """Logarithms of all bounds as multiples of the gap, and of the gap, between experiments."""

    def __init__(self, experiments: Sequence[LadderExperiment]) -> None:
        self.by_size = {experiment.sample_size: experiment for experiment in experiments}
        self.sizes = sorted(self.by_size)
        self.by_alpha = lru_cache(self._by_alpha)

    def _by_alpha(self, sample_size: int) -> PchipInterpolator:
        experiment = self.by_size[sample_size]
        rows = []
        for alpha in LADDER_ALPHAS:
            rungs = experiment.at(float(alpha), errors=False)
            values = rungs.values | experiment.further(float(alpha))
            multiples = [values[key] / rungs.gap for key in ALL_NAMES]
            rows.append(np.log([*multiples, rungs.gap]))
        return PchipInterpolator(LADDER_ALPHAS, rows)

    def at(self, alpha: float, sample_size: float) -> tuple[np.ndarray, float]:
        """Multiples of the gap, in the order of `ALL_NAMES`, and the gap."""
        if sample_size in self.by_size:
            logs = self.by_alpha(int(sample_size))(alpha)
        else:
            rows = [self.by_alpha(size)(alpha) for size in self.sizes]
            logs = PchipInterpolator(np.log(self.sizes), rows)(np.log(sample_size))
        *multiples, gap = np.exp(logs)
        return np.array(multiples), float(gap)


def explore_ladder(experiments: Sequence[LadderExperiment] = ()) -> Explorer:
    """Every bound as a multiple of the gap, by alpha and by the sample size m between those of the
    given experiments, default two on the MNIST bank.

    Bounds are computed at multiples of 0.05 and at the experiments' sizes; between them the
    logarithm of a multiple is interpolated by monotone cubics.
    """
    if not experiments:
        pool = load_bank().losses("train")
        experiments = [LadderExperiment(pool, m, rng=0, n_datasets=5000) for m in LADDER_SIZES]
    ladder = _Ladder(experiments)
    least = float(ladder.sizes[0])
    largest = float(ladder.sizes[-1])
    order = np.argsort(-ladder.at(1.0, largest)[0], kind="stable")
    names = [list(ALL_NAMES.values())[i] for i in order]
    kinds = [rung_kind(list(ALL_NAMES)[i]) for i in order]
    informed = order[[kind != BY_THE_GAP for kind in kinds]]
    x_axis = Axis("bound as a multiple of the gap", 0.9, 150, "log")
    y_axis = Axis("", -0.5, len(names) - 0.5, categories=tuple(names))

    def scene(alpha: float, sample_size: float = largest) -> Scene:
        found, gap = ladder.at(alpha, sample_size)
        theorem = found[list(ALL_NAMES).index("xu_raginsky_bound")] * gap
        bars = []
        for kind, look in KIND_LOOKS.items():
            rows = [row for row, its in enumerate(kinds) if its == kind]
            bars.append(Series(f"by {kind}", found[order][rows], np.array(rows), "bars", look))
        marks = [Mark("the gap itself", 1, 0, "post", LIMIT)]
        readings = [
            Reading("information I(S;W)", 2 * sample_size * theorem**2, 3, "nats"),
            Reading("gap", gap, 4),
            Reading("Theorem 1 with σ = 1", 2 * theorem, 4),
            Reading("Theorem 1 with σ = 1/2", theorem, 4),
            Reading("tightest not by the gap's own terms", gap * found[informed].min(), 4),
        ]
        return Scene([Panel(x_axis, y_axis, bars, marks)], readings)

    alt = (
        f"Bars on a logarithmic axis: each of {len(ALL_NAMES)} bounds as a multiple of the gap, "
        "the loosest on top, in three colours: by what a bound looks at."
    )
    alphas = (np.arange(10, 101) / 100).tolist()
    sizes = with_stops(np.rint(np.geomspace(least, largest, 53)), *ladder.sizes)
    between = (int(least), int(largest), 1)
    dials = {
        "alpha": alpha_dial(stops=alphas),
        "sample_size": Dial("sample size m", largest, sizes, between),
    }
    return Explorer("ladder", scene, dials, alt)
