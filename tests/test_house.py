"""Rules of the house that a reader relies on: layers, sizes, one truth per fact."""

import ast
import re
import tokenize
import tomllib

import pytest
import yaml

from expertbank.shipped.manifest import REPOSITORY

LIBRARY = REPOSITORY / "lib" / "expertbank"
MODULES = sorted(LIBRARY.rglob("*.py"))
# what a package shows to the outside: these may import all that is in it
FACES = {"__init__", "routers", "shipped", "training", "book"}
# a module imports only from layers before its own
LAYERS = [
    {"_checks", "_files"},
    {"information", "tables"},
    {"learners", "channels", "solver"},
    {"bounds", "theorem1", "privacy", "links", "distortions"},
    {"ladder", "rate_distortion"},
    {"uncertainty", "synthetic", "gates", "theorem2"},
    {"shipped.manifest", "routers.measures"},
    {"shipped.bank", "shipped.testbed", "routers.statistics"},
    {"shipped.gates", "routers.agreement", "routers.formats"},
    {"routers.report", "routers.hooks"},
    {"routers.report_page"},
    {"training.datasets", "training.resumable", "training.balancing"},
    {"training.experts", "training.corpus"},
    {"training.gates", "training.testbed_model"},
    {"training.testbed_runs"},
    {"book.claims", "book.figures.style"},
    {
        "book.figures.channel",
        "book.figures.banks",
        "book.figures.second_look",
        "book.figures.priced_gates",
        "book.figures.routers",
    },
    {"book.figures"},
    {"book.explorers"},
    {"cli"},
]


def name_of(path):
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path):
    """Modules that a file imports; a package's name stands for one of its modules where it names one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            folder = LIBRARY.parent.joinpath(*node.module.split("."))
            for alias in node.names:
                inside = folder / alias.name
                is_module = inside.is_dir() or inside.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p) not in FACES], ids=name_of)
def test_imports_run_one_way(path):
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    for module in imports_of(path):
        if module.startswith("expertbank."):
            imported, own = module.removeprefix("expertbank."), name_of(path)
            assert level[imported] < level[own]


# core <- shipped, routers <- training, book <- cli
WINGS = {
    "core": {"core"},
    "shipped": {"core", "shipped"},
    "routers": {"core", "routers"},
    "training": {"core", "shipped", "routers", "training"},
    "book": {"core", "shipped", "routers", "book"},
    "cli": {"core", "shipped", "routers", "training", "book", "cli"},
}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_wings_import_one_way(path):
    allowed = WINGS[wing_of(path)] | ({"shipped"} if name_of(path) == "__init__" else set())
    for module in imports_of(path):
        if module.startswith("expertbank."):
            first = module.split(".")[1]
            assert (first if first in WINGS else "core") in allowed, module


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_load_only_where_they_are_used(path):
    allowed = {"torch": ("training.", "routers.hooks", "routers.formats"), "torchvision": "training.",
               "joblib": "training.", "safetensors": "training.", "tokenizers": "training.", "transformers": (),
               "matplotlib": ("book.figures", "book.explorers", "routers.report_page"), "ipywidgets": "book.explorers",
               "reedsolo": "links", "constriction": "links"}  # fmt: skip
    for module in imports_of(path):
        package = module.split(".")[0]
        assert package not in allowed or name_of(path).startswith(allowed[package])


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_are_short_and_public_ones_documented(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 120, f"{node.name} is too long"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def code_lines(path):
    """Lines that hold code: no blanks, comments or docstrings."""
    prose = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines = set()
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in prose]
    for token in tokens:
        if not (token.type == tokenize.STRING and token.line.lstrip().startswith('"""')):
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


# code lines a wing may have: a promise to the reader. Take something out before raising one.
CAPS = {"core": 2800, "shipped": 500, "routers": 2800, "training": 1300, "book": 2400, "cli": 400}


def wing_of(path):
    """The part of the house that a module stands in."""
    first = path.relative_to(LIBRARY).parts[0]
    if first == "cli.py":
        return "cli"
    return first if first in CAPS else "core"


@pytest.mark.parametrize("wing", CAPS)
def test_every_wing_stays_small(wing):
    size = sum(code_lines(path) for path in MODULES if wing_of(path) == wing)
    assert 0 < size <= CAPS[wing]


def test_no_pickle_anywhere():
    for path in MODULES:
        assert "pickle" not in {module.split(".")[0] for module in imports_of(path)}
        assert "allow_pickle=True" not in path.read_text()


def test_environment_repeats_no_version():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    python, pip, packages = environment["dependencies"]
    assert pip == "pip"
    assert python == "python=" + re.search(r"\d+\.\d+", project["requires-python"]).group()
    assert packages["pip"] == ["--constraint constraints.txt", "--editable .[book]"]


def test_locked_versions_satisfy_the_project():
    packaging = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    locked = dict(re.split("==", line.lower()) for line in lines if "==" in line)
    wanted = project["dependencies"] + [
        r for extra in project["optional-dependencies"].values() for r in extra
    ]
    for requirement in map(packaging.Requirement, wanted):
        name = requirement.name.lower()
        if name == "expertbank":  # one extra inside another
            assert requirement.extras <= set(project["optional-dependencies"])
            continue
        version = locked.get(name) or locked.get(name.replace("-", "_"))
        assert version, f"{name} is not locked"
        assert requirement.specifier.contains(version.split("+")[0]), requirement


def test_version_is_one():
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == version
    assert f"## {version}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_readme_shows_two_set_up_commands():
    section = (REPOSITORY / "README.md").read_text().split("## Set up")[1].split("## ")[0]
    assert re.findall(r"^make \w+", section, flags=re.M) == ["make book", "make test"]
