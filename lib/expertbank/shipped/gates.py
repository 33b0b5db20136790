"""The shipped sweep of trained gates, what regressions expect each expert to lose on an input, and
labels voted by the nearest training images. Nats.

The gates see only the input. `training.gates` made them; their folder holds `gates.csv`,
`gates.npz` and a manifest that seals both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from expertbank._files import read_arrays, reading, write_atomically
from expertbank.gates import harden, judge_gate
from expertbank.information import entropy
from expertbank.rate_distortion import rate_distortion, routing
from expertbank.shipped.bank import SPLITS, ExpertBank, named_for
from expertbank.shipped.frames import csv_bytes, matching, read_columns, read_frame
from expertbank.shipped.manifest import open_sealed, seal

if TYPE_CHECKING:
    import pandas as pd


GATE_FILES = ("gates.csv", "gates.npz")
GATE_FAMILIES = ("linear", "cnn", "prototype")
ORACLE = "oracle"  # the gate that sees the label
DECISIONS = ("soft", "hard")
ESTIMATES = ("distilled", "neighbours")
VOTED = "voted"  # labels guessed by a vote of the nearest training images
GATE_SEEDS = 3
EXAMPLE = ("cnn", 4, 0)  # family, index of the price, seed
STEPS = 255  # losses are shipped in as many steps
# prices of a nat at which gates are trained: where the experts differ little, a nat is worth
# little
LAMS = {"mnist": np.geomspace(1e-3, 0.3, 10), "specialists": np.geomspace(0.02, 2, 10)}


def banks_of(data: str = "mnist") -> tuple[str, ...]:
    """The banks of a data set that gates are trained for.

    >>> banks_of("fashion")
    ('fashion', 'fashion-specialists')
    """
    return tuple(named_for(data, bank) for bank in LAMS)


def prices_of(bank: str) -> np.ndarray:
    """Prices of a nat at which gates of a bank are trained: ten, and on other data sets than MNIST
    every second of them.

    >>> len(prices_of("specialists")), len(prices_of("fashion-specialists"))
    (10, 5)
    """
    prices = LAMS["specialists" if bank.endswith("specialists") else "mnist"]
    return prices if bank in LAMS else prices[::2]


def is_example(bank: str, family: str, lam: float, seed: int) -> bool:
    """Whether this is the one gate of a bank whose probabilities are shipped.

    >>> is_example("fashion", "cnn", float(prices_of("fashion")[2]), seed=0)
    True
    """
    of_family, price, of_seed = EXAMPLE
    prices = LAMS["specialists" if bank.endswith("specialists") else "mnist"]
    return (family, lam, seed) == (of_family, float(prices[price]), of_seed)


# --- the shipped sweep ---


@dataclass(frozen=True)
class GateSweep:
    """Trained gates of every bank, family, price and seed, judged on both splits, soft and
    hardened."""

    folder: Path = field(repr=False)
    manifest: dict = field(repr=False)
    _columns: dict = field(repr=False)
    _arrays: dict = field(repr=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each gate, split and decision, with rate, rate_low, rate_high, loss and
        loss_error. Needs pandas."""
        return read_frame(self.folder / GATE_FILES[0])

    def columns(self, **wanted) -> dict[str, np.ndarray]:
        """What `rows` selects, as columns (K,) by name, without pandas."""
        found = matching(self._columns, wanted, "gate")
        return {name: values[found] for name, values in self._columns.items()}

    def rows(self, **wanted) -> pd.DataFrame:
        """The rows of `table` whose columns have the wanted values, counted from 0:
        `rows(bank="mnist", split="test")`."""
        found = np.flatnonzero(matching(self._columns, wanted, "gate"))
        return self.table.take(found).reset_index(drop=True)

    def loads(self, **wanted) -> np.ndarray:
        """Share of the inputs that each expert serves, (rows, R), for the same rows."""
        return self._arrays["loads"][matching(self._columns, wanted, "gate")]

    def candidates(self, bank: str) -> pd.DataFrame:
        """The K trained gates of a bank: their rows on the test split, soft, in the order of
        `losses` and `chosen`."""
        rows = self.rows(bank=bank, split="test", decision="soft")
        return rows.query(f"family != '{ORACLE}'").reset_index(drop=True)

    @property
    def banks(self) -> tuple[str, ...]:
        """The banks whose gates these are."""
        return tuple(key.removesuffix("_chosen") for key in self._arrays if key.endswith("_chosen"))

    def losses(self, bank: str) -> np.ndarray:
        """Expected loss (N, K) of each trained gate on each test input, in steps of 1/255."""
        return self._array(bank, "losses") / STEPS

    def chosen(self, bank: str) -> np.ndarray:
        """Most probable expert (N, K) uint8 of each trained gate on each test input."""
        return self._array(bank, "chosen")

    def example(self, bank: str) -> np.ndarray:
        """p(t|x) (N, R) of one trained gate on the test split: a CNN at a middle price, seed 0."""
        gate = self._array(bank, "example").astype(float)
        return gate / gate.sum(axis=1, keepdims=True)  # it is shipped in half precision

    def estimates(self, bank: str, kind: str) -> np.ndarray:
        """E[loss | x] (N, R) of the test inputs, `"distilled"` by a CNN or from pixel
        `"neighbours"`."""
        if kind not in ESTIMATES:
            raise ValueError(f"kind is {kind!r}; allowed are {ESTIMATES}")
        return self._array(bank, kind) / STEPS

    def voted(self, bank: str) -> np.ndarray:
        """The label (N,) uint8 that the three nearest training images of each test input vote for:
        a guess from x alone."""
        return self._array(bank, VOTED)

    def _array(self, bank: str, name: str) -> np.ndarray:
        if bank not in self.banks:
            raise ValueError(f"bank is {bank!r}; allowed are {self.banks}")
        return self._arrays[f"{bank}_{name}"]


