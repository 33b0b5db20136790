"""Training and verifying banks: recipe, resuming after a kill, refusing to overwrite, detecting
tampering.

Small banks are trained on a slice of MNIST. Skipped without torch or MNIST, except in CI, which
must have both.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from expertbank.shipped.bank import load_bank, save_bank
from support import SLICE, reseal


@pytest.fixture(scope="module")
def recipe(experts):
    return experts.Recipe(n_experts=2, subset_size=200)


@pytest.fixture(scope="module")
def trained_once(experts, recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("once") / "small"
    experts.train_bank(folder, recipe, n_jobs=1, device="cpu")
    return folder


@pytest.fixture
def trained(trained_once, tmp_path):
    """A bank of two barely trained experts, in the root `banks` under the name `small`: a copy to
    play with."""
    return Path(shutil.copytree(trained_once, tmp_path / "banks" / "small"))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_library_itself_loads_nothing_heavy():
    """Everything heavy loads where it is used: torch in `training` alone. Needs neither torch nor
    MNIST."""
    code = "import sys, expertbank; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "torch",
        "torchvision",
        "safetensors",
        "joblib",
        "matplotlib",
        "ipywidgets",
        "IPython",
        "scipy.stats",
    }
    assert {"expertbank", "numpy"} <= set(run.stdout.split())
    assert not heavy & set(run.stdout.split())


# --- the recipe ---


def test_network_has_the_papers_size(torch):
    from expertbank.training.experts import expert_network

    network = expert_network()
    assert sum(p.numel() for p in network.parameters()) == 105_866
    assert network(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_default_recipe_is_the_shipped_banks(torch, shipped):
    from expertbank.training.experts import Recipe

    recipe = asdict(Recipe())
    assert recipe.pop("data") == "mnist"  # which manifests of MNIST do not state
    assert {key: shipped.manifest["recipe"][key] for key in recipe} == recipe


def test_subsets(torch):
    from expertbank.training.experts import Recipe, training_subset

    small, large = Recipe(subset_size=5000), Recipe(subset_size=10_000)
    subset = training_subset(large, 3)
    assert len(np.unique(subset)) == 10_000 and subset.min() >= 0 and subset.max() < 60_000
    np.testing.assert_array_equal(training_subset(small, 3), subset[:5000])
    # what the manifest promises to a reader who wants to redo it
    np.testing.assert_array_equal(
        subset, np.random.default_rng([2026, 3]).permutation(60_000)[:10_000]
    )
    shared = np.intersect1d(subset, training_subset(large, 4))
    assert len(shared) == pytest.approx(10_000 / 6, rel=0.1)  # drawn independently


@pytest.mark.slow
def test_the_recipe_regenerates_a_shipped_expert(mnist_root, shipped):
    """Sums are ordered by the processor, so not to the bit everywhere: but far closer than any
    other expert."""
    from expertbank.training.datasets import load_mnist
    from expertbank.training.experts import Recipe, logits, train_expert

    network = train_expert(*load_mnist("train", mnist_root), Recipe(), expert=0)
    images, labels = (array[:2000] for array in load_mnist("test", mnist_root))
    scores = logits(network, images)
    assert scores.shape == (2000, 10)
    classes = scores.argmax(axis=1)
    assert np.mean(classes == labels) > 0.85
    differs = np.mean(shipped.predictions("test")[:2000] != classes[:, None], axis=0)
    assert differs[0] < 0.02
    assert differs[1:].min() > differs[0] + 0.01


def test_training_is_reproducible_and_leaves_the_global_generator_alone(experts, recipe, torch):
    data = experts.load_images("mnist", "train")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    states = [experts.train_expert(*data, recipe, expert).state_dict() for expert in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0]["0.weight"], states[2]["0.weight"])


# --- a whole bank ---


def test_trained_bank(trained_once, trained, experts):
    assert sorted(files(trained)) == ["manifest.json", "predictions.npz", "weights.safetensors"]
    # the partial folder is gone
    assert [path.name for path in trained_once.parent.iterdir()] == ["small"]
    bank = load_bank("small", trained.parent)
    assert bank.n_experts == 2
    for split, size in SLICE.items():
        assert bank.predictions(split).shape == (size, 2)
        np.testing.assert_array_equal(bank.labels(split), experts.load_images("mnist", split)[1])
        np.testing.assert_allclose(
            bank.manifest["accuracies"][split], bank.accuracies(split), atol=5.1e-5
        )
    assert bank.manifest["recipe"]["subset_size"] == 200
    assert set(bank.manifest["files"]) == {"predictions.npz", "weights.safetensors"}
    counts = experts.verify_bank("small", trained.parent)
    assert counts["compared"] == 2 * sum(SLICE.values())
    assert counts["ties"] <= 3


KILLED_WHILE_TRAINING_EXPERT_1 = """
import sys, time
from pathlib import Path
from expertbank.training import experts
whole, train = experts.load_images, experts.train_expert
sizes = {"train": 600, "test": 300}
experts.load_images = lambda data, split, *r: tuple(a[: sizes[split]] for a in whole(data, split))

