"""Folders that vouch for themselves: a manifest with size and sha256 of every file and a seal on
all that it states, written last, and where the folders that the project ships are found."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expertbank._files import check_input, one_line, reading, write_atomically

REPOSITORY = Path(__file__).parents[3]
MANIFEST = "manifest.json"
FORMAT = 2  # of manifests: what they state is sealed from 2 on
# make targets that are not called what the folder is called
TARGETS = {
    "banks": "batch-sizes",
    "benchmarks": "benchmark",
    "fashion-gates": "fashion",
    "peers": "reference-peers",
    "reference": "reference-set",
    "routers": "references",
}


def data_folder() -> Path:
    """Where the shipped data lies: the checkout's `data`, or what the installed package carries.

    The package carries all but the weights of the experts.

    >>> sorted(path.name for path in data_folder().iterdir() if path.name in ("banks", "gates"))
    ['banks', 'gates']
    """
    checkout = REPOSITORY / "data"
    if checkout.is_dir() and (REPOSITORY / "pyproject.toml").is_file():
        return checkout
    return Path(__file__).parent / "data"


def open_sealed(
    folder: str | os.PathLike | None, kind: str, names: Sequence[str]
) -> tuple[Path, dict, list[Path]]:
    """A sealed folder (None: the shipped one of that kind), its manifest, and the paths of its
    files, hashes checked.

    Raises FileNotFoundError where there is none, naming the make target of that kind, ValueError
    where it is damaged.

    >>> folder, manifest, (table, arrays) = open_sealed(None, "gates", ["gates.csv", "gates.npz"])
    >>> table.name, manifest["format"]
    ('gates.csv', 2)
    """
    place = data_folder() / kind if folder is None else Path(folder)
    if not (place / MANIFEST).is_file():
        raise FileNotFoundError(
            f"no {kind} in {place}; `make {TARGETS.get(kind, kind)}` makes them anew, "
            f"and the shipped ones are in data/{kind} of the repository"
        )
    manifest = read_manifest(place, names, kind)
    return place, manifest, [check_file(place, manifest, name) for name in names]


def shipped_file(kind: str, name: str) -> Path:
    """Path of one of the files that the project ships, in `data/<kind>`, its hash checked.

    >>> shipped_file("banks", "batch_sizes.csv").read_text().split(",")[1]
    'batch_size'
    """
    return open_sealed(None, kind, [name])[2][0]


def check_free(folder: str | os.PathLike, holds: str) -> None:
    """Raise FileExistsError, naming what the folder holds, where `seal` has already closed it.

    >>> check_free("a folder that nobody made", "a bank")
    """
    if Path(folder).exists() and not Path(folder).is_dir():
        raise FileExistsError(f"{folder} is no folder; choose another place")
    if (Path(folder) / MANIFEST).exists():
        raise FileExistsError(
            f"{folder} already holds {holds}; choose another folder or move it away"
        )


def seal(folder: str | os.PathLike, manifest: dict, names: Sequence[str]) -> None:
    """Write `manifest.json` atomically: its format, what `manifest` states, size and sha256 of the
    named files that are already in `folder`, and a sha256 of all this.

    Written last it says that the folder is whole. Raises FileNotFoundError where a file is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "losses.csv").write_text("0,1")
    ...     seal(folder, {"title": "one image"}, ["losses.csv"])
    ...     read_manifest(folder, ["losses.csv"])["files"]["losses.csv"]["bytes"]
    3
    """
    folder = Path(folder)
    files = {name: describe_file(folder / name) for name in names}
    stated = {"format": FORMAT} | manifest | {"format": FORMAT, "files": files}
    text = json.dumps(stated | {"seal": _seal_of(stated)}, indent=2) + "\n"
    write_atomically(folder / MANIFEST, lambda file: file.write(text.encode()))


def _seal_of(manifest: dict) -> str:
    """sha256 of all that a manifest states but its seal, whatever the order and the spaces."""
    stated = {key: value for key, value in manifest.items() if key != "seal"}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def read_manifest(
    folder: str | os.PathLike, needed: Sequence[str] = ("predictions.npz",), kind: str = "bank"
) -> dict:
    """The manifest that `seal` wrote; ValueError, naming the kind of folder, where it is not valid
    JSON of this format with a `files` table that has what is needed, or where anything in it was
    changed.

    >>> manifest = read_manifest(data_folder() / "banks" / "mnist")
    >>> manifest["recipe"]["n_experts"]
    25
    """
    path = Path(folder) / MANIFEST
    manifest = read_json(path, f"a {kind} manifest")
    with reading(path):
        _check_stated(path, manifest, needed, f"a {kind} manifest")
    return manifest


def _check_stated(path: Path, manifest: Any, needed: Sequence[str], what: str) -> None:
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if type(found) is not int:
        raise ValueError(f"{path} is not {what} (it states no format); restore it from git")
    if found != FORMAT:
        age = "a newer" if found > FORMAT else "an older"
        raise ValueError(
            f"{path} was made by {age} version: its format is {found}, allowed is {FORMAT}"
        )
    if manifest.get("seal") != _seal_of(manifest):
        raise ValueError(f"{path} was changed after it was sealed; restore it from git")
    files = manifest.get("files")
    missing = set(needed) - set(files) if isinstance(files, dict) else set(needed)
    if missing:
        raise ValueError(f"{path} is not {what} (it lists no {sorted(missing)})")


def read_json(path: Path, what: str = "JSON") -> Any:
    """The content of a JSON file; ValueError of one line where it is damaged or nested without end.

    >>> read_json(data_folder() / "gates" / "manifest.json")["recipe"]["seeds"]
    3
    """
    check_input(path)
    with reading(path):
        try:
            return json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            found = one_line(repr(error), 80)
            raise ValueError(f"{path} is not {what} ({found}); restore it from git") from error


def check_file(folder: Path, manifest: dict, name: str) -> Path:
    """Path of a listed file after checking that it is there, whole and unchanged.

    Raises FileNotFoundError where it is not there, ValueError where it is another one.

    >>> folder = data_folder() / "banks" / "mnist"
    >>> check_file(folder, read_manifest(folder), "predictions.npz").name
    'predictions.npz'
    """
    if name not in manifest["files"]:
        raise FileNotFoundError(
            f"{folder} has no {name}; its manifest lists {sorted(manifest['files'])}"
        )
    path = folder / name
    listed = manifest["files"][name]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, though the manifest lists it; restore it from git"
        )
    found = describe_file(path)
    with reading(path):
        if found["bytes"] != listed["bytes"]:
            raise ValueError(
                f"{path} has {found['bytes']} bytes, the manifest says {listed['bytes']}: "
                "truncated?"
            )
        if found["sha256"] != listed["sha256"]:
            raise ValueError(
                f"{path} has sha256 {found['sha256']}, the manifest says {listed['sha256']}"
            )
    return path


def describe_file(path: Path) -> dict:
    """Size and sha256 of a file, as the manifest lists them.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     describe_file(Path(file.name))["sha256"][:8]  # of nothing
    'e3b0c442'
    """
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": sha256}
