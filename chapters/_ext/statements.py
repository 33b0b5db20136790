"""Equations and theorems: the papers' numbers beside ours, and titles that say a thing once.

A formula that begins with the TeX comment `% P1 (8)` is equation (8) of P1: the page shows that
beside the book's own number. A block of the kind theorem with the title `Theorem 1 of P1` has its
kind in its title already, so the kind is not printed before it.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx_proof import nodes as proof

PAPER_NUMBER = re.compile(r"\A\s*%[ \t]*(P\d [^\n]+?)[ \t]*\n")
# ids that the extensions give to the body of every block
CONTENTS = {"proof-content", "exercise-content", "solution-content"}


class TagEquations(SphinxTransform):
    """Take a paper's number out of a formula and set it beside the formula."""

    default_priority = 430

    def apply(self, **kwargs) -> None:
        for formula in list(self.document.findall(nodes.math_block)):
            found = PAPER_NUMBER.match(formula.astext())
            if not found:
                continue
            rest = formula.astext()[found.end() :]
            formula.rawsource = rest
            formula.children = []
            formula += nodes.Text(rest)
            box = nodes.container(classes=["equation-of-paper"])
            formula.parent.replace(formula, box)
            tag = nodes.paragraph("", found[1], classes=["paper-number"])
            box.extend([formula, tag])


def says_its_kind(title: str, kind: str) -> bool:
    """Whether a title names its kind by itself.

    >>> says_its_kind("Theorem 1 of P1", "theorem"), says_its_kind("Aminian (2021)", "theorem")
    (True, False)
    """
    return re.search(rf"\b{kind}\b", title, re.I) is not None


class NameStatements(SphinxTransform):
    """Say a kind once, and give no two places of a page the same id."""

    default_priority = 440

    def apply(self, **kwargs) -> None:
        for block in self.document.findall(nodes.Admonition):
            block["ids"] = [name for name in block["ids"] if name != "proof"]
            for part in block.children:
                if isinstance(part, nodes.title):
                    part["ids"] = []
                elif part["ids"] and part["ids"][0] in CONTENTS:
                    part["ids"] = [f"{block['ids'][0]}-content"]
            if isinstance(block, proof.unenumerable_node):
                title = block["title"].removeprefix(" (").removesuffix(")")
                if says_its_kind(title, block["realtype"]):
                    self.bare(block)

    def bare(self, block) -> None:
        """Take the brackets off the title."""
        block["says_its_kind"] = True
        first = next(block.children[0].findall(nodes.Text))
        first.parent.replace(first, nodes.Text(first.removeprefix(" (")))
        last = list(block.children[0].findall(nodes.Text))[-1]
        last.parent.replace(last, nodes.Text(last.removesuffix(")")))


def visit_statement(self, node):
    """The kind before the title, where the title does not say it."""
    proof.visit_unenumerable_node(self, node)
    heading = node.children[0]
    if not node.get("says_its_kind"):
        kind = node["realtype"].title()
        heading.insert(0, nodes.inline("", f"{kind} ", classes=["caption-number"]))


def depart_statement(self, node):
    self.body.append("</div>")


def setup(app):
    app.setup_extension("sphinx_proof")
    app.add_transform(TagEquations)
    app.add_transform(NameStatements)
    app.add_node(
        proof.unenumerable_node,
        override=True,
        html=(visit_statement, depart_statement),
        latex=(proof.visit_unenumerable_node, proof.depart_unenumerable_node),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