def hang(images, labels, recipe, expert, device):
    if expert == 1:
        print("expert 0 is done", flush=True)
        time.sleep(600)
    return train(images, labels, recipe, expert, device)

experts.train_expert = hang
recipe = experts.Recipe(n_experts=2, subset_size=200)
experts.train_bank(Path(sys.argv[1]), recipe, n_jobs=1, device="cpu")
"""


def test_killed_run_goes_on_where_it_stopped(
    trained, experts, recipe, mnist_root, tmp_path, contents, monkeypatch
):
    folder = tmp_path / "other" / "small"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED_WHILE_TRAINING_EXPERT_1, str(folder)],
        env={**os.environ, "EXPERTBANK_DATA": str(mnist_root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with child.stdout:
        said = child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    child.wait()
    assert said == b"expert 0 is done\n"

    partial = folder.with_name("small.partial")
    assert not folder.exists()  # nothing that could pass for a bank
    assert sorted(files(partial)) == ["begun.json", "expert_00.safetensors", "lock"]
    (partial / ".expert_01.safetensors.x1y2").write_bytes(b"a write that the kill cut short")
    before, again, at_the_end = contents(partial), [], {}
    train, assemble = experts.train_expert, experts._assemble
    monkeypatch.setattr(experts, "train_expert", lambda *a: again.append(a[3]) or train(*a))
    monkeypatch.setattr(
        experts, "_assemble", lambda *a: at_the_end.update(contents(a[1])) or assemble(*a)
    )
    time.sleep(0.01)  # a rewrite would show in the modification time
    experts.train_bank(folder, recipe, n_jobs=1, device="cpu")

    assert again == [1]
    assert {name: at_the_end[name] for name in before} == before  # not even rewritten
    assert files(folder) == files(trained)  # the same bytes as a run that nobody killed
    assert not partial.exists()


KILLED_AT_EVERY_RENAME = """
import os, signal, sys
from pathlib import Path
import torch
from expertbank.training import experts

torch.set_num_threads(1)
sizes = {"train": 600, "test": 300}
data = {split: [a[:n] for a in experts.load_images("mnist", split)] for split, n in sizes.items()}
experts.load_images = lambda name, split, *rest: data[split]
recipe = experts.Recipe(n_experts=2, subset_size=200)
rename = os.replace

def train(folder, renames):
    # a process that is killed for good when it has written, and would rename, once more
    child = os.fork()
    if child == 0:
        def replace(*paths):
            if replace.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            replace.left -= 1
            rename(*paths)
        replace.left = renames
        os.replace = replace
        experts.train_bank(folder, recipe, n_jobs=1, device="cpu")
        os._exit(0)
    return os.waitpid(child, 0)[1]

renames = 0
while train(Path(sys.argv[1], str(renames), "small"), renames) != 0:
    renames += 1
