"""What test modules share and no fixture provides: skipping, what an error must say, a manifest
sealed anew, a measurement to print.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from expertbank.shipped.manifest import MANIFEST, seal

# images of each split that tests train on
SLICE = {"train": 600, "test": 300}


def skip_or_fail(reason: str) -> NoReturn:
    """Skip on a reader's machine, fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must have it", pytrace=False)
    pytest.skip(reason)


def refused(
    call: Callable[[], object], name: str, found: str = "", error: type[Exception] = ValueError
) -> str:
    """The message of the error that `call` raises, after checking that it says what it must."""
    # and no NumPy warning on the way
    with np.errstate(all="raise"), pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert caught.type is error
    assert "\n" not in message
    assert re.search(rf"\b{re.escape(name)}\b", message), message
    assert found in message, message
    assert re.search("allowed|must|needed|needs|rectangular", message), message
    return message


def reseal(folder: Path, **changes: object) -> None:
    """Make the manifest vouch for whatever the files hold now, and for what it states newly."""
    manifest = json.loads((folder / MANIFEST).read_text())
    seal(folder, manifest | changes, list(manifest["files"]))


def say(request: pytest.FixtureRequest, line: str) -> None:
    """Keep a measurement for the end of the run, also that of a test that passes: see
    `conftest`."""
    request.node.user_properties.append(("measured", line))


def say_time(request: pytest.FixtureRequest, line: str, took: float, aim: float) -> None:
    """Keep a time beside what it should be on an idle machine.

    It fails nothing: how long something takes says as much about who else uses the machine.
    """
    say(request, f"{line} (aim {aim:g}{', missed' if took > aim else ''})")
