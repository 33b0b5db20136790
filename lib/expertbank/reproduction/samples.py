"""One gate of the sweep and one run of the testbed, trained again, beside their shipped rows."""

from __future__ import annotations

import json

import numpy as np

from expertbank.reproduction.outcome import Outcome, outcome_of
from expertbank.shipped.bank import SPLITS, load_bank
from expertbank.shipped.gates import load_gates
from expertbank.shipped.testbed import CONFIGURATION, load_testbed
from expertbank.training.corpus import load_mix, placed_tokens
from expertbank.training.datasets import load_mnist
from expertbank.training.gates import GateRecipe, judged_gate, shipped_gates
from expertbank.training.resumable import Task
from expertbank.training.testbed_model import Run, train_run
from expertbank.training.testbed_runs import shipped_runs

# a gate, a small one where it must be quick, and the run whose routing is shipped
GATE = "mnist-cnn-0.0238-0"
QUICK_GATE = "mnist-linear-0.0238-0"
RUN = "scripts-LBL-1-0.125-seed0"
# by how much a number of their rows may differ where only the processor is another one: three times
# what oneDNN held to SSE4.1 changes, .026 nats of a gate's rate and .034 of a run's MaxVio
GATE_TOLERANCE = 0.1
RUN_TOLERANCE = 0.1


def gate_task(name: str, download: bool = False) -> Task:
    """What trains one gate of the sweep again, for `run_missing`; its bytes are rows in JSON.

    >>> gate_task(GATE, download=True)[0].__name__  # doctest: +SKIP
    '_gate_rows'
    """
    [recipe] = [gate for gate in shipped_gates() if gate.name == name]
    bank = load_bank(recipe.bank)
    images = [load_mnist(split, download=download)[0] for split in SPLITS]
    return (_gate_rows, *images, *(bank.losses(split) for split in SPLITS), recipe)


def _gate_rows(
    images: np.ndarray,
    unseen: np.ndarray,
    losses: np.ndarray,
    unseen_losses: np.ndarray,
    recipe: GateRecipe,
) -> bytes:
    _, rows, _ = judged_gate((images, unseen), (losses, unseen_losses), recipe)
    return json.dumps(rows).encode()


def run_task(name: str = RUN, download: bool = False) -> Task:
    """What trains one run of the testbed again, for `run_missing`; its bytes are a row in JSON.

    >>> run_task(download=True)[0].__name__  # doctest: +SKIP
    '_run_row'
    """
    [run] = [run for run in shipped_runs() if run.name == name]
    mix = load_mix(run.mix, download=download)
    return (_run_row, run, mix.train, mix.held_out, mix.vocabulary, placed_tokens(mix, run.placed))


def _run_row(
    run: Run, train: np.ndarray, held_out: np.ndarray, vocabulary: int, placed: np.ndarray
) -> bytes:
    numbers, _ = train_run(run, train, held_out, vocabulary, placed)
    # as `save_testbed` writes them
    return json.dumps({name: float(f"{value:.6g}") for name, value in numbers.items()}).encode()


def gate_outcome(name: str, content: bytes) -> Outcome:
    """The rows of a gate trained again beside those of the sweep.

    >>> rows = load_gates().rows(bank="mnist", family="linear", seed=0)
    >>> rows = rows[abs(rows["lam"] - 0.0238) < 1e-4].to_dict("records")
    >>> gate_outcome(QUICK_GATE, json.dumps(rows).encode()).sentence
    '20 of 20 numbers identical'
    """
    [recipe] = [gate for gate in shipped_gates() if gate.name == name]
    given = {"bank": recipe.bank, "family": recipe.family, "lam": recipe.lam, "seed": recipe.seed}
    shipped = load_gates().columns(**given)
    found = json.loads(content)
    numbers = ("rate", "rate_low", "rate_high", "loss", "loss_error")
    pairs = {
        f"{row['split']} {row['decision']} {number}": (shipped[number][index], row[number])
        for index, row in enumerate(found)
        for number in numbers
    }
    return outcome_of(f"gate {name}", pairs, GATE_TOLERANCE)


def run_outcome(content: bytes, name: str = RUN) -> Outcome:
    """The numbers of a run trained again beside those of the testbed.

    >>> row = load_testbed().rows(method="LBL", scope=1, strength=0.125, mix="scripts", seed=0)
    >>> row = row.query("capacity.isna()").drop(columns=[*CONFIGURATION, "seed", "size"])
    >>> run_outcome(row.iloc[0].to_json(double_precision=15).encode()).result
    'identical'
    """
    [run] = [run for run in shipped_runs() if run.name == name]
    given = {column: getattr(run, column) for column in (*CONFIGURATION, "seed")}
    shipped = load_testbed().columns(**given)
    found = json.loads(content)
    pairs = {number: (float(shipped[number][0]), value) for number, value in found.items()}
    return outcome_of(f"testbed {name}", pairs, RUN_TOLERANCE)
