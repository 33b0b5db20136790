"""Expert banks on disk: predictions of every expert on every image, with a manifest that vouches
for them.

A bank is a folder with `manifest.json` and the files that it lists by size and sha256:
`predictions.npz` (uint8 classes and labels of both splits) and, where shipped,
`weights.safetensors`. Nothing is pickled.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from expertbank._files import read_arrays, reading, write_atomically
from expertbank.shipped.manifest import check_file, check_free, data_folder, read_manifest, seal

SPLITS = ("train", "test")
# what banks can be trained on, and what it is called
DATA_SETS = {
    "mnist": "MNIST",
    "fashion": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR-10",
}


@dataclass(frozen=True)
class ExpertBank:
    """R classifiers, known by what they predict. Arrays: predictions (N, R) uint8, labels (N,)
    uint8."""

    name: str
    folder: Path = field(repr=False)
    manifest: dict = field(repr=False)
    _arrays: dict = field(repr=False)

    @property
    def n_experts(self) -> int:
        return self.predictions("train").shape[1]

    def labels(self, split: str) -> np.ndarray:
        """True classes (N,) uint8 of split `"train"` or `"test"`."""
        return self._arrays[f"{_known_split(split)}_labels"]

    def predictions(self, split: str) -> np.ndarray:
        """Predicted classes (N, R) uint8 of split `"train"` or `"test"`."""
        return self._arrays[f"{_known_split(split)}_predictions"]

    def losses(self, split: str) -> np.ndarray:
        """0-1 losses (N, R) uint8: 1 where expert r is wrong on image i. Unsigned: cast before
        taking `-losses`."""
        return (self.predictions(split) != self.labels(split)[:, None]).astype(np.uint8)

    def accuracies(self, split: str) -> np.ndarray:
        """Share of right predictions (R,) of each expert."""
        return 1 - self.losses(split).mean(axis=0)

    def disagreements(self, split: str) -> np.ndarray:
        """Share of images (R, R) on which two experts predict different classes."""
        predictions = self.predictions(split)
        return np.array([(predictions != column[:, None]).mean(axis=0) for column in predictions.T])


def load_bank(
    name: str | os.PathLike = "mnist", root: str | os.PathLike | None = None
) -> ExpertBank:
    """Load a bank by name from `root` (default: the shipped banks), checking its hash.

    Raises FileNotFoundError for an unknown bank or a missing file, ValueError for a damaged one.

    >>> bank = load_bank("mnist")
    >>> bank.losses("train").shape, round(float(bank.accuracies("test").mean()), 4)
    ((60000, 25), 0.9057)
    """
    folder = bank_folder(name, root)
    manifest = read_manifest(folder)
    path = check_file(folder, manifest, "predictions.npz")
    with reading(path):
        arrays = read_arrays(path)
        _check_arrays(path, arrays)
    return ExpertBank(folder.name, folder, manifest, arrays)


def named_for(data: str, what: str) -> str:
    """What a bank, or a folder of banks, of a data set is called where MNIST's is called `what`.

    >>> named_for("mnist", "family"), named_for("fashion", "family"), named_for("fashion", "mnist")
    ('family', 'fashion-family', 'fashion')
    """
    if data not in DATA_SETS:
        raise ValueError(f"data is {data!r}; allowed are {tuple(DATA_SETS)}")
    if data == "mnist":
        return what
    return data if what == "mnist" else f"{data}-{what}"


def load_family(
    kind: str = "replicate", root: str | os.PathLike | None = None, data: str = "mnist"
) -> list[ExpertBank]:
    """Every bank of a data set's shipped family whose name starts with `kind`: `"replicate"` or
    `"grid"`, in order of name.

    Twenty replicates repeat the default recipe with other seeds; three grid banks hold 50 experts
    each, trained on 5,000, 10,000 and 20,000 images of MNIST. Raises FileNotFoundError where there
    is none.

    >>> [(bank.name, bank.n_experts) for bank in load_family("grid")]
    [('grid-05000', 50), ('grid-10000', 50), ('grid-20000', 50)]
    """
    family = _banks_folder(root) / named_for(data, "family")
    names = sorted(path.parent.name for path in family.glob(f"{kind}-*/manifest.json"))
    if not names:
        known = sorted({path.parent.name.split("-")[0] for path in family.glob("*/manifest.json")})
        raise FileNotFoundError(
            f"no bank of kind {kind!r} in {family}; allowed are {known}{_where_to_get(root)}"
        )
    return [load_bank(name, family) for name in names]


def save_bank(
    folder: str | os.PathLike,
    labels: dict,
    predictions: dict,
    manifest: dict,
    extra_files: tuple[str, ...] = (),
) -> None:
    """Write `predictions.npz` and, last, `manifest.json` that seals it, each atomically.

    `labels[split]` is (N,), `predictions[split]` (N, R); `extra_files` are names already in
    `folder` that the manifest should seal too. An existing bank is never overwritten:
    FileExistsError.

    >>> import tempfile
    >>> labels = {"train": [3, 5], "test": [7]}
    >>> predictions = {"train": [[3, 4], [5, 6]], "test": [[7, 1]]}
    >>> with tempfile.TemporaryDirectory() as root:
    ...     save_bank(f"{root}/two-experts", labels, predictions, {"title": "two experts"})
    ...     load_bank("two-experts", root).losses("train").tolist()
    [[0, 1], [0, 1]]
    """
    folder = Path(folder)
    check_free(folder, "a bank")
    arrays = {}
    for split in SPLITS:
        arrays[f"{split}_labels"] = _as_classes(labels[split], f"{split} labels")
        # image by image: experts mostly agree, which compresses to a fifth of what expert by expert
        # would take
        arrays[f"{split}_predictions"] = np.ascontiguousarray(
            _as_classes(predictions[split], f"{split} predictions")
        )
    _check_arrays(folder, arrays)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "predictions.npz", lambda file: np.savez_compressed(file, **arrays))
    seal(folder, manifest, ("predictions.npz", *extra_files))


def bank_folder(name: str | os.PathLike, root: str | os.PathLike | None = None) -> Path:
    """Where bank `name` lives; FileNotFoundError lists the banks that exist.

    >>> bank_folder("mnist").name
    'mnist'
    """
    banks = _banks_folder(root)
    folder = banks / name
    if not (folder / "manifest.json").is_file():
        known = sorted(path.parent.name for path in banks.glob("*/manifest.json"))
        raise FileNotFoundError(
            f"no bank named {str(name)!r} in {banks}; allowed are {known}{_where_to_get(root)}"
        )
    return folder


def _banks_folder(root: str | os.PathLike | None) -> Path:
    return data_folder() / "banks" if root is None else Path(root)


def _where_to_get(root: str | os.PathLike | None) -> str:
    """The end of a sentence on a bank that is not there."""
    return "; the shipped ones are in data/banks of the repository" if root is None else ""


def _known_split(split: str) -> str:
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; allowed are {SPLITS}")
    return split


def _check_arrays(path: Path, arrays: dict) -> None:
    for split in SPLITS:
        labels = arrays.get(f"{split}_labels")
        predictions = arrays.get(f"{split}_predictions")
        if labels is None or predictions is None:
            raise ValueError(
                f"{path} holds {sorted(arrays)}; labels and predictions of {SPLITS} are needed"
            )
        if predictions.ndim != 2 or labels.shape != predictions.shape[:1]:
            raise ValueError(
                f"{path}: {split} predictions have shape {predictions.shape}, "
                f"labels {labels.shape}; allowed is (N, R) with (N,)"
            )
        if 0 in predictions.shape or predictions.dtype != np.uint8 or labels.dtype != np.uint8:
            raise ValueError(
                f"{path}: {split} predictions are {predictions.dtype} of shape "
                f"{predictions.shape}, labels {labels.dtype}; "
                "allowed is uint8 with at least one expert and one image"
            )
    experts = {split: arrays[f"{split}_predictions"].shape[1] for split in SPLITS}
    if len(set(experts.values())) > 1:
        raise ValueError(
            f"{path} has other numbers of experts in its splits: {experts}; they must be one bank"
        )


def _as_classes(values, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} have dtype {array.dtype}; allowed are integers from 0 to 255")
    if array.size and not 0 <= array.min() <= array.max() <= 255:
        raise ValueError(
            f"{name} lie between {array.min()} and {array.max()}; "
            "allowed are integers from 0 to 255"
        )
    return array.astype(np.uint8)
