"""The wings of the library: which file stands in which, and how much of each the tests execute.

`python tests/wings.py` reads what `pytest --cov` measured, prints a line for each wing, and fails
where too little of one is executed, or where a file was changed since: its lines are others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coverage import Coverage

LIBRARY = Path(__file__).parents[1] / "lib" / "expertbank"
FOLDERS = ("shipped", "routers", "training", "book", "reproduction")
# percent of the lines; training needs torch and MNIST, and chapters execute the figures
LEAST = {"core": 95, "routers": 95}


def wing_of(path: Path) -> str:
    """The part of the house that a module stands in."""
    first = path.relative_to(LIBRARY).parts[0]
    if first == "cli.py":
        return "cli"
    return first if first in FOLDERS else "core"


def executed(measured: Coverage, paths: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """For each wing how many lines hold a statement, and how many of these were executed."""
    found: dict[str, tuple[int, int]] = {}
    for path in paths:
        _, statements, _, missing, _ = measured.analysis2(str(path))
        lines, run = found.get(wing_of(path), (0, 0))
        found[wing_of(path)] = lines + len(statements), run + len(statements) - len(missing)
    return found


def changed_since(measured: Path, paths: Iterable[Path]) -> list[str]:
    """The files that were written after a measurement: its numbers of lines mean nothing there."""
    when = measured.stat().st_mtime_ns
    return [str(path) for path in paths if path.stat().st_mtime_ns > when]


def main() -> int:
    """Print the table; 1 where a wing has too little, 2 where files are newer than the numbers."""
    from coverage import Coverage

    measured = Coverage()
    measured.load()
    paths = sorted(LIBRARY.rglob("*.py"))
    newer = changed_since(Path(measured.get_data().data_filename()), paths)
    if newer:
        print(f"measure again with pytest --cov: changed since then are {', '.join(newer)}")
        return 2
    status = 0
    print("wing      lines  executed")
    for wing, (lines, run) in executed(measured, paths).items():
        percent = 100 * run / lines
        least = LEAST.get(wing, 0)
        note = "" if percent >= least else f"  at least {least} % is wanted"
        print(f"{wing:9} {lines:5} {percent:7.1f} %{note}")
        status |= percent < least
    return status


if __name__ == "__main__":
    sys.exit(main())
