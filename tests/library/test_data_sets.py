"""One flag for every data set: loaders, shapes, names, and two tiny experts on Fashion-MNIST."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from expertbank import cli
from expertbank.shipped.bank import DATA_SETS, load_bank, named_for
from support import skip_or_fail

SIZES = {"train": 60, "test": 30}


def as_idx(array):
    """The bytes of a file in IDX format."""
    head = bytes([0, 0, 8, array.ndim])
    return head + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()


def small_images(shape, seed=0):
    """Images and labels of both splits, every class as often as any other."""
    rng = np.random.default_rng(seed)
    return {
        split: (
            rng.integers(0, 256, (n, *shape), dtype=np.uint8),
            np.arange(n, dtype=np.uint8) % 10,
        )
        for split, n in SIZES.items()
    }


@pytest.fixture
def kmnist(torch, tmp_path):
    """A root with small files in the format of KMNIST, and what is in them."""
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    made = small_images((28, 28))
    for prefix, (images, labels) in zip(("train", "t10k"), made.values(), strict=True):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(as_idx(images))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(as_idx(labels))
    return tmp_path, made


@pytest.fixture
def cifar10(torch, tmp_path, monkeypatch):
    """A root with small files in the format of CIFAR-10, and what is in them."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()

    def written(name, content):
        packed = pickle.dumps(content)
        (folder / name).write_bytes(packed)
        return hashlib.md5(packed, usedforsecurity=False).hexdigest()

    made = small_images((32, 32, 3))
    listed = {"train": [], "test": []}
    for split, names in (("train", ("data_batch_1", "data_batch_2")), ("test", ("test_batch",))):
        images, labels = made[split]
        parts = np.split(np.arange(len(labels)), len(names))
        for name, part in zip(names, parts, strict=True):
            rows = images[part].transpose(0, 3, 1, 2).reshape(len(part), -1)
            content = {"data": rows, "labels": labels[part].tolist()}
            listed[split].append([name, written(name, content)])
    names = {"label_names": [f"class {k}" for k in range(10)]}
    meta = CIFAR10.meta | {"md5": written(CIFAR10.meta["filename"], names)}
    monkeypatch.setattr(CIFAR10, "train_list", listed["train"])
    monkeypatch.setattr(CIFAR10, "test_list", listed["test"])
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return tmp_path, made


@pytest.fixture(scope="module")
def fashion(torch):
    """Fashion-MNIST as Debian's package has it."""
    from expertbank.training.datasets import IMAGES, load_images

    if not IMAGES["fashion"].package.is_dir():
        skip_or_fail("Fashion-MNIST needs `apt-get install dataset-fashion-mnist`")
    # a root that holds nothing, so that the package's files are what is read
    return {split: load_images("fashion", split, Path("/nowhere")) for split in SIZES}


# --- loaders ---


def test_fashion_mnist_is_complete(fashion):
    images, labels = fashion["train"]
    assert images.shape == (60_000, 28, 28) and images.dtype == labels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [6_000] * 10
    assert abs(images.mean() / 255 - 0.2860) < 5e-5 and abs(images.std() / 255 - 0.3530) < 5e-5
    images, labels = fashion["test"]
    assert images.shape == (10_000, 28, 28)
    assert labels[:5].tolist() == [9, 2, 1, 1, 6]


def test_a_package_and_a_download_are_the_same_data(fashion, tmp_path):
    from expertbank.training.datasets import IMAGES, load_images

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in IMAGES["fashion"].package.glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    for found, packaged in zip(
        load_images("fashion", "test", tmp_path), fashion["test"], strict=True
    ):
        np.testing.assert_array_equal(found, packaged)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"half of it")
    with pytest.raises(ValueError, match=r"has md5 \w+, Fashion-MNIST has 15d484\w+: incomplete"):
        load_images("fashion", "train", tmp_path)


def test_kmnist_from_small_files_of_its_format(kmnist):
    from expertbank.training.datasets import load_images

    root, made = kmnist
    for split in SIZES:
        for found, given in zip(load_images("kmnist", split, root), made[split], strict=True):
            np.testing.assert_array_equal(found, given)
            assert found.dtype == np.uint8


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x01", b"\0\0\x08\x03" + bytes(12) + b"x"])
def test_files_that_are_no_idx_are_named(kmnist, content):
    from expertbank.training.datasets import load_images

    path = kmnist[0] / "KMNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte is no whole IDX file of bytes"):
        load_images("kmnist", "test", kmnist[0])


def test_cifar10_from_small_files_of_its_format(cifar10):
    from expertbank.training.datasets import load_images

    root, made = cifar10
    for split in SIZES:
        for found, given in zip(load_images("cifar10", split, root), made[split], strict=True):
            np.testing.assert_array_equal(found, given)
            assert found.dtype == np.uint8
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(b"half of it")
    with pytest.raises(FileNotFoundError, match=r"no whole CIFAR-10 in .*--data cifar10"):
        load_images("cifar10", "test", root)


@pytest.mark.parametrize("data", ["fashion", "kmnist"])
def test_absent_data_says_how_to_get_it(torch, tmp_path, monkeypatch, data):
    from dataclasses import replace

    from expertbank.training import datasets

    nothing = replace(datasets.IMAGES[data], package=tmp_path / "no package")
    monkeypatch.setitem(datasets.IMAGES, data, nothing)
    with pytest.raises(FileNotFoundError, match=rf"`expertbank train mnist --data {data} --down"):
        datasets.load_images(data, "train", tmp_path)


