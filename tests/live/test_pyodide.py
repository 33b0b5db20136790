"""The Python that pages load, under Node.js: the library's own tests on what is left of SciPy, and
every explorer against this Python."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import carrier
import pytest

from expertbank.book.explorers.live import dials_of, scene_of
from page_python import node
from pages import WITH_EXPLORER
from references import ROOT
from support import say, skip_or_fail

HERE = Path(__file__).parent
# the last release in plain Python: later ones hold what is compiled for this machine
HYPOTHESIS = "hypothesis==6.150.3"
HYPOTHESIS_SHA256 = "5577c0f8eff5ac54a8aff1ce32e30c5454167c29360fdabf1bfea0539b1689f9"
# of this environment, in plain Python
TOOLS = ("pytest", "_pytest", "py.py", "pluggy", "iniconfig", "packaging", "pygments")
TOOLS += ("mpmath", "sortedcontainers", "attr", "attrs")
# what a page computes with
TESTED = ("information", "bounds", "rate_distortion", "solver", "channels", "theorem1", "theorem2")
TESTED += ("synthetic", "ladder", "learners", "precision", "published_cases", "estimators")
# what a scene may differ by between two machines' last bits, in its own units or relative to them
SAME = 1e-9
REASONS = {"scipy.stats is left out of the page", "another optimiser: the extra test"}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A folder with tests of the library and what runs them."""
    folder = tmp_path_factory.mktemp("suite")
    installed = Path(pytest.__file__).parents[1]
    for name in TOOLS:
        copy(installed / name, folder / "tools" / name)
    for name in ("conftest.py", "support.py", "library"):
        copy(ROOT / "tests" / name, folder / "tests" / name)
    shutil.copyfile(HERE / "suite.py", folder / "suite.py")
    fetch = carrier.cache_folder() / f"{HYPOTHESIS.replace('==', '-')}-py3-none-any.whl"
    if not fetch.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", HYPOTHESIS]
        done = subprocess.run([*command, "--dest", fetch.parent], capture_output=True, text=True)
        if done.returncode:
            skip_or_fail(f"{HYPOTHESIS} is not to be had from PyPI: {done.stderr[-200:]}")
    assert carrier.sha256_of(fetch.read_bytes()) == HYPOTHESIS_SHA256
    zipfile.ZipFile(fetch).extractall(folder / "tools")
    return folder


def copy(source, goal):
    goal.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, goal)
    else:
        shutil.copytree(source, goal, ignore=shutil.ignore_patterns("__pycache__", "*.so"))


def test_the_library_passes_its_own_tests_on_the_trimmed_scipy(base, suite, request):
    files = [f"/work/tests/library/test_{name}.py" for name in TESTED]
    code = f"import sys; sys.path.insert(0, '/work'); import suite; suite.run({files})"
    printed, seconds = node(base, folder=str(suite), code=code)
    passed = int(re.search(r"(\d+) passed", printed)[1])
    reasons = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", printed, re.M)
    assert set(reasons) <= REASONS, printed
    assert passed > 600, printed
    skipped = sum(map(int, re.findall(r"^SKIPPED \[(\d+)\]", printed, re.M)))
    say(
        request,
        f"in the Python of pages {passed} tests of the library pass and {skipped} need what it "
        f"lacks: {seconds:.0f} s",
    )


def settings(name):
    """A handful of values of the dials of an explorer, most of them between stops."""
    dials = json.loads(dials_of(name))
    start = {key: dial["start"] for key, dial in dials.items()}
    yield start
    for key, dial in dials.items():
        if dial["live"]:
            low, high, step = dial["live"]
            for share in (0.137, 0.771):
                value = low + share * (high - low)
                if step == "log":
                    value = 10**value
                elif isinstance(step, int):
                    value = round(value)
                yield start | {key: value}
        elif dial["names"]:
            # another bank, mix or network
            other = max(set(dial["stops"]) - {dial["start"]})
            yield start | {key: other}


def numbers(scene, place=""):
    """Every value of a scene with its place."""
    if isinstance(scene, dict):
        for key, value in scene.items():
            yield from numbers(value, f"{place}.{key}")
    elif isinstance(scene, list):
        for i, value in enumerate(scene):
            yield from numbers(value, f"{place}[{i}]")
    else:
        yield place, scene


def distance(found, expected):
    """The largest difference of two scenes, relative for numbers above one, and its place."""
    worst = (0.0, "")
    for (place, a), (its, b) in zip(numbers(found), numbers(expected), strict=True):
        assert place == its
        if isinstance(b, float):
            worst = max(worst, (abs(a - b) / max(1.0, abs(b)), place))
        else:
            assert a == b, place
    return worst


def test_every_explorer_shows_what_this_python_shows(base, request):
    asked = [(name, dials) for name in WITH_EXPLORER for dials in settings(name)]
    questions = [{"ask": "scene", "explorer": name, "dials": dials} for name, dials in asked]
    printed, seconds = node(base, questions=questions)
    worst = {}
    for (name, dials), scene in zip(asked, json.loads(printed), strict=True):
        found, place = distance(scene, json.loads(scene_of(name, json.dumps(dials))))
        worst[name] = max(worst.get(name, (0.0, "")), (found, f"{dials} {place}"))
    for name, (found, place) in worst.items():
        assert found <= SAME, (name, place)
    shown = ", ".join(f"{name} {found:.0e}" for name, (found, _) in worst.items())
    say(request, f"{len(asked)} scenes differ from this Python's by {shown}: {seconds:.0f} s")
