"""Who may import whom: read from every import statement, wherever it stands, and tried at run time.

Tests are exempt, and so are imports by a computed name, which is how `conformance` loads adapters.
"""

import ast
import json
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]

SHARED = (
    "numpy droppath.arguments droppath.random droppath.masks droppath.scaling droppath.schedules"
    " droppath.plans droppath.layers droppath.places droppath.version"
)
BY_NAME = "-conformance.adapters -conformance.parity.torch -conformance.parity.flax"  # only so
MAY_IMPORT = {  # beside the standard library; the longest prefix of a file's path decides
    "droppath/": "numpy droppath",
    "droppath_torch/": f"{SHARED} torch triton droppath_torch",
    "droppath_flax/": f"{SHARED} jax flax droppath_flax",
    "conformance/": f"allpairspy numpy ml_dtypes jsonschema rich droppath conformance {BY_NAME}",
    "conformance/pytest_options.py": "pytest",
    "conformance/test_clauses.py": f"pytest droppath conformance {BY_NAME}",
    "conformance/make_golden/": "conformance.make_golden",
    "conformance/parity/plot.py": f"numpy matplotlib conformance {BY_NAME}",
    "conformance/parity/torch.py": f"torch droppath droppath_torch conformance {BY_NAME}",
    "conformance/parity/flax.py": f"jax flax optax droppath droppath_flax conformance {BY_NAME}",
    "conformance/aot/": f"numpy jax rich droppath droppath_flax conformance {BY_NAME}",
    "conformance/aot/steps.py": f"numpy jax flax examples.train_flax conformance {BY_NAME}",
    "conformance/adapters/": "*",
    "benchmarks/": "numpy matplotlib rich droppath benchmarks",
    "benchmarks/torch_": "torch timm torchvision droppath droppath_torch benchmarks"
    " conformance.adapters.torch_module",  # it imports a torchvision of another build
    "benchmarks/models/torch_": "numpy torch timm torchvision droppath droppath_torch benchmarks"
    " conformance.adapters.torch_module",
    "benchmarks/flax_": "jax flax droppath_flax benchmarks",
    "examples/": "numpy jax flax optax orbax sklearn matplotlib rich tensorboardX filelock scipy"
    " droppath droppath_flax examples",
    "examples/train_torch.py": "numpy torch droppath droppath_torch"
    " examples.train_flax.config examples.train_flax.presets examples.train_flax.data",
    "examples/twins.py": "numpy jax flax torch matplotlib examples",
    "examples/ported_vit.py": "numpy jax flax optax torch timm sklearn droppath droppath_torch"
    " droppath_flax",
}


