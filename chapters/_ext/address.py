"""Where the book is built, so that every address on its pages is one that its builder owns.

A made-up address is a trap: whoever registers it runs code on readers' machines. So there is none
in the repository, and nothing on a page leads to one where the builder's own is not known.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sphinx.errors import ConfigError

# git@host:owner/name, which is no URL
SCP = re.compile(r"[\w.-]+@(?P<host>[\w.-]+):(?P<path>[^/\\].*)")
PART = re.compile(r"\w[\w.-]*", re.ASCII)


def is_public(host: str) -> bool:
    """Whether a host is a name that others can look up, not an address or this machine."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." in host and all(PART.fullmatch(part) for part in host.split("."))
    return False


def web_address(remote: str) -> str | None:
    """`https://host/owner/name` of what git may call a remote; None where it is no hosting address.

    User names, passwords and tokens are dropped: what comes back stands on public pages and in
    shell commands.
    """
    short = SCP.fullmatch(remote)
    if short:
        remote = f"ssh://{short['host']}/{short['path']}"
    try:
        parts = urlsplit(remote)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname or ""
    path = parts.path.strip("/").removesuffix(".git").split("/")
    if parts.scheme not in ("https", "ssh") or not is_public(host):
        return None
    if len(path) < 2 or not all(PART.fullmatch(part) for part in path):
        return None
    if parts.scheme == "https" and port:
        host = f"{host}:{port}"
    return f"https://{host}/{'/'.join(path)}"


def git(folder: Path, *arguments: str) -> str:
    """What git answers; nothing where there is no git, or no repository."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()


def origin(folder: Path) -> str:
    """The remote `origin` of a checkout; not that of a repository in which a copy of it lies."""
    top = git(folder, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != folder.resolve():
        return ""
    return git(folder, "config", "--get", "remote.origin.url")


def built_commit(folder: Path) -> str:
    """The commit that a checkout is at; empty where the folder is none."""
    top = git(folder, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != folder.resolve():
        return ""
    return git(folder, "rev-parse", "HEAD")


def repository_address(setting: str, environment: Mapping[str, str], folder: Path) -> str:
    """The address of the repository: the setting, else the workflow's own, else the remote
    `origin`; empty where none of them tells."""
    if setting:
        own = web_address(setting)
        if own is None:
            raise ConfigError(
                "repository.url in _config.yml must be empty or an address such as "
                f"https://host/owner/name, not {setting!r}"
            )
        return own
    server = environment.get("GITHUB_SERVER_URL")
    name = environment.get("GITHUB_REPOSITORY")
    if server and name:
        return web_address(f"{server}/{name}") or ""
    return web_address(origin(folder)) or ""


def pages_address(repository: str) -> str:
    """Where GitHub or GitLab serves the pages of a repository; empty for any other host."""
    parts = urlsplit(repository)
    hosts = {"github.com": "github.io", "gitlab.com": "gitlab.io"}
    if parts.netloc not in hosts:
        return ""
    owner, *rest = parts.path.strip("/").split("/")
    host = f"{owner.lower()}.{hosts[parts.netloc]}"
    name = "/".join(rest)
    if name.lower() == host:
        return f"https://{host}/"
    return f"https://{host}/{name}/"


def install_line(repository: str) -> str:
    """How to install the library from where the book was built; empty where that is not known."""
    if not repository:
        return ""
    return f"pip install git+{repository}"
