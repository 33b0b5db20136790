"""The command `expertbank`, for the papers' bank and for one's own tables and routers.

Tables are read from .npy, .npz (one array) or .csv (numbers, comma separated): losses or gates,
inputs by experts. `curve` also streams tables larger than memory from .npy, .zarr and .parquet.
`routes` reads what a router chose.

Each command is a function and, above it, one that lists its options. The docstring of the function
is the command's help: the first line says what it does, the rest stands below the options.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from expertbank._checks import as_unit_losses
from expertbank._files import check_outputs, one_line, printable, write_atomically
from expertbank._texts import docstring
from expertbank.book.claims import Evidence, bank_summary
from expertbank.book.your_table import TableLadder, write_bounds, write_curve
from expertbank.bounds import union_bound, xu_raginsky_bound
from expertbank.information import gating_rate
from expertbank.learners import Selection, simulate
from expertbank.rate_distortion import OPTIMISERS, critical_lambda, rate_distortion_curve
from expertbank.shipped.bank import DATA_SETS, load_bank, named_for
from expertbank.shipped.bench import OUR_SOLVER, bench, bench_csv
from expertbank.tables import open_table, read_table, table_of

DESCRIPTION = """\
`expertbank`: the library from the command line, for the papers' bank and for a practitioner's own
files."""
# what `train` makes, and where in build/ it goes where nobody says
FOLDERS = {
    "mnist": "banks/mnist",
    "specialists": "banks/specialists",
    "family": "banks/family",
    "gates": "gates",
    "testbed": "testbed",
    "priced-routers": "priced-routers",
    "router-model": "router-model",
    "in-network": "in-network",
    "small-banks": "small-banks",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; bad input prints one line on standard error and returns 2.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/gate.npy", np.eye(4))
    ...     main(["rate", f"{folder}/gate.npy"])
    I(X;T) = 1.386294 nats
    0
    """
    options = argparse.Namespace(prog="expertbank")
    try:
        try:
            _parser().parse_args(arguments, options)
            status = options.run(options)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # as behind `| head`: nobody reads on, so nothing may be left to write when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        return _failed(options, error)
    except MemoryError as error:
        return _failed(options, f"it needs more memory than there is; {error}")
    except ModuleNotFoundError as error:
        extras = {"curve": "dask", "report": "book", "routes": "routers"}
        extra = extras.get(options.command, "train")
        if getattr(options, "what", None) == "regret":
            extra = "transformers,dask"
        fix = f"in a checkout, `pip install -e '.[{extra}]'` brings it"
        return _failed(options, f"{error}; {fix}")
    except KeyboardInterrupt as stop:
        return _failed(options, "; ".join(["interrupted", *map(str, stop.args)]), 130)
    return 0 if status is None else status


def _failed(options: argparse.Namespace, sentence: object, status: int = 2) -> int:
    """One line on standard error, whatever the sentence quotes from files."""
    print(f"{options.prog}: {one_line(sentence)}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="expertbank", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands)
    _add_verify(commands)
    _add_compare(commands)
    _add_reproduce(commands)
    _add_describe(commands)
    _add_report(commands)
    _add_bench(commands)
    _add_rate(commands)
    _add_simulate(commands)
    _add_curve(commands)
    _add_bounds(commands)
    _add_routes(commands)
    return parser


def _command(
    commands, name: str, run: Callable[[argparse.Namespace], int | None], **fillings: str
) -> Callable:
    """Add the command `name`, and return what adds an option to it; `fillings` go into its help."""
    text = docstring(run)
    for place, filling in fillings.items():
        text = text.replace(f"{{{place}}}", filling)
    summary, _, more = text.partition("\n\n")
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, prog=parser.prog)
    return parser.add_argument


# --- training and the papers' bank ---


def _add_train(commands) -> None:
    option = _command(commands, "train", _train)
    what = (
        "mnist is the papers' bank, family its replicates, specialists and gates what comes after, "
        "all of the data set that --data names; small-banks are on MNIST-1D"
    )
    option("bank", choices=list(FOLDERS), help=what)
    option("--data", choices=list(DATA_SETS), default="mnist", help="images, default mnist")
    option("--out", help="a new folder; default below build, as it is called in data")
    option("--experts", type=int, dest="n_experts", help="number of experts, 25 in the papers")
    subset = "training images per expert, 10,000 in the papers"
    option("--subset", type=int, dest="subset_size", help=subset)
    batch_size = "the papers do not state it; see data/banks/batch_sizes.csv"
    option("--batch-size", type=int, help=batch_size)
    option("--seed", type=int)
    size = "of the testbed: small, or large for a GPU"
    option("--size", choices=["small", "large"], help=size)
    banks = "where the banks of the gates are; default the shipped ones"
    option("--banks", metavar="FOLDER", help=banks)
    weights = "leave the weights of a bank out: 11 MB less, and nothing to recompute from"
    option("--no-weights", action="store_true", help=weights)
    option("--jobs", type=int, default=2, help="worker processes on a CPU")
    option("--download", action="store_true", help="fetch images or corpus where they are missing")


