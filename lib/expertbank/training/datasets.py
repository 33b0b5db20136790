"""MNIST and data sets like it as plain arrays, from `$EXPERTBANK_DATA`, the shipped data's folder
or a package of the system, downloaded by torchvision where allowed.

KMNIST and CIFAR-10 were never trained on for this book: no package that it draws on holds them.
Their loaders are tested on small files of the same format.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, KMNIST, MNIST, FashionMNIST

from expertbank._files import one_line
from expertbank.shipped.bank import DATA_SETS, SPLITS
from expertbank.shipped.manifest import data_folder

# md5 of the uncompressed files: torchvision checks only the archives that it downloads
RAW_FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
FASHION_FILES = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
PREFIXES = dict(zip(SPLITS, ("train", "t10k"), strict=True))


@dataclass(frozen=True)
class Images:
    """Where the images of a data set come from."""

    loader: type
    """the class of torchvision that downloads them"""
    source: str
    n_train: int = 60_000
    files: Mapping[str, str | None] = field(default_factory=lambda: dict.fromkeys(RAW_FILES))
    """the files in IDX format and the md5 of each, uncompressed, where it is known"""
    package: Path | None = None
    """where a package of the system puts them, each as .gz"""


IMAGES = {
    "mnist": Images(MNIST, "MNIST (LeCun, Cortes & Burges), CC BY-SA 3.0", files=RAW_FILES),
    "fashion": Images(
        FashionMNIST,
        "Fashion-MNIST (Zalando SE), MIT (Expat)",
        files=FASHION_FILES,
        package=Path("/usr/share/datasets/fashion-mnist"),  # Debian's dataset-fashion-mnist
    ),
    "kmnist": Images(KMNIST, "KMNIST (CODH), CC BY-SA 4.0"),
    "cifar10": Images(CIFAR10, "CIFAR-10 (Krizhevsky)", n_train=50_000, files={}),
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


def load_images(
    data: str, split: str, root: str | os.PathLike | None = None, download: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) uint8, of CIFAR-10 (N, 32, 32, 3), and labels (N,) uint8 of split
    `"train"` or `"test"` of a data set: `"mnist"`, `"fashion"`, `"kmnist"` or `"cifar10"`.

    Raises FileNotFoundError where it is absent, ValueError where a file is incomplete or altered.

    >>> images, labels = load_images("fashion", "test", download=True)  # doctest: +SKIP
    >>> images.shape, labels[:5].tolist()  # doctest: +SKIP
    ((10000, 28, 28), [9, 2, 1, 1, 6])
    """
    if data not in DATA_SETS:
        raise ValueError(f"data is {data!r}; allowed are {tuple(DATA_SETS)}")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; allowed are {SPLITS}")
    root = data_root() if root is None else Path(root)
    if data == "cifar10":
        return _cifar10(root, split, download)
    folder, ending = _place(data, root, download)
    content = {
        name: _checked(folder / f"{name}{ending}", md5, DATA_SETS[data])
        for name, md5 in IMAGES[data].files.items()
    }
    prefix = PREFIXES[split]
    images = _idx(folder, f"{prefix}-images-idx3-ubyte", content)
    labels = _idx(folder, f"{prefix}-labels-idx1-ubyte", content)
    return images, labels


def load_mnist(
    split: str, root: str | os.PathLike | None = None, download: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """MNIST: `load_images("mnist", split)`, (60000, 28, 28) or (10000, 28, 28) and as many labels.

    >>> images, labels = load_mnist("test", download=True)  # doctest: +SKIP
    >>> images.shape, labels[:5].tolist()  # doctest: +SKIP
    ((10000, 28, 28), [7, 2, 1, 0, 4])
    """
    return load_images("mnist", split, root, download)


def _place(data: str, root: Path, download: bool) -> tuple[Path, str]:
    """The folder that holds a data set's files, and what their names end in."""
    images = IMAGES[data]
    kind = images.loader.__name__
    raw = root / kind / "raw"
    present = [name for name in images.files if (raw / name).exists()]
    if len(present) == len(images.files):
        return raw, ""
    package = images.package
    if package and all((package / f"{name}.gz").exists() for name in images.files):
        return package, ".gz"
    if download and not present:
        images.loader(root, download=True)
        return raw, ""
    missing = sorted(set(images.files) - set(present))
    flag = "" if data == "mnist" else f" --data {data}"
    raise FileNotFoundError(
        f"{DATA_SETS[data]} in {raw} lacks {missing}; point EXPERTBANK_DATA at a folder that holds "
        f"{kind}/raw, or remove what is there and let `expertbank train mnist{flag} --download` "
        "fetch it"
    )


def _checked(path: Path, md5: str | None, title: str) -> bytes:
    """The content of a file, unpacked, after checking its md5 where one is known."""
    packed = path.read_bytes()
    content = gzip.decompress(packed) if path.suffix == ".gz" else packed
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 is not None and found != md5:
        raise ValueError(
            f"{path} has md5 {found}, {title} has {md5}: incomplete download? "
            "Remove the file and download again"
        )
    return content


def _idx(folder: Path, name: str, content: dict[str, bytes]) -> np.ndarray:
    """The bytes of a file in IDX format, in the shape that its head states."""
    packed = content[name]
    n_axes = packed[3] if len(packed) > 3 else 0
    head = 4 + 4 * n_axes
    shape = np.frombuffer(packed[4:head], ">i4")
    if packed[:3] != b"\0\0\x08" or len(packed) - head != np.prod(shape, dtype=int):
        raise ValueError(f"{folder / name} is no whole IDX file of bytes; download it again")
    return np.frombuffer(packed, np.uint8, offset=head).reshape(shape).copy()


def _cifar10(root: Path, split: str, download: bool) -> tuple[np.ndarray, np.ndarray]:
    try:
        # it checks the md5 of every file before it reads one
        found = CIFAR10(root, train=split == "train", download=download)
    except RuntimeError as error:
        place = root / CIFAR10.base_folder
        raise FileNotFoundError(
            f"no whole CIFAR-10 in {place} ({one_line(error, 80)}); let `expertbank train mnist "
            "--data cifar10 --download` fetch it"
        ) from error
    return found.data, np.array(found.targets, dtype=np.uint8)