def load_gates(folder: str | os.PathLike | None = None, data: str = "mnist") -> GateSweep:
    """The shipped sweep of a data set, or that of a folder, after checking its hashes.

    Raises FileNotFoundError where it is missing, ValueError where it is damaged. Its `rows`, alone,
    need pandas: `pip install -e '.[book]'`.

    >>> gates = load_gates().candidates("specialists")
    >>> best = gates.loc[gates["loss"].idxmin()]
    >>> best["family"], round(float(best["rate"]), 2), round(float(best["loss"]), 3)
    ('cnn', 1.92, 0.096)
    """
    place, manifest, (table, arrays) = open_sealed(folder, named_for(data, "gates"), GATE_FILES)
    with reading(arrays):
        content = read_arrays(arrays)
    return GateSweep(place, manifest, read_columns(table), content)


def save_gates(
    folder: str | os.PathLike, rows: Sequence[dict], arrays: dict, manifest: dict
) -> None:
    """Write `gates.csv`, `gates.npz` and, last, the manifest that seals them, each atomically.

    >>> import tempfile
    >>> sweep = load_gates()
    >>> rows = sweep.table.to_dict("records")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_gates(folder, rows, {"loads": sweep.loads()}, {"title": "the same gates"})
    ...     Path(folder, "gates.csv").read_bytes() == (sweep.folder / "gates.csv").read_bytes()
    True
    """
    import pandas as pd

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = csv_bytes(pd.DataFrame(rows))
    write_atomically(folder / GATE_FILES[0], lambda file: file.write(table))
    write_atomically(folder / GATE_FILES[1], lambda file: np.savez_compressed(file, **arrays))
    seal(folder, manifest, GATE_FILES)


def as_steps(losses: ArrayLike) -> np.ndarray:
    """Losses in [0, 1] as uint8 in steps of 1/255.

    >>> as_steps([0.0, 0.2, 1.0]).tolist()
    [0, 51, 255]
    """
    return np.rint(np.asarray(losses) * STEPS).astype(np.uint8)


def judge_splits(
    bank: str,
    family: str,
    lam: float,
    seed: int,
    gates: Sequence[np.ndarray],
    losses: Sequence[np.ndarray],
) -> tuple[list[dict], np.ndarray]:
    """Rows of `gates.csv` and loads (4, R) of one gate, given as each split's p(t|x) and losses:
    soft and hardened.

    >>> gate = np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> losses = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> rows, loads = judge_splits("mnist", "linear", 0.1, 0, (gate, gate), (losses, losses))
    >>> [(row["split"], row["decision"], row["loss"]) for row in rows[:2]]
    [('train', 'soft', 0.15), ('train', 'hard', 0.0)]
    """
    rows = []
    loads = []
    for split, soft, table in zip(SPLITS, gates, losses, strict=True):
        for decision, routed in zip(DECISIONS, (soft, harden(soft)), strict=True):
            judged = judge_gate(routed, table)
            low, high = judged.rate_interval
            named = {"bank": bank, "family": family, "lam": lam, "seed": seed}
            named |= {"split": split, "decision": decision}
            numbers = {"rate": judged.rate, "rate_low": low, "rate_high": high}
            numbers |= {"loss": judged.loss, "loss_error": judged.loss_error}
            rows.append(named | {name: round(value, 6) for name, value in numbers.items()})
            loads.append(judged.load)
    return rows, np.array(loads, dtype=np.float32)


def judge_oracle(bank: ExpertBank) -> tuple[list[dict], np.ndarray]:
    """Rows and loads of the gate that sees the label through the loss: the posterior of P2 (28),
    its marginal solved on train.

    >>> from expertbank import load_bank
    >>> rows, loads = judge_oracle(load_bank("mnist"))  # fifteen seconds  # doctest: +SKIP
    >>> len(rows), loads.shape  # ten prices, two splits, soft and hardened  # doctest: +SKIP
    (40, (40, 25))
    """
    losses = [bank.losses(split) for split in SPLITS]
    rows = []
    loads = []
    for lam in prices_of(bank.name).tolist():
        point = rate_distortion(losses[0], lam)
        gates = [routing(table, point) for table in losses]
        judged_rows, judged_loads = judge_splits(bank.name, ORACLE, lam, 0, gates, losses)
        rows += judged_rows
        loads.append(judged_loads)
    return rows, np.concatenate(loads)


def gate_family(
    sweep: GateSweep, bank: ExpertBank, decision: str = "soft"
) -> tuple[np.ndarray, np.ndarray]:
    """Losses (N, K) on the bank's test split and rates (K,) there in nats of the shipped gates that
    see only x.

    `"soft"` is expected loss and I(X;T); `"hard"` gates take the most probable expert: 0-1 loss,
    and the rate is H(T). Raises ValueError for another decision.

    >>> from expertbank import load_bank
    >>> losses, rates = gate_family(load_gates(), load_bank("specialists"), "hard")
    >>> losses.shape, rates.shape
    ((10000, 90), (90,))
    """
    if decision not in DECISIONS:
        raise ValueError(f"decision is {decision!r}; allowed are {DECISIONS}")
    if decision == "soft":
        gates = sweep.columns(bank=bank.name, split="test", decision="soft")
        return sweep.losses(bank.name), gates["rate"][gates["family"] != ORACLE]
    chosen = sweep.chosen(bank.name)
    losses = np.take_along_axis(bank.losses("test"), chosen, axis=1)
    shares = [np.bincount(column, minlength=bank.n_experts) / len(column) for column in chosen.T]
    return losses, np.asarray(entropy(shares))
