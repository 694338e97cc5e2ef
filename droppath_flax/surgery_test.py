"""set_drop_probs: which layer gets which rate, and what is refused before any is set."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import droppath
from droppath_flax import DropPath, DropPathResidual, set_drop_probs
from droppath_flax.layers import layers_of


class Block(nnx.Module):
    def __init__(self) -> None:
        self.drop_path2, self.drop_path1 = DropPath(0.9), DropPathResidual(jnp.sin, 0.9)


def rates(model) -> list[float]:
    return [float(layer.drop_prob) for layer in layers_of(model).values()]


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (0.25, [0.25] * 6),
        (droppath.drop_path_rates(0.5, 6), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (droppath.drop_path_rates(0.5, 3), [0.0, 0.0, 0.25, 0.25, 0.5, 0.5]),
    ],
)
def test_one_rate_for_all_for_each_layer_or_for_each_block(given, want):
    model = nnx.List([Block() for _ in range(3)])
    set_drop_probs(model, given)
    assert rates(model) == want
    assert model[1].drop_path2.drop_prob == want[2]


def test_a_jax_scalar_is_data_and_changes_without_compiling():
    model, traces = nnx.List([DropPath(0.0)]), []

    @nnx.jit
    def forward(model, x):
        traces.append(x)
        return model[0](x, key=jax.random.key(0))

    for p in (0.0, 0.5, 1.0):
        set_drop_probs(model, jnp.float32(p))
        kept = forward(model, jnp.ones(100)) != 0
        assert kept.mean() == pytest.approx(1 - p, abs=0.2)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (1.5, "rates must be a number in"),
        ([0.1] * 5 + [2.0], r"rates\[5\] must be a number in"),
        ([0.1] * 2, "rates must be 6, one for each DropPath, or 3, one for each block"),
        (jnp.ones(2, int), "rates must be 6"),
        (jnp.int32(1), "rates must be a floating"),
    ],
)
def test_what_is_refused_changes_nothing(given, text):
    model = nnx.List([Block() for _ in range(3)])
    with pytest.raises(ValueError, match=text):
        set_drop_probs(model, given)
    assert rates(model) == [0.9] * 6


def test_a_model_without_a_droppath_is_refused():
    with pytest.raises(ValueError, match="model must hold a DropPath of droppath_flax, got none"):
        set_drop_probs(nnx.List([]), 0.5)
