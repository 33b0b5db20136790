"""Code cells that a page runs: one after the other in one namespace, and what each prints and
shows.

A page has Python, NumPy, SciPy and this library. What needs more, such as torch, is told apart from
a mistake: the cell says what is missing, and so do the cells that need what it would have made.
"""

from __future__ import annotations

import ast
import io
import json
import linecache
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from expertbank.book.explorers.explorer import Explorer
from expertbank.book.explorers.scene import Scene
from expertbank.book.figures.sketch import NotSketched, SketchedFigure
from expertbank.book.numbers import kept_by

Write = Callable[[str, str], None]

NOT_HERE = (
    "Not on this page: {}. It has Python, NumPy, SciPy and the library; what needs more is left "
    "out here, and JupyterLab and Binder run all of it."
)
# methods that fill what they belong to, and statements that make a name anew
FILLS = ("append", "extend", "insert", "add", "update", "setdefault")
WHOLE = (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


class Printed(io.TextIOBase):
    """A stream that hands on whole lines."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.hand_on = write
        self.begun = ""

    def write(self, text: str) -> int:
        whole, end, self.begun = (self.begun + text).rpartition("\n")
        if end:
            self.hand_on(whole + end)
        return len(text)

    def close(self) -> None:
        if self.begun:
            self.hand_on(self.begun)
        self.begun = ""


class Notebook:
    """The namespace of a page's cells; `write(kind, text)` hears what they print ("out", "err") and
    show ("shown", JSON).

    >>> heard = []
    >>> notebook = Notebook(lambda kind, text: heard.append((kind, text)))
    >>> answer = notebook.run("a = 2\\na + 1", "cell 1")
    >>> heard
    [('shown', '{"kind": "text", "text": "3"}')]
    >>> json.loads(answer)
    {'error': '', 'missing': [], 'note': '', 'numbers': {}}
    >>> json.loads(notebook.run("import torch_of_old\\na = 3", "cell 2"))["missing"]
    ['torch_of_old']
    >>> json.loads(notebook.run("torch_of_old.ones(a)", "cell 3"))["missing"]
    ['torch_of_old']
    """

    def __init__(self, write: Write) -> None:
        self.write = write
        self.names: dict[str, Any] = {"__name__": "__main__", "display": self.show}
        # names that a cell would have made, had the page the module
        self.absent: dict[str, str] = {}
        self.explorers: list[Explorer] = []

    def run(self, code: str, label: str) -> str:
        """Run a cell, and answer as JSON: its `error` in the words of a traceback, which modules
        are `missing`, a `note` in words on these, and the `numbers` of the text by name."""
        numbers: dict[str, str] = {}
        out = Printed(partial(self.write, "out"))
        err = Printed(partial(self.write, "err"))
        error = ""
        missing: list[str] = []
        lines = code.splitlines(keepends=True)
        linecache.cache[f"<{label}>"] = (len(code), None, lines, f"<{label}>")
        with redirect_stdout(out), redirect_stderr(err), kept_by(numbers.__setitem__):
            try:
                missing = self._run_all(ast.parse(code, f"<{label}>"), f"<{label}>")
            except Exception as raised:  # a cell may raise whatever it likes
                error = told(raised)
        out.close()
        err.close()
        note = NOT_HERE.format(", ".join(missing)) if missing else ""
        answer = {"error": error, "missing": missing, "note": note, "numbers": numbers}
        return json.dumps(answer)

    def scene(self, place: int, dials: str) -> str:
        """The scene of an explorer that a cell showed, at a value (JSON) of every dial."""
        return json.dumps(self.explorers[place].scene(**json.loads(dials)).to_json())

    def show(self, value: Any) -> None:
        """Show a value as a notebook would."""
        self.write("shown", json.dumps(self._shown(value)))

    def _run_all(self, module: ast.Module, file: str) -> list[str]:
        """Run the statements of a cell; the modules that it lacks."""
        missing = [name for name in asked_for(module) if find_spec(name) is None]
        for place, statement in enumerate(module.body):
            try:
                self._run_one(statement, file, last=place == len(module.body) - 1)
            except NotSketched:
                self.write("shown", json.dumps({"kind": "kept"}))
            except Exception as error:
                is_import = isinstance(statement, (ast.Import, ast.ImportFrom))
                lacked = self._lacked(error, statement)
                if not lacked:
                    raise
                if lacked == "matplotlib" and not is_import:
                    self.write("shown", json.dumps({"kind": "kept"}))
                    continue
                missing.append(lacked)
                left = [statement] if is_import else module.body[place:]
                self._leave(left, lacked)
                if not is_import:
                    break
            else:
                self._keep_account(statement)
        return list(dict.fromkeys(missing))

    def _run_one(self, statement: ast.stmt, file: str, last: bool) -> None:
        if last and isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), file, "eval"), self.names)
            if value is not None:
                self.show(value)
        else:
            exec(compile(ast.Module([statement], []), file, "exec"), self.names)

    def _lacked(self, error: Exception, statement: ast.stmt) -> str:
        """The module that the page has not got and that an error comes from, empty where it is a
        mistake: what a cell without it left half made may be wrong in any way."""
        if isinstance(error, ModuleNotFoundError):
            return str(error.name)
        names = read_by(statement)
        if isinstance(error, NameError):
            names.add(str(error.name))
        return self._absent_of(names)

    def _leave(self, statements: Sequence[ast.stmt], lacked: str) -> None:
        names = {name for statement in statements for name in made_by(statement)}
        for name in names:
            if not isinstance(self.names.get(name), ModuleType):  # as of `np.append`
                self.absent[name] = lacked

    def _absent_of(self, names: set[str]) -> str:
        return next((self.absent[name] for name in sorted(names) if name in self.absent), "")

    def _keep_account(self, statement: ast.stmt) -> None:
        """What ran on something half made is half made too; what is made anew is whole."""
        lacked = self._absent_of(read_by(statement))
        if lacked:
            self._leave([statement], lacked)
        elif isinstance(statement, WHOLE):
            for name in bound_by(statement):
                self.absent.pop(name, None)

    def _shown(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Explorer):
            self.explorers.append(value)
            dials = {name: asdict(dial) for name, dial in value.dials.items()}
            what = {"kind": "explorer", "place": len(self.explorers) - 1, "alt": value.alt}
            return what | {"dials": dials, "scene": value.scene(**value.start()).to_json()}
        if isinstance(value, SketchedFigure):
            return {"kind": "sketch", "scene": value.scene().to_json()}
        if isinstance(value, Scene):
            return {"kind": "scene", "scene": value.to_json()}
        if hasattr(value, "_repr_html_"):
            return {"kind": "html", "html": value._repr_html_()}
        return {"kind": "text", "text": repr(value)}


def asked_for(module: ast.Module) -> Iterator[str]:
    """The modules that code looks for by `find_spec("name")` before it takes them."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "find_spec":
            values = (getattr(argument, "value", None) for argument in node.args)
            yield from (value for value in values if isinstance(value, str))


def made_by(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement makes or fills."""
    for node in ast.walk(statement):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                yield alias.name.partition(".")[0] if alias.asname is None else alias.asname
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif is_filled(node):
            yield from (one.id for one in ast.walk(node.value) if isinstance(one, ast.Name))


def is_filled(node: ast.AST) -> TypeGuard[ast.Subscript | ast.Attribute]:
    """Whether `node.value` is filled, by an index or by a method."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.ctx, ast.Store)
    return isinstance(node, ast.Attribute) and node.attr in FILLS


def bound_by(statement: ast.stmt) -> Iterator[str]:
    """The names that an assignment, an import or a definition binds."""
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for node in (node for target in targets for node in ast.walk(target)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
    elif isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        yield statement.name
    else:
        yield from made_by(statement)


def read_by(statement: ast.stmt) -> set[str]:
    """The names that a statement takes from the cells before it."""
    parts: list[ast.AST] = [statement]
    if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value:
        # `rows = rows[1:]` reads the name that it binds
        parts = [statement.value]
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        parts += [one for one in targets if isinstance(one, (ast.Subscript, ast.Attribute))]
    nodes = [node for part in parts for node in ast.walk(part)]
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if isinstance(statement, ast.AugAssign):
        own = set()
    return names - own


def told(error: Exception) -> str:
    """An error as a notebook tells it: without the frames of what runs the cell."""
    whole = traceback.TracebackException.from_exception(error)
    whole.stack[:] = [frame for frame in whole.stack if frame.filename != __file__]
    return "".join(whole.format())


class Rest:
    """Finds the parts of SciPy that "any value" does without, in a zip that is read when a cell
    imports one of them."""

    def __init__(self, archive: Path, goal: Path) -> None:
        self.archive = archive
        self.goal = goal
        self.unpacked = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Called for what nothing else finds."""
        if self.unpacked or not name.startswith("scipy."):
            return None
        self.unpacked = True
        with zipfile.ZipFile(self.archive) as content:
            content.extractall(self.goal)
        PathFinder.invalidate_caches()
        return PathFinder.find_spec(name, path, target)


def find_rest(archive: str, goal: str) -> None:
    """Let imports find what a zip of the page holds."""
    sys.meta_path.append(Rest(Path(archive), Path(goal)))
