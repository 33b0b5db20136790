"""What a page asks for when its reader wants any value: the dials of an explorer and its scenes, as
JSON text."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache

from expertbank.book.explorers.explorer import Explorer
from expertbank.book.explorers.variants import with_variants


@cache
def opened(name: str) -> Explorer:
    """The explorer of a chapter, made once: what it prepares serves all its scenes."""
    return with_variants(name)


def dials_of(name: str) -> str:
    """All dials of an explorer by name, those without stops too."""
    return json.dumps({key: asdict(dial) for key, dial in opened(name).dials.items()})


def scene_of(name: str, dials: str) -> str:
    """The scene at a value (JSON) of every dial."""
    return json.dumps(opened(name).scene(**json.loads(dials)).to_json())
