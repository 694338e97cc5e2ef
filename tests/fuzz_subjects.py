"""The calls of fuzz_test.py: for each public callable right arguments, and how each may be wrong.

A subject is named for what is called, `droppath_torch.DropPath called without a key`: the first
word is the public name. The wrong values are in wrong_values.toml. Not here: what must happen.
"""

import copy
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import droppath
import droppath_flax
import droppath_torch
from droppath_flax import linen

PACKAGES = {module.__name__: module for module in (droppath, droppath_torch, droppath_flax)}

FLAGS = "training", "scale_by_keep", "deterministic", "whole", "zero_gradients"
KINDS = {  # the tables of an argument's wrong values, where its name does not say them
    **dict.fromkeys(["mode", "scale_at", "rule", "shape"], "choice"),
    **dict.fromkeys(FLAGS, "flag none"),
    **dict.fromkeys(["drop_prob", "drop_path_rate"], "rate"),
    **dict.fromkeys(["seed", "data", "num"], "integer word"),
    **dict.fromkeys(["begin", "start", "stop"], "number single finite"),
    **dict.fromkeys(["branch", "branch_vjp"], "branch returns"),
    "axis": "integer index",
    "batch": "integer batch",
    "dy": "x",
    "end": "number single",
    "groups": "integer count divisor",
    "offset": "integer offset",
    "rng_collection": "name stream",
    "run": "keep",
    "step": "number",
}

KEY, B = droppath.key(3), 8
NUMPY, TORCH, JAX = np.ones((B, 3)), torch.ones(B, 3), jnp.ones((B, 3))
HALF, BALANCED = {"drop_prob": 0.5}, {"drop_prob": 0.5, "groups": 2, "mode": "balanced"}
EVALUATED = "x drop_prob keep mode scale_at axis"  # groups need not divide such a batch


class Subject(NamedTuple):
    """What is called, right arguments of it, the tables of each wrong one, and what stays."""

    call: Callable[..., object]
    right: dict[str, Any]
    kinds: dict[str, str]
    state: Callable[[], object]


SUBJECTS: dict[str, Subject] = {}


def subject(name, call, right, arguments, *, state=lambda: None, **kinds):
    """Add the subject of this name, whose `arguments` are those to give wrong."""
    SUBJECTS[name] = Subject(
        call, right, {a: kinds.get(a, KINDS.get(a, a)) for a in arguments.split()}, state
    )


def with_per_sample(f, *order):
    """Return f as a function of keywords: those of `order` are given by place, then per_sample."""

    def call(**arguments):
        places = [arguments.pop(name) for name in (*order, "per_sample") if name in arguments]
        return f(*places, **arguments)

    return call


def assigned(make, run):
    """Return a function that makes a module, assigns to its attributes, and runs it."""

    def call(**attributes):
        module = make()
        for name, value in attributes.items():
            setattr(module, name, value)
        run(module)

    return call


def add_numpy():
    subject("droppath.key", droppath.key, {"seed": 1}, "seed")
    subject("droppath.fold_in", droppath.fold_in, {"key": KEY, "data": 1}, "key data")
    subject("droppath.split", droppath.split, {"key": KEY}, "key num")
    subject("droppath.random_bits", droppath.random_bits, {"key": KEY, "num": 2}, "key num offset")
    capacity = {"drop_prob": 0.5, "batch": B}
    subject("droppath.kept_capacity", droppath.kept_capacity, capacity, "drop_prob batch groups")
    rates = droppath.drop_path_rates, {"drop_path_rate": 0.5, "depth": 3}
    subject("droppath.drop_path_rates", *rates, "drop_path_rate depth rule whole")
    for f, table in ((droppath.planned_depth, "plan"), (droppath.expected_depth, "blocks")):
        subject(f"droppath.{f.__name__}", f, {"rates": [0.1, 0.5]}, "rates", rates=table)
    ramp = {"step": 5, "begin": 0, "end": 10}
    subject("droppath.ramp", droppath.ramp, ramp, "step begin end start stop shape")
    options = " keep drop_prob training scale_by_keep scale_at axis"
    right = {"keep": np.ones(B, bool), **HALF}
    path, residual = {"keep": "keep none"}, right | {"per_sample": np.ones(B)}
    for suffix, x, branch in (("", "x", "branch"), ("_vjp", "dy", "branch_vjp")):
        name = f"drop_path{suffix}"
        f = with_per_sample(getattr(droppath, name), x)
        subject(f"droppath.{name}", f, {x: NUMPY} | right, x + options, **path)
        name = f"drop_path_residual{suffix}"
        f = with_per_sample(getattr(droppath, name), x, branch, "keep", "drop_prob")
        right_one = {x: NUMPY, branch: lambda x, *_: x} | residual
        names = f"{x} {branch} per_sample run{options}"
        subject(f"droppath.{name}", f, right_one, names, **path)


