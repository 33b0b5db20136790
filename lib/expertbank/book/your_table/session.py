"""What the page *Your own experts* asks for: answers as JSON text, about files that never leave the
reader's machine.

The page's worker holds one `Session`, writes what a reader drops into a folder of its own memory,
and asks. Numbers and sentences come from here; the page lays them out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from expertbank._checks import as_count, as_losses, as_number
from expertbank._files import json_ready
from expertbank.book.explorers.explorer import Explorer
from expertbank.book.your_table.scenes import TableCurve, explore_choice, facts
from expertbank.book.your_table.selection import TableLadder, width_of
from expertbank.tables import merge_rows, read_table

MOST_NUMBERS_OF_A_PAGE = 8_000_000
MOST_SAMPLES_OF_A_PAGE = 10_000
EXAMPLE_IMAGES = 2000
DATASETS = 20_000
FEWEST_DATASETS = 500
# distinct rows times experts times datasets that a page compares in some seconds
MOST_COMPARISONS = 500_000_000


@contextmanager
def in_words() -> Iterator[None]:
    """Errors that are about the page and not about the file, as ValueError of one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error}, and a page has NumPy and SciPy alone; `expertbank` on the command line "
            "reads this file"
        ) from error
    except MemoryError as error:
        raise ValueError(
            f"it needs more memory than a page has; {error}: use `expertbank` on the command line"
        ) from error


def _keep_quiet(words: str) -> None:
    """Where nobody listens."""