"""


def test_a_kill_between_a_write_and_its_rename_loses_nothing(
    trained, experts, recipe, mnist_root, tmp_path, contents
):
    from safetensors.numpy import load_file

    subprocess.run(
        [sys.executable, "-c", KILLED_AT_EVERY_RENAME, str(tmp_path / "kills")],
        env={**os.environ, "EXPERTBANK_DATA": str(mnist_root)},
        stderr=subprocess.DEVNULL,
        check=True,
    )
    *killed, whole = sorted((tmp_path / "kills").iterdir(), key=lambda path: int(path.name))
    # begun.json, two experts, weights, predictions and manifest, and the folder itself
    assert len(killed) == 7
    assert files(whole / "small") == files(trained)
    for home in killed:
        partial = home / "small.partial"
        assert [path.name for path in home.iterdir()] == ["small.partial"]
        assert [path for path in partial.rglob(".*.*")] or home == killed[-1]  # a write cut short
        for path in partial.glob("expert_*"):
            load_file(path)
        before = contents(partial)
        experts.train_bank(home / "small", recipe, n_jobs=1, device="cpu")
        assert files(home / "small") == files(trained)
        assert [path.name for path in home.iterdir()] == ["small"]
        assert len([name for name in before if name.startswith("expert_")]) == min(
            2, max(0, int(home.name) - 1)
        )


def test_partial_run_with_another_recipe_is_kept(experts, recipe, tmp_path, contents, monkeypatch):
    folder = tmp_path / "small"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experts, "train_expert", stop)
        experts.train_bank(folder, recipe, n_jobs=1, device="cpu")
    before = contents(tmp_path)
    assert "small.partial/begun.json" in before
    other = experts.Recipe(n_experts=2, subset_size=300)
    with pytest.raises(
        ValueError,
        match=r"small\.partial was begun with .*recipe\.subset_size 200, not 300; remove",
    ):
        experts.train_bank(folder, other, n_jobs=1, device="cpu")
    assert contents(tmp_path) == before


def test_existing_bank_is_kept(trained, experts, recipe, contents):
    before = contents(trained.parent)
    with pytest.raises(FileExistsError, match="small already holds a bank"):
        experts.train_bank(trained, recipe, n_jobs=1)
    assert contents(trained.parent) == before


def test_bad_recipe_leaves_nothing_behind(experts, tmp_path):
    with pytest.raises(ValueError, match="subset_size is 601; allowed is at most 600"):
        experts.train_bank(tmp_path / "small", experts.Recipe(subset_size=601), n_jobs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["n_experts", "subset_size", "batch_size", "epochs"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "25", None])
def test_bad_counts(torch, name, value):
    from expertbank.training.experts import Recipe

    with pytest.raises(ValueError, match=f"{name} is .*; allowed is an integer of at least 1"):
        Recipe(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0), ("learning_rate", np.nan), ("learning_rate", np.inf), ("seed", -1)],
)
def test_other_bad_settings(torch, name, value):
    from expertbank.training.experts import Recipe

    with pytest.raises(ValueError, match=f"{name} is .*; allowed is"):
        Recipe(**{name: value})


# --- verification ---


def test_shipped_bank_on_a_slice(mnist_root, shipped):
    from expertbank.training.experts import verify_bank

    counts = verify_bank("mnist", data=mnist_root, n_images=300)
    assert counts["compared"] == 25 * 2 * 300
    assert counts["ties"] <= 3


def rewrite_weights(folder, change):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "weights.safetensors")
    change(weights)
    save_file(weights, folder / "weights.safetensors")
    reseal(folder)


def test_changed_file_is_found_by_its_hash(trained, experts):
    path = trained / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"weights\.safetensors has sha256"):
        experts.verify_bank("small", trained.parent)


def one_bias(weights):
    weights["expert_01.9.bias"][3] += 5


def not_a_number(weights):
    weights["expert_00.9.bias"][:] = float("nan")


def no_opinion(weights):  # all logits equal: every class is at a tie
    for name in ("expert_01.9.weight", "expert_01.9.bias"):
        weights[name][:] = 0


def swapped(weights):
    for name in [name for name in weights if name.startswith("expert_00")]:
        other = name.replace("expert_00", "expert_01")
        weights[name], weights[other] = weights[other], weights[name]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (one_bias, r"bank small, expert 1, .*shipped prediction \d, weights give 3 by \d"),
        (swapped, r"bank small, expert 0, .*shipped prediction \d, weights give \d by \d"),
        (not_a_number, r"bank small, expert 0, .*by nan in the logit"),
        (no_opinion, r"bank small: \d+ of \d+ predictions differ, too many for ties"),
    ],
)
def test_tampered_weights_are_found_even_when_sealed(trained, experts, change, says):
    rewrite_weights(trained, change)
    with pytest.raises(ValueError, match=says):
        experts.verify_bank("small", trained.parent)


@pytest.mark.parametrize("what", ["labels", "predictions"])
def test_tampered_arrays_are_found_even_when_sealed(trained, experts, what):
    bank = load_bank("small", trained.parent)
    arrays = {
        s: {"labels": bank.labels(s).copy(), "predictions": bank.predictions(s).copy()}
        for s in SLICE
    }
    entry = arrays["test"][what]
    entry[17] = (entry[17] + 1) % 10
    copy = trained.with_name("copy")
    copy.mkdir()
    (copy / "weights.safetensors").write_bytes((trained / "weights.safetensors").read_bytes())
    by_kind = [{s: arrays[s][kind] for s in SLICE} for kind in ("labels", "predictions")]
    save_bank(copy, *by_kind, {}, extra_files=("weights.safetensors",))
    with pytest.raises(ValueError, match=r"bank copy.*test (labels|image 17)"):
        experts.verify_bank("copy", trained.parent)


def test_bank_without_weights_cannot_be_verified(tiny_bank, experts):
    with pytest.raises(FileNotFoundError, match=r"tiny has no weights\.safetensors"):
        experts.verify_bank("tiny", tiny_bank[0])


@pytest.mark.parametrize("n_images", [0, -5, 2.5])
def test_verifying_nothing_is_no_success(experts, n_images):
    with pytest.raises(ValueError, match=r"n_images is .*; allowed is an integer of at least 1"):
        experts.verify_bank("mnist", n_images=n_images)


# --- MNIST ---


def test_mnist_is_complete(mnist_root):
    from expertbank.training.datasets import load_mnist

    for split, size, first in (
        ("train", 60_000, [5, 0, 4, 1, 9]),
        ("test", 10_000, [7, 2, 1, 0, 4]),
    ):
        images, labels = load_mnist(split, mnist_root)
        assert images.shape == (size, 28, 28) and images.dtype == labels.dtype == np.uint8
        assert labels[:5].tolist() == first


def test_data_root_is_a_variable(torch, monkeypatch, tmp_path):
    from expertbank.shipped.manifest import REPOSITORY
    from expertbank.training.datasets import data_root

    monkeypatch.setenv("EXPERTBANK_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("EXPERTBANK_DATA")
    assert data_root() == REPOSITORY / "data"


@pytest.fixture
def half_downloaded(mnist_root, tmp_path):
    """A root with all four files, to be damaged: three links and one real copy."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (mnist_root / "MNIST" / "raw").iterdir():
        if path.name == "t10k-images-idx3-ubyte":
            (raw / path.name).write_bytes(path.read_bytes())
        elif path.is_file():
            (raw / path.name).symlink_to(path.resolve())
    return tmp_path


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kept", [None, 0, 1000, 7_840_015])
def test_half_downloaded_mnist(half_downloaded, contents, kept, split, download):
    from expertbank.training.datasets import load_mnist

    path = half_downloaded / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    if kept is None:
        path.unlink()
        error, says = (
            FileNotFoundError,
            r"MNIST in .*raw lacks \['t10k-images-idx3-ubyte'\]; point EXPERTBANK_DATA",
        )
    else:
        os.truncate(path, kept)
        error, says = (
            ValueError,
            r"t10k-images-idx3-ubyte has md5 \w+, MNIST has 2646ac\w+: incomplete download\?",
        )
    before = sorted(p.name for p in path.parent.iterdir())
    with pytest.raises(error, match=says):
        load_mnist(split, half_downloaded, download)
    assert sorted(p.name for p in path.parent.iterdir()) == before


def test_absent_mnist(torch, tmp_path):
    from expertbank.training.datasets import load_mnist

    with pytest.raises(FileNotFoundError, match="EXPERTBANK_DATA"):
        load_mnist("train", tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"split is 'validation'; allowed are \('train', 'test'\)"):
        load_mnist("validation", tmp_path)
