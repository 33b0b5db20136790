"""The whole again: train the bank, a gate and a run of the testbed, recompute predictions, rerun
the report and every chapter, and say what came out the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from expertbank._files import one_line, write_atomically
from expertbank.book.claims import Evidence
from expertbank.reproduction.compare import compare, compare_predictions, verdict_sentence
from expertbank.reproduction.outcome import Outcome, summary
from expertbank.reproduction.samples import (
    GATE,
    QUICK_GATE,
    RUN,
    gate_outcome,
    gate_task,
    run_outcome,
    run_task,
)
from expertbank.reproduction.verdicts import changes, findings_of, findings_with
from expertbank.shipped.bank import load_bank
from expertbank.shipped.manifest import MANIFEST, REPOSITORY, check_free, seal
from expertbank.training.experts import Recipe, train_bank, verify_bank
from expertbank.training.resumable import Task, processor, provenance, resumed, run_missing

# what may differ where only the processor is another one
PREDICTION_TOLERANCE = 0.005  # share of the predictions
ACCURACY_TOLERANCE = 0.005  # of the test accuracy of an expert
# of the short form
QUICK_EXPERTS = 5
QUICK_IMAGES = 2_000
QUICK_CHAPTERS = ("bsc", "report")
CHAPTER_TIMEOUT = 1_800
STORED = REPOSITORY / "tests" / "references"
EXECUTE = REPOSITORY / "tests" / "references.py"


@dataclass(frozen=True)
class Plan:
    """What a reproduction does."""

    quick: bool = False
    download: bool = False
    n_jobs: int = 2

    @property
    def recipe(self) -> Recipe:
        """The shipped bank's, or its first experts."""
        return Recipe(n_experts=QUICK_EXPERTS) if self.quick else Recipe()

    @property
    def gate(self) -> str:
        """The gate that is trained again."""
        return QUICK_GATE if self.quick else GATE

    @property
    def chapters(self) -> list[str]:
        """The chapters that are executed again."""
        return (
            list(QUICK_CHAPTERS) if self.quick else sorted(p.stem for p in STORED.glob("*.ipynb"))
        )


def rerun(
    folder: str | os.PathLike, plan: Plan | None = None, say: Callable[[str], object] = print
) -> list[Outcome]:
    """Reproduce what is shipped into a new `folder`, saying what comes of each part as it ends.

    What is finished waits in `<folder>.partial`, so an interrupted run goes on where it stopped.
    Raises FileExistsError where `folder` holds something, FileNotFoundError where this is no
    checkout, ValueError where the partial run was begun with other versions or another processor.

    >>> rerun("build/reproduce", Plan(quick=True))  # two minutes  # doctest: +SKIP
    """
    plan = Plan() if plan is None else plan
    check_free(folder, "a reproduction")
    if not EXECUTE.is_file():
        raise FileNotFoundError(
            f"{EXECUTE} is missing: chapters and their stored outputs are in a checkout alone"
        )
    begun = time.monotonic()
    made = provenance("numpy", "scipy", "torch", "torchvision", device="cpu")
    manifest = {"title": "What is shipped, made again", "quick": plan.quick, **made}
    say(f"on {processor()}, into {folder}")
    with resumed(folder, manifest, "a reproduction") as (partial, whole):
        outcomes = _all_parts(partial, plan, say)
        whole.mkdir()
        os.replace(partial / "mnist", whole / "mnist")
        text = json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n"
        write_atomically(whole / "outcomes.json", lambda file: file.write(text.encode()))
        seal(whole, manifest, ["outcomes.json"])
    say(f"{summary(outcomes)}; {(time.monotonic() - begun) / 60:.1f} minutes")
    return outcomes


def _all_parts(partial: Path, plan: Plan, say: Callable[[str], object]) -> list[Outcome]:
    """Every part in turn; one that is finished is not done again."""
    bank = partial / "mnist"
    if not (bank / MANIFEST).exists():
        train_bank(bank, plan.recipe, download=plan.download, n_jobs=plan.n_jobs, device="cpu")
    outcomes = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        say(outcome.line())

    note(bank_outcome(bank))
    predictions = partial / "predictions.json"
    gate = partial / "gate.json"
    run = partial / "testbed.json"
    tasks: dict[Path, Task] = {}
    if not run.exists():
        tasks[run] = run_task(RUN, plan.download)
    if not gate.exists():
        tasks[gate] = gate_task(plan.gate, plan.download)
    tasks[predictions] = (_recomputed, QUICK_IMAGES if plan.quick else None)
    run_missing(tasks, "testbed, gate, predictions", plan.n_jobs)
    note(predictions_outcome(json.loads(predictions.read_bytes())))
    note(gate_outcome(plan.gate, gate.read_bytes()))
    note(run_outcome(run.read_bytes()))
    if not plan.quick:
        note(report_outcome(bank))
    tasks = {partial / f"chapter-{name}.json": (_executed, name) for name in plan.chapters}
    run_missing(tasks, "chapters", plan.n_jobs)
    for path in tasks:
        note(chapter_outcome(json.loads(path.read_bytes())))
    return outcomes


