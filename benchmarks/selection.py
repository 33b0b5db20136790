"""The Gaussian theory of selection beside simulation, on every bank of a folder and eight sample
sizes: python benchmarks/selection.py (about an hour)

    python benchmarks/selection.py                         data/banks, into build/selection
    python benchmarks/selection.py --banks build/banks     the banks of another folder
    python benchmarks/selection.py --sizes 256             at this m alone

The output folder holds selection.csv, one row for a bank and an m, and, when no row is missing, a
manifest that seals it. The file is written whole after every row, so a run that was interrupted
goes on where it stopped. A finished folder is refused; without its manifest, banks that are new
add their rows.

A row has `I` and `G` of the empirical risk minimiser, their standard errors, the same with ties
broken by a fair draw (`I_fair`, `G_fair`), the share of datasets that tie, and the theory's I and G
with each of the margins of `gaussian_selection`, with the total variation between the simulated law
of the winner and the theory's. I in nats, less the plug-in bias; all from `DATASETS` datasets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import folders
import numpy as np
import pandas as pd

from expertbank import gaussian_selection, load_bank
from expertbank._files import write_atomically
from expertbank.information import entropy, mean_error
from expertbank.learners import empirical_risks
from expertbank.selection_theory import MARGINS
from expertbank.shipped.frames import csv_bytes, read_frame
from expertbank.shipped.manifest import MANIFEST, REPOSITORY

RESULTS = "selection.csv"
SIZES = (256, 32, 1024, 4096, 64, 128, 512, 2048)
DATASETS = 50_000
POINTS = 2**13
ABOUT = {
    "title": "The Gaussian theory of selection beside simulation",
    "recipe": "python benchmarks/selection.py",
    "source": "made by this project; CC0 1.0",
    "settings": {"datasets": DATASETS, "points": POINTS, "seed": 0},
}


def simulated(losses: np.ndarray, m: int) -> tuple[dict[str, float], np.ndarray]:
    """I, G and ties of the minimiser, and its law (R,)."""
    rng = np.random.default_rng(0)
    risks = empirical_risks(losses, m, DATASETS, rng)
    counts = np.rint(risks * m).astype(np.int32)
    below = losses.mean(axis=0, dtype=float) - risks
    # what all experts have in common is 0 on average, and most of the noise
    below -= below.mean(axis=1, keepdims=True)
    found = {"tied": float(((counts == counts.min(axis=1)[:, None]).sum(axis=1) > 1).mean())}
    first = counts.argmin(axis=1)
    fair = (counts + 0.5 * rng.random(counts.shape)).argmin(axis=1)
    for name, winner in (("", first), ("_fair", fair)):
        law = np.bincount(winner, minlength=losses.shape[1]) / DATASETS
        gaps = below[np.arange(DATASETS), winner]
        informed = -np.log(law[winner])
        bias = ((law > 0).sum() - 1) / (2 * DATASETS)
        found[f"I{name}"] = float(entropy(law)) + bias
        found[f"I{name}_error"] = mean_error(informed)
        found[f"G{name}"] = float(gaps.mean())
        found[f"G{name}_error"] = mean_error(gaps)
    return found, np.bincount(first, minlength=losses.shape[1]) / DATASETS


def row_of(bank: str, losses: np.ndarray, m: int) -> dict:
    found, law = simulated(losses, m)
    for margins in MARGINS:
        theory = gaussian_selection(losses, m, margins=margins, n_points=POINTS)
        found[f"I_{margins}"] = theory.information
        found[f"G_{margins}"] = theory.gap
        found[f"tv_{margins}"] = float(np.abs(theory.chances - law).sum()) / 2
    return {"bank": bank, "m": m, "experts": losses.shape[1]} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split(":")[0])
    parser.add_argument("--banks", type=Path, default=REPOSITORY / "data" / "banks")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "selection")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    args = parser.parse_args()
    path = folders.begin(args.out, RESULTS)
    rows = read_frame(path).to_dict("records") if path.exists() else []
    done = {(row["bank"], row["m"]) for row in rows}
    names = sorted(
        place.parent.relative_to(args.banks).as_posix()
        for place in args.banks.rglob("predictions.npz")
        if place.with_name(MANIFEST).exists()
    )
    for m in args.sizes:
        for name in names:
            if (name, m) in done:
                continue
            folder = args.banks / name
            losses = load_bank(folder.name, folder.parent).losses("train")
            row = row_of(name, losses, m)
            rows.append(row)
            frame = pd.DataFrame(rows).sort_values(["bank", "m"])
            write_atomically(path, lambda file, frame=frame: file.write(csv_bytes(frame)))
            ratios = [
                f"{margins} I {row[f'I_{margins}'] / row['I']:.3f} "
                f"G {row[f'G_{margins}'] / row['G']:.3f}"
                for margins in ("normal", "binomial")
            ]
            print(f"{name} m={m}: {', '.join(ratios)}", flush=True)
    held = {
        "banks": len({row["bank"] for row in rows}),
        "sizes": sorted({row["m"] for row in rows}),
    }
    folders.finish(args.out, ABOUT | held, RESULTS)


if __name__ == "__main__":
    main()
