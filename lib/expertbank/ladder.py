"""Every bound of `bounds` on one bank of 0-1 losses: Monte Carlo done once, a ladder at any alpha.
Nats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from expertbank._checks import as_count, as_interval, as_losses
from expertbank.bounds import (
    conditional_mi_bound,
    cumulant_bound,
    disintegrated_bound,
    disintegrated_kl_bound,
    individual_sample_bound,
    loss_difference_bound,
    pac_bayes_kl_bound,
    total_variation_bound,
    union_bound,
    xu_raginsky_bound,
)
from expertbank.learners import empirical_risks, mix_with_uniform
from expertbank.tables import merge_rows

BATCHES = 10  # jackknife groups for Monte Carlo errors
SUPERSAMPLES, SPLITS_PER_SUPERSAMPLE = 100, 4000


# --- the ladder: all of them on one bank ---


@dataclass(frozen=True)
class BoundLadder:
    """Every bound on one bank at one alpha, with Monte Carlo standard errors. Names are those of
    the functions."""

    alpha: float
    gap: float
    """E[R(W) - R_S(W)] on the pool as exact population"""
    gap_error: float
    values: dict[str, float]
    errors: dict[str, float]
    """0 for what is computed in closed form"""


def bound_ladder(
    losses,
    alpha: float,
    sample_size: int = 256,
    rng: np.random.Generator | int = 0,
    n_datasets: int = 20_000,
) -> BoundLadder:
    """All bounds for the alpha-mixture on 0-1 losses (N, R), the pool being the exact population.

    P(W | Z = u) comes from the same M samples of the other m - 1 points for every u, so that
    differences between the u are not drowned in Monte Carlo noise; errors are jackknifed over
    groups of those samples. The two conditional bounds use `SUPERSAMPLES` supersamples. Raises
    ValueError for losses other than 0 and 1.
    """
    return LadderExperiment(losses, sample_size, rng, n_datasets).at(alpha)


class LadderExperiment:
    """The Monte Carlo behind `bound_ladder`, done once; every posterior is linear in alpha, so `at`
    is quick."""

    def __init__(self, losses, sample_size: int = 256, rng=0, n_datasets: int = 20_000):
        losses = as_losses(losses)
        if not np.isin(losses, (0, 1)).all():
            raise ValueError("losses hold values other than 0 and 1; the ladder is for 0-1 losses")
        self.sample_size = as_count(sample_size, "sample_size")
        n_datasets = as_count(n_datasets, "n_datasets", at_least=BATCHES)
        rng = np.random.default_rng(rng)
        rows, counts, _ = merge_rows(losses)
        self.rows, self.weights, self.risks = (
            rows.astype(float),
            counts / counts.sum(),
            losses.mean(axis=0),
        )
        self.winners = self._winners_given_one(losses, rows, n_datasets, rng)  # (BATCHES, U, R)
        self.supersamples = self._winners_on_supersamples(losses, rng)

    def at(self, alpha: float, errors: bool = True) -> BoundLadder:
        """The ladder at one alpha. Without the jackknifed `errors`, which are then nan, it is
        eleven times as fast."""
        alpha = as_interval(alpha, "alpha", 0, 1)
        total = self.winners.sum(axis=0)
        values = self._from_winners(total, alpha)
        left_out = [
            self._from_winners(total - batch, alpha) for batch in (self.winners if errors else ())
        ]
        errors = {name: _jackknife_error([other[name] for other in left_out]) for name in values}
        for name, information in zip(
            ("conditional_mi_bound", "evaluated_cmi_bound"), self._conditional(alpha)
        ):
            mean = max(0.0, float(information.mean()))
            values[name] = float(conditional_mi_bound(mean, self.sample_size))
            standard = float(information.std(ddof=1) / np.sqrt(len(information)))
            # through the root
            errors[name] = values[name] * standard / (2 * mean) if mean > 0 else 0.0
        return BoundLadder(float(alpha), values.pop("gap"), errors.pop("gap"), values, errors)

    def _from_winners(self, counts: np.ndarray, alpha: float) -> dict[str, float]:
        """What follows from how often each expert wins given one sample point: counts (U, R)."""
        m, n_experts = self.sample_size, counts.shape[1]
        conditionals = mix_with_uniform(counts / counts.sum(axis=1, keepdims=True), alpha)
        marginal = self.weights @ conditionals
        posterior = mix_with_uniform(np.eye(n_experts)[0], alpha)
        information = max(
            0.0, float(scipy.special.entr(marginal).sum() - scipy.special.entr(posterior).sum())
        )
        # rounding
        train_risk = min(1.0, float(self.weights @ (conditionals * self.rows).sum(axis=1)))
        of_one = (conditionals, self.weights)
        return {
            "gap": float(marginal @ self.risks) - train_risk,
            "union_bound": union_bound(n_experts, m),
            "xu_raginsky_bound_sigma_1": float(xu_raginsky_bound(information, m, sigma=1)),
            "xu_raginsky_bound": float(xu_raginsky_bound(information, m)),
            "cumulant_bound": cumulant_bound(information, m, self.risks, marginal),
            "pac_bayes_kl_bound": pac_bayes_kl_bound(information, m, train_risk),
            "individual_sample_bound": individual_sample_bound(*of_one),
            "disintegrated_bound": disintegrated_bound(*of_one),
            "loss_difference_bound": loss_difference_bound(conditionals, self.rows, self.weights),
            "total_variation_bound": total_variation_bound(*of_one),
            "disintegrated_kl_bound": disintegrated_kl_bound(conditionals, self.rows, self.weights),
        }

    def _winners_given_one(self, losses, rows, n_datasets, rng) -> np.ndarray:
        """How often each expert wins when one sample point has loss row u, (BATCHES, U, R)."""
        n_experts, others = losses.shape[1], self.sample_size - 1
        # mistakes on the other points, with the index behind the comma: the least number is the
        # winner
        # short integers are compared many at a time
        kind = np.min_scalar_type(-(self.sample_size + 1) * n_experts)
        keys = np.zeros((n_datasets, n_experts), np.int64)
        if others:
            keys += np.rint(empirical_risks(losses, others, n_datasets, rng) * others).astype(
                np.int64
            )
        keys = np.ascontiguousarray((keys * n_experts + np.arange(n_experts)).T, kind)
        batch = np.arange(n_datasets) * BATCHES // n_datasets * n_experts
        winners = [
            np.bincount(
                (keys + row[:, None]).min(axis=0) % n_experts + batch, minlength=BATCHES * n_experts
            )
            for row in rows.astype(kind) * kind.type(n_experts)
        ]
        return np.reshape(winners, (-1, BATCHES, n_experts)).swapaxes(0, 1)

    def _winners_on_supersamples(self, losses, rng) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each supersample: how often each expert wins over random halves (R,), and its loss
        pattern (R,)."""
        found = []
        for _ in range(SUPERSAMPLES):
            first, second = losses[rng.integers(len(losses), size=(2, self.sample_size))].astype(
                np.int16
            )
            _, pattern = np.unique(np.concatenate([first, second]), axis=1, return_inverse=True)
            halves = rng.integers(0, 2, (SPLITS_PER_SUPERSAMPLE, self.sample_size))
            mistakes = first.sum(axis=0) + halves.astype(np.float32) @ (second - first).astype(
                np.float32
            )
            wins = np.bincount(mistakes.argmin(axis=1), minlength=losses.shape[1])
            found.append((wins / SPLITS_PER_SUPERSAMPLE, pattern))
        return found

    def _conditional(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """I(W;U | supersample) and I(losses of W;U | supersample), one value per supersample, bias
        corrected."""
        wins, patterns = map(np.stack, zip(*self.supersamples))
        each = np.eye(wins.shape[1])
        return tuple(_mixture_information(wins, alpha, groups) for groups in (each, each[patterns]))


def _mixture_information(wins, alpha, groups) -> np.ndarray:
    """I(group of W;S), (S,), of alpha-mixtures whose best expert has frequencies `wins` (S, R),
    less the delta-method bias. `groups` (R, G) or (S, R, G) says which experts look alike, as rows
    of an identity matrix.
    """
    # row r: the posterior when r is best
    posteriors = mix_with_uniform(np.eye(wins.shape[1]), alpha) @ groups
    mean, square = ((wins[:, None] @ law)[:, 0] for law in (posteriors, posteriors**2))
    variance = np.divide(square - mean**2, mean, where=mean > 0, out=np.zeros_like(mean))
    given = (wins * scipy.special.entr(posteriors).sum(axis=-1)).sum(axis=-1)
    return (
        scipy.special.entr(mean).sum(axis=-1)
        - given
        + variance.sum(axis=-1) / (2 * SPLITS_PER_SUPERSAMPLE)
    )


def _jackknife_error(left_out: list[float]) -> float:
    return float(np.sqrt((len(left_out) - 1) * np.var(left_out))) if left_out else np.nan
