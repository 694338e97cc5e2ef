"""Residual blocks: the calls and comparisons that the checks of several areas share."""

from dataclasses import replace
from typing import Any

import numpy as np

from conformance.calls import mode_options
from conformance.check import Results, Subject, equal
from conformance.numerics import sample
from conformance.protocol import Array, Call

BLOCK = (32, 5)  # one shape for most: JAX compiles each of its operations for each shape


def block(
    p: float, mode: str, shape: tuple[int, ...] = BLOCK, dtype: str = "float32", **options: Any
) -> Call:
    """Return a residual call whose branch takes a power of 2 for each sample, with its dy."""
    w = np.exp2(np.arange(shape[0]) % 4 - 1.0).reshape(-1, *[1] * (len(shape) - 1))
    options = {"branch": scaled, "per_sample": [w], **mode_options(mode), **options}
    x, dy = sample(shape, dtype), sample(shape, dtype, first=9000)
    return Call(x, p, dtype, "residual", dy=dy, options=options)


def scaled(x: Any, w: Any) -> Any:
    """Return a branch's output with a factor for each sample."""
    return x * w


def with_claimed(subject: Subject, call: Call) -> Call:
    """Return the call without dy, unless gradients are claimed."""
    return call if "gradient" in subject.info.claims else replace(call, dy=None)


def residual_mask(subject: Subject, call: Call, **skip: bool) -> Array:
    """Return the mask of a residual call, found with x = 0 and f = 1: bool of x's shape.

    skip: skip=False finds it with all rows computed; else as the implementation does by itself.
    """
    options = {k: v for k, v in call.options.items() if k not in ("per_sample", "skip")}
    options |= {"branch": one, **skip}
    probe = replace(call, x=np.zeros_like(call.x), dy=None, options=options)
    return subject.run(probe).y != 0


def one(x: Any) -> Any:
    """Return a branch's output that is 1 for a finite x."""
    return x * 0 + 1


def residual_steps(dtype: str) -> int:
    """Return RES-1's tolerance in steps."""
    return 1 if dtype in ("float16", "bfloat16") else 2


def same_block(case: str, keep: Array, want: Array, got: Array, dtype: str) -> Results:
    """Compare dropped rows bit for bit, kept rows within RES-1's tolerance."""
    if want.shape != got.shape:
        yield equal(case, want, got, dtype)
    else:
        yield equal(f"{case}, dropped rows", want[~keep], got[~keep], dtype)
        yield equal(f"{case}, kept rows", want[keep], got[keep], dtype, residual_steps(dtype))


def same_call(subject: Subject, case: str, call: Call, other: Call) -> Results:
    """Compare two ways to make one call: bit for bit, but RES-1's tolerance where a sum is kept."""
    want, got = subject.run(call), subject.run(other)
    pairs = [("", want.y, got.y), (", gradient", want.dx, got.dx)]
    for what, one, two in pairs if call.dy is not None else pairs[:1]:
        one, two = (np.zeros(()) if array is None else array for array in (one, two))
        if call.op == "residual" and one.shape == call.x.shape:
            keep = residual_mask(subject, call)
            yield from same_block(f"{case}{what}", keep, one, two, call.dtype)
        else:
            yield equal(f"{case}{what}", one, two, call.dtype)
