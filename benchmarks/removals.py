"""Which experts of 44 banks can go: python benchmarks/removals.py (about 15 minutes on one core)

    python benchmarks/removals.py                       into build/removals
    python benchmarks/removals.py --out data/removals   into what the book ships

The folder holds removals.json and, once all banks are in it, a manifest that seals it. The file is
written whole after every bank, so that a run which was interrupted goes on where it stopped; a
finished folder is refused.

Two data sets, each with the bank of P2's recipe, its twenty replicates and its specialists; a row
says which by `data` and `bank`, since replicates of both have the same names.

A bank has `singles` by rate and `pairs` (a below b), the prices in D(rate) on the test split;
`scores` of every expert at the main rate; and `paths`: experts in the order in which a score lets
them go on every second image of the test split, and on the other images the D(rate) and the error
of a vote of those left, after each removal. `random` are the means over ten orders by chance.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import folders
import numpy as np

from expertbank import distortion_at_rate, load_bank, load_family
from expertbank._files import write_atomically
from expertbank.expert_values import REMOVAL_SCORES, removal_order, removal_prices
from expertbank.shipped.bank import ExpertBank, named_for
from expertbank.shipped.manifest import MANIFEST, read_json
from expertbank.tables import merge_rows

ROOT = Path(__file__).parents[1]
RESULTS = "removals.json"
DATA = ("mnist", "fashion")
RATE = 0.05  # nats
RATES = (0.02, RATE, np.inf)  # of the prices of single experts
RANDOM_ORDERS = 10
ABOUT = {
    "title": "What D(R) and a vote lose when experts go",
    "recipe": "python benchmarks/removals.py",
    "source": "made by this project; CC0 1.0",
}


def rounded(values) -> list:
    return np.round(np.asarray(values, dtype=float), 7).tolist()


def plurality(predictions: np.ndarray) -> np.ndarray:
    """The class (N,) that most experts of predictions (N, R) name, the smallest among equals."""
    classes = np.arange(10)
    return (predictions[:, :, None] == classes).sum(axis=1).argmax(axis=1)


def losses_on_the_way(order: list[int], bank, images) -> dict:
    """D(RATE) and the vote's error on images of the test split, after each removal."""
    losses = bank.losses("test")[images].astype(float)
    predictions = bank.predictions("test")[images]
    labels = bank.labels("test")[images]
    left = np.arange(bank.n_experts)
    distortions = []
    votes = []
    for gone in [None, *order]:
        left = left[left != gone]
        distortions.append(distortion_at_rate(losses[:, left], RATE))
        votes.append((plurality(predictions[:, left]) != labels).mean())
    return {"order": order, "distortion": rounded(distortions), "vote": rounded(votes)}


def row_of(bank) -> dict:
    losses = bank.losses("test").astype(float)
    rows, weights, _ = merge_rows(losses, np.full(len(losses), 1 / len(losses)))
    pairs = {rate: removal_prices(losses, rate, 2) for rate in (RATE, np.inf)}
    lower = np.tril_indices(bank.n_experts, -1)
    singles = {rate: removal_prices(losses, rate) for rate in RATES}
    chosen_on = slice(0, None, 2)
    paths = {
        name: removal_order(losses[chosen_on], RATE, score)
        for name, score in REMOVAL_SCORES.items()
    }
    judged = {
        name: losses_on_the_way(order, bank, slice(1, None, 2)) for name, order in paths.items()
    }
    rng = np.random.default_rng(0)
    chance = [
        losses_on_the_way(rng.permutation(bank.n_experts)[1:].tolist(), bank, slice(1, None, 2))
        for _ in range(RANDOM_ORDERS)
    ]
    return {
        "bank": bank.name,
        "distortion": rounded(distortion_at_rate(losses, RATE)),
        "singles": {f"{rate:g}": rounded(prices) for rate, prices in singles.items()},
        "pairs": {f"{rate:g}": rounded(prices[lower]) for rate, prices in pairs.items()},
        "scores": {
            name: rounded(score(rows, weights, RATE)) for name, score in REMOVAL_SCORES.items()
        },
        "paths": judged,
        "random": {
            key: rounded(np.mean([path[key] for path in chance], axis=0))
            for key in ("distortion", "vote")
        },
    }


def banks() -> Iterator[tuple[str, ExpertBank]]:
    """Every bank with the name of its data set."""
    for data in DATA:
        specialists = load_bank(named_for(data, "specialists"))
        for bank in [load_bank(data), *load_family(data=data), specialists]:
            yield data, bank


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "removals")
    folder = parser.parse_args().out
    path = folders.begin(folder, RESULTS)
    results = {"rate": RATE, "banks": []}
    if path.exists():
        results = read_json(path)
    done = {(row["data"], row["bank"]) for row in results["banks"]}
    for data, bank in banks():
        if (data, bank.name) in done:
            continue
        results["banks"].append({"data": data} | row_of(bank))
        text = json.dumps(results, separators=(",", ":")) + "\n"
        write_atomically(path, lambda file, text=text: file.write(text.encode()))
        print(f"{data}, {bank.name}: done", flush=True)
    folders.finish(folder, ABOUT, RESULTS)
    print(f"{folder / MANIFEST} is sealed")


if __name__ == "__main__":
    main()
