"""Folders that benchmarks write: one that is finished is refused, any other is gone on with.

A folder is finished for a benchmark once its manifest lists the benchmark's results; two of them
may share a folder, and its manifest.
"""

from __future__ import annotations

from pathlib import Path

from expertbank.shipped.manifest import MANIFEST, read_manifest, seal


def begin(folder: Path, results: str) -> Path:
    """Where the results stand or will stand, in a folder that is made where it is missing; the
    program ends with one sentence where they are finished."""
    try:
        if results in listed(folder):
            held = f"{folder} already holds a finished {results}"
            raise FileExistsError(f"{held}; choose another folder or move it away")
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    return folder / results


def finish(folder: Path, about: dict, *results: str) -> None:
    """Seal the results, beside what another benchmark has sealed there."""
    seal(folder, about, sorted({*listed(folder), *results}))


def reopen(folder: Path, about: dict, results: str) -> None:
    """Leave the results unsealed, and what another benchmark has sealed there as it is."""
    others = [name for name in listed(folder) if name != results]
    (folder / MANIFEST).unlink(missing_ok=True)
    if others:
        seal(folder, about, others)


def listed(folder: Path) -> list[str]:
    """The files that the folder's manifest vouches for; none where there is no manifest."""
    if not (folder / MANIFEST).exists():
        return []
    return list(read_manifest(folder, (), "benchmark")["files"])
