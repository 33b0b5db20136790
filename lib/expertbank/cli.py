"""`expertbank`: the library from the command line, for the papers' bank and for a practitioner's
own files.

Tables are read from .npy, .npz (one array) or .csv (numbers, comma separated): losses or gates,
inputs by experts. `curve` also streams tables larger than memory from .npy, .zarr and .parquet.
`routes` reads what a router chose.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np

from expertbank._checks import as_losses
from expertbank._files import write_atomically
from expertbank.book.claims import Evidence, bank_summary, reproduce
from expertbank.bounds import union_bound, xu_raginsky_bound
from expertbank.information import gating_rate
from expertbank.ladder import LadderExperiment
from expertbank.learners import simulate
from expertbank.rate_distortion import METHODS, critical_lambda, rate_distortion_curve
from expertbank.shipped.bank import load_bank
from expertbank.shipped.manifest import REPOSITORY
from expertbank.tables import open_table, read_table, table_of


def main(arguments: list[str] | None = None) -> int:
    """Run one command; bad input prints one line on standard error and returns 2."""
    options = _parser().parse_args(arguments)
    command = f"{options.command} report" if options.command == "routes" else options.command
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"expertbank {command}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = {"curve": "dask", "routes": "routers"}.get(options.command, "train")
        print(
            f"expertbank {command}: {error}; pip install 'expertbank[{extra}]' brings it",
            file=sys.stderr,
        )
        return 2
    return 0


def _train(options) -> None:
    from expertbank.training.experts import Recipe, SpecialistRecipe, train_bank, train_family
    from expertbank.training.gates import train_gates
    from expertbank.training.testbed_runs import train_testbed

    given = {
        name: getattr(options, name) for name in ("n_experts", "subset_size", "batch_size", "seed")
    }
    given = {name: value for name, value in given.items() if value is not None}
    if options.size and options.bank != "testbed":
        raise ValueError(f"--size is {options.size!r}; only the testbed has sizes")
    together = {
        "family": ("banks/family", train_family),
        "gates": ("gates", train_gates),
        "testbed": ("testbed", partial(train_testbed, size=options.size or "small")),
    }
    if options.bank in together:
        if given:
            raise ValueError(
                f"{options.bank} has recipes of its own; {sorted(given)} is for a single bank alone"
            )
        place, train = together[options.bank]
        return train(
            options.out or REPOSITORY / "data" / place,
            download=options.download,
            n_jobs=options.jobs,
        )
    recipe = (Recipe if options.bank == "mnist" else SpecialistRecipe)(**given)
    folder = options.out or REPOSITORY / "data" / "banks" / options.bank
    train_bank(folder, recipe, download=options.download, n_jobs=options.jobs)


def _verify(options) -> None:
    from expertbank.training.experts import verify_bank

    counts = verify_bank(options.bank, n_images=options.images)
    print(
        f"{options.bank}: hashes match; {counts['compared']:,} predictions recomputed, {counts['ties']} at a tie"
    )


def _describe(options) -> None:
    summaries = [bank_summary(load_bank(Path(path).resolve())) for path in options.banks]
    rows = [
        {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in summaries
    ]
    writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _report(options) -> None:
    for finding in reproduce(Evidence(load_bank(options.bank))):
        claim = finding.claim
        print(
            f"{finding.verdict:10}  {claim.reported:8.4f}  {finding.found:8.4f}  {claim.location}: {claim.quantity}"
        )


def _rate(options) -> None:
    print(f"I(X;T) = {gating_rate(read_table(options.gate)):.6f} nats")


def _simulate(options) -> None:
    losses = read_table(options.losses)
    population = None if options.population is None else read_table(options.population)
    run = simulate(
        losses, options.alpha, options.sample_size, options.datasets, population, options.seed
    )
    low, high = run.algorithmic.interval
    print(f"I(S;W)            {run.information:.6f} nats   95% [{low:.6f}, {high:.6f}]")
    print(f"train, test risk  {run.train_risk:.6f}  {run.test_risk:.6f}")
    print(f"gap               {run.gap:.6f} +- {run.gap_error:.6f}")
    print(f"bound, sigma 1/2  {xu_raginsky_bound(run.information, options.sample_size):.6f}")
    print(f"union bound       {union_bound(losses.shape[1], options.sample_size):.6f}")


def _curve(options) -> None:
    stream = options.stream or Path(options.losses).suffix in (".zarr", ".parquet")
    table = table_of(open_table(options.losses) if stream else read_table(options.losses))
    curve = rate_distortion_curve(
        table, options.lam, tol=options.tol, band=options.band, method=options.method
    )
    print(f"# critical lambda {critical_lambda(table):.6g}")
    print("lambda,rate_nats,distortion,certificate")
    for lam, rate, distortion, gap in zip(
        curve.lam, curve.rate, curve.distortion, curve.certificate, strict=True
    ):
        print(f"{lam:.6g},{rate:.8g},{distortion:.8g},{gap:.2g}")


def _bounds(options) -> None:
    losses = read_table(options.losses)
    as_losses(losses)
    low, high = float(np.min(losses)), float(np.max(losses))
    if low < 0 or high > 1:
        fix = (
            f"scale them first, (losses - ({low:g})) / {high - low:g}"
            if high > low
            else "they are all the same"
        )
        raise ValueError(
            f"losses lie between {low:g} and {high:g}; the bounds are for losses in [0, 1]: {fix}"
        )
    m, binary = options.sample_size, bool(np.isin(losses, (0, 1)).all())
    ladder = LadderExperiment(losses, m, options.seed, options.datasets) if binary else None
    print(
        f"{losses.shape[0]:,} inputs, {losses.shape[1]} experts, {m} samples; the table is the population"
    )
    for alpha in options.alpha:
        run = simulate(losses, alpha, m, options.datasets, rng=options.seed)
        low, high = run.algorithmic.interval
        name = "empirical risk minimiser" if alpha == 1 else f"alpha-mixture, alpha = {alpha:g}"
        print(f"\n{name}: I(S;W) = {run.information:.4f} nats, 95% [{low:.4f}, {high:.4f}]")
        print(f"train risk {run.train_risk:.4f}, test risk {run.test_risk:.4f}")
        rows = {
            "gap": (run.gap, run.gap_error),
            "union_bound": (union_bound(losses.shape[1], m), 0.0),
        }
        rows["xu_raginsky_bound"] = (float(xu_raginsky_bound(run.information, m)), 0.0)
        if ladder is not None:
            found = ladder.at(alpha)
            rows = {"gap": (found.gap, found.gap_error)}
            rows |= {
                key: (value, found.errors[key])
                for key, value in sorted(found.values.items(), key=lambda x: -x[1])
            }
        for key, (value, error) in rows.items():
            print(f"  {key:28}{value:8.4f}" + (f" +- {error:.1g}" if error else ""))
    if ladder is None:
        odd = losses[~np.isin(losses, (0, 1))][0]
        print(
            f"\nThe other bounds need losses of 0 and 1 alone, this table holds {odd:g}: "
            "give mistakes, for instance losses > 0.5, for all of them"
        )


def _routes_report(options) -> None:
    from expertbank.routers.formats import statistics_of
    from expertbank.routers.report import routing_report
    from expertbank.routers.report_page import write_html

    sizes = {
        "n_domains": options.domains,
        "n_positions": options.positions,
        "n_tokens": options.tokens,
    }
    try:
        statistics = statistics_of(options.file, options.format, n_experts=options.experts, **sizes)
    except ValueError as error:
        raise ValueError(str(error).replace("give n_experts", "give --experts")) from error
    layers = (
        [int(name) if name.lstrip("-").isdigit() else name for name in options.layer]
        if options.layer
        else None
    )
    agreements = _agreements(options, statistics.n_experts) if options.against else {}
    if layers is not None:
        agreements = {name: found for name, found in agreements.items() if name in layers}
    report = routing_report(statistics, agreements, layers)
    print(report.table(explain=options.explain), end="")
    if options.json:
        text = json.dumps(report.json(), indent=2, allow_nan=False) + "\n"
        write_atomically(Path(options.json), lambda file: file.write(text.encode()))
    if options.html:
        write_html(report, options.html)


def _agreements(options, n_experts: int) -> dict:
    from expertbank.routers.agreement import compare_routing
    from expertbank.routers.formats import read_routing

    streams = (
        read_routing(path, options.format, n_experts=n_experts)
        for path in (options.file, options.against)
    )
    try:
        return compare_routing(*streams, n_experts)
    except ValueError as error:
        raise ValueError(f"--against compares two runs choice by choice: {error}") from error


ROUTES_HELP = """\
FILE holds what a router chose, token by token, or statistics of it:
  npz, parquet  chosen (tokens, k) integer experts, -1 for a dropped slot; and where known weights (tokens, k),
                probabilities (tokens, experts), the router's softmax; domain, sequence, position, token, mask
                (tokens,); layer (tokens,) or an axis of layers in front
  vllm          integer arrays [tokens, layers, k], one a request: vLLM's routed_experts; needs --experts
  sglang        what SGLang's expert distribution recorder dumps, read without running code from it
  statistics    what expertbank.routers.RouterStatistics.save wrote, of any number of tokens