def _train(options: argparse.Namespace) -> None:
    """train a bank, a family of banks, the sweep of gates, the testbed or its model; resumes"""
    from expertbank.training.experts import (
        Recipe,
        SpecialistRecipe,
        bank_family,
        train_bank,
        train_family,
    )
    from expertbank.training.gates import train_gates
    from expertbank.training.testbed_runs import train_testbed

    what = options.bank
    if options.size and what != "testbed":
        raise ValueError(f"--size is {options.size!r}; only the testbed has sizes")
    recipe = {}
    for name in ("n_experts", "subset_size", "batch_size", "seed"):
        value = getattr(options, name)
        if value is not None:
            recipe[name] = value
    if recipe and what not in ("mnist", "specialists"):
        raise ValueError(
            f"{what} has recipes of its own; {sorted(recipe)} is for a single bank alone"
        )
    _check_train(options, what)
    data = options.data
    place = Path(FOLDERS[what])
    folder = Path("build", place.parent, named_for(data, place.name))
    if options.out:
        folder = options.out
    how = {"download": options.download, "n_jobs": options.jobs}
    if what == "family":
        train_family(folder, bank_family(data), **how)
    elif what == "gates":
        train_gates(folder, data=data, bank_root=options.banks, **how)
    elif what == "router-model":
        from expertbank.training.router_model import train_router_model

        train_router_model(folder, download=options.download)
    elif what == "small-banks":
        from expertbank.training.small_banks import train_small_banks

        train_small_banks(folder, n_jobs=options.jobs)
    elif what == "in-network":
        from expertbank.training.in_network import train_in_network

        train_in_network(folder, **how)
    elif what == "priced-routers":
        from expertbank.training.priced_routers import train_priced_routers

        train_priced_routers(folder, **how)
    elif what == "testbed":
        size = options.size if options.size else "small"
        train_testbed(folder, size=size, **how)
    else:
        kind = SpecialistRecipe if what == "specialists" else Recipe
        train_bank(folder, kind(**recipe, data=data), keep_weights=not options.no_weights, **how)


def _check_train(options: argparse.Namespace, what: str) -> None:
    """Refuse options of `train` that belong to other things than what is trained."""
    if options.data != "mnist" and what not in ("mnist", "specialists", "family", "gates"):
        raise ValueError(f"--data is {options.data!r}; {what} is trained on data of its own")
    if options.banks and what != "gates":
        raise ValueError(f"--banks is {options.banks!r}; only gates are trained for banks")
    if options.no_weights and what not in ("mnist", "specialists"):
        raise ValueError("--no-weights is for a single bank; nothing else keeps weights by choice")


def _add_verify(commands) -> None:
    option = _command(commands, "verify", _verify)
    option("what", nargs="*", help="folders, or names of what is shipped; default: all that is")
    option("--images", type=int, help="only the first so many images of each split")


def _verify(options: argparse.Namespace) -> None:
    """check hashes and seals, and recompute what follows: a bank's predictions, loads, accuracies

    A path is relative to where one stands. Predictions need MNIST and the weights.

    examples:
      expertbank verify
      expertbank verify mnist gates build/banks/family
    """
    from expertbank.reproduction.verify import SHIPPED_PLACES, verify

    for name in options.what if options.what else SHIPPED_PLACES:
        print(f"{name}: {verify(name, options.images)}", flush=True)


def _add_compare(commands) -> None:
    option = _command(commands, "compare", _compare)
    option("first", metavar="A", help="a folder with a manifest, or the manifest")
    option("second", metavar="B", help="another of the same kind and recipe")


def _compare(options: argparse.Namespace) -> int:
    """two banks, families, gates, testbeds, models: what is identical, what differs by how much

    The exit status is that of diff: 0 the same, 1 different, 2 not to be compared. Versions and
    machine that the manifests state may differ.

    examples:
      expertbank compare data/banks/mnist build/banks/mnist
    """
    from expertbank.reproduction.compare import compare

    found = compare(options.first, options.second)
    print("\n".join(found.lines()))
    return 0 if found.is_same else 1


