"""Everything in `data/` is sealed: no file without a hash, and no change, wherever it is made, that
a reader does not refuse with one line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from expertbank._files import LONGEST
from expertbank.shipped.bank import load_bank, save_bank
from expertbank.shipped.gates import load_gates
from expertbank.shipped.manifest import (
    FORMAT,
    MANIFEST,
    REPOSITORY,
    check_file,
    data_folder,
    open_sealed,
    read_json,
    read_manifest,
    seal,
    shipped_file,
)
from expertbank.shipped.testbed import load_testbed
from support import reseal, say

DATA = REPOSITORY / "data"
SOURCES = sorted(REPOSITORY.glob("chapters/*.md")) + sorted(REPOSITORY.glob("lib/**/*.py"))


def shipped_files(repository: Path) -> list[Path]:
    """The files of `data` that the repository holds: not what is downloaded, trained or half
    written there meanwhile."""
    command = ["git", "ls-files", "-z", "data"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    return [repository / name for name in listed.stdout.split("\0") if name]


SHIPPED = shipped_files(REPOSITORY)
SEALED = [path.parent.relative_to(DATA) for path in SHIPPED if path.name == MANIFEST]


def open_all(folder: Path) -> None:
    """Read a copy of a shipped folder as the library does, and check every file that it lists."""
    if folder.name == "gates":
        load_gates(folder)
    elif folder.name == "testbed":
        load_testbed(folder)
    else:
        manifest = read_manifest(folder, ())
        for name in manifest["files"]:
            check_file(folder, manifest, name)


@pytest.fixture
def copies(tmp_path):
    """Every shipped folder to play with: links to its files, and a manifest of its own."""
    folders = []
    for name in SEALED:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in (DATA / name).iterdir():
            if path.is_file():
                (folder / path.name).symlink_to(path)
        own_copy(folder / MANIFEST)
        folders.append(folder)
    return folders


def own_copy(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return content


def refusal(folder: Path) -> str:
    """The one line with which a damaged folder is refused."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        open_all(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) <= LONGEST, message
    return message


# --- what is shipped ---


def test_every_shipped_file_has_a_hash_that_is_right():
    listed = {DATA / folder / MANIFEST for folder in SEALED}
    for folder in SEALED:
        manifest = read_manifest(DATA / folder, ())
        listed |= {check_file(DATA / folder, manifest, name) for name in manifest["files"]}
    assert set(SHIPPED) == listed
    assert len(listed) > 60


def test_what_others_write_beside_the_shipped_files_is_none_of_them(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    for name in ("data/a/kept", "data/a/kept.half", "data/MNIST/raw/images", "other"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["git", "add", "data/a/kept", "other"], cwd=tmp_path, check=True)
    assert shipped_files(tmp_path) == [tmp_path / "data/a/kept"]


@pytest.mark.parametrize(
    "place",
    [
        *(f"{kind}/raw/images" for kind in ("MNIST", "FashionMNIST", "KMNIST")),
        "cifar-10-batches-py/data_batch_1",
        "cifar-10-python.tar.gz",
        "bible-corpus/English.xml",
        "banks/mnist.partial/lock",
        "banks/family/replicate-1.partial/lock",
        "gates.partial/lock",
    ],
)
def test_downloads_and_half_finished_runs_never_enter_the_repository(place):
    command = ["git", "check-ignore", "--quiet", f"data/{place}"]
    assert subprocess.run(command, cwd=REPOSITORY).returncode == 0


def test_nothing_opens_shipped_data_by_its_path():
    """Chapters and modules go through what checks hashes."""
    by_path = re.compile(r"(REPOSITORY|data_folder\(\)|ROOT)\s*/\s*f?[\"'](data|\w+/)")
    found = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text().splitlines()
        if by_path.search(line) and ">>>" not in line
    ]
    allowed = 'lib/expertbank/shipped/manifest.py: checkout = REPOSITORY / "data"'
    assert found == [allowed]


def test_accuracies_that_manifests_state_are_those_of_the_predictions():
    stated = 0
    for folder in SEALED:
        if (DATA / folder / "predictions.npz").exists():
            bank = load_bank(DATA / folder)
            for split, accuracies in bank.manifest["accuracies"].items():
                np.testing.assert_allclose(bank.accuracies(split), accuracies, atol=5.1e-5)
                stated += 1
    assert stated >= 50


# --- every change is refused ---


def leaves(tree, path=()):
    """Where every value of a manifest stands, and those of the tables and lists around it."""
    if path:
        yield path
    items = {dict: dict.items, list: enumerate}.get(type(tree), lambda _: ())(tree)
    for key, value in items:
        yield from leaves(value, (*path, key))


def other(value):
    """A value of the same kind, and not the same."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return float(np.nextafter(value, np.inf))
    if isinstance(value, str):
        return value + " "
    return type(value)()


DEEP = json.loads("[" * 50 + "]" * 50)


def changes_of(manifest):
    """The text of a manifest with each value in turn replaced by another, by nonsense, and gone."""
    for *inside, key in list(leaves(manifest)):
        tree = manifest
        for each in inside:
            tree = tree[each]
        kept = tree[key]
        for value in (other(kept), DEEP):
            tree[key] = value
            yield json.dumps(manifest)
        del tree[key]
        yield json.dumps(manifest)
        if isinstance(tree, list):
            tree.insert(key, kept)
        else:
            tree[key] = kept
    yield json.dumps(manifest | {"note": "by hand"})


def test_every_change_of_a_manifest_is_refused(copies, request):
    tried = 0
    for folder in copies:
        open_all(folder)
        path = folder / MANIFEST
        manifest = json.loads(path.read_text())
        whole = json.dumps(manifest, sort_keys=True)
        for text in changes_of(manifest):
            path.write_text(text)
            refusal(folder)
            tried += 1
        path.write_text(whole)
        open_all(folder)  # spaces and the order of lines are no content
    assert tried > 5000
    say(request, f"{tried} changes of {len(copies)} shipped manifests, all refused with one line")


def damages(content: bytes, rng):
    """A file's bytes, changed in one place, cut, longer, empty, or nonsense."""
    for place in {0, len(content) - 1, *rng.integers(0, len(content), 4).tolist()}:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        yield bytes(flipped)
    yield content[: int(rng.integers(1, len(content)))]
    yield content[:-1]
    yield content + b"\0"
    yield b""
    yield b"[" * 100_000


