"""The Dockerfile, read as text: what it starts from and what it installs are pinned, and it
installs what the script of continuous integration installs."""

import re

from references import ROOT

DOCKERFILE = (ROOT / ".ci" / "Dockerfile").read_text()
SCRIPT = (ROOT / ".ci" / "run").read_text()
# what the script needs beside Python, and an image of Python lacks
NEEDED = {"git", "make"}


def instructions():
    """Each instruction in one line, without comments."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M)
    return re.sub(r"\\\n\s*", "", text).strip().splitlines()


def installed(text):
    """Debian packages that a script installs."""
    joined = re.sub(r"\\\n\s*", "", text)
    [options] = re.findall(r"apt-get install ([^&\n]*)", joined)
    return {word for word in options.split() if not word.startswith("-")}


def test_it_starts_from_one_image_by_digest():
    [image] = [line for line in instructions() if line.startswith("FROM ")]
    name = r"python:(3\.11)-slim-bookworm@sha256:[0-9a-f]{64}"
    found = re.fullmatch(f"FROM {name}", image)
    assert found
    environment = (ROOT / "environment.yml").read_text()
    assert f"python={found[1]}" in environment


def test_debian_packages_are_those_of_one_day_and_those_of_the_script():
    assert installed(DOCKERFILE) == installed(SCRIPT) | NEEDED
    [looked_for] = re.findall(r"dpkg --status ([^>]*) >", SCRIPT)
    assert installed(SCRIPT) == set(looked_for.split()), "what is missing is installed"
    assert "git, make and apt" in SCRIPT
    [day] = re.findall(r"^ARG SNAPSHOT=(\d{8}T\d{6}Z)$", DOCKERFILE, flags=re.M)
    assert day
    hosts = set(re.findall(r"https?://([\w.]+)", DOCKERFILE))
    assert hosts == {"snapshot.debian.org"}
    # each archive is asked for as it was on that day
    assert DOCKERFILE.count("/$SNAPSHOT") == len(re.findall(r'"debian[\w-]*/', DOCKERFILE)) == 2


def test_python_packages_come_from_the_makefile_alone_which_is_constrained():
    runs = [line for line in instructions() if line.startswith("RUN ")]
    assert not any(re.search(r"pip3? install|uv |conda", line) for line in runs)
    assert any("make .venv/.test" in line for line in runs)
    makefile = (ROOT / "Makefile").read_text()
    [command] = re.findall(r"^INSTALL := (.*)$", makefile, flags=re.M)
    assert "--constraint constraints.txt --build-constraint constraints.txt" in command
    assert "VENV := .venv" in makefile and "TEST := $(VENV)/.test" in makefile
    installs = re.findall(r"^.*\bpip\b +\binstall\b.*$", makefile, flags=re.M)
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)


def test_it_builds_the_book_and_runs_the_tests():
    lines = instructions()
    assert "RUN make book" in lines
    assert lines[-1] == 'CMD ["bash", ".ci/run"]'
    assert "ENV EXPERTBANK_DATA=/data" in lines


def test_what_is_built_here_stays_out_of_the_image():
    left_out = set((ROOT / ".dockerignore").read_text().split())
    built = {".venv", "_build", "build", "data/*MNIST", "data/bible-corpus"}
    assert built <= left_out and ".git" not in left_out
