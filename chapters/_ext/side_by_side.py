"""Chapters are executed side by side, one a core, and again whenever the library or its data has
changed.

MyST-NB executes one chapter after the other; here they go through the same cache, filled before it
looks. Neither it nor jupyter-cache notices that a library changed, so a stamp of its files lies
beside the cache: where it differs, the cache is emptied and every notebook is read anew. A chapter
that fails is left to MyST-NB, which reports it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor

# what results depend on, as patterns below the root
WATCHED = ("lib/**/*", "data/**/*", "chapters/_ext/*")
CHAPTER = {"name": "myst_nb_md", "type": "plugin"}


def stamp(root: Path) -> str:
    """Names, sizes and times of all files that results depend on."""
    found = [path for pattern in WATCHED for path in root.glob(pattern)]
    files = [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    seen = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files)]
    return hashlib.sha256(repr(seen).encode()).hexdigest()


def notebooks(env, names) -> list[str]:
    return sorted(name for name in names if "kernelspec:" in Path(env.doc2path(name)).read_text())


def forget(app, env, added, changed, removed) -> list[str]:
    """What must be read again because the library is another one.

    The stamp is also kept in the environment, which Sphinx stores only after reading: a build that
    was stopped between emptying the cache and reading every chapter is made up for by the next one.
    """
    folder = Path(app.config.nb_execution_cache_path)
    now = stamp(Path(app.confdir))
    note = folder.with_name(folder.name + ".stamp")
    if not note.exists() or note.read_text() != now:
        shutil.rmtree(folder, ignore_errors=True)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(now)
    known = getattr(env, "side_by_side_stamp", None)
    env.side_by_side_stamp = now
    if known == now:
        return []
    return notebooks(env, env.found_docs - added)


def execute(app, env, names) -> None:
    """Fill the cache with the chapters that are about to be read."""
    chapters = notebooks(env, names)
    if app.config.nb_execution_mode != "cache" or len(chapters) < 2:
        return
    cache = get_cache(app.config.nb_execution_cache_path)
    paths = [Path(env.doc2path(name)).resolve() for name in chapters]
    # the longest first: one that starts last would leave the other cores idle
    paths.sort(key=lambda path: path.stat().st_size, reverse=True)
    for path in paths:
        cache.add_nb_to_project(str(path), read_data=CHAPTER)
    # chapters share the cores already
    for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(threads, "1")
    # jupyter-cache's own parallel executor hands out chapters by threes
    run = partial(execute_one, cache.path, app.config.nb_execution_timeout)
    with ProcessPoolExecutor() as pool:
        list(pool.map(run, map(str, paths)))


def execute_one(cache_path, timeout: int, path: str) -> None:
    load_executor("local-serial", get_cache(cache_path)).run_and_cache(
        filter_uris=[path], timeout=timeout
    )


def place(app, config) -> None:
    if not config.nb_execution_cache_path:
        config.nb_execution_cache_path = str(Path(app.outdir).parent / ".jupyter_cache")


def setup(app):
    # what keeps the tools quiet would hide what a chapter shows to those who run it
    os.environ.pop("PYTHONWARNINGS", None)
    app.connect("config-inited", place)
    app.connect("env-get-outdated", forget)
    app.connect("env-before-read-docs", execute)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
