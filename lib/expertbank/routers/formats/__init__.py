"""Readers for files that hold what routers chose. None of them runs code from a file.

format      file                      what is in it
vllm        .npy, .npz                integer arrays [tokens, layers, k], one a request: vLLM's
`routed_experts`
sglang      .pt                       what SGLang's expert distribution recorder dumps
npz         .npz                      arrays under the names of `KEYS`
parquet     .parquet                  columns under the names of `KEYS`, a row for each token and
layer
statistics  .npz                      what `RouterStatistics.save` wrote
"""

from __future__ import annotations

import operator
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path

import numpy as np

from expertbank.routers.statistics import RouterStatistics, load_statistics

FORMATS = ("vllm", "sglang", "npz", "parquet", "statistics")
LABELS = ("domain", "sequence", "position", "token", "mask")
KEYS = ("chosen", "weights", "probabilities", *LABELS, "layer", "n_experts")
BATCH = 65_536  # tokens that are looked at together: what bounds the memory
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)
SUFFIXES = {".npy": "vllm", ".pt": "sglang", ".parquet": "parquet"}


def read_routing(
    path, format: str | None = None, *, n_experts: int | None = None
) -> Iterator[tuple]:
    """What a file holds, as (layer, arrays): keywords of `RouterStatistics.update`, many tokens at
    a time.

    A sequence is never cut. Where a file holds counts only, `arrays` is {"load": (E,)}. `format` is
    one of `FORMATS`; None goes by the file. `n_experts` is used to check the ids. Raises
    FileNotFoundError, or ValueError that names the file, the key and what is allowed.
    """
    for layer, arrays, _ in _read(Path(path), format, n_experts):
        yield layer, arrays


def statistics_of(
    path, format: str | None = None, *, domain: int | None = None, n_experts: int | None = None,
    n_chosen: int | None = None, n_domains: int | None = None, n_positions: int = 0, n_tokens: int = 0,
    relabellings: int = 20, seed: int = 0,
) -> RouterStatistics:  # fmt: skip
    """Statistics of one file, or of a list of files, in bounded memory; see `RouterStatistics` for
    the sizes.

    `domain` is that of everything in these files, for formats that know none: record each domain by
    itself and add up. What is None is taken from the files, which are read twice for it:
    `n_experts` from probabilities or a header (vLLM's arrays have neither: give it), `n_chosen`
    from the width of the rows, `n_domains` from the largest domain. Positions and tokens are
    counted where room is made for them. Counts-only files give loads and nothing else.
    """
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    if not paths:
        raise ValueError("no file is given; at least one is needed")
    if all(_format_of(Path(each), format) == "statistics" for each in paths):
        return _saved(paths, n_experts)
    if None in (n_experts, n_chosen, n_domains):
        found = _measure(paths, format, n_experts)
        n_experts, n_chosen = n_experts or found[0], n_chosen or found[1]
        n_domains = (
            max(found[2], 0 if domain is None else domain + 1) if n_domains is None else n_domains
        )
    statistics = RouterStatistics(
        n_experts, n_chosen, n_domains=n_domains, n_positions=n_positions, n_tokens=n_tokens,
        relabellings=relabellings, seed=seed,
    )  # fmt: skip
    room = {"domain": n_domains, "position": n_positions, "token": n_tokens}
    for each in paths:
        for layer, arrays, _ in _read(Path(each), format, n_experts):
            if "load" in arrays:
                statistics.add_load(layer, arrays["load"])
                continue
            if domain is not None:
                arrays["domain"] = np.full(len(next(iter(arrays.values()))), domain)
            try:
                statistics.update(
                    layer, **{key: array for key, array in arrays.items() if room.get(key, 1)}
                )
            except ValueError as error:
                raise ValueError(f"{each}, layer {layer}: {error}") from None
    return statistics


