"""Branches of residual calls: functions of a module, since calls may be sent to other processes.

They use operators alone; those that return another dtype use a method for it where there is one.
"""

from typing import Any

from conformance.protocol import dtype_text


def given(x: Any, f: Any) -> Any:
    """Return a branch's output that is given: any values, beside any x."""
    return f


def scaled_by(x: Any, w: Any) -> Any:
    """Return what a layer of a stack adds: x times its parameter."""
    return x * w


def in_float64(x: Any, w: Any) -> Any:
    """Return a branch's output in float64."""
    return cast_to("float64", "double", x * w)


def in_float32(x: Any, w: Any) -> Any:
    """Return a branch's output in float32."""
    return cast_to("float32", "float", x * w)


def in_float16(x: Any, w: Any) -> Any:
    """Return a branch's output in float16."""
    return cast_to("float16", "half", x * w)


def cast_to(dtype: str, method: str, f: Any) -> Any:
    """Return f in another dtype, by NumPy's and JAX's astype, or by PyTorch's method; else f."""
    if hasattr(f, "astype"):
        return f.astype(dtype)
    return getattr(f, method)() if hasattr(f, method) else f


def scaled_twice(x: Any, w: Any, v: Any) -> Any:
    """Return a branch's output with two factors for each sample, 0 unless all have one dtype."""
    dtypes = {dtype_text(array) for array in (x, w, v) if hasattr(array, "dtype")}
    return x * w * v if len(dtypes) < 2 else x * 0


def scaled_by_first(x: Any, v: Any) -> Any:
    """Return a branch's output with a factor [n, 5, 2] of which the first counts."""
    return x * v[:, :, 0]


def scaled_by_column(x: Any, v: Any) -> Any:
    """Return a branch's output with a factor [n]."""
    return x * v[:, None]
