"""The shipped runs of the routing testbed, and how configurations are compared. Nats."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy

from expertbank._files import write_atomically
from expertbank.shipped.manifest import matching, open_sealed, seal

# --- the shipped runs ---

# balanced within a sequence and over the whole step: their held-out routing is shipped token by
# token
EXAMPLES = {
    "scripts-LBL-1-0.125-seed0": "routing-narrow.npz",
    "scripts-LBL-64-0.125-seed0": "routing-wide.npz",
}
RUN_FILES = ("runs.csv", *EXAMPLES.values())
CONFIGURATION = ("mix", "method", "scope", "strength", "capacity", "capacity_scope", "placed")


@dataclass(frozen=True)
class TestbedRuns:
    """All runs of a grid, one row each, and files with the routing of two of them."""

    folder: Path = field(repr=False)
    manifest: dict = field(repr=False)
    table: np.ndarray = field(repr=False)
    """a row for each run: its configuration (no cap is nan) and what was measured"""

    def rows(self, **wanted) -> np.ndarray:
        """The rows whose columns have the wanted values; `capacity=None` for runs without a cap."""
        return self.table[matching(self.table, wanted, "run")]

    def routing(self, name: str) -> Path:
        """File with the held-out routing of the example `"narrow"` (balanced within a sequence) or
        `"wide"` (over the whole step), for `routers.read_routing`."""
        if (file := f"routing-{name}.npz") not in RUN_FILES:
            raise ValueError(f"name is {name!r}; allowed are 'narrow' and 'wide'")
        return self.folder / file


def load_testbed(folder: str | os.PathLike | None = None) -> TestbedRuns:
    """The shipped runs (default: the repository's `data/testbed`) after checking their hashes.

    Raises FileNotFoundError where they are missing, ValueError where they are damaged.
    """
    folder, manifest, (table, *_) = open_sealed(folder, "testbed", RUN_FILES)
    return TestbedRuns(
        folder,
        manifest,
        np.genfromtxt(table, delimiter=",", names=True, dtype=None, encoding="utf-8"),
    )


def save_testbed(folder, rows: Sequence[dict], routing: dict[str, dict], manifest: dict) -> None:
    """Write `runs.csv`, the arrays of each routing file and, last, the manifest that seals them,
    each atomically."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shown = {
            name: f"{value:.6g}" if isinstance(value, float) else value
            for name, value in row.items()
        }
        exact = {name: "nan" if row[name] is None else row[name] for name in CONFIGURATION}
        writer.writerow(shown | exact)
    write_atomically(folder / RUN_FILES[0], lambda file: file.write(text.getvalue().encode()))
    for name, arrays in routing.items():
        write_atomically(
            folder / name, lambda file, arrays=arrays: np.savez_compressed(file, **arrays)
        )
    seal(folder, manifest, RUN_FILES)


# --- reading the runs ---


@dataclass(frozen=True)
class Contrast:
    """A difference between two configurations, paired by seed."""

    mean: float
    interval: tuple[float, float]
    """95%, Student's, over seeds; infinite for a single one"""
    n_seeds: int


def contrast(first: np.ndarray, second: np.ndarray, measure: str = "loss") -> Contrast:
    """`measure` of the first rows less that of the second at the same seeds, which saw the same
    batches.

    Raises ValueError where no seed is common or one occurs twice.
    """
    seeds = np.intersect1d(first["seed"], second["seed"])
    for rows in (first, second):
        if not len(seeds) or len(np.unique(rows["seed"])) < len(rows):
            raise ValueError(
                f"seeds are {first['seed']} and {second['seed']}; allowed are one row a seed, some shared"
            )
    one, other = (
        np.array([rows[measure][rows["seed"] == seed][0] for seed in seeds])
        for rows in (first, second)
    )
    differences = one - other
    mean, n = float(differences.mean()), len(seeds)
    reach = (
        scipy.stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    )
    return Contrast(mean, (float(mean - reach), float(mean + reach)), n)


def rank_correlation(values, losses) -> tuple[float, float]:
    """Spearman's rho of (K,) values with losses, and its two-sided p-value."""
    found = scipy.stats.spearmanr(values, losses)
    return float(found.statistic), float(found.pvalue)


def summarise(rows: np.ndarray, measures: Sequence[str] = ("loss",)) -> list[dict]:
    """One dict a configuration, in order of appearance: `n_seeds`, and mean and standard deviation
    over seeds of each measure, as `name` and `name_sd` (nan for a single seed)."""
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[name]) for name in CONFIGURATION), []).append(row)
    found = []
    for group in groups.values():
        values = {name: np.array([row[name] for row in group], dtype=float) for name in measures}
        one = {name: group[0][name].item() for name in CONFIGURATION} | {"n_seeds": len(group)}
        one |= {name: float(column.mean()) for name, column in values.items()}
        one |= {
            f"{name}_sd": float(v.std(ddof=1)) if len(v) > 1 else np.nan
            for name, v in values.items()
        }
        found.append(one)
    return found
