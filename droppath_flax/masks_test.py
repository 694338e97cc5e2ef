"""Masks equal to droppath's, be it static or traced, mapped or sharded; every refusal's text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import P

import droppath
from droppath_flax.masks import LARGEST_TRACED_GROUP, keep_mask

RATES = [0.0, 1e-3, 0.01, 0.1, 0.37, 0.9, 1.0]
SIZES = [
    *((batch, mode, 1) for batch in (0, 1, 2, 3, 7, 32, 4097) for mode in ("row", "balanced")),
    *((batch, "batch", 1) for batch in (0, 7)),
    *((0, "balanced", 2), (7, "balanced", 7), (32, "balanced", 4), (4097, "balanced", 17)),
]
KEYS = [droppath.key(0), droppath.key(2**32 - 1), droppath.fold_in(droppath.key(9), 1)]

traced = jax.jit(keep_mask, static_argnums=2, static_argnames=("mode", "groups"))


def check(mask, key, rate, batch, **options):
    """Hold mask against droppath's for the same arguments, static and on the host."""
    want = droppath.keep_mask(np.asarray(key), float(rate), batch, **options)
    assert (mask.dtype, mask.shape) == (bool, (batch,))
    np.testing.assert_array_equal(mask, want)


@pytest.mark.parametrize(("batch", "mode", "groups"), SIZES)
def test_a_mask_is_droppaths_with_static_and_with_traced_arguments(batch, mode, groups):
    options = {"mode": mode, "groups": groups}
    first = 3 * (batch // groups)
    for rate in RATES:
        for key in KEYS[: 1 if batch == 4097 else None]:
            if batch not in (2, 3):  # eager JAX compiles every operation for every size
                check(keep_mask(key, rate, batch, **options), key, rate, batch, **options)
            mask = traced(key, jnp.float32(rate), batch, offset=jnp.int32(first), **options)
            check(mask, key, rate, batch, offset=first, **options)


@settings(max_examples=80)
@given(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.floats(0, 1, width=32, allow_subnormal=False),  # XLA takes a subnormal for 0
    st.sampled_from([(7, "row", 1), (7, "balanced", 1), (32, "balanced", 4), (7, "batch", 1)]),
    st.integers(0, 2**28),
)
def test_a_traced_mask_is_droppaths_for_any_key_rate_and_offset(key, rate, size, start):
    batch, mode, groups = size
    words, first = np.array(key, np.uint32), start * (batch // groups)
    options = {"mode": mode, "groups": groups}
    mask = traced(words, jnp.float32(rate), batch, offset=jnp.uint32(first), **options)
    check(mask, words, rate, batch, offset=first, **options)


# 2**32 - 1 and 2**64 - 1 are multiples of 3, so these groups of 3 lie across the words' boundary.
@pytest.mark.parametrize(
    ("mode", "groups", "offset"),
    [
        *(("row", 1, offset) for offset in (5, 2**32 - 3, 2**32, 2**40 + 1, 2**64 - 6)),
        *(("balanced", 2, offset) for offset in (3, 2**32 - 1, 3 * 2**40, 2**64 - 7)),
        ("batch", 1, 2**64 - 6),
    ],
)
def test_offsets_reach_all_64_bits(mode, groups, offset):
    options = {"mode": mode, "groups": groups, "offset": offset}
    check(keep_mask(KEYS[0], 0.37, 6, **options), KEYS[0], 0.37, 6, **options)
    options["offset"] = np.uint64(offset)
    check(keep_mask(KEYS[0], 0.37, 6, **options), KEYS[0], 0.37, 6, **options)
    with jax.enable_x64(True):
        mask = traced(KEYS[0], 0.37, 6, **{**options, "offset": jnp.uint64(offset)})
        check(mask, KEYS[0], 0.37, 6, **options)


def test_a_traced_offset_of_32_bits_carries_into_the_upper_word():
    mask = traced(KEYS[0], 0.37, 7, offset=jnp.uint32(2**32 - 3))
    check(mask, KEYS[0], 0.37, 7, offset=2**32 - 3)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.1, 0.37, 0.9, 1.0])
