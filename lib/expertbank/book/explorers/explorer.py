"""An explorer: dials around a pure function that returns a scene.

Where the book is built (EXPERTBANK_STATIC is set) an explorer is a page's own: it holds the scenes
of all stops as numbers, and no kernel is asked. In JupyterLab and Binder it is a widget, and its
sliders take any value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expertbank.book.explorers.grid import as_html
from expertbank.book.explorers.scene import Scene


@dataclass(frozen=True)
class Dial:
    """One parameter of an explorer.

    `start` is where it stands at first, and one of `stops`, which the page offers. With a kernel it
    takes any value of `live`: (low, high, step), where a step of "log" makes low and high powers of
    ten. Without `live` the kernel offers the stops; without `stops` the page leaves the dial out.
    `names` are words for the stops, where these number things that have no order, such as banks.
    """

    description: str
    start: float
    stops: Sequence[float] = ()
    live: tuple[float, float, Any] | None = None
    unit: str = ""
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Explorer:
    """The scenes of `scene(**dials)`, by the name of their chapter; `alt` says what one shows to
    who does not see it.

    At most two of the dials have stops.
    """

    name: str
    scene: Callable[..., Scene]
    dials: Mapping[str, Dial]
    alt: str

    def start(self) -> dict[str, float]:
        """Where every dial stands at first."""
        return {name: float(dial.start) for name, dial in self.dials.items()}

    def __repr__(self) -> str:
        return f"Explorer {self.name!r} with dials {', '.join(self.dials)}"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if "EXPERTBANK_STATIC" in os.environ:
            return {"text/html": as_html(self), "text/plain": repr(self)}
        from expertbank.book.explorers.widget import sliders_around

        try:
            return sliders_around(self)._repr_mimebundle_(**kwargs)
        except FileNotFoundError as error:  # a notebook shows the sentence, not a traceback
            return {"text/plain": str(error)}
