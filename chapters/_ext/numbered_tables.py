"""Tables of the chapters as the book shows them.

What `expertbank.book.tables.table` leaves in an output becomes a table of Sphinx, which numbers it
and lets the text refer to it. Every table, also one written in Markdown, gets headers that say what
they head, and a box that scrolls where the window is too narrow for it.
"""

from __future__ import annotations

import re
from html import escape
from xml.etree import ElementTree

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

MARKS = re.compile(r"\$([^$]+)\$|`([^`]+)`")


def inline(text: str) -> list[nodes.Node]:
    """Text with its `$mathematics$` and its code in backticks."""
    found, end = [], 0
    for mark in MARKS.finditer(text):
        if mark.start() > end:
            found.append(nodes.Text(text[end : mark.start()]))
        formula, code = mark.groups()
        found.append(nodes.math(formula, formula) if formula else nodes.literal(code, code))
        end = mark.end()
    if text[end:]:
        found.append(nodes.Text(text[end:]))
    return found


def words(element: ElementTree.Element) -> str:
    """The text of an element, code in backticks."""
    parts = [element.text or ""]
    for child in element:
        parts.append(f"`{words(child)}`{child.tail or ''}")
    return "".join(parts)


def row(cells: list[ElementTree.Element]) -> nodes.row:
    made = nodes.row()
    for cell in cells:
        classes = ["number"] if cell.get("class") == "number" else []
        made += nodes.entry("", *inline(words(cell)), classes=classes)
    return made


def numbered(html: str) -> nodes.table:
    """The HTML of a `NumberedTable` as a table of Sphinx."""
    root = ElementTree.fromstring(html)
    caption, head, body = root
    columns = len(head[0])
    group = nodes.tgroup("", cols=columns)
    for place in range(columns):
        group += nodes.colspec(colwidth=1, stub=place == 0)
    group += nodes.thead("", row(list(head[0])))
    group += nodes.tbody("", *(row(list(line)) for line in body))
    made = nodes.table("", nodes.title("", "", *inline(words(caption))), group)
    made["classes"] = ["book-table"]
    if root.get("id"):
        made["names"] = [root.get("id")]
    return made


class NumberTables(SphinxTransform):
    """Put each table of an output into the place of the output."""

    default_priority = 400

    def apply(self, **kwargs) -> None:
        for raw in list(self.document.findall(nodes.raw)):
            if not raw.astext().startswith('<table class="book-table"'):
                continue
            made = numbered(raw.astext())
            output = raw.parent
            while output.get("nb_element") != "mime_bundle":
                output = output.parent
            output.replace_self(made)
            if made["names"]:
                self.document.note_explicit_target(made, made)
            else:
                self.document.set_id(made)


class HeadRows(SphinxTransform):
    """The first cell of a row says what the row is about, in Markdown's tables too."""

    default_priority = 410

    def apply(self, **kwargs) -> None:
        for group in self.document.findall(nodes.tgroup):
            first = next(group.findall(nodes.colspec))
            first["stub"] = True


def label(table: nodes.table) -> str:
    """What a screen reader says of a table: its caption, or its headers."""
    caption = next(table.findall(nodes.title), None)
    if caption is not None:
        return caption.astext()
    head = next(table.findall(nodes.thead), None)
    if head is None:
        return "table"
    return "table of " + ", ".join(filter(None, (e.astext() for e in head.findall(nodes.entry))))


def visit_table(self, node):
    """The theme puts a table into a box; here the box is named. Only a numbered table is a
    landmark, as two tables of a page may have the same headers."""
    start = len(self.body)
    type(self).visit_table(self, node)
    role = "region" if "book-table" in node["classes"] else "group"
    box = '<div class="pst-scrollable-table-container"'
    named = f'{box} role="{role}" aria-label="{escape(label(node))}" tabindex="0"'
    self.body[start:] = [piece.replace(box, named) for piece in self.body[start:]]


def depart_table(self, node):
    type(self).depart_table(self, node)


def visit_entry(self, node):
    """A header says which way it heads; an empty one is none."""
    line, part = node.parent, node.parent.parent
    attributes = {name: node[name] + 1 for name in ("morerows", "morecols") if name in node}
    spans = {"morerows": "rowspan", "morecols": "colspan"}
    attributes = {spans[name]: number for name, number in attributes.items()}
    scope = ""
    if isinstance(part, nodes.thead):
        scope = "col"
    elif part.parent.stubs[line.column]:
        scope = "row"
    line.column += attributes.get("colspan", 1)
    # a formula alone is no text yet when a page is checked: it may head a column, not a row
    said = [part for part in node.findall(nodes.Text) if not isinstance(part.parent, nodes.math)]
    if scope == "row" and not any(part.strip() for part in said):
        scope = ""
    kind = "th" if scope and node.astext().strip() else "td"
    if kind == "th":
        attributes["scope"] = scope
    self.body.append(self.starttag(node, kind, "", **attributes))
    self.context.append(f"</{kind}>\n")


def depart_entry(self, node):
    self.body.append(self.context.pop())


class LinkExcerpts(SphinxTransform):
    """The name above an excerpt of the library leads to its page in the API."""

    default_priority = 420

    def apply(self, **kwargs) -> None:
        for name in list(self.document.findall(nodes.literal)):
            output = name.parent.parent
            if not isinstance(output, nodes.container) or not name.astext().startswith(
                "expertbank."
            ):
                continue
            if output.get("mime_type") != "text/markdown":
                continue
            for code in output.findall(nodes.literal_block):
                code["classes"].append("excerpt")
            link = pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=name.astext(),
                refdoc=self.env.docname,
                refexplicit=True,
                refwarn=True,
            )
            name.replace_self(link)
            link += name


def setup(app):
    app.add_transform(NumberTables)
    app.add_transform(HeadRows)
    app.add_transform(LinkExcerpts)
    app.add_node(nodes.table, override=True, html=(visit_table, depart_table))
    app.add_node(nodes.entry, override=True, html=(visit_entry, depart_entry))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