def imported(source: str, path: str) -> set[str]:
    """Every module imported, as `a.b`, and every name taken from one, as `a.b.name`."""
    package = PurePosixPath(path).parent.parts
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def is_within(name: str, modules: list[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def offences(source: str, path: str) -> set[str]:
    """The imports of a file at this path that its rule does not allow."""
    words = MAY_IMPORT[max(filter(path.startswith, MAY_IMPORT), key=len)].split()
    if words == ["*"]:
        return set()
    allowed = [*sys.stdlib_module_names, *(word for word in words if word[0] != "-")]
    denied = [word[1:] for word in words if word[0] == "-"]
    return {
        name
        for name in imported(source, path)
        if is_within(name, denied) or not is_within(name, allowed)
    }


@pytest.mark.parametrize("package", sorted({place.split("/")[0] for place in MAY_IMPORT}))
def test_every_file_imports_only_what_its_place_may(package):
    sources = {
        file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
        for file in (ROOT / package).rglob("*.py")
        if not file.name.endswith("_test.py")
    }
    assert sources
    found = {path: offences(source, path) for path, source in sources.items()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("path", "source", "offence"),
    [
        ("droppath/a.py", "import torch", "torch"),
        ("droppath/a.py", "def f():\n    import jax.numpy as jnp", "jax.numpy"),
        ("droppath/a.py", "if TYPE_CHECKING:\n    from flax import nnx", "flax.nnx"),
        ("droppath/a.py", "from droppath_torch import DropPath", "droppath_torch.DropPath"),
        ("droppath/a.py", "import conformance", "conformance"),
        ("droppath_torch/a.py", "import jax", "jax"),
        ("droppath_torch/a.py", "import droppath", "droppath"),
        ("droppath_torch/a.py", "from droppath import drop_path", "droppath.drop_path"),
        ("droppath_torch/a.py", "from droppath import reference as r", "droppath.reference"),
        ("droppath_torch/a.py", "import droppath.reference", "droppath.reference"),
        ("droppath_torch/b/a.py", "from ...droppath import reference", "droppath.reference"),
        ("droppath_torch/a.py", "from droppath_flax.masks import f", "droppath_flax.masks.f"),
        ("droppath_torch/a.py", "import conformance.clauses", "conformance.clauses"),
        ("droppath_flax/a.py", "import torch", "torch"),
        ("droppath_flax/a.py", "from droppath.reference import f", "droppath.reference.f"),
        ("droppath_flax/a.py", "import droppath_torch", "droppath_torch"),
        ("droppath_flax/a.py", "import conformance", "conformance"),
        ("conformance/a.py", "import torch", "torch"),
        ("conformance/a.py", "def f():\n    import jax", "jax"),
        ("conformance/a.py", "import droppath_flax", "droppath_flax"),
        ("conformance/a.py", "from .adapters import torch", "conformance.adapters.torch"),
        ("conformance/a.py", "from .parity.torch import train", "conformance.parity.torch.train"),
        ("conformance/parity/a.py", "from . import flax", "conformance.parity.flax"),
        ("conformance/parity/torch.py", "import jax", "jax"),
        ("conformance/parity/flax.py", "import torch", "torch"),
        ("conformance/aot/a.py", "import examples.train_flax.step", "examples.train_flax.step"),
        ("conformance/aot/a.py", "import torch", "torch"),
        ("conformance/make_golden/a.py", "import droppath.random", "droppath.random"),
        ("conformance/make_golden/a.py", "import numpy", "numpy"),
        ("conformance/make_golden/a.py", "from .. import golden", "conformance.golden"),
        ("benchmarks/a.py", "import torch", "torch"),
        ("benchmarks/flax_a.py", "import torch", "torch"),
        ("examples/a/b.py", "import torch", "torch"),
        ("examples/a/b.py", "import conformance", "conformance"),
    ],
)
def test_an_import_against_the_rules_is_found(path, source, offence):
    assert offences(source, path) == {offence}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("droppath/a.py", "import os.path, numpy\nfrom . import masks\nfrom .random import key"),
        ("droppath_torch/a.py", "import torch.nn\nfrom droppath.masks import keep_mask"),
        ("droppath_torch/a/b.py", "from ..masks import keep_mask\nfrom droppath import arguments"),
        ("droppath_flax/a.py", "import jax\nfrom flax import nnx\nfrom .masks import *"),
        ("conformance/a.py", "from . import clauses\nimport droppath.reference"),
        ("conformance/adapters/torch.py", "import torch, droppath_torch"),
        ("conformance/parity/torch.py", "import torch, droppath_torch"),
        ("examples/a/b.py", "from .model import Model\nimport droppath_flax, optax"),
    ],
)
def test_an_import_within_the_rules_is_not(path, source):
    assert offences(source, path) == set()


def imports_within(sources: dict[str, str]) -> dict[str, set[str]]:
    """The modules at these paths, each with those of them that it imports."""
    module_at = {
        path: path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in sources
    }
    modules = {*module_at.values()}
    return {
        module_at[path]: {
            name if name in modules else name.rpartition(".")[0] for name in imported(source, path)
        }
        & modules
        for path, source in sources.items()
    }