class Session:
    """One table at a time, its explorers and what was asked about it. `say` hears what is going on.

    >>> session = Session()
    >>> opened = json.loads(session.open_array("two", np.array([[0.0, 1.0], [1.0, 0.0]])))
    >>> opened["facts"][0], list(opened["explorers"])
    ('2 inputs, 2 experts; all losses are 0 or 1: mistakes.', ['your_curve', 'your_choice'])
    >>> found = json.loads(session.bounds(alpha=1, sample_size=8))
    >>> found["rungs"][0][0], len(found["rungs"]) > 10
    ('gap', True)
    """

    def __init__(self, say: Callable[[str], Any] = _keep_quiet) -> None:
        self.say = say
        self.name = ""
        self.losses = np.zeros((0, 0))
        self.curve: TableCurve | None = None
        self.explorers: dict[str, Explorer] = {}
        self.asked: dict[str, Any] = {}

    def open_file(self, path: str) -> str:
        """Read a table from .npy, .npz or .csv; errors are `read_table`'s."""
        name = Path(path).name
        self.say(f"Reading {name}")
        with in_words():
            return self.open_array(name, read_table(path))

    def open_example(self) -> str:
        """The mistakes of the shipped bank of 25 networks on the first test images."""
        from expertbank.shipped.bank import load_bank

        mistakes = load_bank().losses("test")[:EXAMPLE_IMAGES]
        return self.open_array("the MNIST bank on its first test images", mistakes)

    def open_array(self, name: str, losses: np.ndarray) -> str:
        """Take a table (N, R): what it holds in words, and the dials of its explorers.

        Raises ValueError for what is no table, and for one that a page should not compute with.
        """
        with in_words():
            table = as_losses(losses)
            if table.size > MOST_NUMBERS_OF_A_PAGE:
                raise ValueError(
                    f"the table holds {table.size:,} numbers; a page computes with at most "
                    f"{MOST_NUMBERS_OF_A_PAGE:,}; `expertbank curve` takes larger ones"
                )
            found = facts(table)
            curve = TableCurve(table, self.say)
            self.say("Drawing datasets that grow to 1,024 samples")
            explorers = [curve.explorer(), explore_choice(table)]
        self.name = name
        self.losses = table
        self.curve = curve
        self.explorers = {explorer.name: explorer for explorer in explorers}
        self.asked = {}
        dials = {explorer.name: _described(explorer) for explorer in explorers}
        return json.dumps({"name": name, "facts": found, "explorers": dials}, default=float)

    def scene(self, explorer: str, dials: str) -> str:
        """The scene of an explorer at a value (JSON) of every dial."""
        values = json.loads(dials)
        found = self.explorers[explorer].scene(**values)
        readings = {reading.name: reading.value for reading in found.readings}
        self.asked[explorer] = {"dials": values, "readings": readings}
        return json.dumps(found.to_json())

    def bounds(self, alpha: float, sample_size: float) -> str:
        """Gap, I(S;W) and every bound that holds for this table: name, value, Monte Carlo error.

        Raises ValueError for alpha outside [0, 1] and a sample size that a page should not draw.
        """
        alpha = as_number(alpha, "alpha", 0, 1)
        size = as_count(sample_size, "sample_size", at_most=MOST_SAMPLES_OF_A_PAGE)
        rows = merge_rows(self.losses)[0]
        are_mistakes = bool(np.isin(rows, (0, 1)).all())
        n_datasets = DATASETS
        if are_mistakes:
            n_datasets = min(DATASETS, MOST_COMPARISONS // rows.size)
        is_whole = n_datasets >= FEWEST_DATASETS
        notes = []
        if not are_mistakes:
            notes.append(
                f"Both bounds are scaled to losses that differ by at most "
                f"{width_of(self.losses):.4g}. The others need losses of 0 and 1 alone: give "
                "mistakes, for instance losses > 0.5, for all of them."
            )
        elif not is_whole:
            n_datasets = DATASETS
            notes.append(
                f"The table has {len(rows):,} distinct rows of {rows.shape[1]} experts; in a page "
                "the other bounds are computed for at most "
                f"{MOST_COMPARISONS // FEWEST_DATASETS:,} numbers in distinct rows: "
                "`expertbank bounds` has them all."
            )
        self.say(f"Drawing {n_datasets:,} datasets of {size:,} samples")
        with in_words():
            run, rungs = TableLadder(self.losses, size, n_datasets, whole=is_whole).at(alpha)
        found = {
            "alpha": alpha,
            "sample_size": size,
            "datasets": n_datasets,
            "information_nats": run.information,
            "information_interval": list(run.algorithmic.interval),
            "train_risk": run.train_risk,
            "test_risk": run.test_risk,
            "rungs": rungs,
            "notes": notes,
        }
        self.asked["bounds"] = found
        return json.dumps(found, default=float)

    def as_json(self) -> str:
        """All numbers that the page shows, as one JSON text."""
        curve = self._opened()
        n_inputs, n_experts = self.losses.shape
        found = {
            "table": self.name,
            "inputs": n_inputs,
            "experts": n_experts,
            "facts": facts(self.losses),
            "best_single_expert": curve.curve.ceiling,
            "best_expert_of_every_input": curve.curve.floor,
            "critical_lambda": curve.critical,
            "band_width": curve.width,
            "curve": {
                "columns": ["lambda", "rate_nats", "distortion", "certificate"],
                "rows": curve.points(),
            },
            **self.asked,
        }
        return json.dumps({"text": json.dumps(json_ready(found), indent=1, allow_nan=False)})

    def as_csv(self) -> str:
        """The points of the curve, as `expertbank curve` prints them."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["lambda", "rate_nats", "distortion", "certificate"])
        writer.writerows([f"{number:.8g}" for number in row] for row in self._opened().points())
        return json.dumps({"text": out.getvalue()})

    def _opened(self) -> TableCurve:
        if self.curve is None:
            raise ValueError("no table is open; give one first")
        return self.curve

    def routes(self, path: str, n_experts: int | None = None, n_chosen: int | None = None) -> str:
        """The report on a file of a router's choices, as text and as numbers.

        The two counts are for files that do not say them. Errors are those of `statistics_of`.
        """
        from expertbank.routers.formats import statistics_of
        from expertbank.routers.report import routing_report

        self.say(f"Reading {Path(path).name}")
        with in_words():
            try:
                statistics = statistics_of(path, n_experts=n_experts, n_chosen=n_chosen)
            except ValueError as error:
                # as the page calls them
                text = str(error).replace("give n_experts", "give the number of experts")
                text = text.replace("give n_chosen", "give how many a token takes")
                raise ValueError(text) from error
            report = routing_report(statistics)
        return json.dumps({"text": report.table(explain=True), "numbers": report.json()})


def _described(explorer: Explorer) -> dict[str, Any]:
    dials = {key: asdict(dial) for key, dial in explorer.dials.items()}
    return {"alt": explorer.alt, "dials": dials}
