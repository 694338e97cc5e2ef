"""A check of a clause, the backend that it is given, and the comparisons that it yields.

A check yields, for every case that it compares, None or a Finding; the runner counts both, and a
check that compares nothing fails. The mask of a black box is found by calling it on ones with the
same seed; a keyed implementation is also held to the exact mask. The checks themselves are in
clauses/, a file for each area of SPEC.md.

Statistics: a case fails if its exact binomial tail is below ALPHA. A run has fewer than 10^3 such
cases, so that a right implementation with fresh randomness fails in fewer than one run in 10^9.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from conformance.numerics import FORMATS, step, tail
from conformance.protocol import Array, Backend, BrokenAdapter, Call, Info, Outcome

ALPHA = 1e-12


@dataclass(frozen=True)
class Finding:
    """One case that does not hold."""

    case: str
    want: str
    got: str
    steps: float | None = None


Results = Iterator[Finding | None]


@dataclass(frozen=True)
class Subject:
    """A backend and its info."""

    backend: Backend
    info: Info

    def run(self, call: Call) -> Outcome:
        """Return the outcome of a call. Raises BrokenAdapter unless of the protocol's form."""
        outcome = self.backend.run(call)
        y = getattr(outcome, "y", None)
        if not (isinstance(y, np.ndarray) and y.dtype == np.float64):
            got = y.dtype.name if isinstance(y, np.ndarray) else type(y).__name__
            raise BrokenAdapter(f"y must be an array of float64, got {got}")
        if outcome.dtype not in FORMATS:
            raise BrokenAdapter(f"dtype must be one of {', '.join(FORMATS)}, got {outcome.dtype!r}")
        return outcome

    def keep(self, call: Call) -> Array:
        """Return the mask of a call, found on ones: bool of x's shape."""
        return self.run(replace(call, x=np.ones_like(call.x), dy=None)).y != 0

    def rows(self, call: Call) -> Array:
        """Return the mask along axis 0, for x of shape [B, 2]: bool [B]."""
        return self.keep(call)[:, 0]


@dataclass(frozen=True)
class Check:
    """A check of one clause, and the claims without which it does not apply."""

    clause: str
    test: Callable[[Subject], Results]
    needs: tuple[str, ...] = ()


def check(
    clause: str, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[Subject], Results]], Check]:
    """Return a decorator that makes a function the check of a clause."""

    def made(test: Callable[[Subject], Results]) -> Check:
        return Check(clause, test, needs)

    return made


def equal(case: str, want: Array, got: Array, dtype: str, steps: int = 0) -> Finding | None:
    """Compare bit for bit (NaN equals NaN, -0 is not +0), or within steps of dtype."""
    if want.shape != got.shape:
        return Finding(case, f"shape {want.shape}", f"shape {got.shape}")
    with np.errstate(invalid="ignore"):
        apart = np.abs(want - got) / step(np.where(np.isfinite(want), want, 0.0), dtype)
    same = (want == got) & (np.signbit(want) == np.signbit(got)) | np.isnan(want) & np.isnan(got)
    wrong = ~(same | (apart <= steps) & (steps > 0))
    if not wrong.any():
        return None
    worst = np.unravel_index(
        np.argmax(np.where(wrong, np.nan_to_num(apart, nan=np.inf), -1)), wrong.shape
    )
    place = f"{case}, at {[int(i) for i in worst]}, {int(wrong.sum())} of {wrong.size} differ"
    steps_apart = float(apart[worst]) if np.isfinite(apart[worst]) else None
    return Finding(place, number(want[worst]), number(got[worst]), steps_apart)


def number(value: float) -> str:
    """Return a number in decimal and in hex."""
    return f"{value!s} ({float(value).hex()})"


def holds(case: str, condition: bool, want: str, got: object) -> Finding | None:
    """Return a finding unless the condition holds."""
    return None if condition else Finding(case, want, str(got))


def likely(case: str, count: int, trials: int, p: float) -> Finding | None:
    """Return a finding if count successes in trials, each of probability p, are out of bounds."""
    chance = tail(int(count), trials, p)
    got = f"{count} of {trials}, {count / trials:.6g} (probability {chance:.1e})"
    return holds(case, chance >= ALPHA, f"about {p:.6g}", got)


def refuses(subject: Subject, case: str, call: Call) -> Finding | None:
    """Return a finding unless the call raises."""
    return holds(case, refusal(subject, call), "an error", "a result")


def refusal(subject: Subject, call: Call) -> bool:
    """Return whether the call raises."""
    try:
        subject.run(call)
    except BrokenAdapter:
        raise
    except Exception:  # of any type: SPEC.md asks for a refusal
        return True
    return False
