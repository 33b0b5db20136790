"""What the tests share: reproducible hypothesis, banks to play with, and what may be skipped where.

torch and MNIST may be missing on a reader's machine, where their tests are skipped with a reason.
In continuous integration (the variable CI is set) both must be there, and a missing one fails.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from expertbank.shipped.bank import load_bank, save_bank
from support import skip_or_fail

# the same examples on every run; HYPOTHESIS_PROFILE=explore looks for new ones
settings.register_profile(
    "suite",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@pytest.fixture(scope="session")
def torch():
    """The module, where the `train` extra is installed."""
    try:
        import safetensors  # noqa: F401
        import torch
        import torchvision  # noqa: F401
    except ImportError as error:
        skip_or_fail(f"training needs `pip install -e '.[train]'`: {error}")
    # as in training: the same sums in the same order, and no fight over busy cores
    torch.set_num_threads(1)
    return torch


@pytest.fixture(scope="session")
def transformers(torch):
    """The module, where the `transformers` extra is installed."""
    try:
        import transformers
    except ImportError as error:
        skip_or_fail(f"adapters need `pip install -e '.[transformers]'`: {error}")
    transformers.logging.set_verbosity_error()
    return transformers


@pytest.fixture(scope="session")
def mnist_root(torch):
    """The folder that holds MNIST/raw."""
    from expertbank.training.datasets import RAW_FILES, data_root

    missing = [name for name in RAW_FILES if not (data_root() / "MNIST" / "raw" / name).exists()]
    if missing:
        skip_or_fail(f"{data_root()} holds no MNIST (set EXPERTBANK_DATA): {missing} missing")
    return data_root()


@pytest.fixture(scope="session")
def shipped():
    """The bank of 25 CNNs that the repository ships."""
    return load_bank("mnist")


@pytest.fixture
def tiny_bank(tmp_path):
    """Arrays of a bank of 3 experts, and the root folder it was saved in under the name `tiny`."""
    rng = np.random.default_rng(0)
    labels = {"train": rng.integers(0, 10, 50), "test": rng.integers(0, 10, 20)}
    predictions = {split: rng.integers(0, 10, (len(y), 3)) for split, y in labels.items()}
    root = tmp_path / "banks"
    save_bank(root / "tiny", labels, predictions, {"title": "three random experts"})
    return root, labels, predictions


@pytest.fixture
def contents():
    """A function that maps a folder to the bytes and modification time of every file in it."""

    def read(folder):
        return {
            str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return read


def pytest_collection_modifyitems(items):
    """Chapters are compared by what they print: nbval leaves PNG out of itself, SVG it does not."""
    for chapter in {item.parent for item in items if hasattr(item.parent, "skip_compare")}:
        chapter.skip_compare += ("image/svg+xml",)


def pytest_terminal_summary(terminalreporter):
    """What passing tests measured, collected from all worker processes."""
    for report in terminalreporter.getreports("passed"):
        for name, line in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(line)
