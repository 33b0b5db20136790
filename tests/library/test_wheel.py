"""The wheel, installed beside NumPy and SciPy alone, works outside the repository."""

import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from expertbank.shipped.manifest import REPOSITORY
from support import skip_or_fail

pytestmark = pytest.mark.slow


def run(*command, **options):
    """What a command prints; its error output is the message where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    run(sys.executable, "-m", "pip", "wheel", *options, str(REPOSITORY))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def outside(wheel, tmp_path_factory):
    """Runs a command of an environment that holds the wheel and what it requires."""
    home = tmp_path_factory.mktemp("outside")
    run(sys.executable, "-m", "venv", str(home / "venv"))
    binaries = home / "venv" / "bin"
    constraints = str(REPOSITORY / "constraints.txt")
    install = [binaries / "python", "-m", "pip", "install", "--quiet"]
    try:
        run(*install, "--constraint", constraints, "numpy", "scipy")
    except AssertionError as error:
        skip_or_fail(f"NumPy and SciPy could not be installed: {error}")
    run(*install, "--no-index", str(wheel))
    # neither the checkout nor what this process imports
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "EXPERT"))}

    def command(name, *arguments):
        return run(binaries / name, *arguments, cwd=home, env=environment)

    return command


def test_the_wheel_holds_the_library_and_the_sealed_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "expertbank/py.typed" in names
    tops = {Path(name).parts[0] for name in names}
    assert {top.partition("-")[0] for top in tops} == {"expertbank"}
    data = "expertbank/shipped/data"
    for place in ("banks/mnist", "banks/family/replicate-2027", "gates", "routers", "testbed"):
        assert f"{data}/{place}/manifest.json" in names
    assert f"{data}/banks/mnist/predictions.npz" in names
    assert not [name for name in names if name.endswith((".safetensors", ".pyc"))]
    # a chapter that was downloaded alone reads what the wheel brings
    for chapter in (REPOSITORY / "chapters").glob("*.md"):
        for kind in re.findall(r'shipped_file\("([\w-]+)"', chapter.read_text()):
            assert f"{data}/{kind}/manifest.json" in names, (chapter.stem, kind)
    # predictions of 47 banks on two data sets, and the loss tables of the router model
    assert wheel.stat().st_size < 22e6


def test_nothing_else_is_installed(outside):
    listed = outside("python", "-m", "pip", "list", "--format=freeze").lower().split()
    packages = {line.partition("==")[0] for line in listed} - {"pip", "setuptools"}
    assert packages == {"expertbank", "numpy", "scipy"}


def test_plain_arrays_and_the_shipped_bank(outside):
    script = """
        import sys

        import numpy as np

        import expertbank

        assert "site-packages" in expertbank.__file__
        losses = np.random.default_rng(0).integers(0, 2, (200, 4))
        run = expertbank.simulate(losses, alpha=0.7, sample_size=16, n_datasets=100)
        assert run.information >= 0
        point = expertbank.rate_distortion(losses, lam=0.1)
        assert point.certificate <= 1e-9
        bank = expertbank.load_bank("mnist")
        print(bank.losses("test").shape)
        assert len(expertbank.load_family()) == 20
        assert not {"torch", "pandas", "matplotlib"} & set(sys.modules)
    """
    assert outside("python", "-c", textwrap.dedent(script)) == "(10000, 25)\n"


def test_the_command_line(outside):
    script = "import numpy; numpy.save('losses.npy', numpy.eye(8)[:, :4])"
    outside("python", "-c", script)
    printed = outside("expertbank", "simulate", "losses.npy", "--alpha", "0.7")
    assert "I(S;W)" in printed