def test_row_mode_is_bernoulli_of_the_drop_for_keys_of_every_kind(impl, rate):
    for seed in range(3):
        key = jax.random.key(seed, impl=impl)
        drop = jax.random.bernoulli(key, jnp.float32(rate), (4097,))
        np.testing.assert_array_equal(keep_mask(key, rate, 4097), ~drop)
        np.testing.assert_array_equal(traced(key, jnp.float32(rate), 4097), ~drop)


@pytest.mark.parametrize(("mode", "dropped"), [("balanced", {3, 4}), ("batch", {0, 10})])
def test_a_key_that_is_not_threefrys_draws_in_every_mode(mode, dropped):
    keys = [jax.random.key(seed, impl="rbg") for seed in range(16)]
    kept = [int(keep_mask(key, 0.37, 10, mode=mode).sum()) for key in keys]
    assert {10 - count for count in kept} == dropped  # 10 * 0.37 rounded down and up; none or all


@pytest.mark.parametrize("mode", ["row", "balanced"])
def test_typed_raw_and_numpy_keys_are_one_key(mode):
    for key in (jax.random.key(5), jax.random.PRNGKey(5), jnp.uint32([0, 5]), droppath.key(5)):
        for draw in (keep_mask, traced):
            check(draw(key, 0.37, 32, mode=mode), droppath.key(5), 0.37, 32, mode=mode)


