"""The report as text, and what of it changes when one of its sources is another one."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from expertbank.book.claims import VERDICTS, Evidence, Finding, headline, reproduce
from expertbank.rate_distortion import LongSearchWarning
from expertbank.shipped.bank import load_bank
from expertbank.shipped.gates import load_gates
from expertbank.shipped.manifest import data_folder, read_manifest
from expertbank.shipped.testbed import load_testbed

# what the shipped folders of each kind hold, whose results the claims are held against
PLACES = {"bank": "banks/mnist", "family": "banks/family", "gates": "gates", "testbed": "testbed"}


# --- the report ---


def findings_of(evidence: Evidence) -> list[Finding]:
    """Every claim with what is found; how long a search takes is not a part of it.

    >>> len(findings_of(Evidence(load_bank()))) > 70
    True
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LongSearchWarning)
        return reproduce(evidence)


def report_lines(findings: Sequence[Finding], bank: str) -> list[str]:
    """The report for a terminal: a header, a line a claim, and how many have which verdict.

    >>> report_lines([], "mnist")[-2]
    '0 claims'
    """
    head = f"{'verdict':13}  {'paper':>8}  {'ours':>8}  {'interval':>18}  {bank:>8}  where: what"
    lines = [
        "The papers' numbers beside ours. Where the paper's is measured, ours is the mean over 21",
        "banks of the recipe; a single experiment on one more bank lies in the interval with 95%,",
        "and the verdict says whether the paper's number does, its last digit taken as rounded.",
        f"The column {bank} is that bank alone, where the number depends on the bank.",
        "",
        head,
    ]
    lines += [_line(finding, len(bank)) for finding in findings]
    counts = Counter(finding.verdict for finding in findings)
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]]
    total = f"{len(findings)} claims" + (f": {', '.join(parts)}" if parts else "")
    counted, outside = headline(list(findings))
    names = "; ".join(finding.claim.quantity for finding in outside)
    if not names:
        names = "none"
    independent = f"{len(counted)} independent measured numbers, {len(outside)} outside: {names}"
    return [*lines, "", total, independent]


def _line(finding: Finding, width: int) -> str:
    claim = finding.claim
    found = finding.found
    reported = "-" if claim.reported is None else f"{claim.reported:.{claim.decimals}f}"
    interval = ""
    if found.interval is not None and claim.kind == "measured":
        low, high = found.interval
        decimals = 4 if max(abs(low), abs(high)) < 10 else 2
        interval = f"[{low:.{decimals}f}, {high:.{decimals}f}]"
    alone = "" if found.shipped is None else _number(found.shipped)
    cells = f"{finding.verdict:13}  {reported:>8}  {_number(found.value):>8}  {interval:>18}"
    return f"{cells}  {alone:>{max(8, width)}}  {claim.location}: {claim.quantity}"


def _number(value: float) -> str:
    """Counts as they are, numbers with four decimals, large ones with fewer."""
    if isinstance(value, (int, np.integer)):
        return str(value)
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


# --- what changes with a source ---


def findings_with(kind: str, folder: Path) -> list[Finding] | None:
    """Every claim with a bank, family, gates or testbed in the place of the shipped one; None where
    it was made by another recipe, which the claims say nothing about.

    >>> findings_with("bank", data_folder() / "banks" / "specialists") is None
    True
    """
    shipped = data_folder() / PLACES[kind]
    if _recipes(folder) != _recipes(shipped):
        return None
    evidence = Evidence(load_bank(folder.resolve() if kind == "bank" else "mnist"))
    if kind == "family":
        banks = [
            load_bank(path.parent.resolve()) for path in sorted(folder.glob("*/manifest.json"))
        ]
        evidence.grid = [bank for bank in banks if bank.name.startswith("grid-")]
        others = [bank for bank in banks if bank.name.startswith("replicate-")]
        evidence.family = [evidence.bank, *others]
    elif kind == "gates":
        evidence.gates = load_gates(folder)
    elif kind == "testbed":
        evidence.testbed = load_testbed(folder)
    return findings_of(evidence)


def _recipes(folder: Path) -> dict:
    """The recipe of a folder, or of each bank of a family."""
    paths = [folder]
    if not (folder / "manifest.json").exists():
        paths = sorted(path.parent for path in folder.glob("*/manifest.json"))
    return {
        "" if path == folder else path.name: read_manifest(path, ()).get("recipe") for path in paths
    }


def changes(ours: Sequence[Finding], others: Sequence[Finding]) -> tuple[list[str], int, str]:
    """Quantities whose verdict differs between two reports, each with both verdicts; how many
    numbers differ, and one sentence on them.

    >>> changes([], [])
    ([], 0, '0 of 0 numbers of the report differ')
    """
    changed = []
    moved = []
    for one, other in zip(ours, others, strict=True):
        if one.verdict != other.verdict:
            changed.append(f"{one.claim.quantity}: {one.verdict}, {other.verdict}")
        first = one.found.value if one.found.shipped is None else one.found.shipped
        second = other.found.value if other.found.shipped is None else other.found.shipped
        if first != second:
            share = abs(first - second) / max(abs(first), abs(second))
            moved.append((share, f"{one.claim.quantity}, {_number(first)} and {_number(second)}"))
    sentence = f"{len(moved)} of {len(ours)} numbers of the report differ"
    if moved:
        sentence += f", relatively most {max(moved)[1]}"
    return changed, len(moved), sentence
