"""What the tests execute is read from a measurement of these very files."""

import os
import time

import pytest
from coverage import Coverage

import wings


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A library of one file in the core, three of whose four lines were executed."""
    library = tmp_path / "lib" / "expertbank"
    library.mkdir(parents=True)
    path = library / "small.py"
    path.write_text("def double(x):\n    return 2 * x\n\n\ndef half(x):\n    return x / 2\n")
    monkeypatch.setattr(wings, "LIBRARY", library)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COVERAGE_FILE", raising=False)
    found = Coverage(data_file=str(tmp_path / ".coverage"))
    found.get_data().add_lines({str(path): [1, 2, 5]})
    found.get_data().write()
    os.utime(path, ns=(0, 0))
    return path


def test_a_wing_that_is_executed_too_little_fails(measured, capsys):
    assert wings.main() == 1
    assert "75.0 %  at least 95 % is wanted" in capsys.readouterr().out


def test_files_newer_than_the_measurement_are_named(measured, capsys):
    """Lines moved, and what was executed would be counted as if it were not."""
    later = time.time_ns() + 10**9
    os.utime(measured, ns=(later, later))
    assert wings.main() == 2
    assert f"changed since then are {measured}" in capsys.readouterr().out
