"""Two banks, families, gates, testbeds or models beside each other: which files are the same to the
byte, and where one is not, how many numbers differ and by how much."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from expertbank._files import one_line, read_arrays, reading
from expertbank.reproduction.verdicts import changes, findings_with
from expertbank.shipped.bank import SPLITS, ExpertBank, load_bank
from expertbank.shipped.frames import read_columns
from expertbank.shipped.gates import GATE_FILES
from expertbank.shipped.in_network import NETWORK_FILES
from expertbank.shipped.manifest import MANIFEST, check_file, read_manifest
from expertbank.shipped.router_model import LOSSES
from expertbank.shipped.testbed import PRICED_FILES, RUN_FILES

# by the file that only folders of this kind have
TELLING_FILES = {
    "predictions.npz": "bank",
    GATE_FILES[0]: "gates",
    RUN_FILES[0]: "testbed",
    PRICED_FILES[0]: "set of priced routers",
    LOSSES: "router model",
    NETWORK_FILES[0]: "set of networks",
}
PLURALS = {
    "bank": "banks",
    "family": "families",
    "gates": "sweeps of gates",
    "testbed": "testbeds",
    "set of priced routers": "sets of priced routers",
    "router model": "router models",
    "set of networks": "sets of networks",
}
# of a manifest: where and with what a result was made, and what its files are
MADE = ("versions", "trained_on")
FILES = ("files", "seal")


@dataclass(frozen=True)
class Difference:
    """Two arrays of one name that should be the same."""

    name: str
    differing: int
    size: int
    most: float
    """largest absolute difference"""


@dataclass(frozen=True)
class Comparison:
    """What two folders of one kind have in common."""

    kind: str
    n_files: int
    identical: int
    made: str = ""
    """how their making differs, where it does: versions and machines"""
    predictions: tuple[int, int] = (0, 0)
    """of banks: how many predictions differ, of how many"""
    accuracy: float = 0.0
    """of banks: by how much the test accuracy of an expert differs at most"""
    numbers: list[str] = field(default_factory=list)
    """of other files: a sentence each on what differs"""
    changed: list[str] | None = None
    """verdicts of the report that change; None where it was not asked"""
    report: str = ""

    @property
    def is_same(self) -> bool:
        """Whether every file is identical; of the manifest, all but where it was made."""
        return self.identical == self.n_files

    def lines(self) -> list[str]:
        """What `expertbank compare` prints."""
        found = [f"{PLURALS[self.kind]}: {self.identical} of {self.n_files} files identical"]
        differing, total = self.predictions
        if differing:
            share = f"{100 * differing / total:.2f} %"
            text = f"{differing:,} of {total:,} predictions differ ({share})"
            text += f", test accuracy by at most {self.accuracy:.4f}"
            found.append(text)
        found += self.numbers
        if self.changed is not None:
            found.append(f"{self.report}; {verdict_sentence(self.changed)}")
        if self.made:
            found.append(f"made otherwise: {self.made}")
        return found


def verdict_sentence(changed: list[str]) -> str:
    """How many verdicts changed, and which.

    >>> verdict_sentence([])
    'no verdict changed'
    """
    if not changed:
        return "no verdict changed"
    count = "1 verdict" if len(changed) == 1 else f"{len(changed)} verdicts"
    return f"{count} changed: {'; '.join(changed)}"


def compare(one: str | os.PathLike, other: str | os.PathLike, report: bool = True) -> Comparison:
    """Compare two folders, or the folders of two manifests; where files differ, their arrays, and
    with `report` the verdicts that each gives.

    Raises FileNotFoundError where there is no manifest, ValueError where a folder is damaged, or
    where kinds, recipes, names or shapes differ: then there is nothing to compare number by number.

    >>> from expertbank.shipped.manifest import data_folder
    >>> compare(data_folder() / "gates", data_folder() / "gates" / "manifest.json").lines()
    ['sweeps of gates: 3 of 3 files identical']
    """
    folders = [_folder_of(one), _folder_of(other)]
    kinds = [holds_what(folder) for folder in folders]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{one} holds {_a(kinds[0])}, {other} {_a(kinds[1])}; compare two of one kind"
        )
    kind = kinds[0]
    found = _family(*folders) if kind == "family" else _single(kind, *folders)
    if found.is_same or not report:
        return found
    reports = [findings_with(kind, folder) for folder in folders]
    if reports[0] is None or reports[1] is None:
        return found
    changed, _, sentence = changes(reports[0], reports[1])
    return Comparison(**{**vars(found), "changed": changed, "report": sentence})


def holds_what(folder: Path) -> str:
    """What a folder holds: `"bank"`, `"family"`, `"gates"`, `"testbed"`, `"router model"`,
    `"set of networks"` or `"set of priced routers"`.

    Raises FileNotFoundError where there is no manifest, ValueError where it is one of another kind.

    >>> from expertbank.shipped.manifest import data_folder
    >>> holds_what(data_folder() / "banks" / "family")
    'family'
    """
    if not (folder / MANIFEST).is_file():
        if any(folder.glob(f"*/{MANIFEST}")):
            return "family"
        raise FileNotFoundError(
            f"{folder} has no manifest; allowed are folders of {', '.join(PLURALS.values())}"
        )
    listed = read_manifest(folder, ())["files"]
    for name, kind in TELLING_FILES.items():
        if name in listed:
            return kind
    raise ValueError(
        f"{folder} holds {sorted(listed)}; allowed are folders of {', '.join(PLURALS.values())}"
    )


def _folder_of(path: str | os.PathLike) -> Path:
    path = Path(path)
    return path.parent if path.name == MANIFEST else path


def _a(kind: str) -> str:
    return kind if kind == "gates" else f"a {kind}"


# --- two folders with a manifest each ---


def _single(kind: str, one: Path, other: Path) -> Comparison:
    manifests = [read_manifest(folder, (), kind) for folder in (one, other)]
    _check_recipes(one, other, *(manifest.get("recipe") for manifest in manifests))
    names = sorted(manifests[0]["files"])
    if names != sorted(manifests[1]["files"]):
        raise ValueError(
            f"{one} holds {names}, {other} {sorted(manifests[1]['files'])}; "
            "compare two with the same files"
        )
    identical = int(_stated(manifests[0]) == _stated(manifests[1]))
    predictions = (0, 0)
    accuracy = 0.0
    numbers = []
    for name in names:
        paths = [check_file(one, manifests[0], name), check_file(other, manifests[1], name)]
        if manifests[0]["files"][name] == manifests[1]["files"][name]:
            identical += 1
        elif name == "predictions.npz":
            banks = [load_bank(folder.resolve()) for folder in (one, other)]
            predictions, accuracy = compare_predictions(banks[0], banks[1])
        elif name.endswith(".json"):
            numbers.append(f"{name}: another text")
        else:
            numbers.append(_of_file(name, differences(*map(_content, paths))))
    return Comparison(
        kind=kind,
        n_files=len(names) + 1,
        identical=identical,
        made=_made(*manifests),
        predictions=predictions,
        accuracy=accuracy,
        numbers=numbers,
    )


def _stated(manifest: dict) -> dict:
    return {key: value for key, value in manifest.items() if key not in (*MADE, *FILES)}


def _made(one: dict, other: dict) -> str:
    """Versions and machines that two manifests state and that differ."""
    found = []
    for part in MADE:
        first = one.get(part, {})
        second = other.get(part, {})
        for name in sorted({*first, *second}):
            pair = [str(side.get(name, "not stated")) for side in (first, second)]
            if pair[0] != pair[1]:
                found.append(f"{name} {one_line(pair[0], 60)} and {one_line(pair[1], 60)}")
    return "; ".join(found)


def _check_recipes(one: Path, other: Path, first: object, second: object) -> None:
    if first == second:
        return
    apart = ""
    if isinstance(first, dict) and isinstance(second, dict):
        names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
        pairs = [f"{name} {first.get(name)} and {second.get(name)}" for name in names[:3]]
        apart = f" ({one_line('; '.join(pairs), 120)})"
    raise ValueError(
        f"{one} and {other} were made by different recipes{apart}; compare two of one recipe"
    )


# --- two families ---


def _family(one: Path, other: Path) -> Comparison:
    names = [sorted(path.parent.name for path in f.glob(f"*/{MANIFEST}")) for f in (one, other)]
    if names[0] != names[1]:
        apart = sorted(set(names[0]) ^ set(names[1]))
        raise ValueError(f"only one of {one} and {other} holds {apart}; compare whole families")
    found = [_single("bank", one / name, other / name) for name in names[0]]
    numbers = []
    for name, each in zip(names[0], found, strict=True):
        if not each.is_same:
            numbers.append(f"{name}: {'; '.join(each.lines()[1:])}")
    differing = sum(each.predictions[0] for each in found)
    banks = [load_bank((one / name).resolve()) for name in names[0]]
    total = sum(bank.predictions(split).size for bank in banks for split in SPLITS)
    return Comparison(
        kind="family",
        n_files=sum(each.n_files for each in found),
        identical=sum(each.identical for each in found),
        made=found[0].made,
        predictions=(differing, total),
        accuracy=max(each.accuracy for each in found),
        numbers=numbers,
    )


# --- their numbers ---


def compare_predictions(one: ExpertBank, other: ExpertBank) -> tuple[tuple[int, int], float]:
    """How many predictions of two banks differ, of how many, and by how much the test accuracy of
    an expert differs at most; a bank with fewer experts is held against the first of the other.

    Raises ValueError where the images or their labels are others.

    >>> compare_predictions(load_bank(), load_bank())
    ((0, 1750000), 0.0)
    """
    n_experts = min(one.n_experts, other.n_experts)
    differing = 0
    total = 0
    for split in SPLITS:
        if not np.array_equal(one.labels(split), other.labels(split)):
            raise ValueError(
                f"{one.folder} and {other.folder} hold other images: {len(one.labels(split)):,} "
                f"and {len(other.labels(split)):,} labels of {split} differ; compare two of one set"
            )
        first = one.predictions(split)[:, :n_experts]
        second = other.predictions(split)[:, :n_experts]
        differing += int(np.sum(first != second))
        total += first.size
    accuracies = [bank.accuracies("test")[:n_experts] for bank in (one, other)]
    return (differing, total), float(np.max(np.abs(accuracies[0] - accuracies[1])))


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[Difference]:
    """Arrays that differ, of two sets of arrays by name; where both hold nan they are the same.

    Raises ValueError where names, shapes or words differ.

    >>> differences({"loss": np.array([1.0, 2.0])}, {"loss": np.array([1.0, 2.5])})
    [Difference(name='loss', differing=1, size=2, most=0.5)]
    """
    if sorted(one) != sorted(other):
        apart = sorted(set(one) ^ set(other))
        raise ValueError(f"only one of the two holds {apart}; compare two with the same arrays")
    found = []
    for name, first in one.items():
        second = other[name]
        if first.shape != second.shape:
            raise ValueError(
                f"{name} has shape {first.shape} in one and {second.shape} in the other; "
                "compare two of one shape"
            )
        differs = first != second
        if first.dtype.kind == second.dtype.kind == "U":
            if differs.any():
                raise ValueError(f"{name} holds other words; compare two of one recipe")
            continue
        first = first.astype(float)
        second = second.astype(float)
        differs &= ~(np.isnan(first) & np.isnan(second))
        if not differs.any():
            continue
        most = float(np.nanmax(np.abs(first - second)[differs]))
        found.append(Difference(name, int(differs.sum()), first.size, most))
    return found


def _content(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".csv":
        return read_columns(path)
    with reading(path):
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
        return read_arrays(path)


def _of_file(name: str, found: Iterable[Difference]) -> str:
    found = list(found)
    if not found:
        return f"{name}: other bytes, the same numbers"
    largest = max(found, key=lambda each: each.most)
    count = sum(each.differing for each in found)
    size = sum(each.size for each in found)
    return (
        f"{name}: {count:,} of {size:,} numbers in {len(found)} arrays differ, "
        f"most in {largest.name}, by {largest.most:.2g}"
    )
