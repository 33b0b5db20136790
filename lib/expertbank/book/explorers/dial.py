"""A parameter that a reader moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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


def starts_of(dials: Mapping[str, Dial]) -> dict[str, float]:
    """Where every dial stands at first."""
    return {name: float(dial.start) for name, dial in dials.items()}
