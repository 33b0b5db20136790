"""A chapter runs with other parameters than the book's, without an error and without a warning."""

import re
import symtable

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from references import ROOT, chapters

# chapter -> assignments of its parameters, and what stands in their place
OTHER = {
    "start": {"n_images = 2_000": "n_images = 500", "alpha = 0.7": "alpha = 0.9"},
    "gate": {"n_experts = 8": "n_experts = 16"},
    "theorem1": {"m = 8": "m = 4"},
    "alpha_mixture": {"m = 256": "m = 64", "M = 4000": "M = 1000"},
    "bsc": {"p = 0.1": "p = 0.3"},
    "mnist_bank": {'bank = load_bank("mnist")': 'bank = load_bank("specialists")'},
    "blahut_arimoto": {"n_images = 2_000": "n_images = 500"},
    "estimators": {"M = 300": "M = 100"},
    "is_it_mnist": {"m = 256": "m = 64", "n_experiments = 5": "n_experiments = 2"},
    "audit": {"m = 256": "m = 64", "M_large = 20_000": "M_large = 2_000"},
    "report": {"seed = 0": "seed = 1"},
    "other_learners": {"m_paper = 256": "m_paper = 64", "M = 10_000": "M = 2_000"},
    "ladder": {"m = 256": "m = 64", "M = 20_000": "M = 2_000", "low = 0.25": "low = 0.3"},
    "replicates": {"m = 256": "m = 64", "M = 300": "M = 80"},
    "solver": {
        "n_images = 2_000": "n_images = 500",
        "dear = 3": "dear = 1",
        "cheap = 0.1": "cheap = 0.2",
    },
    "your_router": {"level = 0.05": "level = 0.2", "n_routers = 400": "n_routers = 60"},
    "gates": {"n_train = 3_000": "n_train = 300", 'example = "specialists"': 'example = "mnist"'},
    "theorem2": {"m = 256": "m = 64", "M = 1000": "M = 200", "n_few = 15": "n_few = 10"},
    "testbed": {"narrow = 1": "narrow = 8", "miss = 0.05": "miss = 0.2"},
    "in_network": {"price = 0.003": "price = 0.1", "m = 256": "m = 64"},
    "links": {
        "k = 8": "k = 4",
        "epsilon = 1.0": "epsilon = 2.0",
        "crossover = 0.1": "crossover = 0.02",
    },
    "what_else": {"k = 8": "k = 4", "lam = 0.1": "lam = 0.05", "n_samples = 12": "n_samples = 2"},
}


WHERE = {"metadata": {"path": ROOT}}


@pytest.fixture(scope="module")
def kernel():
    """One kernel for all chapters, each of which finds no name of another: importing what they
    share is most of what a short one takes. Each has a kernel of its own under nbval."""
    starter = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3", resources=WHERE)
    with starter.setup_kernel():
        yield starter.km


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_a_chapter_runs_with_other_parameters(name, kernel):
    book = jupytext.read(ROOT / "chapters" / f"{name}.md")
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    for old, new in OTHER[name].items():
        line = re.compile(rf"^{re.escape(old)}(?=\s|$)", re.M)
        found = [cell for cell in code for _ in line.findall(cell.source)]
        assert len(found) == 1, f"{old!r} stands {len(found)} times in {name}"
        found[0].source = line.sub(new, found[0].source)
    book.cells.insert(0, nbformat.v4.new_code_cell("%reset_selective -f ."))
    client = NotebookClient(book, km=kernel, timeout=180, resources=WHERE)
    client.execute()
    client.kc.stop_channels()
    outputs = [output for cell in code for output in cell.outputs]
    errors = [output.text for output in outputs if output.get("name") == "stderr"]
    assert errors == []


def test_every_chapter_with_code_runs_with_other_parameters():
    assert set(OTHER) == {chapter.stem for chapter in chapters()}


def names(source):
    """Names that a cell binds, and that it reads; functions and comprehensions keep their own."""
    python = "\n".join("" if line[:1] in "%!" else line for line in source.splitlines())
    symbols = symtable.symtable(python, "cell", "exec").get_symbols()
    bound = {symbol.get_name() for symbol in symbols if symbol.is_assigned()}
    return bound, {symbol.get_name() for symbol in symbols if symbol.is_referenced()}


@pytest.mark.parametrize("name", OTHER)
def test_a_parameter_is_set_once_and_compared_with_the_book(name):
    """In the cell above "Try this", and by the cell below it, itself or in another parameter."""
    cells = jupytext.read(ROOT / "chapters" / f"{name}.md").cells
    [hint] = [i for i, cell in enumerate(cells) if cell.source.startswith("**Try this:**")]
    parameters, read = names(cells[hint - 1].source)
    assert "as_in_book" in names(cells[hint + 1].source)[0]
    assert parameters <= read | names(cells[hint + 1].source)[1]
    for cell in cells[hint + 1 :]:
        if cell.cell_type == "code":
            assert not parameters & names(cell.source)[0]
