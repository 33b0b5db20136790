"""Statistics that `RouterStatistics.save` wrote: no tokens, but what was counted of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from expertbank.routers.formats._common import Format, Piece, names_in
from expertbank.routers.statistics import load_statistics


def _refuse(path: Path) -> Iterator[Piece]:
    raise ValueError(
        f"{path} holds statistics, no tokens; read it by load_statistics or statistics_of"
    )


def _has_header(path: Path) -> bool:
    return "header" in names_in(path)


FORMAT = Format(
    name="statistics",
    suffixes=(".npz",),
    description="what expertbank.routers.RouterStatistics.save wrote, of any number of tokens",
    read=_refuse,
    recognises=_has_header,
    load=load_statistics,
)