def _add_reproduce(commands) -> None:
    option = _command(commands, "reproduce", _reproduce)
    option("--quick", action="store_true", help="a part of it, in 3 minutes")
    out = "a new folder; default build/reproduce, or build/reproduce-quick"
    option("--out", help=out)
    option("--jobs", type=int, default=2, help="worker processes")
    option("--download", action="store_true", help="fetch MNIST and the corpus where missing")


def _reproduce(options: argparse.Namespace) -> int:
    """train the bank, a gate and a testbed run again, rerun report and chapters, compare; resumes

    Each line is one part: identical, within the tolerance that it states, or different. The exit
    status is 0 where all is identical or within tolerance and no verdict changed, else 1.
    """
    from expertbank.reproduction.rerun import Plan, rerun

    plan = Plan(options.quick, options.download, options.jobs)
    folder = "build/reproduce-quick" if options.quick else "build/reproduce"
    if options.out:
        folder = options.out
    outcomes = rerun(folder, plan, lambda line: print(line, flush=True))
    return int(any(outcome.result == "differs" for outcome in outcomes))


def _add_describe(commands) -> None:
    option = _command(commands, "describe", _describe)
    option("banks", nargs="+", help="bank folders")


def _describe(options: argparse.Namespace) -> None:
    """accuracies and disagreements of banks, as csv"""
    summaries = [bank_summary(load_bank(Path(path).resolve())) for path in options.banks]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(summaries[0])
    for summary in summaries:
        values = summary.values()
        writer.writerow([f"{x:.4f}" if isinstance(x, float) else printable(x) for x in values])


def _add_report(commands) -> None:
    option = _command(commands, "report", _report)
    option("--bank", default="mnist", help="a shipped bank or a folder")


def _report(options: argparse.Namespace) -> None:
    """the papers' statements beside what is found: verdict, paper, ours, interval, one bank"""
    from expertbank.reproduction.verdicts import findings_of, report_lines
    from expertbank.reproduction.verify import place_of

    bank = load_bank(place_of(options.bank))
    print("\n".join(report_lines(findings_of(Evidence(bank)), bank.name)))


# --- solvers on the reference set ---


def _add_bench(commands) -> None:
    option = _command(commands, "bench", _bench)
    what = "module:function, as one would import it from here; default: ours"
    option("solver", nargs="?", default=OUR_SOLVER, help=what)
    option("--problem", nargs="+", metavar="NAME", help="only these; default: all")
    option("--limit", type=float, default=10.0, help="seconds for a problem, default 10")
    option("--tol", type=float, default=1e-9, help="nats above the optimum, default 1e-9")
    option("--csv", metavar="FILE", help="write the rows there too")


def _bench(options: argparse.Namespace) -> int:
    """run a distortion-rate solver on the reference set: time, gap to the optimum, failures

    The function is called as solver(losses, lam, weights): losses (N, R), the price lam >= 0 of a
    nat, weights (N,) that sum to 1. It returns shares (R,) of the experts, or a gate (N, R), that
    minimise E[loss] + lam I(X;T). A problem on which it raises, crashes, returns something else or
    runs past the limit is a row like the others. The exit status is 0 where all are solved, else 1.

    examples:
      expertbank bench
      expertbank bench my_solver:solve --limit 2 --csv rows.csv
    """
    check_outputs([options.csv], [])
    rows = []
    print(f"{'problem':<26} {'outcome':<8} {'ms':>10} {'gap, nats':>10}")
    for row in bench(options.solver, options.problem, limit=options.limit, tol=options.tol):
        rows.append(row)
        took = f"{1e3 * row.seconds:>10.2f} {row.gap:>10.1e}"
        print(f"{row.problem:<26} {row.outcome:<8} {took}  {row.note}".rstrip(), flush=True)
    solved = [row for row in rows if row.outcome == "solved"]
    seconds = sum(row.seconds for row in solved)
    print(f"{len(solved)} of {len(rows)} solved, in {seconds:.3g} s")
    if options.csv:
        write_atomically(options.csv, lambda file: file.write(bench_csv(rows).encode()))
    return int(len(solved) < len(rows))


# --- one's own tables ---


def _add_rate(commands) -> None:
    option = _command(commands, "rate", _rate)
    option("gate")


def _rate(options: argparse.Namespace) -> None:
    """gating rate I(X;T) of a table of gate probabilities"""
    print(f"I(X;T) = {gating_rate(read_table(options.gate)):.6f} nats")


def _add_simulate(commands) -> None:
    option = _command(commands, "simulate", _simulate)
    option("losses")
    population = "another loss table; without it the first is the exact population"
    option("--population", help=population)
    option("--alpha", type=float, default=0.7)
    option("--sample-size", type=int, default=256)
    option("--datasets", type=int, default=20_000)
    option("--seed", type=int, default=0)


