"""The built site and the chapters' sources: complete, described, self-contained, in step with their
references."""

import gzip
import importlib
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import jupytext
import nbformat
import pytest
from bs4 import BeautifulSoup

from pages import HTML, LECTURES, PAGES, WITH_EXPLORER
from references import REFERENCES, ROOT, chapters, notebook

NAMES = [chapter.stem for chapter in chapters()]


class Tags(HTMLParser):
    """Every start tag with its attributes and the tags that it stands in."""

    VOID = frozenset(
        {
            "area",
            "base",
            "br",
            "col",
            "embed",
            "hr",
            "img",
            "input",
            "link",
            "meta",
            "source",
            "wbr",
        }
    )

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes), tuple(self.open)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes).get("class") or ""))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass


@pytest.fixture(scope="module", params=PAGES)
def page(request):
    path = HTML / f"{request.param}.html"
    assert path.is_file(), f"{path} is missing: run `make book`"
    return path.read_text()


def cells(name):
    return jupytext.read(ROOT / "chapters" / f"{name}.md").cells


def test_every_chapter_file_is_in_the_table_of_contents():
    assert {f"chapters/{path.stem}" for path in (ROOT / "chapters").glob("*.md")} == set(PAGES)


def test_no_markup_is_left_unrendered(page):
    text = re.sub(r"<(script|style|pre).*?</\1>", "", page, flags=re.S)
    for remnant in ("{glue", "{prf:", "{numref", "{eq}", "{cite", "```{", "eval-rst"):
        assert remnant not in text
    assert "Traceback" not in text


def sentences(page):
    """What a page says in its own words: without code, formulas, drawings and navigation."""
    [body] = BeautifulSoup(page, "html.parser").select("article")
    for other in body.select("script, style, pre, code, .math, svg, textarea"):
        other.decompose()
    return body.get_text()


HYPHENED = r"(?<![\w.–-])-\.?\d[\d.]*"


@pytest.mark.parametrize(
    "words, wrong",
    [
        ("a gap of -0.0060 on it, and -.5 to -0.4", ["-0.0060", "-.5", "-0.4"]),
        ("a gap of −0.0060 in Fashion-2, 12-14 and 1e-3", []),
        ("the code <code>-1</code> and the formula <span class='math'>-2</span>", []),
    ],
)
def test_hyphens_before_numbers_are_found(words, wrong):
    page = f"<article><p>{words}</p></article>"
    assert [found.rstrip(".") for found in re.findall(HYPHENED, sentences(page))] == wrong


# docstrings, on the page of the API, are read as code too
@pytest.mark.parametrize("name", [name for name in PAGES if name != "chapters/api"])
def test_numbers_have_a_minus_for_a_hyphen(name):
    page = (HTML / f"{name}.html").read_text()
    assert re.findall(HYPHENED, sentences(page)) == []


def foreign_addresses(page):
    """What a page would load from another host by itself; links that a reader has to click are not
    among it."""
    loading = {
        "stylesheet",
        "icon",
        "preload",
        "modulepreload",
        "prefetch",
        "preconnect",
        "dns-prefetch",
        "manifest",
    }
    for tag, attributes, _ in Tags(page).found:
        for name in ("src", "srcset", "data", "poster", "style", "href"):
            if name == "href" and not (
                tag in ("use", "image") or loading & set(attributes.get("rel", "").split())
            ):
                continue
            yield from re.findall(
                r"(?:^|[\s(,'\"])((?:https?:)?//[^\s)'\"]+)", attributes.get(name) or ""
            )
    for body in re.findall(r"<style.*?</style>", page, flags=re.S):
        yield from foreign_styles(body)
    for kind, body in re.findall(r"<script([^>]*)>(.*?)</script>", page, flags=re.S):
        if "json" not in kind:  # data: the browser tests see what becomes of it
            yield from re.findall(
                r"""(?:fetch|import|from|open|src\s*=)\W{0,20}['"]((?:https?:)?//[^'"]+)""", body
            )


def foreign_styles(text):
    """What a style sheet would load from another host."""
    return re.findall(r"""(?:url\(|@import)\s*['"]?((?:https?:)?//[^)'"\s]+)""", text)


@pytest.mark.parametrize(
    "sample",
    [
        '<script src="https://a.org/x.js"></script>',
        '<link rel="preload stylesheet" href="//a.org/x.css">',
        '<img srcset="x.png 1x, https://a.org/y.png 2x">',
        '<style>@import "https://a.org/x.css";</style>',
        '<p style="background: url(https://a.org/x.png)">',
        '<object data="http://a.org/x"></object>',
        '<script>fetch("https://a.org/x.json")</script>',
        "<script type=module>import x from 'https://a.org/x'</script>",
    ],
)
def test_foreign_addresses_are_found(sample):
    assert list(foreign_addresses(sample))
    assert not list(foreign_addresses(re.sub("(https?:)?//a.org/", "", sample)))


def test_nothing_is_loaded_from_another_host():
    pages, sheets = sorted(HTML.rglob("*.html")), sorted(HTML.rglob("*.css"))
    assert len(pages) >= len(PAGES) and sheets, "run `make book`"
    found = {
        str(page.relative_to(HTML)): list(foreign_addresses(page.read_text())) for page in pages
    }
    found |= {str(sheet.relative_to(HTML)): foreign_styles(sheet.read_text()) for sheet in sheets}
    assert {name: addresses for name, addresses in found.items() if addresses} == {}