def add_masks():
    balanced = {"batch": B, **BALANCED}
    keys = {package: [KEY] for package in PACKAGES}
    keys["droppath_torch"] = [KEY, torch.tensor([0, 3])]
    for package, module in PACKAGES.items():
        for key in keys[package]:
            name = f"{package}.keep_mask" + (" of a tensor key" if key is not KEY else "")
            names = "key drop_prob batch mode groups offset"
            names += " device" if package == "droppath_torch" else ""
            kinds = {"key": "key none", "offset": "integer offset unaligned"}
            subject(name, module.keep_mask, {"key": key} | balanced, names, **kinds)
        plan, kinds = {"key": KEY, "rates": [0.1, 0.5]}, {"key": "key none", "rates": "plan"}
        subject(f"{package}.layer_plan", module.layer_plan, plan, "key rates", **kinds)


def add_stacks():
    kinds = {"rates": "plan", "plan": "runs", "branch": "branch", "depth": "integer"}
    flax = {"x": JAX, "branch": lambda w, x: w * x, "params": jnp.ones(2)}
    listed, own = {"x": TORCH, "branches": [operator.neg] * 2}, "branches training"
    for package, right, names in (
        ("droppath", listed | {"x": NUMPY}, own),
        ("droppath_torch", listed, f"{own} zero_gradients"),
        ("droppath_flax", flax, "branch params state deterministic"),
    ):
        name, f = f"{package}.drop_path_stack of a ", PACKAGES[package].drop_path_stack
        given, names = right | {"rates": [0.5] * 2}, f"x rates {names} scale_by_keep scale_at"
        subject(f"{name}plan", f, given | {"plan": np.ones(2, bool)}, f"plan {names}", **kinds)
        if package != "droppath":
            subject(f"{name}key", f, given | {"key": KEY}, f"key {names}", **kinds)
    data = given | {"key": KEY, "rates": jnp.full(2, 0.5), "depth": 1}
    subject("droppath_flax.drop_path_stack of data", f, data, "depth", **kinds)
    layers = droppath_flax.stack_layers, {"layers": [{"w": np.ones(2)}, {"w": np.zeros(2)}]}
    subject("droppath_flax.stack_layers", *layers, "layers", layers="forms")


def add_torch_functions():
    options = "x drop_prob training keep mode scale_by_keep scale_at axis groups offset"
    f = droppath_torch.drop_path_residual
    block = with_per_sample(f, "x", "branch", "drop_prob", "training")
    branch = {"branch": lambda x, *_: x, "per_sample": torch.ones(B)}
    aligned = {"offset": "integer offset unaligned"}
    for name, names, given in (
        ("of a key", f"{options} key", {"key": KEY}),
        ("of a generator", f"{options} generator", {}),
        ("in evaluation", EVALUATED, {"training": False}),
    ):
        given = {"x": TORCH, "training": True, **given}
        f = droppath_torch.drop_path
        subject(f"droppath_torch.drop_path {name}", f, given | HALF, names)
        name, names = f"droppath_torch.drop_path_residual {name}", f"{names} branch per_sample skip"
        subject(name, block, given | BALANCED | branch, names, **aligned)


def add_torch_modules():
    made = "drop_prob scale_by_keep mode scale_at axis groups generator"
    attributes = {"axis": "integer", "groups": "integer count", "branch": "branch"}
    path, block = droppath_torch.DropPath, droppath_torch.DropPathResidual
    subject("droppath_torch.DropPath", path, {}, made, **attributes)
    names = f"{made} branch skip"
    subject("droppath_torch.DropPathResidual", block, {"branch": torch.neg}, names, **attributes)
    for name, make in (
        ("DropPath", partial(path, 0.5)),
        ("DropPathResidual", partial(block, lambda x, *_: x, 0.5)),
    ):
        call, right = with_per_sample(make(), "x"), {"x": TORCH}
        more = (" per_sample", {"per_sample": torch.ones(B)}) if "R" in name else ("", {})
        names = f"x key keep offset{more[0]}"
        subject(f"droppath_torch.{name} called", call, right | {"key": KEY} | more[1], names)
        subject(f"droppath_torch.{name} called without a key", call, right | more[1], names)
        attributes = made + (" branch skip" if "R" in name else "")
        f = assigned(make, lambda module: module(TORCH))
        subject(f"droppath_torch.{name} assigned to", f, {}, attributes)
        f = assigned(make, run_keyed)
        without = attributes.replace(" generator", "")  # keyed goes first
        subject(f"droppath_torch.{name} assigned to, in keyed", f, {}, without)


def run_keyed(model, key=KEY, offset=0, layers=None, x=TORCH, package=droppath_torch):
    with package.keyed(model, key, offset=offset, layers=layers):
        model(x)


def call_skip_dropped(x, model, undo):
    """Skip a copy's branches, since a model may be skipped once; or undo it."""
    package = droppath_flax if x is JAX else droppath_torch
    made, example = copy.deepcopy(model), [x]
    if isinstance(undo, bool | np.bool_) and undo:
        made, example = package.skip_dropped(made, x), []
    package.skip_dropped(made, *example, undo=undo)