def _simulate(options: argparse.Namespace) -> None:
    """information, gap and bounds of the alpha-mixture on a loss table"""
    losses = read_table(options.losses)
    population = None
    if options.population is not None:
        population = read_table(options.population)
    m = options.sample_size
    run = simulate(losses, options.alpha, m, options.datasets, population, options.seed)
    low, high = run.algorithmic.interval
    print(f"I(S;W)            {run.information:.6f} nats   95% [{low:.6f}, {high:.6f}]")
    print(f"train, test risk  {run.train_risk:.6f}  {run.test_risk:.6f}")
    print(f"gap               {run.gap:.6f} +- {run.gap_error:.6f}")
    if population is not None:
        print("no bound          the samples are not drawn from that population")
        return
    # a loss in [a, b] is sub-Gaussian with sigma = (b - a)/2, and so every bound scales
    low = float(np.min(losses))
    high = float(np.max(losses))
    width = 1.0 if low >= 0 and high <= 1 else high - low
    bound = xu_raginsky_bound(run.information, m, width / 2)
    print(f"bound             {bound:.6f}   sigma = {width / 2:g}")
    print(f"union bound       {width * union_bound(losses.shape[1], m):.6f}")


def _add_curve(commands) -> None:
    option = _command(commands, "curve", _curve)
    option("losses", metavar="LOSSES", help="table (inputs, experts)")
    lam = "prices of a nat; default from the critical one to 0"
    option("--lam", type=float, nargs="+", help=lam)
    option("--band", type=float, help="add prices until D is certified to this width everywhere")
    option("--tol", type=float, default=1e-9, help="certificate of every point, in nats")
    option("--method", choices=list(OPTIMISERS), default="newton")
    stream = "read the .npy in chunks; .zarr and .parquet always are"
    option("--stream", action="store_true", help=stream)
    option("--html", help="also write a page with the picture, a file that needs no other")


def _curve(options: argparse.Namespace) -> None:
    """certified distortion-rate curve of a loss table, as csv

    LOSSES holds the loss of each expert on each input, a table (inputs, experts): .npy, .npz with
    one array, .csv without a header, or, streamed in chunks, .zarr and .parquet. Any finite numbers
    will do; low is good.

    The output is csv, a point of the curve a line: the price lambda of a nat; the rate I(X;T) in
    nats that the best gate at that price uses; its mean loss, the distortion, in units of the
    table; and a certificate: D + lambda I lies within lambda times it of the least possible. Above
    the critical lambda, in the first line, one expert for all is best. Read it from the top: each
    row buys a lower loss with a higher rate, and no gate lies below the curve.

    examples:
      expertbank curve losses.npy
      expertbank curve losses.csv --lam 0.05 0.2 > curve.csv
      expertbank curve losses.npy --html curve.html > curve.csv
      expertbank curve losses.npy --band 1e-4  # as many points as make D certain to 1e-4 everywhere
    """
    check_outputs([options.html], [options.losses])
    stream = bool(options.stream) or Path(options.losses).suffix in (".zarr", ".parquet")
    if stream and options.html:
        raise ValueError("--html draws a table that fits in memory; leave it out, or --stream")
    losses = open_table(options.losses) if stream else read_table(options.losses)
    table = table_of(losses)
    curve = rate_distortion_curve(
        table, options.lam, tol=options.tol, band=options.band, method=options.method
    )
    print(f"# critical lambda {critical_lambda(table):.6g}")
    print("lambda,rate_nats,distortion,certificate")
    columns = np.stack([curve.lam, curve.rate, curve.distortion, curve.certificate], axis=1)
    for lam, rate, distortion, certificate in columns:
        print(f"{lam:.6g},{rate:.8g},{distortion:.8g},{certificate:.2g}")
    if options.html:
        write_curve(options.html, Path(options.losses).name, losses, columns)


def _add_bounds(commands) -> None:
    option = _command(commands, "bounds", _bounds)
    option("losses", metavar="LOSSES", help="table (inputs, experts) of losses in [0, 1]")
    alpha = "default: 1 (the minimiser) and 0.7"
    option("--alpha", type=float, nargs="+", default=[1.0, 0.7], help=alpha)
    sample_size = "samples that it sees; default 256"
    option("--sample-size", type=int, default=256, metavar="M", help=sample_size)
    datasets = "Monte Carlo draws of those; default 20,000"
    option("--datasets", type=int, default=20_000, help=datasets)
    option("--seed", type=int, default=0)
    option("--html", help="also write a page with the picture, a file that needs no other")