def test_no_module_imports_itself_by_way_of_others():
    sources = {
        file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
        for package in sorted({place.split("/")[0] for place in MAY_IMPORT})
        for file in (ROOT / package).rglob("*.py")
        if not file.name.endswith("_test.py")
    }
    graph = imports_within(sources)
    assert "conformance.check" in graph["conformance.clauses.mask"]
    assert "droppath_torch.rows" in graph["droppath_torch.residual"]
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "sources",
    [
        {"p/a.py": "from p.b import f", "p/b.py": "def f():\n    from . import a"},
        {"p/a.py": "from p import b", "p/b.py": "import p.c", "p/c.py": "from p.a import g"},
        {"p/q/__init__.py": "from p.q import a", "p/q/a.py": "from p.q import CONSTANT"},
    ],
)
def test_a_circle_of_imports_is_found(sources):
    with pytest.raises(CycleError):
        TopologicalSorter(imports_within(sources)).prepare()


def python(code: str) -> str:
    """What a fresh interpreter, started in the root, prints; it must succeed."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


FRAMEWORKS = {"torch", "jax", "jaxlib", "flax"}


@pytest.mark.parametrize(
    ("module", "loaded"),
    [
        ("droppath", set()),
        ("conformance", set()),
        ("droppath_torch", {"torch"}),
        ("droppath_flax", {"jax", "jaxlib", "flax"}),
    ],
)
def test_importing_a_package_loads_its_own_framework_only(module, loaded):
    names = json.loads(python(f"import json, sys, {module}; print(json.dumps([*sys.modules]))"))
    assert FRAMEWORKS & set(names) == loaded


def test_the_reference_conforms_where_no_framework_is_installed():
    absent = "".join(f"sys.modules[{name!r}] = None\n" for name in sorted(FRAMEWORKS))
    run = "sys.argv[1:] = ['reference']\nrunpy.run_module('conformance', run_name='__main__')"
    with pytest.raises(subprocess.CalledProcessError, match="non-zero exit status 1"):
        python(f"import sys\n{absent}import torch")  # the absence is real
    assert "conforms" in python(f"import runpy, sys\n{absent}{run}")


# The rooms of the picture in docs/architecture.md: which files each holds.
ROOMS = {
    "droppath": "droppath/",
    "torch": "droppath_torch/",
    "flax": "droppath_flax/",
    "suite": "conformance/",
    "clauses": "conformance/clauses/",
    "adapters": "conformance/adapters/",
    "parity": "conformance/parity/",
    "aot": "conformance/aot/",
    "golden": "conformance/make_golden/",
    "examples": "examples/",
    "benchmarks": "benchmarks/",
}


def room_of(path: str) -> str:
    return max(
        (room for room in ROOMS if path.startswith(ROOMS[room])), key=lambda r: len(ROOMS[r])
    )


def arrows_of_the_code() -> set[tuple[str, str]]:
    """(room, room that it imports), from every import statement but those of tests."""
    arrows = set()
    for package in sorted({place.split("/")[0] for place in MAY_IMPORT}):
        for file in (ROOT / package).rglob("*.py"):
            path = file.relative_to(ROOT).as_posix()
            for name in (
                () if path.endswith("_test.py") else imported(file.read_text("utf-8"), path)
            ):
                target = name.replace(".", "/") + "/"
                if any(target.startswith(place) for place in ROOMS.values()):
                    arrows.add((room_of(path), room_of(target)))
    return {(one, other) for one, other in arrows if one != other}


def test_the_picture_in_the_docs_has_the_arrows_of_the_code():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    picture = re.search(r"```mermaid\n(.*?)```", text, re.DOTALL)[1]
    drawn = {
        (a, b) for a, b in re.findall(r"^ *(\w+)(?:\[.*?\])? --> (\w+)", picture, re.MULTILINE)
    }
    code = arrows_of_the_code()
    assert drawn - code == set()
    left_out = {room for _, room in code - drawn}  # what nearly every room imports
    assert left_out <= {"droppath", "suite"}
