"""The mix of inputs that specialists are for: each image in one of five conditions, drawn once and
for all."""

from __future__ import annotations

import numpy as np

DISTORTIONS = ("plain", "rotated", "inverted", "shifted", "noisy")
# ten digits in five windows of six, each starting two after the one before: every digit is in three
# of them
WINDOWS = tuple(tuple((2 * start + step) % 10 for step in range(6)) for start in range(5))
SHIFT, NOISE = 6, 80  # pixels of 28, grey levels of 255


def specialty(expert: int) -> tuple[str, tuple[int, ...]]:
    """The distortion and the digits that expert 0..24 was trained on: distortions vary slowest."""
    return DISTORTIONS[expert // len(WINDOWS)], WINDOWS[expert % len(WINDOWS)]


def mix_kinds(n_images: int, split: str, seed: int) -> np.ndarray:
    """Which of `DISTORTIONS` each image of a split gets, (N,) uint8: uniform, fixed by the seed."""
    return np.random.default_rng([seed, *split.encode()]).integers(
        len(DISTORTIONS), size=n_images, dtype=np.uint8
    )


def mixed(images: np.ndarray, split: str, seed: int) -> np.ndarray:
    """The mix of one split: images (N, 28, 28) uint8, each distorted by its kind."""
    return distort(
        images,
        mix_kinds(len(images), split, seed),
        np.random.default_rng([seed, *split.encode(), 1]),
    )


def distort(images: np.ndarray, kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distort each of the images (N, 28, 28) uint8 by its kind (N,), an index of `DISTORTIONS`.

    rotated: a quarter turn clockwise; inverted: 255 - x; shifted: 6 pixels along a random diagonal,
    what leaves the frame is lost; noisy: Gaussian noise of 80 grey levels, clipped.
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
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    out, size = np.empty_like(images), images.shape[1]
    for down, right in ((d, r) for d in (-SHIFT, SHIFT) for r in (-SHIFT, SHIFT)):
        moved = (steps == (down, right)).all(axis=1)
        out[moved] = padded[
            moved, SHIFT - down : SHIFT - down + size, SHIFT - right : SHIFT - right + size
        ]
    return out
