"""Every bound of `expertbank.bounds` on one bank of 0-1 losses, in nats.

The Monte Carlo is done once; from it a ladder of bounds follows at any alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_count, as_losses, as_number, check_size
from expertbank.bounds import (
    conditional_mi_bound,
    cumulant_bound,
    disintegrated_bound,
    disintegrated_kl_bound,
    f_information_bound,
    individual_sample_bound,
    jensen_shannon_bound,
    kearns_saul_bound,
    leave_out_bound,
    loss_difference_bound,
    okamoto_bound,
    pac_bayes_kl_bound,
    samplewise_kl_bound,
    total_variation_bound,
    union_bound,
    xu_raginsky_bound,
)
from expertbank.information import binary_entropy, mean_error
from expertbank.learners import empirical_risks, mix_with_uniform
from expertbank.tables import merge_rows

BATCHES = 10  # jackknife groups for Monte Carlo errors
SUPERSAMPLES = 100
SPLITS_PER_SUPERSAMPLE = 4000
PAIRINGS = 40  # of a supersample from which sets are left out
MOST_SAMPLES = 1_000_000
# samples for whose splits a coin each is tossed; for more, heads are counted
TOSSED_ONE_BY_ONE = 10_000
HEADS_AT_ONCE = 10_000_000


@dataclass(frozen=True)
class BoundLadder:
    """Every bound on one bank at one alpha, with Monte Carlo standard errors.

    Names are those of the functions. `bound_ladder` and `LadderExperiment.at` make it.
    """

    alpha: float
    gap: float
    """E[R(W) - R_S(W)] on the pool as exact population"""
    gap_error: float
    values: dict[str, float]
    errors: dict[str, float]
    """0 for what is computed in closed form"""


def bound_ladder(
    losses: ArrayLike,
    alpha: float,
    sample_size: int = 256,
    rng: np.random.Generator | int = 0,
    n_datasets: int = 20_000,
) -> BoundLadder:
    """All bounds for the alpha-mixture on 0-1 losses (N, R), the pool being the exact population.

    P(W | Z = u) comes from the same M samples of the other m - 1 points for every u, so that
    differences between the u are not drowned in Monte Carlo noise; errors are jackknifed over
    groups of those samples. The two conditional bounds use `SUPERSAMPLES` supersamples. Raises
    ValueError for losses other than 0 and 1, alpha outside [0, 1], a sample size outside 1 ..
    `MOST_SAMPLES`, fewer than ten datasets or more than fit in memory.

    >>> mistakes = np.random.default_rng(0).integers(0, 2, (200, 3))
    >>> ladder = bound_ladder(mistakes, alpha=1.0, sample_size=16, n_datasets=500)
    >>> 0 < ladder.gap < ladder.values["xu_raginsky_bound"] < ladder.values["union_bound"]
    True
    """
    return LadderExperiment(losses, sample_size, rng, n_datasets).at(alpha)


class LadderExperiment:
    """The Monte Carlo behind `bound_ladder`, done once.

    Every posterior is linear in alpha, so `at` is quick. Arguments and errors as for
    `bound_ladder`.

    >>> mistakes = np.random.default_rng(0).integers(0, 2, (200, 3))
    >>> experiment = LadderExperiment(mistakes, sample_size=16, n_datasets=500)
    >>> gaps = [experiment.at(alpha, errors=False).gap for alpha in (0.0, 0.5, 1.0)]
    >>> round(gaps[0], 4) == 0 and bool(np.isclose(gaps[1], gaps[2] / 2))
    True
    """

    def __init__(
        self,
        losses: ArrayLike,
        sample_size: int = 256,
        rng: np.random.Generator | int = 0,
        n_datasets: int = 20_000,
    ):
        losses = as_losses(losses)
        if not np.isin(losses, (0, 1)).all():
            raise ValueError("losses hold values other than 0 and 1; the ladder is for 0-1 losses")
        self.sample_size = as_count(sample_size, "sample_size", at_most=MOST_SAMPLES)
        n_datasets = as_count(n_datasets, "n_datasets", at_least=BATCHES)
        n_experts = losses.shape[1]
        check_size(n_datasets * n_experts, f"{n_datasets} datasets of {n_experts} experts")
        rng = np.random.default_rng(rng)
        self.losses = losses
        rows, counts, _ = merge_rows(losses)
        self.rows = rows.astype(float)
        self.weights = counts / counts.sum()
        self.risks = losses.mean(axis=0)
        self.winners = self._winners_given_one(losses, rows, n_datasets, rng)  # (BATCHES, U, R)
        self.supersamples = self._winners_on_supersamples(losses, rng)

    def at(self, alpha: float, errors: bool = True) -> BoundLadder:
        """The ladder at one alpha in [0, 1].

        Without the jackknifed `errors`, which are then nan, it is eleven times as fast. Raises
        ValueError for alpha outside [0, 1].
        """
        alpha = as_number(alpha, "alpha", 0, 1)
        total = self.winners.sum(axis=0)
        values = self._from_winners(total, alpha)
        left_out = []
        if errors:
            left_out = [self._from_winners(total - batch, alpha) for batch in self.winners]
        standard_errors = {
            name: _jackknife_error([others[name] for others in left_out]) for name in values
        }
        conditional, evaluated = self._conditional_information(alpha)
        for name, information in (
            ("conditional_mi_bound", conditional),
            ("evaluated_cmi_bound", evaluated),
        ):
            mean = max(0.0, float(information.mean()))
            # both bounds are this function, of the one information or the other
            values[name] = float(conditional_mi_bound(mean, self.sample_size))
            error = mean_error(information)
            # through the root
            standard_errors[name] = values[name] * error / (2 * mean) if mean > 0 else 0.0
        return BoundLadder(
            alpha=alpha,
            gap=values.pop("gap"),
            gap_error=standard_errors.pop("gap"),
            values=values,
            errors=standard_errors,
        )

    def further(self, alpha: float) -> dict[str, float]:
        """Rungs of 2022 to 2026 at one alpha in [0, 1], which `bound_ladder` does not show.

        All but the last are of the kind `bounds.BY_THE_GAP`, from the same Monte Carlo;
        f-informations have a name of their own each. `leave_out_bound` leaves out as many points as
        it trains on, and draws sets of its own at the first call. Raises ValueError for alpha
        outside [0, 1].
        """
        counts = self.winners.sum(axis=0)
        won = counts / counts.sum(axis=1, keepdims=True)
        conditionals = mix_with_uniform(won, as_number(alpha, "alpha", 0, 1))
        with_losses = (conditionals, self.rows, self.weights)
        q = min(1.0, float(self.weights @ (conditionals * self.rows).sum(axis=1)))
        p = max(q, float(self.weights @ conditionals @ self.risks))
        # I(L;U) of one loss and whether its point was trained on
        told = binary_entropy((p + q) / 2) - (binary_entropy(p) + binary_entropy(q)) / 2
        found = {
            f"f_information_bound_{name}": f_information_bound(*with_losses, name)
            for name in ("squared_hellinger", "chi_square", "total_variation")
        }
        found["samplewise_kl_bound"] = samplewise_kl_bound(*with_losses)
        found["jensen_shannon_bound"] = float(jensen_shannon_bound(max(0.0, told), q))
        each_alone = np.eye(counts.shape[1])
        about_set = _mixture_information(self._winners_left_out, alpha, each_alone).mean()
        m = self.sample_size
        found["leave_out_bound"] = float(leave_out_bound(max(0.0, float(about_set)), m, m))
        return found

    def _from_winners(self, counts: np.ndarray, alpha: float) -> dict[str, float]:
        """What follows from how often each expert wins given one sample point: counts (U, R)."""
        m = self.sample_size
        n_experts = counts.shape[1]
        conditionals = mix_with_uniform(counts / counts.sum(axis=1, keepdims=True), alpha)
        marginal = self.weights @ conditionals
        # the posterior of any one dataset, up to the order of the experts
        posterior = mix_with_uniform(np.eye(n_experts)[0], alpha)
        marginal_entropy = scipy.special.entr(marginal).sum()
        information = max(0.0, float(marginal_entropy - scipy.special.entr(posterior).sum()))
        train_risk = float(self.weights @ (conditionals * self.rows).sum(axis=1))
        train_risk = min(1.0, train_risk)  # rounding may exceed 1
        with_risks = (information, m, self.risks, marginal)
        one_point = (conditionals, self.weights)
        with_losses = (conditionals, self.rows, self.weights)
        return {
            "gap": float(marginal @ self.risks) - train_risk,
            "union_bound": union_bound(n_experts, m),
            "xu_raginsky_bound_sigma_1": float(xu_raginsky_bound(information, m, sigma=1)),
            "xu_raginsky_bound": float(xu_raginsky_bound(information, m)),
            "kearns_saul_bound": float(kearns_saul_bound(*with_risks)),
            "okamoto_bound": float(okamoto_bound(*with_risks)),
            "cumulant_bound": cumulant_bound(*with_risks),
            "pac_bayes_kl_bound": pac_bayes_kl_bound(information, m, train_risk),
            "individual_sample_bound": individual_sample_bound(*one_point),
            "disintegrated_bound": disintegrated_bound(*one_point),
            "loss_difference_bound": loss_difference_bound(*with_losses),
            "total_variation_bound": total_variation_bound(*one_point),
            "disintegrated_kl_bound": disintegrated_kl_bound(*with_losses),
        }

    def _winners_given_one(
        self, losses: np.ndarray, rows: np.ndarray, n_datasets: int, rng: np.random.Generator
    ) -> np.ndarray:
        """How often each expert wins when one sample point has loss row u, (BATCHES, U, R)."""
        n_experts = losses.shape[1]
        n_others = self.sample_size - 1
        mistakes = np.zeros((n_datasets, n_experts), np.int64)
        if n_others > 0:
            risks = empirical_risks(losses, n_others, n_datasets, rng)
            mistakes += np.rint(risks * n_others).astype(np.int64)
        # mistakes on the other points, with the index behind the comma: the least number is the
        # winner, ties to the smallest index; short integers are compared many at a time
        key_type = np.min_scalar_type(-(self.sample_size + 1) * n_experts)
        keys = (mistakes * n_experts + np.arange(n_experts)).T
        keys = np.ascontiguousarray(keys, key_type)
        first_cell_of_batch = np.arange(n_datasets) * BATCHES // n_datasets * n_experts
        wins = []
        for row in rows.astype(key_type) * key_type.type(n_experts):
            winner = (keys + row[:, None]).min(axis=0) % n_experts
            cells = first_cell_of_batch + winner
            wins.append(np.bincount(cells, minlength=BATCHES * n_experts))
        return np.reshape(wins, (-1, BATCHES, n_experts)).swapaxes(0, 1)

    def _winners_on_supersamples(
        self, losses: np.ndarray, rng: np.random.Generator
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each supersample: how often each expert wins over random halves (R,), and a number
        of its loss pattern (R,)."""
        found = []
        for _ in range(SUPERSAMPLES):
            drawn = rng.integers(len(losses), size=(2, self.sample_size))
            first, second = losses[drawn].astype(np.int16)
            both = np.concatenate([first, second])
            _, _, pattern = merge_rows(both.T)
            differences = _differences_on_halves(second - first, rng, SPLITS_PER_SUPERSAMPLE)
            mistakes = first.sum(axis=0) + differences
            wins = np.bincount(mistakes.argmin(axis=1), minlength=losses.shape[1])
            found.append((wins / SPLITS_PER_SUPERSAMPLE, pattern))
        return found

    @cached_property
    def _winners_left_out(self) -> np.ndarray:
        """How often each expert wins over random m of 2m points, (SUPERSAMPLES, R)."""
        rng = np.random.default_rng(1)
        m = self.sample_size
        found = []
        for _ in range(SUPERSAMPLES):
            drawn = self.losses[rng.integers(len(self.losses), size=2 * m)].astype(np.int16)
            wins = np.zeros(drawn.shape[1])
            # of pairs at random a coin takes one each: a set of m, all as likely
            for _ in range(PAIRINGS):
                first, second = rng.permutation(drawn).reshape(2, m, -1)
                differences = _differences_on_halves(
                    second - first, rng, SPLITS_PER_SUPERSAMPLE // PAIRINGS
                )
                winner = (first.sum(axis=0) + differences).argmin(axis=1)
                wins += np.bincount(winner, minlength=len(wins))
            found.append(wins / wins.sum())
        return np.array(found)

    def _conditional_information(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """I(W;U | supersample) and I(losses of W;U | supersample), one value per supersample, bias
        corrected."""
        wins = np.stack([shares for shares, _ in self.supersamples])
        patterns = np.stack([pattern for _, pattern in self.supersamples])
        each_alone = np.eye(wins.shape[1])
        conditional = _mixture_information(wins, alpha, each_alone)
        evaluated = _mixture_information(wins, alpha, each_alone[patterns])
        return conditional, evaluated


def _differences_on_halves(
    difference: np.ndarray, rng: np.random.Generator, n_splits: int
) -> np.ndarray:
    """Sums (n_splits, R) of the rows of a difference (m, R) for which a fair coin shows heads."""
    m = len(difference)
    if m <= TOSSED_ONE_BY_ONE:
        takes_second = rng.integers(0, 2, (n_splits, m))
        return takes_second.astype(np.float32) @ difference.astype(np.float32)
    rows, times, _ = merge_rows(difference)
    rows = rows.astype(float)
    n_together = max(1, HEADS_AT_ONCE // len(rows))
    sums = []
    for start in range(0, n_splits, n_together):
        n = min(n_together, n_splits - start)
        sums.append(rng.binomial(times, 0.5, (n, len(rows))) @ rows)
    return np.concatenate(sums)


def _mixture_information(wins: np.ndarray, alpha: float, groups: np.ndarray) -> np.ndarray:
    """I(group of W;S), (S,), of alpha-mixtures whose best expert has frequencies `wins` (S, R),
    less the delta-method bias.

    `groups` (R, G) or (S, R, G) says which experts look alike, as rows of an identity matrix.
    """
    # row r: the posterior when r is best
    posteriors = mix_with_uniform(np.eye(wins.shape[1]), alpha) @ groups
    mean = (wins[:, None] @ posteriors)[:, 0]
    mean_square = (wins[:, None] @ posteriors**2)[:, 0]
    variance = mean_square - mean**2
    relative = np.divide(variance, mean, where=mean > 0, out=np.zeros_like(mean))
    bias = -relative.sum(axis=-1) / (2 * SPLITS_PER_SUPERSAMPLE)
    entropy_given_s = (wins * scipy.special.entr(posteriors).sum(axis=-1)).sum(axis=-1)
    return scipy.special.entr(mean).sum(axis=-1) - entropy_given_s - bias


def _jackknife_error(left_out: list[float]) -> float:
    """Standard error of a statistic from its values with each group left out; nan without them."""
    if not left_out:
        return np.nan
    return float(np.sqrt((len(left_out) - 1) * np.var(left_out)))
