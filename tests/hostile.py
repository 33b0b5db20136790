"""Good files of every kind that the library reads, mutants of them, and what may come of reading
one: finite numbers, or one line.

    python tests/hostile.py FOLDER N_MUTANTS [SEED] [COMMAND]

prints counts and failures as JSON, and keeps what failed in FOLDER/failed. It runs in a process of
its own, so that memory can be limited: a reader that asks for gigabytes fails, whatever it makes of
the refusal.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import re
import resource
import shutil
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEED = 15
LONGEST = 300
SECONDS = 5  # that one mutant may take on a busy machine
ROOM = 512 << 20  # bytes of address space above what reading the good files took
EVERY = 12  # of so many mutants one goes through the command line too
N_EXPERTS = 6


@dataclasses.dataclass(frozen=True)
class Sample:
    """A good file (or folder), how it is read, and by which command."""

    path: Path
    read: Callable[[Path], Any]
    command: tuple[str, ...]
    options: tuple[str, ...] = ()


# --- reading, to numbers ---


def read_whole(path: Path) -> list[float]:
    from expertbank import rate_distortion
    from expertbank.tables import read_table

    point = rate_distortion(read_table(path), 0.3)
    return [point.rate, point.distortion]


def read_streamed(path: Path) -> list[float]:
    from expertbank import rate_distortion
    from expertbank.tables import open_table

    point = rate_distortion(open_table(path), 0.3)
    return [point.rate, point.distortion]


def read_routing_file(path: Path) -> list[float]:
    from expertbank.routers import routing_report, statistics_of

    # saved statistics know how many experts there are
    n_experts = None if "statistics" in path.parent.name else N_EXPERTS
    n_chosen = 2 if "sglang-http" in path.parent.name else None  # not in the file
    counted = statistics_of(path, n_experts=n_experts, n_chosen=n_chosen)
    report = routing_report(counted, relabellings=5)
    layers = [dataclasses.asdict(layer) for layer in report.layers]
    return [value for layer in layers for value in layer.values() if isinstance(value, float)]


def read_bank(path: Path) -> list[float]:
    from expertbank import load_bank

    bank = load_bank(path)
    return bank.accuracies("test").tolist()


# --- good files ---


def good_files(folder: Path) -> list[Sample]:
    """Small ones of every kind, each in a folder of its own."""
    rng = np.random.default_rng(SEED)
    samples = [*tables(folder, rng), *streams(folder, rng), *routing(folder, rng)]
    return [*samples, bank(folder, rng)]


def place(folder: Path, kind: str, name: str) -> Path:
    path = folder / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def tables(folder: Path, rng: np.random.Generator) -> list[Sample]:
    losses = rng.random((12, 3))
    files = []
    for kind, array in (
        ("npy-f8", losses),
        ("npy-f4-fortran", np.asfortranarray(losses.astype(np.float32))),
        ("npy-i1", (losses > 0.5).astype(np.int8)),
    ):
        files.append(place(folder, kind, "losses.npy"))
        np.save(files[-1], array)
    files.append(place(folder, "npy-v2", "losses.npy"))
    with files[-1].open("wb") as file:
        np.lib.format.write_array(file, losses, version=(2, 0))
    files.append(place(folder, "npz-stored", "losses.npz"))
    np.savez(files[-1], losses)
    files.append(place(folder, "npz-deflated", "losses.npz"))
    np.savez_compressed(files[-1], losses)
    files.append(place(folder, "csv", "losses.csv"))
    np.savetxt(files[-1], losses, delimiter=",", fmt="%.4f")
    command = ("curve",)
    return [Sample(path, read_whole, command, ("--lam", "0.3")) for path in files]


def streams(folder: Path, rng: np.random.Generator) -> list[Sample]:
    import numcodecs
    import pyarrow as pa
    import pyarrow.parquet
    import zarr

    losses = rng.random((12, 3))
    files = [place(folder, "npy-streamed", "losses.npy")]
    np.save(files[0], losses)
    codecs = [zarr.codecs.ZstdCodec(), zarr.codecs.GzipCodec(), zarr.codecs.BloscCodec()]
    codecs += [numcodecs.get_codec({"id": name}) for name in ("zstd", "lzma", "bz2", "zlib", "lz4")]
    for codec in codecs:
        version = 2 if isinstance(codec, numcodecs.abc.Codec) else 3
        path = place(folder, f"zarr{version}-{type(codec).__name__}", "losses.zarr")
        form = {"shape": losses.shape, "chunks": (6, 3), "dtype": float, "zarr_format": version}
        array = zarr.create_array(path, compressors=[codec], **form)
        array[:] = losses
        files.append(path)
    table = pa.table({f"e{i}": column for i, column in enumerate(losses.T)})
    for codec in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
        path = place(folder, f"table-parquet-{codec}", "losses.parquet")
        pyarrow.parquet.write_table(table, path, compression=codec, row_group_size=7)
        files.append(path)
    options = ("--lam", "0.3", "--stream")
    return [Sample(path, read_streamed, ("curve",), options) for path in files]


def routing(folder: Path, rng: np.random.Generator) -> list[Sample]:
    n = 24
    sequence = np.repeat(np.arange(6), 4)
    chosen = np.argsort(rng.random((n, N_EXPERTS)))[:, :2]
    labels = {"sequence": sequence, "domain": sequence % 2, "layer": np.arange(n) % 2}
    arrays = {"chosen": chosen, "weights": rng.random((n, 2)), **labels}
    probabilities = rng.dirichlet(np.ones(N_EXPERTS), (2, n))
    rows = place(folder, "routing-rows", "routes.npz")
    np.savez(rows, **arrays, n_experts=N_EXPERTS)
    stacked = place(folder, "routing-stacked", "routes.npz")
    np.savez_compressed(stacked, probabilities=probabilities, layer=["first", "second"])
    one = place(folder, "vllm-one", "routes.npy")
    np.save(one, np.stack([chosen, chosen[::-1]], axis=1).astype(np.int16))
    several = place(folder, "vllm-several", "routes.npz")
    np.savez(several, a=np.stack([chosen] * 2, axis=1), b=np.stack([chosen] * 2, axis=1))
    files = [rows, stacked, one, several, *routing_parquet(folder, arrays)]
    files += [*sglang(folder, rng, chosen), *responses(folder, chosen), *trainers(folder, chosen)]
    options = ("--experts", str(N_EXPERTS))
    found = []
    for path in files:
        more = ("--chosen", "2") if "sglang-http" in path.parent.name else ()
        found.append(Sample(path, read_routing_file, ("routes", "report"), (*options, *more)))
    saved = statistics(folder, arrays, probabilities[0])
    return found + [Sample(path, read_routing_file, ("routes", "report")) for path in saved]


def sglang(folder: Path, rng: np.random.Generator, chosen: np.ndarray) -> list[Path]:
    """Dumps of its three modes."""
    import torch

    n = len(chosen)
    slots = np.full((2, n, 8), -1)
    slots[:, :, :2] = chosen
    counts = torch.tensor(rng.integers(0, 9, (3, 2, N_EXPERTS)))
    tokens = {
        "input_ids": list(range(n)),
        "positions": torch.arange(n),
        "extend_seq_lens": [4] * 6,
        "topk_ids_of_layer": torch.tensor(slots),
    }
    names = torch.arange(N_EXPERTS).repeat(2, 1)
    dumps = {
        "stat": {"logical_count": counts},
        "pass": {"records": [{"global_physical_count": counts[0]}] * 2},
        "token": {"records": [tokens], "last_physical_to_logical_map": names},
    }
    files = []
    for kind, dump in dumps.items():
        files.append(place(folder, f"sglang-{kind}", "dump.pt"))
        torch.save(dump, files[-1])
    return files


def responses(folder: Path, chosen: np.ndarray) -> list[Path]:
    """Of two servers, with domains; and of vLLM 0.21 offline."""
    ids = np.stack([chosen, chosen[::-1]], axis=1)
    file = io.BytesIO()
    np.save(file, ids[:9].astype(np.uint8))
    text = base64.b64encode(file.getvalue()).decode()
    choices = {"choices": [{"routed_experts": text}] * 2, "usage": {"prompt_tokens": 4}}
    nested = {"prompt_routed_experts": ids[:4].tolist()}
    nested["choices"] = [{"routed_experts": ids[4:7].tolist()}]
    flat = base64.b64encode(ids[:9].astype("<i4").tobytes()).decode()
    meta = {"prompt_tokens": 4, "completion_tokens": 6, "routed_experts": flat}
    lines = {
        "vllm-http": [{"response": choices, "domain": name} for name in ("a", "b")],
        "vllm-http-nested": [nested, nested],
        "sglang-http": [{"meta_info": meta, "domain": i} for i in range(2)],
    }
    files = [lines_of(folder, kind, records) for kind, records in lines.items()]
    files.append(place(folder, "vllm-offline", "routes.npz"))
    np.savez(
        files[-1], prompt_routed_experts=ids[:4], routed_experts_0=ids[4:], routed_experts_1=ids
    )
    return files


def trainers(folder: Path, chosen: np.ndarray) -> list[Path]:
    """A trace, counts and batches to be replayed."""
    import torch

    record = {"step": 0, "block": "decoder", "layer": 1, "rank": 0, "num_tokens": 24, "topk": 2}
    trace = [record | {"top_indices": chosen.tolist(), "step": step} for step in range(2)]
    counts = [{"step": i, "tokens_per_expert": [[i, 2, 0, 1, 4, 3]] * 2} for i in range(3)]
    files = [lines_of(folder, "megatron", trace), lines_of(folder, "counts", counts)]
    batch = np.stack([chosen, chosen[::-1]], axis=1).reshape(2, 12, 2, 2)
    batch[:, 9:] = -1
    rows = [{"routed_experts": [ids.tolist()]} for ids in batch]
    files += [lines_of(folder, "r3-lines", rows), place(folder, "r3-npz", "batch.npz")]
    np.savez(files[-1], routed_experts=batch, input_lengths=[10, 9], domain=["a", "b"])
    files.append(place(folder, "r3-pt", "batch.pt"))
    torch.save({"routed_experts": torch.tensor(batch)}, files[-1])
    return files


def lines_of(folder: Path, kind: str, records: list[dict]) -> Path:
    path = place(folder, kind, "routes.jsonl")
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def statistics(folder: Path, arrays: dict, probabilities: np.ndarray) -> list[Path]:
    """Saved ones, of this format and of the first."""
    from expertbank.routers import RouterStatistics

    counted = RouterStatistics(N_EXPERTS, 2, n_domains=2, n_positions=3, n_tokens=4, n_kept=8)
    n = len(probabilities)
    known = {name: arrays[name] for name in ("chosen", "domain", "sequence")}
    known["position"] = np.arange(n) % 3
    more = {"weights": arrays["weights"], "probabilities": probabilities, "token": np.arange(n) % 4}
    counted.update(0, **known, **more)
    counted.update("second", **known)
    files = [place(folder, f"{name}-statistics", "routes.npz") for name in ("new", "old")]
    counted.save(files[0])
    as_old_statistics(*files)
    return files


def as_old_statistics(path: Path, old: Path) -> None:
    """The same in the first format."""
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays.pop("header")))
    header["format"] = "expertbank router statistics 1"
    del header["sizes"]["n_kept"]
    header["sizes"]["relabellings"] = 3
    for name in list(arrays):
        if name.split(".")[1] in ("mixed_sequences", "known_slots") or ".kept_" in name:
            del arrays[name]
    for i in range(len(header["layers"])):
        arrays[f"{i}.null"] = np.stack([arrays[f"{i}.domains"]] * 3)
    np.savez_compressed(old, header=np.array(json.dumps(header)), **arrays)


def routing_parquet(folder: Path, arrays: dict[str, np.ndarray]) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet

    order = np.argsort(arrays["layer"], kind="stable")
    columns = {name: array[order].tolist() for name, array in arrays.items()}
    table = pa.table(columns).replace_schema_metadata({"n_experts": str(N_EXPERTS)})
    files = []
    for codec in ("none", "snappy"):
        files.append(place(folder, f"routing-parquet-{codec}", "routes.parquet"))
        pyarrow.parquet.write_table(table, files[-1], compression=codec)
    return files


def bank(folder: Path, rng: np.random.Generator) -> Sample:
    from expertbank.shipped.bank import save_bank

    path = folder / "bank" / "mine"
    labels = {split: rng.integers(0, 10, 9) for split in ("train", "test")}
    predictions = {split: rng.integers(0, 10, (9, 3)) for split in ("train", "test")}
    save_bank(
        path,
        labels,
        predictions,
        {"title": "three experts", "recipe": {"batch_size": 80, "seed": 1}},
    )
    return Sample(path, read_bank, ("describe",))


# --- mutants of bytes ---

# heads of other kinds of file
MAGIC = [
    b"\x93NUMPY\x01\x00", b"\x93NUMPY\x03\x00", b"PK\x03\x04", b"PAR1", b"\x1f\x8b\x08\x00",
    b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"BZh9", b"\x80\x02}q", b"{", b"\xff\xfe", b"\x00" * 8,
]  # fmt: skip
# numbers that readers trip over, as words of a file
WORDS = [2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1, 0, 1, 10**9]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    array = np.frombuffer(data, np.uint8).copy()
    for _ in range(rng.integers(1, 9)):
        array[rng.integers(len(array))] ^= 1 << rng.integers(8)
    return array.tobytes()


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def append(data: bytes, rng: np.random.Generator) -> bytes:
    return data + rng.bytes(rng.integers(1, 200))


def edit_head(data: bytes, rng: np.random.Generator) -> bytes:
    at = rng.integers(min(len(data), 128))
    new = rng.bytes(rng.integers(1, 6))
    return data[:at] + new + data[at + len(new) :]


def swap(data: bytes, rng: np.random.Generator) -> bytes:
    size = int(rng.choice([2, 4, 8]))
    if len(data) < 4 * size:
        return data[::-1]
    first, second = sorted(rng.choice(len(data) // size, 2, replace=False) * size)
    array = bytearray(data)
    array[first : first + size] = data[second : second + size]
    array[second : second + size] = data[first : first + size]
    return bytes(array)


def enlarge_word(data: bytes, rng: np.random.Generator) -> bytes:
    size = int(rng.choice([2, 4, 8]))
    number = int(rng.choice(np.array(WORDS, dtype=object))) % 2 ** (8 * size)
    at = rng.integers(max(1, len(data) - size))
    return data[:at] + number.to_bytes(size, "little") + data[at + size :]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(rng.integers(0, 300))


def other_magic(data: bytes, rng: np.random.Generator) -> bytes:
    magic = MAGIC[rng.integers(len(MAGIC))]
    return magic + data[len(magic) :]


NUMBERS = [
    "-1", "0", "1", "999999", "4294967296", "4611686018427387904", "1e308", "1e999", "nan", "true",
    "null", '"x"', "[]", "-0", "1.5", "9" * 5000, "[" * 3000,
]  # fmt: skip


def edit_number(data: bytes, rng: np.random.Generator) -> bytes:
    """Another number where the text of the file has one: shapes and sizes in headers, JSON."""
    found = list(re.finditer(rb"\d+", data[:4000]))
    if not found:
        return flip(data, rng)
    number = found[rng.integers(len(found))]
    new = NUMBERS[rng.integers(len(NUMBERS))].encode()
    return data[: number.start()] + new + data[number.end() :]


def edit_text(data: bytes, rng: np.random.Generator) -> bytes:
    """Another word, with the length kept."""
    found = list(re.finditer(rb"[A-Za-z_]{2,}", data[:4000]))
    if not found:
        return flip(data, rng)
    word = found[rng.integers(len(found))]
    words = [b"\x1b[2J\x07", b"'''\n\n", b"((((((", b"False", b"object", b"\xe2\x80\xae\n\r"]
    new = words[rng.integers(len(words))][: word.end() - word.start()]
    return data[: word.start()] + new.ljust(word.end() - word.start()) + data[word.end() :]


BYTES = [
    flip, cut, append, edit_head, swap, enlarge_word, noise, other_magic, edit_number, edit_text,
]  # fmt: skip


# --- mutants that keep a container whole ---


SHAPES = [
    (2**40, 3), (10**9,), (2**62, 2**62), (0, 3), (-1, 3), (3, 0), (2**31, 2**31, 4), (1,) * 40,
    (True, False), (12, 1), (3, 12), (24, 2, 1), (36,), (),
]  # fmt: skip
TYPES = ["<f8", "|O", "<c16", "<U0", "<U999999999", "|V0", "<M8[s]", "|S5", ">i2", "<i8", "|b1"]


def inflate_npy(data: bytes, rng: np.random.Generator) -> bytes:
    """Another shape or type in a header that is right in every other way."""
    start = data.find(b"\n") + 1
    if not data.startswith(b"\x93NUMPY") or not start:
        return flip(data, rng)
    header = {
        "descr": TYPES[rng.integers(len(TYPES))],
        "fortran_order": bool(rng.integers(2)),
        "shape": SHAPES[rng.integers(len(SHAPES))],
    }
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(file, header)
    return file.getvalue() + data[start:]


INNER = [*BYTES, inflate_npy, inflate_npy, edit_number]
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA,
           zipfile.ZIP_BZIP2]  # fmt: skip


def rewrite_zip(data: bytes, rng: np.random.Generator) -> bytes:
    """The archive with one member changed, and right checksums for what it holds now."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    i = rng.integers(len(members))
    name, content = members[i]
    change = rng.integers(len(INNER) + 1)
    if change == len(INNER):
        members = swap_members(members, rng)
    elif content:
        members[i] = (name, INNER[change](content, rng))
    file = io.BytesIO()
    method = METHODS[rng.integers(len(METHODS))]
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of two members of one name
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def swap_members(members: list, rng: np.random.Generator) -> list:
    """One array under the name of another, two of one name, or a name that no terminal likes."""
    names = [name for name, _ in members]
    contents = [content for _, content in members]
    i, j = rng.integers(len(members), size=2)
    what = rng.integers(3)
    if what == 0:
        contents[i], contents[j] = contents[j], contents[i]
    elif what == 1:
        names[i] = names[j]
    else:
        names[i] = "\x1b[31m" + names[i] + "\n\u202e.npy"
    return list(zip(names, contents))


