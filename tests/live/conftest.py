"""What the tests of the pages' Python share: the folder that pages load from."""

import sys

import pytest

from references import ROOT
from support import skip_or_fail

sys.path.append(str(ROOT / "chapters" / "_ext"))
import carrier


@pytest.fixture(scope="module")
def base():
    """The folder that pages load from."""
    try:
        return carrier.build(ROOT / "build" / "live")
    except carrier.Missing as error:
        skip_or_fail(str(error))
