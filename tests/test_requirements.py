"""What is installed with the package and its extras, and what says so where it is missing."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import thalnet_mtl

PACKAGE = Path(thalnet_mtl.__file__).parent
TABLE = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = TABLE["project"]["optional-dependencies"]
GROUPS = {name: TABLE["dependency-groups"][name] for name in ("test", "docs")}
OF_EXTRAS = list(chain.from_iterable(EXTRAS.values()))
OF_ALL = [*TABLE["project"]["dependencies"], *OF_EXTRAS]
COMES_WITH = {"onnx_ir": "onnxscript", "triton": "torch"}  # another requirement
HOSTS = {"IPython"}  # imported only where the program runs in it


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = map(Requirement, lines)
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def test_every_requirement_has_a_lower_bound():
    lines = [*OF_ALL, *chain.from_iterable(GROUPS.values())]
    assert len(lines) > 40
    for line in lines:
        assert any(bound.operator == ">=" for bound in Requirement(line).specifier), line


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_tested_with_its_own_bounds(extra):
    group = requirements(GROUPS["docs" if extra == "docs" else "test"])
    for name, requirement in requirements(EXTRAS[extra]).items():
        assert str(group[name]) == str(requirement)


@pytest.mark.parametrize("extra", [extra for extra in EXTRAS if extra != "docs"])
def test_an_error_of_the_package_names_the_extra(extra):
    name = f"thalnet-mtl[{extra}]"
    assert any(name in path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))


def test_every_import_is_of_a_requirement_or_an_extra():
    declared = requirements(OF_ALL)
    homes, imported = packages_distributions(), set[str]()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            imported |= {name.partition(".")[0] for name in names}
    foreign = imported - sys.stdlib_module_names - {"thalnet_mtl"} - HOSTS
    assert {"torch", "einops", "optuna"} <= foreign
    undeclared = {
        name
        for name in foreign
        if not {canonicalize_name(home) for home in homes.get(COMES_WITH.get(name, name), [])}
        & declared.keys()
    }
    assert not undeclared


def test_versions_are_the_same_in_all_files():
    root = Path(__file__).parents[1]
    version = TABLE["project"]["version"]
    citation = root / "CITATION.cff"
    assert re.search(r"^version: (.*)$", citation.read_text(encoding="utf-8"), re.M)[1] == version
    minimum = next(r for r in TABLE["project"]["dependencies"] if r.startswith("torch>="))
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert f"PyTorch ≥ {minimum.removeprefix('torch>=')}" in readme
