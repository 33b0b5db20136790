"""Statistics that `RouterStatistics.save` wrote: no tokens, but what was counted of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from expertbank.routers.formats._arrays import names_in
from expertbank.routers.formats._common import Asked, Format, Piece
from expertbank.routers.statistics import load_statistics


def _refuse(path: Path, asked: Asked) -> Iterator[Piece]:
    raise ValueError(
        f"{path} holds statistics, no tokens; read it by load_statistics or statistics_of"
    )


def _has_header(path: Path, asked: Asked) -> bool:
    return "header" in names_in(path)


FORMAT = Format(
    name="statistics",
    suffixes=(".npz",),
    description="what expertbank.routers.RouterStatistics.save wrote, of any number of tokens",
    read=_refuse,
    recognises=_has_header,
    load=load_statistics,
)
