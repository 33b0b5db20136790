"""MNIST as plain arrays, from `$EXPERTBANK_DATA` or the shipped data's folder, downloaded where
allowed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pooch
from torchvision.datasets import MNIST

from expertbank.shipped.manifest import data_folder

# md5 of the uncompressed files: torchvision checks only the archives that it downloads
RAW_FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def data_root() -> Path:
    """Folder of downloaded data sets: `$EXPERTBANK_DATA`, else that of the shipped data.

    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, EXPERTBANK_DATA="/data"):
    ...     str(data_root())
    '/data'
    """
    chosen = os.environ.get("EXPERTBANK_DATA")
    return Path(chosen) if chosen else data_folder()


def load_mnist(
    split: str, root: str | os.PathLike | None = None, download: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) uint8 and labels (N,) uint8 of split `"train"` (60,000) or `"test"`
    (10,000).

    Raises FileNotFoundError where MNIST is absent, ValueError where a file is incomplete or
    altered.

    >>> images, labels = load_mnist("test", download=True)  # doctest: +SKIP
    >>> images.shape, labels[:5].tolist()  # doctest: +SKIP
    ((10000, 28, 28), [7, 2, 1, 0, 4])
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; allowed are ('train', 'test')")
    root = data_root() if root is None else Path(root)
    raw = root / "MNIST" / "raw"
    present = [name for name in RAW_FILES if (raw / name).exists()]
    if download and not present:
        MNIST(root, download=True)
    elif len(present) < len(RAW_FILES):
        missing = sorted(set(RAW_FILES) - set(present))
        raise FileNotFoundError(
            f"MNIST in {raw} lacks {missing}; point EXPERTBANK_DATA at a folder that holds "
            "MNIST/raw, or remove what is there and let `expertbank train mnist --download` "
            "fetch it"
        )
    for name, md5 in RAW_FILES.items():
        found = pooch.file_hash(raw / name, alg="md5")
        if found != md5:
            raise ValueError(
                f"{raw / name} has md5 {found}, MNIST has {md5}: incomplete download? "
                "Remove the file and download again"
            )
    dataset = MNIST(root, train=split == "train")
    return dataset.data.numpy(), dataset.targets.numpy().astype(np.uint8)
