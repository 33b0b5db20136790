"""The bank of specialists: its distortions, its recipe, and that each expert is good at what it was
trained on."""

from dataclasses import asdict

import numpy as np
import pytest

from expertbank import critical_lambda, load_bank, rate_distortion
from expertbank.distortions import (
    DISTORTIONS,
    NOISE,
    SHIFT,
    WINDOWS,
    distort,
    mix_kinds,
    mixed,
    specialty,
)

IMAGES = np.random.default_rng(0).integers(0, 256, size=(200, 28, 28), dtype=np.uint8)


def distorted(name, images=IMAGES):
    return distort(images, np.full(len(images), DISTORTIONS.index(name)), np.random.default_rng(1))


@pytest.fixture(scope="module")
def bank():
    return load_bank("specialists")


def test_each_distortion_does_what_its_name_says():
    np.testing.assert_array_equal(distorted("plain"), IMAGES)
    np.testing.assert_array_equal(distorted("inverted"), 255 - IMAGES)
    # a quarter turn clockwise: the first row becomes the last column
    np.testing.assert_array_equal(distorted("rotated")[:, :, -1], IMAGES[:, 0])
    flat = np.full((2000, 28, 28), 128, dtype=np.uint8)
    noise = distorted("noisy", flat).astype(float) - 128
    assert abs(noise.mean()) < 0.2
    # what falls outside 0..255 is clipped there, which takes off a little of the spread
    assert 0.85 * NOISE < noise.std() < NOISE


def test_shifted_images_move_along_all_four_diagonals():
    shifted, seen = distorted("shifted"), set()
    for image, moved in zip(IMAGES, shifted, strict=True):
        for down, right in ((d, r) for d in (-SHIFT, SHIFT) for r in (-SHIFT, SHIFT)):
            back = np.roll(moved, (-down, -right), axis=(0, 1))
            rows = slice(max(0, -down), 28 - max(0, down))
            columns = slice(max(0, -right), 28 - max(0, right))
            if np.array_equal(back[rows, columns], image[rows, columns]):
                seen.add((down, right))
                # the rest of the frame is black
                assert moved.sum(dtype=int) == image[rows, columns].sum(dtype=int)
                break
        else:
            pytest.fail("an image was not moved along a diagonal")
    assert len(seen) == 4


def test_the_mix_is_fixed_uniform_and_leaves_its_input_alone():
    before = IMAGES.copy()
    first, again = mixed(IMAGES, "test", 7), mixed(IMAGES, "test", 7)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(IMAGES, before)
    plain = mix_kinds(200, "test", 7) == 0
    np.testing.assert_array_equal(first[plain], IMAGES[plain])
    kinds = mix_kinds(50_000, "train", 7)
    np.testing.assert_allclose(np.bincount(kinds) / 50_000, 0.2, atol=0.01)
    assert (mix_kinds(200, "train", 7) != mix_kinds(200, "test", 7)).any()


def test_every_digit_has_three_experts_in_each_condition():
    specialties = [specialty(expert) for expert in range(25)]
    assert len(set(specialties)) == 25
    for distortion in DISTORTIONS:
        digits = [digit for name, window in specialties for digit in window if name == distortion]
        np.testing.assert_array_equal(np.bincount(digits, minlength=10), 3)
    for one, other in zip(WINDOWS, WINDOWS[1:] + WINDOWS[:1], strict=True):
        assert len(set(one) & set(other)) == 4  # neighbours overlap


def test_every_expert_knows_its_own_and_little_else(bank):
    kinds = mix_kinds(10_000, "test", bank.manifest["recipe"]["seed"])
    right = 1 - bank.losses("test").astype(float)
    for expert in range(25):
        distortion, window = specialty(expert)
        own = (kinds == DISTORTIONS.index(distortion)) & np.isin(bank.labels("test"), window)
        assert right[own, expert].mean() > 0.8
        strange = ~np.isin(bank.labels("test"), window)
        assert right[strange, expert].max() == 0  # it never saw these digits and never names them
    assert set(np.unique(bank.predictions("test")[:, 0])) <= set(WINDOWS[0])


def test_routing_matters_here(bank):
    losses, first = bank.losses("test"), load_bank("mnist").losses("test")
    point = rate_distortion(losses, 0.05)
    # one expert alone is hopeless, routed it is not
    assert losses.mean(axis=0).min() > 0.5 > 0.05 > point.distortion
    assert point.rate > 5 * rate_distortion(first, 0.05).rate
    assert critical_lambda(losses) > point.lam


def test_recipe_is_the_shipped_banks(torch, bank):
    from expertbank.training.experts import SpecialistRecipe, recipe_of

    recipe = recipe_of(bank.manifest)
    assert recipe == SpecialistRecipe()
    wanted = asdict(recipe)
    assert wanted.pop("data") == "mnist"  # which manifests of MNIST do not state
    assert {key: bank.manifest["recipe"][key] for key in wanted} == wanted


@pytest.mark.slow
def test_the_recipe_regenerates_a_shipped_specialist(mnist_root, bank):
    from expertbank.training.datasets import load_mnist
    from expertbank.training.experts import (
        SpecialistRecipe,
        judged_on,
        logits,
        train_expert,
        training_data,
    )

    recipe, split = SpecialistRecipe(), load_mnist("train", mnist_root)
    inputs, labels = training_data(*split, recipe, 7)
    assert len(inputs) == recipe.subset_size and set(labels) == set(specialty(7)[1])
    network = train_expert(*split, recipe, expert=7)
    images = judged_on(load_mnist("test", mnist_root)[0], "test", recipe)[:2000]
    differs = np.mean(
        bank.predictions("test")[:2000] != logits(network, images).argmax(axis=1)[:, None], axis=0
    )
    assert differs[7] < 0.02 and np.delete(differs, 7).min() > 0.1


def test_verify_recomputes_the_mix(mnist_root):
    from expertbank.training.experts import verify_bank

    counts = verify_bank("specialists", data=mnist_root, n_images=200)
    assert counts["compared"] == 2 * 200 * 25 and counts["ties"] <= 3


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"distortions": "plain upside-down"},
            "distortions is 'plain upside-down'; allowed is 'plain rotated",
        ),
        ({"n_experts": 26}, "n_experts is 26; allowed is at most 25"),
        ({"subset_size": 0}, "subset_size"),
    ],
)
def test_bad_recipes(torch, given, message):
    from expertbank.training.experts import SpecialistRecipe

    with pytest.raises(ValueError, match=message):
        SpecialistRecipe(**given)


def test_too_few_images_of_its_digits(torch):
    from expertbank.training.experts import SpecialistRecipe, training_data

    labels = np.arange(200, dtype=np.uint8) % 10
    with pytest.raises(ValueError, match="subset_size is 10000; allowed is at most 120"):
        training_data(IMAGES, labels, SpecialistRecipe(), 0)


def test_unknown_recipe_field(torch, bank):
    from expertbank.training.experts import recipe_of

    with pytest.raises(ValueError, match="none that this version knows"):
        recipe_of({"recipe": {**bank.manifest["recipe"], "mood": 1}})
