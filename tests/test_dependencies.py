"""dvc.yaml names the folders that each stage imports from, so that an edit reruns what it affects and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.workspace import ROOT

STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
SOURCES = [*ROOT.glob("vae/**/*.py"), *ROOT.glob("pipeline/**/*.py")]

# tracking only shows what the stages made; it cannot affect their bytes
EXCEPTED = "pipeline.tracking"

# `from vae import VAE` loads what it is asked for, and no more
LAZILY = {"train": ("vae.training.vae",)}

# imported inside a function: estimators that a stage imports at its top if it calls them, a check that can only refuse, and
# torch, by a check that most often has nothing to foretell
INSIDE_FUNCTIONS = {
    ("vae/model/latent_model.py", "vae.evidence"),
    ("pipeline/stages/job.py", "pipeline.params.whole"),
    ("pipeline/check.py", "pipeline.foretelling.forecast"),
}

HELP = """
import contextlib, runpy, sys
with contextlib.suppress(SystemExit):
    runpy.run_module(f"pipeline.{sys.argv[1]}", alter_sys=True, run_name="__main__")
assert not {"numpy", "pandas", "torch", "pydantic"} & set(sys.modules), "to ask for help loads libraries"
"""


def file_of(module: str) -> str | None:
    """Of a module of the project, as dvc.yaml would name it."""
    path = ROOT / module.replace(".", "/")
    found = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
    return None if found is None else found.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    """The project's modules that are imported as a module is loaded: outside functions and TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("pipeline", "vae"):
            yield from (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))
        elif not isinstance(node, ast.FunctionDef) and "TYPE_CHECKING" not in ast.unparse(getattr(node, "test", ast.Pass())):
            yield from imported(node)


def loaded_with(*modules: str) -> set[str]:
    """The files that are run when modules are imported, but for what is excepted."""
    files, left = set[str](), [*modules]
    while left:
        module = left.pop()
        file = file_of(module)
        if file is not None and file not in files and not module.startswith(EXCEPTED):
            files.add(file)
            left += [
                *imported(ast.parse((ROOT / file).read_text())),
                *(".".join(folder.parts) for folder in Path(file).parents if folder.parts),
            ]
    return files


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_imports(stage: str) -> None:
    """All imports lie inside what is declared, and of each folder something is imported."""
    loaded = loaded_with(f"pipeline.{stage}", f"pipeline.stages.{stage}", *LAZILY.get(stage, ()))
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("pipeline/", "vae/"))}
    inside = {dep: {file for file in loaded if Path(file).is_relative_to(dep)} for dep in declared}
    assert loaded - set().union(*inside.values()) == set()
    assert [dep for dep, files in inside.items() if not files] == []


EDITS = {
    "pipeline/params/evaluate.py": {"evaluate"},
    "pipeline/params/generate.py": {"generate"},
    "pipeline/evaluation/report.py": {"evaluate"},
    "pipeline/reading/formats/text.py": {"prepare"},
    "pipeline/tracking/view.py": set(),
    "vae/evidence/verdict/rules.py": {"evaluate"},
    "vae/likelihoods/counts.py": {"train", "evaluate", "generate"},
    "vae/objectives/elbo.py": {"train"},
    "vae/options/registry.py": {"train", "evaluate", "generate"},
    "vae/settings.py": {"train"},
    "vae/training/fit.py": {"train"},
}


@pytest.mark.parametrize(("file", "stages"), EDITS.items())
def test_an_edit_runs_the_stages_again_that_it_concerns(file: str, stages: set[str]) -> None:
    """By themselves; those after them follow where outputs differ."""
    assert (ROOT / file).is_file()
    assert {name for name, stage in STAGES.items() if any(Path(file).is_relative_to(dep) for dep in stage["deps"])} == stages


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_asked_for_help_says_what_it_writes_and_loads_nothing(stage: str) -> None:
    command = [sys.executable, "-c", HELP, stage, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"python -m pipeline.{stage}" in done.stdout
    assert "Writes" in done.stdout


def test_imports_inside_functions_are_the_known_ones() -> None:
    """The test above sees imports at the top of modules; these are all the others of the project's own modules."""
    found = set()
    for path in SOURCES:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                imports = [node for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
                found |= {(path.relative_to(ROOT).as_posix(), node.module) for node in imports}
    assert {pair for pair in found if str(pair[1]).startswith(("vae", "pipeline"))} == INSIDE_FUNCTIONS


def test_the_library_knows_no_files_formats_or_trackers() -> None:
    """vae/ imports neither the pipeline nor pandas, dvc or mlflow."""
    for path in ROOT.glob("vae/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"pandas", "dvc", "mlflow", "pipeline"}, path
