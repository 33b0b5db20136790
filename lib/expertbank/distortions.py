"""The mix of inputs that specialists are for: each image in one of five conditions.

Conditions are drawn once and for all, from a seed.
"""

from __future__ import annotations

from itertools import product

import numpy as np

DISTORTIONS = ("plain", "rotated", "inverted", "shifted", "noisy")
# ten digits in five windows of six, each starting two after the one before: every digit is in three
# of them
WINDOWS = tuple(tuple((2 * start + step) % 10 for step in range(6)) for start in range(5))
SHIFT = 6  # pixels of 28
NOISE = 80  # grey levels of 255


def specialty(expert: int) -> tuple[str, tuple[int, ...]]:
    """The distortion and the digits that expert 0..24 was trained on: distortions vary slowest.

    >>> specialty(7)
    ('rotated', (4, 5, 6, 7, 8, 9))
    """
    distortion, window = divmod(expert, len(WINDOWS))
    return DISTORTIONS[distortion], WINDOWS[window]


def mix_kinds(n_images: int, split: str, seed: int) -> np.ndarray:
    """Which of `DISTORTIONS` each image of a split gets, (N,) uint8: uniform, fixed by the seed.

    `split` is "train" or "test".

    >>> [DISTORTIONS[kind] for kind in mix_kinds(4, "test", seed=0)]
    ['noisy', 'noisy', 'rotated', 'plain']
    """
    rng = np.random.default_rng([seed, *split.encode()])
    return rng.integers(len(DISTORTIONS), size=n_images, dtype=np.uint8)


def mixed(images: np.ndarray, split: str, seed: int) -> np.ndarray:
    """The mix of one split: images (N, 28, 28) uint8, each distorted by its kind of `mix_kinds`.

    Of four black images two are noisy, one is rotated and one is plain:

    >>> images = np.zeros((4, 28, 28), np.uint8)
    >>> [bool(image.any()) for image in mixed(images, "test", seed=0)]
    [True, True, False, False]
    """
    kinds = mix_kinds(len(images), split, seed)
    rng = np.random.default_rng([seed, *split.encode(), 1])
    return distort(images, kinds, rng)


def distort(images: np.ndarray, kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distort each of the images (N, H, H) or (N, H, H, 3) uint8 by its kind (N,), an index of
    `DISTORTIONS`.

    rotated: a quarter turn clockwise; inverted: 255 - x; shifted: 6 pixels along a random diagonal,
    what leaves the frame is lost; noisy: Gaussian noise of 80 grey levels, clipped. Returns a new
    array.

    >>> images = np.full((2, 28, 28), 55, np.uint8)
    >>> plain, inverted = distort(images, np.array([0, 2]), np.random.default_rng(0))
    >>> int(plain[0, 0]), int(inverted[0, 0])
    (55, 200)
    """
    out = images.copy()
    rotated, inverted, shifted, noisy = (np.flatnonzero(kinds == kind) for kind in range(1, 5))
    out[rotated] = np.rot90(images[rotated], k=-1, axes=(1, 2))
    out[inverted] = 255 - images[inverted]
    out[shifted] = _shifted(images[shifted], rng.choice([-SHIFT, SHIFT], size=(len(shifted), 2)))
    noise = rng.standard_normal((len(noisy), *images.shape[1:]), dtype=np.float32)
    out[noisy] = np.clip(np.rint(images[noisy] + NOISE * noise), 0, 255).astype(np.uint8)
    return out


def _shifted(images: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Images (N, 28, 28) moved down and right by steps (N, 2), each -SHIFT or SHIFT."""
    frame = [(0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)]
    padded = np.pad(images, frame + [(0, 0)] * (images.ndim - 3))
    size = images.shape[1]
    out = np.empty_like(images)
    for down, right in product((-SHIFT, SHIFT), repeat=2):
        moved = (steps == (down, right)).all(axis=1)
        rows = slice(SHIFT - down, SHIFT - down + size)
        columns = slice(SHIFT - right, SHIFT - right + size)
        out[moved] = padded[moved, rows, columns]
    return out
