"""Expert banks on disk: predictions of every expert on every image, with a manifest that vouches for them.

A bank is a folder with `manifest.json` and the files that it lists by size and sha256: `predictions.npz`
(uint8 classes and labels of both splits) and, where shipped, `weights.safetensors`. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SPLITS = ("train", "test")
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class ExpertBank:
    """R classifiers, known by what they predict. Arrays: predictions (N, R) uint8, labels (N,) uint8."""

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
        """0-1 losses (N, R) uint8: 1 where expert r is wrong on image i. Unsigned: cast before taking `-losses`."""
        return (self.predictions(split) != self.labels(split)[:, None]).astype(np.uint8)

    def accuracies(self, split: str) -> np.ndarray:
        """Share of right predictions (R,) of each expert."""
        return 1 - self.losses(split).mean(axis=0)

    def disagreements(self, split: str) -> np.ndarray:
        """Share of images (R, R) on which two experts predict different classes."""
        predictions = self.predictions(split)
        return np.array([(predictions != column[:, None]).mean(axis=0) for column in predictions.T])


def load_bank(name: str | os.PathLike = "mnist", root: str | os.PathLike | None = None) -> ExpertBank:
    """Load a bank by name from `root` (default: the repository's `data/banks`), checking its hash.

    Raises FileNotFoundError for an unknown bank or a missing file, ValueError for a damaged one.
    """
    folder = bank_folder(name, root)
    manifest = read_manifest(folder)
    path = check_file(folder, manifest, "predictions.npz")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no readable npz archive ({error}); restore it from git") from error
    _check_arrays(path, arrays)
    return ExpertBank(folder.name, folder, manifest, arrays)


def load_family(kind: str = "replicate", root: str | os.PathLike | None = None) -> list[ExpertBank]:
    """Every bank of the shipped family whose name starts with `kind`: `"replicate"` or `"grid"`, in order of name.

    Twenty replicates repeat the default recipe with other seeds; three grid banks hold 50 experts each, trained on
    5,000, 10,000 and 20,000 images. Raises FileNotFoundError where there is none.
    """
    family = (Path(root) if root is not None else REPOSITORY / "data" / "banks") / "family"
    names = sorted(path.parent.name for path in family.glob(f"{kind}-*/manifest.json"))
    if not names:
        known = sorted({path.parent.name.split("-")[0] for path in family.glob("*/manifest.json")})
        raise FileNotFoundError(f"no bank of kind {kind!r} in {family}; allowed are {known}")
    return [load_bank(name, family) for name in names]


def save_bank(folder, labels: dict, predictions: dict, manifest: dict, extra_files: tuple = ()) -> None:
    """Write `predictions.npz` and, last, `manifest.json` that seals it, each atomically.

    `labels[split]` is (N,), `predictions[split]` (N, R); `extra_files` are names already in `folder` that
    the manifest should seal too. An existing bank is never overwritten: FileExistsError.
    """
    folder = Path(folder)
    check_free(folder, "a bank")
    arrays = {}
    for split in SPLITS:
        arrays[f"{split}_labels"] = _as_classes(labels[split], f"{split} labels")
        # image by image: experts mostly agree, which compresses to a fifth of what expert by expert would take
        arrays[f"{split}_predictions"] = np.ascontiguousarray(_as_classes(predictions[split], f"{split} predictions"))
    _check_arrays(folder, arrays)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "predictions.npz", lambda file: np.savez_compressed(file, **arrays))
    seal(folder, manifest, ("predictions.npz", *extra_files))


def bank_folder(name, root=None) -> Path:
    """Where bank `name` lives; FileNotFoundError lists the banks that exist."""
    root = Path(root) if root is not None else REPOSITORY / "data" / "banks"
    folder = root / name
    if not (folder / "manifest.json").is_file():
        known = sorted(path.parent.name for path in root.glob("*/manifest.json"))
        raise FileNotFoundError(f"no bank named {str(name)!r} in {root}; allowed are {known}")
    return folder


def open_sealed(folder, kind: str, names: Sequence[str]) -> tuple[Path, dict, list[Path]]:
    """A sealed folder (None: the repository's `data/<kind>`), its manifest, and the paths of its files, hashes checked.

    Raises FileNotFoundError where there is none, naming the make target of that kind, ValueError where it is damaged.
    """
    folder = Path(folder) if folder is not None else REPOSITORY / "data" / kind
    if not (folder / "manifest.json").is_file():
        raise FileNotFoundError(f"no {kind} in {folder}; `make {kind}` trains anew")
    manifest = read_manifest(folder, names, kind)
    return folder, manifest, [check_file(folder, manifest, name) for name in names]


def matching(table: np.ndarray, wanted: dict, kind: str) -> np.ndarray:
    """Which rows (N,) of a structured table have the wanted values, column -> value; None stands for nan.

    Raises ValueError for a column that is not there, or where no row, called a `kind`, matches.
    """
    if unknown := set(wanted) - set(table.dtype.names):
        raise ValueError(f"no column {sorted(unknown)}; allowed are {table.dtype.names}")
    found = np.ones(len(table), dtype=bool)
    for column, value in wanted.items():
        found &= np.isnan(table[column]) if value is None else table[column] == value
    if not found.any():
        raise ValueError(f"no {kind} with {wanted}")
    return found


def check_free(folder, holds: str) -> None:
    """Raise FileExistsError, naming what the folder holds, where `seal` has already closed it."""
    if (Path(folder) / "manifest.json").exists():
        raise FileExistsError(f"{folder} already holds {holds}; choose another folder or move it away")


def seal(folder, manifest: dict, names: Sequence[str]) -> None:
    """Write `manifest.json` atomically, with size and sha256 of the named files that are already in `folder`.

    Written last it says that the folder is whole. Raises FileNotFoundError where a file is missing.
    """
    folder = Path(folder)
    text = json.dumps({**manifest, "files": {name: describe_file(folder / name) for name in names}}, indent=2) + "\n"
    write_atomically(folder / "manifest.json", lambda file: file.write(text.encode()))


def read_manifest(folder: Path, needed: Sequence[str] = ("predictions.npz",), kind: str = "bank") -> dict:
    """The manifest that `seal` wrote; ValueError, naming the kind of folder, where it is not valid JSON with a `files`
    table that has what is needed."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        for listed in (*(manifest["files"][name] for name in needed), *manifest["files"].values()):
            listed["bytes"], listed["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a {kind} manifest ({error!r}); restore it from git") from error
    return manifest


def check_file(folder: Path, manifest: dict, name: str) -> Path:
    """Path of a listed file after checking that it is there, whole and unchanged."""
    if name not in manifest["files"]:
        raise FileNotFoundError(f"{folder} has no {name}; its manifest lists {sorted(manifest['files'])}")
    path, listed = folder / name, manifest["files"][name]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, though the manifest lists it; restore it from git")
    found = describe_file(path)
    if found["bytes"] != listed["bytes"]:
        raise ValueError(f"{path} has {found['bytes']} bytes, the manifest says {listed['bytes']}: truncated?")
    if found["sha256"] != listed["sha256"]:
        raise ValueError(f"{path} has sha256 {found['sha256']}, the manifest says {listed['sha256']}")
    return path


def describe_file(path: Path) -> dict:
    """Size and sha256 of a file, as the manifest lists them."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_atomically(path: Path, write: Callable) -> None:
    """Call `write(file)` on a temporary neighbour of `path`, then rename: a reader sees all of it or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _known_split(split: str) -> str:
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; allowed are {SPLITS}")
    return split


def _check_arrays(path: Path, arrays: dict) -> None:
    for split in SPLITS:
        labels, predictions = arrays.get(f"{split}_labels"), arrays.get(f"{split}_predictions")
        if labels is None or predictions is None:
            raise ValueError(f"{path} holds {sorted(arrays)}; labels and predictions of {SPLITS} are needed")
        if predictions.ndim != 2 or labels.shape != predictions.shape[:1]:
            raise ValueError(
                f"{path}: {split} predictions have shape {predictions.shape}, labels {labels.shape}; "
                "allowed is (N, R) with (N,)"
            )
        if 0 in predictions.shape or predictions.dtype != np.uint8 or labels.dtype != np.uint8:
            raise ValueError(
                f"{path}: {split} predictions are {predictions.dtype} of shape {predictions.shape}, labels "
                f"{labels.dtype}; allowed is uint8 with at least one expert and one image"
            )
    experts = {split: arrays[f"{split}_predictions"].shape[1] for split in SPLITS}
    if len(set(experts.values())) > 1:
        raise ValueError(f"{path} has other numbers of experts in its splits: {experts}; they must be one bank")


def _as_classes(values, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} have dtype {array.dtype}; allowed are integers from 0 to 255")
    if array.size and not 0 <= array.min() <= array.max() <= 255:
        raise ValueError(f"{name} lie between {array.min()} and {array.max()}; allowed are integers from 0 to 255")
    return array.astype(np.uint8)
