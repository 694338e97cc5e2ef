"""The house: no file too long to read, and two backends whose files of one name say the same.

Which file may import which is imports_test.py's. Not tested here: what a reader thinks of it.
"""

import ast
import importlib
import inspect
import re
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


# What stands in one backend only, by file, with what the framework has to do with it.
TORCH_ONLY = {
    "masks": {
        "KEY_DTYPES": "PyTorch has no arithmetic on uint32, so that keys come in other dtypes",
        "LOW_WORD": "and words are held in int64",
        "Drawn": "keyed draws many layers at once, whose rates differ",
        "draw_on_device": "see Drawn",
        "counters": "PyTorch has no words of 32 bits, JAX has them built in",
        "_draw_device": "PyTorch may draw on the host or on a device",
        "check_words": "keyed holds a key of a device as it is",
        "rank": "sampling.py ranks torch's own draws by it",
        "keep_smallest": "see rank",
    },
    "functional": {"_keep_rows": "an eager CPU has a faster way than select"},
    "rows": {
        "HostRows": "eager PyTorch knows the mask on the host",
        "DeviceRows": "and does not otherwise; JAX has one case, Rows",
        "pick_host_rows": "see HostRows",
        "Remake": "see _TakeRows",
        "remade": "see _TakeRows",
        "_TakeRows": "a derivative is a class in PyTorch, functions in JAX",
        "_AddRows": "see _TakeRows",
        "_sum": "PyTorch's add takes the factor, so that it is written once",
        "_order": "PyTorch has memory layouts",
        "_in_order": "see _order",
        "_adds_in_place": "JAX has nothing in place",
        "_is_plain": "Triton kernels",
        "_needs_functions": "autograd records only what requires a gradient",
    },
    "foreign": {
        "PLACES": "libraries of PyTorch hold nn.Identity for a rate of 0",
        "is_place": "see PLACES",
        "FUNCTIONS": "and call functions, which draw from the global generator",
        "functions_of": "see FUNCTIONS",
        "_functions_of_class": "see FUNCTIONS",
    },
    "surgery": {
        "FORMS": "libraries of PyTorch have a DropPath that convert knows",
        "convert": "see FORMS",
        "_places": "see FORMS",
        "_ours": "see FORMS",
    },
    "residual": {
        "run_residual": "keyed has sent the rows of its masks ahead",
        "_draw_device": "PyTorch may draw on the host or on a device",
        "_all_or_none": "a branch that counts for nothing runs by DeviceRows",
        "_shape": "branches may return anything; in JAX an array is made of it",
    },
    "spread": {
        "_Take": "a derivative is a class in PyTorch, functions in JAX",
        "_Spread": "see _Take",
        "_scaled": "a rate may be a tensor here; in JAX rows.py's select has both cases",
        "_zeros": "PyTorch has memory layouts",
    },
    "hooks": {
        "Opens": "PyTorch's modules have hooks; NNX's calls go through hooked.py",
        "Closes": "see Opens",
        "unhook": "see Opens",
    },
    "branches": {
        "_hooked": "PyTorch's modules have hooks",
        "_shape_of": "JAX may be tracing: trial.py has more of it",
    },
    "trial": {
        "put_back": "PyTorch's model is run itself; in NNX a copy costs nothing",
        "FixedMasks": "keyed's place; a copy in NNX gets streams that repeat",
        "WithoutDropout": "PyTorch's functions drop out too; NNX has modules for it",
    },
    "proof": {
        "start_over": "a module of PyTorch keeps what a run drew; in JAX all is passed",
        "_grad": "and gradients are kept on tensors",
    },
}
FLAX_ONLY = {
    "plans": {
        "Rates": "the rates may be an array of JAX",
        "Stages": "see Rates",
        "_thresholds": "a program draws the plan; PyTorch's host does, by the reference",
        "_plan": "see _thresholds",
    },
    "masks": {
        "LOW_BITS": "JAX has no 64-bit integers unless asked: a product is formed in two words",
        "LARGEST_TRACED_GROUP": "see LOW_BITS",
        "_times_threshold": "see LOW_BITS",
        "_check_group_size": "see LOW_BITS",
        "Words": "and a counter is two words too",
        "_counter_words": "see Words",
        "_draw": "what an eager call draws is one program",
        "_check_indexable": "JAX has kinds of keys whose draws cannot be indexed",
    },
    "layers": {
        "dotted": "a path in NNX is a tuple",
        "drops_of": "a walk over NNX's modules is ours, and is made once",
        "check_module": "in PyTorch it stands with the other checks of arguments.py",
    },
    "summary": {
        "kind": "two sorts of lines name a class",
        "_rate": "a rate may be traced",
    },
    "functional": {"as_array": "JAX takes arrays of NumPy and lists"},
    "rows": {
        "_take": "a derivative is functions in JAX, a class in PyTorch",
        "_take_fwd": "see _take",
        "_take_bwd": "see _take",
        "_add_rows_fwd": "see _take",
        "_add_rows_bwd": "see _take",
        "_select": "an eager call is one program",
        "where": "see _select",
        "shards": "the type of an array may say how devices share it",
    },
    "residual": {
        "_capacity": "a program's number of rows is static",
        "_add_all": "XLA masks better without a gather",
        "_run": "both ways to run the branch share it",
    },
    "spread": {
        "_spread_fwd": "a derivative is functions in JAX, a class in PyTorch",
        "_spread_bwd": "see _spread_fwd",
    },
    "hooks": {
        "SKIPPED": "NNX copies modules at will: a block holds names, PyTorch's hooks hold modules",
        "Role": "see SKIPPED",
        "Skipped": "see SKIPPED",
        "skipped_of": "see SKIPPED",
        "module_at": "see SKIPPED",
        "Frame": "and what a call has begun is the call's, not the DropPath's",
        "named_arguments": "a block of NNX hands rngs and deterministic to its DropPath",
        "Run": "a hook of PyTorch does not run the module",
        "Array": "JAX takes arrays of NumPy",
    },
    "branches": {
        "INDEX": "a transform calls copies of modules",
        "RECORDED": "see INDEX",
        "HANDED": "a block of NNX hands rngs and deterministic to its DropPath",
        "_handed": "see HANDED",
        "_why_late": "see HANDED",
        "_is_array": "JAX takes arrays of NumPy",
    },
    "trial": {
        "copied": "PyTorch's model is run itself; in NNX a copy costs nothing",
        "_as_array": "see copied",
        "is_node": "NNX's modules are trees of arrays",
        "shown": "the arguments of a block may be traced",
        "stand_in": "see shown",
    },
    "proof": {
        "Results": "a program returns arrays alone, so that they get their names outside",
        "_numbered": "see Results",
        "inputs_of": "the inputs of a program are made once for all its runs",
        "Masked": "see inputs_of",
        "masked": "see inputs_of",
        "_split": "a program takes a graph and arrays",
        "_results": "and is compiled once for equal blocks",
        "_program": "see _results",
        "_see": "what a hook does in PyTorch",
        "_is_floating": "NNX splits by such functions",
        "_is_argument": "see _is_floating",
        "_floating": "torch.Tensor has a method for it",
        "_double": "a comparison on the host compiles nothing",
        "_why_all_rows": "a program may run all rows where eager PyTorch cannot",
    },
    "skipping": {"_drops": "a copy's DropPaths are known by their paths"},
}


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
    return [name for name in names if name != "_"]


def shared(backend: str, name: str, only: dict[str, dict[str, str]]) -> list[str]:
    """The definitions of a file that the other backend has too; an exception must exist."""
    found = definitions((ROOT / backend / f"{name}.py").read_text(encoding="utf-8"))
    listed = only.get(name, {})
    assert not listed.keys() - set(found), f"{backend}/{name}.py lacks what is listed"
    return [each for each in found if each not in listed]


def names_of(backend: str) -> set[str]:
    return {file.stem for file in (ROOT / backend).glob("*.py") if not file.match("*_test.py")}


@pytest.mark.parametrize("name", sorted(names_of("droppath_torch") & names_of("droppath_flax")))
def test_files_of_one_name_define_the_same_things_in_the_same_order(name):
    torch, flax = (
        shared("droppath_torch", name, TORCH_ONLY),
        shared("droppath_flax", name, FLAX_ONLY),
    )
    assert torch == flax


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
