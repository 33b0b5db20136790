"""Tables of results on disk as pandas DataFrames: read to the last digit, rows chosen by value.

pandas is imported where it is needed: banks are read without it. `pip install -e '.[book]'`
brings it.
"""

from __future__ import annotations

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


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """What `read_frame` reads: floats as Python prints them, no index, lines that end alike
    everywhere.

    >>> import pandas as pd
    >>> csv_bytes(pd.DataFrame({"scope": [1, 64], "capacity": [None, 1.25]}))
    b'scope,capacity\\n1,nan\\n64,1.25\\n'
    """
    return frame.to_csv(index=False, na_rep="nan", lineterminator="\n").encode()


def matching(frame: pd.DataFrame, wanted: dict, kind: str) -> np.ndarray:
    """Which rows (N,) of a table have the wanted values, column -> value; None stands for nan.

    Raises ValueError for a column that is not there, or where no row, called a `kind`, matches.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"scope": [1, 64, 64], "capacity": [None, 1.25, None]})
    >>> matching(frame, {"scope": 64, "capacity": None}, "run").tolist()
    [False, False, True]
    """
    unknown = set(wanted) - set(frame.columns)
    if unknown:
        raise ValueError(f"no column {sorted(unknown)}; allowed are {tuple(frame.columns)}")
    found = np.ones(len(frame), dtype=bool)
    for column, value in wanted.items():
        values = frame[column]
        has_value = values.isna() if value is None else values == value
        found &= has_value.to_numpy()
    if not found.any():
        raise ValueError(f"no {kind} with {wanted}")
    return found
