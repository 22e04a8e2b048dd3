"""How finely the code is cut, and whether names mean one thing: `python -m tests.test_shape` prints the figures."""

from __future__ import annotations

import ast
import statistics
from collections import Counter
from collections.abc import Iterator

from tests.test_architecture import MODULES

MOST_HELPERS = 0.10  # share of functions that are private and have one caller
MOST_LINES, MOST_AT_90 = 30, 13  # of a body without its docstring: the longest, and nine in ten

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    """Those of a module and the methods of its classes; not those within functions."""
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        yield from (item for item in inside if isinstance(item, Function))


def body_lines(function: Function) -> int:
    """Of a body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def mentions(tree: ast.Module) -> Counter[str]:
    """How often a name is used, as a variable or as an attribute."""
    used = (node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute))
    return Counter(node.id if isinstance(node, ast.Name) else node.attr for node in used)


def overridden() -> set[str]:
    """Names of methods that classes replace, which are parts of an interface."""
    return {
        function.name
        for tree in MODULES.values()
        for function in functions(tree)
        if any(isinstance(part, ast.Name) and part.id in ("override", "abstractmethod") for part in function.decorator_list)
    }


def helpers() -> list[str]:
    """Private functions and methods that one place calls."""
    private = [
        (name, function.name, mentions(tree))
        for name, tree in MODULES.items()
        for function in functions(tree)
        if function.name.startswith("_") and not function.name.endswith("__") and not function.decorator_list
    ]
    return [f"{name}.{function}" for name, function, used in private if used[function] == 1 and function not in overridden()]


def collisions() -> list[str]:
    """Names of classes, and of modules, that there are two of; a package and a command beside it are one thing."""
    classes = Counter(node.name for tree in MODULES.values() for node in tree.body if isinstance(node, ast.ClassDef))
    return sorted(name for name, count in classes.items() if count > 1)


ALL = [(f"{name}.{function.name}", body_lines(function)) for name, tree in MODULES.items() for function in functions(tree)]


def figures() -> dict[str, float]:
    """What the tests below limit."""
    lines = sorted(count for _, count in ALL)
    return {
        "functions": len(ALL),
        "one_caller_share": len(helpers()) / len(ALL),
        "lines_p90": statistics.quantiles(lines, n=10)[-1],
        "lines_max": lines[-1],
        "class_name_collisions": len(collisions()),
    }


def test_code_is_not_cut_into_crumbs() -> None:
    assert figures()["one_caller_share"] <= MOST_HELPERS, helpers()


def test_bodies_are_short() -> None:
    assert figures()["lines_p90"] <= MOST_AT_90
    assert [name for name, count in ALL if count > MOST_LINES] == []


def test_no_two_classes_have_one_name() -> None:
    assert collisions() == []


if __name__ == "__main__":
    for name, value in figures().items():
        print(f"{name}: {value:.3g}")
    print("\n".join([*helpers(), "", *collisions(), "", *(f"{name} {count}" for name, count in ALL if count > MOST_AT_90)]))
