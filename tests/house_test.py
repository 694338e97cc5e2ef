"""The house: no file too long to read, and two backends whose files of one name say the same.

Which file may import which is imports_test.py's. Not tested here: what a reader thinks of it.
"""

import ast
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    *("droppath", "droppath_torch", "droppath_flax"),
    *("conformance", "examples", "benchmarks", "tests", "website"),
)
LONGEST = 300  # lines: what a reader takes in without losing the thread; no file needs more


def lines_of(package: str) -> dict[str, int]:
    files = (ROOT / package).rglob("*.py")
    return {
        file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in files
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_is_longer_than_a_reader_can_take_in(package):
    lines = lines_of(package)
    assert lines
    assert {path: n for path, n in lines.items() if n > LONGEST} == {}


SPEC = (ROOT / "droppath/SPEC.md").read_text(encoding="utf-8")
CLAUSES = re.findall(r"^### ([A-Z]+-\d+)  ", SPEC, re.MULTILINE)
IN_BACKENDS = ("COMP", "DIST")  # NumPy has no compiler and no devices
NOT_IN_TORCH = {"DIST-2"}  # which droppath_torch does not claim: its ranks are processes


def code_of(package: str) -> str:
    files = [f for f in (ROOT / package).glob("*.py") if not f.name.endswith("_test.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_each_clause_stands_where_it_is_decided():
    assert len(CLAUSES) > 50
    reference = [c for c in CLAUSES if not c.startswith(IN_BACKENDS)]
    backends = [c for c in CLAUSES if c.startswith(IN_BACKENDS)]
    for package, clauses in (
        ("droppath", reference),
        ("droppath_torch", [c for c in backends if c not in NOT_IN_TORCH]),
        ("droppath_flax", backends),
    ):
        code = code_of(package)
        assert [c for c in clauses if not re.search(rf"{c}\b", code)] == [], package


ONLY = tomllib.loads((ROOT / "tests" / "one_backend_only.toml").read_text(encoding="utf-8"))


def definitions(source: str) -> list[str]:
    """The names that a file defines, in order: classes, functions, constants and aliases."""
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in dict.fromkeys(names) if name != "_"]  # once where overloaded


def shared(backend: str, name: str) -> list[str]:
    """The definitions of a file that the other backend has too; an exception must exist."""
    found = definitions((ROOT / backend / f"{name}.py").read_text(encoding="utf-8"))
    listed = ONLY[backend].get(name, {})
    assert not listed.keys() - set(found), f"{backend}/{name}.py lacks what is listed"
    return [each for each in found if each not in listed]


def names_of(backend: str) -> set[str]:
    return {file.stem for file in (ROOT / backend).glob("*.py") if not file.match("*_test.py")}


@pytest.mark.parametrize("name", sorted(names_of("droppath_torch") & names_of("droppath_flax")))
def test_files_of_one_name_define_the_same_things_in_the_same_order(name):
    assert shared("droppath_torch", name) == shared("droppath_flax", name)


# Arguments that one framework has and the other has not.
TORCH_ARGUMENTS = {
    "training",  # positional, as in torch.nn.functional
    "generator",  # JAX has keys alone
    "device",  # a JAX array goes where its users are
}
FLAX_ARGUMENTS = {"deterministic", "rng_collection", "rngs"}  # as nnx.Dropout has them


@pytest.mark.parametrize(
    "name",
    [
        *("keep_mask", "drop_path", "drop_path_residual", "DropPath", "DropPathResidual"),
        *("keyed", "set_drop_probs", "summary"),
    ],
)
def test_the_same_names_take_the_same_arguments_in_the_same_order(name):
    torch, flax = arguments_of("droppath_torch", name), arguments_of("droppath_flax", name)
    assert torch
    assert [a for a in torch if a not in TORCH_ARGUMENTS] == [
        a for a in flax if a not in FLAX_ARGUMENTS
    ]


def arguments_of(package: str, name: str) -> list[str]:
    made = getattr(importlib.import_module(package), name)
    return [*inspect.signature(made.__init__ if inspect.isclass(made) else made).parameters]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("A = 1\nB: int = 2\nclass C: ...\ndef d(): ...", ["A", "B", "C", "d"]),
        ("@f\ndef d(): ...", ["d"]),
        ("if x:\n    def d(): ...", []),
    ],
)
def test_definitions_are_those_of_the_file_itself(source, names):
    assert definitions(source) == names
