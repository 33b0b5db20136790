"""The shipped family of banks: what its names promise, its size, and training it again, resumed or
on a cluster."""

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from expertbank import cli, load_bank, load_family
from expertbank.shipped.manifest import REPOSITORY, read_manifest, seal
from support import skip_or_fail


@pytest.fixture(scope="module")
def grid():
    return {bank.manifest["recipe"]["subset_size"]: bank for bank in load_family("grid")}


@pytest.fixture
def tiny(experts):
    """Two banks that differ in their seed, one of them with fewer experts: three to train."""
    return {f"tiny-{n}": experts.Recipe(n_experts=n, subset_size=100, seed=n) for n in (1, 2)}


def predictions(folder):
    return {
        path.parent.name: path.read_bytes() for path in sorted(folder.glob("*/predictions.npz"))
    }


# --- what ships ---


def test_manifests_state_the_familys_recipes(torch):
    from expertbank.training.experts import BANK_FAMILY

    folder = REPOSITORY / "data/banks/family"
    assert {path.parent.name for path in folder.glob("*/manifest.json")} == set(BANK_FAMILY)
    for name, recipe in BANK_FAMILY.items():
        stated = read_manifest(folder / name)["recipe"]
        wanted = asdict(recipe)
        assert wanted.pop("data") == "mnist"  # which manifests of MNIST do not state
        assert {key: stated[key] for key in wanted} == wanted, name


def test_replicates_are_whole_alike_and_different(shipped):
    banks = load_family("replicate")  # checks every hash
    assert len(banks) >= 20
    seeds = {bank.manifest["recipe"]["seed"] for bank in [shipped, *banks]}
    assert len(seeds) == len(banks) + 1
    for bank in banks:
        assert {**bank.manifest["recipe"], "seed": None} == {
            **shipped.manifest["recipe"],
            "seed": None,
        }
        assert bank.predictions("train").shape == (60_000, 25) and bank.predictions(
            "test"
        ).shape == (10_000, 25)
        np.testing.assert_array_equal(bank.labels("train"), shipped.labels("train"))
        assert 0.85 < bank.accuracies("test").min() < bank.accuracies("test").max() < 0.94
        stated = bank.manifest["accuracies"]["test"]
        np.testing.assert_allclose(bank.accuracies("test"), stated, atol=1e-4)
    columns = {bank.predictions("test")[:, r].tobytes() for bank in banks for r in range(25)}
    assert len(columns) == 25 * len(banks)  # no expert ships twice


def test_grid_is_nested(grid, shipped):
    assert sorted(grid) == [5_000, 10_000, 20_000]
    assert {bank.n_experts for bank in grid.values()} == {50}
    for split in ("train", "test"):
        np.testing.assert_array_equal(
            grid[10_000].predictions(split)[:, :25], shipped.predictions(split)
        )
    means = [grid[size].accuracies("test").mean() for size in sorted(grid)]
    assert means == sorted(means)


def test_grid_subsets_are_nested(torch):
    from expertbank.training.experts import BANK_FAMILY, training_subset

    small, medium, large = (
        training_subset(BANK_FAMILY[f"grid-{size:05d}"], 7) for size in (5_000, 10_000, 20_000)
    )
    np.testing.assert_array_equal(large[:10_000], medium)
    np.testing.assert_array_equal(medium[:5_000], small)


def test_what_ships_is_small():
    sizes = [
        path.stat().st_size
        for path in (REPOSITORY / "data/banks").rglob("*")
        if path.suffix != ".safetensors"
    ]
    assert sum(sizes) <= 25e6
    assert not list((REPOSITORY / "data/banks/family").rglob("*.safetensors"))