def _read(path: Path, format: str | None, n_experts: int | None) -> Iterator[tuple]:
    """(layer, arrays, number of experts or None) of a file."""
    format = _format_of(path, format)
    if format == "statistics":
        raise ValueError(
            f"{path} holds statistics, no tokens; read it by load_statistics or statistics_of"
        )
    readers = {
        "vllm": _read_vllm,
        "sglang": _read_sglang,
        "npz": _read_npz,
        "parquet": _read_parquet,
    }
    for layer, arrays in readers[format](path):
        own = arrays.pop("n_experts", None)
        found = own if n_experts is None else n_experts
        yield layer, _checked(f"{path}, layer {layer}", arrays, found), found


def _saved(paths, n_experts: int | None) -> RouterStatistics:
    statistics = reduce(operator.add, map(load_statistics, paths))
    if n_experts not in (None, statistics.n_experts):
        raise ValueError(
            f"{paths[0]} is about {statistics.n_experts} experts, n_experts is {n_experts}; leave it out"
        )
    return statistics


def _measure(paths, format: str | None, n_experts: int | None) -> tuple[int, int, int]:
    """Experts, chosen ones at most, and domains, as the files say."""
    experts, chosen, domains = {n_experts} - {None}, 1, 0
    for path in paths:
        for _, arrays, found in _read(Path(path), format, n_experts):
            experts |= {found} - {None}
            chosen = max(chosen, arrays["chosen"].shape[1] if "chosen" in arrays else 1)
            if "domain" in arrays:
                counted = arrays["domain"][np.asarray(arrays.get("mask", True)) > 0]
                domains = max(domains, int(counted.max()) + 1 if counted.size else 0)
    if len(experts) != 1:
        found = (
            f"say that there are {sorted(experts)} experts"
            if experts
            else "do not say how many experts there are"
        )
        raise ValueError(
            f"{', '.join(map(str, paths[:3]))} {found}; give n_experts (the dead ones count too)"
        )
    return experts.pop(), chosen, domains


def _format_of(path: Path, format: str | None) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is a folder; allowed is a file")
    if format is not None:
        if format not in FORMATS:
            raise ValueError(f"format is {format!r}; allowed are {', '.join(FORMATS)}")
        return format
    if path.suffix == ".npz":
        names = _open_npz(path).files
        if "header" in names:
            return "statistics"
        return "npz" if {"chosen", "probabilities"} & set(names) else "vllm"
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path} ends in {path.suffix!r}; give format, one of {', '.join(FORMATS)}"
        )
    return SUFFIXES[path.suffix]


def _checked(where: str, arrays: dict, n_experts: int | None) -> dict:
    """The arrays, after checks of shape, type and range; `mask`ed-out tokens are not looked at."""
    if "load" in arrays:
        return arrays
    first = arrays.get("chosen", arrays.get("probabilities"))
    n, keep = len(first), np.asarray(arrays.get("mask", np.ones(len(first)))) > 0
    for key, array in arrays.items():
        allowed = "b iu" if key == "mask" else "iu" if key in ("chosen", *LABELS) else "fiu"
        if array.dtype.kind not in allowed:
            kinds = (
                "booleans"
                if key == "mask"
                else "integers"
                if "f" not in allowed
                else "real numbers"
            )
            raise ValueError(f"{where}: {key} has dtype {array.dtype}; allowed are {kinds}")
        wanted = (
            (n,)
            if key in LABELS
            else (n, n_experts or array.shape[-1])
            if key == "probabilities"
            else first.shape
        )
        if array.shape != wanted and not (key == "chosen" and array.ndim == 2):
            raise ValueError(f"{where}: {key} has shape {array.shape}; allowed is {wanted}")
        kept = array[keep]
        if array.dtype.kind == "f" and not np.isfinite(kept).all():
            raise ValueError(
                f"{where}: {key} holds {kept[~np.isfinite(kept)][0]}; mask such tokens or leave it out"
            )
        low = -1 if key == "chosen" or key in LABELS else 0
        if kept.size and kept.min() < low:
            meaning = ", -1 for none" if low else ""
            raise ValueError(f"{where}: {key} holds {kept.min():g}; allowed is 0 and up{meaning}")
        if key == "chosen" and n_experts and kept.size and kept.max() >= n_experts:
            raise ValueError(
                f"{where}: chosen holds expert {kept.max()}, n_experts is {n_experts}: give a larger one"
            )
    return arrays


