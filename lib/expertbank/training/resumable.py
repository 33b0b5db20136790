"""Long work in many tasks, each with a file of its own: a killed run goes on where it stopped.

Finished files wait in `<folder>.partial`, which belongs to one run and one manifest. What comes of
them is put together there too, and becomes `<folder>` by one rename.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from expertbank._files import PathLike, one_line, read_arrays, write_atomically
from expertbank.shipped.manifest import check_free, read_json

# a function that returns the bytes of a file, and its arguments
Task = tuple[Any, ...]
BEGUN = "begun.json"  # the manifest that a run was begun with
LOCK = "lock"
SHOWN = 3  # differences between two manifests that a sentence names
WATCH = 0.5  # seconds between two looks at whether the parent lives


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of long work, with a sentence on what was kept.

    >>> str(Interrupted({"bank.partial": 7}))
    '7 finished parts are kept in bank.partial; the same command goes on from there'
    """

    def __init__(self, kept: dict[PathLike, int]):
        self.kept = kept
        places = ", ".join(str(place) for place in list(kept)[:SHOWN])
        if len(kept) > SHOWN:
            places += f" and {len(kept) - SHOWN} more"
        count = sum(kept.values())
        parts = "1 finished part is" if count == 1 else f"{count} finished parts are"
        super().__init__(f"{parts} kept in {places}; the same command goes on from there")


@contextmanager
def resumed(folder: PathLike, manifest: dict, holds: str) -> Iterator[tuple[Path, Path]]:
    """Where finished tasks wait, and where to put the result together: it becomes `folder` when
    the block ends well, and what waited is removed.

    Raises FileExistsError where `folder` already holds something, and ValueError where another
    run is at work on it or where it was begun with another manifest: what is there belongs to
    other work.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     with resumed(f"{home}/word", {"seed": 1}, "a word") as (finished, whole):
    ...         whole.mkdir()
    ...     os.listdir(home)
    ['word']
    """
    target = Path(os.path.realpath(folder))
    _check_empty(target, holds)
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        # the system lets go of it when a run is killed
        lock = FileLock(partial / LOCK).acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another run is at work in {partial}; wait for it or choose another folder"
        ) from None
    with lock:
        _check_empty(target, holds)  # the other run may just have ended
        _check_begun(partial, manifest)
        whole = partial / "whole"
        shutil.rmtree(whole, ignore_errors=True)  # of a run that was killed at its end
        try:
            yield partial, whole
        except KeyboardInterrupt as stop:
            inside = stop.kept if isinstance(stop, Interrupted) else {}
            raise Interrupted({partial: _count_finished(partial)} | inside) from None
        os.replace(whole, target)
        shutil.rmtree(partial)


def _count_finished(partial: Path) -> int:
    own = (BEGUN, LOCK)
    return sum(path.is_file() and path.name not in own for path in partial.glob("[!.]*"))


def run_missing(tasks: dict[Path, Task], label: str, n_jobs: int | None = None) -> None:
    """Run every task `path: (function, *arguments)` whose file is missing; the function returns the
    bytes to put there.

    Tasks are spread over workers by joblib: `n_jobs` processes, or whatever
    `joblib.parallel_config` says, such as a Dask cluster that shares the files. Processes end with
    the one that started them. `label` stands before the progress bar. Arrays should be arguments of
    their own and not inside others, so that each worker gets them once.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     path = Path(home, "word.txt")
    ...     run_missing({path: (str.encode, "done")}, "words", n_jobs=1)
    ...     path.read_text()
    'done'
    """
    missing = {path: task for path, task in tasks.items() if not path.exists()}
    ending = {"initializer": _end_with, "initargs": (os.getpid(),)}
    workers = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", **ending)
    done = workers(joblib.delayed(_to_file)(path, *task) for path, task in missing.items())
    finished = len(tasks) - len(missing)
    for _ in tqdm(done, total=len(tasks), initial=finished, desc=label, smoothing=0.05):
        pass


def pack_run(numbers: dict[str, float], arrays: dict[str, Any]) -> bytes:
    """The file of a finished run: numbers by name, and arrays called neither `names` nor
    `values`; `unpack_run` reads it.

    >>> pack_run({"loss": 0.5}, {"errors": np.array([0, 1])})[:2]  # a zip
    b'PK'
    """
    file = io.BytesIO()
    np.savez_compressed(file, names=list(numbers), values=list(numbers.values()), **arrays)
    return file.getvalue()


def unpack_run(path: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Numbers and arrays of a file that holds what `pack_run` gave.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     path = Path(home, "run.npz")
    ...     _ = path.write_bytes(pack_run({"loss": 0.5}, {"errors": np.array([0, 1])}))
    ...     numbers, arrays = unpack_run(path)
    >>> numbers, arrays["errors"].tolist()
    ({'loss': 0.5}, [0, 1])
    """
    arrays = read_arrays(path)
    names = arrays.pop("names").tolist()
    values = arrays.pop("values").tolist()
    return dict(zip(names, values, strict=True)), arrays


def provenance(*packages: str, **place: str) -> dict[str, dict[str, str]]:
    """What a manifest says of how its numbers were made: versions of packages, and the machine.

    >>> made = provenance("numpy", device="cpu")
    >>> list(made["versions"]), list(made["trained_on"])
    (['numpy'], ['device', 'processor', 'machine', 'python'])
    """
    machine = {"processor": processor(), "machine": platform.machine()}
    machine |= {"python": platform.python_version()}
    versions = {name: version(name) for name in packages}
    return {"versions": versions, "trained_on": place | machine}


def processor() -> str:
    """The model of the processor, which decides the last bits of a sum; empty where none is told.

    >>> processor() == processor()
    True
    """
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _check_empty(target: Path, holds: str) -> None:
    check_free(target, holds)
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty; choose another folder for {holds}")


def _check_begun(partial: Path, manifest: dict) -> None:
    """Note what a run was begun with, or raise ValueError where that was something else."""
    note = partial / BEGUN
    text = json.dumps(manifest, indent=2)
    if not note.exists():
        if any(path.name != LOCK for path in partial.iterdir() if path.name[0] != "."):
            raise ValueError(f"{partial} does not say what it was begun with; remove it")
        write_atomically(note, lambda file: file.write(text.encode()))
    begun = _leaves(read_json(note))
    wanted = _leaves(json.loads(text))
    differing = []
    for name in begun | wanted:
        was = begun.get(name, "nothing")
        now = wanted.get(name, "nothing")
        if was != now:
            differing.append(f"{name} {one_line(was, 40)}, not {one_line(now, 40)}")
    if differing:
        found = "; ".join(differing[:SHOWN])
        raise ValueError(f"{partial} was begun with {found}; remove it to start over")


def _leaves(tree: Any, name: str = "") -> dict[str, Any]:
    """What a manifest states, without its nesting: `recipe.seed` and its value."""
    if not isinstance(tree, dict):
        return {name: tree}
    found = {}
    for key, value in tree.items():
        found |= _leaves(value, f"{name}.{key}" if name else key)
    return found


def _to_file(path: Path, function: Callable[..., bytes], *arguments) -> None:
    # one process per core: the same sums in the same order on every machine
    torch.set_num_threads(1)
    content = function(*arguments)
    write_atomically(path, lambda file: file.write(content))


def _end_with(parent: int) -> None:
    """End this worker soon after the process that started it, however that was killed; Ctrl-C is
    for that one alone."""
    if threading.current_thread() is threading.main_thread():  # else it is no process of its own
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
