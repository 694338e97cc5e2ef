"""DropPath and DropPathResidual as Flax NNX modules, with the manners of nnx.Dropout."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_callable,
    check_flags,
    check_options,
    check_skip,
)
from droppath_flax.functional import drop_path, is_zero
from droppath_flax.masks import Key, Offset, Rate, check_rate
from droppath_flax.residual import Branch, drop_path_residual
from droppath_flax.streams import LayerKey, check_offset_of_keyed, source_of, stream_of


class DropPath(nnx.Module):
    """Drop whole samples of a residual branch in training: `x + drop_path(branch(x))`.

    y[i] = x[i] / (1 - drop_prob) if sample i is kept else 0

    No parameters. A rate of 0 stays a DropPath, to be scheduled later: assign `drop_prob`. A float
    is part of the compiled program; a JAX scalar is data, and changes without recompiling.

    Args:
      drop_prob: probability in [0, 1] that a sample is dropped; float or JAX scalar.
      scale_by_keep: False leaves kept samples as they are.
      mode, scale_at, axis, groups: as in `droppath_flax.drop_path`.
      deterministic: True at evaluation; `model.eval()` and `nnx.view` set it.
      rng_collection: name of the stream of `rngs` to draw from where no key is given.
      rngs: the Rngs or RngStream that the module draws from, if any; it is forked.

    Raises: ValueError for arguments outside these ranges, TypeError for another kind of `rngs`.

    >>> import jax.numpy as jnp
    >>> DropPath(0.5)(jnp.ones(4), key=jax.random.key(0))
    Array([2., 2., 0., 0.], dtype=float32)

    Source: Huang et al. 2016, arXiv 1603.09382; droppath/SPEC.md.
    """

    why_masked: str | None = None  # set by `skip_dropped`: why a branch is computed, "" if none is
    skips_from: tuple[str, ...] = ()  # and the modules where those begin that are not

    def __init__(
        self,
        drop_prob: Rate = 0.0,
        scale_by_keep: bool = True,
        *,
        mode: Mode = "row",
        scale_at: ScaleAt = "train",
        axis: int = 0,
        groups: int = 1,
        deterministic: bool = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> None:
        check_options(mode, scale_at, axis, groups)
        check_flags(scale_by_keep=scale_by_keep, deterministic=deterministic)
        self.drop_prob = check_rate(drop_prob)
        self.scale_by_keep = scale_by_keep
        self.mode: Mode = mode
        self.scale_at: ScaleAt = scale_at
        self.axis = axis
        self.groups = groups
        self.deterministic = deterministic
        self.rng_collection = rng_collection
        stream = stream_of(rngs, rng_collection)
        self.rngs = nnx.data(None if stream is None else stream.fork())

    def __call__(
        self,
        x: ArrayLike,
        *,
        key: Key | None = None,
        keep: ArrayLike | None = None,
        offset: Offset = 0,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | Key | None = None,
    ) -> jax.Array:
        """Return x with dropped samples set to zero: floating [..., B, ...], same shape and dtype.

        In training with drop_prob > 0 the mask is `keep`, or is drawn from `key`, from the key of
        the surrounding `keyed`, from the call's `rngs`, or from the module's, the first that is
        given. `deterministic` overrides the module's.
        """
        evaluate = self.deterministic if deterministic is None else deterministic
        source, offset = self._source(key, keep, offset, evaluate, rngs)
        return drop_path(
            x,
            self.drop_prob,
            key=source,
            keep=keep,
            deterministic=evaluate,
            mode=self.mode,
            scale_by_keep=self.scale_by_keep,
            scale_at=self.scale_at,
            axis=self.axis,
            groups=self.groups,
            offset=offset,
        )

    def _source(
        self,
        key: Key | None,
        keep: ArrayLike | None,
        offset: Offset,
        evaluate: bool,
        rngs: nnx.Rngs | nnx.RngStream | Key | None,
    ) -> tuple[Key | None, Offset]:
        """Return what a call draws from: the given key, or a key or stream if one is due.

        With the offset that it draws at. The stream is not advanced yet: a call that is refused
        draws nothing.
        """
        check_flags(deterministic=evaluate)
        p = check_rate(self.drop_prob)
        identity = is_zero(p)  # EVAL-2
        if key is not None or keep is not None or evaluate or identity:
            return key, offset
        if isinstance(self.rngs, LayerKey):
            check_offset_of_keyed(offset)
            return self.rngs, self.rngs.offset
        return source_of(self.rngs if rngs is None else rngs, self.rng_collection), offset

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep a JAX scalar as data: nnx takes a tracer for static, and refuses a late scalar.

        A number of NumPy becomes one of Python: nnx takes an array of NumPy for data.
        """
        if isinstance(value, np.ndarray | np.generic) and not value.ndim:
            value = value.item() if value.dtype.kind in "fiu" else value
        super().__setattr__(name, nnx.data(value) if isinstance(value, jax.Array) else value)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Set `deterministic`; called by `nnx.view`."""
        if deterministic is not None:
            self.deterministic = deterministic


class DropPathResidual(DropPath):
    """A residual block whose dropped samples are not computed: `x + drop_path(branch(x))`.

    y[i] = x[i] + branch(x)[i] / (1 - drop_prob) if sample i is kept else x[i]

    Args:
      branch: an NNX module or a function of x, and of what else the call is given.
      skip: as in `droppath_flax.drop_path_residual`, and so is `mode`, here "balanced".
      Others as in `DropPath`.

    In "batch" mode a branch that is a module keeps its state, such as BatchNorm's statistics, where
    it is not run. Modules that a function closes over cannot: give the module itself. Such a branch
    must not change its parameters (`nnx.Param`), nor gain or lose variables in its forward.

    Raises: ValueError for arguments outside these ranges, TypeError for another kind of `rngs`.

    >>> import jax.numpy as jnp
    >>> DropPathResidual(jnp.negative, 0.5)(jnp.ones(4), key=jax.random.key(0))
    Array([ 1., -1.,  1., -1.], dtype=float32)

    Source: Huang et al. 2016, arXiv 1603.09382; Oquab et al. 2023, arXiv 2304.07193, section 5.
    """

    def __init__(
        self,
        branch: Branch,
        drop_prob: Rate = 0.0,
        scale_by_keep: bool = True,
        *,
        mode: Mode = "balanced",
        skip: bool | None = None,
        scale_at: ScaleAt = "train",
        axis: int = 0,
        groups: int = 1,
        deterministic: bool = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> None:
        check_callable(branch)
        check_skip(skip)
        super().__init__(
            drop_prob,
            scale_by_keep,
            mode=mode,
            scale_at=scale_at,
            axis=axis,
            groups=groups,
            deterministic=deterministic,
            rng_collection=rng_collection,
            rngs=rngs,
        )
        self.branch = branch
        self.skip = skip

    def __call__(  # takes what the branch takes besides x
        self,
        x: ArrayLike,
        *per_sample: Any,
        key: Key | None = None,
        keep: ArrayLike | None = None,
        offset: Offset = 0,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | Key | None = None,
    ) -> jax.Array:
        """Return x, and on kept samples what the branch adds: x's shape and dtype.

        per_sample: further arguments of the branch, pytrees of arrays [B, ...]. Others as in
        `DropPath`.
        """
        evaluate = self.deterministic if deterministic is None else deterministic
        source, offset = self._source(key, keep, offset, evaluate, rngs)
        return drop_path_residual(
            x,
            self.branch,
            self.drop_prob,
            *per_sample,
            key=source,
            keep=keep,
            deterministic=evaluate,
            mode=self.mode,
            skip=self.skip,
            scale_by_keep=self.scale_by_keep,
            scale_at=self.scale_at,
            axis=self.axis,
            groups=self.groups,
            offset=offset,
        )