def edit_zip_entry(data: bytes, rng: np.random.Generator) -> bytes:
    """Sizes, method and flags of a member, in the directory and before the member alike."""
    array = bytearray(data)
    entries = [found.start() for found in re.finditer(b"PK\x01\x02", data)]
    at = entries[rng.integers(len(entries))]
    local = int.from_bytes(data[at + 42 : at + 46], "little")
    # where it stands in the directory and before the member, and how many bytes it has
    fields = {"flags": (8, 6, 2), "method": (10, 8, 2), "stored": (20, 18, 4), "size": (24, 22, 4)}
    name = list(fields)[rng.integers(4)]
    here, there, size = fields[name]
    number = int(rng.choice([1, 8, 9, 12, 14, 20, 93, 95, 98, 99, 0xFFFF, 2**31 - 1, 2**30]))
    word = (number % 2 ** (8 * size)).to_bytes(size, "little")
    array[at + here : at + here + size] = word
    array[local + there : local + there + size] = word
    return bytes(array)


def mutators(path: Path) -> list[Callable[[bytes, np.random.Generator], bytes]]:
    if path.suffix == ".npy":
        return [*BYTES, inflate_npy, inflate_npy, inflate_npy]
    if path.suffix in (".npz", ".pt"):
        return [*BYTES, *[rewrite_zip] * 6, edit_zip_entry, edit_zip_entry]
    return [*BYTES, edit_number, edit_number]


