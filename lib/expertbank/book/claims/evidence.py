"""What P2 prints, and the experiments that the claims are held against, each run once on a bank.

No result is stored here: `Evidence` runs every experiment when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from expertbank.bounds import xu_raginsky_bound
from expertbank.channels import (
    erasure_capacity,
    erasure_channel,
    ldp_rate_cap,
    ldp_sharp_cap,
    randomised_response,
    symmetric_capacity,
    symmetric_channel,
)
from expertbank.information import bootstrap_interval
from expertbank.learners import Selection, alpha_mixture, empirical_risks, select, simulate
from expertbank.links import index_bits, repeated_channel, words_channel
from expertbank.privacy import least_loss_mechanism, most_informative_mechanism, wanted_experts
from expertbank.rate_distortion import RateDistortionCurve, rate_distortion_curve
from expertbank.shipped.bank import ExpertBank, load_bank, load_family
from expertbank.shipped.gates import DECISIONS, LAMS, GateSweep, gate_family, load_gates
from expertbank.shipped.testbed import TestbedRuns, load_testbed
from expertbank.synthetic import BscSelection, bsc_selection, moe_bank_losses
from expertbank.theorem2 import theorem2_terms

# P2 Table I: R = 25, m = 256, M = 300, alpha = 0.7. Keys name fields of `learners.Selection`.
TABLE_1 = {
    "train_risk": 0.0802,
    "test_risk": 0.0846,
    "gap": 0.0045,
    "absolute_gap": 0.0162,
    "marginal_entropy": 2.8935,
    "conditional_entropy": 1.5156,
    "information": 1.3778,
    "bound": 0.1038,
}
# P2 Table II by alpha; the bound at alpha = 0 is printed as nan
TABLE_2 = {
    0.00: {"information": 0.0, "bound": float("nan"), "gap": -0.0089, "absolute_gap": 0.0170},
    0.25: {"information": 0.2919, "bound": 0.0478, "gap": -0.0034, "absolute_gap": 0.0158},
    0.50: {"information": 0.8305, "bound": 0.0805, "gap": 0.0022, "absolute_gap": 0.0161},
    0.70: {"information": 1.3778, "bound": 0.1038, "gap": 0.0051, "absolute_gap": 0.0160},
    0.90: {"information": 2.0569, "bound": 0.1268, "gap": 0.0083, "absolute_gap": 0.0159},
    1.00: {"information": 2.5280, "bound": 0.1405, "gap": 0.0102, "absolute_gap": 0.0154},
}
# P2's text: the reported ranges over the 25 experts and their 300 pairs, on the test split
ACCURACY_RANGE = (0.89, 0.92)
DISAGREEMENT_RANGE = (0.06, 0.10)

SAMPLE_SIZE = 256
PAPER_DATASETS = 300
MANY_DATASETS = 20_000
# of P2's sensitivity study
BANK_SIZES = (10, 25, 50)


@dataclass(frozen=True)
class Spread:
    """How far one quantity of P2's tables depends on the bank and on the M = 300 datasets, in its
    own units."""

    mean: float
    banks: float
    """standard deviation over banks, the noise of their experiments taken out"""
    selections: float
    """standard deviation of experiments on one bank"""
    interval: tuple[float, float]
    """95% prediction interval for one experiment on one more bank"""


def spread(values: ArrayLike) -> Spread:
    """Split values (B, E) of E experiments on each of B banks, B and E at least 2, by one-way
    random effects.

    The interval is Student's, with B - 1 degrees of freedom: the banks are what there is least of.

    >>> found = spread([[0.9, 1.1], [1.9, 2.1], [2.9, 3.1]])
    >>> round(found.mean, 4), round(found.selections, 4), round(found.banks, 4)
    (2.0, 0.1414, 0.995)
    """
    values = np.asarray(values, dtype=float)
    n_banks, n_experiments = values.shape
    means = values.mean(axis=1)
    noise = values.var(axis=1, ddof=1).mean()
    between = max(0.0, means.var(ddof=1) - noise / n_experiments)
    variance = between + noise + means.var(ddof=1) / n_banks
    reach = stdtrit(n_banks - 1, 0.975) * np.sqrt(variance)
    mean = float(means.mean())
    return Spread(
        mean=mean,
        banks=float(np.sqrt(between)),
        selections=float(np.sqrt(noise)),
        interval=(float(mean - reach), float(mean + reach)),
    )


def repeat_tables(
    banks: list[ExpertBank],
    n_experiments: int = 10,
    rng: int = 0,
    sample_size: int = SAMPLE_SIZE,
    n_datasets: int = PAPER_DATASETS,
) -> dict[str, np.ndarray]:
    """P2's Table II on each bank, `n_experiments` times with M fresh datasets of m images, in P2
    300 of 256: quantity -> (B, E, alphas).

    Keys are those of `TABLE_1`, under the paper's protocol, and `pool_gap`, with the pool as exact
    population.

    >>> tables = repeat_tables([load_bank()], n_experiments=2)
    >>> tables["gap"].shape
    (1, 2, 6)
    """
    names = [name for name in TABLE_1 if name != "bound"]
    tables = []
    for index, bank in enumerate(banks):
        pool = bank.losses("train")
        test_risks = bank.losses("test").mean(axis=0)
        shift = test_risks - pool.mean(axis=0)
        generator = np.random.default_rng([rng, index])
        risks = empirical_risks(pool, sample_size, n_experiments * n_datasets, generator)
        for batch in np.split(risks, n_experiments):
            runs = [
                select(batch, alpha_mixture(batch, alpha), test_risks, generator)
                for alpha in TABLE_2
            ]
            rows = [[getattr(run, name) for run in runs] for name in names]
            pool_gaps = [run.gap - shift[run.selected].mean() for run in runs]
            tables.append([*rows, pool_gaps])
    shape = (len(banks), n_experiments, len(names) + 1, len(TABLE_2))
    values = np.reshape(tables, shape)
    found = {name: values[:, :, i] for i, name in enumerate([*names, "pool_gap"])}
    found["bound"] = np.asarray(xu_raginsky_bound(found["information"], sample_size, sigma=1))
    return found


def bank_summary(bank: ExpertBank) -> dict[str, str | int | float]:
    """A bank's test accuracies and pairwise disagreements, and the shares of them in the ranges
    that P2 reports.

    >>> summary = bank_summary(load_bank())
    >>> summary["batch_size"], round(summary["highest_accuracy"], 4)
    (80, 0.9156)
    """
    accuracies = bank.accuracies("test")
    pairs = np.triu_indices(bank.n_experts, 1)
    disagreements = bank.disagreements("test")[pairs]
    recipe = bank.manifest.get("recipe")
    return {
        "bank": bank.name,
        "batch_size": recipe.get("batch_size", "") if isinstance(recipe, dict) else "",
        "lowest_accuracy": float(accuracies.min()),
        "highest_accuracy": float(accuracies.max()),
        "lowest_disagreement": float(disagreements.min(initial=1)),
        "highest_disagreement": float(disagreements.max(initial=0)),
        "accuracies_inside": _share_inside(accuracies, ACCURACY_RANGE),
        "disagreements_inside": _share_inside(disagreements, DISAGREEMENT_RANGE),
    }


def _share_inside(values: np.ndarray, limits: tuple[float, float]) -> float:
    low, high = limits
    return float(np.mean((values >= low) & (values <= high)))


def count_falls(values: Iterable[float]) -> int:
    """How often a sequence that should rise falls, beyond rounding.

    >>> count_falls([0.0, 0.2, 0.1, 0.1])
    1
    """
    return int(np.sum(np.diff(list(values)) < -1e-9))


class WantedIndex(NamedTuple):
    """The index of the first expert that is right, as a source that a gate sends on."""

    prior: np.ndarray
    """how often each of the k experts is wanted (k,)"""
    costs: np.ndarray
    """mean loss (k, k) of each expert where another one is wanted"""
    curve: RateDistortionCurve
    """what no gate of these experts can pass"""


class Chain(NamedTuple):
    """A channel (k, T) from the wanted index, and the most nats that it may carry."""

    channel: np.ndarray
    cap: float


class Evidence:
    """The experiments behind the claims, on one bank from one seed; each runs once, when first
    asked for.

    >>> evidence = Evidence(load_bank())
    >>> len(evidence.symmetric)
    21
    """

    def __init__(self, bank: ExpertBank, rng: int = 0):
        self.bank = bank
        self.rng = rng

    @cached_property
    def selections(self) -> dict[float, Selection]:
        """P2 Table II under the paper's protocol: datasets from the training split, risk on the
        test split."""
        losses = self.bank.losses("train")
        population = self.bank.losses("test")
        return {
            alpha: simulate(losses, alpha, SAMPLE_SIZE, MANY_DATASETS, population, self.rng)
            for alpha in TABLE_2
        }

    @cached_property
    def family(self) -> list[ExpertBank]:
        """Every shipped bank of the default recipe, 21 of them; they differ in their seed alone.
        The bank of the evidence is the first of them where it was made by the same recipe."""
        shipped = load_bank()
        is_another = self.bank.manifest.get("recipe") == shipped.manifest["recipe"]
        return [self.bank if is_another else shipped, *load_family()]

    @cached_property
    def grid(self) -> list[ExpertBank]:
        """The shipped banks of the sensitivity grid."""
        return load_family("grid")

    @cached_property
    def tables(self) -> dict[str, np.ndarray]:
        """P2's tables as one experiment prints them, ten times on each bank of the family."""
        return repeat_tables(self.family, rng=self.rng)

    @cached_property
    def spreads(self) -> dict[tuple[str, float], Spread]:
        """Of every quantity at every alpha, over the family."""
        return {
            (name, alpha): spread(values[:, :, i])
            for name, values in self.tables.items()
            for i, alpha in enumerate(TABLE_2)
        }

    def looseness(self, alpha: float) -> Spread:
        """G / B_MI of one experiment, over the family; the bound's multiple of the gap is its
        inverse, which is less skewed this way up."""
        place = list(TABLE_2).index(alpha)
        return spread(self.tables["gap"][:, :, place] / self.tables["bound"][:, :, place])

    @cached_property
    def intervals(self) -> np.ndarray:
        """Ends of the bootstrap interval of I(S;W) at alpha = 0.7, M = 300: twice on each bank of
        the family, (B, 2, 2)."""
        found = []
        for index, bank in enumerate(self.family):
            pool = bank.losses("train")
            for repeat in range(2):
                seeds = np.random.SeedSequence([self.rng, index, repeat]).spawn(2)
                drawing, resampling = (np.random.default_rng(seed) for seed in seeds)
                risks = empirical_risks(pool, SAMPLE_SIZE, PAPER_DATASETS, drawing)
                posteriors = alpha_mixture(risks, 0.7)
                found.append(bootstrap_interval(posteriors, n_resamples=1000, rng=resampling))
        return np.reshape(found, (len(self.family), 2, 2))

    @cached_property
    def curve(self) -> RateDistortionCurve:
        """P2 section V: 2,000 test images, lambda from 10 to 1e-3."""
        return rate_distortion_curve(self.bank.losses("test")[:2000], np.geomspace(10, 1e-3, 10))

    @cached_property
    def mixtures(self) -> list[Selection]:
        """P1 experiment 1 at sizes that we chose: 25 candidates of 4 experts in 5 dimensions, m =
        64."""
        losses = moe_bank_losses(
            dimension=5, n_experts=4, n_candidates=25, n_inputs=20_000, rng=self.rng
        )
        alphas = np.linspace(0, 1, 11)
        return [simulate(losses, alpha, 64, 5_000, rng=self.rng) for alpha in alphas]

    @cached_property
    def symmetric(self) -> list[BscSelection]:
        """P1 experiment 2, exactly, at sizes that we chose: p* = 0.11, m = 100, 24 candidates."""
        candidates = np.linspace(0.02, 0.48, 24)
        return [bsc_selection(candidates, 0.11, 100, beta) for beta in np.linspace(0, 2, 21)]

    @cached_property
    def informations_by_size(self) -> dict[str, np.ndarray]:
        """I(S;W) at alpha = 0.7 of the first 10, 25 and 50 experts of each bank of the sensitivity
        grid, by the bank's name: (3,) nats."""
        found = {}
        for bank in self.grid:
            losses = bank.losses("train")
            runs = [
                simulate(losses[:, :size], 0.7, SAMPLE_SIZE, 2_000, rng=self.rng)
                for size in BANK_SIZES
            ]
            found[bank.name] = np.array([run.information for run in runs])
        return found

    @cached_property
    def gates(self) -> GateSweep:
        """Trained gates, P2's future work, on two banks at prices that we chose."""
        return load_gates()

    @cached_property
    def testbed(self) -> TestbedRuns:
        """P3's testbed at our size."""
        return load_testbed()

    @cached_property
    def wanted(self) -> WantedIndex:
        """The index of the first that is right among the eight best experts on the test split."""
        losses = self.bank.losses("test")
        best = np.argsort(losses.mean(axis=0), kind="stable")[:8]
        losses = losses[:, best]
        first_right = np.eye(losses.shape[1])[losses.argmin(axis=1)]
        prior, costs = wanted_experts(first_right, losses)
        return WantedIndex(prior, costs, rate_distortion_curve(losses, band=1e-4))

    @cached_property
    def private_chains(self) -> list[Chain]:
        """Private channels from the wanted index, each with the least c(epsilon) known: P1 Remark
        3."""
        prior = self.wanted.prior
        chains = []
        for epsilon in np.geomspace(0.1, 8, 9):
            cap = float(min(ldp_rate_cap(len(prior), epsilon), ldp_sharp_cap(epsilon)))
            mechanisms = [
                randomised_response(len(prior), epsilon),
                most_informative_mechanism(prior, epsilon),
                least_loss_mechanism(prior, epsilon, self.wanted.costs),
            ]
            chains += [Chain(mechanism, cap) for mechanism in mechanisms]
        return chains

    @cached_property
    def noisy_chains(self) -> list[Chain]:
        """Noisy links for the wanted index, one to three times the letter or its bits, each with
        nC: P1 Remark 4."""
        k = len(self.wanted.prior)
        bits = index_bits(k)
        chains = []
        for n in (1, 2, 3):
            words = np.tile(bits, n)
            for p in (0.02, 0.1, 0.3):
                symmetric = repeated_channel(symmetric_channel(k, p), n)
                erasing = repeated_channel(erasure_channel(k, p), n)
                bit_cap = words.shape[1] * float(symmetric_capacity(2, p))
                chains.append(Chain(words_channel(words, p), bit_cap))
                chains.append(Chain(symmetric, n * float(symmetric_capacity(k, p))))
                chains.append(Chain(erasing, n * float(erasure_capacity(k, p))))
        return chains

    @cached_property
    def gates_above_theorem2(self) -> int:
        """Settings of alpha and m in which a learner that selects a trained gate loses more than P1
        (10) allows."""
        above = 0
        for name in LAMS:
            bank = load_bank(name)
            curve = rate_distortion_curve(bank.losses("test"), band=1e-5)
            for decision in DECISIONS:
                losses, rates = gate_family(self.gates, bank, decision)
                for m in (64, 256, 1024):
                    x = theorem2_terms(losses, rates, curve, np.linspace(0, 1, 5), m, 500, self.rng)
                    above += int(np.sum(x.population_risk > x.bound() + 3 * x.gap_error))
        return above
