"""The tables of the reference set, made from nothing but formulas and seeds.

`problems()` gives for each name what is stated of it: `family`, `what` it is, the price `lam` in
units of loss per nat, whether its optimal rate and distortion are `unique`, and either the `table`
(N, R) with `weights` (N,) where these are not uniform, or the shipped `bank` it is cut from. Where
the answer has a closed form, `closed` evaluates it with mpmath.
"""

from __future__ import annotations

import numpy as np
from mpmath import mp, mpf

from expertbank import critical_lambda

# prices of the numerical problems are round numbers; of the closed forms, round distortions


def problems() -> dict[str, dict]:
    found = {}
    for make in (
        _hamming,
        _circular,
        _simple,
        _sources,
        _spheres,
        _degenerate,
        _critical,
        _random,
        _banks,
    ):
        found |= make()
    return found


def _problem(family, what, lam, table=None, unique=True, **more):
    entry = dict(family=family, what=what, lam=float(lam), unique=unique)
    if table is not None:
        entry["table"] = np.asarray(table)
    return entry | more


def _value(rate, distortion, lam):
    return dict(rate=rate, distortion=distortion, lagrangian=distortion + mpf(lam) * rate)


def _entropy(*shares):
    return -sum((p * mp.log(p) for p in shares if p), mpf(0))


# --- closed forms ---


def _hamming():
    """Hamming loss, Shannon (1959): log M - h(D) - D log(M - 1) for M equally likely symbols, and
    h(p) - h(D) for a biased bit."""
    found = {}
    for m, distortion in ((2, "0.1"), (2, "0.01"), (2, "0.49"), (8, "0.2"), (64, "0.5")):
        lam = float(1 / mp.log((1 - mpf(distortion)) * (m - 1) / mpf(distortion)))

        def closed(m=m, lam=lam):
            stay = 1 / (1 + (m - 1) * mp.exp(-1 / mpf(lam)))  # of the rounded price
            wrong = (1 - stay) / (m - 1)
            rate = mp.log(m) - _entropy(stay, *[wrong] * (m - 1))
            return _value(rate, 1 - stay, lam)

        what = f"{m} equally likely symbols, Hamming loss, D = {distortion}"
        entry = _problem("closed form", what, lam, 1.0 - np.eye(m), closed=closed)
        found[f"hamming-{m}-{distortion}"] = entry
    lam = float(1 / mp.log(9))

    def biased(lam=lam):
        wrong = 1 / (1 + mp.exp(1 / mpf(lam)))
        rate = _entropy(mpf("0.3"), mpf("0.7")) - _entropy(wrong, 1 - wrong)
        return _value(rate, wrong, lam)

    what = "a bit of probability 0.3, Hamming loss, D = 0.1"
    shares = np.array([0.3, 0.7])
    entry = _problem("closed form", what, lam, 1.0 - np.eye(2), weights=shares, closed=biased)
    found["hamming-biased"] = entry
    return found


def _circular():
    """A uniform source on a circle of n points and a loss of the distance alone: the shares are
    uniform, and the noise is proportional to exp(-loss / lam)."""
    found = {}
    for n, power, lam in ((60, 1, 2.0), (60, 2, 5.0)):
        apart = abs(np.arange(n)[:, None] - np.arange(n))
        losses = np.minimum(apart, n - apart).astype(float) ** power

        def closed(losses=losses, n=n, lam=lam):
            row = [mpf(v) for v in losses[0]]
            raw = [mp.exp(-v / mpf(lam)) for v in row]
            noise = [v / mp.fsum(raw) for v in raw]
            distortion = mp.fsum(p * v for p, v in zip(noise, row))
            return _value(mp.log(n) - _entropy(*noise), distortion, lam)

        what = f"{n} points on a circle, uniform, distance to the power {power}"
        found[f"circle-{power}"] = _problem("closed form", what, lam, losses, closed=closed)
    return found


def _simple():
    """A bit that may be declined at a loss, a rate at no loss, and one expert for all inputs."""
    big = 100.0
    erasure = [[0, big, 1], [big, 0, 1]]
    half = mp.log(2)

    def declined(lam):
        def closed():
            z = (1 + mp.exp(-mpf(big) / mpf(lam))) / 2  # nobody declines, and this is the gate
            wrong = mp.exp(-mpf(big) / mpf(lam)) / (2 * z)
            rate = half - _entropy(wrong, 1 - wrong)
            return _value(rate, big * wrong, lam)

        return closed

    counts = np.array([1, 2, 3, 4, 6.0])

    def floor():
        shares = [mpf(int(c)) / 16 for c in counts]
        return _value(_entropy(*shares), mpf(0), 0)

    def alone():
        return _value(mpf(0), mpf(1) / 4, 5)

    dear = [[0, 1], [0, 1], [0, 1], [1, 0]]
    return {
        "erasure-cheap": _problem(
            "closed form",
            "a bit that can be declined at a loss of 1 and is never wrong, a nat cheap",
            1.0,
            erasure,
            closed=declined(1.0),
        ),
        "erasure-critical": _problem(
            "closed form",
            "the same at the price 1/log 2, where declining is worth as much",
            float(1 / half),
            erasure,
            unique=False,
            closed=lambda: _value(mpf(0), mpf(1), 0),
        ),
        "no-loss": _problem(
            "closed form",
            "5 symbols, each with an expert of its own, price 0: the rate is the entropy",
            0.0,
            1.0 - np.eye(5),
            weights=counts / 16,
            closed=floor,
        ),
        "one-for-all": _problem(
            "closed form",
            "two experts at 5, far above their critical price: the better one serves everybody",
            5.0,
            dear,
            closed=alone,
        ),
    }


