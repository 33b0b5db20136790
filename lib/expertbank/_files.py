"""Files with suspicion: outputs that appear whole or not at all and never in place of an input, and
inputs that may be damaged or made to do harm."""

from __future__ import annotations

import math
import os
import secrets
import stat
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from itertools import combinations
from pathlib import Path
from typing import IO, Any

import numpy as np

PathLike = str | os.PathLike[str]
Named = tuple[str, np.ndarray]  # an array and its name

# --- text from files ---

LONGEST = 300  # characters of an error about a file
LONGEST_PATH = 120  # of the path in it


def printable(text: object, longest: int | None = None) -> str:
    """Text with everything escaped that a terminal acts on or does not show: control characters,
    line ends, marks that turn the direction of writing; cut to `longest` characters.

    >>> printable("layer\\x1b[2J\\u202e"), printable("a" * 9, longest=6)
    ('layer\\\\x1b[2J\\\\u202e', 'aaa...')
    """
    text = str(text)
    if longest is not None and len(text) > longest:
        text = text[: longest - 3] + "..."
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if longest is not None and len(shown) > longest:
        shown = shown[: longest - 3] + "..."
    return shown


def one_line(text: object, longest: int | None = None) -> str:
    """As `printable`, for sentences: line ends are spaces.

    >>> one_line("Deserializing failed.\\n")
    'Deserializing failed.'
    """
    return printable(" ".join(str(text).split()), longest)


# --- outputs ---


