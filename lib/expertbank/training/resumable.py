"""Long work in many tasks, each with a file of its own: a killed run goes on where it stopped.

Finished files wait in `<folder>.partial`; whoever began the work makes the folder of them and
removes the rest.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import torch
from tqdm import tqdm

from expertbank._files import write_atomically

# a function that returns the bytes of a file, and its arguments
Task = tuple[Any, ...]


def open_partial(folder: str | os.PathLike, recipe: dict | None = None) -> Path:
    """The folder `<folder>.partial`, made where it is missing, for the files of `run_missing`.

    Raises ValueError where it was begun with another recipe: what is in it belongs to other work.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     open_partial(f"{home}/bank", {"seed": 1}).name
    'bank.partial'
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    if recipe is None:
        return partial
    note = partial / "recipe.json"
    if not note.exists():
        text = json.dumps(recipe).encode()
        write_atomically(note, lambda file: file.write(text))
    begun = json.loads(note.read_text())
    if begun != recipe:
        raise ValueError(f"{partial} was begun with {begun}, not {recipe}; remove it to start over")
    return partial


def run_missing(tasks: dict[Path, Task], label: str, n_jobs: int | None = None) -> None:
    """Run every task `path: (function, *arguments)` whose file is missing; the function returns the
    bytes to put there.

    Tasks are spread over workers by joblib: `n_jobs` processes, or whatever
    `joblib.parallel_config` says, such as a Dask cluster that shares the files. `label` stands
    before the progress bar. Arrays should be arguments of their own and not inside others, so that
    each worker gets them once.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     path = Path(home, "word.txt")
    ...     run_missing({path: (str.encode, "done")}, "words", n_jobs=1)
    ...     path.read_text()
    'done'
    """
    missing = {path: task for path, task in tasks.items() if not path.exists()}
    workers = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    done = workers(joblib.delayed(_to_file)(path, *task) for path, task in missing.items())
    finished = len(tasks) - len(missing)
    for _ in tqdm(done, total=len(tasks), initial=finished, desc=label, smoothing=0.05):
        pass


def provenance(*packages: str, **place: str) -> dict[str, dict[str, str]]:
    """What a manifest says of how its numbers were made: versions of packages, and the machine.

    >>> made = provenance("numpy", device="cpu")
    >>> list(made["versions"]), list(made["trained_on"])
    (['numpy'], ['device', 'machine', 'python'])
    """
    machine = {"machine": platform.machine(), "python": platform.python_version()}
    versions = {name: version(name) for name in packages}
    return {"versions": versions, "trained_on": place | machine}


def _to_file(path: Path, function: Callable[..., bytes], *arguments) -> None:
    # one process per core: the same sums in the same order on every machine
    torch.set_num_threads(1)
    content = function(*arguments)
    write_atomically(path, lambda file: file.write(content))
