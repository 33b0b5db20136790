"""The scenes of an explorer on all stops of its dials, packed for a page.

All scenes of an explorer have one form: names, kinds, axes, numbers of points. What remains are
columns of numbers. Each is stored once for the dials that it depends on, in steps that no eye
and no printed digit can tell apart, as differences, which are small. The ES module turns it back
into scenes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from expertbank.book.explorers.dial import Dial, starts_of
from expertbank.book.explorers.scene import Axis, Panel, Reading, Scene, Track

PARTS = 2000  # of an axis, which is at most 700 pixels long
MOST_DIALS = 3  # with stops


def pack(
    name: str, scene: Callable[..., Scene], dials: Mapping[str, Dial], alt: str
) -> dict[str, Any]:
    """The form of the scenes and the numbers of all stops, as JSON that the ES module reads.

    Refuses more than three dials with stops, a start that is not a stop, and scenes that differ in
    form.
    """
    moving = _with_stops(name, dials)
    form = None
    first = ""
    scales: list[Axis | Reading | None] = []
    table: list[list[np.ndarray]] = []
    for stops in itertools.product(*(dial.stops for dial in moving.values())):
        setting = dict(zip(moving, stops))
        shown = scene(**{**starts_of(dials), **setting})
        found, numbers = _split(shown)
        spoken = ", ".join(f"{key} = {value:g}" for key, value in setting.items())
        if form is None:
            form = found
            first = spoken
            scales = _scales(shown)
        elif found != form:
            raise ValueError(
                f"explorer {name!r}: scenes must have one form, and "
                f"{_difference(form, found)} differs between {first} and {spoken}"
            )
        table.append(numbers)
    assert form is not None
    sizes = [len(dial.stops) for dial in moving.values()]
    columns = [
        _column(np.reshape(column, (*sizes, -1)), scale)
        for column, scale in zip(zip(*table), scales)
    ]
    return {
        "name": name,
        "alt": alt,
        "dials": [_dial(key, dial) for key, dial in moving.items()],
        "form": form,
        "columns": columns,
    }


def as_html(packed: dict[str, Any]) -> str:
    """Packed scenes in the element that the ES module mounts."""
    text = json.dumps(packed, ensure_ascii=False, separators=(",", ":"))
    return (
        f'<div class="explorer" data-name="{packed["name"]}"><script type="application/json">'
        + text.replace("<", "\\u003c")
        + "</script></div>"
    )


def _with_stops(name: str, dials: Mapping[str, Dial]) -> Mapping[str, Dial]:
    """The dials of a page."""
    moving = {key: dial for key, dial in dials.items() if len(dial.stops)}
    if not 1 <= len(moving) <= MOST_DIALS:
        raise ValueError(
            f"explorer {name!r} has {len(moving)} dials with stops: 1 to {MOST_DIALS} are allowed"
        )
    for key, dial in moving.items():
        if dial.start not in list(dial.stops):
            raise ValueError(
                f"explorer {name!r}: the dial {key} starts at {dial.start:g}, "
                "which must be one of its stops"
            )
    return moving


def _dial(name: str, dial: Dial) -> dict[str, Any]:
    return {
        "name": name,
        "label": dial.description,
        "unit": dial.unit,
        "start": list(dial.stops).index(dial.start),
        "stops": [_digits(stop, 6) for stop in dial.stops],
        "names": list(dial.names),
    }


def _parts(scene: Scene) -> Iterator[tuple[Any, dict[str, Axis | Reading | None]]]:
    """What holds numbers in a scene: their names, and what says how fine each must be."""
    for panel in scene.panels:
        heights = dict.fromkeys(("y", "top", "low", "high"), panel.y)
        for thing in (*panel.series, *panel.marks, *_tracks(panel)):
            yield thing, {"x": panel.x, **heights, "values": None}
    for reading in scene.readings:
        yield reading, {"value": reading, "error": reading}


def _tracks(panel: Panel) -> list[Track]:
    return [] if panel.track is None else [panel.track]


def _places(form: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a scene's JSON that hold numbers, in the order of `_parts`."""
    for panel in form["panels"]:
        yield from panel["series"]
        yield from panel["marks"]
        if panel["track"] is not None:
            yield panel["track"]
    yield from form["readings"]