def _bounds(options: argparse.Namespace) -> None:
    """generalisation bounds for a selection from a loss table

    LOSSES holds the loss of each expert on each input, a table (inputs, experts) of
    numbers in [0, 1]: .npy, .npz with one array, or .csv without a header. Where all are 0 or 1
    (mistakes), every bound of the library is given.

    A learner draws m samples from the table and selects an expert: with alpha 1 the one with the
    lowest loss on them, else that one with probability alpha and any one otherwise. The gap is its
    expected loss on the whole table less that on its samples. I(S;W) in nats is what the selected
    expert tells about the samples. Bounds are in units of the loss, from loose to tight, +- their
    Monte Carlo error; each is at least the gap:
      union_bound         sqrt(log R / 2m), for any way to select among R
      xu_raginsky_bound   sqrt(I(S;W) / 2m), sigma = 1/2 for losses in [0, 1]; the papers' form has
                          sigma = 1
      the others          help(expertbank.bounds) has a formula and a reference for each
    A bound far below the union bound says that the selection is safe because it is stable, not
    because R is small.

    examples:
      expertbank bounds mistakes.npy
      expertbank bounds mistakes.csv --alpha 1 --sample-size 1000 --html bounds.html
    """
    check_outputs([options.html], [options.losses])
    losses = as_unit_losses(read_table(options.losses))
    n_inputs, n_experts = losses.shape
    m = options.sample_size
    ladder = TableLadder(losses, m, options.datasets, options.seed)
    print(f"{n_inputs:,} inputs, {n_experts} experts, {m} samples; the table is the population")
    rungs = {}
    for alpha in options.alpha:
        run, found = ladder.at(alpha)
        rungs[_print_learner(alpha, run)] = found
        for name, value, error in found:
            monte_carlo = f" +- {error:.1g}" if error else ""
            print(f"  {name:28}{value:8.4f}{monte_carlo}")
    if ladder.experiment is None:
        other_than_mistakes = losses[~np.isin(losses, (0, 1))]
        print(
            f"\nThe other bounds need losses of 0 and 1 alone, this table holds "
            f"{other_than_mistakes[0]:g}: give mistakes, for instance losses > 0.5, for all of them"
        )
    if options.html:
        write_bounds(options.html, Path(options.losses).name, losses, rungs)


def _print_learner(alpha: float, run: Selection) -> str:
    low, high = run.algorithmic.interval
    name = "empirical risk minimiser" if alpha == 1 else f"alpha-mixture, alpha = {alpha:g}"
    print(f"\n{name}: I(S;W) = {run.information:.4f} nats, 95% [{low:.4f}, {high:.4f}]")
    print(f"train risk {run.train_risk:.4f}, test risk {run.test_risk:.4f}")
    return name


# --- routers ---


def _add_routes(commands) -> None:
    from expertbank.routers.formats import describe_formats
    from expertbank.routers.placement import ENGINES, PLACEMENTS

    text = "what a mixture of experts' router chose"
    routes = commands.add_parser("routes", help=f"{text}: routes report FILE", description=text)
    what = routes.add_subparsers(dest="what", required=True)
    option = _command(what, "report", _routes_report, formats=describe_formats())
    _add_reading(option)
    domains = "number of domains; default: as many as FILE has"
    option("--domains", type=int, metavar="D", help=domains)
    positions = "count by position, 0 to P - 1"
    option("--positions", type=int, default=0, metavar="P", help=positions)
    tokens = "count by token of a vocabulary of V"
    option("--tokens", type=int, default=0, metavar="V", help=tokens)
    step = "tokens computed at once, where FILE does not say it"
    option("--step", type=int, metavar="N", help=step)
    option("--layer", action="append", help="only this layer; may be given again")
    against = "choices of another run or checkpoint on the same tokens"
    option("--against", metavar="FILE2", help=against)
    _add_further(option)
    explain = "of every number: what it is, its unit, what would be good to see"
    option("--explain", action="store_true", help=explain)
    option("--json", metavar="OUT", help="also write all numbers as JSON")
    page = "also write one page with figures, to be opened in a browser"
    option("--html", metavar="OUT", help=page)
    option = _command(what, "place", _routes_place, formats=describe_formats())
    _add_reading(option)
    option("--devices", type=int, required=True, metavar="G", help="that share the experts")
    option("--replicas", type=int, default=0, metavar="R", help="further slots, for busy experts")
    option("--step", type=int, default=256, metavar="N", help="tokens computed at once")
    written = "what --out writes; default: coactivation, or load where a token takes one"
    option("--kind", choices=PLACEMENTS, help=written)
    option("--engine", choices=ENGINES, default="sglang", help="that loads it")
    option("--out", metavar="OUT", help="write the map of physical to logical experts as JSON")
    _add_regret(what)


