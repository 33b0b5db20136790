"""What is written: whole or not at all, never in place of a link, a pipe, a device or an input; and
a command that is stopped or not read to the end says no more than it must."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from expertbank import _files
from expertbank._files import check_outputs, write_atomically
from expertbank.cli import main
from expertbank.routers import RouterStatistics, load_statistics, routing_report
from expertbank.routers.report_page import write_html


def put(path, content=b"new"):
    write_atomically(path, lambda file: file.write(content))


@pytest.fixture
def routes(tmp_path):
    """A file of choices."""
    chosen = np.random.default_rng(0).integers(0, 4, (40, 1))
    np.savez(tmp_path / "routes.npz", chosen=chosen, n_experts=4)
    return tmp_path / "routes.npz"


def report(capsys, *arguments):
    code = main(["routes", "report", *map(str, arguments)])
    return code, *capsys.readouterr()


# --- regular files and links ---


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "target.txt"
    target.write_bytes(b"old")
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    put(link)
    assert link.is_symlink() and target.read_bytes() == b"new"
    # one that points to nothing yet makes its target
    target.unlink()
    put(link, b"newer")
    assert link.is_symlink() and target.read_bytes() == b"newer"
    assert [path.name for path in target.parent.iterdir()] == ["target.txt"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        put(tmp_path / "new.txt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == 0o666 & ~mask


def test_a_file_that_was_there_keeps_its_mode(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_bytes(b"old")
    path.chmod(0o640)
    put(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and path.read_bytes() == b"new"


def test_the_new_file_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    put(tmp_path / "a.txt")
    assert done == ["fsync", "replace"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "old.txt"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["old.txt"]


def test_names_as_long_as_they_may_be(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    put(path)
    assert path.read_bytes() == b"new"


# --- what is no regular file ---


@pytest.fixture
def pipe(tmp_path):
    """A named pipe and what its reader got, once it has ended."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()), daemon=True)
    reader.start()

    def content():
        reader.join(10)
        return got[0]

    return path, content


def test_a_pipe_is_written_into(pipe):
    path, content = pipe
    put(path)
    assert content() == b"new" and stat.S_ISFIFO(path.stat().st_mode)


def test_statistics_and_pages_go_into_pipes_too(pipe, tmp_path):
    path, content = pipe
    statistics = RouterStatistics(n_experts=4, n_chosen=1)
    statistics.update(0, [[1], [2]])
    statistics.save(path)
    (tmp_path / "copy.npz").write_bytes(content())
    assert load_statistics(tmp_path / "copy.npz").layers[0].slots.tolist() == [0, 1, 1, 0]
    write_html(routing_report(statistics), tmp_path / "page.html")
    assert b"Routing report" in (tmp_path / "page.html").read_bytes()


