"""The reference set: distortion-rate problems with certified answers, and how an answer is judged.
Nats.

The folder `data/reference` holds three files. `tables.npz` has the table (N, R) of losses of each
problem under the problem's name, and weights (N,), not uniform, under `name.weights`; a table that
is cut from a shipped bank is not stored again. `problems.json` has `date`, `tolerance` and a list
`problems`, whose fields are ::

    name, family, what          the problem in words
    lam                         price of a nat, in units of loss
    rate, distortion            of an optimal gate, in nats and units of loss
    lagrangian                  distortion + lam * rate, the minimum
    unique                      whether rate and distortion are unique at this price; where not, the
                                Lagrangian alone is certified
    certificate                 nats; the Lagrangian is within lam * certificate of its minimum
    certified_by                every answer that was found: its method, numbers, certificate, and
                                its largest `difference` to what is stated above
    marginal                    optimal shares (R,)
    inputs, experts, distinct_rows, and `bank` (name, split, inputs) where the table is cut from one

Everything stated is right to `tolerance`, 1e-9, in units of loss and in nats. The manifest seals
both files. `benchmarks/reference.py` made them.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from expertbank._files import read_arrays
from expertbank.shipped.bank import load_bank
from expertbank.shipped.manifest import data_folder, open_sealed, read_json

TABLES = "tables.npz"
PROBLEMS = "problems.json"
CERTIFIED_TO = 1e-9  # of what is stated, in units of loss and in nats
SUM_TO_ONE = 1e-6  # how far shares may be from it


@dataclass(frozen=True)
class ReferenceProblem:
    """A table at one price, and its certified answer."""

    name: str
    losses: np.ndarray
    """(N, R), double precision"""
    weights: np.ndarray
    """of the inputs (N,), summing to 1"""
    lam: float
    """price of a nat, in units of loss"""
    rate: float
    """I(X;T) of an optimal gate, nats"""
    distortion: float
    """its expected loss"""
    lagrangian: float
    """distortion + lam * rate, the minimum"""
    is_unique: bool
    """whether every optimal gate has this rate and distortion"""
    record: dict
    """all that `problems.json` states of it"""


@dataclass(frozen=True)
class ReferenceScore:
    """What a marginal or a gate is worth on a problem."""

    rate: float
    """I(X;T) of the gate, nats"""
    distortion: float
    """its expected loss"""
    gap: float
    """nats: its Lagrangian less the certified minimum, over lam; at lam = 0, its rate less the
    least one, or inf where it loses more than the floor"""


def load_reference(folder: str | os.PathLike | None = None) -> list[ReferenceProblem]:
    """The shipped problems, or those of a folder, after checking hashes.

    Raises FileNotFoundError where they are missing, ValueError where they are damaged.

    >>> problems = {problem.name: problem for problem in load_reference()}
    >>> bit = problems["hamming-2-0.1"]
    >>> bit.losses.tolist(), round(bit.distortion, 9), round(bit.rate, 6)  # log 2 - h(0.1)
    ([[0.0, 1.0], [1.0, 0.0]], 0.1, 0.368064)
    """
    _, _, [tables, answers] = open_sealed(folder, "reference", [TABLES, PROBLEMS])
    arrays = read_arrays(tables)
    banks = {}
    problems = []
    for record in read_json(answers, "the reference set")["problems"]:
        name = record["name"]
        if "bank" in record:
            key = tuple(record["bank"].values())
            if key not in banks:
                banks[key] = bank_losses(record["bank"])
            losses = banks[key]
        else:
            losses = arrays[name]
        weights = arrays.get(f"{name}.weights", np.ones(len(losses)))
        stated = {key: record[key] for key in ("lam", "rate", "distortion", "lagrangian")}
        problem = ReferenceProblem(
            name=name,
            losses=losses.astype(float),
            weights=weights / weights.sum(),
            is_unique=record["unique"],
            record=record,
            **stated,
        )
        problems.append(problem)
    return problems


def bank_losses(cut: dict) -> np.ndarray:
    """The 0-1 losses (inputs, R) that a problem takes from a shipped bank.

    >>> bank_losses({"name": "mnist", "split": "test", "inputs": 3}).shape
    (3, 25)
    """
    bank = load_bank(data_folder() / "banks" / cut["name"])
    return bank.losses(cut["split"])[: cut["inputs"]]


def judge_answer(problem: ReferenceProblem, answer: Any) -> ReferenceScore:
    """What an answer is worth: a marginal (R,), a gate (N, R), or anything with a `marginal` (R,).

    A marginal stands for the gate that is best for it, proportional to marginal * exp(-loss / lam).
    Raises ValueError for another shape, for numbers that are not finite or negative, and for shares
    that do not sum to 1.

    >>> problem = load_reference()[0]
    >>> judge_answer(problem, [0.5, 0.5]).gap < 1e-9
    True
    """
    shares = _shares(problem, getattr(answer, "marginal", answer))
    gate = shares if shares.ndim == 2 else _best_gate(problem, shares)
    marginal = problem.weights @ gate
    # a share may be too small for its mean over the inputs to be a float: it carries no rate
    carries = (gate > 0) & (marginal > 0)
    ratio = np.divide(gate, marginal, out=np.ones_like(gate), where=carries)
    rate = float(problem.weights @ (gate * np.log(ratio)).sum(axis=1))
    least = problem.losses.min(axis=1)
    excess = float(problem.weights @ (gate * (problem.losses - least[:, None])).sum(axis=1))
    distortion = float(problem.weights @ least) + excess
    if problem.lam > 0:
        gap = (distortion - problem.distortion) / problem.lam + rate - problem.rate
    else:
        gap = rate - problem.rate if excess <= CERTIFIED_TO else math.inf
    return ReferenceScore(rate=rate, distortion=distortion, gap=max(gap, 0.0))


def _shares(problem: ReferenceProblem, answer: ArrayLike) -> np.ndarray:
    """A marginal (R,) or a gate (N, R), scaled to sum to 1."""
    n_inputs, n_experts = problem.losses.shape
    try:
        shares = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"it returned {type(answer).__name__}, not numbers") from None
    if shares.shape not in ((n_experts,), (n_inputs, n_experts)):
        allowed = f"({n_experts},) and ({n_inputs}, {n_experts})"
        raise ValueError(f"it returned shape {shares.shape}; allowed are {allowed}")
    if not np.isfinite(shares).all():
        raise ValueError("it returned numbers that are not finite")
    if shares.min() < -SUM_TO_ONE:
        raise ValueError(f"it returned a share of {shares.min():.3g}; allowed are numbers >= 0")
    shares = np.maximum(shares, 0.0)
    sums = shares.sum(axis=-1, keepdims=True)
    off = float(abs(sums - 1).max())
    if off > SUM_TO_ONE:
        raise ValueError(f"it returned shares whose sum is off 1 by {off:.3g}")
    return shares / sums


def _best_gate(problem: ReferenceProblem, marginal: np.ndarray) -> np.ndarray:
    """marginal * exp(-loss / lam), normalised (N, R), among the experts in use."""
    used = marginal > 0
    losses = problem.losses[:, used]
    excess = losses - losses.min(axis=1, keepdims=True)
    kernel = np.exp(-excess / problem.lam) if problem.lam > 0 else (excess == 0).astype(float)
    gate = np.zeros(problem.losses.shape)
    gate[:, used] = kernel * marginal[used]
    return gate / gate.sum(axis=1, keepdims=True)