def test_a_damaged_replicate_is_named(tmp_path):
    family = tmp_path / "family"
    shutil.copytree(REPOSITORY / "data/banks/family/replicate-2027", family / "replicate-2027")
    assert len(load_family(root=tmp_path)) == 1
    with open(family / "replicate-2027/predictions.npz", "r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    with pytest.raises(ValueError, match=r"replicate-2027/predictions\.npz has sha256"):
        load_family(root=tmp_path)


# --- training it ---


def test_a_killed_run_goes_on_and_whole_banks_are_left_alone(
    experts, tiny, tmp_path, monkeypatch, contents
):
    train, trained = experts.train_expert, []

    def dies_at_the_third(*arguments):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(arguments[2:4])
        return train(*arguments)

    experts.train_family(tmp_path / "whole", tiny, n_jobs=1, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(experts, "train_expert", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            experts.train_family(tmp_path / "killed", tiny, n_jobs=1, device="cpu")
    monkeypatch.setattr(experts, "train_expert", lambda *a: trained.append(a[2:4]) or train(*a))
    experts.train_family(tmp_path / "killed", tiny, n_jobs=1, device="cpu")
    # none twice
    assert sorted((recipe.seed, expert) for recipe, expert in trained) == [(1, 0), (2, 0), (2, 1)]
    assert predictions(tmp_path / "killed") == predictions(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["tiny-1", "tiny-2"]
    before = contents(tmp_path / "killed")
    with pytest.raises(FileExistsError, match="already holds all 2 banks; choose another folder"):
        experts.train_family(tmp_path / "killed", tiny, n_jobs=1, device="cpu")
    assert contents(tmp_path / "killed") == before
    other = tiny | {"tiny-2": experts.Recipe(n_experts=2, subset_size=100, seed=9)}
    with pytest.raises(ValueError, match=r"tiny-2 holds a bank of another recipe"):
        experts.train_family(tmp_path / "killed", other, n_jobs=1, device="cpu")
    assert contents(tmp_path / "killed") == before
    shutil.rmtree(tmp_path / "killed" / "tiny-1")
    experts.train_family(tmp_path / "killed", tiny, n_jobs=1, device="cpu")
    after = contents(tmp_path / "killed")
    assert len(after) == len(before) == 4
    assert {name: after[name] for name in after if "tiny-2" in name} == {
        n: before[n] for n in before if "tiny-2" in n
    }
    assert predictions(tmp_path / "killed") == predictions(tmp_path / "whole")


def test_a_dask_cluster_gives_the_same_bytes(experts, tiny, tmp_path):
    try:
        import joblib
        from distributed import Client, LocalCluster
    except ImportError as error:
        skip_or_fail(f"this needs `pip install -e '.[test]'`: {error}")
    experts.train_family(tmp_path / "sequential", tiny, n_jobs=1, device="cpu")
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster) as client, joblib.parallel_config(backend="dask"):
        experts.train_family(tmp_path / "dask", tiny, device="cpu")
        came_by = client.run(lambda: "expertbank.training.experts" in __import__("sys").modules)
    assert len(came_by) == 2 and any(came_by.values())  # the workers did the work
    assert len(predictions(tmp_path / "dask")) == 2
    assert predictions(tmp_path / "dask") == predictions(tmp_path / "sequential")


# --- from the command line ---


@pytest.mark.parametrize(
    ("what", "trains", "place"),
    [
        ("mnist", "experts.train_bank", "build/banks/mnist"),
        ("specialists", "experts.train_bank", "build/banks/specialists"),
        ("family", "experts.train_family", "build/banks/family"),
        ("gates", "gates.train_gates", "build/gates"),
        ("testbed", "testbed_runs.train_testbed", "build/testbed"),
    ],
)
def test_nothing_is_trained_into_the_shipped_data_unasked(
    torch, tmp_path, monkeypatch, what, trains, place
):
    seen = []
    monkeypatch.setattr(f"expertbank.training.{trains}", lambda *a, **k: seen.append(Path(a[0])))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", what]) == 0
    assert seen == [Path(place)] and not seen[0].is_absolute()


@pytest.mark.parametrize("what", cli.FOLDERS)
def test_what_is_sealed_is_not_trained_over(torch, capsys, contents, tmp_path, what):
    folder = tmp_path / "finished"
    if what == "family":  # whose banks are sealed one by one
        shutil.copytree(REPOSITORY / "data/banks/family", folder)
    else:
        folder.mkdir()
        seal(folder, {}, [])
    before = contents(folder)
    assert cli.main(["train", what, "--out", str(folder)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "already holds" in sentence and "choose another folder" in sentence
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["finished"]


def test_train_family_passes_on_what_it_is_told(torch, tmp_path, monkeypatch):
    from expertbank.training.experts import BANK_FAMILY

    seen = []
    monkeypatch.setattr(
        "expertbank.training.experts.train_family", lambda *a, **k: seen.append((a, k))
    )
    assert cli.main(["train", "family", "--out", str(tmp_path), "--jobs", "3"]) == 0
    assert cli.main(["train", "family", "--out", str(tmp_path)]) == 0
    assert cli.main(["train", "family", "--data", "fashion", "--out", str(tmp_path)]) == 0
    assert seen[0] == ((str(tmp_path), BANK_FAMILY), {"download": False, "n_jobs": 3})
    assert seen[1] == ((str(tmp_path), BANK_FAMILY), {"download": False, "n_jobs": 2})
    _, recipes = seen[2][0]
    assert len(recipes) == 20 and {recipe.data for recipe in recipes.values()} == {"fashion"}


def test_the_familys_recipes_are_not_up_to_the_caller(torch, capsys):
    assert cli.main(["train", "family", "--seed", "3"]) == 2
    assert "['seed'] is for a single bank alone" in capsys.readouterr().err


def test_kinds_that_do_not_ship_are_refused():
    with pytest.raises(
        FileNotFoundError, match=r"no bank of kind 'twin' .*allowed are \['grid', 'replicate'\]"
    ):
        load_family("twin")
    assert load_bank("family/replicate-2027").n_experts == 25
