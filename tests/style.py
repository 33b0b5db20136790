"""How the library is written, as rules on its syntax trees: each yields where a file breaks it.

ruff checks the rest: the width of lines, unused names, the order of imports.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

# what a rule yields: a line, and what is wrong there
Place = tuple[int, str]
LONGEST = 60
# calls that answer yes or no
QUESTIONS = {"isinstance", "issubclass", "callable", "hasattr", "all", "any", "bool"}
METHODS_THAT_ANSWER = {
    "all",
    "any",
    "startswith",
    "endswith",
    "exists",
    "is_file",
    "is_dir",
    "isdigit",
    "isalpha",
    "array_equal",
    "issubset",
    "issuperset",
    "is_integer",
    "issubdtype",
    "requires_grad",
}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, methods and inner ones too."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def is_public(name: str) -> bool:
    return not name.startswith("_")


def parents(tree: ast.Module) -> dict[ast.AST, ast.AST]:
    """For every node the one that it is a part of."""
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def nested_conditionals(tree: ast.Module) -> Iterator[Place]:
    """`a if p else b if q else c`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.IfExp):
            inside = (child for child in ast.walk(node) if child is not node)
            if any(isinstance(child, ast.IfExp) for child in inside):
                yield node.lineno, "a conditional expression inside another: write an if"


def calls_in_tuple_assignments(tree: ast.Module) -> Iterator[Place]:
    """`a, b = f(), g()`; one call that is unpacked, swaps and arithmetic are fine."""
    work = (ast.Call, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    pair = (ast.Tuple, ast.List)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, pair):
            several = any(isinstance(target, pair) for target in node.targets)
            if several and any(isinstance(child, work) for child in ast.walk(node.value)):
                yield (
                    node.lineno,
                    "calls assigned to several names at once: write one line for each",
                )


def bare_tuples(tree: ast.Module) -> Iterator[Place]:
    """`f(), g()` as a statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple):
            yield node.lineno, "a tuple as a statement: write one line for each"


def stored_lambdas(tree: ast.Module) -> Iterator[Place]:
    """A lambda that is not an argument of a call."""
    part_of = parents(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            place = part_of[node]
            if isinstance(place, ast.keyword):
                place = part_of[place]
            is_table = isinstance(place, ast.Call) and ast.unparse(place.func) == "dict"
            if not isinstance(place, ast.Call) or is_table:
                yield node.lineno, "a lambda that is kept: write a function with a name"


def boolean_names(tree: ast.Module) -> set[str]:
    """Parameters, fields and functions of a file that are annotated as bool."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            name, annotation = node.arg, node.annotation
        elif isinstance(node, ast.AnnAssign):
            name, annotation = ast.unparse(node.target), node.annotation
        elif isinstance(node, ast.FunctionDef):
            name, annotation = node.name, node.returns
        else:
            continue
        if annotation is not None and ast.unparse(annotation).strip("'\"") == "bool":
            names.add(name)
    return names


def is_boolean(node: ast.AST, known: set[str]) -> bool:
    """Whether an expression is True or False by its form."""
    if isinstance(node, ast.BoolOp):
        return all(is_boolean(value, known) for value in node.values)
    if isinstance(node, ast.Compare):
        return True
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool)
    if isinstance(node, ast.Name):
        return node.id in known
    if isinstance(node, ast.Attribute):
        return node.attr in known
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return node.func.id in QUESTIONS | known
        if isinstance(node.func, ast.Attribute):
            return node.func.attr in METHODS_THAT_ANSWER | known
    return False


def is_asked(node: ast.AST, part_of: dict[ast.AST, ast.AST]) -> bool:
    """Whether only the truth of an expression matters where it stands."""
    place = part_of[node]
    if isinstance(place, (ast.If, ast.While, ast.Assert, ast.IfExp)):
        return place.test is node
    if isinstance(place, ast.comprehension):
        return node in place.ifs
    if isinstance(place, ast.UnaryOp):
        return isinstance(place.op, ast.Not)
    if isinstance(place, ast.BoolOp):
        return is_asked(place, part_of)
    if isinstance(place, ast.GeneratorExp):
        place = part_of[place]
    if isinstance(place, ast.Call) and isinstance(place.func, ast.Name):
        return place.func.id in {"all", "any", "bool"}
    return False


def truth_used_as_value(tree: ast.Module) -> Iterator[Place]:
    """`name = given or default`: `and` and `or` join conditions, they do not choose a value."""
    part_of = parents(tree)
    known = boolean_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.BoolOp) or isinstance(part_of[node], ast.BoolOp):
            continue
        if not is_asked(node, part_of) and not is_boolean(node, known):
            yield node.lineno, f"{ast.unparse(node)} is used as a value: write an if"


def long_functions(tree: ast.Module) -> Iterator[Place]:
    """More lines than fit on a page."""
    for node in functions(tree):
        assert node.end_lineno is not None
        lines = node.end_lineno - node.lineno + 1
        if lines > LONGEST:
            yield node.lineno, f"{node.name} has {lines} lines, {LONGEST} are allowed"


def missing_docstrings(tree: ast.Module) -> Iterator[Place]:
    """Public functions and classes that do not say what they are."""
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or not is_public(node.name):
            continue
        if not ast.get_docstring(node):
            yield node.lineno, f"{node.name} has no docstring"


def missing_examples(tree: ast.Module) -> Iterator[Place]:
    """Public functions without an example; one that is run is tested in `test_examples`."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or not is_public(node.name):
            continue
        if ">>>" not in (ast.get_docstring(node) or ""):
            yield node.lineno, f"{node.name} has no example"


def public_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What a file defines for others, by name and line: functions, classes, constants."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found = [node.name]
        elif isinstance(node, ast.Assign):
            inside = (child for target in node.targets for child in ast.walk(target))
            found = [
                child.id
                for child in inside
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)
            ]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found = [node.target.id]
        else:
            continue
        yield from ((name, node.lineno) for name in found if is_public(name))


RULES: dict[str, Callable[[ast.Module], Iterator[Place]]] = {
    rule.__name__: rule
    for rule in (
        nested_conditionals,
        calls_in_tuple_assignments,
        bare_tuples,
        stored_lambdas,
        truth_used_as_value,
        long_functions,
        missing_docstrings,
    )
}
