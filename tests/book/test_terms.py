"""Words of the book: the first use of a term leads to the glossary, of a function to the API, and
symbols to the notation."""

import importlib
import inspect
import re
from functools import cache

import pytest
from markdown_it import MarkdownIt

from references import ROOT, chapters

LINK = re.compile(r"\{term\}`(?:[^`<]*<([^>`]+)>|([^`<]+))`")
ROLE = re.compile(r"(\{[\w:]+\})?`[^`]+`")
# directives that hold no prose of the chapter's argument; code without a directive neither
NO_PROSE = re.compile(
    r"(?!\{)|\{(code-cell|math|explorer-gallery|exercise|solution|eval-rst)\}"
    r"|\{admonition\} In short"
)
HEAD = re.compile(r"\A---\n.*?^---$", re.M | re.S)
# formulas; headings, options of directives, labels, tables, comments
FORMULAS = re.compile(r"^\$\$.*?^\$\$.*?$", re.M | re.S)
LINES = re.compile(r"^(?:#+ .*|`{3,}.*|:\w.*|\(.*\)=|\|.*|% .*)$", re.M)
# words that mean something else, too, in every chapter or in one
EVERYDAY = {"band", "bracket"}
# of a proof, and of an expert: how many tokens it takes
ELSEWHERE = {("theorem2", "certificate"), ("your_router", "capacity")}
NAMES = [chapter.stem for chapter in chapters() if chapter.stem not in ("start", "report")]


def blank(found):
    return re.sub(r"[^\n]", " ", found[0])


def without_code(text):
    """The text with spaces for its head and its fenced blocks, but for directives with prose."""
    lines = HEAD.sub(blank, text).split("\n")
    for block in MarkdownIt().parse("\n".join(lines)):
        if block.type != "fence":
            continue
        first, end = block.map
        inside = slice(first + 1, first + 1 + block.content.count("\n"))
        if NO_PROSE.match(block.info.strip()):
            lines[first:end] = [" " * len(line) for line in lines[first:end]]
        else:
            lines[inside] = without_code("\n".join(lines[inside])).split("\n")
    return "\n".join(lines)


def prose(text):
    """The text with spaces for all that is not prose, links to the glossary kept."""
    text = LINES.sub(blank, FORMULAS.sub(blank, without_code(text)))
    text = ROLE.sub(lambda found: found[0] if found[1] == "{term}" else blank(found), text)
    return re.sub(r"\$[^$]*\$|\[[^\]]*\]\([^)]*\)", blank, text)


@cache
def terms():
    glossary = (ROOT / "chapters" / "glossary.md").read_text()
    body = re.search(r"```\{glossary\}\n(.*?)^```", glossary, re.S | re.M)[1]
    return [line for line in body.splitlines() if line and not line.startswith(" ")]


def first_use(term, text):
    """Where the term, or its plural, stands without a link or a definition in bold."""
    text = re.sub(r"\*\*[^*]*\*\*", blank, LINK.sub(blank, text))
    words = r"\s+".join(map(re.escape, term.split()))
    found = re.search(rf"(?<![\w-]){words}(?:e?s)?(?![\w-])", text, re.I)
    return found.start() if found else None


def unlinked(name, text):
    """Terms whose first use leads nowhere, with the line."""
    text = prose(text)
    linked = {}
    for link in LINK.finditer(text):
        linked.setdefault((link[1] or link[2]).lower(), link.start())
    for term in terms():
        used = first_use(term, text)
        exempt = term in EVERYDAY or (name, term) in ELSEWHERE
        if used is not None and not exempt and linked.get(term.lower(), len(text)) > used:
            yield term, text.count("\n", 0, used) + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_first_use_of_a_term_leads_to_the_glossary(name):
    text = (ROOT / "chapters" / f"{name}.md").read_text()
    assert not list(unlinked(name, text))


def test_a_term_without_a_link_is_found():
    text = "# The gate\n\n$gate$ `gate` **gate**\n\nGates and a {term}`gate`, {term}`nats <nat>`.\n"
    assert list(unlinked("toy", text)) == [("gate", 5)]
    assert not list(unlinked("toy", text.replace("Gates and a", "A")))


def test_prose_between_code_and_inside_directives_is_looked_at():
    text = """```{code-cell}
gate
```
A gate.
````{note}
:class: gate
Gates.
```python
gate
```
````
```
gate
```
The gate.
"""
    looked_at = [line.strip() for line in prose(text).splitlines()]
    assert [line for line in looked_at if line] == ["A gate.", "Gates.", "The gate."]
    assert prose(text).count("\n") == text.count("\n")
    assert list(unlinked("toy", text)) == [("gate", 4)]


@cache
def documented():
    """Names of the functions that the API reference lists."""
    api = (ROOT / "chapters" / "api.md").read_text()
    found = set()
    for name in re.findall(r"automodule:: ([\w.]+)", api):
        module = importlib.import_module(name)
        for function, held in vars(module).items():
            if inspect.isfunction(held) and not function.startswith("_"):
                found.add(function)
    return found


def bare_functions(text):
    text = without_code(text)
    seen = set()
    for found in re.finditer(r"(\{[\w:]+\})?`([^`\n]+)`", text):
        name = found[2].lstrip("~").removesuffix("()").rpartition(".")[2]
        if name in documented() and name not in seen:
            seen.add(name)
            if found[1] is None:
                yield name, text.count("\n", 0, found.start()) + 1


def test_a_function_without_a_link_is_found():
    text = "```{code-cell}\nmutual_information()\n```\n`entropy` and {func}`~expertbank.entropy`\n"
    assert list(bare_functions(text)) == [("entropy", 4)]


@pytest.mark.parametrize("name", NAMES)
def test_the_first_use_of_a_function_leads_to_the_api(name):
    assert len(documented()) > 100
    text = (ROOT / "chapters" / f"{name}.md").read_text()
    assert not list(bare_functions(text))


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_leads_to_its_symbols(name):
    assert "](notation.md)" in (ROOT / "chapters" / f"{name}.md").read_text()
