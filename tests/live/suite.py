"""Runs tests of the library where a page would run them: in Pyodide, with what is in this folder.

`scipy.stats` is not there. Tests take it as an oracle: its `entropy` is one formula, which stands
here, and a test that needs more of it is skipped.
"""

import os
import sys
import types

SKIPPED = "scipy.stats is left out of the page"
INI = "[pytest]\nmarkers =\n    slow: left out\n"


class Absent(types.ModuleType):
    """A part of SciPy that is not there: the test that calls it is skipped."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(name)

    def __call__(self, *args, **options):
        import pytest

        pytest.skip(SKIPPED)


def entropy(p, q=None, axis=0):
    """As `scipy.stats.entropy`."""
    import numpy as np
    import scipy

    p, q = (x if x is None else np.asarray(x, float) for x in (p, q))
    p = p / p.sum(axis=axis, keepdims=True)
    if q is None:
        return scipy.special.entr(p).sum(axis=axis)
    return scipy.special.rel_entr(p, q / q.sum(axis=axis, keepdims=True)).sum(axis=axis)


def run(files):
    """Run the tests of these files; anything but success is an error."""
    sys.path[:0] = ["/work/tools", "/work/tests"]
    import pytest
    import scipy

    stats = Absent("scipy.stats")
    stats.entropy = entropy
    sys.modules["scipy.stats"] = scipy.stats = stats
    with open("/tmp/pytest.ini", "w") as file:
        file.write(INI)
    os.chdir("/work")
    options = ["-q", "-rs", "--tb=short", "-p", "no:cacheprovider", "-m", "not slow"]
    code = pytest.main([*options, "-c", "/tmp/pytest.ini", "--rootdir=/work", *files])
    assert code == 0, f"pytest ends with {code!r}"