All information is in nats (divide by 0.693 for bits). First look at:
  dead, MaxVio  experts without work, and how much the busiest has beyond its share
  I(X;T)        what the choice depends on the token at all: 0 is a router that ignores it, log E the most
  I(D;T)        specialisation by domain; only what exceeds the column "null 95%" is evidence, and no more than
                the column "cap", log E - H(T|Seq), is possible
  --explain prints a sentence on every number.

examples:
  expertbank routes report routes.npz --explain
  expertbank routes report routes.npz --html report.html --json report.json
  expertbank routes report vllm.npz --format vllm --experts 64 --layer 3 --layer 4
  expertbank routes report step_1000.npz --against step_2000.npz
"""

CURVE_HELP = """\
LOSSES holds the loss of each expert on each input, a table (inputs, experts): .npy, .npz with one array, .csv
without a header, or, streamed in chunks, .zarr and .parquet. Any finite numbers will do; low is good.

The output is csv, a point of the curve a line: the price lambda of a nat; the rate I(X;T) in nats that the best gate
at that price uses; its mean loss, the distortion, in units of the table; and a certificate: D + lambda I lies within
lambda times it of the least possible. Above the critical lambda, in the first line, one expert for all is best.
Read it from the top: each row buys a lower loss with a higher rate, and no gate lies below the curve.

