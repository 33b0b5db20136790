"""The chain of trust of what pages load: whose files are taken, which are refused, and that the
same inputs give the same bytes."""

from __future__ import annotations

import io
import json
import zipfile

import carrier
import pytest

NAME = "numpy-2.4.3-cp314-cp314-pyemscripten_2026_0_wasm32.whl"


@pytest.fixture
def sources(monkeypatch, tmp_path):
    """Sources that the test makes, an empty cache, and a lock that states b"right"."""
    found = {}
    monkeypatch.setattr(carrier, "SOURCES", found)
    entry = {"file_name": "a.whl", "sha256": carrier.sha256_of(b"right"), "version": "1"}
    monkeypatch.setattr(carrier, "read_lock", lambda: {"packages": {"a": entry}})
    return found


def unreachable(name):
    raise OSError("no network")


def test_the_first_source_that_has_a_file_is_taken_and_kept(sources, tmp_path):
    asked = []
    sources["away"] = unreachable
    sources["without it"] = lambda name: None
    sources["near"] = lambda name: asked.append(name) or b"right"
    sources["far"] = unreachable
    for _ in range(2):
        assert carrier.wheel("a", tmp_path / "cache") == b"right"
    assert asked == ["a.whl"], "what was verified is kept"
    (tmp_path / "cache" / "a.whl").write_bytes(b"damaged")
    assert carrier.wheel("a", tmp_path / "cache") == b"right"
    assert asked == ["a.whl", "a.whl"]


def test_a_wrong_file_is_refused_and_named(sources, tmp_path):
    sources["a mirror"] = lambda name: b"wrong"
    sources["far"] = lambda name: b"right"
    with pytest.raises(carrier.Missing, match=r"a\.whl of a mirror is not the one .* allowed is"):
        carrier.wheel("a", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_source_one_line_says_what_helps(sources, tmp_path):
    sources["away"] = unreachable
    with pytest.raises(carrier.Missing, match=r"^a\.whl is not .* \(OSError\); set EXPERTBANK_WHE"):
        carrier.wheel("a", tmp_path)


def test_a_folder_of_the_user_is_asked_first(monkeypatch, tmp_path):
    assert next(iter(carrier.SOURCES.values())) is carrier.from_folder
    monkeypatch.delenv("EXPERTBANK_WHEELS", raising=False)
    assert carrier.from_folder("a.whl") is None
    monkeypatch.setenv("EXPERTBANK_WHEELS", str(tmp_path))
    assert carrier.from_folder("a.whl") is None
    (tmp_path / "a.whl").write_bytes(b"mine")
    assert carrier.from_folder("a.whl") == b"mine"


def test_two_files_are_taken_from_the_carrier_and_nothing_else(monkeypatch, tmp_path):
    opened = []

    def download(command, **options):
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/carrier.whl", "w") as file:
            file.writestr(f"{carrier.WITHIN_CARRIER}/{NAME}", b"a wheel")
            file.writestr("open_webui/main.py", b"its own code")

    read = zipfile.ZipFile.read
    monkeypatch.setattr(carrier.subprocess, "run", download)
    monkeypatch.setattr(
        zipfile.ZipFile, "read", lambda file, name: opened.append(name) or read(file, name)
    )
    assert carrier.from_carrier(NAME) == b"a wheel"
    assert opened == [f"{carrier.WITHIN_CARRIER}/{NAME}"]
    with pytest.raises(KeyError):
        carrier.from_carrier("another.whl")


def test_zips_are_the_same_whatever_the_order_and_the_day(tmp_path, monkeypatch):
    members = [("b/c.py", b"1"), ("a.txt", b"2" * 1000)]
    carrier.write_zip(tmp_path / "one.zip", members)
    monkeypatch.setattr("time.time", lambda: 2e9)
    carrier.write_zip(tmp_path / "two.zip", reversed(members))
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_parts_of_a_wheel_that_nothing_uses_are_left_out():
    whole = io.BytesIO()
    kept = ["scipy/special/_a.so", "scipy/special/_a.py", "scipy-1.dist-info/LICENSE.txt"]
    gone = ["scipy/stats/_a.py", "scipy/linalg/tests/test_a.py", "scipy/linalg/a.pyi", "scipy/io/"]
    with zipfile.ZipFile(whole, "w") as file:
        for name in [*kept, *gone, "scipy-1.dist-info/RECORD"]:
            file.writestr(name, name)
    assert dict(carrier.trimmed(whole.getvalue())) == {name: name.encode() for name in kept}


def test_the_folder_is_whole_and_the_same_each_time(base, tmp_path):
    again = carrier.build(tmp_path / "live")
    files = {path.relative_to(base): path for path in base.rglob("*") if path.is_file()}
    assert files and set(files) == {x.relative_to(again) for x in again.rglob("*") if x.is_file()}
    for name, path in files.items():
        assert path.read_bytes() == (again / name).read_bytes(), name
    listed = json.loads((base / "live.json").read_text())["files"]
    assert set(listed) == {x.name for x in base.iterdir() if x.is_file()} - {"live.json"}
    lock = json.loads((base / carrier.LOCK).read_text())["packages"]
    assert set(lock) == {"numpy", "scipy"}
    for entry in lock.values():
        assert listed[entry["file_name"]]["sha256"] == entry["sha256"]
    for name in carrier.CORE:
        assert (base / name).read_bytes() == (carrier.PYODIDE / name).read_bytes()
    assert sum(entry["bytes"] for entry in listed.values()) < 32e6


def test_the_site_states_the_licences_of_what_it_ships(base):
    licences = {path.name: path.read_text() for path in (base / "LICENCES").iterdir()}
    for name, words in {
        "README.txt": "Its source: https://github.com/pyodide/pyodide",
        "Pyodide.txt": "Mozilla Public License Version 2.0",
        "Python.txt": "PYTHON SOFTWARE FOUNDATION LICENSE",
        "OpenBLAS.txt": "The OpenBLAS Project",
        "numpy-LICENSE.txt": "NumPy Developers",
        "scipy-LICENSE.txt": "Enthought",
        "expertbank.txt": "MIT License",
    }.items():
        assert words in licences[name], name
    # nothing of the wheel that carried two files
    assert "open_webui" not in str(sorted(base.rglob("*")))


def test_the_library_in_the_page_is_what_the_page_uses(base):
    with zipfile.ZipFile(base / "expertbank.zip") as content:
        names = content.namelist()
    assert "expertbank/book/explorers/live.py" in names
    assert "expertbank/book/explorers/__pycache__/live.cpython-314.pyc" in names
    assert "expertbank/shipped/data/banks/mnist/predictions.npz" in names
    left_out = ("expertbank/training", "expertbank/book/figures/vector", "expertbank/cli", "tests/")
    assert not [name for name in names if name.startswith(left_out)]
    # what cells may ask for lies beside it, each file by itself
    later = json.loads((base / "live.json").read_text())["later"]
    assert sorted(later) == sorted(
        path.relative_to(base / "later").as_posix()
        for path in (base / "later").rglob("*")
        if path.is_file()
    )
    assert "data/banks/family/grid-05000/predictions.npz" in later
    assert not [name for name in later if name.endswith(".safetensors")]
    with zipfile.ZipFile(base / "later" / carrier.REST) as content:
        parts = {name.split("/")[1] for name in content.namelist()}
    assert "stats" in parts and parts <= set(carrier.WITHOUT)
    assert not [name for name in names if name.endswith((".safetensors", ".js", "widget.py"))]