def test_a_device_is_written_into_through_a_link(tmp_path):
    link = tmp_path / "nowhere"
    link.symlink_to("/dev/null")
    put(link)
    assert link.is_symlink() and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_folders_sockets_and_disks_are_refused(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder is a folder; allowed is a file, a pipe"):
        put(tmp_path / "folder")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # the path of a socket is short
        listener.bind("socket")
        with pytest.raises(ValueError, match="socket is a socket; allowed is a file, a pipe"):
            put(tmp_path / "socket")
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none"):
        put(tmp_path / "none" / "a.txt")
    # a disk is not made here, only told of
    (tmp_path / "disk").write_bytes(b"old")
    found = os.stat_result((stat.S_IFBLK | 0o660, *os.stat(tmp_path / "disk")[1:]))
    monkeypatch.setattr(_files, "_status", lambda path: found)
    with pytest.raises(ValueError, match="disk is a disk; allowed"):
        put(tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == b"old"


@pytest.mark.parametrize("goes_to", ["pipe", "file"])
def test_standard_output_is_no_file_to_replace(routes, tmp_path, goes_to):
    """/dev/stdout leads to a pipe, or to the file that the shell opened: text and JSON are both
    there, in this order or the other."""
    command = [sys.executable, "-c", MAIN, "routes", "report", str(routes)]
    path = tmp_path / "out.txt"
    link = tmp_path / "stdout"
    link.symlink_to("/proc/self/fd/1")
    with path.open("wb") as file:
        out = subprocess.PIPE if goes_to == "pipe" else file
        run = subprocess.run([*command, "--json", str(link)], stdout=out, stderr=subprocess.PIPE)
    text = run.stdout if goes_to == "pipe" else path.read_bytes()
    assert run.returncode == 0 and run.stderr == b""
    assert text.startswith(b"1 layer, 4 experts") and b"\n{\n" in text
    assert json.loads(text[text.index(b"\n{\n") :])["n_experts"] == 4


# --- inputs are no outputs ---


def links_to(path, folder):
    """The same file by other names."""
    soft = folder / "soft"
    soft.symlink_to(path)
    hard = folder / "hard"
    os.link(path, hard)
    return [path, soft, hard, path.parent / "." / path.name, os.path.relpath(path)]


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_an_input_is_never_an_output(routes, tmp_path, capsys, option):
    content = routes.read_bytes()
    for same in links_to(routes, tmp_path):
        code, out, err = report(capsys, routes, option, same)
        assert code == 2 and out == "" and err.count("\n") == 1
        assert "are the same file; each output needs one of its own" in err
    other = tmp_path / "other.npz"
    other.write_bytes(content)
    code, out, err = report(capsys, routes, "--against", other, option, other)
    assert code == 2 and out == "" and "are the same file" in err
    assert routes.read_bytes() == other.read_bytes() == content


def test_two_outputs_are_two_files(routes, tmp_path, capsys):
    for one, two in (("new", "new"), ("new", "./new"), ("link", "new")):
        if one == "link":
            (tmp_path / "link").symlink_to(tmp_path / "new")
        outputs = ("--json", tmp_path / one, "--html", f"{tmp_path}/{two}")
        code, out, err = report(capsys, routes, *outputs)
        assert code == 2 and out == "" and "are the same file" in err
        assert not (tmp_path / "new").exists()
    (tmp_path / "a").write_bytes(b"")
    os.link(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ValueError, match=r"b and .*a are the same file"):
        check_outputs([tmp_path / "a", tmp_path / "b"], [])
    check_outputs([tmp_path / "a", None, tmp_path / "c"], [routes, None])


def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    routes, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("expertbank.cli._statistics", pytest.fail)
    for wrong, says in ((tmp_path, "is a folder"), (tmp_path / "no" / "a", "there is no folder")):
        code, out, err = report(capsys, routes, "--json", wrong)
        assert code == 2 and out == "" and says in err and err.count("\n") == 1


def test_training_into_a_file_is_refused_before_any_work(tmp_path, capsys, torch):
    (tmp_path / "bank").write_bytes(b"mine")
    assert main(["train", "mnist", "--out", str(tmp_path / "bank")]) == 2
    assert "bank is no folder; choose another place" in capsys.readouterr().err
    assert (tmp_path / "bank").read_bytes() == b"mine" and os.listdir(tmp_path) == ["bank"]


# --- ends before the end ---

MAIN = "import sys; from expertbank.cli import main; sys.exit(main(sys.argv[1:]))"


def started(*arguments, unbuffered=""):
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("what", ["table", "help"])
def test_a_reader_who_leaves_is_no_error(tmp_path, what, unbuffered):
    np.save(tmp_path / "losses.npy", np.random.default_rng(0).random((50, 4)))
    table = ["curve", tmp_path / "losses.npy", "--lam", 0.1, 0.2]
    run = started(*(["--help"] if what == "help" else table), unbuffered=unbuffered)
    run.stdout.close()  # as `head` does
    error = run.stderr.read()
    status = run.wait(60)
    # argparse itself passes over what it could not write
    assert error == b"" and status == (0 if what == "help" and unbuffered else 141)


def test_interrupted_is_one_line_and_130(routes, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    run = started("routes", "report", routes, "--json", tmp_path / "pipe", unbuffered="1")
    assert run.stdout.readline().startswith(b"1 layer")  # the work is done: it waits for a reader
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 130 and error == b"expertbank routes report: interrupted\n"


def test_memory_that_is_not_there_is_one_line(capsys, monkeypatch):
    def refuse(path):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("expertbank.cli.read_table", refuse)
    assert main(["rate", "gate.npy"]) == 2
    said = "expertbank rate: it needs more memory than there is; Unable to allocate 9 TiB\n"
    assert capsys.readouterr().err == said
