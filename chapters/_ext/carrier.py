"""What the page loads when a reader asks for any value: Python, NumPy, SciPy and this library, as
files of the site's own.

    python chapters/_ext/carrier.py --out DIR

Python is Pyodide's core, which npm brings with its lock. The lock states the sha256 of NumPy's and
SciPy's wheels too, so it does not matter where these two files come from: what differs is refused.
Both are cut to what the library uses, and all is compiled, which halves the time to start. The same
inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYODIDE = HERE / "node_modules" / "pyodide"
LIBRARY = ROOT / "lib" / "expertbank"
DATA = ROOT / "data"
CORE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")
LOCK = "pyodide-lock.json"
WORKER = HERE / "live" / "worker.mjs"
COMPILER = HERE / "live" / "compile.mjs"
SITE_PACKAGES = "/lib/python3.14/site-packages"
# a wheel on PyPI that carries Pyodide whole: two files are taken out of it, and nothing else
CARRIER = "open-webui==0.12.4"
WITHIN_CARRIER = "open_webui/frontend/pyodide"
# parts of SciPy that nothing of the library on the page uses
WITHOUT = ("stats", "io", "signal", "integrate", "ndimage", "cluster", "odr", "fftpack", "misc")
WITHOUT += ("datasets", "differentiate")
NOT_LOADED = {".pxd", ".pyi", ".pyx", ".h", ".c", ".a", ".ini", ".txt", ".md"}
# parts of the library that the page has no use for: they train, draw or ask a kernel
LEFT_OUT = ("training", "book/figures/vector.py", "book/explorers/widget.py")
LEFT_OUT += ("book/explorers/explorer.css",)
LEFT_OUT += ("cli.py",)
LOADED = {".py", ".toml", ".jinja", ".css"}
SHIPPED = ("banks/mnist", "banks/specialists", "gates", "testbed", "in-network")
NOT_SHIPPED = {".safetensors"}
# what cells of a chapter may ask for and "any value" does without, each loaded by itself when it is
# asked for: these parts of SciPy in one zip, and the other files of `data/`
LATER = "later"
REST = "scipy-rest.zip"
# the earliest date that a zip can state
DATE = (1980, 1, 1, 0, 0, 0)


class Missing(Exception):
    """What the live page needs and this machine cannot get; the message is one line."""


# --- wheels ---


def sha256_of(content: bytes) -> str:
    """As hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def locked(package: str) -> dict:
    """What npm's lock says of a package of Pyodide's."""
    return read_lock()["packages"][package]


def read_lock() -> dict:
    """Pyodide's own lock, which npm brings under its own."""
    if not (PYODIDE / LOCK).is_file():
        raise Missing(f"{PYODIDE} is missing: run `npm ci --ignore-scripts` in {HERE} (Node.js)")
    return json.loads((PYODIDE / LOCK).read_text())


