"""Every bound that holds for a selection from anyone's loss table, with its gap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from expertbank._checks import as_losses
from expertbank.bounds import union_bound, xu_raginsky_bound
from expertbank.ladder import LadderExperiment
from expertbank.learners import Selection, simulate


class Rung(NamedTuple):
    """A row of the ladder: the gap or a bound, in units of the losses."""

    name: str
    value: float
    error: float
    """standard error of the Monte Carlo, 0 for what has a closed form"""


class TableLadder:
    """The gap and every bound for a learner that selects by m samples from losses (N, R), the
    population.

    Where all losses are 0 or 1 that is `LadderExperiment`. Otherwise, and where `whole` is false,
    these are the two bounds that hold for any losses: one in [a, b] is sub-Gaussian with sigma =
    (b - a)/2, and so both scale. Raises ValueError as `simulate` and `LadderExperiment` do.

    >>> run, rungs = TableLadder([[0, 3], [3, 0], [1, 2]], 16, n_datasets=500).at(alpha=1)
    >>> [rung.name for rung in rungs], run.gap < rungs[2].value < rungs[1].value
    (['gap', 'union_bound', 'xu_raginsky_bound'], True)
    """

    def __init__(
        self,
        losses: ArrayLike,
        sample_size: int,
        n_datasets: int = 20_000,
        seed: int = 0,
        whole: bool = True,
    ) -> None:
        self.losses = as_losses(losses)
        self.sample_size = sample_size
        self.n_datasets = n_datasets
        self.seed = seed
        self.experiment = None
        if whole and np.isin(self.losses, (0, 1)).all():
            self.experiment = LadderExperiment(self.losses, sample_size, seed, n_datasets)

    def at(self, alpha: float) -> tuple[Selection, list[Rung]]:
        """What the alpha-mixture did, and its gap followed by the bounds from loose to tight."""
        run = simulate(self.losses, alpha, self.sample_size, self.n_datasets, rng=self.seed)
        if self.experiment is not None:
            ladder = self.experiment.at(alpha)
            steps = sorted(ladder.values.items(), key=lambda item: -item[1])
            bounds = [Rung(name, value, ladder.errors[name]) for name, value in steps]
            return run, [Rung("gap", ladder.gap, ladder.gap_error), *bounds]
        width = width_of(self.losses)
        union = width * union_bound(self.losses.shape[1], self.sample_size)
        bound = xu_raginsky_bound(run.information, self.sample_size, sigma=width / 2)
        return run, [
            Rung("gap", run.gap, run.gap_error),
            Rung("union_bound", union, 0.0),
            Rung("xu_raginsky_bound", float(bound), 0.0),
        ]


def width_of(losses: np.ndarray) -> float:
    """Length of the interval that losses lie in: 1 where that is [0, 1].

    >>> width_of(np.array([[0.0, 0.5]])), width_of(np.array([[0.0, 3.0]]))
    (1.0, 3.0)
    """
    low = float(losses.min())
    high = float(losses.max())
    return 1.0 if low >= 0 and high <= 1 else high - low
