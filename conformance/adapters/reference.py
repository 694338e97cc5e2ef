"""The NumPy reference behind the protocol: reference.py and masks.py of `droppath`."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import ml_dtypes
import numpy as np

import droppath
from conformance.protocol import Array, Backend, Call, Info, Outcome

DRAWS = ("mode", "groups", "offset")
APPLIES = ("scale_by_keep", "scale_at", "axis")
CLAIMS = (
    "gradient keyed stateless keep batch balanced axis scale_by_keep scale_at model residual "
    "random schedule"
)


class Reference:
    """Draws with droppath.keep_mask, applies with droppath.drop_path; mutants.py replaces parts."""

    def info(self) -> Info:
        """Return all that a NumPy implementation can claim."""
        dtypes = ("float64", "float32", "float16", "bfloat16")
        return Info(f"droppath {version('droppath')}", frozenset(CLAIMS.split()), dtypes)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        if call.op not in ("drop_path", "residual"):
            return Outcome(np.asarray(self.compute(call), np.float64))
        dtype = np.dtype(getattr(ml_dtypes, call.dtype, call.dtype))
        x = call.x.astype(dtype)
        keep = self.draw(call, x)
        y = self.forward(call, x, keep)
        dx = None if call.dy is None else self.backward(call, call.dy.astype(dtype), keep)
        return Outcome(
            y.astype(np.float64),
            y.dtype.name,
            None if dx is None else dx.astype(np.float64),
            None if dx is None else dx.dtype.name,
            x.astype(np.float64),
            drew=False,
        )

    def draw(self, call: Call, x: Array) -> Array:
        """Return the mask: that of the call, or one drawn from its key, or from its seed."""
        if call.keep is not None and call.key is not None:
            raise ValueError("key and keep must not both be given")
        axis = call.options.get("axis", 0)
        batch = x.shape[axis] if -x.ndim <= axis < x.ndim else 0
        if call.keep is not None or not call.training or call.drop_prob == 0:
            return np.ones(batch, bool) if call.keep is None else call.keep
        key = call.key if call.seed is None or call.key is not None else droppath.key(call.seed)
        if key is None:
            raise ValueError("key must be given to drop in training, got None")
        return droppath.keep_mask(key, call.drop_prob, batch, **only(call.options, DRAWS))

    def forward(self, call: Call, x: Array, keep: Array) -> Array:
        """Return y, of a residual block if the call is for one."""
        options = {"training": call.training, **only(call.options, APPLIES)}
        if call.op == "residual":
            branch = call.options["branch"]
            return droppath.drop_path_residual(x, branch, keep, call.drop_prob, **options)
        return droppath.drop_path(x, keep, call.drop_prob, **options)

    def backward(self, call: Call, dy: Array, keep: Array) -> Array:
        """Return dx."""
        options = {"training": call.training, **only(call.options, APPLIES)}
        return droppath.drop_path_vjp(dy, keep, call.drop_prob, **options)

    def compute(self, call: Call) -> Any:
        """Return the result of an op without x: of a model's layers, of keys or of schedules."""
        if call.op != "model":
            return getattr(droppath, call.op)(**call.options)
        keys = droppath.split(call.key, len(call.drop_prob))
        pairs = zip(keys, call.drop_prob, strict=True)
        return [droppath.keep_mask(key, p, len(call.x)) for key, p in pairs]


def only(options: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of these names."""
    return {name: value for name, value in options.items() if name in names}


def backend() -> Backend:
    """Return the reference."""
    return Reference()
