"""dvc.yaml names the folders that each stage imports from, so that an edit reruns what it affects and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.workspace import ROOT

STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
SOURCES = [*ROOT.glob("vae/**/*.py"), *ROOT.glob("pipeline/**/*.py")]

# tracking only shows what the stages made; it cannot affect their bytes
EXCEPTED = "pipeline/tracking/"

# imported inside a function, and by no stage that calls that function without importing it at its top as well
INSIDE_FUNCTIONS = {("vae/model/latent_model.py", "vae.evidence")}

LOADED = """
import contextlib, importlib, pathlib, runpy, sys
stage, root = sys.argv.pop(), pathlib.Path.cwd()
sys.argv.append("--help")
with contextlib.suppress(SystemExit):
    runpy.run_module(f"pipeline.{stage}", run_name="__main__")
assert not {"numpy", "pandas", "torch", "pydantic"} & set(sys.modules), "to ask for help loads libraries"
importlib.import_module(f"pipeline.stages.{stage}")
loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())} - {None}
files = {pathlib.Path(file) for file in loaded} | {root / f"pipeline/{stage}.py"}
for file in files:
    if file.is_relative_to(root) and file.relative_to(root).parts[0] in ("pipeline", "vae"):
        print(file.relative_to(root).as_posix(), file=sys.stderr)
"""


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_imports(stage: str) -> None:
    """All imports lie inside what is declared, and of each folder something is imported.

    And a stage that is asked for help says what it writes, and loads nothing more.
    """
    done = subprocess.run([sys.executable, "-c", LOADED, stage], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {file for file in done.stderr.split() if not file.startswith(EXCEPTED)}
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("pipeline/", "vae/"))}
    inside = {dep: {file for file in loaded if Path(file).is_relative_to(dep)} for dep in declared}
    assert loaded == set().union(*inside.values())
    assert [dep for dep, files in inside.items() if not files] == []
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