# --- sources on a grid ---


def _sources():
    """Gaussian, Laplacian and uniform sources on a grid, with squared and absolute error."""
    found = {}
    grid = np.linspace(-4, 4, 81)
    densities = {
        "gaussian": np.exp(-(grid**2) / 2),
        "laplacian": np.exp(-abs(grid)),
        "uniform": np.ones(81),
    }
    points = np.linspace(-4, 4, 41)
    for name, density in densities.items():
        for power, error, lam in ((2, "squared", 0.5), (1, "absolute", 0.4)):
            losses = abs(grid[:, None] - points) ** power
            what = f"a {name} source on 81 points of [-4, 4], 41 reproductions, {error} error"
            weights = density / density.sum()
            found[f"{name}-{error}"] = _problem("source", what, lam, losses, weights=weights)
    # a price at which squares are resolved finely
    losses = (grid[:, None] - points) ** 2
    weights = densities["gaussian"] / densities["gaussian"].sum()
    what = "the same with squared error, a nat ten times cheaper"
    found["gaussian-fine"] = _problem("source", what, 0.05, losses, weights=weights)
    return found


# --- deconvolution ---


def _spheres():
    """Noise of variance 0.1 around points on a sphere, half the squared error, 10 nats a unit of
    loss: lam = 0.1. The kernel is the noise's own density, so the best shares are the law of what
    the noise was added to, uniform on the sphere."""
    corners = _icosahedron()
    middles = _unit(corners[:, None] + corners)
    near = (corners @ corners.T > 0.4) & (corners @ corners.T < 0.5)
    edges = middles[np.triu(near)]
    directions = np.concatenate([corners, edges])
    radii = np.linspace(0.1, 2.2, 8)
    x = (radii[:, None, None] * directions).reshape(-1, 3)
    experts = np.concatenate([corners, 3 * corners])
    losses = ((x[:, None] - experts) ** 2).sum(axis=2) / 2
    density = np.exp(-losses[:, :12] / 0.1).sum(axis=1)
    volume = np.repeat(radii**2, len(directions))
    weights = density * volume
    rng = np.random.default_rng(0)
    sample = _unit(rng.standard_normal((300, 3))) + np.sqrt(0.1) * rng.standard_normal((300, 3))
    spiral = _spiral(60)
    sampled = ((sample[:, None] - spiral) ** 2).sum(axis=2) / 2
    return {
        "sphere-corners": _problem(
            "deconvolution",
            "12 evenly spread points of the sphere plus N(0, 0.1 I) on shells, half squared error; "
            "by symmetry their shares are equal, and those of a shell three times as far are 0",
            0.1,
            losses,
            weights=weights / weights.sum(),
            closed=lambda: _equal_shares(losses[:, :12], weights, 0.1),
        ),
        "sphere-sampled": _problem(
            "deconvolution",
            "300 draws of a point on the sphere plus N(0, 0.1 I), 60 experts on the sphere, half "
            "squared error",
            0.1,
            sampled.astype(np.float32),
        ),
    }


def _equal_shares(losses, weights, lam):
    """The answer where experts share equally, in mpmath."""
    total = mp.fsum(mpf(w) for w in weights)
    rate = mpf(0)
    distortion = mpf(0)
    for row, weight in zip(losses, weights):
        row = [mpf(v) for v in row]
        raw = [mp.exp(-v / mpf(lam)) for v in row]
        sum_raw = mp.fsum(raw)
        share = mpf(weight) / total
        distortion += share * mp.fsum(k * v for k, v in zip(raw, row)) / sum_raw
        rate += share * (mp.log(len(row)) - _entropy(*[k / sum_raw for k in raw]))
    return _value(rate, distortion, lam)


def _unit(points):
    length = np.linalg.norm(points, axis=-1, keepdims=True)
    return points / np.where(length > 0, length, 1)


