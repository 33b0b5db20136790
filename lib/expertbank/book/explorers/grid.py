"""The scenes of an explorer on all stops of its dials, packed for a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expertbank.book.explorers.explorer import Explorer


def pack(explorer: Explorer) -> dict[str, Any]:
    """The form of the scenes and the numbers of all stops, as JSON that `unpack` and the ES module
    read."""
    raise NotImplementedError


def as_html(explorer: Explorer) -> str:
    """The packed scenes in the element that the ES module mounts."""
    raise NotImplementedError
