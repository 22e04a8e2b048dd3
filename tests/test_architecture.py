"""The rooms: who imports whom, and how full a folder is."""

from __future__ import annotations

import ast
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.workspace import ROOT

FULLEST = 14  # modules in a folder; the commands, directly in pipeline/, are apart

# from the bottom up: a module imports from its own room and those before it
ORDER = [
    "vae",
    "vae.errors",
    "vae.options",
    "vae.settings",
    "vae.distributions",
    "vae.likelihoods",
    "vae.model",
    "vae.objectives",
    "vae.evidence",
    "vae.evidence.annealing",
    "vae.evidence.integration",
    "vae.evidence.verdict",
    "vae.training.fast",
    "vae.training.rows",
    "vae.training",
    "pipeline.base",
    "pipeline.tables",
    "pipeline.params",
    "pipeline.dvc",
    "pipeline.experiment",
    "pipeline.tracking",
    "pipeline.cluster",
    "pipeline.reading.formats",
    "pipeline.reading",
    "pipeline.model",
    "pipeline.scoring",
    "pipeline.evaluation",
    "pipeline.figures",
    "pipeline.foretelling",
    "pipeline.stages",
    "pipeline.history",
    "pipeline.recovery",
    "pipeline",
]
# `VAE.log_likelihood` and `vae.VAE` import what they are asked for when they are; a package shows what lies deeper in it
EXCEPTED = {("vae.model.latent_model", "vae.evidence"), ("vae", "*"), ("vae.evidence", "*")}
EXCEPTED |= {("pipeline.stages.job", "pipeline")}  # which says when the process began


def modules() -> dict[str, ast.Module]:
    """Of the project, by name; that of a package is of its __init__."""
    paths = [*ROOT.glob("vae/**/*.py"), *ROOT.glob("pipeline/**/*.py")]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: ast.parse(path.read_text()) for name, path in named.items()}


MODULES = modules()


def imports(name: str) -> set[str]:
    """What a module imports, in functions and for types too."""
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & MODULES.keys()) or {node.module}
    return found - {name}


GRAPH = {
    name: {other for other in imports(name) if (name, other) not in EXCEPTED and (name, "*") not in EXCEPTED}
    for name in MODULES
}


def room(name: str) -> str:
    """The longest of the rooms that a module lies in."""
    return max((place for place in ORDER if f"{name}.".startswith(f"{place}.")), key=len)


def test_no_files_import_each_other() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_no_room_imports_from_one_above() -> None:
    upwards = {
        (name, other)
        for name, others in GRAPH.items()
        for other in others
        if ORDER.index(room(other)) > ORDER.index(room(name))
    }
    assert upwards == set()


def test_no_folder_is_crowded() -> None:
    inside = Counter(name.rpartition(".")[0] for name in MODULES if name not in ("vae", "pipeline"))
    assert {folder: count for folder, count in inside.items() if count > FULLEST and folder != "pipeline"} == {}


def test_every_exception_is_one() -> None:
    assert {(name, other) for name, other in EXCEPTED if other != "*" and other not in imports(name)} == set()


def test_programs_that_stand_in_strings_import_what_there_is() -> None:
    """Benchmarks and tests run some in processes of their own, where neither ruff nor mypy looks."""
    imported = {
        (path.name, module, name)
        for path in (*ROOT.glob("benchmarks/*.py"), *ROOT.glob("tests/**/*.py"))
        for module, names in re.findall(r"\bfrom ((?:vae|pipeline)(?:\.\w+)*) import (\w+(?:, \w+)*)", path.read_text())
        for name in names.split(", ")
    }
    texts = {name: ast.unparse(tree) for name, tree in MODULES.items()}
    missing = {
        (path, module, name)
        for path, module, name in imported
        if f"{module}.{name}" not in MODULES and not re.search(rf"\b{name}\b", texts.get(module, ""))
    }
    assert missing == set()