def _icosahedron():
    golden = (1 + np.sqrt(5)) / 2
    signs = [(a, b) for a in (-1, 1) for b in (-golden, golden)]
    return _unit(np.array([np.roll((0, a, b), shift) for shift in range(3) for a, b in signs]))


def _spiral(n):
    """Points spread over a sphere along a spiral of golden angles."""
    height = 1 - 2 * (np.arange(n) + 0.5) / n
    angle = np.pi * (1 + np.sqrt(5)) * np.arange(n)
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)


# --- ties, copies, straight pieces ---


def _degenerate():
    rng = np.random.default_rng(1)
    base = rng.integers(0, 2, (200, 8)).astype(np.uint8)
    half = np.repeat([[0, 1, 1, 0], [1, 0, 0, 1]], 50, axis=0)
    noise = rng.random((100, 4)) < 0.1
    declines = [[0, 1, 0.3], [1, 0, 0.3]]
    return {
        "copies": _problem(
            "ties and copies",
            "8 experts, each of them three times: shares are not unique, rate and loss are",
            0.4,
            np.repeat(base, 3, axis=1),
        ),
        "originals": _problem("ties and copies", "the same 8 experts once", 0.4, base),
        "equal-rows": _problem(
            "ties and copies",
            "the same 8 experts, every input five times",
            0.4,
            np.tile(base, (5, 1)),
        ),
        "ties-everywhere": _problem(
            "ties and copies",
            "4 experts of small integer losses, many of them equal on an input",
            0.7,
            rng.integers(0, 3, (150, 4)).astype(np.uint8),
        ),
        "tied-on-average": _problem(
            "ties and copies",
            "two pairs of nearly opposite experts at 20: no price is critical",
            20.0,
            (half ^ noise).astype(np.uint8),
        ),
        "straight-piece": _problem(
            "ties and copies",
            "a bit that can be declined at a loss of 0.3, at the price where a line of slope -lam "
            "touches the curve along a segment",
            critical_lambda(declines),
            declines,
            unique=False,
        ),
    }


def _critical():
    """Just below and above the price at which the rate leaves 0."""
    rng = np.random.default_rng(2)
    losses = (rng.random((300, 6)) < np.linspace(0.3, 0.36, 6)).astype(np.uint8)
    critical = critical_lambda(losses)
    table = dict(table=losses)
    return {
        "near-critical": _problem(
            "near-critical",
            "6 experts, their price a thousandth below the critical one",
            critical * (1 - 1e-3),
            **table,
        ),
        "nearer-critical": _problem(
            "near-critical", "the same, a millionth below it", critical * (1 - 1e-6), **table
        ),
        "above-critical": _problem(
            "near-critical",
            "the same, a thousandth above it: one expert for all",
            critical * (1 + 1e-3),
            closed=lambda: _value(mpf(0), mpf(int(losses.sum(axis=0).min())) / 300, 0),
            **table,
        ),
    }


# --- losses without structure ---


def _random():
    rng = np.random.default_rng(3)
    normal = (rng.uniform(size=24) + rng.standard_normal((250, 24))).astype(np.float32)
    centres = np.linspace(-6, 6, 25)
    y = rng.choice([-3.0, 0.0, 4.0], 300, p=[0.5, 0.3, 0.2]) + rng.standard_normal(300)
    entropy = (y[:, None] - centres) ** 2 / 2 + np.log(2 * np.pi) / 2
    wide = rng.random((40, 120)).astype(np.float32)
    return {
        "normal": _problem("random", "normal losses, 24 experts", 0.3, normal),
        "normal-cheap": _problem("random", "the same, a nat cheap: exp(-5000)", 0.001, normal),
        "small-units": _problem(
            "random",
            "the same in units a million times larger",
            0.3e-6,
            normal.astype(float) * 1e-6,
        ),
        "mixture": _problem(
            "random",
            "cross-entropies of 25 normal experts on draws from three normal laws, a nat at 1",
            1.0,
            entropy.astype(np.float32),
        ),
        "wide": _problem("random", "40 inputs, 120 experts", 0.05, wide),
    }


# --- the shipped banks ---


def _banks():
    found = {}
    for bank, inputs, lam in (
        ("mnist", 2_000, 0.1),
        ("mnist", 2_000, 5.0),
        ("mnist", 2_000, 30.0),
        ("mnist", 10_000, 0.03),
        ("mnist", 10_000, 1.0),
        ("specialists", 2_000, 0.1),
        ("specialists", 10_000, 2.0),
        ("family/replicate-2027", 10_000, 0.3),
    ):
        cut = dict(name=bank, split="test", inputs=inputs)
        what = f"0-1 losses of the bank {bank} on its first {inputs:,} test images"
        name = f"{bank.split('/')[-1]}-{inputs}-{lam:g}"
        found[name] = _problem("bank", what, lam, bank=cut)
    return found
