"""A loss table's pictures and numbers as one file that needs nothing else."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from expertbank._files import write_atomically
from expertbank.book.explorers.explorer import Explorer
from expertbank.book.explorers.grid import as_html
from expertbank.book.palette import style_sheet
from expertbank.book.tables import NumberedTable, table
from expertbank.book.your_table.scenes import explore_choice, explore_curve, facts

FRAME = Path(__file__).with_name("page.html")
DRAWING = Path(__file__).parents[1] / "explorers"
SCRIPT = DRAWING / "bundle" / "explorer.js"


def write_page(
    path: str | Path,
    title: str,
    sentences: Sequence[str],
    explorers: Sequence[Explorer],
    tables: Sequence[NumberedTable] = (),
) -> None:
    """Write `path`, a page with the sentences, the explorers and the tables; it asks for no other
    file and no host.

    Raises FileNotFoundError where the drawing module has not been bundled.
    """
    if not SCRIPT.is_file():
        raise FileNotFoundError(
            f"{SCRIPT} is missing and needed to draw: run `make book` in a checkout, which bundles "
            "it (Node.js 18 or newer)"
        )
    parts = [f"<p>{'<br>'.join(map(escape, sentences))}</p>"]
    parts += [as_html(explorer.packed()) for explorer in explorers]
    parts += map(_region, tables)
    page = string.Template(FRAME.read_text()).substitute(
        title=escape(title),
        style=style_sheet() + (DRAWING / "explorer.css").read_text(),
        body="\n".join(parts),
        script=SCRIPT.read_text().replace("</script", "<\\/script"),
    )
    write_atomically(path, lambda file: file.write(page.encode()))


def _region(numbers: NumberedTable) -> str:
    """A table that scrolls where the page is narrower."""
    label = escape(numbers.caption)
    role = 'class="scroll" tabindex="0" role="region"'
    return f'<div {role} aria-label="{label}">{numbers._repr_html_()}</div>'


def write_curve(path: str | Path, name: str, losses: Any, points: np.ndarray) -> None:
    """A page on D(R) of the table `name`: `points` (P, 4) are prices, rates, losses and
    certificates."""
    headers = ["price λ of a nat", "rate, nats", "mean loss", "certificate, nats"]
    numbers = table(points.tolist(), headers, "Points of the curve.", "tbl-points", formats=".6g")
    write_page(path, f"D(R) of {name}", facts(losses), [explore_curve(losses)], [numbers])


def write_bounds(
    path: str | Path,
    name: str,
    losses: ArrayLike,
    rungs: Mapping[str, Sequence[tuple[str, float, float]]],
) -> None:
    """A page on a selection from the table `name`: `rungs` hold, by learner, the gap and every
    bound with its value and its Monte Carlo error."""
    headers = ["from loose to tight", "value", "± error"]
    tables = [
        table([_rung(*rung) for rung in found], headers, learner, f"tbl-learner-{place}")
        for place, (learner, found) in enumerate(rungs.items())
    ]
    write_page(path, f"Bounds for {name}", facts(losses), [explore_choice(losses)], tables)


def _rung(name: str, value: float, error: float) -> list[str]:
    return [name, f"{value:.4f}", f"{error:.1g}" if error else ""]
