"""Inputs that the checks of several areas share: rates, keys, shapes, options and calls.

Inputs and seeds are fixed. Not here: residual blocks (blocks.py), and what one area needs alone.
"""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

import droppath
from conformance.check import Results, Subject, equal
from conformance.protocol import Array, Call

RATES = (0.02, 0.1, 0.37, 0.9)  # asymmetric: 0.5 cannot tell keep from drop
KEY = droppath.key(20160330)  # the day of arXiv 1603.09382, version 1

X = np.ones((8, 3))

# Sizes at which implementations choose another path: rows of some bytes, kilobytes, 100 kilobytes.
SMALL, MIDDLE, LARGE = (64, 33), (64, 700), (16, 70_000)

SPECIAL = np.array([np.inf, -np.inf, np.nan, -1.0, -0.0, 60000.0])  # 60000: near float16's largest


def forms(subject: Subject, call: Call) -> list[Call]:
    """Return the call and, where that is claimed, the same of a residual block."""
    if "residual" not in subject.info.claims:
        return [call]
    return [call, replace(call, op="residual", options={**call.options, "branch": minus_half})]


def minus_half(x: Any) -> Any:
    """Return a branch's output, exact in every dtype, by operators that any array knows."""
    return x * -0.5


def modes(subject: Subject) -> list[str]:
    """Return the modes that are claimed."""
    return ["row", *(mode for mode in ("balanced", "batch") if mode in subject.info.claims)]


def models_are_unkeyed(subject: Subject) -> bool:
    """Return whether op "model" draws without a key."""
    claims = subject.info.claims
    return "model" in claims and ("unkeyed" in claims or "keyed" not in claims)


def mode_options(mode: str) -> dict[str, Any]:
    """Return the options of a mode; an implementation that knows no other is not asked for row."""
    return {} if mode == "row" else {"mode": mode}


def balanced(groups: int) -> dict[str, Any]:
    """Return the options of a balanced mask."""
    return {"mode": "balanced", "groups": groups}


def threshold(p: float) -> int:
    """Return T of clause KEY-2, from exact fractions."""
    return math.ceil(Fraction(float(np.float32(p))) * 2**23)


def gradient(subject: Subject, call: Call) -> Array:
    """Return dx, or an array of no shape if the adapter returned none."""
    dx = subject.run(call).dx
    return np.zeros(()) if dx is None else dx


def leaves_draws(subject: Subject, case: str, call: Call) -> Results:
    """Hold that a call between two that draw leaves the later draw as it is: seen from outside."""
    if "stateless" not in subject.info.claims:
        plain = Call(np.ones((64, 2)), 0.37, seed=5)
        masks = list[Array]()
        for calls in ([], [replace(call, seed=None)]):
            subject.run(plain)
            for each in calls:
                subject.run(each)
            masks.append(subject.rows(replace(plain, seed=None)) * 1.0)
        yield equal(f"{case}, the draw after it", masks[0], masks[1], "float64")