def json_ready(value: Any) -> Any:
    """A value as dicts, lists, numbers and text, which `json.dumps` takes: of dataclasses, arrays
    and NumPy's numbers, with None for nan and infinity.

    >>> json_ready({"load": np.array([0.5, np.nan]), "layers": (1, 2)})
    {'load': [0.5, None], 'layers': [1, 2]}
    """
    if is_dataclass(value):
        return {one.name: json_ready(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and np.isfinite(value).all():
        return value.tolist()
    if isinstance(value, (np.ndarray, np.generic)):
        return json_ready(value.tolist())
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# what a path may be other than a regular file
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a disk",
}


def write_atomically(path: PathLike, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write(file)` on a temporary neighbour of `path`, then rename it.

    A reader sees the whole new file or the old state. Where `write` raises, the neighbour is
    deleted and the error passes on. A link stays, and what it points to is replaced; a file that
    was there keeps its mode. Pipes and devices such as /dev/stdout are written into. Raises
    ValueError for a folder, a socket or a disk, FileNotFoundError where the folder is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "note.txt"
    ...     write_atomically(path, lambda file: file.write(b"whole"))
    ...     print(path.read_text(), os.listdir(folder))
    whole ['note.txt']
    """
    found = _checked_output(path)
    stream = _stream_of(found)
    if stream is not None:
        stream.flush()
        with os.fdopen(os.dup(stream.fileno()), "wb") as file:
            write(file)
    elif found is not None and not stat.S_ISREG(found.st_mode):
        with open(path, "wb") as file:
            write(file)
    else:
        mode = None if found is None else stat.S_IMODE(found.st_mode) & 0o777
        _replace(Path(os.path.realpath(path)), write, mode)


def _replace(target: Path, write: Callable[[IO[bytes]], object], mode: int | None) -> None:
    """Write a neighbour of a regular file and rename it; `mode` None is what the umask leaves."""
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(6)}")
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            if mode is not None:
                os.chmod(temporary, mode)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def check_outputs(outputs: Sequence[PathLike | None], inputs: Sequence[PathLike | None]) -> None:
    """Raise before any work for an output that cannot be written, or that is the same file as an
    input or another output, by whatever name or link. None is one that was not asked for.

    >>> check_outputs(["report.json", "./report.json"], [])
    Traceback (most recent call last):
    ValueError: ./report.json and report.json are the same file; each output needs one of its own
    """
    asked = [path for path in outputs if path is not None]
    given = [path for path in inputs if path is not None]
    for path in asked:
        _checked_output(path)
    pairs = [*combinations(asked, 2), *((one, other) for other in given for one in asked)]
    for one, other in pairs:
        if _are_same(one, other):
            raise ValueError(
                f"{_shown(other)} and {_shown(one)} are the same file; each output needs one of "
                "its own"
            )


def _are_same(one: PathLike, other: PathLike) -> bool:
    first = _status(one)
    second = _status(other)
    if first is None or second is None:
        return os.path.realpath(one) == os.path.realpath(other)
    return os.path.samestat(first, second)


def _checked_output(path: PathLike) -> os.stat_result | None:
    """The status of a path that may be written; None where nothing is there yet."""
    found = _status(path)
    if found is None:
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise FileNotFoundError(f"{_shown(path)}: there is no folder {_shown(folder)}")
        return None
    kind = stat.S_IFMT(found.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFCHR):
        raise ValueError(
            f"{_shown(path)} is {KINDS.get(kind, 'no file')}; allowed is a file, a pipe or a "
            "device to write into"
        )
    return found


def _stream_of(found: os.stat_result | None) -> IO | None:
    """Standard output or error, where the path leads to the file that it goes to: to replace that
    file would lose what is printed."""
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            own = None if stream is None else os.fstat(stream.fileno())
        except (OSError, ValueError):  # closed
            continue
        if found is not None and own is not None and os.path.samestat(found, own):
            return stream
    return None


def _status(path: PathLike) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _shown(path: PathLike) -> str:
    """A path in an error: its end, where it is long."""
    text = str(path)
    if len(text) > LONGEST_PATH:
        text = "..." + text[3 - LONGEST_PATH :]
    return printable(text)


# --- inputs ---


def check_input(path: PathLike, allowed: str = "a file") -> None:
    """Raise FileNotFoundError where nothing is, ValueError for what is no regular file: a pipe or a
    device would be waited for, and read without end.

    >>> check_input("losses.npy", "a .npy file")
    Traceback (most recent call last):
    FileNotFoundError: losses.npy does not exist; allowed is a .npy file
    """
    found = _status(path)
    if found is None:
        raise FileNotFoundError(f"{_shown(path)} does not exist; allowed is {allowed}")
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise ValueError(f"{_shown(path)} is {kind}; allowed is {allowed}, on a disk")


def check_folder(path: Path) -> int:
    """`check_input` for every file in a folder, or for the one file that the path is; their bytes.

    >>> check_folder(Path(__file__).parent) > check_folder(Path(__file__)) > 1_000
    True
    """
    paths = [path]
    if path.is_dir():
        paths = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    for each in paths:
        check_input(each)
    return sum(os.path.getsize(each) for each in paths)


@contextmanager
def reading(path: PathLike, form: str = "") -> Iterator[None]:
    """Whatever goes wrong while a file is read becomes a ValueError of one line that names it.

    Readers raise what they like at damaged files; none of it is a fault of the program. A
    ValueError that starts with the path is a sentence of ours and only cut, so one `reading` inside
    another adds nothing. `form` says what was expected, after "cannot be read".

    >>> with reading("losses.csv", " as a table"):
    ...     [][0]
    Traceback (most recent call last):
    ValueError: losses.csv cannot be read as a table: list index out of range
    """
    try:
        yield
    except (ModuleNotFoundError, PermissionError):
        raise
    except Exception as error:
        name = str(path)
        message = str(error)
        if isinstance(error, MemoryError):
            message = "it needs more memory than there is"
        elif isinstance(error, KeyError):
            message = f"it has no {message}"
        elif not message:
            message = type(error).__name__
        is_ours = isinstance(error, ValueError) and message.startswith((name, _shown(name)))
        if not is_ours:
            message = f"{name} cannot be read{form}: {message}"
        if message.startswith(name):
            message = _shown(name) + message.removeprefix(name)
        raise ValueError(one_line(message, LONGEST)) from error


# bytes that a file may always ask for, and for each byte that it has: tables of zeros become small,
# and so do files made to fill the memory
ROOM = 1 << 30
ROOM_A_BYTE = 256
DEFLATED_MOST = 1032  # bytes that one byte of the deflate format can stand for


def check_memory(wanted: int, held: int) -> None:
    """Raise ValueError where a file of `held` bytes asks for far more memory.

    >>> check_memory(10**12, 1_000)
    Traceback (most recent call last):
    ValueError: it asks for 1e+03 GB of memory; a file of 1,000 bytes may ask for 1.07 GB
    """
    room = max(ROOM, ROOM_A_BYTE * held)
    if wanted > room:
        raise ValueError(
            f"it asks for {wanted / 1e9:.3g} GB of memory; a file of {held:,} bytes may ask for "
            f"{room / 1e9:.3g} GB"
        )


def check_members(path: PathLike) -> None:
    """Raise ValueError for an archive (npz, or of torch) of other members than NumPy and torch
    write: encrypted, compressed in other ways, twice under one name, or with sizes that cannot be.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/losses.npz", np.eye(2))
    ...     check_members(f"{folder}/losses.npz")
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two members have one name")
    for member in members:
        most = member.compress_size
        if member.compress_type == zipfile.ZIP_DEFLATED:
            most *= DEFLATED_MOST
        elif member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename} is not stored or deflated, as numpy.savez does it")
        # 1 is encrypted, 32 patched
        if member.flag_bits & 33:
            raise ValueError(f"{member.filename} is encrypted or patched")
        if member.file_size > most:
            raise ValueError(
                f"{member.filename} claims {member.file_size:,} bytes and has "
                f"{member.compress_size:,} compressed ones"
            )
    check_memory(sum(member.file_size for member in members), os.path.getsize(path))


def read_array(path: PathLike) -> np.ndarray:
    """The array of an npy file, after `check_array`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/losses.npy", np.eye(2))
    ...     read_array(f"{folder}/losses.npy").shape
    (2, 2)
    """
    check_array(path)
    return np.load(path, allow_pickle=False)


def check_array(path: PathLike) -> None:
    """Raise ValueError for an npy file whose header promises other than what follows it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/losses.npy", np.eye(2))
    ...     check_array(f"{folder}/losses.npy")
    """
    with open(path, "rb") as file:
        array_header(file, os.path.getsize(path))


def read_arrays(path: PathLike) -> dict[str, np.ndarray]:
    """All arrays of an npz file, after `check_members`; each is named where it cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/losses.npz", a=np.eye(2))
    ...     list(read_arrays(f"{folder}/losses.npz"))
    ['a']
    """
    return dict(each_array(path))


def each_array(path: PathLike, names: Iterable[str] | None = None) -> Iterator[Named]:
    """Arrays of an npz file one after the other, in the order of `names`, after `check_members`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/losses.npz", a=np.eye(2), b=np.ones(3))
    ...     [(name, array.shape) for name, array in each_array(f"{folder}/losses.npz", ["b"])]
    [('b', (3,))]
    """
    check_members(path)
    with zipfile.ZipFile(path) as archive:
        members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
        for name in members if names is None else names:
            with reading(path, f" at {name}"), archive.open(members[name]) as file:
                array = array_of(file, members[name].file_size)
            yield name, array


def array_of(file: IO[bytes], size: int) -> np.ndarray:
    """The array of an open npy file of so many bytes, where its header promises what follows it.

    >>> import io
    >>> file = io.BytesIO()
    >>> np.save(file, np.eye(2))
    >>> array_of(io.BytesIO(file.getvalue()), len(file.getvalue())).shape
    (2, 2)
    """
    array_header(file, size)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def array_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an open npy file of so many bytes, which is left at its numbers;
    ValueError where the header promises other than what follows it."""
    read_header = np.lib.format.read_array_header_2_0
    width = 4
    if np.lib.format.read_magic(file) == (1, 0):
        read_header = np.lib.format.read_array_header_1_0
        width = 2
    start = file.tell()
    if int.from_bytes(file.read(width), "little") > size:
        raise ValueError("its header is longer than the file")
    file.seek(start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that need a second try
        shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("objects are pickles, which may run code; write plain arrays")
    wanted = math.prod(shape) * dtype.itemsize
    held = size - file.tell()
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or wanted != held:
        raise ValueError(
            f"{dtype} of shape {shape} is {wanted:.6g} bytes, {held:,} are there: truncated? "
            "Write it again"
        )
    return shape, is_fortran, dtype
