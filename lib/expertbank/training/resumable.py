"""Long work in many jobs, each with a file of its own: a killed run goes on where it stopped.

Finished files wait in `<folder>.partial`; whoever began the work makes the folder of them and
removes the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import joblib
import torch
from tqdm import tqdm

from expertbank._files import write_atomically


def open_partial(folder, recipe: dict | None = None) -> Path:
    """The folder `<folder>.partial`, made where it is missing, for the files of `run_jobs`.

    Raises ValueError where it was begun with another recipe: what is in it belongs to other work.
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
    if (begun := json.loads(note.read_text())) != recipe:
        raise ValueError(f"{partial} was begun with {begun}, not {recipe}; remove it to start over")
    return partial


def run_jobs(jobs: dict[Path, tuple], label: str, n_jobs: int | None = None) -> None:
    """Do every job `path: (function, *arguments)` whose file is missing; the function returns the
    bytes to put there.

    Jobs are spread over workers by joblib: `n_jobs` processes, or whatever `joblib.parallel_config`
    says, such as a Dask cluster that shares the files. `label` stands before the progress bar.
    Arrays should be arguments of their own and not inside others, so that each worker gets them
    once.
    """
    todo = {path: job for path, job in jobs.items() if not path.exists()}
    workers = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    done = workers(joblib.delayed(_to_file)(path, *job) for path, job in todo.items())
    for _ in tqdm(done, total=len(jobs), initial=len(jobs) - len(todo), desc=label, smoothing=0.05):
        pass


def _to_file(path: Path, function: Callable[..., bytes], *arguments) -> None:
    # one process per core: the same sums in the same order on every machine
    torch.set_num_threads(1)
    content = function(*arguments)
    write_atomically(path, lambda file: file.write(content))
