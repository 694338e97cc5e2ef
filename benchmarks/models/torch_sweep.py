"""A model's step at a rate: skipping to masking, both in eager mode, and both compiled.

The four steps run in one process by turns, as in benchmarks/measure.py.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import cast

import numpy as np
import torch

from benchmarks.child import Say
from benchmarks.measure import hold_memory, interleave, median_ratio
from benchmarks.models.listed import THREADS, Model
from benchmarks.models.rows import Point
from benchmarks.models.torch_build import build, inputs
from benchmarks.models.torch_step import set_same_rate, step
from benchmarks.torch_compiled import compiled
from droppath import kept_capacity
from droppath_torch import DropPath, convert, skip_dropped


def point(model: Model, p: float, seconds: float, say: Say) -> Point:
    """Return a model's steps at a rate, timed for about `seconds`."""
    hold_memory()
    torch.set_num_threads(THREADS)
    say("compiling")
    masked = build(model)
    ours = convert(deepcopy(masked), mode="balanced")
    batch = inputs(model, masked, model.batch)
    skip_dropped(ours, **batch)
    set_same_rate(masked, ours, p)
    models = {"masked": masked, "ours": ours}
    models |= {f"{name} compiled": compiled(module) for name, module in models.items()}
    runs: dict[str, Callable[[], object]] = {
        name: partial(step, module, batch) for name, module in models.items()
    }
    times = interleave(runs, seconds)
    rates = [cast(float, m.drop_prob) for m in ours.modules() if isinstance(m, DropPath)]
    return Point(
        drop_prob=p,
        eager=median_ratio(times["ours"], times["masked"]),
        compiled=median_ratio(times["ours compiled"], times["masked compiled"]),
        rows=float(np.mean([kept_capacity(rate, model.batch) / model.batch for rate in rates])),
        rounds=len(times["ours"]),
    )