def add_torch_models():
    def layers(model):
        return [m.__getstate__() for m in model.modules()]  # less what keyed leaves

    model = torch.nn.Sequential(*[droppath_torch.DropPath(0.5) for _ in range(3)])
    right, state = {"model": model, "key": KEY}, partial(layers, model)

    kinds, names = {"key": "key none", "model": "model no_droppath"}, "model key offset layers x"
    subject("droppath_torch.keyed", run_keyed, right, names, state=state, **kinds)
    right = {"model": model, "rates": 0.5}
    f, kinds = droppath_torch.set_drop_probs, {"model": "model no_droppath"}
    subject("droppath_torch.set_drop_probs", f, right, "model rates layers", state=state, **kinds)

    right = {"model": model, "undo": False}
    f = partial(call_skip_dropped, TORCH)
    kinds |= {"undo": "flag none"}
    subject("droppath_torch.skip_dropped", f, right, "model undo", state=state, **kinds)
    kinds = {"model": "model no_droppath", "mode": "choice"}
    right = {"model": model, "mode": "row"}
    subject("droppath_torch.convert", droppath_torch.convert, right, "model mode", **kinds)
    subject("droppath_torch.summary", droppath_torch.summary, {"model": model}, "model")


def add_flax_models():
    model = nnx.Sequential(*[droppath_flax.DropPath(0.5) for _ in range(3)])
    right, state = {"model": model, "key": KEY, "x": JAX}, partial(nnx.graphdef, model)
    kinds, names = {"key": "key none", "model": "model no_droppath"}, "model key offset layers x"
    f = partial(run_keyed, package=droppath_flax)
    subject("droppath_flax.keyed", f, right, names, state=state, **kinds)
    right, kinds = {"model": model, "rates": 0.5}, {"model": "model no_droppath"}
    f = droppath_flax.set_drop_probs
    subject("droppath_flax.set_drop_probs", f, right, "model rates layers", state=state, **kinds)
    subject("droppath_flax.summary", droppath_flax.summary, {"model": model}, "model")
    right, kinds = {"model": model, "undo": False}, kinds | {"undo": "flag none"}
    f = partial(call_skip_dropped, JAX)
    subject("droppath_flax.skip_dropped", f, right, "model undo", state=state, **kinds)


def add_flax_functions():
    options = "x drop_prob key keep deterministic mode scale_by_keep scale_at axis groups offset"
    block = with_per_sample(droppath_flax.drop_path_residual, "x", "branch", "drop_prob")
    branch = {"branch": lambda x, *_: x, "per_sample": jnp.ones(B)}
    needed, aligned = {"key": "key none"}, {"offset": "integer offset unaligned"}
    for name, names, given in (
        ("of a key", options, {"key": KEY}),
        ("in evaluation", EVALUATED, {"deterministic": True}),
    ):
        given, f = {"x": JAX, **given}, droppath_flax.drop_path
        subject(f"droppath_flax.drop_path {name}", f, given | HALF, names, **needed)
        name, names = f"droppath_flax.drop_path_residual {name}", f"{names} branch per_sample skip"
        subject(name, block, given | BALANCED | branch, names, **needed, **aligned)


def add_flax_modules():
    made = "drop_prob scale_by_keep mode scale_at axis groups deterministic rng_collection"
    kinds = {"axis": "integer", "groups": "integer count", "branch": "branch"}
    kinds |= {"rngs": "rngs no_keys"}
    rngs = {"rngs": nnx.Rngs(dropout=0)}
    for name, branch in (("DropPath", {}), ("DropPathResidual", {"branch": lambda x, *_: x})):
        more = " branch skip" if branch else ""
        make = getattr(droppath_flax, name)
        right = branch | rngs
        subject(f"droppath_flax.{name}", make, right, f"{made} rngs{more}", **kinds)
        twin = getattr(linen, name)
        flags = {"deterministic": "flag", "rng_collection": "name"}
        subject(f"droppath_flax.linen.{name}", twin, branch, made + more, **kinds | flags)
        add_flax_calls(name, partial(make, drop_prob=0.5, **right), partial(twin, **branch, **HALF))
        f = assigned(partial(make, drop_prob=0.5, **right), lambda module: module(JAX))
        late = {"rng_collection": "name"}  # the module has its stream
        subject(f"droppath_flax.{name} assigned to", f, {}, made + more, **late)


def add_flax_calls(name, make, twin):
    per_sample = {"per_sample": jnp.ones(B)} if "R" in name else {}
    names = " ".join(["x key keep offset deterministic", *per_sample])
    flags, module, right = {"deterministic": "flag"}, make(), {"x": JAX, **per_sample}

    def count():
        return int(module.rngs.count[...])

    call = with_per_sample(module, "x")
    subject(f"droppath_flax.{name} called", call, right | {"key": KEY}, names, **flags)
    rngs = {**flags, "rngs": "rngs keys", "state": count}
    subject(f"droppath_flax.{name} called without a key", call, right, f"{names} rngs", **rngs)
    call = with_per_sample(partial(twin().apply, {}), "x")
    subject(f"droppath_flax.linen.{name} called", call, right | {"key": KEY}, names, **flags)


ALL = add_numpy, add_masks, add_stacks, add_torch_functions, add_torch_modules, add_torch_models
for add in (*ALL, add_flax_functions, add_flax_modules, add_flax_models):
    add()
