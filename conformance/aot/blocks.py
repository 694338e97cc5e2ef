"""Single blocks to compile: an MLP branch in each mode, forward and backward, and what they are of.

Four such layers in a scan too, of which a plan runs three. The batch is split among the devices, a
group on each; the weights lie on all of them.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import P
from jax.sharding import AxisType, Mesh, NamedSharding

import droppath
from conformance.aot.program import Program
from conformance.aot.targets import Target
from droppath_flax import drop_path, drop_path_residual, drop_path_stack, keep_mask

SHARE, TOKENS, WIDTH = 96, 256, 512  # of a device, of a sample: more than a TPU holds on its chip
DROP_PROB = 0.4
ROWS = droppath.kept_capacity(DROP_PROB, SHARE) / SHARE  # 58 of 96
CONTRARY = "balanced, groups=1"  # what not to do: rows travel between devices
FEW = 8  # devices, on whose memory what not to do finds room

RATES = [0.25] * 4  # of a stack
PLANNED = droppath.planned_depth(RATES) / len(RATES)  # 3 of 4

Array = jax.Array
Weights = tuple[Array, Array]


def blocks(devices: int) -> Iterator[Program]:
    """Yield the programs for so many devices."""
    balanced: dict[str, Any] = {"mode": "balanced", "groups": devices}
    for options in ({"mode": "row"}, balanced, {"mode": "batch"}):
        for name, run in (("keep_mask", mask), ("drop_path", op)):
            lowering = partial(lower, partial(run, **options))
            yield Program(f"{name} {options['mode']}", lowering, SHARE)
    yield _of_block("dense", partial(block, plain))
    for name, options in (
        ("masked", balanced | {"skip": False}),
        ("row", {"mode": "row"}),
        ("balanced", balanced),
        ("balanced, Explicit", balanced),
        ("batch", {"mode": "batch"}),
        ("batch, Explicit", {"mode": "batch"}),
        (CONTRARY, {"mode": "balanced"}),
    ):
        if name == CONTRARY and devices > FEW:
            continue
        yield _of_block(name, partial(block, partial(residual, **options)))
    yield _of_stack("stack, all layers", {"deterministic": True})
    yield _of_stack("stack, a plan", {}, PLANNED)


def _of_stack(name: str, options: dict[str, Any], rows: float | None = None) -> Program:
    run = partial(block, partial(stack, **options))
    full = "stack, all layers"
    lowering = partial(lower, run, layers=(len(RATES),))
    return Program(name, lowering, SHARE, full, full if rows else None, rows, loops=True)


def _of_block(name: str, run: Callable[..., Any]) -> Program:
    axes = AxisType.Explicit if name.endswith("Explicit") else AxisType.Auto
    rows = ROWS if name.startswith("balanced") else None
    masked = "masked" if name.startswith(("balanced", "batch")) else None
    return Program(name, partial(lower, run, axes=axes), SHARE, "dense", masked, rows)


def lower(
    run: Callable[..., Any],
    target: Target,
    axes: AxisType = AxisType.Auto,
    layers: tuple[int, ...] = (),
) -> Any:
    """Return the program of run(x, weights, dy, key) for a target, not yet compiled.

    layers: the axis of the weights in front, if there are several layers.
    """
    mesh = target.mesh(axes)

    def array(dtype: Any, *shape: int, split: bool = False) -> jax.ShapeDtypeStruct:
        place = NamedSharding(mesh, P("data") if split else P())
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    x = array(jnp.bfloat16, SHARE * mesh.size, TOKENS, WIDTH, split=True)
    up, down = (*layers, WIDTH, 4 * WIDTH), (*layers, 4 * WIDTH, WIDTH)
    weights = array(jnp.float32, *up), array(jnp.float32, *down)
    args = x, weights, x, array(jnp.uint32, 2)
    auto = jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
    with auto if axes == AxisType.Auto else jax.set_mesh(mesh):
        places = jax.tree.map(partial(_place, mesh), jax.eval_shape(run, *args))
        return jax.jit(run, out_shardings=places).lower(*args)


def _place(mesh: Mesh, result: jax.ShapeDtypeStruct) -> NamedSharding:
    """Where a result lies: with its part of the batch, if it has one, else on all devices."""
    return NamedSharding(mesh, P("data") if result.shape[0] == SHARE * mesh.size else P())


def mask(x: Array, weights: Weights, dy: Array, key: Array, **options: Any) -> Array:
    return keep_mask(key, DROP_PROB, len(x), **options)


def op(x: Array, weights: Weights, dy: Array, key: Array, **options: Any) -> Any:
    y, vjp = jax.vjp(lambda x: drop_path(x, DROP_PROB, key=key, **options), x)
    return y, vjp(dy)


def block(way: Callable[..., Array], x: Array, weights: Weights, dy: Array, key: Array) -> Any:
    y, vjp = jax.vjp(lambda x, weights: way(x, weights, key), x, weights)
    return y, vjp(dy)


def plain(x: Array, weights: Weights, key: Array) -> Array:
    return x + mlp(weights, x)


def residual(x: Array, weights: Weights, key: Array, **options: Any) -> Array:
    return drop_path_residual(x, partial(mlp, weights), DROP_PROB, key=key, **options)


def stack(x: Array, weights: Weights, key: Array, **options: Any) -> Array:
    return drop_path_stack(x, mlp, weights, RATES, key=key, **options)


def mlp(weights: Weights, x: Array) -> Array:
    up, down = (w.astype(x.dtype) for w in weights)
    return jax.nn.gelu(x @ up) @ down
