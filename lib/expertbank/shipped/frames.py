"""Tables of results on disk, read to the last digit, rows chosen by value: as columns, or as
pandas DataFrames.

pandas is imported where a DataFrame is asked for: explorers do without it, in a browser too.
`pip install -e '.[book]'` brings it.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from expertbank._files import reading

if TYPE_CHECKING:
    import pandas as pd


def read_frame(path: Path) -> pd.DataFrame:
    """The rows of a CSV file; `nan` stands for a missing number, and every other word for itself.

    >>> from expertbank.shipped.manifest import data_folder
    >>> frame = read_frame(data_folder() / "gates" / "gates.csv")
    >>> frame.shape, float(frame["lam"][0])
    ((800, 11), 0.001)
    """
    import pandas as pd

    # rows are chosen by equality: from pandas 3.1 on every number is the nearest float
    with reading(path):
        return pd.read_csv(path, keep_default_na=False, na_values=["nan"])


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns (N,) of a CSV file by name: floats, where `nan` stands for a missing number, and
    words where one value is no number.

    >>> from expertbank.shipped.manifest import data_folder
    >>> columns = read_columns(data_folder() / "gates" / "gates.csv")
    >>> columns["lam"].shape, columns["lam"][0], columns["bank"][0]
    ((800,), np.float64(0.001), np.str_('mnist'))
    """
    with reading(path), open(path, encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
        return {name: _column(values) for name, *values in zip(names, *rows, strict=True)}


def _column(words: list[str]) -> np.ndarray:
    try:
        return np.array([float(word) for word in words])
    except ValueError:
        return np.array(words)


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """What `read_frame` reads: floats as Python prints them, no index, lines that end alike
    everywhere.

    >>> import pandas as pd
    >>> csv_bytes(pd.DataFrame({"scope": [1, 64], "capacity": [None, 1.25]}))
    b'scope,capacity\\n1,nan\\n64,1.25\\n'
    """
    return frame.to_csv(index=False, na_rep="nan", lineterminator="\n").encode()


def matching(columns: dict[str, np.ndarray], wanted: dict, kind: str) -> np.ndarray:
    """Which rows (N,) of a table have the wanted values, column -> value; None stands for nan.

    Raises ValueError for a column that is not there, or where no row, called a `kind`, matches.

    >>> columns = {"scope": np.array([1, 64, 64]), "capacity": np.array([np.nan, 1.25, np.nan])}
    >>> matching(columns, {"scope": 64, "capacity": None}, "run").tolist()
    [False, False, True]
    """
    unknown = set(wanted) - set(columns)
    if unknown:
        raise ValueError(f"no column {sorted(unknown)}; allowed are {tuple(columns)}")
    found = np.ones(len(next(iter(columns.values()))), dtype=bool)
    for column, value in wanted.items():
        values = columns[column]
        # nan is the one value that differs from itself
        found &= values != values if value is None else values == value
    if not found.any():
        raise ValueError(f"no {kind} with {wanted}")
    return found
