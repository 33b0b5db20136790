"""The README's code runs as it stands: Python on small tables, commands of `expertbank` on small
files. Of make and pip, which take long or the network, the targets and extras must exist.
"""

from __future__ import annotations

import re
import shlex
import tomllib

import numpy as np
import pytest

from expertbank.cli import main
from expertbank.routers.families import families_of
from expertbank.shipped.manifest import (
    MANIFEST,
    REPOSITORY,
    data_folder,
    read_json,
    shipped_file,
)

TEXT = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, flags=re.M | re.S)
PYTHON = [code for language, code in BLOCKS if language == "python"]
LINES = [
    line
    for language, code in BLOCKS
    if language == "sh"
    for line in code.replace("\\\n", " ").splitlines()
]
COMMANDS = [words for words in (shlex.split(line, comments=True) for line in LINES) if words]
OWN = [words for words in COMMANDS if words[0] == "expertbank"]
# the rows of every paper, on the shipped bank
SLOW = [["expertbank", "report"]]
ON_ROUTERS = [code for code in PYTHON if "record_routing" in code]
ON_TABLES = [code for code in PYTHON if "record_routing" not in code]
N, R = 6000, 5


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder, made the current one, with the files that the README names."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "losses.npy", rng.integers(0, 2, (N, R)))
    np.save(tmp_path / "gate.npy", rng.dirichlet(np.ones(R), size=50))
    chosen = rng.integers(0, 8, (2, 400, 1))
    sequence = np.repeat(np.arange(20), 20)
    labels = {"sequence": sequence, "domain": sequence % 2}
    np.savez(tmp_path / "routes.npz", chosen=chosen, n_experts=8, **labels)
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    (tmp_path / "build").symlink_to(REPOSITORY / "data")  # a bank as `make bank` writes it
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_of_a_kind_that_is_tested():
    assert ON_TABLES and len(ON_ROUTERS) == 1 and OWN
    assert {language for language, _ in BLOCKS} <= {"python", "sh", "bibtex"}
    assert {words[0] for words in COMMANDS} <= {"expertbank", "make", "pip", "git", "cd"}


def test_python_on_loss_tables(files):
    features = np.random.default_rng(1).normal(size=(N, 3))
    namespace = {"features": features}
    for code in ON_TABLES:
        exec(compile(code, "README.md", "exec"), namespace)
    point = namespace["point"]
    assert point.certificate <= 1e-9
    assert namespace["curve"].lower(0.1) <= namespace["curve"].upper(0.1)
    assert namespace["gate"].sum(axis=1) == pytest.approx(1)


@pytest.mark.slow
def test_python_on_a_models_routers(transformers, capsys):
    import torch

    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
    )

    def tokenizer(texts, return_tensors, padding):
        assert return_tensors == "pt" and padding
        ids = torch.randint(1, 64, (len(texts), 12))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    namespace = {
        "model": transformers.MixtralForCausalLM(config).eval(),
        "tokenizer": tokenizer,
        "texts": ["one", "two", "three"],
    }
    exec(compile(ON_ROUTERS[0], "README.md", "exec"), namespace)
    assert "nats" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, marks=[pytest.mark.slow] * (words in SLOW)) for words in OWN],
    ids=shlex.join,
)
def test_commands(words, files, capsys):
    assert main(words[1:]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out or any((files / word).exists() for word in words if "html" in word)


@pytest.mark.parametrize("page", ["README.md", "REPRODUCING.md"])
@pytest.mark.parametrize("command", ["make reproduce", "expertbank compare", "expertbank verify"])
def test_a_reproducer_finds_what_answers_yes_or_no(page, command):
    assert command in (REPOSITORY / page).read_text()


def test_targets_of_make_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([\w.-]+):", makefile, flags=re.M))
    named = {words[1] for words in COMMANDS if words[0] == "make"}
    named |= set(re.findall(r"`make ([\w-]+)`", TEXT))
    assert named and named <= targets


def test_extras_exist():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = re.findall(r"(?:expertbank|\.)\[([\w,]+)\]", TEXT)
    extras = {extra for several in named for extra in several.split(",")}
    assert extras and extras <= set(project["optional-dependencies"])


def test_folders_exist():
    """The table of where things are."""
    named = re.findall(r"^\| `([\w./-]+)` \|", TEXT, flags=re.M)
    for path in named:
        assert (REPOSITORY / path).exists(), path
    for folder in data_folder().iterdir():
        is_shipped = bool(list(folder.rglob(MANIFEST)))
        assert (f"data/{folder.name}/" in named) == is_shipped, folder


def test_what_is_counted_is_so_many():
    [families] = re.findall(r"any of (\d+) families", TEXT)
    heard = [how for _, how, _ in families_of() if how == "verified"]
    assert int(families) == len(heard)
    [problems] = re.findall(r"\| (\d+) distortion-rate problems", TEXT)
    assert int(problems) == len(read_json(shipped_file("reference", "problems.json"))["problems"])
