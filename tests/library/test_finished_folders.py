"""Whatever benchmark writes a folder: a finished one is refused with one sentence and not touched,
an interrupted one is gone on with. The work itself is replaced by toys."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from expertbank.shipped.manifest import MANIFEST, REPOSITORY, read_manifest, seal

BENCHMARKS = REPOSITORY / "benchmarks"
WRITERS = [path.stem for path in sorted(BENCHMARKS.glob("*.py")) if '"--out"' in path.read_text()]
# what each of them writes last
RESULTS = {
    "reference": "problems.json",
    "reference_peers": "peers.json",
    "removals": "removals.json",
    "routers": "routers.csv",
    "selection": "selection.csv",
    "solver": "solver.json",
}
NAMES = ("one", "two", "three")


class Work:
    """Which pieces of work were done; the one after `most` of them is interrupted."""

    def __init__(self):
        self.done = []
        self.most = 1000

    def piece(self, name):
        if len(self.done) == self.most:
            raise KeyboardInterrupt
        self.done.append(name)
        return {}

    def jobs(self):
        return [("tables", name, lambda name=name: self.piece(name)) for name in NAMES]


@dataclass
class Row:
    outcome: str


def bank(name, folder=None):
    return SimpleNamespace(name=name, losses=lambda split: None)


def toy_reference(patch, module, work):
    problems = {name: {"bank": name} for name in NAMES}
    patch.setattr(module.reference_tables, "problems", lambda: problems)
    patch.setattr(module, "read_losses", lambda entry: np.zeros((2, 2)))
    patch.setattr(module, "certified", lambda name, *_: work.piece(name))


def toy_reference_peers(patch, module, work):
    patch.setattr(module, "PEERS", {name: name for name in NAMES})
    patch.setattr(module, "bench", lambda name, limit: [Row("solved", **work.piece(name))])
    patch.setattr(module, "machine", dict)


def toy_removals(patch, module, work):
    def replicates(data):
        """Of the same name in both data sets, as those that are shipped."""
        return [SimpleNamespace(name="replicate-1", whole_name=f"{data}, replicate-1")]

    def row_of(one):
        return {"bank": one.name} | work.piece(getattr(one, "whole_name", one.name))

    patch.setattr(module, "load_bank", bank)
    patch.setattr(module, "load_family", replicates)
    patch.setattr(module, "row_of", row_of)


def toy_routers(patch, module, work):
    patch.setattr(module, "jobs", lambda settings: work.jobs())
    patch.setattr(module, "machine_of", lambda: "a machine")


def toy_selection(patch, module, work):
    numbers = {f"{kind}_{name}": 1.0 for kind in "IG" for name in module.MARGINS}
    found = {"I": 1.0, "G": 1.0} | numbers
    patch.setattr(module, "SIZES", (32,))
    patch.setattr(module, "load_bank", bank)
    patch.setattr(
        module, "row_of", lambda name, losses, m: {"bank": name, "m": m} | found | work.piece(name)
    )


def toy_solver(patch, module, work):
    patch.setattr(module, "SECTIONS", ("tables",))
    patch.setattr(module, "jobs", lambda settings, results: work.jobs())
    patch.setattr(module, "derive", lambda results: results.update(targets=[]))
    patch.setattr(module, "machine", dict)


@pytest.fixture(params=WRITERS)
def script(request, monkeypatch, tmp_path):
    """A function that runs a benchmark on a folder, the folder, what it did, and its results."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module(request.param)
    work = Work()
    globals()[f"toy_{request.param}"](monkeypatch, module, work)
    folder = tmp_path / "out"

    def run(*options):
        monkeypatch.setattr(sys, "argv", [request.param, "--out", str(folder), *options])
        module.main()

    return SimpleNamespace(run=run, folder=folder, work=work, results=RESULTS[request.param])


def refused(script, contents):
    before = contents(script.folder)
    with pytest.raises(SystemExit) as caught:
        script.run()
    assert contents(script.folder) == before
    sentence = caught.value.code
    assert isinstance(sentence, str) and "\n" not in sentence
    return sentence


def test_an_interrupted_folder_is_gone_on_with_and_a_finished_one_refused(script, contents):
    script.work.most = 1
    with pytest.raises(KeyboardInterrupt):
        script.run()
    assert not (script.folder / MANIFEST).exists()
    script.work.most = 1000
    script.run()
    done = list(script.work.done)
    assert len(done) == len(set(done)) > 2
    assert script.results in read_manifest(script.folder, [script.results], "benchmark")["files"]
    sentence = refused(script, contents)
    assert sentence.endswith(
        f"out already holds a finished {script.results}; choose another folder or move it away"
    )
    assert script.work.done == done


def test_a_manifest_of_something_else_stays_and_a_damaged_one_is_refused(script, contents):
    script.folder.mkdir()
    (script.folder / "other.json").write_text("{}")
    seal(script.folder, {}, ["other.json"])
    script.run()
    assert {"other.json", script.results} <= set(read_manifest(script.folder, ())["files"])
    (script.folder / MANIFEST).write_text("{")
    assert "is not a benchmark manifest" in refused(script, contents)


@pytest.mark.parametrize("script", ["solver"], indirect=True)
def test_sections_asked_for_anew_are_measured_anew_and_sealed(script):
    script.run()
    (script.folder / "other.json").write_text("{}")
    seal(script.folder, {}, ["solver.json", "other.json"])
    script.run("--only", "tables")
    assert script.work.done == [*NAMES, *NAMES]
    assert set(read_manifest(script.folder, ())["files"]) == {"other.json", "solver.json"}


def test_every_writer_has_its_toy_and_only_folders_py_seals():
    assert list(RESULTS) == WRITERS
    assert all(f"toy_{name}" in globals() for name in WRITERS)
    for path in BENCHMARKS.glob("*.py"):
        assert path.stem == "folders" or "seal(" not in path.read_text(), path.name
