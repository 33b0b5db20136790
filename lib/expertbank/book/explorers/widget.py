"""An explorer with a kernel: sliders of ipywidgets that take any value, beside a scene that the ES
module draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from expertbank.book.explorers.dial import Dial, starts_of
from expertbank.book.explorers.scene import Scene
from expertbank.book.palette import style_sheet

HERE = Path(__file__).parent
MODULE = HERE / "bundle" / "explorer.mjs"
# labels wide enough to read, on a phone too
WIDE_LABELS = {
    "style": {"description_width": "12em"},
    "layout": {"width": "40em", "max_width": "100%"},
}


@cache
def drawing_module() -> str:
    """The bundled ES module, which npm makes and git does not hold."""
    if not MODULE.is_file():
        raise FileNotFoundError(
            f"{MODULE} is missing and needed to draw: run `make book` or `bash postBuild` "
            "in the repository (Node.js 18 or newer)"
        )
    return MODULE.read_text()


class Picture(anywidget.AnyWidget):
    """Draws its `scene`; it sends {dial: value} when a reader drags the ring or resets."""

    _css = style_sheet() + (HERE / "explorer.css").read_text()
    _esm = traitlets.Unicode().tag(sync=True)
    scene = traitlets.Dict().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    start = traitlets.Dict().tag(sync=True)

    @traitlets.default("_esm")
    def _module(self) -> str:
        return drawing_module()


def sliders_around(
    scene: Callable[..., Scene], dials: Mapping[str, Dial], alt: str
) -> ipywidgets.VBox:
    """A slider for each dial over a picture of where they are."""
    sliders = {name: _slider(dial) for name, dial in dials.items()}

    def shown() -> dict[str, Any]:
        values = {name: slider.value for name, slider in sliders.items()}
        return scene(**values).to_json()

    picture = Picture(scene=shown(), alt=alt, start=starts_of(dials))

    def redraw(_: Any) -> None:
        picture.scene = shown()

    def move(_: Any, wanted: dict[str, float], buffers: Any) -> None:
        for name, value in wanted.items():
            slider = sliders[name]
            if isinstance(slider, ipywidgets.SelectionSlider):
                value = min((stop for _, stop in slider.options), key=lambda x: abs(x - value))
            slider.value = value

    for slider in sliders.values():
        slider.observe(redraw, names="value")
    picture.on_msg(move)
    return ipywidgets.VBox([*sliders.values(), picture])


def _slider(dial: Dial) -> Any:
    """A slider over every value of `live`, or over the stops where it is None."""
    look = {"description": dial.description, **WIDE_LABELS}
    if dial.live is None:
        names = dial.names if len(dial.names) else [f"{stop:.4g}" for stop in dial.stops]
        options = list(zip(names, dial.stops))
        return ipywidgets.SelectionSlider(options=options, value=dial.start, **look)
    low, high, step = dial.live
    kind = ipywidgets.FloatSlider
    if step == "log":
        kind = ipywidgets.FloatLogSlider
        step = 0.01
    elif isinstance(step, int):
        kind = ipywidgets.IntSlider
    return kind(min=low, max=high, step=step, value=dial.start, **look)
