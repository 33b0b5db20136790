"""What an explorer shows, as plain numbers: a scene holds panels and numbers to read, and nothing
that draws.

A function `scene(**dials) -> Scene` is the mathematics of an explorer. One ES module draws any
scene, on the site, in JupyterLab and from the kernel. What stays equal while the dials move (names,
kinds, axes, how many points a series has) is the form of the scene; the rest is numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import ArrayLike

from expertbank._files import json_ready


@dataclass(frozen=True)
class Axis:
    """One axis of a panel: it stays where it is while a dial moves.

    `label` names the quantity with its unit. `categories` are the names at 0, 1, 2, ... of an axis
    that has no scale; then `low` and `high` are -0.5 and their number minus 0.5. Those of y stand
    from the top down.
    """

    label: str
    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """Points (P,) of one name: a line, a band between `y` and `top`, dots, or bars.

    "line" joins them, "band" fills from y to top, "dots" marks each, "bars" stand on the axis y = 0
    (or lie, where the panel's y axis has categories). `look` picks colour, stroke and marker: equal
    looks belong together.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    kind: Literal["line", "band", "dots", "bars"] = "line"
    look: int = 0
    top: ArrayLike | None = None


@dataclass(frozen=True)
class Mark:
    """One point that stands out: "ring" is where the dials are, "cross" is a paper's value, "rule"
    a horizontal line at y, and "post" a vertical one at x.

    `low` and `high` are the ends of an error bar through it, in y.
    """

    name: str
    x: float
    y: float
    kind: Literal["ring", "cross", "rule", "post"] = "ring"
    look: int = 3
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Track:
    """Where a reader may drag the ring: at (x[i], y[i]) the dial has the value values[i]."""

    dial: str
    values: ArrayLike
    x: ArrayLike
    y: ArrayLike


@dataclass(frozen=True)
class Panel:
    """One pair of axes and what stands in it; `title` where a scene has several."""

    x: Axis
    y: Axis
    series: Sequence[Series] = ()
    marks: Sequence[Mark] = ()
    track: Track | None = None
    title: str = ""


@dataclass(frozen=True)
class Reading:
    """One number to read beside the picture, with its decimals, its unit and its standard error.

    Negative `digits` print that many significant figures instead of decimals.
    """

    name: str
    value: float
    digits: int = 4
    unit: str = ""
    error: float | None = None


@dataclass(frozen=True)
class Scene:
    """What one setting of the dials shows.

    >>> axis = Axis("rate (nats)", 0, 1)
    >>> panel = Panel(axis, Axis("loss", 0, 1), [Series("D(R)", [0, 1], [1, 0])])
    >>> scene = Scene([panel], [Reading("rate", 0.25, unit="nats")])
    >>> scene.to_json()["panels"][0]["series"][0]["y"]
    [1, 0]
    """

    panels: Sequence[Panel]
    readings: Sequence[Reading] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The scene as lists, numbers and strings, as the ES module reads it; not a number is
        null."""
        return json_ready(self)