def _add_reading(option) -> None:
    """What every command on files of choices takes."""
    from expertbank.routers.formats import FORMATS

    option("file", metavar="FILE", nargs="+", help="choices, or statistics; or folders of them")
    name = "default: by the name and the content of the file"
    option("--format", choices=list(FORMATS), help=name)
    experts = "number of experts, where FILE does not say it"
    option("--experts", type=int, metavar="E", help=experts)
    chosen = "experts that a token takes, where FILE does not say it"
    option("--chosen", type=int, metavar="K", help=chosen)
    column = "what a column is called here, as doc=sequence; text= leaves it out"
    option("--column", action="append", default=[], metavar="NAME=OURS", help=column)
    option("--by-file", action="store_true", help="each FILE numbers its own sequences")


def _add_further(option) -> None:
    """What a report shows on request."""
    option("--words", metavar="FILE", help="vocabulary that names tokens: tokenizer.json, or lines")
    option("--transitions", action="store_true", help="experts of each layer against the next's")
    decode = "first generated position, where FILE does not say it and all prompts are as long"
    option("--decode-from", type=int, metavar="P", help=decode)
    earlier = "the same router earlier, choices or statistics; give it again, in order"
    option("--checkpoint", action="append", default=[], metavar="FILE", help=earlier)
    option("--beside", metavar="FILE", help="another run, side by side: choices or statistics")
    option("--devices", type=int, metavar="G", help="say what G devices pay to share the experts")
    option("--replicas", type=int, default=0, metavar="R", help="also place R further slots")
    option("--map", metavar="FILE", help="also judge this map, as an engine loads it")
    option("--hidden", type=int, metavar="H", help="hidden size, for bytes")
    option("--bytes", type=float, default=2, metavar="B", help="of a number, both ways; default 2")


def _add_regret(what) -> None:
    option = _command(what, "regret", _routes_regret)
    option("model", metavar="MODEL", help="a folder in transformers' format")
    option("texts", metavar="TEXTS", nargs="+", help="files with a text a line")
    option("--to", required=True, metavar="FOLDER", help="keeps the loss tables; resumes")
    option("--layer", action="append", help="only this layer; may be given again")
    how = "expert t alone (solo), or in place of the heaviest chosen one (swap)"
    option("--how", choices=["solo", "swap"], default="solo", help=how)
    linear = "an estimate: one backward pass in place of a forward pass an expert"
    option("--linear", action="store_true", help=linear)
    option("--most", type=int, default=256, metavar="N", help="texts; default 256")
    option("--length", type=int, default=128, metavar="L", help="tokens a text; default 128")
    option("--json", metavar="OUT", help="also write all numbers as JSON")


def _routes_place(options: argparse.Namespace) -> None:
    """what expert parallelism pays, and a placement of the experts that pays less

    Experts are placed on G devices in four ways, fitted on every second sequence of FILE and judged
    on the others. FILE holds what a router chose, token by token:
    {formats}

    columns:
      devices       devices that serve a token, on average
      sent          other devices that a token is sent to: times the hidden size and the bytes of a
                    number, what dispatch costs, and combine again
      busiest       slots of the busiest device of a step over the mean, its median and 95 %
                    quantile over steps: how long the others wait

    examples:
      expertbank routes place routes.npz --devices 4
      expertbank routes place traces/ --devices 8 --replicas 8 --kind replicated --out map.json
      expertbank routes place vllm.npz --experts 64 --devices 8 --engine vllm --out map.json
    """
    from expertbank.routers.communication import judge_placements
    from expertbank.routers.placement import save_placement
    from expertbank.routers.statistics import RouterStatistics

    check_outputs([options.out], options.file)
    counted = _statistics(options, n_domains=0)
    sizes = RouterStatistics(counted.n_experts, counted.n_chosen)
    kinds = _placements(sizes.n_chosen, options.replicas)
    kind = options.kind
    if kind is None:
        kind = [each for each in kinds if each != "replicated"][-1]
    kinds.setdefault(kind, 0)
    read = _reader(options, counted.n_experts)
    found = judge_placements(read, sizes, options.devices, kinds, options.step)
    print(f"{'layer':10}{'placement':14}{'devices':>9}{'sent':>7}{'busiest':>9}{'95 %':>7}")
    for name, ways in found.items():
        for way, paid in ways.items():
            means = f"{paid.devices_a_token:9.2f}{paid.sent_a_token:7.2f}"
            steps = f"{paid.busiest_device(0.5):9.2f}{paid.busiest_device(0.95):7.2f}"
            print(f"{name!s:10}{way:14}{means}{steps}")
    if options.out:
        maps = {name: ways[kind].placement for name, ways in found.items()}
        save_placement(options.out, maps, options.devices, options.engine)


