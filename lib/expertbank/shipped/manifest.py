"""Folders that vouch for themselves: a manifest with size and sha256 of every file, written
last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from expertbank._files import write_atomically

REPOSITORY = Path(__file__).parents[3]


def open_sealed(folder, kind: str, names: Sequence[str]) -> tuple[Path, dict, list[Path]]:
    """A sealed folder (None: the repository's `data/<kind>`), its manifest, and the paths of its
    files, hashes checked.

    Raises FileNotFoundError where there is none, naming the make target of that kind, ValueError
    where it is damaged.
    """
    folder = Path(folder) if folder is not None else REPOSITORY / "data" / kind
    if not (folder / "manifest.json").is_file():
        raise FileNotFoundError(f"no {kind} in {folder}; `make {kind}` trains anew")
    manifest = read_manifest(folder, names, kind)
    return folder, manifest, [check_file(folder, manifest, name) for name in names]


def matching(table: np.ndarray, wanted: dict, kind: str) -> np.ndarray:
    """Which rows (N,) of a structured table have the wanted values, column -> value; None stands
    for nan.

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
        raise FileExistsError(
            f"{folder} already holds {holds}; choose another folder or move it away"
        )


def seal(folder, manifest: dict, names: Sequence[str]) -> None:
    """Write `manifest.json` atomically, with size and sha256 of the named files that are already in
    `folder`.

    Written last it says that the folder is whole. Raises FileNotFoundError where a file is missing.
    """
    folder = Path(folder)
    text = (
        json.dumps(
            {**manifest, "files": {name: describe_file(folder / name) for name in names}}, indent=2
        )
        + "\n"
    )
    write_atomically(folder / "manifest.json", lambda file: file.write(text.encode()))


def read_manifest(
    folder: Path, needed: Sequence[str] = ("predictions.npz",), kind: str = "bank"
) -> dict:
    """The manifest that `seal` wrote; ValueError, naming the kind of folder, where it is not valid
    JSON with a `files` table that has what is needed."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        for listed in (*(manifest["files"][name] for name in needed), *manifest["files"].values()):
            listed["bytes"], listed["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a {kind} manifest ({error!r}); restore it from git"
        ) from error
    return manifest


def check_file(folder: Path, manifest: dict, name: str) -> Path:
    """Path of a listed file after checking that it is there, whole and unchanged."""
    if name not in manifest["files"]:
        raise FileNotFoundError(
            f"{folder} has no {name}; its manifest lists {sorted(manifest['files'])}"
        )
    path, listed = folder / name, manifest["files"][name]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, though the manifest lists it; restore it from git"
        )
    found = describe_file(path)
    if found["bytes"] != listed["bytes"]:
        raise ValueError(
            f"{path} has {found['bytes']} bytes, the manifest says {listed['bytes']}: truncated?"
        )
    if found["sha256"] != listed["sha256"]:
        raise ValueError(
            f"{path} has sha256 {found['sha256']}, the manifest says {listed['sha256']}"
        )
    return path


def describe_file(path: Path) -> dict:
    """Size and sha256 of a file, as the manifest lists them."""
    with open(path, "rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
