"""Mathematics as MathML, which an e-book reader shows without running a script: `html_math_renderer
= "mathml"`."""

from __future__ import annotations

import re
import unicodedata

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.math import get_node_equation_number

# what latex2mathml does not know, in terms of what it does
SUBSTITUTES = {
    "{aligned}": "{split}",
    r"\operatorname*": r"\operatorname",
    r"\big\|": "‖",
    r"\Big\|": "‖",
    r"\bigl\{": r"\lbrace ",
    r"\bigr\}": r"\rbrace ",
}


def mathml(latex: str, display: str) -> str:
    """Presentation MathML of one formula."""
    for name, other in SUBSTITUTES.items():
        latex = latex.replace(name, other)
    if display == "block" and re.search(r"(?<!\\)&|\\\\", latex) and r"\begin" not in latex:
        latex = rf"\begin{{split}}{latex}\end{{split}}"
    return re.sub(
        r'<m([in]) mathvariant="([a-z-]+)">(\w)</m\1>', letter, convert(latex, display=display)
    )


def letter(found: re.Match) -> str:
    """A letter of a special alphabet as its own character: MathML Core, hence most readers, know no
    `mathvariant`."""
    _, style, character = found.groups()
    if character.isdigit():
        kind = "DIGIT"
    elif character.isupper():
        kind = "CAPITAL"
    else:
        kind = "SMALL"
    name = unicodedata.name(character).split()[-1]
    for alphabet in (f"MATHEMATICAL {style.upper()}", style.upper()):
        try:
            return f"<mi>{unicodedata.lookup(f'{alphabet} {kind} {name}')}</mi>"
        # the letters that Unicode had before the others, such as the double-struck R
        except KeyError:
            continue
    return found[0]


def visit_inline(self, node):
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self, node):
    number = ""
    if node["number"]:
        number = f'<span class="eqno">({get_node_equation_number(self, node)})</span>'
    place = f' id="{node["ids"][0]}"' if node["ids"] else ""
    self.body.append(f'<div class="math"{place}>{number}{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