def test_every_change_of_a_file_is_refused(copies, request):
    rng = np.random.default_rng(15)
    tried = 0
    for folder in copies:
        for name in read_manifest(folder, ())["files"]:
            path = folder / name
            content = own_copy(path)
            for damaged in damages(content, rng):
                path.write_bytes(damaged)
                assert name in refusal(folder)
                tried += 1
            path.unlink()
            assert name in refusal(folder)
            path.mkdir()
            assert name in refusal(folder)
            path.rmdir()
            path.write_bytes(content)
            tried += 2
        open_all(folder)
    assert tried > 400
    say(request, f"{tried} changes of shipped files, all refused with one line that names them")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "is not a bank manifest (RecursionError"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "is not a bank manifest (RecursionError"),
        ("9" * 5000, "is not a bank manifest (ValueError"),
        ("\ufeff{}", "is not a bank manifest"),
        ("[1, 2]", "it states no format"),
    ],
)
def test_json_that_no_seal_wrote(tiny_bank, text, says):
    path = tiny_bank[0] / "tiny" / MANIFEST
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        load_bank("tiny", tiny_bank[0])
    message = str(caught.value)
    assert says in message and "\n" not in message and len(message) <= LONGEST


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (FORMAT + 1, r"made by a newer version: its format is 3, allowed is 2"),
        (10**400, r"made by a newer version"),
        (FORMAT - 1, r"made by an older version: its format is 1, allowed is 2"),
        (None, "it states no format"),
        ("2", "it states no format"),
        (2.0, "it states no format"),
        (True, "it states no format"),
    ],
)
def test_manifests_of_other_formats(tiny_bank, found, says):
    path = tiny_bank[0] / "tiny" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": found}))
    with pytest.raises(ValueError, match=says) as caught:
        load_bank("tiny", tiny_bank[0])
    assert len(str(caught.value)) <= LONGEST


def test_a_manifest_without_a_format(tiny_bank):
    path = tiny_bank[0] / "tiny" / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["format"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="it states no format"):
        load_bank("tiny", tiny_bank[0])


def test_a_format_is_not_up_to_who_seals(tiny_bank, tmp_path):
    _, labels, predictions = tiny_bank
    save_bank(tmp_path / "new", labels, predictions, {"format": 7, "title": "new", "seal": "mine"})
    manifest = read_manifest(tmp_path / "new")
    assert manifest["format"] == FORMAT and manifest["seal"] != "mine"
    # what was read is sealed again to the same bytes
    before = (tmp_path / "new" / MANIFEST).read_bytes()
    seal(tmp_path / "new", manifest, list(manifest["files"]))
    assert (tmp_path / "new" / MANIFEST).read_bytes() == before


@pytest.mark.parametrize(
    "files", [None, [], {}, "all", {"predictions.npz": 3}, {"predictions.npz": {}}]
)
def test_a_sealed_list_of_files_that_is_none(tiny_bank, files, monkeypatch):
    folder = tiny_bank[0] / "tiny"
    path = folder / MANIFEST
    from expertbank.shipped import manifest as module

    stated = json.loads(path.read_text()) | {"files": files}
    path.write_text(json.dumps(stated | {"seal": module._seal_of(stated)}))
    with pytest.raises(ValueError, match=r"tiny/(manifest\.json|predictions\.npz)") as caught:
        load_bank("tiny", tiny_bank[0])
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_none_is_one_line(torch, tiny_bank):
    from expertbank.training.experts import recipe_of

    folder = tiny_bank[0] / "tiny"
    for recipe in ("by hand", ["seed", 3], {"seed": -1}, {"colour": 1}, {"seed": {}}):
        reseal(folder, recipe=recipe)
        with pytest.raises(ValueError) as caught:
            recipe_of(read_manifest(folder))
        assert "\n" not in str(caught.value)


def test_what_is_not_shipped_is_said(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no benchmarks in .*; `make benchmark` makes"):
        open_sealed(tmp_path, "benchmarks", ["solver.json"])
    with pytest.raises(ValueError, match=r"it lists no \['solver\.csv'\]"):
        shipped_file("benchmarks", "solver.csv")
    assert shipped_file("benchmarks", "solver.json").parent == data_folder() / "benchmarks"


def test_any_json_is_read_or_refused_with_one_line(tmp_path):
    path = tmp_path / "any.json"
    shutil.copy(shipped_file("benchmarks", "solver.json"), path)
    content = path.read_bytes()
    assert read_json(path)["complete"] is True
    rng = np.random.default_rng(3)
    for _ in range(200):
        path.write_bytes(next(iter(damages(content[: int(rng.integers(1, 3000))], rng))))
        with pytest.raises(ValueError) as caught:
            read_json(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) <= LONGEST
