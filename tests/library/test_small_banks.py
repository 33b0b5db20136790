"""Small banks on MNIST-1D: what ships, what a recipe makes, and the two lengths that decide."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from expertbank import cli, load_bank, load_family
from expertbank.shipped.gates import ORACLE, load_gates
from expertbank.shipped.manifest import read_manifest
from expertbank.shipped.small_banks import (
    SMALL_BANKS_FILE,
    SMALL_RATIOS,
    SMALL_SAMPLES,
    SMALL_SIZES,
    load_small_banks,
    spread_and_noise,
)

SHAPE = (len(SMALL_SIZES), len(SMALL_SAMPLES))


# --- what ships ---


def test_hundreds_of_small_banks_ship():
    small = load_small_banks()
    assert len(small.ratios) == 300 and set(small.ratios) == set(SMALL_RATIOS)
    assert small.information.shape == small.gaps.shape == small.kappas.shape == (300, *SHAPE)
    assert (small.information <= np.log(SMALL_SIZES)[:, None] + 1e-6).all()
    # spread apart by how long they train
    spreads = [small.spreads[small.ratios == ratio].mean() for ratio in SMALL_RATIOS]
    assert np.all(np.diff(spreads) > 0)


def test_one_ratio_decides_what_leaks():
    small = load_small_banks()
    for row in range(len(SMALL_SIZES)):
        kappas = small.kappas[:, row].ravel()
        for values in (small.information[:, row], small.scaled_gaps[:, row]):
            assert stats.spearmanr(kappas, values.ravel()).statistic < -0.8


@pytest.mark.parametrize("name", ["fashion", "fashion-specialists"])
def test_banks_of_fashion_are_of_the_recipe(torch, name):
    from expertbank.training.experts import Recipe, SpecialistRecipe, recipe_of

    kind = Recipe if name == "fashion" else SpecialistRecipe
    bank = load_bank(name)
    assert recipe_of(bank.manifest) == kind(data="fashion")
    for split, n in (("train", 60_000), ("test", 10_000)):
        assert bank.predictions(split).shape == (n, 25)
        assert np.bincount(bank.labels(split)).tolist() == [n // 10] * 10


def test_replicates_of_fashion_are_of_the_recipe(torch):
    from expertbank.training.experts import bank_family, recipe_of

    named = bank_family("fashion")
    banks = load_family(data="fashion")
    assert {bank.name for bank in banks} <= set(named) and len(banks) >= 2
    for bank in banks:
        assert recipe_of(bank.manifest) == named[bank.name]
        # less accurate than on MNIST, and better than a linear map of the pixels would be by luck
        assert 0.65 < bank.accuracies("test").mean() < 0.85
    first = banks[0]
    others = (load_bank("fashion"), *banks[1:])
    assert all((first.predictions("test") != bank.predictions("test")).any() for bank in others)


def test_gates_of_fashion_are_of_the_recipe(torch):
    from expertbank.training.gates import shipped_gates

    sweep = load_gates(data="fashion")
    assert sweep.banks == ("fashion", "fashion-specialists")
    for name in sweep.banks:
        gates = sweep.columns(bank=name, split="test", decision="soft")
        trained = gates["family"] != ORACLE
        wanted = {(g.family, round(g.lam, 9)) for g in shipped_gates("fashion") if g.bank == name}
        found = zip(gates["family"][trained], gates["lam"][trained].round(9), strict=True)
        assert set(found) == wanted and trained.sum() == len(wanted) == 15
        # three neighbours in pixels vote right more often than a linear map of the pixels would
        right = np.mean(sweep.voted(name) == load_bank(name).labels("test"))
        assert 0.6 < right < 0.9
    with pytest.raises(FileNotFoundError, match=r"no kmnist-gates in .*kmnist-gates"):
        load_gates(data="kmnist")


# --- making them ---


def test_spread_and_noise_by_hand():
    rng = np.random.default_rng(0)
    losses = rng.integers(0, 2, (300, 5))
    spread, noise = spread_and_noise(losses)
    assert spread == pytest.approx(losses.mean(axis=0).std(ddof=1))
    pairs = [(i, j) for i in range(5) for j in range(i)]
    differences = [np.var(losses[:, i] - losses[:, j], ddof=1) / 2 for i, j in pairs]
    assert noise == pytest.approx(np.sqrt(np.mean(differences)))


def test_small_banks_resume_to_the_same_bytes(torch, tmp_path, monkeypatch):
    from expertbank.training import small_banks

    sizes = {"n_images": 200, "subset_size": 50, "steps": 4, "n_datasets": 20}
    recipe = small_banks.SmallRecipe(n_banks=3, **sizes)
    small_banks.train_small_banks(tmp_path / "whole", recipe, n_jobs=1)
    made = []
    train = small_banks.small_bank

    def stops(*arguments):
        if made:
            raise KeyboardInterrupt
        made.append(arguments[3])
        return train(*arguments)

    monkeypatch.setattr(small_banks, "small_bank", stops)
    with pytest.raises(KeyboardInterrupt, match="1 finished part is kept"):
        small_banks.train_small_banks(tmp_path / "killed", recipe, n_jobs=1)
    again = []
    monkeypatch.setattr(small_banks, "small_bank", lambda *a: again.append(a[3]) or train(*a))
    small_banks.train_small_banks(tmp_path / "killed", recipe, n_jobs=1)
    assert len(again) == 2 and not set(again) & set(made)
    for name in (SMALL_BANKS_FILE, "manifest.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    found = load_small_banks(tmp_path / "whole")
    assert found.gaps.shape == (3, *SHAPE)
    with pytest.raises(FileExistsError, match="already holds small banks"):
        small_banks.train_small_banks(tmp_path / "whole", recipe)


def test_the_data_come_from_a_seed(torch):
    from expertbank.training.small_banks import SmallRecipe, mnist1d_images

    one, other = (mnist1d_images(SmallRecipe(n_images=100)) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)
    assert np.bincount(one[1]).tolist() == [10] * 10


def test_the_command_trains_them_into_build(torch, tmp_path, monkeypatch):
    seen = []
    trains = "expertbank.training.small_banks.train_small_banks"
    monkeypatch.setattr(trains, lambda *a, **k: seen.append((str(a[0]), k)))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "small-banks", "--jobs", "1"]) == 0
    assert seen == [("build/small-banks", {"n_jobs": 1})]


def test_their_manifest_states_the_data(torch):
    from expertbank.shipped.manifest import data_folder

    stated = read_manifest(data_folder() / "small-banks", [SMALL_BANKS_FILE], "small banks")
    assert stated["recipe"]["sizes"] == list(SMALL_SIZES)
    assert len(stated["data"]) == 64 and stated["versions"]["mnist1d"].startswith("0.0.2")
