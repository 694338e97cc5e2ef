"""Every public callable, with one wrong argument at a time: each is refused by its name.

The calls are in fuzz_subjects.py, the wrong values in wrong_values.toml. A refusal is a ValueError
or TypeError whose text begins with the argument's name, before anything is drawn or changed (area
ARG). Not tested here: the rest of the text, two wrong arguments at once, rates, keys and offsets
whose value only a device knows.
"""

import inspect
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from droppath_flax import linen
from droppath_torch import DropPath

HERE = Path(__file__).parent
TABLES = tomllib.loads((HERE / "wrong_values.toml").read_text(encoding="utf-8"))
CALLS = runpy.run_path(str(HERE / "fuzz_subjects.py"))  # tests is no package
Subject, SUBJECTS, PACKAGES = CALLS["Subject"], CALLS["SUBJECTS"], CALLS["PACKAGES"]
NAMES = {"np": np, "torch": torch, "jax": jax, "jnp": jnp, "nnx": nnx, "DropPath": DropPath}
NAMES |= PACKAGES | {"nan": float("nan"), "inf": float("inf")}

NAMED = {  # beginnings that name the argument too, beside another that may be the wrong one
    "axis": r"(axis|(x|dy) must have the batch axis)\b",
    "end": r"(end|begin must be at most end)\b",
    "rng_collection": r"(rng_collection|rngs)\b",
}

# (callables, argument, value, why it is accepted, or not named), each as a pattern. One that a
# refusal by name has made stale fails.
NNX = "nnx refuses an array where it held none, at the assignment"
EXCEPTIONS = [
    ("droppath.keep_mask", "drop_prob", "np.array([[]0.1, 0.2])", "one mask for each rate"),
    ("droppath.keep_mask", "drop_prob", "np.array([[]])", "no mask for no rate"),
    ("droppath_torch.convert", "mode", "None", "each layer keeps its own"),
    *(("droppath_flax.* assigned to", "*", f"np.{made}(*", NNX) for made in ("array", "ones")),
]


def values(kinds: str, package: str, tables: dict[str, Any] = TABLES) -> list[str]:
    """The values of these tables for a package, each as the Python that makes it."""
    found = [tables.get(kind, {}) for kind in kinds.split()]
    texts = "\n".join(table.get(part, "") for table in found for part in ("any", package))
    return [text.strip() for text in re.split(r"[;\n]", texts) if text.strip()]


def arguments_with(one: Subject, argument: str, text: str) -> dict[str, Any]:
    given = one.right | {argument: eval(text, dict(NAMES))}
    if argument in ("keep", "generator") and "key" in given:
        given["key"] = None  # else both are given, or the generator is not used
    return given


def answer(call: Callable[[], object], argument: str) -> str:
    """What is wrong with the answer to a wrong argument: nothing if it is refused by name."""
    try:
        call()
    except Exception as error:
        named = re.match(NAMED.get(argument, rf"{argument}\b"), str(error))
        if named and isinstance(error, ValueError | TypeError):
            return ""
        return f"{type(error).__name__}: {error}".split("\n")[0][:100]
    return "accepted"


def generators() -> tuple[object, ...]:
    """The state of the generators that the frameworks share with their users."""
    _, words, *places = np.random.get_state()  # noqa: NPY002 - the global one is what is watched
    return torch.get_rng_state().numpy().tobytes(), words.tobytes(), *places


def offences(one: Subject, package: str) -> dict[str, dict[str, str]]:
    """What happens, by argument and value, where a wrong value is not refused by name."""
    found: dict[str, dict[str, str]] = {}
    for argument, kinds in one.kinds.items():
        for text in values(kinds, package):
            given = arguments_with(one, argument, text)
            before = generators(), one.state()
            what = answer(partial(one.call, **given), argument)
            late = text.startswith("lambda")  # what a branch returns is known after the draw
            if not (what or late) and (generators(), one.state()) != before:
                what = "refused, after something was drawn or changed"
            if what:
                found.setdefault(argument, {})[text] = what
    return found