@pytest.mark.parametrize("data", ["fashion", "kmnist"])
def test_a_download_is_torchvisions(torch, kmnist, tmp_path, monkeypatch, data):
    from dataclasses import replace

    from expertbank.training import datasets

    class Loader:
        def __init__(self, root, download):
            assert download
            shutil.copytree(kmnist[0] / "KMNIST", Path(root) / "Loader")

    root = tmp_path / "root"
    root.mkdir()
    small = replace(datasets.IMAGES["kmnist"], loader=Loader)
    monkeypatch.setitem(datasets.IMAGES, data, small)
    images, labels = datasets.load_images(data, "test", root, download=True)
    np.testing.assert_array_equal(images, kmnist[1]["test"][0])
    np.testing.assert_array_equal(labels, kmnist[1]["test"][1])


def test_unknown_data_is_refused(torch):
    from expertbank.training.datasets import load_images
    from expertbank.training.experts import Recipe

    for asks in (
        lambda: load_images("svhn", "train"),
        lambda: Recipe(data="svhn"),
        lambda: named_for("svhn", "family"),
    ):
        with pytest.raises(ValueError, match=r"data is 'svhn'; allowed are \('mnist', 'fashion',"):
            asks()


def test_every_data_set_has_its_images(torch):
    from expertbank.training.datasets import IMAGES

    assert list(IMAGES) == list(DATA_SETS)
    classes = [images.loader.__name__ for images in IMAGES.values()]
    assert classes == ["MNIST", "FashionMNIST", "KMNIST", "CIFAR10"]


# --- training on them ---


def test_two_tiny_experts_learn_fashion(fashion, torch, tmp_path):
    from expertbank.training import experts

    recipe = experts.Recipe(n_experts=2, subset_size=500, epochs=4, batch_size=50, data="fashion")
    images, labels = fashion["train"]
    unseen, truth = (array[:500] for array in fashion["test"])
    networks = [experts.train_expert(images, labels, recipe, e) for e in range(2)]
    for network in networks:
        assert np.mean(experts.logits(network, unseen).argmax(axis=1) == truth) > 0.6


@pytest.mark.parametrize("kind", ["Recipe", "SpecialistRecipe"])
@pytest.mark.parametrize("data", ["kmnist", "cifar10"])
def test_a_bank_of_small_files(request, torch, tmp_path, data, kind):
    from expertbank.training import experts

    root, made = request.getfixturevalue(data)
    recipe = getattr(experts, kind)(n_experts=2, subset_size=20, batch_size=10, data=data)
    folder = tmp_path / "bank"
    experts.train_bank(folder, recipe, root, n_jobs=1, device="cpu")
    bank = load_bank(folder)
    assert bank.manifest["recipe"]["data"] == data
    assert bank.manifest["title"].startswith(f"2 {DATA_SETS[data]} CNNs")
    n_train = {"kmnist": 60_000, "cifar10": 50_000}[data]
    if kind == "Recipe":
        assert f"permutation({n_train})" in bank.manifest["seeds"]["subset"]
    np.testing.assert_array_equal(bank.labels("test"), made["test"][1])
    assert experts.recipe_of(bank.manifest) == recipe
    assert experts.verify_bank(folder, data=root)["compared"] == 2 * sum(SIZES.values())


def test_a_bank_may_go_without_its_weights(kmnist, tmp_path, monkeypatch):
    monkeypatch.setenv("EXPERTBANK_DATA", str(kmnist[0]))
    given = ["train", "mnist", "--data", "kmnist", "--experts", "2", "--subset", "20"]
    out = tmp_path / "bank"
    assert cli.main([*given, "--no-weights", "--jobs", "1", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "predictions.npz"]


@pytest.mark.parametrize("family", ["linear", "cnn", "prototype"])
@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3)])
def test_gates_take_images_of_any_data_set(torch, family, shape):
    from expertbank.training import gates

    images, _ = small_images(shape)["train"]
    losses = np.random.default_rng(1).integers(0, 2, (len(images), 4)).astype(float)
    recipe = gates.GateRecipe("any", family, 0.01, epochs=1, batch_size=20)
    gate = gates.train_gate(np.repeat(images, 2, axis=0), np.repeat(losses, 2, axis=0), recipe)
    assert gates.gate_probabilities(gate, images).shape == (len(images), 4)
    assert gates.distilled_losses(images, losses, images[:3], epochs=1).shape == (3, 4)
    assert gates.voted_labels(images, np.arange(60) % 10, images[:3]).shape == (3,)


# --- the command ---


@pytest.mark.parametrize(
    ("what", "trains", "place"),
    [
        ("mnist", "experts.train_bank", "build/banks/fashion"),
        ("specialists", "experts.train_bank", "build/banks/fashion-specialists"),
        ("family", "experts.train_family", "build/banks/fashion-family"),
        ("gates", "gates.train_gates", "build/fashion-gates"),
    ],
)
def test_each_data_set_has_a_place_of_its_own(torch, tmp_path, monkeypatch, what, trains, place):
    seen = []
    monkeypatch.setattr(f"expertbank.training.{trains}", lambda *a, **k: seen.append(Path(a[0])))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", what, "--data", "fashion"]) == 0
    assert seen == [Path(place)]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            ["testbed", "--data", "fashion"],
            "--data is 'fashion'; testbed is trained on data of its own",
        ),
        (["mnist", "--banks", "here"], "--banks is 'here'; only gates are trained for banks"),
        (["gates", "--no-weights"], "--no-weights is for a single bank"),
        (["gates", "--data", "kmnist"], "no bank named 'kmnist' in"),
    ],
)
def test_options_of_other_things_are_refused(torch, capsys, given, says):
    assert cli.main(["train", *given]) == 2
    assert says in capsys.readouterr().err


def test_help_says_what_the_names_mean(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "mnist is the papers' bank" in said and "of the data set that --data names;" in said
