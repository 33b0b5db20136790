"""Long runs: one manifest and one writer a partial folder, nothing lost or half-read after a kill,
and no worker that outlives its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.usefixtures("torch")

MANIFEST = {"title": "words", "recipe": {"seed": 1, "steps": [1, 2]}, "banks": {"mnist": "ab"}}


@pytest.fixture
def resumable(torch):
    from expertbank.training import resumable

    return resumable


@pytest.fixture
def started():
    """A function that starts a script in a process of its own and returns it with its first
    line."""
    processes = []

    def start(script, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def write(folder):
    folder.mkdir()
    (folder / "word").write_text("done")


# --- one manifest ---


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"recipe": {"seed": 2, "steps": [1, 2]}}, "with recipe.seed 1, not 2; remove it"),
        ({"recipe": {"seed": 1, "steps": [1, 3]}}, "with recipe.steps [1, 2], not [1, 3]; remove"),
        ({"recipe": {"seed": 1}}, "with recipe.steps [1, 2], not nothing; remove it"),
        ({"recipe": 1}, "with recipe.seed 1, not nothing; recipe.steps [1, 2], not nothing; rec"),
        ({"banks": {"mnist": "ac"}}, "with banks.mnist ab, not ac; remove it"),
        ({"versions": {"torch": "3"}}, "with versions.torch nothing, not 3; remove it"),
        ({"title": "x" * 999}, "with title words, not xxxx"),
    ],
)
def test_another_manifest_is_refused_by_what_differs(resumable, tmp_path, contents, change, says):
    with pytest.raises(KeyboardInterrupt), resumable.resumed(tmp_path / "a", MANIFEST, "a word"):
        raise KeyboardInterrupt
    before = contents(tmp_path)
    other = resumable.resumed(tmp_path / "a", MANIFEST | change, "a word")
    with pytest.raises(ValueError) as caught, other:
        pytest.fail("it went on")
    message = str(caught.value)
    assert says in message and "\n" not in message and len(message) < 400
    assert contents(tmp_path) == before
    with resumable.resumed(tmp_path / "a", MANIFEST, "a word") as (_, whole):
        write(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_partial_folder_that_says_nothing_or_nonsense_is_refused(resumable, tmp_path):
    partial = tmp_path / "a.partial"
    partial.mkdir()
    (partial / "word").write_text("from where?")
    with pytest.raises(ValueError, match=r"a\.partial does not say what it was begun with"):
        resumable.resumed(tmp_path / "a", MANIFEST, "a word").__enter__()
    for text in ("", "{", "[" * 100_000):
        (partial / "begun.json").write_text(text)
        with pytest.raises(ValueError, match=r"begun\.json is not JSON") as caught:
            resumable.resumed(tmp_path / "a", MANIFEST, "a word").__enter__()
        assert "\n" not in str(caught.value)
    (partial / "begun.json").write_text("[]")
    with pytest.raises(ValueError, match="was begun with"):
        resumable.resumed(tmp_path / "a", MANIFEST, "a word").__enter__()
    assert (partial / "word").read_text() == "from where?"


def test_what_exists_is_neither_written_over_nor_mixed_with(resumable, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="notes is not empty; choose another folder for a wo"):
        resumable.resumed(tmp_path / "notes", MANIFEST, "a word").__enter__()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file is no folder"):
        resumable.resumed(tmp_path / "file", MANIFEST, "a word").__enter__()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "notes"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with resumable.resumed(tmp_path / "link", MANIFEST, "a word") as (_, whole):
        write(whole)
    assert (tmp_path / "empty" / "word").exists() and (tmp_path / "link").is_symlink()


# --- one writer ---

HOLDS = """
import sys, time
from expertbank.training.resumable import resumed
with resumed(sys.argv[1], {"seed": 1}, "a word"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_writer_gets_one_sentence_and_a_killed_one_is_in_nobodys_way(
    resumable, tmp_path, started
):
    first, said = started(HOLDS, tmp_path / "a")
    assert said == "held"
    with pytest.raises(ValueError, match=r"another run is at work in .*a\.partial; wait") as caught:
        resumable.resumed(tmp_path / "a", {"seed": 1}, "a word").__enter__()
    assert "\n" not in str(caught.value)
    with resumable.resumed(tmp_path / "b", {"seed": 1}, "a word") as (_, whole):
        write(whole)  # elsewhere it may
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / "a.partial" / "lock").exists()
    with resumable.resumed(tmp_path / "a", {"seed": 1}, "a word") as (_, whole):
        with pytest.raises(ValueError, match="another run is at work"):  # of the same process too
            resumable.resumed(tmp_path / "a", {"seed": 1}, "a word").__enter__()
        write(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_writer_that_waited_for_the_end_does_not_begin_anew(resumable, tmp_path, monkeypatch):
    class Late(resumable.FileLock):
        def acquire(self, *given, **options):
            write(tmp_path / "a")  # the other run ends between the two looks
            return super().acquire(*given, **options)

    monkeypatch.setattr(resumable, "FileLock", Late)
    with pytest.raises(FileExistsError, match="a is not empty"):
        resumable.resumed(tmp_path / "a", MANIFEST, "a word").__enter__()
    assert (tmp_path / "a" / "word").read_text() == "done"


# --- no worker outlives its run ---

WORKS = """
import sys
from pathlib import Path
from expertbank.training.resumable import run_missing

def begin(folder, name):
    import os, time
    from pathlib import Path
    Path(folder, f"{name}.pid").write_text(str(os.getpid()))
    end = time.monotonic() + 600
    while time.monotonic() < end:  # busy, as training is
        pass
    return b""

tasks = {Path(sys.argv[1], name): (begin, sys.argv[1], name) for name in ("one", "other")}
print("begun", flush=True)
run_missing(tasks, "words", n_jobs=3)  # one has nothing to do
"""


def is_alive(pid):
    """Whether a process is there and no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


def children(parent):
    """Processes that a process started: workers, and what watches over their memory."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    pairs = [line.split() for line in listed.splitlines()]
    return [pid for pid, ppid in pairs if ppid == str(parent)]


def until(happened, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_run_that_started_them(tmp_path, started, how):
    parent, said = started(WORKS, tmp_path)
    assert said == "begun"

    def pids():
        return [path.read_text() for path in tmp_path.glob("*.pid")]

    until(lambda: len([pid for pid in pids() if pid]) == 2)
    busy = pids()
    time.sleep(1.5)  # as long as the run lives, they do
    begun = children(parent.pid)
    assert len(set(busy)) == 2 and len(begun) >= 3 and set(busy) < set(begun)
    assert all(is_alive(pid) for pid in busy)
    parent.send_signal(how)
    parent.wait()
    until(lambda: not any(is_alive(pid) for pid in begun), 30)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".pid"]


def test_a_run_in_one_process_is_not_watched(resumable, tmp_path, monkeypatch):
    path = tmp_path / "pid"
    resumable.run_missing({path: (lambda: str(os.getpid()).encode(),)}, "words", n_jobs=1)
    assert path.read_text() == str(os.getpid())


# --- nothing is lost or half-read ---


def test_a_failed_task_leaves_the_finished_ones(resumable, tmp_path):
    def fail():
        raise ZeroDivisionError

    tasks = {tmp_path / "one": (str.encode, "done"), tmp_path / "other": (fail,)}
    with pytest.raises(ZeroDivisionError):
        resumable.run_missing(tasks, "words", n_jobs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    again = []
    tasks = {path: (lambda name: again.append(name) or b"done", path.name) for path in tasks}
    resumable.run_missing(tasks, "words", n_jobs=1)
    assert again == ["other"]


def test_a_result_that_a_kill_cut_short_is_put_together_anew(resumable, tmp_path):
    first = resumable.resumed(tmp_path / "a", MANIFEST, "a word")
    with pytest.raises(KeyboardInterrupt), first as (partial, whole):
        resumable.run_missing({partial / "one": (str.encode, "1")}, "words", n_jobs=1)
        whole.mkdir()
        (whole / "half").write_text("a")
        raise KeyboardInterrupt
    assert not (tmp_path / "a").exists() and (partial / "one").read_text() == "1"
    with resumable.resumed(tmp_path / "a", MANIFEST, "a word") as (partial, whole):
        assert not whole.exists()
        write(whole)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["word"]
    assert not partial.exists()
