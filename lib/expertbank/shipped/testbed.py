"""The shipped runs of the routing testbed, and how configurations are compared. Nats."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._files import write_atomically
from expertbank.shipped.frames import csv_bytes, matching, read_columns, read_frame
from expertbank.shipped.manifest import open_sealed, seal

if TYPE_CHECKING:
    import pandas as pd

# --- the shipped runs ---

# balanced within a sequence and over the whole step: their held-out routing is shipped token by
# token
EXAMPLES = {
    "scripts-LBL-1-0.125-seed0": "routing-narrow.npz",
    "scripts-LBL-64-0.125-seed0": "routing-wide.npz",
}
RUN_FILES = ("runs.csv", *EXAMPLES.values())
CONFIGURATION = ("mix", "method", "scope", "strength", "capacity", "capacity_scope", "placed")
# routers that came after P3, on the same testbed
TOP_K = "top-k"
BEAM = "BEAM"
L2R = "L2R"
PRICED_FAMILIES = (TOP_K, BEAM, L2R)
PRICED_FILES = ("priced.csv",)
PRICED_CONFIGURATION = ("family", "n_chosen", "price", "rank")


@dataclass(frozen=True)
class Runs:
    """All runs of a folder, one row each."""

    folder: Path = field(repr=False)
    manifest: dict = field(repr=False)
    file: str
    _columns: dict = field(repr=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each run: its configuration (no cap is nan) and what was measured. Needs
        pandas."""
        return read_frame(self.folder / self.file)

    def columns(self, **wanted) -> dict[str, np.ndarray]:
        """What `rows` selects, as columns (K,) by name, without pandas."""
        found = matching(self._columns, wanted, "run")
        return {name: values[found] for name, values in self._columns.items()}

    def rows(self, **wanted) -> pd.DataFrame:
        """The rows whose columns have the wanted values, counted from 0; `capacity=None` for runs
        without a cap."""
        found = np.flatnonzero(matching(self._columns, wanted, "run"))
        return self.table.take(found).reset_index(drop=True)


@dataclass(frozen=True)
class TestbedRuns(Runs):
    """The runs after P3, and files with the routing of two of them."""

    def routing(self, name: str) -> Path:
        """File with the held-out routing of the example `"narrow"` (balanced within a sequence) or
        `"wide"` (over the whole step), for `routers.read_routing`."""
        file = f"routing-{name}.npz"
        if file not in RUN_FILES:
            raise ValueError(f"name is {name!r}; allowed are 'narrow' and 'wide'")
        return self.folder / file


def load_testbed(folder: str | os.PathLike | None = None) -> TestbedRuns:
    """The shipped runs, or those of a folder, after checking their hashes.

    Raises FileNotFoundError where they are missing, ValueError where they are damaged. Their
    `rows`, alone, need pandas: `pip install -e '.[book]'`.

    >>> runs = load_testbed().rows(mix="scripts", method="LBL", scope=64, strength=0.125)
    >>> runs[["capacity", "seed", "loss"]].head(2).values.tolist()
    [[nan, 0.0, 3.47808], [nan, 1.0, 3.45274]]
    """
    place, manifest, (table, *_) = open_sealed(folder, "testbed", RUN_FILES)
    return TestbedRuns(place, manifest, RUN_FILES[0], read_columns(table))


def save_testbed(
    folder: str | os.PathLike, rows: Sequence[dict], routing: dict[str, dict], manifest: dict
) -> None:
    """Write `runs.csv`, the arrays of each routing file and, last, the manifest that seals them,
    each atomically.

    Configurations are written exactly, what was measured with six digits.

    >>> import tempfile
    >>> runs = load_testbed()
    >>> rows = runs.table.to_dict("records")
    >>> routing = {name: {"chosen": np.zeros((8, 4), int)} for name in EXAMPLES.values()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_testbed(folder, rows, routing, {"title": "the same runs"})
    ...     Path(folder, "runs.csv").read_bytes() == (runs.folder / "runs.csv").read_bytes()
    True
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(folder / RUN_FILES[0], rows, CONFIGURATION)
    for name, arrays in routing.items():
        write_atomically(
            folder / name, lambda file, arrays=arrays: np.savez_compressed(file, **arrays)
        )
    seal(folder, manifest, RUN_FILES)


def load_priced_routers(folder: str | os.PathLike | None = None) -> Runs:
    """The shipped runs with a price on experts or a score of low rank, or those of a folder, after
    checking their hashes.

    Raises FileNotFoundError where they are missing, ValueError where they are damaged.

    >>> runs = load_priced_routers().columns(family="top-k", n_chosen=1)
    >>> runs["seed"].tolist(), runs["experts"].tolist()
    ([0.0, 1.0, 2.0], [1.0, 1.0, 1.0])
    """
    place, manifest, (table,) = open_sealed(folder, "priced-routers", PRICED_FILES)
    return Runs(place, manifest, PRICED_FILES[0], read_columns(table))


def save_priced_routers(folder: str | os.PathLike, rows: Sequence[dict], manifest: dict) -> None:
    """Write the rows and, last, the manifest that seals them, each atomically.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_priced_routers(folder, [{"family": "L2R", "loss": 3.5}], {"title": "one run"})
    ...     load_priced_routers(folder).columns(family="L2R")["loss"].tolist()
    [3.5]
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(folder / PRICED_FILES[0], rows, (*CONFIGURATION, *PRICED_CONFIGURATION))
    seal(folder, manifest, PRICED_FILES)