def test_figures_have_alternative_text_and_a_caption(page):
    found = Tags(page).found
    for tag, attributes, inside in found:
        if tag == "img" and any("cell_output" in classes for _, classes in inside):
            alt = attributes.get("alt", "")
            assert len(alt.split()) >= 5 and not alt.endswith(".png"), f"alt text: {alt!r}"
            assert "figure" in [parent for parent, _ in inside], f"no caption: {alt!r}"


@pytest.mark.parametrize("name", LECTURES)
def test_a_lecture_keeps_its_form(name):
    source = (ROOT / "chapters" / f"{name}.md").read_text()
    assert source.count("```{exercise}") >= 2
    folded = re.findall(r"^`+\{solution\}[^\n]*\n:class: dropdown$", source, re.M)
    assert source.count("```{solution}") == source.count("```{exercise}") == len(folded)
    assert "## What was checked" in source
    assert "{prf:" in source
    figures = [cell for cell in cells(name) if "figure" in cell.metadata.get("mystnb", {})]
    assert figures and all(cell.metadata["mystnb"]["image"]["alt"] for cell in figures)


@pytest.mark.parametrize("name", WITH_EXPLORER)
def test_a_chapter_with_parameters_has_an_explorer(name):
    code = [cell for cell in cells(name) if cell.cell_type == "code"]
    explorers = [cell for cell in code if re.search(r"\bexplore_\w+\(", cell.source)]
    assert len(explorers) == 1
    # with a kernel it is a widget, and without one a page's own
    assert "nbval-ignore-output" in explorers[0].metadata["tags"]


@pytest.mark.parametrize("name", NAMES)
def test_explorers_are_light_and_stand_where_their_still_stood(name):
    page = (HTML / "chapters" / f"{name}.html").read_text()
    packed = re.findall(r'<script type="application/json">(.*?)</script>', page, flags=re.S)
    assert len(packed) == (name in WITH_EXPLORER)
    assert page.count('class="explorer-still"') == len(packed)
    assert len(re.findall(r'<script async[^>]*/explorer\.js"', page)) == len(packed)
    for grid in packed:
        assert len(gzip.compress(grid.encode())) <= 150_000
        assert json.loads(grid)["name"] == name
    for left in ("widget-state", "require.js", "embed.js", "data:image/png"):
        assert left not in page, left


def test_a_picture_may_spell_thebe(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "chapters" / "_ext")
    is_thebe = importlib.import_module("no_thebe").is_thebe
    state = {
        "type": "application/vnd.jupyter.widget-state+json",
        "body": '{"value": "iVBORthEBeAAAA"}',
    }
    assert not is_thebe(SimpleNamespace(filename=None, attributes=state))
    assert is_thebe(SimpleNamespace(filename="_static/sphinx-thebe.js", attributes={}))
    assert is_thebe(
        SimpleNamespace(filename=None, attributes={"body": "const thebe_selector = ''"})
    )


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short(name):
    folded = {"remove-cell", "remove-input", "hide-cell", "hide-input"}
    for cell in cells(name):
        if cell.cell_type == "code" and not folded & set(cell.metadata.get("tags", [])):
            assert len(cell.source.splitlines()) <= 15, cell.source


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_of_this_source(name):
    reference = REFERENCES / f"{name}.ipynb"
    assert reference.is_file(), "run `make references`"
    stored = nbformat.read(reference, as_version=4).cells
    source = notebook(ROOT / "chapters" / f"{name}.md").cells
    assert [(c.cell_type, c.source) for c in stored] == [(c.cell_type, c.source) for c in source], (
        f"chapters/{name}.md changed: run `make references`"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_holds_outputs_and_no_images(name):
    stored = nbformat.read(REFERENCES / f"{name}.ipynb", as_version=4).cells
    outputs = [output for cell in stored for output in cell.get("outputs", [])]
    assert outputs
    assert not any(
        kind.startswith("image/") for output in outputs for kind in output.get("data", {})
    )
    assert not any(output.output_type == "error" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)


WITH_CODE = ["gate", "theorem1", "alpha_mixture", "bsc", "mnist_bank", "blahut_arimoto"]


@pytest.mark.parametrize("name", [*WITH_CODE, "gates", "links"])
def test_solutions_print_what_their_comments_say(name):
    """nbval executes them in the chapter's kernel and compares with what is stored; here follows
    the rest."""
    stored = nbformat.read(REFERENCES / f"{name}.ipynb", as_version=4).cells
    solved = [cell for cell in stored if "solution" in cell.metadata.get("tags", [])]
    assert solved
    for cell in solved:
        printed = "".join(output.get("text", "") for output in cell.outputs).splitlines()
        comments = re.findall(r"^ *print\(.*\) +# (.*)$", cell.source, flags=re.M)
        said = [part for comment in comments for part in comment.split(", then ")]
        assert len(said) == len(printed)
        assert all(re.match(re.escape(line) + r"\b", text) for line, text in zip(printed, said)), (
            cell.source
        )


def test_no_reference_is_left_over():
    assert {path.stem for path in REFERENCES.glob("*.ipynb")} == set(NAMES)


def test_the_site_states_the_licences_of_what_npm_brought():
    stated = (HTML / "_local" / "LICENCES.txt").read_text()
    brought = set(re.findall(r"^(@?[\w./-]+) [\d.]+: [\w.-]+$", stated, flags=re.M))
    assert {"mathjax", "@mathjax/mathjax-newcm-font", "@observablehq/plot", "d3-array"} <= brought
    # what builds the site or tests it is not in it
    assert not {"esbuild", "pyodide", "axe-core", "puppeteer-core"} & brought
    for words in ("Apache License", "Permission to use, copy, modify", "MIT License"):
        assert words in stated