def mutate(sample: Sample, target: Path, rng: np.random.Generator) -> str:
    """A mutant of the sample at `target`; what was done to it."""
    if sample.path.is_dir():
        shutil.copytree(sample.path, target)
        files = sorted(path for path in target.rglob("*") if path.is_file())
        path = files[rng.integers(len(files))]
        if rng.random() < 0.1:
            path.unlink()
            return f"{path.name} removed"
    else:
        path = target
        shutil.copyfile(sample.path, target)
    kinds = mutators(path)
    change = kinds[rng.integers(len(kinds))]
    data = change(path.read_bytes(), rng)
    path.write_bytes(data)
    if sample.command == ("describe",) and rng.random() < 0.8 and path.name != "manifest.json":
        from support import reseal

        reseal(target)
    return f"{change.__name__} of {path.name}"


# --- what may come of it ---


def chain(error: BaseException | None) -> list[BaseException]:
    """An error and all that it was made of."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ if error.__cause__ is not None else error.__context__
    return found


def judged(sample: Sample, path: Path) -> tuple[str, str]:
    """ "read", "refused" or "failed", and what is wrong."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            values = sample.read(path)
        except Exception as error:
            outcome = "refused"
            wrong = fault(error)
        else:
            outcome = "read"
            wrong = "" if np.isfinite(values).all() else f"numbers that are not finite: {values}"
    seconds = time.perf_counter() - start
    if not wrong and seconds > SECONDS:
        wrong = f"took {seconds:.1f} s"
    return ("failed", wrong) if wrong else (outcome, "")