def wheel(package: str, cache: Path) -> bytes:
    """A wheel of Pyodide's distribution, from the first source that has it.

    Raises Missing where none has, and where a source has another file than the lock states.
    """
    entry = locked(package)
    name = entry["file_name"]
    kept = cache / name
    if kept.is_file() and sha256_of(kept.read_bytes()) == entry["sha256"]:
        return kept.read_bytes()
    failed = []
    for source, fetch in SOURCES.items():
        try:
            content = fetch(name)
        except (OSError, subprocess.SubprocessError, KeyError, zipfile.BadZipFile) as error:
            failed.append(f"{source} ({type(error).__name__})")
            continue
        if content is None:
            continue
        found = sha256_of(content)
        if found != entry["sha256"]:
            raise Missing(
                f"{name} of {source} is not the one that Pyodide's lock states: "
                f"its sha256 is {found}, allowed is {entry['sha256']}"
            )
        write_whole(kept, content)
        return content
    raise Missing(
        f"{name} is not to be had: {', '.join(failed)}; "
        "set EXPERTBANK_WHEELS to a folder that holds it"
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there, whoever else writes it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def from_folder(name: str) -> bytes | None:
    """From the folder that the user names, if it holds the file."""
    folder = os.environ.get("EXPERTBANK_WHEELS")
    if not folder or not Path(folder, name).is_file():
        return None
    return Path(folder, name).read_bytes()


def from_release(name: str) -> bytes:
    """From Pyodide's own release."""
    version = json.loads((PYODIDE / "package.json").read_text())["version"]
    address = f"https://cdn.jsdelivr.net/pyodide/v{version}/full/{name}"
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read()


def from_carrier(name: str) -> bytes:
    """From a wheel on PyPI that carries the file."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        command += [folder, "--only-binary=:all:", "--ignore-requires-python", CARRIER]
        subprocess.run(command, check=True, capture_output=True, timeout=1800)
        (carrier,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(carrier) as content:
            return content.read(f"{WITHIN_CARRIER}/{name}")


SOURCES: dict[str, Callable[[str], bytes | None]] = {
    "EXPERTBANK_WHEELS": from_folder,
    "Pyodide's release": from_release,
    CARRIER: from_carrier,
}

# --- zips that are the same whenever they are made ---


def write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Members in the order of their names, all of one date."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in sorted(members):
            entry = zipfile.ZipInfo(name, DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            file.writestr(entry, content, compresslevel=9)


def is_kept(name: str) -> bool:
    """Whether a cell of a page may need this member of NumPy's or SciPy's wheel."""
    top, *rest = name.split("/")
    if name.endswith("/") or not rest:
        return False
    if top.endswith(".dist-info"):
        return rest[-1] != "RECORD"
    return "tests" not in rest and Path(name).suffix not in NOT_LOADED


def is_rest(name: str) -> bool:
    """Whether a member of a wheel belongs to what the library does without."""
    return name.startswith(tuple(f"scipy/{part}/" for part in WITHOUT))


def trimmed(content: bytes, rest: bool = False) -> Iterator[tuple[str, bytes]]:
    """The members of a wheel that the library uses, or the rest that a cell may use."""
    with zipfile.ZipFile(io.BytesIO(content)) as whole:
        for name in whole.namelist():
            if is_kept(name) and is_rest(name) == rest:
                yield name, whole.read(name)


def library_files() -> Iterator[tuple[str, Path]]:
    """The library and the shipped data that the page uses, by their place in the package."""
    for path in sorted(LIBRARY.rglob("*")):
        place = path.relative_to(LIBRARY).as_posix()
        if path.is_file() and path.suffix in LOADED and not place.startswith(LEFT_OUT):
            yield f"expertbank/{place}", path
    for folder in SHIPPED:
        for path in sorted((DATA / folder).iterdir()):
            if path.suffix not in NOT_SHIPPED:
                yield f"expertbank/shipped/data/{folder}/{path.name}", path


def later_files() -> Iterator[tuple[str, Path]]:
    """The shipped data that the zip of the library leaves out, by its place in `data/`."""
    for path in sorted(DATA.rglob("*")):
        place = path.relative_to(DATA)
        is_sealed = (DATA / place.parts[0] / "manifest.json").is_file()
        is_data = path.is_file() and is_sealed and path.suffix not in NOT_SHIPPED
        if is_data and place.parent.as_posix() not in SHIPPED:
            yield place.as_posix(), path


def compiled(
    members: Iterable[tuple[str, bytes]], with_source: bool = False
) -> list[tuple[str, bytes]]:
    """Members with byte code, made by the Python that the page runs, in place of their source or
    beside it."""
    node = shutil.which("node")
    if node is None:
        raise Missing("node is needed to compile the library for the page: `make book` gets it")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in members:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        command = [node, str(COMPILER), str(PYODIDE), folder, SITE_PACKAGES]
        command += [] if with_source else ["beside"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"the library cannot be compiled for the page: {done.stderr[-500:]}")
        unread = set() if with_source else {".py"}
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        kept = [path for path in paths if path.suffix not in unread]
        return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in kept]


# --- the folder ---


def notice() -> str:
    """What is shipped and under which licence, in words."""
    stated = json.loads((PYODIDE / "package.json").read_text())
    source = stated["repository"]["url"].removeprefix("git+").removesuffix(".git")
    numpy = locked("numpy")["version"]
    scipy = locked("scipy")["version"]
    return f"""\
pyodide.mjs, pyodide.asm.mjs, pyodide.asm.wasm: Pyodide {stated["version"]} ({stated["license"]},
Pyodide.txt), unchanged, with CPython in it (PSF License, Python.txt). Its source: {source}
python_stdlib.zip: the standard library of CPython (PSF License, Python.txt), unchanged.
numpy-{numpy}: NumPy (BSD, numpy-*). Tests and headers were left out, Python is byte code.
scipy-{scipy}: SciPy (BSD, scipy-*) with OpenBLAS and LAPACK (BSD, OpenBLAS.txt). Tests, headers and
parts that are not used here ({", ".join(WITHOUT)}) were left out, Python is byte code.
expertbank.zip: this book's library (MIT, expertbank.txt).
"""


def licences(wheels: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """The licences of all that is shipped, by the name of their file."""
    yield "README.txt", notice().encode()
    yield "expertbank.txt", (ROOT / "LICENSE").read_bytes()
    for path in (HERE / "live" / "licences").iterdir():
        yield path.name, path.read_bytes()
    for path in wheels:
        package = path.name.partition("-")[0]
        with zipfile.ZipFile(path) as content:
            for name in content.namelist():
                if is_licence(name):
                    last = name.partition(".dist-info/")[2].removeprefix("licenses/")
                    yield f"{package}-{last.replace('/', '-')}", content.read(name)


def is_licence(name: str) -> bool:
    """Whether a member of a wheel is a licence that the wheel states as its own."""
    within = name.partition(".dist-info/")[2]
    return within.startswith(("LICENSE", "licenses/"))


def key_of(members: Iterable[tuple[str, bytes]]) -> str:
    """sha256 of all that the folder is made of."""
    made_of = hashlib.sha256((PYODIDE / LOCK).read_bytes())
    scripts = [("", path.read_bytes()) for path in (Path(__file__), WORKER, COMPILER)]
    for name, content in [*scripts, *members]:
        made_of.update(f"{name} {len(content)} ".encode() + content)
    return made_of.hexdigest()


def build(out: Path, cache: Path | None = None) -> Path:
    """Make the folder that the page loads from, or leave it where it is what would be made.

    Raises Missing where something cannot be had.
    """
    cache = cache_folder() if cache is None else cache
    members = [(name, path.read_bytes()) for name, path in library_files()]
    later = [(name, path.read_bytes()) for name, path in later_files()]
    lock = read_lock()
    key = key_of([*members, *later])
    listing = out / "live.json"
    if listing.is_file() and json.loads(listing.read_text())["key"] == key:
        return out
    wheels = {name: wheel(name, cache) for name in ("numpy", "scipy")}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        fill(Path(folder) / "live", wheels, members, lock)
        leave_for_later(Path(folder) / "live" / LATER, wheels["scipy"], later)
        shutil.rmtree(out, ignore_errors=True)
        list_files(Path(folder) / "live", key)
        shutil.move(Path(folder) / "live", out)
    return out


def fill(out: Path, wheels: dict[str, bytes], members: list[tuple[str, bytes]], lock: dict) -> None:
    """Write all files but the list of them."""
    out.mkdir()
    for path in (WORKER, *(PYODIDE / name for name in CORE)):
        shutil.copyfile(path, out / path.name)
    entries = {name: lock["packages"][name] for name in wheels}
    paths = {name: out / entry["file_name"] for name, entry in entries.items()}
    for name, path in paths.items():
        write_zip(path, compiled(trimmed(wheels[name])))
        entries[name]["sha256"] = sha256_of(path.read_bytes())
    (out / LOCK).write_text(json.dumps({**lock, "packages": entries}, indent=1))
    write_zip(out / "expertbank.zip", compiled(members, with_source=True))
    (out / "LICENCES").mkdir()
    for name, content in licences(paths.values()):
        (out / "LICENCES" / name).write_bytes(content)


def leave_for_later(out: Path, scipy: bytes, data: list[tuple[str, bytes]]) -> None:
    """Write what cells may ask for."""
    out.mkdir()
    write_zip(out / REST, compiled(trimmed(scipy, rest=True)))
    for name, content in data:
        (out / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (out / "data" / name).write_bytes(content)


def list_files(folder: Path, key: str) -> None:
    """Write `live.json`: the files with their sizes and hashes, which files are there for later,
    and what all was made of."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            content = path.read_bytes()
            files[path.name] = {"bytes": len(content), "sha256": sha256_of(content)}
    later = [path for path in sorted((folder / LATER).rglob("*")) if path.is_file()]
    places = [path.relative_to(folder / LATER).as_posix() for path in later]
    stated = {"key": key, "files": files, "later": places}
    (folder / "live.json").write_text(json.dumps(stated, indent=1))


def cache_folder() -> Path:
    """Where verified wheels are kept, for all checkouts of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "expertbank" / "wheels"


def main() -> None:
    """Make the folder and say how large it is."""
    parser = argparse.ArgumentParser(description="What the page loads for any value, as a folder.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    options = parser.parse_args()
    try:
        out = build(options.out)
    except Missing as error:
        sys.exit(str(error))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