def _placements(n_chosen: int, replicas: int) -> dict[str, int]:
    """Replicas by kind of placement, of the kinds that make sense."""
    kinds = {"contiguous": 0, "load": 0}
    if n_chosen > 1:
        kinds["coactivation"] = 0
    if replicas:
        kinds["replicated"] = replicas
    return kinds


def _reader(options: argparse.Namespace, n_experts: int) -> Callable[[], Any]:
    """What reads the choices in FILE, from the start each time."""
    from expertbank.routers.formats import read_routing

    known = {"n_experts": n_experts, "n_chosen": options.chosen, "columns": _columns(options)}
    return partial(read_routing, options.file, options.format, **known)


def _routes_report(options: argparse.Namespace) -> None:
    """report on a router, layer by layer

    FILE holds what a router chose, token by token, or statistics of it:
    {formats}

    All information is in nats (divide by 0.693 for bits). First look at:
      dead, MaxVio  experts without work, and how much the busiest has beyond its share; the same
                    of single steps, which expert parallelism waits for, is beside it (--step)
      I(X;T)        where weights are known, how far they differ from token to token: 0 is the
                    same for all, log E the most. Of choices alone there is H(T) - log k, which
                    says how even the load is and nothing about what the router looks at
      I(D;T)        specialisation by domain; evidence is a small "p, all layers": permutations of
                    the domains over whole sequences, corrected for the number of layers. Where
                    each sequence has one domain ("capped": yes) it is at most the column "cap"
    --explain prints of every number what it is, its unit and what would be good to see.

    The report opens with a verdict on each layer, the worst five with what to do, and what was not
    measured:
      dead experts  some expert serves no token, of 50 slots an expert or more
      skewed        the busiest expert has over twice the mean load, or utilisation is below 0.8
      no evidence of specialisation   "p, all layers" is above 0.05
      fine          none of these, and both were measured; not known: something was not
    With --devices there is what expert parallelism pays, judged on every second sequence: devices a
    token, bytes of dispatch and combine (--hidden), the busiest device of a step, traffic between
    devices, the share of slots dropped at a capacity factor.

    Rows without a route (cached, not captured, padding) are left out and counted under "no route".

    Where FILE says which tokens were of prompts and which generated, of prompts of any length, the
    two loads stand side by side; --decode-from N says it where all prompts have N tokens.

    examples:
      expertbank routes report routes.npz --explain
      expertbank routes report routes.npz --html report.html --json report.json
      expertbank routes report vllm.npz --format vllm --experts 64 --layer 3 --layer 4
      expertbank routes report responses.jsonl traces/ --experts 128 --chosen 8
      expertbank routes report rollout.npz --against trainer.npz
      expertbank routes report step_3000.npz --checkpoint step_1000.npz --checkpoint step_2000.npz
      expertbank routes report routes.npz --devices 8 --hidden 4096 --html report.html
    """
    from expertbank.routers.report_page import write_html

    further = [options.against, options.words, options.map, options.beside, *options.checkpoint]
    check_outputs([options.json, options.html], [*options.file, *further])
    report = _report_of(options)
    print(report.table(explain=options.explain), end="")
    if options.json:
        text = json.dumps(report.json(), indent=2, allow_nan=False) + "\n"
        write_atomically(options.json, lambda file: file.write(text.encode()))
    if options.html:
        write_html(report, options.html)


def _report_of(options: argparse.Namespace) -> Any:
    """The report that was asked for, on FILE and what stands beside it."""
    from expertbank.routers.agreement import layer_transitions
    from expertbank.routers.maps import read_words
    from expertbank.routers.report import routing_report

    labels = {"n_domains": options.domains, "n_positions": options.positions}
    labels |= {"n_tokens": options.tokens, "step": options.step}
    statistics = _statistics(options, decode_from=options.decode_from, **labels)
    layers = None
    if options.layer:
        layers = [_layer_name(text) for text in options.layer]
    agreements = {}
    if options.against:
        agreements = _agreements(options, statistics.n_experts)
    if layers is not None:
        agreements = {name: found for name, found in agreements.items() if name in layers}
    transitions = None
    if options.transitions:
        read = _reader(options, statistics.n_experts)
        transitions = layer_transitions(read(), statistics.n_experts)
    report = routing_report(
        statistics,
        agreements,
        layers,
        transitions=transitions,
        decode_from=options.decode_from,
        words=read_words(options.words) if options.words else None,
        costs=_costs(options, statistics) if options.devices else None,
    )
    earlier = [(path, _report_beside(options, path)) for path in options.checkpoint]
    beside = None
    if options.beside:
        beside = (options.beside, _report_beside(options, options.beside))
    return replace(report, checkpoints=tuple(earlier), beside=beside)


