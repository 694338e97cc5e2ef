"""The blocks in Flax NNX, and a forward and backward of a stack of them, compiled by jax.jit."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from math import isqrt
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.cases import METHODS, WHOLE_LAYERS, Block, Case
from benchmarks.flax_methods import ABSENT, Layer, op, realised_rate, residual
from benchmarks.measure import Step
from droppath_flax import drop_path_stack

KEYS = 64  # that the steps use by turns


class FlaxSetup:
    """JAX on "cpu" in float32 or "cuda" in bfloat16; see `benchmarks.measure.Setup`.

    Memory: what XLA sets aside for a step besides its arguments and results.
    """

    name = "flax"

    def __init__(self, device: str) -> None:
        platform = jax.default_backend()
        if (platform == "cpu") != (device == "cpu"):
            raise RuntimeError(f"JAX computes on {platform}")
        self.device = device if device == "cpu" else jax.devices()[0].device_kind
        self.dtype = jnp.dtype(jnp.float32 if device == "cpu" else jnp.bfloat16)

    def labels(self, block: Block) -> Mapping[str, str]:
        """Return the methods of a block: "op" has those with a plain op."""
        absent = {*ABSENT, "plan"} | ({"dinov2"} if block == "op" else set())
        absent = METHODS.keys() - WHOLE_LAYERS if block == "decoder" else absent
        labels = METHODS | ({"none": "copy"} if block == "op" else {})
        return {method: label for method, label in labels.items() if method not in absent}

    def prepare(self, case: Case, method: str) -> Step:
        """Return the step of a method, compiled and run once."""
        model = Decoders if case.block == "decoder" else Stack
        graph, state = nnx.split(model(case, method, self.dtype))
        x, dy = jax.random.normal(jax.random.key(0), (2, *_shape(case)), self.dtype)
        keys = jax.random.split(jax.random.key(1), KEYS)

        @jax.jit
        def both(state: Any, x: jax.Array, dy: jax.Array, key: jax.Array) -> Any:
            y, pull = jax.vjp(lambda state, x: nnx.merge(graph, state)(x, key), state, x)
            return y, pull(dy)

        program = both.lower(state, x, dy, keys[0]).compile()
        following = cycle(list(keys))

        def run() -> None:
            jax.block_until_ready(program(state, x, dy, next(following)))

        run()
        analysis = program.memory_analysis()
        return Step(run, analysis.temp_size_in_bytes if analysis else 0)

    def realised_rate(self, method: str, drop_prob: float, batch: int, draws: int) -> float:
        """Return the share of samples dropped."""
        return realised_rate(method, drop_prob, batch, draws)


class Stack(nnx.Module):
    """Layers one after the other, the l-th with fold_in(key, l)."""

    def __init__(self, case: Case, method: str, dtype: Any) -> None:
        self.layers = nnx.List(layers(case, method, dtype))

    def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
        for index, layer in enumerate(self.layers):
            x = layer(x, key=jax.random.fold_in(key, index))
        return x


class Decoders(nnx.Module):
    """Decoder layers of stacked parameters, which a scan runs."""

    def __init__(self, case: Case, method: str, dtype: Any) -> None:
        self.method, self.rates, depth = method, tuple(case.rates), case.depth

        @nnx.split_rngs(splits=depth)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(rngs: nnx.Rngs) -> Decoder:
            return Decoder(case.width, dtype, rngs)

        self.layers = make(nnx.Rngs(0))

    def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
        graph, params = nnx.split(self.layers)

        def branch(params: Any, x: jax.Array) -> jax.Array:
            return nnx.merge(graph, params)(x)

        if self.method == "plan":
            return drop_path_stack(x, branch, params, self.rates, key=key)

        def layer(x: jax.Array, given: Any) -> tuple[jax.Array, None]:
            index, params, p = given
            add = residual(self.method, partial(branch, params), p)
            return add(x, key=jax.random.fold_in(key, index)), None

        indices = jnp.arange(len(self.rates))
        return jax.lax.scan(layer, x, (indices, params, jnp.array(self.rates)))[0]


def layers(case: Case, method: str, dtype: Any) -> list[Layer]:
    """Return the blocks of a case, or the plain op."""
    if case.block == "op":
        return [op(method, case.drop_prob)]
    branches: list[Callable[..., Any]] = [Attention, Mlp] if case.block == "vit" else [Convolutions]
    rngs = nnx.Rngs(0)
    made = [branch(case.width, dtype, rngs) for _ in range(case.depth) for branch in branches]
    return [residual(method, branch, case.drop_prob) for branch in made]


class Attention(nnx.Module):
    """x -> LayerNorm, attention with heads of at most 64: [n, tokens, width], the same."""

    def __init__(self, width: int, dtype: Any, rngs: nnx.Rngs, causal: bool = False) -> None:
        self.heads, self.causal = max(width // 64, 1), causal
        kind = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.norm = nnx.LayerNorm(width, **kind)
        self.qkv, self.out = nnx.Linear(width, 3 * width, **kind), nnx.Linear(width, width, **kind)

    def __call__(self, x: jax.Array) -> jax.Array:
        qkv = self.qkv(self.norm(x)).reshape(*x.shape[:2], 3 * self.heads, -1)
        q, k, v = jnp.split(qkv, 3, axis=2)  # each [n, tokens, heads, width / heads]
        f = jax.nn.dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(f.reshape(x.shape))


class Mlp(nnx.Module):
    """x -> LayerNorm, linear, GELU, linear, four times as wide between: [n, tokens, width]."""

    def __init__(self, width: int, dtype: Any, rngs: nnx.Rngs) -> None:
        kind = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.norm = nnx.LayerNorm(width, **kind)
        self.up = nnx.Linear(width, 4 * width, **kind)
        self.down = nnx.Linear(4 * width, width, **kind)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(nnx.gelu(self.up(self.norm(x))))


class Decoder(nnx.Module):
    """x -> what causal attention and then MLP add to x: [n, tokens, width], the same."""

    def __init__(self, width: int, dtype: Any, rngs: nnx.Rngs) -> None:
        self.attention = Attention(width, dtype, rngs, causal=True)
        self.mlp = Mlp(width, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        f = self.attention(x)
        return f + self.mlp(x + f)


class Convolutions(nnx.Module):
    """x -> conv, GroupNorm, ReLU, conv: [n, side, side, width]; samples do not mix."""

    def __init__(self, width: int, dtype: Any, rngs: nnx.Rngs) -> None:
        kind = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.first, self.second = (
            nnx.Conv(width, width, (3, 3), use_bias=False, **kind) for _ in range(2)
        )
        self.norm = nnx.GroupNorm(width, 8, **kind)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(nnx.relu(self.norm(self.first(x))))


def _shape(case: Case) -> tuple[int, ...]:
    if case.block == "resnet":
        return case.batch, isqrt(case.tokens), isqrt(case.tokens), case.width
    return case.batch, case.tokens, case.width
