"""A resolved page as Markdown that any notebook shows: headings, lists, tables, formulas and links,
and nothing of Sphinx or MyST.

By then Sphinx has put in what a page shows, so numbers, citations and references read as there. A
formula takes one line, since `>` or an indent before its further lines would be part of it. What
is not known here stops the build.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape as in_html
from html import unescape

from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError

# what Markdown would read as more than text
MARKS = re.compile(r"[\\`*<$]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|(?<=~)~")
STARTS = re.compile(r"^(\s*\d*)([#>+-]+(?=\s)|(?<=\d)[.)](?=\s))", re.M)
# formulas that end a line by themselves: the same inside of `$$`
WITHIN_DOLLARS = {"align": "aligned", "gather": "gathered", "eqnarray": "aligned"}
SILENT = (
    nodes.colspec,
    nodes.comment,
    nodes.substitution_definition,
    nodes.target,
    addnodes.index,
)
CARD = re.compile(r'<figcaption><a href="([^"]+)">(.*?)</a> (.*?)</figcaption>', re.S)


def escape(text: str) -> str:
    r"""Text as it stands, in Markdown.

    >>> print(escape("a*b, [0,1], x_1, $5"))
    a\*b, [0,1], x_1, \$5
    """
    text = MARKS.sub(lambda found: f"\\{found[0]}", text)
    return STARTS.sub(r"\1\\\2", text)


def unknown(node: nodes.Node) -> ExtensionError:
    name = type(node).__name__
    return ExtensionError(f"notebooks cannot show a {name}: teach chapters/_ext/plain_markdown.py")


def code(text: str) -> str:
    """Code in a line, between more backticks than it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"`{text}`"


def fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def displayed(tex: str, tag: str) -> str:
    """A formula on a line of its own, with its number."""
    # a comment would swallow what follows it
    tex = re.sub(r"(?<!\\)%.*", "", tex)
    for name, inner in WITHIN_DOLLARS.items():
        tex = re.sub(rf"\\(begin|end)\{{{name}\*?\}}", rf"\\\1{{{inner}}}", tex)
    if r"\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    line = " ".join(tex.split())
    return f"$${line} \\tag{{{tag}}}$$" if tag else f"$${line}$$"


def quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def folded(title: str, body: str) -> str:
    return f"<details><summary>{in_html(title, quote=False)}</summary>\n\n{body}\n\n</details>"


def indented(text: str, width: int) -> str:
    first, *others = text.splitlines() or [""]
    return "\n".join([first, *(f"{' ' * width}{line}".rstrip() for line in others)])


@dataclass
class Cell:
    """A code cell's place on a page; Markdown has what the page says below its outputs."""

    index: int
    below: list[str] = field(default_factory=list)


