"""What any value needs in a built site: nothing missing, the same files each time, and a book
without it where a source of its files cannot be reached."""

import io
import shutil

import carrier
import pytest
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from expertbank.book.explorers.explorer import Dial, Explorer
from expertbank.book.explorers.grid import as_html
from expertbank.book.explorers.scene import Axis, Panel, Reading, Scene, Series
from expertbank.book.explorers.widget import MODULE
from support import skip_or_fail


def toy(slope):
    x = [0.0, 1.0]
    panel = Panel(Axis("x", 0, 1), Axis("y", 0, 1), [Series("line", x, [0.0, slope])])
    return Scene([panel], [Reading("slope", slope, 2)])


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A function that builds a page with an explorer; it returns the site and what Sphinx said."""
    if not MODULE.is_file() or shutil.which("node") is None:
        skip_or_fail("the bundle or Node.js is missing: run `make book`")
    monkeypatch.setenv("EXPERTBANK_STATIC", "1")
    explorer = Explorer("toy", toy, {"slope": Dial("slope", 0.5, [0.0, 0.5, 1.0])}, "A line.")
    html = as_html(explorer.packed())
    source = tmp_path / "source"
    source.mkdir()
    source.joinpath("conf.py").write_text('extensions = ["explorers", "live"]\n')
    source.joinpath("index.rst").write_text(f"Title\n=====\n\n.. raw:: html\n\n   {html}\n")

    def built(name):
        said = io.StringIO()
        out = tmp_path / name
        app = Sphinx(source, source, out, tmp_path / f"{name}.doctrees", "html", status=said)
        app.build()
        assert app.statuscode == 0
        return out, said.getvalue()

    return built


@pytest.fixture
def without_sources(monkeypatch, tmp_path):
    """No source has NumPy or SciPy, and nothing was kept of an earlier build."""

    def unreachable(name):
        raise OSError("no network")

    monkeypatch.setattr(carrier, "SOURCES", {"a mirror": unreachable})
    monkeypatch.setattr(carrier, "ROOT", tmp_path / "elsewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_site_has_what_its_button_loads_and_the_same_each_time(base, build):
    one, said = build("one")
    assert "Any value" not in said
    page = (one / "index.html").read_text()
    (folder,) = (one / "_local" / "live").iterdir()
    assert f'data-live="_local/live/{folder.name}/"' in page
    # the still has room for the button, which only a script can answer
    assert page.count(">Any value</button>") == 2
    other, _ = build("other")
    files = {path.relative_to(one): path for path in one.rglob("*") if path.is_file()}
    found = {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    assert set(files) == found and len(found) > 20
    kept = [name for name in files if name.name != "searchindex.js" and name.suffix != ".pickle"]
    differing = [name for name in kept if files[name].read_bytes() != (other / name).read_bytes()]
    assert differing == []
    # a changed file has another address
    files = {path.name for path in folder.iterdir()}
    assert {"worker.mjs", "live.json", "expertbank.zip", *carrier.CORE, carrier.LOCK} <= files


def test_without_a_source_one_line_says_so_and_the_book_is_built(
    without_sources, build, monkeypatch
):
    monkeypatch.delenv("CI", raising=False)
    site, said = build("static")
    (line,) = [line for line in said.splitlines() if "Any value" in line]
    assert "numpy-" in line and "a mirror (OSError)" in line and "set EXPERTBANK_WHEELS" in line
    page = (site / "index.html").read_text()
    assert "data-live" not in page and not (site / "_local" / "live").exists()
    assert '<script async src="_local/explorer.js">' in page
    # no room is held for a button that never comes
    assert page.count("hidden>Any value</button>") == page.count(">Any value</button>") == 2


def test_in_ci_it_is_a_failure(without_sources, build, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ExtensionError, match=r"set EXPERTBANK_WHEELS .*; CI must have it"):
        build("failing")
