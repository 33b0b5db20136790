"""`expertbank`: the library from the command line, for the papers' bank and for a practitioner's own files.

Tables are read from .npy, .npz (one array) or .csv (numbers, comma separated): losses or gates, inputs by experts.
`curve` also streams tables larger than memory from .npy, .zarr and .parquet.
"""

from __future__ import annotations

import argparse
import csv
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from expertbank.bank import REPOSITORY, load_bank
from expertbank.bounds import union_bound, xu_raginsky_bound
from expertbank.information import gating_rate
from expertbank.learners import simulate
from expertbank.paper import Evidence, bank_summary, reproduce
from expertbank.rate_distortion import METHODS, critical_lambda, rate_distortion_curve
from expertbank.solver import table_of
from expertbank.tables import open_table


def main(arguments: list[str] | None = None) -> int:
    """Run one command; bad input prints one line on standard error and returns 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"expertbank {options.command}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = "dask" if options.command == "curve" else "train"
        print(f"expertbank {options.command}: {error}; pip install 'expertbank[{extra}]' brings it", file=sys.stderr)
        return 2
    return 0


def read_table(path: str) -> np.ndarray:
    """A table from .npy, .npz or .csv; ValueError where the file is none of these or cannot be read as one."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; allowed is a .npy, .npz or .csv file")
    try:
        if file.suffix == ".npy":
            return np.load(file, allow_pickle=False)
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                (name,) = archive.files
                return archive[name]
        if file.suffix == ".csv":
            return np.loadtxt(file, delimiter=",", ndmin=2)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read as one table of numbers: {error}") from error
    raise ValueError(f"{file} ends in {file.suffix!r}; allowed are .npy, .npz and .csv")


def _train(options) -> None:
    from expertbank.training.experts import Recipe, SpecialistRecipe, train_bank, train_family
    from expertbank.training.gates import train_gates
    from expertbank.training.grid import train_testbed

    given = {name: getattr(options, name) for name in ("n_experts", "subset_size", "batch_size", "seed")}
    given = {name: value for name, value in given.items() if value is not None}
    together = {
        "family": ("banks/family", train_family),
        "gates": ("gates", train_gates),
        "testbed": ("testbed", partial(train_testbed, size=options.size)),
    }
    if options.bank in together:
        if given:
            raise ValueError(f"{options.bank} has recipes of its own; {sorted(given)} is for a single bank alone")
        place, train = together[options.bank]
        return train(options.out or REPOSITORY / "data" / place, download=options.download, n_jobs=options.jobs)
    recipe = (Recipe if options.bank == "mnist" else SpecialistRecipe)(**given)
    folder = options.out or REPOSITORY / "data" / "banks" / options.bank
    train_bank(folder, recipe, download=options.download, n_jobs=options.jobs)


def _verify(options) -> None:
    from expertbank.training.experts import verify_bank

    counts = verify_bank(options.bank, n_images=options.images)
    print(f"{options.bank}: hashes match; {counts['compared']:,} predictions recomputed, {counts['ties']} at a tie")


def _describe(options) -> None:
    summaries = [bank_summary(load_bank(Path(path).resolve())) for path in options.banks]
    rows = [{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in summaries]
    writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _report(options) -> None:
    for finding in reproduce(Evidence(load_bank(options.bank))):
        claim = finding.claim
        print(f"{finding.verdict:10}  {claim.reported:8.4f}  {finding.found:8.4f}  {claim.location}: {claim.quantity}")


def _rate(options) -> None:
    print(f"I(X;T) = {gating_rate(read_table(options.gate)):.6f} nats")


def _simulate(options) -> None:
    losses = read_table(options.losses)
    population = None if options.population is None else read_table(options.population)
    run = simulate(losses, options.alpha, options.sample_size, options.datasets, population, options.seed)
    low, high = run.algorithmic.interval
    print(f"I(S;W)            {run.information:.6f} nats   95% [{low:.6f}, {high:.6f}]")
    print(f"train, test risk  {run.train_risk:.6f}  {run.test_risk:.6f}")
    print(f"gap               {run.gap:.6f} +- {run.gap_error:.6f}")
    print(f"bound, sigma 1/2  {xu_raginsky_bound(run.information, options.sample_size):.6f}")
    print(f"union bound       {union_bound(losses.shape[1], options.sample_size):.6f}")


def _curve(options) -> None:
    stream = options.stream or Path(options.losses).suffix in (".zarr", ".parquet")
    table = table_of(open_table(options.losses) if stream else read_table(options.losses))
    curve = rate_distortion_curve(table, options.lam, tol=options.tol, band=options.band, method=options.method)
    print(f"# critical lambda {critical_lambda(table):.6g}")
    print("lambda,rate_nats,distortion,certificate")
    for lam, rate, distortion, gap in zip(curve.lam, curve.rate, curve.distortion, curve.certificate, strict=True):
        print(f"{lam:.6g},{rate:.8g},{distortion:.8g},{gap:.2g}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="expertbank", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    sub = command("train", _train, "train a bank, a family of banks, the sweep of gates or the testbed; resumes")
    sub.add_argument("bank", choices=["mnist", "specialists", "family", "gates", "testbed"])
    sub.add_argument("--out", help="folder of the new bank or family; default data/banks/<bank>")
    sub.add_argument("--experts", type=int, dest="n_experts", help="number of experts, 25 in the papers")
    sub.add_argument("--subset", type=int, dest="subset_size", help="training images per expert, 10,000 in the papers")
    sub.add_argument("--batch-size", type=int, help="the papers do not state it; see data/banks/batch_sizes.csv")
    sub.add_argument("--seed", type=int)
    sub.add_argument("--size", choices=["small", "large"], default="small", help="of the testbed; large is for a GPU")
    sub.add_argument("--jobs", type=int, default=2, help="worker processes on a CPU")
    sub.add_argument("--download", action="store_true", help="fetch MNIST or the corpus where it is missing")

    sub = command("verify", _verify, "recompute a bank's predictions from its weights and MNIST")
    sub.add_argument("bank")
    sub.add_argument("--images", type=int, help="only the first so many images of each split")

    sub = command("describe", _describe, "accuracies and disagreements of banks, as csv")
    sub.add_argument("banks", nargs="+", help="bank folders")

    sub = command("report", _report, "every number of the papers beside ours: verdict, reported, found")
    sub.add_argument("--bank", default="mnist")

    sub = command("rate", _rate, "gating rate I(X;T) of a table of gate probabilities")
    sub.add_argument("gate")

    sub = command("simulate", _simulate, "information, gap and bounds of the alpha-mixture on a loss table")
    sub.add_argument("losses")
    sub.add_argument("--population", help="another loss table; without it the first is the exact population")
    sub.add_argument("--alpha", type=float, default=0.7)
    sub.add_argument("--sample-size", type=int, default=256)
    sub.add_argument("--datasets", type=int, default=20_000)
    sub.add_argument("--seed", type=int, default=0)

    sub = command("curve", _curve, "certified distortion-rate curve of a loss table, as csv")
    sub.add_argument("losses")
    sub.add_argument("--lam", type=float, nargs="+", help="prices of a nat; default from the critical one to 0")
    sub.add_argument("--band", type=float, help="add prices until D is certified to this width everywhere")
    sub.add_argument("--tol", type=float, default=1e-9, help="certificate of every point, in nats")
    sub.add_argument("--method", choices=list(METHODS), default="newton")
    sub.add_argument("--stream", action="store_true", help="read the .npy in chunks; .zarr and .parquet always are")
    return parser