# --- npz: plain, and vLLM's ---


def _open_npz(path: Path):
    try:
        return np.load(path, allow_pickle=False)
    except DAMAGED as error:
        raise ValueError(
            f"{path} is no readable npz archive ({error}): truncated? Write it again"
        ) from None


def _arrays_of(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npy or npz file; object arrays, which are pickles, are refused."""
    archive = _open_npz(path)
    if isinstance(archive, np.ndarray):
        return {"routed_experts": archive}
    arrays = {}
    with archive:
        for key in archive.files:
            try:
                arrays[key] = archive[key]
            except DAMAGED as error:
                pickled = "objects are pickles, which may run code; write plain arrays"
                fix = pickled if "allow_pickle" in str(error) else "truncated? Write it again"
                raise ValueError(f"{path}: {key} cannot be read ({error}); {fix}") from None
    return arrays


def _read_npz(path: Path) -> Iterator[tuple]:
    """Rows of one layer (n, k), of several told apart by `layer` (n,), or [layers, n, k] with names
    (layers,)."""
    arrays = _arrays_of(path)
    if unknown := sorted(set(arrays) - set(KEYS)):
        raise ValueError(
            f"{path} has keys {unknown}; allowed are {', '.join(KEYS)}, or format='vllm'"
        )
    header = {"n_experts": int(arrays.pop("n_experts"))} if "n_experts" in arrays else {}
    names, main = arrays.pop("layer", None), [key for key in KEYS[:3] if key in arrays]
    if not {"chosen", "probabilities"} & set(main):
        raise ValueError(f"{path} has keys {sorted(arrays)}; chosen or probabilities is needed")
    if "probabilities" in arrays:
        header.setdefault("n_experts", arrays["probabilities"].shape[-1])
    ndim = {key: arrays[key].ndim for key in main}
    if set(ndim.values()) - {2, 3} or len(set(ndim.values())) > 1:
        raise ValueError(
            f"{path}: axes are {ndim}; allowed are (tokens, k) or (layers, tokens, k), the same for all"
        )
    if 3 in ndim.values():
        sizes = {key: len(arrays[key]) for key in main} | (
            {"layer": names.size} if names is not None else {}
        )
        if len(set(sizes.values())) > 1:
            raise ValueError(f"{path}: numbers of layers are {sizes}; allowed is the same for all")
        names = np.arange(len(arrays[main[0]])) if names is None else names
        for i, name in enumerate(names.tolist()):
            yield (
                name,
                {key: array[i] if key in main else array for key, array in arrays.items()} | header,
            )
        return
    names = np.zeros((), int) if names is None else names
    if names.ndim == 0:
        yield names.item(), arrays | header
        return
    if names.shape != arrays[main[0]].shape[:1]:
        raise ValueError(
            f"{path}: layer has shape {names.shape}; allowed is one a row, {arrays[main[0]].shape[:1]}"
        )
    yield from _by_layer(arrays, names, header)


def _by_layer(arrays: dict, names: np.ndarray, header: dict) -> Iterator[tuple]:
    for name in np.unique(names).tolist():
        rows = names == name
        yield name, {key: array[rows] for key, array in arrays.items()} | header


def _read_vllm(path: Path) -> Iterator[tuple]:
    """Arrays [tokens, layers, k], one a request; in an npz also `domain` (requests,) and
    `n_experts`.

    A prompt's array under prompt_routed_experts is put before routed_experts, as one request. A
    layer whose ids are all 0 though k > 1 is a dense one that nothing was captured in, and left
    out.
    """
    arrays = _arrays_of(path)
    header = {"n_experts": int(arrays.pop("n_experts"))} if "n_experts" in arrays else {}
    domain = arrays.pop("domain", None)
    for key, array in arrays.items():
        if array.ndim != 3 or array.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: {key} is {array.dtype} of shape {array.shape}; allowed are integers [tokens, layers, k]"
            )
        if array.size and array.dtype.kind == "i" and array.min() < 0:
            raise ValueError(
                f"{path}: {key} holds {array.min()}; vLLM's ids start at 0: leave out tokens without a route"
            )
    if "prompt_routed_experts" in arrays:
        arrays = {
            "request": np.concatenate([arrays.pop("prompt_routed_experts"), *arrays.values()])
        }
    if len({array.shape[1:] for array in arrays.values()}) != 1:
        shapes = {key: array.shape for key, array in arrays.items()}
        raise ValueError(
            f"{path}: shapes are {shapes}; allowed are requests of one model, alike in layers and k"
        )
    if domain is not None and domain.shape != (len(arrays),):
        raise ValueError(
            f"{path}: domain has shape {domain.shape}; allowed is one a request, ({len(arrays)},)"
        )
    requests, first = list(arrays.values()), _first_id(path)
    dense = np.all([(array == 0).all(axis=(0, 2)) for array in requests], axis=0) & (
        requests[0].shape[2] > 1
    )
    for group in _groups([len(array) for array in requests]):
        ids, lengths = (
            np.concatenate([requests[i] for i in group]),
            [len(requests[i]) for i in group],
        )
        labels = {
            "sequence": np.repeat(first + np.array(group), lengths),
            "position": np.concatenate([np.arange(length) for length in lengths]),
        }
        if domain is not None:
            labels["domain"] = np.repeat(domain[group], lengths)
        for layer in np.flatnonzero(~dense).tolist():
            yield layer, {"chosen": ids[:, layer], **labels, **header}


def _groups(lengths: list[int]) -> Iterator[list[int]]:
    """Neighbours that together have about `BATCH` tokens."""
    group, size = [], 0
    for i, length in enumerate(lengths):
        if group and size + length > BATCH:
            yield group
            group, size = [], 0
        group.append(i)
        size += length
    if group:
        yield group


def _first_id(path: Path) -> int:
    """Where the numbers of a file's sequences start, so that files that know no others do not share
    them."""
    with path.open("rb") as file:
        return zlib.crc32(file.read(2**20), path.stat().st_size) << 31


# --- SGLang ---


def _read_sglang(path: Path) -> Iterator[tuple]:
    """Dumps of the modes stat, stat_approx and per_pass (loads) and per_token (choices).

    Ids are those of physical experts, mapped to logical ones by the map at the end of the
    recording: record without rebalancing in between. Rows of one prefill make a sequence; a decoded
    token's request is not in the dump (-1).
    """
    content = _load_tensors(path)
    if not isinstance(content, dict) or not {"logical_count", "records"} & set(content):
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{path} holds {found}; allowed is a dump of SGLang's recorder, with logical_count or records"
        )
    if "logical_count" in content:
        counts = _integers(path, "logical_count", content["logical_count"], (3,))
        for layer, load in enumerate(counts.sum(axis=0)):
            if load.any():
                yield layer, {"load": load, "n_experts": len(load)}
        return
    records, logical = content["records"], content.get("last_physical_to_logical_map")
    logical = (
        None if logical is None else _integers(path, "last_physical_to_logical_map", logical, (2,))
    )
    if (
        not isinstance(records, list)
        or not records
        or not all(isinstance(record, dict) for record in records)
    ):
        raise ValueError(
            f"{path}: records is empty or no list of dicts; nothing was recorded before the dump"
        )
    if "topk_ids_of_layer" in records[0]:
        yield from _sglang_tokens(path, records, logical)
    else:
        yield from _sglang_loads(path, records, logical)


def _sglang_loads(path: Path, records: list, logical) -> Iterator[tuple]:
    key = "global_physical_count"
    total = sum(_integers(path, key, record.get(key), (2,)) for record in records)
    logical = (
        np.broadcast_to(np.arange(total.shape[1]), total.shape) if logical is None else logical
    )
    if logical.shape != total.shape:
        raise ValueError(
            f"{path}: {key} has shape {total.shape}, the map {logical.shape}; allowed is (layers, experts)"
        )
    n_experts = int(logical.max()) + 1
    for layer, (load, names) in enumerate(zip(total, logical)):
        if load.any():
            loads = np.bincount(names, load, n_experts).astype(np.int64)
            yield layer, {"load": loads, "n_experts": n_experts}


def _sglang_tokens(path: Path, records: list, logical) -> Iterator[tuple]:
    key, sequence = "topk_ids_of_layer", _first_id(path)
    header = {} if logical is None else {"n_experts": int(logical.max()) + 1}
    lengths = [len(record.get("input_ids", ())) for record in records]
    for group in _groups(lengths):
        ids, labels = [], {"sequence": [], "position": [], "token": []}
        for record in (records[i] for i in group):
            found = _integers(path, key, record.get(key), (3,))
            n, extend = found.shape[1], record.get("extend_seq_lens")
            for name, given in (("token", "input_ids"), ("position", "positions")):
                labels[name].append(_integers(path, given, record.get(given, [-1] * n), (1,)))
                if len(labels[name][-1]) != n:
                    raise ValueError(
                        f"{path}: {given} has {len(labels[name][-1])} tokens, {key} {n}; allowed is the same"
                    )
            prefill = extend is not None and sum(extend) == n
            own = (
                np.repeat(sequence + np.arange(len(extend)), extend) if prefill else np.full(n, -1)
            )
            sequence += len(extend) if prefill else 0
            labels["sequence"].append(own)
            ids.append(found)
        ids = np.concatenate(ids, axis=1)
        # the recorder always keeps room for 8
        ids = ids[..., : max(1, int((ids >= 0).any(axis=(0, 1)).sum()))]
        labels = {name: np.concatenate(parts) for name, parts in labels.items()}
        for layer in np.flatnonzero((ids >= 0).any(axis=(1, 2))).tolist():
            yield layer, {"chosen": _logical(path, ids[layer], logical, layer), **labels, **header}


def _logical(path: Path, ids: np.ndarray, logical, layer: int) -> np.ndarray:
    """Ids of logical experts for those of physical ones; -1 stays."""
    if logical is None:
        return ids
    if layer >= len(logical) or ids.max() >= logical.shape[1]:
        raise ValueError(
            f"{path}: layer {layer} has expert {ids.max()}, the map has shape {logical.shape}; they are of two models"
        )
    return np.where(ids >= 0, logical[layer][ids], -1)


def _integers(path: Path, key: str, value, ndim: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(
        value.numpy() if hasattr(value, "numpy") else value if value is not None else np.nan
    )
    if array.dtype.kind not in "iu" or array.ndim not in ndim:
        if array.shape == (0,):
            return array.astype(np.int64)
        raise ValueError(
            f"{path}: {key} is {array.dtype} of shape {array.shape}; allowed are integers of {ndim[0]} axes"
        )
    return array


def _load_tensors(path: Path):
    """A file of torch.save, by the restricted unpickler: it makes tensors and plain containers and
    runs nothing."""
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{path} needs torch to be read: pip install 'expertbank[gpu]', or convert it to npz"
        ) from None
    try:
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # which kinds there are is torch's own affair
        wanted = re.search(r"(?:GLOBAL|global|class) `?([\w.]+)`?", str(error))
        if type(error).__name__ != "UnpicklingError":
            raise ValueError(
                f"{path} is no readable file of torch.save ({type(error).__name__}): truncated?"
            ) from None
        asked = f"asks for {wanted[1]}" if wanted else "is damaged or asks for more than data"
        raise ValueError(
            f"{path} is refused: its pickle {asked}, and loading that could run code. Allowed are tensors, numbers, "
            "text, lists and dicts. Where you trust its origin, convert it on the machine that made it: load it "
            f"there and np.savez the arrays under {', '.join(KEYS[:2])}, domain, sequence, ..."
        ) from None


# --- parquet ---


def _read_parquet(path: Path) -> Iterator[tuple]:
    """Rows of tokens and layers in batches. Rows of a sequence stand together, sequences ascend
    within a layer."""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if unknown := sorted(set(names) - set(KEYS[:-1])):
            raise ValueError(f"has columns {unknown}; allowed are {', '.join(KEYS[:-1])}")
        if not {"chosen", "probabilities"} & set(names):
            raise ValueError(f"has columns {names}; chosen or probabilities is needed")
    except DAMAGED as error:
        raise ValueError(
            f"{path} {error}"
            if "column" in str(error)
            else f"{path} is no readable parquet: {error}"
        ) from None
    given = (file.schema_arrow.metadata or {}).get(b"n_experts")
    header = {"n_experts": int(given)} if given else {}
    last: dict = {}
    for arrays in _whole_sequences(_batches(path, file)):
        if "probabilities" in arrays:
            header.setdefault("n_experts", arrays["probabilities"].shape[1])
        layers = arrays.pop("layer", np.zeros(len(next(iter(arrays.values()))), int))
        for layer, own in _by_layer(arrays, layers, header):
            known = own.get("sequence", np.empty(0, int))
            known = known[known >= 0]
            if len(known) and known.min() <= last.get(layer, -1):
                raise ValueError(
                    f"{path}, layer {layer}: sequence {known.min()} comes after sequence {last[layer]}; sort the rows "
                    "by layer and sequence, so that a sequence is read in one go"
                )
            last[layer] = (
                max(last.get(layer, -1), *known.tolist()) if len(known) else last.get(layer, -1)
            )
            yield layer, own


def _batches(path: Path, file) -> Iterator[dict]:
    """Columns of `BATCH` rows as arrays."""
    try:
        for batch in file.iter_batches(batch_size=BATCH):
            yield {name: _column(path, name, batch.column(name)) for name in batch.schema.names}
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is no readable parquet: {error}") from None


def _column(path: Path, name: str, column) -> np.ndarray:
    import pyarrow as pa

    if column.null_count:
        raise ValueError(
            f"{path}: {name} has {column.null_count} nulls; write -1 for what is unknown"
        )
    if not (
        pa.types.is_list(column.type)
        or pa.types.is_large_list(column.type)
        or pa.types.is_fixed_size_list(column.type)
    ):
        if name in KEYS[:3]:
            raise ValueError(f"{path}: {name} is {column.type}; allowed are lists, one a token")
        return column.to_numpy(zero_copy_only=False)
    if name not in KEYS[:3]:
        raise ValueError(f"{path}: {name} is {column.type}; allowed is one value a row")
    lengths = np.asarray(column.value_lengths())
    values, width = column.flatten().to_numpy(zero_copy_only=False), int(lengths.max(initial=0))
    if (lengths == width).all():
        return values.reshape(len(lengths), width)
    if name == "probabilities":
        raise ValueError(
            f"{path}: probabilities has lists of {lengths.min()} to {width}; allowed is one number an expert"
        )
    rows = np.full((len(lengths), width), -1 if name == "chosen" else 0, values.dtype)
    rows[np.arange(width) < lengths[:, None]] = values
    return rows


def _whole_sequences(batches: Iterable[dict]) -> Iterator[dict]:
    """The batches, cut between sequences instead of where they happened to end."""
    rest: dict | None = None
    for batch in batches:
        batch = batch if rest is None else {key: _stack(rest[key], batch[key]) for key in batch}
        sequence = batch.get("sequence")
        if sequence is None or sequence[-1] < 0:
            rest = None
            yield batch
            continue
        others = np.flatnonzero(sequence != sequence[-1])
        cut = int(others[-1]) + 1 if len(others) else 0
        rest = {key: array[cut:] for key, array in batch.items()}
        if cut:
            yield {key: array[:cut] for key, array in batch.items()}
    if rest is not None:
        yield rest


def _stack(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One array of both; rows of fewer slots are filled up with -1."""
    if first.ndim == 2 and first.shape[1] != second.shape[1]:
        width = max(first.shape[1], second.shape[1])
        fill = -1 if first.dtype.kind in "iu" else 0
        first, second = (
            np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=fill)
            for rows in (first, second)
        )
    return np.concatenate([first, second])
