"""The numbers of the report: what each is called, which table it stands in, and how to read it. The
texts are in `quantities.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Quantity:
    """How a number of the report is called, which table it stands in, and how to read it: what it
    is, its unit, what would be good to see.

    >>> QUANTITIES["rate"].label, QUANTITIES["rate"].group
    ('I(X;T)', 'Rate')
    >>> RATE_OF_PICKS.label  # where no weights are known
    'H(T) - log k'
    """

    label: str
    group: str
    text: str
    unit: str
    good: str

    @property
    def lesson(self) -> str:
        """All three in a row."""
        return f"{self.text} Unit: {self.unit}. Good: {self.good}."


_TEXTS = tomllib.loads(Path(__file__).with_name("quantities.toml").read_text("utf-8"))

CAUTIONS: dict[str, str] = _TEXTS.pop("cautions")
"""Sentences on what keeps a number of the report from saying what its text says."""

FURTHER_TEXTS: dict[str, str] = _TEXTS.pop("further")
"""How to read the tables that are not about single layers, by the first word of their headings."""

RATE_OF_PICKS = Quantity(group="Rate", **_TEXTS.pop("picks"))
"""What `LayerReport.rate` is where no more than choices are known."""

QUANTITIES: dict[str, Quantity] = {
    name: Quantity(group=group, **entry)
    for group, entries in _TEXTS.items()
    for name, entry in entries.items()
}
"""Every number of a `LayerReport`, by its field, in the order of the tables."""