@dataclass
class Page:
    """Turns the parts of one page into Markdown.

    `number` knows the number that the page shows beside a node, such as "Fig. 5.2", `goal` the
    address that a reference leads to, both empty where there is none.
    """

    number: Callable[[nodes.Element], str]
    goal: Callable[[nodes.reference], str]

    def parts(self, node: nodes.Element, depth: int = 0) -> Iterator[tuple[str | Cell, int]]:
        """Blocks and code cells in their order, each with its line in the source, 0 if unknown."""
        for child in node.children:
            if isinstance(child, nodes.section):
                title, *_ = child.findall(nodes.title)
                yield self.heading(title, depth + 1), title.line or child.line or 0
                yield from self.parts(child, depth + 1)
            elif isinstance(child, nodes.container) and child.get("nb_element") == "cell_code":
                yield Cell(child["cell_index"], self.below(child)), child.line or 0
            elif not (depth and isinstance(child, nodes.title)):
                yield self.block(child), child.line or 0

    def heading(self, title: nodes.title, depth: int) -> str:
        number = self.number(title)
        words = f"{number} {self.inline(title)}" if number else self.inline(title)
        return f"{'#' * depth} {words}"

    def below(self, cell: nodes.container) -> list[str]:
        """What a notebook's own output does not say: captions of figures, numbers of tables."""
        said = []
        for node in cell.findall(lambda node: isinstance(node, (nodes.figure, nodes.table))):
            number = self.number(node)
            captions = [part for part in node.children if isinstance(part, nodes.caption)]
            if isinstance(node, nodes.table) and number:
                said.append(f"**{number}** (above)")
            elif captions:
                said.append(f"**{number}** {self.inline(captions[0])}".replace("****", "").strip())
        return said

    # --- blocks ---

    def blocks(self, children: list[nodes.Node]) -> str:
        return "\n\n".join(filter(None, (self.block(child) for child in children)))

    def block(self, node: nodes.Node) -> str:
        """One block of Markdown; empty for what a page does not show."""
        if isinstance(node, SILENT):
            return ""
        # the nearest class that is known: `glossary` is one of Sphinx, `title` one of its parents
        for kind in type(node).__mro__:
            write = getattr(self, f"block_{kind.__name__}", None)
            if write:
                return write(node)
        if isinstance(node, (nodes.Text, nodes.Inline)):
            return self.inline_of(node)
        raise unknown(node)

    def block_paragraph(self, node) -> str:
        return self.inline(node).strip()

    block_rubric = block_paragraph

    def block_math_block(self, node) -> str:
        number = self.number(node)
        paper = ""
        if "equation-of-paper" in node.parent.get("classes", []):
            paper = node.parent.children[-1].astext()
        tags = ", ".join(filter(None, (number, paper)))
        return displayed(node.astext(), tags)

    def block_container(self, node) -> str:
        # the paper's number is in the formula's own
        children = [part for part in node.children if "paper-number" not in part.get("classes", [])]
        return self.blocks(children)

    # a box keeps its body in a section
    block_section = block_container
    block_glossary = block_container

    def block_compound(self, node) -> str:
        # the contents, which the folder shows
        return ""

    def block_literal_block(self, node) -> str:
        language = node.get("language", "")
        return fenced(node.astext(), "" if language in ("default", "none") else language)

    def block_doctest_block(self, node) -> str:
        return fenced(node.astext(), "python")

    def block_block_quote(self, node) -> str:
        return quoted(self.blocks(node.children))

    def block_transition(self, node) -> str:
        return "---"

    def block_bullet_list(self, node) -> str:
        return self.items(node, ["-"] * len(node.children))

    def block_enumerated_list(self, node) -> str:
        start = node.get("start", 1)
        return self.items(node, [f"{start + place}." for place in range(len(node.children))])

    def items(self, node, markers: list[str]) -> str:
        bodies = [self.blocks(item.children) for item in node.children]
        apart = "\n\n" if any("\n\n" in body for body in bodies) else "\n"
        return apart.join(
            f"{marker} {indented(body, len(marker) + 1)}" for marker, body in zip(markers, bodies)
        )

    def block_definition_list(self, node) -> str:
        said = []
        for item in node.children:
            *terms, definition = item.children
            names = ", ".join(f"**{self.inline(term).strip()}**" for term in terms)
            said.append(f"{names}\n\n{self.blocks(definition.children)}")
        return "\n\n".join(said)

    def block_citation(self, node) -> str:
        label, *entry = node.children
        return f"**[{label.astext()}]** {self.blocks(entry)}"

    def block_desc(self, node) -> str:
        """A documented name: its signature and the first sentence about it; members below it."""
        signature, content = node.children[0], node.children[-1]
        told = [part for part in content.children if isinstance(part, nodes.paragraph)]
        if not told and node.get("objtype") == "attribute":
            # it stands in the signature of its class
            return ""
        shown = [
            part.astext()
            for part in signature.children
            if not isinstance(part, (nodes.reference, addnodes.desc_addname))
        ]
        sentence = ""
        if told:
            sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z])", self.inline(told[0]), maxsplit=1)[0]
        members = self.blocks(
            [part for part in content.children if isinstance(part, addnodes.desc)]
        )
        head = code("".join(shown).replace("\n", " "))
        return "\n\n".join(filter(None, (head, sentence, members)))

    def block_raw(self, node) -> str:
        """Of a gallery of pictures what is written below them; what a page computes with is named;
        other raw output is not text."""
        if 'class="your-experts"' in node.astext():
            return "*Here stands, on the book's page, what takes your file.*"
        cards = CARD.findall(node.astext())
        lines = []
        for address, title, words in cards:
            link = nodes.reference("", unescape(title), refuri=address, internal=True)
            lines.append(f"- {self.inline_of(link)}: {escape(unescape(words))}")
        return "\n".join(lines)

    def block_figure(self, node) -> str:
        number = self.number(node)
        said = []
        for part in node.children:
            words = self.block(part)
            if isinstance(part, nodes.caption):
                words = f"**{number}** {self.inline(part)}"
            said.append(words)
        return "\n\n".join(said)

    def block_image(self, node) -> str:
        return self.inline_of(node)

    def block_table(self, node) -> str:
        lines = []
        for row in node.findall(nodes.row):
            cells = [self.blocks(entry.children) for entry in row.children]
            cells = [re.sub(r"\s+", " ", cell).strip() for cell in cells]
            lines.append(f"| {' | '.join(cells)} |")
            if len(lines) == 1:
                lines.append("|" + "---|" * len(cells))
        titles = [self.inline(part) for part in node.children if isinstance(part, nodes.title)]
        head = [f"**{self.number(node)}** {title}" for title in titles]
        return "\n\n".join([*head, "\n".join(lines)])

    # --- boxes ---

    def block_Admonition(self, node) -> str:
        """A quotation that begins with its title; what is folded on the page stays folded."""
        parts = node.children
        title = parts[0] if isinstance(parts[0], nodes.title) else None
        words = self.blocks(parts if title is None else parts[1:])
        if title is not None and ("dropdown" in node["classes"] or node.tagname == "solution_node"):
            return folded(title.astext(), words)
        head = self.head(node, title)
        return quoted(f"**{head}**\n\n{words}" if head else words)

    # the box is inside
    block_proof_node = block_container

    def head(self, node, title: nodes.Element | None) -> str:
        """Kind, number and title, as the page has them; a proof begins with its word."""
        words = self.inline(title).strip() if title is not None else ""
        kind = self.number(node)
        if not kind and not node.get("says_its_kind"):
            kind = node.get("realtype", "")
        if isinstance(node, nodes.note):
            kind = "note"
        return " ".join(filter(None, (kind[:1].upper() + kind[1:], words)))

    # --- lines ---

    def inline(self, node: nodes.Element) -> str:
        return "".join(self.inline_of(child) for child in node.children)

    def inline_of(self, node: nodes.Node) -> str:
        if isinstance(node, SILENT):
            return ""
        if isinstance(node, nodes.Text):
            return self.pipes(node, escape(node.astext()))
        for kind in type(node).__mro__:
            write = getattr(self, f"inline_{kind.__name__}", None)
            if write:
                return write(node)
        raise unknown(node)

    def pipes(self, node: nodes.Node, text: str) -> str:
        """A `|` would end the cell of a table."""
        while node.parent is not None and not isinstance(node, nodes.entry):
            node = node.parent
        return text.replace("|", "\\|") if isinstance(node, nodes.entry) else text

    def inline_inline(self, node) -> str:
        return self.inline(node)

    inline_term = inline_inline
    inline_generated = inline_inline

    def inline_emphasis(self, node) -> str:
        return f"*{self.inline(node)}*"

    inline_title_reference = inline_emphasis

    def inline_strong(self, node) -> str:
        return f"**{self.inline(node)}**"

    def inline_literal(self, node) -> str:
        return self.pipes(node, code(node.astext()))

    def inline_math(self, node) -> str:
        tex = " ".join(node.astext().split())
        inside = self.pipes(node, tex) != tex
        if inside:
            tex = tex.replace("\\|", "\\Vert ").replace("|", "\\vert ")
        return f"${tex}$"

    def inline_reference(self, node) -> str:
        title = self.inline(node)
        address = self.goal(node)
        return f"[{title}]({address})" if address else title

    def inline_image(self, node) -> str:
        return f"![{escape(node.get('alt', ''))}]({node['uri']})"


def heading_of(node: nodes.Node) -> nodes.section | None:
    """The section in which a node stands."""
    while node is not None and not isinstance(node, nodes.section):
        node = node.parent
    return node


def headings(doctree: nodes.document) -> Mapping[str, nodes.section]:
    """The section of every id of a page."""
    found = {}
    for node in doctree.findall(nodes.Element):
        section = heading_of(node)
        names = node.get("ids", [])
        if isinstance(node, nodes.target) and node.get("refid"):
            names = [*names, node["refid"]]
        if section is not None:
            found.update(dict.fromkeys(names, section))
    return found
