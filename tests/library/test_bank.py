"""Banks on disk: what is written is read back, what is damaged is refused, what exists is never
overwritten."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from expertbank._files import write_atomically
from expertbank.shipped.bank import load_bank, save_bank
from expertbank.shipped.manifest import check_file, read_manifest
from support import reseal

# --- what is written is read back ---


def test_round_trip(tiny_bank):
    root, labels, predictions = tiny_bank
    bank = load_bank("tiny", root)
    assert (bank.name, bank.n_experts) == ("tiny", 3)
    assert bank.manifest["title"] == "three random experts"
    for split in ("train", "test"):
        np.testing.assert_array_equal(bank.labels(split), labels[split])
        np.testing.assert_array_equal(bank.predictions(split), predictions[split])
        assert bank.predictions(split).dtype == np.uint8


def test_losses_accuracies_and_disagreements(tiny_bank):
    root, labels, predictions = tiny_bank
    bank = load_bank("tiny", root)
    y, p = labels["test"], predictions["test"]
    expected = np.array([[int(p[i, r] != y[i]) for r in range(3)] for i in range(20)])
    np.testing.assert_array_equal(bank.losses("test"), expected)
    assert bank.losses("test").dtype == np.uint8
    np.testing.assert_allclose(bank.accuracies("test"), 1 - expected.mean(axis=0))
    for r in range(3):
        for s in range(3):
            assert bank.disagreements("test")[r, s] == pytest.approx(np.mean(p[:, r] != p[:, s]))


def test_manifest_seals_every_file(tiny_bank):
    root, _, _ = tiny_bank
    data = (root / "tiny" / "predictions.npz").read_bytes()
    listed = read_manifest(root / "tiny")["files"]["predictions.npz"]
    assert listed == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_extra_files_are_sealed_too(tmp_path, tiny_bank):
    _, labels, predictions = tiny_bank
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes.txt").write_text("by hand")
    save_bank(tmp_path / "new", labels, predictions, {}, extra_files=("notes.txt",))
    manifest = read_manifest(tmp_path / "new")
    assert check_file(tmp_path / "new", manifest, "notes.txt").read_text() == "by hand"
    (tmp_path / "new" / "notes.txt").write_text("by hunt")
    with pytest.raises(ValueError, match="sha256"):
        check_file(tmp_path / "new", manifest, "notes.txt")


def test_a_folder_is_a_name_too(tiny_bank, monkeypatch):
    root, _, _ = tiny_bank
    assert load_bank(root / "tiny").n_experts == 3
    monkeypatch.chdir(root)
    assert load_bank((root / "tiny").resolve()).n_experts == 3


# --- what exists is never overwritten ---


def test_existing_bank_is_kept(tiny_bank, contents):
    root, labels, predictions = tiny_bank
    before = contents(root)
    with pytest.raises(FileExistsError, match=r"tiny already holds a bank; choose another folder"):
        save_bank(root / "tiny", labels, predictions, {})
    assert contents(root) == before


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half of the n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


# --- what is damaged is refused, and reading never repairs or changes anything ---


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def alter_one_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (truncate, ValueError, r"predictions\.npz has \d+ bytes, the manifest says \d+"),
        (
            alter_one_byte,
            ValueError,
            r"predictions\.npz has sha256 [0-9a-f]{64}, the manifest says [0-9a-f]{64}",
        ),
        (lambda path: path.unlink(), FileNotFoundError, r"predictions\.npz is missing"),
        (lambda path: path.write_bytes(b""), ValueError, r"predictions\.npz has 0 bytes"),
    ],
)
def test_damaged_predictions(tiny_bank, contents, damage, error, says):
    root, _, _ = tiny_bank
    damage(root / "tiny" / "predictions.npz")
    before = contents(root)
    with pytest.raises(error, match=says):
        load_bank("tiny", root)
    assert contents(root) == before


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no archive at all"),
        truncate,
        lambda path: np.savez(
            path, train_labels=np.array([{}], dtype=object)
        ),  # would need a pickle
        lambda path: np.savez(path, train_labels=np.zeros(3, np.uint8)),
    ],
)
def test_sealed_nonsense_is_still_refused(tiny_bank, write):
    root, _, _ = tiny_bank
    write(root / "tiny" / "predictions.npz")
    reseal(root / "tiny")
    with pytest.raises(ValueError, match=r"predictions\.npz"):
        load_bank("tiny", root)


@pytest.mark.parametrize(
    "change",
    [
        {"train_labels": np.zeros(49, np.uint8)},
        {"test_predictions": np.zeros((20, 4), np.uint8)},
        {"test_predictions": np.zeros((3, 20), np.uint8)},
        {"test_predictions": np.zeros(20, np.uint8)},
        {"test_predictions": np.zeros((20, 3), float)},
        {"train_labels": np.zeros(0, np.uint8), "train_predictions": np.zeros((0, 3), np.uint8)},
    ],
)
def test_sealed_arrays_that_do_not_fit(tiny_bank, change):
    root, _, _ = tiny_bank
    path = root / "tiny" / "predictions.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, **change})
    reseal(root / "tiny")
    with pytest.raises(ValueError, match=r"predictions\.npz"):
        load_bank("tiny", root)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"files": {}}',
        '{"files": {"predictions.npz": {"bytes": 3}}}',
        '{"files": {"predictions.npz": {"sha256": "00"}}}',
    ],
)
def test_unreadable_manifest(tiny_bank, text):
    root, _, _ = tiny_bank
    (root / "tiny" / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is not a bank manifest"):
        load_bank("tiny", root)


def test_unknown_bank_lists_those_there_are(tiny_bank):
    root, _, _ = tiny_bank
    with pytest.raises(
        FileNotFoundError, match=r"no bank named 'tinny' in .*; allowed are \['tiny'\]"
    ):
        load_bank("tinny", root)
    (root / "tiny" / "manifest.json").unlink()  # without its manifest it is no bank
    with pytest.raises(FileNotFoundError, match=r"no bank named 'tiny' in .*; allowed are \[\]"):
        load_bank("tiny", root)
    with pytest.raises(FileNotFoundError, match=r"no bank named 'letters' .*'mnist'"):
        load_bank("letters")


@pytest.mark.parametrize("split", ["validation", "", None, 0])
def test_unknown_split(tiny_bank, split):
    bank = load_bank("tiny", tiny_bank[0])
    for read in (bank.labels, bank.predictions, bank.losses, bank.accuracies, bank.disagreements):
        with pytest.raises(ValueError, match=r"split is .*; allowed are \('train', 'test'\)"):
            read(split)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("train labels", lambda y, p: ({**y, "train": y["train"] + 250}, p)),
        ("test predictions", lambda y, p: (y, {**p, "test": p["test"] - 1})),
        ("test predictions", lambda y, p: (y, {**p, "test": p["test"] / 2})),
        ("train predictions", lambda y, p: (y, {**p, "train": p["train"][:-1]})),
        ("experts", lambda y, p: (y, {**p, "train": p["train"][:, :2]})),
    ],
)
def test_nonsense_is_not_saved(tiny_bank, tmp_path, name, bad):
    _, labels, predictions = tiny_bank
    with pytest.raises(ValueError, match=name):
        save_bank(tmp_path / "new", *bad(labels, predictions), {})
    assert not (tmp_path / "new").exists()


# --- the bank that the repository ships ---


def test_shipped_bank_is_the_papers(shipped):
    assert shipped.n_experts == 25
    assert shipped.losses("train").shape == (60_000, 25)
    assert shipped.losses("test").shape == (10_000, 25)
    for split, counts in (
        (
            "train",
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        ),  # MNIST's own class counts
        ("test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ):
        assert np.bincount(shipped.labels(split)).tolist() == counts
        np.testing.assert_allclose(
            shipped.accuracies(split), shipped.manifest["accuracies"][split], atol=5.1e-5
        )
    accuracies = shipped.accuracies("test")
    assert accuracies.min() > 0.88 and accuracies.max() < 0.93  # P2 reports 0.89 to 0.92
    disagreements = shipped.disagreements("test")[np.triu_indices(25, 1)]
    assert disagreements.min() > 0.04 and disagreements.max() < 0.12  # P2 reports 0.06 to 0.10


def test_shipped_manifest_says_how_it_was_made(shipped):
    recipe = shipped.manifest["recipe"]
    assert (
        recipe["n_experts"],
        recipe["subset_size"],
        recipe["epochs"],
        recipe["learning_rate"],
    ) == (
        25,
        10_000,
        1,
        1e-3,
    )
    assert {"seed", "batch_size", "optimizer"} <= set(recipe)
    assert {"numpy", "torch", "torchvision"} <= set(shipped.manifest["versions"])
    assert "CC BY-SA" in shipped.manifest["source"]
    for name in shipped.manifest["files"]:
        check_file(shipped.folder, shipped.manifest, name)
    # no pickles
    assert {path.suffix for path in shipped.folder.iterdir()} <= {".json", ".npz", ".safetensors"}