def _write_table(path: Path, rows: Sequence[dict], exact: Sequence[str]) -> None:
    """Rows as a table: the columns named `exact` as they are, others with six digits."""
    import pandas as pd

    table = pd.DataFrame(rows)
    for name in table.select_dtypes("float").columns.difference(list(exact)):
        table[name] = table[name].map("{:.6g}".format)
    write_atomically(path, lambda file: file.write(csv_bytes(table)))


# --- reading the runs ---


@dataclass(frozen=True)
class Contrast:
    """A difference between two configurations, paired by seed."""

    mean: float
    interval: tuple[float, float]
    """Student's, over seeds; infinite for a single one"""
    p_value: float
    """two-sided, of all ways to swap the two runs of a seed; never below 2 / 2^n for n seeds"""
    n_seeds: int
    n_positive: int
    """seeds at which the first run has the larger value"""


def contrast(
    first: pd.DataFrame, second: pd.DataFrame, measure: str = "loss", level: float = 0.95
) -> Contrast:
    """`measure` of the first rows less that of the second at the same seeds, which saw the same
    batches.

    If the configuration did not matter, the two runs of a seed would be exchangeable: the p-value
    needs that and nothing else. The interval of the given level assumes differences that are nearly
    normal; for one of n intervals that shall hold together take `level = 1 - 0.05 / n`.

    Raises ValueError where no seed is common or one occurs twice.

    >>> import pandas as pd
    >>> first = pd.DataFrame({"seed": [0, 1, 2], "loss": [1.0, 2.0, 4.0]})
    >>> second = pd.DataFrame({"seed": [2, 0], "loss": [3.5, 0.9]})
    >>> found = contrast(first, second)
    >>> round(found.mean, 4), found.n_seeds, found.p_value
    (0.3, 2, 0.5)
    """
    seeds = np.intersect1d(first["seed"], second["seed"])
    if not len(seeds) or first["seed"].duplicated().any() or second["seed"].duplicated().any():
        raise ValueError(
            f"seeds are {first['seed'].tolist()} and {second['seed'].tolist()}; "
            "allowed are one row a seed, some shared"
        )
    one = first.set_index("seed")[measure].loc[seeds]
    other = second.set_index("seed")[measure].loc[seeds]
    differences = np.asarray(one - other, dtype=float)
    mean = float(differences.mean())
    n_seeds = len(seeds)
    reach = np.inf
    if n_seeds > 1:
        quantile = scipy.stats.t.ppf((1 + level) / 2, n_seeds - 1)
        reach = float(quantile * differences.std(ddof=1) / np.sqrt(n_seeds))
    return Contrast(
        mean=mean,
        interval=(mean - reach, mean + reach),
        p_value=_sign_flip_p(differences),
        n_seeds=n_seeds,
        n_positive=int((differences > 0).sum()),
    )


def _sign_flip_p(differences: np.ndarray) -> float:
    """How often the sum of all 2^n sign patterns of differences (n,) is at least as far from 0."""
    signs = np.array(list(product((-1, 1), repeat=len(differences))))
    sums = np.abs(signs @ differences)
    return float(np.mean(sums >= abs(differences.sum()) * (1 - 1e-12)))


def rank_correlation(values: ArrayLike, losses: ArrayLike) -> float:
    """Spearman's rho of (K,) values with losses.

    It comes without a p-value: configurations that share seeds and data are no independent draws.

    >>> round(rank_correlation([0.1, 0.2, 0.4, 0.3], [3.6, 3.5, 3.3, 3.4]), 4)
    -1.0
    """
    return float(scipy.stats.spearmanr(values, losses).statistic)


def summarise(rows: pd.DataFrame, measures: Sequence[str] = ("loss",)) -> pd.DataFrame:
    """A row for each configuration, in order of appearance: `n_seeds`, and mean and standard
    deviation over seeds of each measure, as `name` and `name_sd` (nan for a single seed).

    >>> found = summarise(load_testbed().rows(mix="latin", method="LBL"), ["loss"])
    >>> found[["scope", "n_seeds"]].values.tolist()
    [[1, 3], [8, 3], [64, 3]]
    >>> [round(loss, 2) for loss in found["loss"]]
    [4.23, 4.13, 4.08]
    """
    columns = {"n_seeds": ("seed", "size")}
    columns |= {name: (name, "mean") for name in measures}
    columns |= {f"{name}_sd": (name, "std") for name in measures}
    # runs without a cap are a group of their own, though their capacity is nan
    groups = rows.groupby(list(CONFIGURATION), sort=False, dropna=False, as_index=False)
    return groups.agg(**columns)
