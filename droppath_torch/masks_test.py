"""Masks equal to droppath's on every way to draw them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend

import droppath
from droppath_torch.masks import keep_mask

MODES = ["row", "balanced", "batch"]


def as_tensor(key, dtype=torch.int64):
    return torch.from_numpy(key.astype(np.int64)).to(dtype)


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    st.sampled_from(MODES),
    st.integers(1, 5),
    st.integers(0, 5),
    st.sampled_from([0, 1, 7, 2**32 - 1, 2**40]),
)
def test_a_mask_is_droppaths_from_a_key_on_the_host_and_on_the_device(
    seed, p, mode, groups, group, start
):
    key, options = droppath.fold_in(droppath.key(9), seed), {"mode": mode, "groups": groups}
    batch, offset = groups * group, start * max(group, 1)
    want = droppath.keep_mask(key, p, batch, offset=offset, **options).tolist()
    rates = [p, torch.tensor(p, dtype=torch.float64), torch.tensor(p)]
    for words in (key, as_tensor(key), torch.from_numpy(key)):
        for rate in rates:
            for first in (offset, torch.tensor(offset)):
                mask = keep_mask(words, rate, batch, offset=first, **options)
                assert (mask.dtype, mask.tolist()) == (torch.bool, want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [0, 1, 2, 3, 257, 4097])
def test_masks_of_all_sizes_are_droppaths(mode, batch):
    key = droppath.key(2**32 - 1)
    want = droppath.keep_mask(key, 0.37, batch, mode=mode).tolist()
    for words in (key, as_tensor(key), as_tensor(key, torch.int32)):  # int32 holds -1
        assert keep_mask(words, 0.37, batch, mode=mode).tolist() == want


@pytest.mark.parametrize("mode", MODES)
def test_a_sample_is_dropped_iff_its_draw_is_below_the_threshold(mode):
    for seed in range(20):
        key = droppath.key(seed)
        drawn_from = droppath.fold_in(key, 1) if mode == "balanced" else key
        draw = int(droppath.random_bits(drawn_from, 1)[0] >> 9)
        for words in (key, as_tensor(key)):
            assert keep_mask(words, draw / 2**23, 1, mode=mode).tolist() == [True]
            assert keep_mask(words, (draw + 1) / 2**23, 1, mode=mode).tolist() == [False]


@pytest.mark.parametrize("offset", [2**32 - 2, 2**63 - 2, 2**63, 2**64 - 5])
def test_an_offset_may_be_any_of_64_bits(offset):
    key = droppath.key(3)
    want = droppath.keep_mask(key, 0.37, 5, offset=offset).tolist()
    assert keep_mask(key, 0.37, 5, offset=offset).tolist() == want
    assert keep_mask(as_tensor(key), 0.37, 5, offset=offset).tolist() == want


def all_modes(key, offset, p, modes=MODES):
    draw = {"batch": 12, "offset": offset, "groups": 2}
    return [keep_mask(key, p, mode=mode, **draw) for mode in modes]


def want_masks(key, offset, p, modes=MODES):
    draw = {"batch": 12, "offset": offset, "groups": 2}
    return [droppath.keep_mask(key, p, mode=mode, **draw).tolist() for mode in modes]


@pytest.mark.parametrize("form", [as_tensor, np.asarray])
def test_64_keys_compiled_once_give_the_masks_of_eager(form):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    f = torch.compile(all_modes, fullgraph=True, dynamic=False, backend=counter)
    seen = set()
    for seed in range(64):
        key, offset = droppath.key(seed), 6 * seed
        got = [mask.tolist() for mask in f(form(key), torch.tensor(offset), 0.37)]
        assert got == want_masks(key, offset, 0.37)
        seen.add(str(got))
    assert len(seen) > 50
    assert counter.frame_count == 1


@pytest.mark.slow
def test_a_compiled_kernel_gives_the_masks_of_eager():
    torch._dynamo.reset()
    f = torch.compile(all_modes, fullgraph=True, dynamic=False)
    for seed in range(8):
        key = droppath.fold_in(droppath.key(seed), 1)
        (got,) = f(as_tensor(key), torch.tensor(2**40), torch.tensor(0.37), ["row"])
        assert [got.tolist()] == want_masks(key, 2**40, 0.37, ["row"])


@pytest.mark.parametrize("mode", MODES)
def test_vmap_over_keys_gives_the_mask_of_each(mode):
    keys = droppath.split(droppath.key(1), 20)
    got = torch.func.vmap(lambda key: keep_mask(key, 0.37, 6, mode=mode))(as_tensor(keys))
    assert got.tolist() == droppath.keep_mask(keys, 0.37, 6, mode=mode).tolist()


KEY = droppath.key(0)


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((KEY, -0.1, 4), {}, "drop_prob must be a number in [0, 1], got -0.1"),
        ((as_tensor(KEY), 1.5, 4), {}, "drop_prob must be a number in [0, 1], got 1.5"),
        (
            (KEY, torch.ones(1), 4),
            {},
            "drop_prob must be a floating scalar, got float32 of shape (1,)",
        ),
        (
            (KEY, torch.tensor(1), 4),
            {},
            "drop_prob must be a floating scalar, got int64 of shape ()",
        ),
        (
            ([0, 5], 0.1, 4),
            {},
            "key must be uint32 of shape (2,), such as droppath.key(7), got int64 of (2,)",
        ),
        (
            (KEY[None], 0.1, 1),
            {},
            "key must be uint32 of shape (2,), such as droppath.key(7), got uint32 of (1, 2)",
        ),
        (
            (torch.ones(2), 0.1, 4),
            {},
            "key must be two words of uint32, int32 or int64, got float32 of (2,)",
        ),
        (
            (torch.ones(3, 2).int(), 0.1, 3),
            {},
            "key must be two words of uint32, int32 or int64, got int32 of (3, 2)",
        ),
        (
            (torch.ones(2) > 0, 0.1, 4),
            {},
            "key must be two words of uint32, int32 or int64, got bool of (2,)",
        ),
        ((KEY, 0.1, -4), {}, "batch must be an integer in [0, 2**31), got -4"),
        ((KEY, 0.1, 4), {"mode": "x"}, "mode must be one of 'row', 'balanced', 'batch', got 'x'"),
        ((KEY, 0.1, 4), {"groups": 3}, "groups must divide the batch, got groups=3 for batch=4"),
        (
            (as_tensor(KEY), 0.1, 4),
            {"mode": "balanced", "offset": 2},
            "offset must be a multiple of the group's 4 rows, got offset=2",
        ),
    ],
)
def test_a_bad_argument_is_named(arguments, options, text):
    with pytest.raises(ValueError) as error:
        keep_mask(*arguments, **options)
    assert str(error.value) == text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (torch.tensor(1.5), "offset must be an integer scalar, got float32 of shape ()"),
        (torch.tensor(True), "offset must be an integer scalar, got bool of shape ()"),
        (torch.tensor([1, 1]), "offset must be an integer scalar, got int64 of shape (2,)"),
        (torch.tensor(-1), "offset must be an integer in [0, 2**64 - 4 + 1), got -1"),
    ],
)
def test_a_tensor_offset_is_checked_as_an_integer_is(offset, text, mode):
    with pytest.raises(ValueError) as error:
        keep_mask(KEY, 0.1, 4, offset=offset, mode=mode)
    assert str(error.value) == text


def test_a_tensor_offset_of_a_balanced_mask_is_a_multiple_of_the_group():
    text = "offset must be a multiple of the group's 2 rows, got offset=3"
    with pytest.raises(ValueError) as error:
        keep_mask(KEY, 0.1, 4, mode="balanced", groups=2, offset=torch.tensor(3))
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (
            torch.tensor([0, 2**33 + 5]),
            "key must be two words in [0, 2**32), got [0, 8589934597]",
        ),
        (torch.tensor([-1, 5]), "key must be two words in [0, 2**32), got [-1, 5]"),
        (
            torch.zeros(2, dtype=torch.complex64),
            "key must be two words of uint32, int32 or int64, got complex64 of (2,)",
        ),
        (
            torch.zeros(2, dtype=torch.int8),
            "key must be two words of uint32, int32 or int64, got int8 of (2,)",
        ),
    ],
)
def test_a_tensor_key_is_two_words_of_32_bits(key, text):
    with pytest.raises(ValueError) as error:
        keep_mask(key, 0.1, 4)
    assert str(error.value) == text


@pytest.mark.parametrize("device", ["nowhere", "", 5.0, "cpu:x"])
@pytest.mark.parametrize("key", [KEY, torch.tensor([0, 3])])
def test_a_device_that_is_none_is_named(key, device):
    with pytest.raises(ValueError) as error:
        keep_mask(key, 0.1, 4, device=device)
    assert str(error.value) == f"device must be a torch.device or its name, got {device!r}"