examples:
  expertbank curve losses.npy
  expertbank curve losses.csv --lam 0.05 0.2 > curve.csv
  expertbank curve losses.npy --band 1e-4     # as many points as make D certain to 1e-4 everywhere
"""

BOUNDS_HELP = """\
LOSSES holds the loss of each expert on each input, a table (inputs, experts) of numbers in [0, 1]: .npy, .npz with one
array, or .csv without a header. Where all are 0 or 1 (mistakes), every bound of the library is given.

A learner draws m samples from the table and selects an expert: with alpha 1 the one with the lowest loss on them,
else that one with probability alpha and any one otherwise. The gap is its expected loss on the whole table less that
on its samples. I(S;W) in nats is what the selected expert tells about the samples. Bounds are in units of the loss,
from loose to tight, +- their Monte Carlo error; each is at least the gap:
  union_bound         sqrt(log R / 2m), for any way to select among R
  xu_raginsky_bound   sqrt(I(S;W) / 2m), sigma = 1/2 for losses in [0, 1]; the papers' form has sigma = 1
  the others          help(expertbank.bounds) has a formula and a reference for each
A bound far below the union bound says that the selection is safe because it is stable, not because R is small.

examples:
  expertbank bounds mistakes.npy
  expertbank bounds mistakes.csv --alpha 1 --sample-size 1000
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="expertbank", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    def command(
        name: str, run, text: str, more: str | None = None, among=commands
    ) -> argparse.ArgumentParser:
        sub = among.add_parser(
            name,
            help=text,
            description=text,
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "train",
        _train,
        "train a bank, a family of banks, the sweep of gates or the testbed; resumes",
    )
    sub.add_argument("bank", choices=["mnist", "specialists", "family", "gates", "testbed"])
    sub.add_argument("--out", help="folder of the new bank or family; default data/banks/<bank>")
    sub.add_argument(
        "--experts", type=int, dest="n_experts", help="number of experts, 25 in the papers"
    )
    sub.add_argument(
        "--subset",
        type=int,
        dest="subset_size",
        help="training images per expert, 10,000 in the papers",
    )
    sub.add_argument(
        "--batch-size", type=int, help="the papers do not state it; see data/banks/batch_sizes.csv"
    )
    sub.add_argument("--seed", type=int)
    sub.add_argument(
        "--size", choices=["small", "large"], help="of the testbed: small, or large for a GPU"
    )
    sub.add_argument("--jobs", type=int, default=2, help="worker processes on a CPU")
    sub.add_argument(
        "--download", action="store_true", help="fetch MNIST or the corpus where it is missing"
    )

    sub = command("verify", _verify, "recompute a bank's predictions from its weights and MNIST")
    sub.add_argument("bank")
    sub.add_argument("--images", type=int, help="only the first so many images of each split")

    sub = command("describe", _describe, "accuracies and disagreements of banks, as csv")
    sub.add_argument("banks", nargs="+", help="bank folders")

    sub = command(
        "report", _report, "every number of the papers beside ours: verdict, reported, found"
    )
    sub.add_argument("--bank", default="mnist")

    sub = command("rate", _rate, "gating rate I(X;T) of a table of gate probabilities")
    sub.add_argument("gate")

    sub = command(
        "simulate", _simulate, "information, gap and bounds of the alpha-mixture on a loss table"
    )
    sub.add_argument("losses")
    sub.add_argument(
        "--population", help="another loss table; without it the first is the exact population"
    )
    sub.add_argument("--alpha", type=float, default=0.7)
    sub.add_argument("--sample-size", type=int, default=256)
    sub.add_argument("--datasets", type=int, default=20_000)
    sub.add_argument("--seed", type=int, default=0)

    sub = command(
        "curve", _curve, "certified distortion-rate curve of a loss table, as csv", CURVE_HELP
    )
    sub.add_argument("losses", metavar="LOSSES", help="table (inputs, experts)")
    sub.add_argument(
        "--lam", type=float, nargs="+", help="prices of a nat; default from the critical one to 0"
    )
    sub.add_argument(
        "--band", type=float, help="add prices until D is certified to this width everywhere"
    )
    sub.add_argument("--tol", type=float, default=1e-9, help="certificate of every point, in nats")
    sub.add_argument("--method", choices=list(METHODS), default="newton")
    sub.add_argument(
        "--stream",
        action="store_true",
        help="read the .npy in chunks; .zarr and .parquet always are",
    )

    sub = command(
        "bounds", _bounds, "generalisation bounds for a selection from a loss table", BOUNDS_HELP
    )
    sub.add_argument("losses", metavar="LOSSES", help="table (inputs, experts) of losses in [0, 1]")
    sub.add_argument(
        "--alpha",
        type=float,
        nargs="+",
        default=[1.0, 0.7],
        help="default: 1 (the minimiser) and 0.7",
    )
    sub.add_argument(
        "--sample-size",
        type=int,
        default=256,
        metavar="M",
        help="samples that it sees; default 256",
    )
    sub.add_argument(
        "--datasets", type=int, default=20_000, help="Monte Carlo draws of those; default 20,000"
    )
    sub.add_argument("--seed", type=int, default=0)

    _add_routes(commands, command)
    return parser