def fault(error: Exception) -> str:
    """What is wrong with a refusal, or nothing."""
    message = str(error)
    if not isinstance(error, (ValueError, FileNotFoundError)):
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {where.filename}:{where.lineno}: {message[:200]}"
    if any(isinstance(e, MemoryError) or "can't allocate" in str(e) for e in chain(error)):
        return f"memory was asked for: {message[:200]}"
    if not message.isprintable():
        return f"several lines or control characters: {message[:200]!r}"
    if len(message) > LONGEST:
        return f"{len(message)} characters: {message[:200]}"
    return ""


def judged_by_command(sample: Sample, path: Path, outcome: str) -> str:
    """What is wrong with the command's answer to the same file, or nothing."""
    from expertbank.cli import main

    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            status = main([*sample.command, str(path), *sample.options])
        except Exception as error:
            return f"the command line raised {type(error).__name__}: {str(error)[:100]}"
    wanted = 2 if outcome == "refused" else 0
    text = err.getvalue()
    lines = text.count("\n")
    if status != wanted or lines != (1 if wanted else 0):
        return f"the command line gave {status} and {lines} lines: {text[:200]}"
    if not text.replace("\n", "").isprintable():
        return f"the command line wrote control characters: {text!r}"
    return ""


def limit_memory() -> None:
    """No more address space than this process has taken so far, and `ROOM`."""
    status = Path("/proc/self/status").read_text()
    taken = int(re.search(r"VmPeak:\s+(\d+)", status)[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))


