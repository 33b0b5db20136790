"""The whole book as one zip that works by double click.

    python chapters/_ext/offline.py SITE OUT.zip

A page that was opened from disk may neither fetch files nor start a worker from one. What "Any
value" and cells load is therefore there as scripts, each with one file, compressed and as text: see
lib/expertbank/book/explorers/from_disk.js. The same site gives the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import carrier

TOP = "expertbank-book"
# what only a server, a crawler or a developer asks for
NOT_READ = ("404.html", ".buildinfo", ".nojekyll", "sitemap.xml", "robots.txt", "*.map")
# what a script hands over, and the name by which a page asks for it
HANDED_OVER = (
    r"_local/live/\w+/([^/]+)",
    r"_local/live/\w+/later/(.+)",
    r"_local/cells/([^/]+\.json)",
)


def as_script(name: str, content: bytes) -> bytes:
    """A script that hands over a file."""
    text = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f'expertbankFiles[{json.dumps(name)}] = "{text}";\n'.encode()


def members(site: Path) -> Iterator[tuple[str, bytes]]:
    """The files of the book by their place in the zip."""
    for path in site.rglob("*"):
        place = path.relative_to(site).as_posix()
        if not path.is_file() or any(fnmatch(place, pattern) for pattern in NOT_READ):
            continue
        found = [match[1] for match in (re.fullmatch(one, place) for one in HANDED_OVER) if match]
        if found:
            yield f"{TOP}/{place}.js", as_script(found[0], path.read_bytes())
        else:
            yield f"{TOP}/{place}", path.read_bytes()


def main() -> None:
    """Write the zip and say how large it is."""
    parser = argparse.ArgumentParser(description="The whole book as one zip.")
    parser.add_argument("site", type=Path, help="the built book")
    parser.add_argument("out", type=Path, help="the zip to write")
    options = parser.parse_args()
    if not (options.site / "index.html").is_file():
        sys.exit(f"{options.site} holds no built book: run `make book`")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    carrier.write_zip(options.out, members(options.site))
    print(
        f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB; unpack it and open index.html"
    )


if __name__ == "__main__":
    main()