def without_exceptions(name: str, found: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The offences that no exception explains, and the exceptions that explain none."""
    left: dict[str, dict[str, str]] = {}
    for argument, kinds in SUBJECTS[name].kinds.items():
        for text in values(kinds, name.split(".")[0]):
            what = found.get(argument, {}).get(text, "")
            if any(all(map(fnmatchcase, (name, argument, text), e)) for e in EXCEPTIONS):
                what = "" if what else "refused by name: its exception is stale"
            if what:
                left.setdefault(argument, {})[text] = what
    return left


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_bad_argument_is_refused_by_name(name):
    found = without_exceptions(name, offences(SUBJECTS[name], name.split(".")[0]))
    listed = [f"{a}={text}: {what}" for a, whats in found.items() for text, what in whats.items()]
    assert found == {}, "\n".join([f"{name} with", *listed])


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_right_argument_is_accepted(name):
    one, package, refused = SUBJECTS[name], name.split(".")[0], {}
    one.call(**one.right)
    for argument, kinds in one.kinds.items():
        for text in values(kinds, package, TABLES["right"]):
            what = answer(partial(one.call, **arguments_with(one, argument, text)), "")
            if what != "accepted":
                refused[argument, text] = what
    assert refused == {}


def parameters(f: Callable[..., object]) -> set[str]:
    return {*inspect.signature(f).parameters} - {"self", "options", "args", "kwargs", "example"}


def test_every_argument_of_every_public_callable_is_tried():
    tried: dict[str, set[str]] = {}
    for name, one in SUBJECTS.items():
        tried.setdefault(name.split(" ")[0], set()).update(one.kinds)
    public = {
        f"{name}.{f}": getattr(m, f)
        for name, m in PACKAGES.items()
        for f in m.__all__
        if f != "__version__"
    }
    public |= {
        f"droppath_flax.linen.{f}": getattr(linen, f) for f in ("DropPath", "DropPathResidual")
    }
    for name, f in public.items():
        wanted = parameters(f)
        if inspect.isclass(f):
            wanted |= parameters(f.forward if hasattr(f, "forward") else f.__call__)
        others = {"parent", "name", "example", "keywords"}  # Linen's own, and those of a model
        assert wanted - tried[name] - others == set(), name


def test_every_exception_and_every_table_is_used():
    pairs = {
        (name, argument, text)
        for name, one in SUBJECTS.items()
        for argument, kinds in one.kinds.items()
        for text in values(kinds, name.split(".")[0])
    }
    assert len(pairs) > 6000
    for exception in EXCEPTIONS:
        assert any(all(map(fnmatchcase, pair, exception)) for pair in pairs), exception
    kinds = {
        kind for one in SUBJECTS.values() for text in one.kinds.values() for kind in text.split()
    }
    assert kinds == {*TABLES} - {"right"}


def accept(**given):
    pass


def refuse(text, kind=ValueError, draw=False):
    """Return a wrong function, or a right one, that refuses None with this text."""

    def f(argument=0):
        if draw and argument is None:
            torch.rand(1)
        if argument is None:
            raise kind(text)

    return f


@pytest.mark.parametrize(
    ("f", "what"),
    [
        (accept, "accepted"),
        (refuse("the argument must be a number"), "ValueError: the argument must be a number"),
        (refuse("arguments must be two"), "ValueError: arguments must be two"),
        (refuse("argument must be", IndexError), "IndexError: argument must be"),
        (refuse("argument must be", draw=True), "refused, after something was drawn or changed"),
        (refuse("argument must be"), None),
        (refuse("argument must be", TypeError), None),
    ],
)
def test_what_is_not_refused_by_name_is_found(f, what):
    one = Subject(f, {}, {"argument": "none"}, lambda: None)
    assert offences(one, "droppath") == ({"argument": {"None": what}} if what else {})


def test_an_exception_explains_what_it_names_and_a_stale_one_is_found():
    name, values = "droppath.keep_mask", ("np.array([0.1, 0.2])", "np.array([])")
    found = {"drop_prob": dict.fromkeys([*values, "nan"], "accepted")}
    assert without_exceptions(name, found) == {"drop_prob": {"nan": "accepted"}}
    stale = dict.fromkeys(values, "refused by name: its exception is stale")
    assert without_exceptions(name, {}) == {"drop_prob": stale}


def try_no_memory_holds(package: str) -> None:
    """Print what a keep_mask of 2**62 rows, for which no machine has memory, answers."""
    for name, one in SUBJECTS.items():
        for mode in ("row", "balanced", "batch"):
            if name.startswith(f"{package}.keep_mask"):
                call = partial(one.call, **one.right | {"batch": 2**62, "mode": mode})
                print(f"{name}, {mode}:", flush=True)
                print(answer(call, "batch") or "refused by name", flush=True)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_batch_that_no_memory_holds_is_refused_by_name(package):
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['try_no_memory_holds'](sys.argv[2])"
    command = [sys.executable, "-c", code, __file__, package]  # apart: it may end the process
    run = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert lines
    answers = dict(zip(lines[::2], [*lines[1::2], f"exit status {run.returncode}"], strict=False))
    assert answers == dict.fromkeys(lines[::2], "refused by name")
    assert run.returncode == 0
