"""What surrounds the pages: launch buttons, links, addresses, citation, search, error page."""

import importlib
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import ThreadingHTTPServer
from urllib.parse import unquote, urljoin, urlsplit
from xml.etree import ElementTree

import pypdfium2
import pytest
import yaml
from pybtex.database import parse_string

from pages import HTML, PAGES, TOC, Quiet, built_from, violations
from references import ROOT, chapters

sys.path.insert(0, str(ROOT / "chapters" / "_ext"))
address = importlib.import_module("address")
# where the site was built from, empty where its builder did not know: test_address.py tries both
ADDRESS = built_from()
SITE = address.pages_address(ADDRESS)
CHAPTERS = [chapter.stem for chapter in chapters()]


class Links(HTMLParser):
    """Targets and anchors of one page."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.anchors = [], {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.update(attributes[name] for name in ("id", "name") if attributes.get(name))
        self.targets += [attributes[name] for name in ("href", "src") if attributes.get(name)]


@pytest.fixture(scope="module")
def links():
    """Links of every built page by its path in the site."""
    return {
        str(path.relative_to(HTML)): Links(path)
        for path in HTML.rglob("*.html")
        if "_static" not in path.parts
    }


def test_every_internal_link_leads_somewhere(links):
    prefix = urlsplit(SITE).path or "/"
    lost = []
    for page, found in links.items():
        for target in found.targets:
            parts = urlsplit(urljoin(f"http://site/{page}", target))
            if parts.netloc != "site":
                continue
            goal = unquote(parts.path).removeprefix("/")
            if page == "404.html":  # its links hold wherever it is shown
                goal = unquote(parts.path).removeprefix(prefix).removeprefix("/")
            goal = f"{goal}index.html" if goal == "" or goal.endswith("/") else goal
            known = links[goal].anchors if goal in links else None
            if not (HTML / goal).is_file() or (known and unquote(parts.fragment) not in known):
                lost.append(f"{page}: {target}")
    assert lost == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_launch_buttons_lead_to_this_chapter(name, links):
    targets = links[f"chapters/{name}.html"].targets
    launch = [goal for goal in targets if "mybinder.org" in goal or "colab.research" in goal]
    place = ADDRESS.removeprefix("https://github.com/")
    expected = [
        f"https://mybinder.org/v2/gh/{place}/main?urlpath=lab/tree/notebooks/{name}.ipynb",
        f"https://colab.research.google.com/github/{place}/blob/notebooks/{name}.ipynb",
    ]
    assert launch == (expected if ADDRESS else [])
    assert {f"../_sources/chapters/{name}.{kind}" for kind in ("md", "ipynb")} <= set(targets)
    assert (HTML / "_sources" / "chapters" / f"{name}.md").read_text() == (
        ROOT / "chapters" / f"{name}.md"
    ).read_text()


def test_pages_can_be_found_and_shared():
    if not SITE:
        assert not (HTML / "sitemap.xml").exists()
        assert "og:url" not in (HTML / f"{PAGES[0]}.html").read_text()
        return
    sitemap = ElementTree.parse(HTML / "sitemap.xml")
    listed = {
        node.text for node in sitemap.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")
    }
    assert {f"{SITE}{page}.html" for page in PAGES} <= listed
    assert f"Sitemap: {SITE}sitemap.xml" in (HTML / "robots.txt").read_text()
    for page in PAGES:
        html = (HTML / f"{page}.html").read_text()
        card = re.search(r'property="og:image" content="([^"]+)"', html)[1]
        assert (HTML / card.removeprefix(SITE)).is_file()
        assert 'property="og:description"' in html


def test_logo_is_also_the_favicon():
    assert ElementTree.parse(HTML / "_static" / "logo.svg").getroot().tag.endswith("svg")
    assert 'rel="icon" href="../_static/logo.svg"' in (HTML / f"{TOC['root']}.html").read_text()


def test_citation_and_changes_come_from_their_files():
    page = (HTML / "chapters" / "changes.html").read_text()
    text = re.sub(r"<[^>]+>", "", page)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    entries = parse_string(
        re.search(r"@software.*?\n}\n(?=\n*[^@\s])", text, flags=re.S)[0], "bibtex"
    ).entries
    titles = [entry.fields["title"].strip("{}") for entry in entries.values()]
    assert titles == [citation["title"], *(work["title"] for work in citation["references"])]
    assert entries["expertbank"].fields["version"] == citation["version"]
    papers = [entry.fields.get("eprint") for entry in entries.values()]
    assert papers == [None, "2602.15091", "2605.05278", "2604.07030"]
    for heading in re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.M):
        assert re.search(rf"<h3>{re.escape(heading)}", page)


def test_search_finds_a_term(browser, site):
    page = browser.new_page()
    page.goto(f"{site}/search.html?q=distortion")
    page.locator("#search-results li a").first.wait_for()
    assert page.locator("#search-results li a").count() >= 3
    page.close()


class Pages(Quiet):
    """Serves as GitHub Pages does: the site below the repository's name, and 404.html for what is
    not there."""

    prefix = urlsplit(SITE).path or "/"

    def do_GET(self):
        path = urlsplit(self.path).path
        file = HTML / path.removeprefix(self.prefix)
        found = path.startswith(self.prefix) and file.is_file()
        file = file if found else HTML / "404.html"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", self.guess_type(file))
        self.end_headers()
        self.wfile.write(file.read_bytes())


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_error_page_works_at_any_depth(browser, theme):
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(color_scheme=theme)
        failed = []
        page.on(
            "response", lambda response: response.ok or failed.append(urlsplit(response.url).path)
        )
        lost = f"{Pages.prefix}some/where/lost"
        page.goto(f"http://127.0.0.1:{server.server_port}{lost}", wait_until="load")
        assert page.get_by_role("heading", name="Page not found").is_visible()
        assert page.locator(".navbar-brand img").first.evaluate("image => image.naturalWidth > 0")
        assert failed == [lost]
        assert violations(page) == []
        page.close()
        server.shutdown()


@pytest.mark.parametrize("name", [page.removeprefix("chapters/") for page in PAGES])
def test_mathematics_becomes_mathml(name, monkeypatch):
    """Every formula is well-formed, and no command is left in it."""
    monkeypatch.syspath_prepend(ROOT / "chapters" / "_ext")
    mathml = importlib.import_module("mathml").mathml
    source = (ROOT / f"chapters/{name}.md").read_text()
    source = re.sub(r"^(`{3,})(\{code-cell\}|python|sh).*?^\1$", "", source, flags=re.M | re.S)
    source = re.sub(r"`[^`\n]*`", "", source)
    for block, inline in re.findall(r"\$\$(.+?)\$\$|(?<!\\)\$([^$]+?)\$", source, flags=re.S):
        result = mathml(block or inline, "block" if block else "inline")
        assert "\\" not in "".join(ElementTree.fromstring(result).itertext()), block or inline


def test_pdf_has_outline_and_text(browser, tmp_path):
    """The script behind `make pdf`, on one page. In a process of its own: Playwright runs once in
    each. Asks for the browser, to skip where there is none."""
    command = [
        sys.executable,
        ROOT / "chapters/_ext/pdf.py",
        HTML / "chapters/gate.html",
        tmp_path / "gate.pdf",
    ]
    subprocess.run(command, check=True)
    book = pypdfium2.PdfDocument(tmp_path / "gate.pdf")
    # Chromium writes a heading twice that it moved to the next page
    titles = [entry.get_title() for entry in book.get_toc()]
    assert any(title.startswith("Rate against capacity") for title in titles)
    assert len(book) >= 8
    text = "".join(page.get_textpage().get_text_bounded() for page in book)
    assert "Solution to Exercise" in text and "randomised response" in text
