"""Files of torch.save, which are pickles: read by the restricted unpickler alone."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from expertbank._files import check_members
from expertbank.routers.formats._common import signed

# what to do with a file that is not loaded because it could run code
INSTEAD = "where you trust it, load it on the machine that made it and np.savez its arrays"


def load_tensors(path: Path) -> Any:
    """A file of torch.save, by the restricted unpickler: it makes tensors and plain containers and
    runs nothing."""
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{path} needs torch to be read: `pip install -e '.[gpu]'`, or convert it to npz"
        ) from None
    if not zipfile.is_zipfile(path):  # the pickles of torch before 1.6 ask for memory as they like
        raise ValueError(f"{path} is refused: truncated, or of no torch since 1.6; {INSTEAD}")
    check_members(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # which kinds there are is torch's own affair
        if type(error).__name__ != "UnpicklingError":
            raise
        wanted = re.search(r"(?:GLOBAL|global|class) `?([\w.]{1,60})", str(error))
        asked = f"asks for {wanted[1]}" if wanted else "is damaged or asks for more than data"
        raise ValueError(
            f"{path} is refused: its pickle {asked}, and that could run code; {INSTEAD}"
        ) from None


def integers_of(path: Path, key: str, value: Any, n_axes: int) -> np.ndarray:
    """A tensor or a flat list as an array of integers; None, for a missing key, is refused too."""
    if hasattr(value, "untyped_storage"):
        if value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: {key} repeats its numbers; allowed is one of each")
        array = value.numpy()
    elif isinstance(value, list) and all(isinstance(number, int) for number in value):
        array = np.asarray(value)
    else:
        raise ValueError(
            f"{path}: {key} is a {type(value).__name__}; allowed are integers of {n_axes} axes"
        )
    if array.dtype.kind in "iu" and array.ndim == n_axes:
        return signed(array)
    if array.shape == (0,):  # an empty list has no type of its own
        return array.astype(np.int64)
    raise ValueError(
        f"{path}: {key} is {array.dtype} of shape {array.shape}; allowed are integers of "
        f"{n_axes} axes"
    )


def keys_of(content: Any) -> set[str]:
    """The keys of a dict that are text."""
    return {key for key in content if isinstance(key, str)} if isinstance(content, dict) else set()
