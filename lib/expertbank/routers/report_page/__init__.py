"""The routing report as one HTML page: figures, tables and how to read them, with nothing to load
from elsewhere.

`page.html.jinja` is the page, `page.css` its look, `drawings` its figures.
"""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expertbank._files import write_atomically
from expertbank.routers.layer_report import shown
from expertbank.routers.report import RoutingReport, how_to_read, short_names
from expertbank.routers.report_page.drawings import Drawing, draw_group
from expertbank.routers.verdicts import DEAD, FINE, SHORT, SKEWED, UNKNOWN, UNSPECIFIC, Verdict


def write_html(report: RoutingReport, path: str | os.PathLike[str]) -> None:
    """Write the report as one page: all of it or nothing. Needs matplotlib and Jinja2 (`pip install
    -e '.[routers]'`).

    No script and no reference to another file or host; light or dark as the reader's system is.

    >>> from tempfile import TemporaryDirectory
    >>> from expertbank.routers import RouterStatistics, routing_report
    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
    >>> statistics.update(0, [[0], [1], [1]])
    >>> with TemporaryDirectory() as folder:
    ...     write_html(routing_report(statistics), f"{folder}/report.html")
    ...     "Routing report" in Path(folder, "report.html").read_text()
    True
    """
    text = html_page(report)
    write_atomically(Path(path), lambda file: file.write(text.encode()))


def html_page(report: RoutingReport) -> str:
    """The page as text.

    >>> from expertbank.routers import RouterStatistics, routing_report
    >>> statistics = RouterStatistics(n_experts=2, n_chosen=1)
    >>> statistics.update("<gate>", [[0], [1], [1]])
    >>> page = html_page(routing_report(statistics))
    >>> "<gate>" in page, "&lt;gate&gt;" in page  # text is escaped
    (False, True)
    """
    sections = [
        _Section(group, fields, [] if group == "Load" else draw_group(group, report))
        for group, fields in report.groups().items()
    ]
    sections += [
        _Section(group, [], drawings)
        for group in FURTHER
        if (drawings := draw_group(group, report))
    ]
    load = draw_group("Load", report)
    names = short_names([layer.name for layer in report.layers])
    tiles = [
        _Tile(name, layer.name, verdict)
        for name, layer, verdict in zip(names, report.layers, report.verdicts)
    ]
    template = _environment().get_template("page.html.jinja")
    return template.render(report=report, sections=sections, tiles=tiles, marks=_MARKS, load=load)


FURTHER = ("Communication", "Checkpoints", "Side by side")
"""Groups of figures that are not about single layers' numbers"""
# of each verdict, the name of its colour, a sign for whoever sees no colours, and a short form
_MARKS = {
    DEAD: ("dead", "✕", SHORT[DEAD]),
    SKEWED: ("skewed", "◐", SHORT[SKEWED]),
    UNSPECIFIC: ("none", "○", SHORT[UNSPECIFIC]),
    UNKNOWN: ("unknown", "?", SHORT[UNKNOWN]),
    FINE: ("fine", "✓", SHORT[FINE]),
}


@dataclass(frozen=True)
class _Tile:
    """The verdict on a layer on the front page, under a name as short as it can be."""

    name: str
    full_name: str
    verdict: Verdict


@dataclass(frozen=True)
class _Section:
    """What the page shows of one group of numbers."""

    group: str
    fields: list[str]
    drawings: list[Drawing]


def _environment() -> Any:
    """Jinja2 with the templates of this folder, which escape whatever is not marked as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__name__, ""),
        autoescape=True,
        finalize=_escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shown"] = shown
    environment.filters["how_to_read"] = how_to_read
    return environment


def _escaped(value: Any) -> Any:
    """Text as `html.escape` writes it, so that the page has one form of an apostrophe: Jinja2's own
    escaping, which finds nothing left to do, writes another than the attributes of `drawings`."""
    import markupsafe

    if hasattr(value, "__html__"):
        return value
    return markupsafe.Markup(html.escape(str(value)))
