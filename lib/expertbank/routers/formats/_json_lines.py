"""Records of .json and .jsonl files, one at a time, and routes that stand in them as text."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from expertbank._files import array_of, reading
from expertbank.routers.formats._common import Asked, as_ids, number_names

LONGEST_RECORD = 1 << 28  # bytes of one line, or of a .json file
SUFFIXES = (".jsonl", ".json")
MOST_DOMAINS = 1 << 16  # a table of each expert by each domain is kept
ENVELOPE = "nrlre1"  # NeMo-RL's mark of routes as text
ENVELOPE_TYPES = {"int8": "<i1", "int16": "<i2", "int32": "<i4"}

Record = dict[str, Any]


def records_of(path: Path) -> Iterator[tuple[str, Record]]:
    """Each record of a file and where it stands: a line of .jsonl, the object of a .json, or each
    of its list."""
    for where, content in _contents_of(path):
        for record in content if isinstance(content, list) else [content]:
            if not isinstance(record, dict):
                raise ValueError(f"{where} is a {type(record).__name__}; allowed are objects")
            yield where, record


def lists_of_records(path: Path) -> Iterator[tuple[str, list[Record]]]:
    """As `records_of`, with the objects of one list together."""
    for where, content in _contents_of(path):
        found = content if isinstance(content, list) else [content]
        if not all(isinstance(record, dict) for record in found):
            raise ValueError(f"{where} holds other than objects; allowed is one, or a list of them")
        yield where, found


def _contents_of(path: Path) -> Iterator[tuple[str, Any]]:
    is_one = path.suffix == ".json"
    with path.open("rb") as file:
        i = 0
        while True:
            data = (file.read if is_one else file.readline)(LONGEST_RECORD + 1)
            if not data:
                return
            i += 1
            where = str(path) if is_one else f"{path}, line {i}"
            if len(data) > LONGEST_RECORD:
                raise ValueError(
                    f"{where} is longer than {LONGEST_RECORD:,} bytes; write a .jsonl with one "
                    "response a line"
                )
            if data.strip():
                with reading(where, " as JSON"):
                    content = json.loads(data)
                yield where, content


@lru_cache(maxsize=1)
def _first_of(path: Path, size: int, changed: int) -> Record | None:
    """The first record of a file in that state; None where there is none."""
    return next((record for _, record in records_of(path)), None)


def first_record(path: Path) -> Record:
    """The first record of a file, by which it is recognised; nothing where there is none."""
    found = path.stat()
    record = _first_of(path, found.st_size, found.st_mtime_ns)
    return {} if record is None else record


# --- what stands in a record ---


def part(record: Any, *keys: str) -> Any:
    """What stands under keys in one another; None where one of them is missing."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def body_of(record: Record) -> Any:
    """The response of a record: the record itself, or what it holds beside its request."""
    return record if part(record, "response") is None else record["response"]


def parts(record: Any, key: str) -> list[Record]:
    """The objects of a list under a key; none where there is no list."""
    found = part(record, key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def count_at(where: str, name: str, value: Any) -> int | None:
    """A count that may be missing."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**40:
        raise ValueError(f"{where}: {name} is {str(value)[:40]!r}; allowed is a count")
    return value


def tokens_at(*lists: Any) -> np.ndarray | None:
    """Token ids from lists one after the other; None where one of them is missing."""
    joined: list[int] = []
    for tokens in lists:
        if not isinstance(tokens, list):
            return None
        joined += tokens
    array = np.array(joined)
    return array if array.ndim == 1 and array.dtype.kind == "i" else None


def domain_at(where: str, record: Record, asked: Asked) -> int:
    """The domain that a user wrote into a record, a number or a name; -1 for none."""
    domain = record.get("domain")
    if isinstance(domain, str):
        return int(number_names("domain", [domain], asked)[0])
    number = count_at(where, "domain", domain)
    if number is not None and number >= MOST_DOMAINS:
        raise ValueError(
            f"{where}: domain is {number}; allowed is below {MOST_DOMAINS:,}, or a name"
        )
    return -1 if number is None else number


def bytes_at(where: str, name: str, text: Any) -> bytes:
    """What a text of base64 stands for."""
    if not isinstance(text, str):
        raise ValueError(f"{where}: {name} is a {type(text).__name__}; allowed is base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"{where}: {name} is no base64; was it cut off?") from None


def routes_at(where: str, name: str, value: Any) -> np.ndarray | None:
    """Routes (n, L, k) as they stand in JSON: nested lists, base64 of an npy file, or NeMo-RL's
    envelope; None where there is none."""
    if value is None or value == []:
        return None
    if isinstance(value, list):
        return as_ids(where, name, np.asarray(value))
    if isinstance(value, str) and value.startswith(f"{ENVELOPE}:"):
        return as_ids(where, name, _opened(where, name, value))
    data = bytes_at(where, name, value)
    if not data.startswith(b"\x93NUMPY"):
        raise ValueError(f"{where}: {name} holds no npy file; allowed is what numpy.save writes")
    with reading(where, f" at {name}"):
        return as_ids(where, name, array_of(io.BytesIO(data), len(data)))


def _opened(where: str, name: str, text: str) -> np.ndarray:
    """The array of an envelope "nrlre1:<type>:<S>x<L>x<K>:<base64>"."""
    fields = text.split(":", 3)
    sizes = fields[2].split("x") if len(fields) == 4 else []
    if len(sizes) != 3 or not all(len(s) < 12 and s.isdecimal() for s in sizes):
        raise ValueError(f"{where}: {name} is no envelope {ENVELOPE}:type:SxLxK:base64")
    if fields[1] not in ENVELOPE_TYPES:
        raise ValueError(f"{where}: {name} is of {fields[1][:20]!r}; allowed is int8, int16, int32")
    array = np.frombuffer(bytes_at(where, name, fields[3]), ENVELOPE_TYPES[fields[1]])
    shape = [int(size) for size in sizes]
    if array.size != shape[0] * shape[1] * shape[2]:
        raise ValueError(f"{where}: {name} has {array.size} numbers, {fields[2]} are promised")
    return array.reshape(shape)