def run(folder: Path, n_mutants: int, seed: int = SEED, command: str = "") -> dict[str, Any]:
    """Read so many mutants of routing files for the command `routes`, else of all others; how many
    were read, refused and failed, and what the failures were."""
    import dask
    import torch

    dask.config.set(scheduler="synchronous")
    torch.set_num_threads(1)
    is_routes = command == "routes"
    samples = [each for each in good_files(folder) if (each.command[0] == "routes") == is_routes]
    for sample in samples:
        assert judged(sample, sample.path) == ("read", ""), sample
        assert judged_by_command(sample, sample.path, "read") == "", sample
    limit_memory()
    rng = np.random.default_rng(seed)
    counts = {"read": 0, "refused": 0, "failed": 0}
    failures = []
    for i in range(n_mutants):
        sample = samples[i % len(samples)]
        home = folder / "mutants" / sample.path.parent.name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        path = home / sample.path.name
        done = mutate(sample, path, rng)
        outcome, wrong = judged(sample, path)
        if not wrong and i % EVERY == 0:
            wrong = judged_by_command(sample, path, outcome)
        counts["failed" if wrong else outcome] += 1
        if wrong:
            shutil.copytree(home, folder / "failed" / f"{i}-{home.name}")
            failures.append(f"{i}, {home.name}, {done}: {wrong}")
    return {**counts, "failures": failures}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), *map(int, sys.argv[2:4]), *sys.argv[4:])))
