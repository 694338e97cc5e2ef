"""A check of a clause, the backend that it is given, and the comparisons that it yields.

A check yields, for every case that it compares, None or a Finding; the runner counts both, and a
check that compares nothing fails. Where the adapter cannot tell what is compared it yields Untold,
and its clause is not tested unless something else fails. The mask of a black box is found by
calling it on ones with the same seed; a keyed implementation is also held to the exact mask. The
checks themselves are in clauses/, a file for each area of SPEC.md.

Statistics: a case fails if its exact binomial tail is below ALPHA. A run has fewer than 10^3 such
cases, so that a right implementation with fresh randomness fails in fewer than one run in 10^9.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

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


@dataclass(frozen=True)
class Untold:
    """What the adapter cannot tell, so that no pass may be said: a field of Outcome."""

    field: str


Results = Iterator[Finding | Untold | None]


@dataclass(frozen=True)
class Subject:
    """A backend and its info. Calls and outcomes are copied: a check shares no array with it.

    memory: what the checks of several clauses share.
    """

    backend: Backend
    info: Info
    memory: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of a call. Raises BrokenAdapter unless of the protocol's form."""
        if getattr(self.backend, "is_apart", False):  # another process has copies anyway
            return checked(self.backend.run(call), call.dtype)
        return deepcopy(checked(self.backend.run(deepcopy(call)), call.dtype))

    def run_all(self, calls: list[Call]) -> list[Outcome]:
        """Return the outcomes of many calls: in another process they travel together."""
        if not getattr(self.backend, "is_apart", False):
            return [self.run(call) for call in calls]
        outcomes = self.backend.run_all(calls)  # type: ignore[attr-defined]  # of Apart alone
        return [checked(outcome, call.dtype) for outcome, call in zip(outcomes, calls, strict=True)]

    def keep(self, call: Call) -> Array:
        """Return the mask of a call, found on ones: bool of x's shape."""
        return self.run(on_ones(call)).y != 0

    def rows(self, call: Call) -> Array:
        """Return the mask along axis 0, for x of shape [B, 2]: bool [B]."""
        return self.keep(call)[:, 0]

    def rows_of_all(self, calls: list[Call]) -> Array:
        """Return `rows` of many calls: bool [calls, B]."""
        return np.stack([o.y[:, 0] != 0 for o in self.run_all([*map(on_ones, calls)])])


def on_ones(call: Call) -> Call:
    """Return a call on ones, whose y shows its mask."""
    return replace(call, x=np.ones_like(call.x), dy=None)


def checked(outcome: Outcome, dtype: str) -> Outcome:
    """Return the outcome of a call in dtype.

    Raises BrokenAdapter unless y and its dtype are of the protocol's form.
    """
    y = getattr(outcome, "y", None)
    if not (isinstance(y, np.ndarray) and y.dtype == np.float64):
        got = y.dtype.name if isinstance(y, np.ndarray) else type(y).__name__
        raise BrokenAdapter(f"y must be an array of float64, got {got}")
    if dtype in FORMATS and outcome.dtype not in FORMATS:  # ARG-2 asks for others
        raise BrokenAdapter(f"dtype must be one of {', '.join(FORMATS)}, got {outcome.dtype!r}")
    return outcome


@dataclass(frozen=True)
class Check:
    """A check of one clause, where all of `needs` are claimed and one of `needs_any`."""

    clause: str
    test: Callable[[Subject], Results]
    needs: tuple[str, ...] = ()
    needs_any: tuple[str, ...] = ()

    def missing(self, claims: frozenset[str]) -> str:
        """Return the claim without which it does not apply, or nothing."""
        absent = [claim for claim in self.needs if claim not in claims]
        if self.needs_any and not claims & {*self.needs_any}:
            absent.append(" or ".join(self.needs_any))
        return absent[0] if absent else ""


def check(
    clause: str, needs: tuple[str, ...] = (), needs_any: tuple[str, ...] = ()
) -> Callable[[Callable[[Subject], Results]], Check]:
    """Return a decorator that makes a function the check of a clause."""

    def made(test: Callable[[Subject], Results]) -> Check:
        return Check(clause, test, needs, needs_any)

    return made


def equal(case: str, want: Array, got: Array, dtype: str, steps: int = 0) -> Finding | None:
    """Compare bit for bit (NaN equals NaN, -0 is not +0), or within steps of dtype."""
    if want.shape != got.shape:
        return Finding(case, f"shape {want.shape}", f"shape {got.shape}")
    with np.errstate(invalid="ignore", over="ignore"):
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


def told(
    field: str, value: object, finding: Callable[[Any], Finding | None]
) -> Finding | Untold | None:
    """Return what finding says of a field of an outcome, or that the adapter cannot tell it."""
    return Untold(field) if value is None else finding(value)


def draws_nothing(case: str, outcome: Outcome) -> Finding | Untold | None:
    """Return a finding if a generator outside the call moved."""
    return told("drew", outcome.drew, lambda drew: holds(case, not drew, "nothing drawn", "a draw"))


def likely(
    case: str, count: int | Array, trials: int, p: float, *, off: float = 0.05
) -> Finding | None:
    """Return a finding if count successes in trials, each of probability p, are out of bounds.

    count: several are of as many trials each; then the chance that one of them is out is bounded.
    off: the relative error of p that is found with probability 0.99, which a test holds.
    """
    counts = np.atleast_1d(count)
    chances = {int(i): tail(int(counts[i]), trials, p) for i in (counts.argmin(), counts.argmax())}
    worst = min(chances, key=lambda i: chances[i])
    chance, place = chances[worst], f", number {worst}" if counts.size > 1 else ""
    found = int(counts[worst])
    got = f"{found} of {trials}, {found / trials:.6g} (probability {chance:.1e})"
    return holds(f"{case}{place}", chance * counts.size >= ALPHA, f"about {p:.6g}", got)


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