# --- the parts ---


def bank_outcome(folder: Path) -> Outcome:
    """A bank trained again, whole or its first experts, beside the shipped one.

    >>> from expertbank.shipped.manifest import data_folder
    >>> bank_outcome(data_folder() / "banks" / "mnist").line()
    'identical  bank: 3 of 3 files identical'
    """
    shipped = load_bank("mnist")
    bank = load_bank(folder.resolve())
    if bank.n_experts == shipped.n_experts:
        found = compare(shipped.folder, folder, report=False)
        differing, total = found.predictions
        accuracy = found.accuracy
        lines = found.lines()
        lines[0] = f"{found.identical} of {found.n_files} files identical"
        if found.is_same:
            return Outcome("bank", "identical", "; ".join(lines))
        lines.append(_tolerances())
    else:
        counts, accuracy = compare_predictions(shipped, bank)
        differing, total = counts
        lines = [
            f"{total - differing:,} of {total:,} predictions of {bank.n_experts} experts identical"
        ]
        if not differing:
            return Outcome("bank", "identical", lines[0])
        lines += [f"test accuracy differs by at most {accuracy:.4f}", _tolerances()]
    few = differing <= PREDICTION_TOLERANCE * max(total, 1)
    result = "within" if few and accuracy <= ACCURACY_TOLERANCE else "differs"
    return Outcome("bank", result, "; ".join(lines))


def _tolerances() -> str:
    return f"tolerances {100 * PREDICTION_TOLERANCE:g} % and {ACCURACY_TOLERANCE:g}"


def predictions_outcome(found: dict) -> Outcome:
    """What came of recomputing the shipped bank's predictions from its weights.

    >>> predictions_outcome({"compared": 10_000, "ties": 0}).line()
    'identical  predictions: 10,000 recomputed from the shipped weights, 0 at a tie'
    """
    if "error" in found:
        return Outcome("predictions", "differs", found["error"])
    sentence = (
        f"{found['compared']:,} recomputed from the shipped weights, {found['ties']} at a tie"
    )
    return Outcome("predictions", "within" if found["ties"] else "identical", sentence)


def _recomputed(n_images: int | None) -> bytes:
    try:
        found: dict = verify_bank("mnist", n_images=n_images, progress=False)
    except ValueError as error:
        found = {"error": one_line(error)}
    return json.dumps(found).encode()


def report_outcome(folder: Path) -> Outcome:
    """The report on the bank trained again beside that on the shipped one: no verdict may change.

    >>> from expertbank.shipped.manifest import data_folder
    >>> report_outcome(data_folder() / "banks" / "mnist").result
    'identical'
    """
    ours = findings_with("bank", folder)
    if ours is None:
        raise ValueError(
            f"{folder} holds a bank of another recipe; the report is on the shipped one"
        )
    changed, moved, sentence = changes(findings_of(Evidence(load_bank("mnist"))), ours)
    said = f"{sentence}; {verdict_sentence(changed)}"
    if changed:
        return Outcome("report", "differs", said)
    return Outcome("report", "within" if moved else "identical", said)


def chapter_outcome(found: dict) -> Outcome:
    """What an executed chapter prints beside what is stored.

    >>> found = {"chapter": "bsc", "outputs": 26, "differing": 1, "rounding": 1, "first": ""}
    >>> chapter_outcome(found).line()
    'within     chapter bsc: 25 of 26 outputs identical, 1 in all but the last digit'
    """
    same = found["outputs"] - found["differing"]
    sentence = f"{same} of {found['outputs']} outputs identical"
    if found["rounding"]:
        sentence += f", {found['rounding']} in all but the last digit"
    if found["first"]:
        sentence += f"; {found['first']}"
    result = "within" if found["differing"] else "identical"
    if found["differing"] > found["rounding"]:
        result = "differs"
    return Outcome(f"chapter {found['chapter']}", result, sentence)


def _executed(name: str) -> bytes:
    """Execute a chapter and compare its outputs: a line of JSON."""
    run = subprocess.run(
        [sys.executable, str(EXECUTE), "--check", name],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=CHAPTER_TIMEOUT,
    )
    if run.returncode:
        lines = run.stderr.decode(errors="replace").strip().splitlines()
        first = f"it fails: {one_line(lines[-1] if lines else run.returncode, 200)}"
        found = {"chapter": name, "outputs": 1, "differing": 1, "rounding": 0, "first": first}
        return json.dumps(found).encode()
    return run.stdout