@pytest.mark.parametrize("mode", ["row", "balanced"])
def test_enabling_x64_changes_no_mask(mode):
    with jax.enable_x64(True):
        check(keep_mask(KEYS[2], 0.1, 32, mode=mode), KEYS[2], 0.1, 32, mode=mode)
        mask = traced(KEYS[2], jnp.float64(0.1), 32, mode=mode, offset=jnp.int64(32))
        check(mask, KEYS[2], 0.1, 32, mode=mode, offset=32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_rate_of_16_bits_counts_at_its_own_value(dtype):
    rate = jnp.asarray(0.1, dtype)
    assert float(rate) != float(np.float32(0.1))
    check(traced(KEYS[0], rate, 4097), KEYS[0], rate, 4097)


def test_the_largest_group_of_a_traced_rate_loses_no_bit():
    batch = LARGEST_TRACED_GROUP
    assert batch == 2**20 - 1
    mask = traced(KEYS[0], jnp.float32(0.9), batch, mode="balanced")  # the product is near 2**43
    check(mask, KEYS[0], 0.9, batch, mode="balanced")


@pytest.mark.parametrize("mode", ["row", "balanced", "batch"])
def test_vmap_draws_each_keys_mask_at_its_own_rate_and_offset(mode):
    rates, first = np.float32([0.1, 0.37, 0.9]), np.int32([0, 32, 64])
    masks = jax.jit(jax.vmap(lambda k, p, i: keep_mask(k, p, 32, mode=mode, offset=i)))(
        np.stack(KEYS), rates, first
    )
    for mask, key, rate, offset in zip(masks, KEYS, rates, first, strict=True):
        check(mask, key, rate, 32, mode=mode, offset=offset)


def test_one_compilation_serves_all_keys_rates_and_offsets():
    traces = []

    @jax.jit
    def draw(key, rate, offset):
        traces.append(None)
        return keep_mask(key, rate, 32, offset=offset)

    masks = [
        np.asarray(draw(jax.random.key(seed), jnp.float32(0.37), jnp.int32(0)))
        for seed in range(64)
    ]
    assert len({mask.tobytes() for mask in masks}) == 64  # none alike among 2**32 masks
    more = np.asarray(draw(jax.random.key(0), jnp.float32(0.9), jnp.int32(0)))
    assert 0 < (masks[0] & ~more).sum() == masks[0].sum() - more.sum()  # dropped: a superset
    shifted = draw(jax.random.key(0), jnp.float32(0.37), jnp.int32(8))
    np.testing.assert_array_equal(shifted[:24], masks[0][8:])
    assert len(traces) == 1


@pytest.mark.parametrize("mode", ["row", "balanced", "batch"])
def test_a_shard_that_passes_its_offset_draws_its_slice(mode):
    mesh = jax.make_mesh((8,), ("data",))
    size = 64 // mesh.size

    def draw(key):
        return keep_mask(key, 0.37, size, mode=mode, offset=jax.lax.axis_index("data") * size)

    mask = jax.jit(jax.shard_map(draw, mesh=mesh, in_specs=P(), out_specs=P("data")))(KEYS[0])
    assert len(mask.sharding.device_set) == 8
    check(mask, KEYS[0], 0.37, 64, mode=mode, groups=8 if mode == "balanced" else 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        *(
            ({"drop_prob": p}, f"drop_prob must be a number in [0, 1], got {p!r}")
            for p in (-0.1, 1.5, float("nan"), None, "0.1", True)
        ),
        ({"drop_prob": [0.1]}, "drop_prob must be a number in [0, 1], got [0.1]"),
        (
            {"drop_prob": jnp.float32([0.1])},
            "drop_prob must be a floating scalar, got float32 of shape (1,)",
        ),
        ({"drop_prob": jnp.int32(1)}, "drop_prob must be a floating scalar, got int32 of shape ()"),
        (
            {"key": None},
            "key must be uint32 of shape (2,), such as droppath.key(7), got object of ()",
        ),
        *(
            (
                {"batch": batch, "mode": mode},
                f"batch must be an integer in [0, 2**31), got {batch}",
            )
            for batch in (2**31, 2**62)
            for mode in ("row", "balanced", "batch")
        ),
        ({"key": 5}, "key must be uint32 of shape (2,), such as droppath.key(7), got int64 of ()"),
        (
            {"key": jnp.int32([0, 5])},
            "key must be uint32 of shape (2,), such as droppath.key(7), got int32 of (2,)",
        ),
        (
            {"key": np.uint32([0, 5, 1])},
            "key must be uint32 of shape (2,), such as droppath.key(7), got uint32 of (3,)",
        ),
        (
            {"key": np.stack(KEYS)},
            "key must be uint32 of shape (2,), such as droppath.key(7), got uint32 of (3, 2)",
        ),
        (
            {"key": jax.random.split(jax.random.key(0), 3)},
            "key must be one key, got keys of shape (3,)",
        ),
        ({"batch": -1}, "batch must be an integer in [0, 2**31), got -1"),
        ({"batch": 8.0}, "batch must be an integer, got 8.0"),
        ({"mode": "rows"}, "mode must be one of 'row', 'balanced', 'batch', got 'rows'"),
        ({"groups": 3}, "groups must divide the batch, got groups=3 for batch=8"),
        ({"groups": 0}, "groups must divide the batch, got groups=0 for batch=8"),
        ({"offset": -1}, "offset must be an integer in [0, 2**64 - 8 + 1), got -1"),
        (
            {"offset": 2**64 - 7},
            "offset must be an integer in [0, 2**64 - 8 + 1), got 18446744073709551609",
        ),
        ({"offset": 1.0}, "offset must be an integer, got 1.0"),
        ({"offset": jnp.float32(8)}, "offset must be an integer scalar, got float32 of shape ()"),
        ({"offset": jnp.arange(8)}, "offset must be an integer scalar, got int32 of shape (8,)"),
        (
            {"mode": "balanced", "groups": 2, "offset": 6},
            "offset must be a multiple of the group's 4 rows, got offset=6",
        ),
        *(
            (
                {"key": jax.random.key(0, impl="rbg"), "offset": offset},
                "offset must be 0 for a key of rbg",
            )
            for offset in (8, jnp.int32(0))
        ),
        (
            {"drop_prob": jnp.float32(0.1), "batch": 2**20, "mode": "balanced"},
            "groups must leave at most 1048575 rows each for a traced drop_prob, got 1048576",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, text):
    arguments = {"key": droppath.key(0), "drop_prob": 0.1, "batch": 8, **change}
    with pytest.raises(ValueError) as error:
        keep_mask(**arguments)
    assert str(error.value) == text