def _split(scene: Scene) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The JSON of a scene with places instead of numbers, and the numbers (P,) of each place."""
    form = scene.to_json()
    columns: list[np.ndarray] = []
    for (thing, names), place in zip(_parts(scene), _places(form)):
        for name in names:
            value = getattr(thing, name, None)
            if value is not None:
                numbers = np.asarray(value, dtype=float)
                size = numbers.size if numbers.ndim else 0
                place[name] = {"column": len(columns), "size": size}
                columns.append(numbers.ravel())
    return form, columns


def _scales(scene: Scene) -> list[Axis | Reading | None]:
    """How fine each column must be, in their order."""
    return [
        scale
        for thing, names in _parts(scene)
        for name, scale in names.items()
        if getattr(thing, name, None) is not None
    ]


def _difference(one: Any, other: Any, place: str = "scene") -> str:
    """The first place in which two forms differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one:
            if one[key] != other.get(key):
                return _difference(one[key], other.get(key), f"{place}.{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other)):
            if a != b:
                return _difference(a, b, f"{place}[{i}]")
    return place


def _column(values: np.ndarray, scale: Axis | Reading | None) -> dict[str, Any]:
    """Numbers (stops of each dial..., P) as JSON: 1 in place of the stops of a dial that changes
    none of them."""
    if scale is None or (isinstance(scale, Reading) and scale.digits < 0):
        digits = 6 if scale is None else -scale.digits
        values = _once(np.vectorize(_digits, otypes=[object])(values, digits))
        return {"shape": values.shape[:-1], "plain": values.ravel().tolist()}
    log = isinstance(scale, Axis) and scale.scale == "log"
    if isinstance(scale, Reading):
        step = 10.0**-scale.digits
    elif log:
        step = float(np.log(scale.high / scale.low)) / PARTS
        values = np.log(values, out=np.full(values.shape, np.nan), where=values > 0)
    else:
        step = (scale.high - scale.low) / PARTS
    known = np.isfinite(values)
    low = 0.0
    if known.any():
        low = float(values[known].min())
    if isinstance(scale, Reading):
        low = round(low, scale.digits)
    counts = np.full(values.shape, -1)
    counts[known] = np.rint((values[known] - low) / step).astype(int)
    counts = _once(counts)
    along = min(_ways(counts), key=lambda way: _entropy(_differences(counts, way)))
    return {
        "shape": counts.shape[:-1],
        "log": log,
        "low": low,
        "step": step,
        "along": along,
        "differences": _differences(counts, along).tolist(),
    }


def _once(values: np.ndarray) -> np.ndarray:
    """`values` (stops of each dial..., P) without the copies along a dial that changes nothing."""
    for dial in range(values.ndim - 1):
        first = values.take([0], axis=dial)
        if (values == first).all():
            values = first
    return values


def _ways(counts: np.ndarray) -> list[list[int]]:
    """Axes along which differences may be taken, once each or twice along one."""
    longer = [axis for axis in range(counts.ndim) if counts.shape[axis] > 1]
    ways = [list(way) for n in range(len(longer) + 1) for way in itertools.combinations(longer, n)]
    return ways + [[*way, axis] for way in ways for axis in way]


def _differences(counts: np.ndarray, along: list[int]) -> np.ndarray:
    for axis in along:
        counts = np.diff(counts, axis=axis, prepend=0)
    return counts.ravel()


def _entropy(numbers: np.ndarray) -> float:
    """Nats that a code for single numbers needs."""
    _, found = np.unique(numbers, return_counts=True)
    return float(-(found * np.log(found / found.sum())).sum())


def _digits(value: float, digits: int) -> float | None:
    """`value` with that many significant digits; not a number is None."""
    if not np.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
