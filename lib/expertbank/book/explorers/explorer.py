"""An explorer: dials around a pure function that returns a scene.

Where the book is built (EXPERTBANK_STATIC is set) an explorer is a page's own: it holds the scenes
of all stops as numbers, and no kernel is asked. In JupyterLab and Binder it is a widget, and its
sliders take any value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from expertbank.book.explorers.dial import Dial, starts_of
from expertbank.book.explorers.grid import as_html, pack
from expertbank.book.explorers.scene import Scene


@dataclass(frozen=True)
class Explorer:
    """The scenes of `scene(**dials)`, by the name of their chapter; `alt` says what one shows to
    who does not see it.

    At most three of the dials have stops.
    """

    name: str
    scene: Callable[..., Scene]
    dials: Mapping[str, Dial]
    alt: str

    def start(self) -> dict[str, float]:
        """Where every dial stands at first."""
        return starts_of(self.dials)

    def packed(self) -> dict[str, Any]:
        """The scenes of all stops, as JSON that the ES module reads."""
        return pack(self.name, self.scene, self.dials, self.alt)

    def __repr__(self) -> str:
        return f"Explorer {self.name!r} with dials {', '.join(self.dials)}"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if "EXPERTBANK_STATIC" in os.environ:
            return {"text/html": as_html(self.packed()), "text/plain": repr(self)}
        from expertbank.book.explorers.widget import sliders_around

        try:
            return sliders_around(self.scene, self.dials, self.alt)._repr_mimebundle_(**kwargs)
        except FileNotFoundError as error:  # a notebook shows the sentence, not a traceback
            return {"text/plain": str(error)}