def _report_beside(options: argparse.Namespace, path: str) -> Any:
    """The report on another file, read as FILE was."""
    from expertbank.routers.report import routing_report

    own = argparse.Namespace(**{**vars(options), "file": [path]})
    labels = {"n_domains": options.domains, "n_positions": options.positions}
    statistics = _statistics(own, n_tokens=options.tokens, step=options.step, **labels)
    return routing_report(statistics)


def _costs(options: argparse.Namespace, statistics: Any) -> Any:
    """What devices pay to share the experts; a map of one's own is judged too."""
    from expertbank.routers.communication import communication_costs
    from expertbank.routers.placement import load_placement
    from expertbank.routers.report import in_natural_order
    from expertbank.routers.statistics import RouterStatistics

    sizes = RouterStatistics(statistics.n_experts, statistics.n_chosen)
    given = None
    if options.map:
        names = in_natural_order(statistics.layers)
        given = dict(zip(names, load_placement(options.map)))
    return communication_costs(
        _reader(options, statistics.n_experts),
        sizes,
        options.devices,
        _placements(sizes.n_chosen, options.replicas),
        256 if options.step is None else options.step,
        options.hidden,
        options.bytes,
        given,
    )


def _routes_regret(options: argparse.Namespace) -> None:
    """where a model's routers sit under D(R), the least loss at their rate

    In each layer every token is handed to expert t in place of the router's choice, for all t, and
    its loss is noted: E forward passes a layer. On half of the texts gates are fitted that see only
    what the router sees; everything is judged on the other half. Losses and rates in nats.
      D(rate)      certified: no gate of that rate loses less, not even one that has seen the next
                   token, which no router can
      sees x only  what the best known gate on the router's own input reaches at that rate

    examples:
      expertbank routes regret data/router-model held_out.txt --to tables
      expertbank routes regret ./OLMoE texts.txt --to tables --layer 7 --json regret.json
    """
    from expertbank.routers.loss_tables import layer_names, loss_table
    from expertbank.routers.models import load_model, text_batches
    from expertbank.routers.regret import regret_lines, regret_numbers, regret_on_half

    check_outputs([options.json], options.texts)
    model = load_model(options.model)
    sizes = {"length": options.length, "most": options.most}
    batches = list(text_batches(options.model, options.texts, **sizes))
    method = "linear" if options.linear else "exact"
    numbers = {}
    for layer in options.layer if options.layer else layer_names(model):
        place = Path(options.to, layer)
        place.parent.mkdir(parents=True, exist_ok=True)
        table = loss_table(model, batches, layer, options.how, to=place, method=method)
        found = regret_on_half(table)
        print("\n".join([f"layer {layer}", *regret_lines(found), ""]), flush=True)
        numbers[layer] = regret_numbers(found)
    if options.json:
        text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"
        write_atomically(options.json, lambda file: file.write(text.encode()))


def _statistics(options: argparse.Namespace, **labels: Any):
    from expertbank.routers.formats import statistics_of

    try:
        return statistics_of(
            options.file,
            options.format,
            n_experts=options.experts,
            n_chosen=options.chosen,
            columns=_columns(options),
            by_file=options.by_file,
            **labels,
        )
    except ValueError as error:
        text = str(error).replace("give by_file=True", "give --by-file")
        for name in ("experts", "chosen"):
            text = text.replace(f"give n_{name}", f"give --{name}")
        raise ValueError(text) from error


def _columns(options: argparse.Namespace) -> dict[str, str | None]:
    """What columns are called here; None leaves one out."""
    pairs = [text.partition("=") for text in options.column]
    return {name: ours if ours else None for name, _, ours in pairs}


def _layer_name(text: str) -> int | str:
    """Layers are numbers or names; -1 is a number."""
    return int(text) if text.lstrip("-").isdigit() else text


def _agreements(options: argparse.Namespace, n_experts: int) -> dict:
    from expertbank.routers.agreement import compare_routing

    try:
        own = argparse.Namespace(**{**vars(options), "file": options.against})
        ours = _reader(options, n_experts)
        others = _reader(own, n_experts)
        return compare_routing(ours(), others(), n_experts)
    except ValueError as error:
        raise ValueError(f"--against compares two runs choice by choice: {error}") from error