def _add_routes(commands, command) -> None:
    text = "what a mixture of experts' router chose"
    routes = commands.add_parser("routes", help=f"{text}: routes report FILE", description=text)
    among = routes.add_subparsers(dest="what", required=True)
    sub = command(
        "report", _routes_report, "report on a router, layer by layer", ROUTES_HELP, among
    )
    sub.add_argument("file", metavar="FILE", help="choices, or statistics of them")
    formats = ["statistics", "npz", "parquet", "vllm", "sglang"]
    sub.add_argument(
        "--format", choices=formats, help="default: by the name and the content of the file"
    )
    sub.add_argument(
        "--experts", type=int, metavar="E", help="number of experts, where FILE does not say it"
    )
    sub.add_argument(
        "--domains", type=int, metavar="D", help="number of domains; default: as many as FILE has"
    )
    sub.add_argument(
        "--positions", type=int, default=0, metavar="P", help="count by position, 0 to P - 1"
    )
    sub.add_argument(
        "--tokens", type=int, default=0, metavar="V", help="count by token of a vocabulary of V"
    )
    sub.add_argument("--layer", action="append", help="only this layer; may be given again")
    sub.add_argument(
        "--against", metavar="FILE2", help="choices of another run or checkpoint on the same tokens"
    )
    sub.add_argument("--explain", action="store_true", help="one sentence on every number")
    sub.add_argument("--json", metavar="OUT", help="also write all numbers as JSON")
    sub.add_argument(
        "--html", metavar="OUT", help="also write one page with figures, to be opened in a browser"
    )
