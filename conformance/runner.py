"""Runs the checks on a backend, and two backends against each other."""

import importlib
import importlib.util
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance import golden
from conformance.checks import (
    CHECKS,
    KEY,
    Check,
    Finding,
    Subject,
    block,
    equal,
    gradient,
    modes,
    residual_mask,
    same_block,
)
from conformance.numerics import FORMATS, sample
from conformance.protocol import CAPABILITIES, Array, Backend, BrokenAdapter, Call, Info

OURS = {"reference": "ml_dtypes", "torch": "torch", "flax": "flax"}  # and what each needs
SECONDS = 300  # for one check; the slowest of ours takes some ten


@dataclass(frozen=True)
class Verdict:
    """What became of one clause: the cases compared, and those that do not hold.

    untested: the claim for want of which nothing was compared. known: the reason why a failure is
    expected; then it does not count, and a pass does.
    """

    clause: str
    cases: int
    findings: tuple[Finding, ...] = ()
    untested: str = ""
    known: str = ""

    @property
    def result(self) -> str:
        """One of "pass", "FAIL", "known" and "not tested"."""
        if self.findings:
            return "known" if self.known else "FAIL"
        return "not tested" if self.untested else "pass"


@dataclass(frozen=True)
class Report:
    """The verdicts on one backend, or on one pair of them, by the name of the adapter."""

    backend: str
    info: Info
    verdicts: tuple[Verdict, ...]

    @property
    def conforms(self) -> bool:
        """Whether something was compared and nothing failed."""
        results = [verdict.result for verdict in self.verdicts]
        return "FAIL" not in results and any(result != "not tested" for result in results)


def load(name: str, **options: Any) -> Backend:
    """Return the backend of an adapter of the suite, or of "package.module:function".

    The function is `backend` unless the name ends in another, as in "keras:dropout".

    Raises BrokenAdapter, in one line, if it cannot be had or does not keep to the protocol.
    """
    module, _, function = name.partition(":")
    try:
        own = f"conformance.adapters.{module}"
        path = own if "." not in module and importlib.util.find_spec(own) else module
        make = getattr(importlib.import_module(path), function or "backend")
        backend: Backend = make(**options)
        with deadline(SECONDS):
            smoke(backend)
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        reason = reason.removeprefix("BrokenAdapter: ")
        raise BrokenAdapter(f"{name}: {reason}") from error
    return backend


def installed() -> list[str]:
    """Return the names of our adapters whose framework is installed."""
    return [name for name, needs in OURS.items() if importlib.util.find_spec(needs)]


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise BrokenAdapter in the block after so many seconds; where there is no SIGALRM, never."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def late(*_: object) -> None:
        raise BrokenAdapter(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def smoke(backend: Backend) -> None:
    """Raise BrokenAdapter unless some simple calls give what any DropPath would give."""
    info = backend.info()
    unknown = [*(info.claims - CAPABILITIES.keys()), *(d for d in info.dtypes if d not in FORMATS)]
    if unknown or not info.dtypes:
        raise BrokenAdapter(f"info names what there is not: {', '.join(unknown) or 'no dtype'}")
    x = sample((4, 2), info.dtypes[0])
    calls = [Call(factor * x, 0.0, info.dtypes[0], training=False) for factor in (1, 2)]
    if np.array_equal(_answer(backend, calls[0]), _answer(backend, calls[1])):
        raise BrokenAdapter("y does not depend on x")
    call = Call(np.ones((64, 2)), 0.37, info.dtypes[0])
    masks = [_answer(backend, replace(call, seed=seed)) for seed in range(8)]
    if all(np.array_equal(mask, masks[0]) for mask in masks):
        raise BrokenAdapter("y does not depend on the seed: 8 seeds gave one mask")
    if not np.array_equal(_answer(backend, call), masks[0]):
        raise BrokenAdapter("the same seed gave two masks")


def _answer(backend: Backend, call: Call) -> Array:
    """Return y of a call, checked to be of the shape of x."""
    y = Subject(backend, backend.info()).run(call).y
    if y.shape != call.x.shape:
        raise BrokenAdapter(f"y must have the shape {call.x.shape}, got {y.shape}")
    return y


def run_checks(
    name: str,
    backend: Backend,
    clauses: tuple[str, ...] = (),
    done: Callable[[], None] = lambda: None,
) -> Report:
    """Return the report on a backend, on all clauses or some; done() follows each check."""
    subject = Subject(backend, backend.info())
    verdicts = []
    for check in CHECKS:
        if not clauses or check.clause in clauses:
            verdicts.append(verdict_on(golden.with_vectors(check), subject))
            done()
    return Report(name, subject.info, tuple(verdicts))


def verdict_on(check: Check, subject: Subject) -> Verdict:
    """Return what becomes of one check."""
    missing = [claim for claim in check.needs if claim not in subject.info.claims]
    if missing:
        return Verdict(check.clause, 0, untested=missing[0])
    try:
        with deadline(SECONDS):
            return _collect(check.clause, check.test(subject))
    except BrokenAdapter as error:
        raise BrokenAdapter(f"{subject.info.name}: {check.clause}: {error}") from error


def _collect(clause: str, results: Iterator[Finding | None]) -> Verdict:
    cases, findings = 0, []
    try:
        for finding in results:
            cases += 1
            findings += [finding] if finding else []
    except BrokenAdapter:
        raise
    except Exception as error:  # the implementation's own: what was asked must work
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        findings.append(Finding(f"case {cases + 1}", "a result", reason))
    if not cases and not findings:
        findings.append(Finding("all", "a comparison", "none"))
    return Verdict(clause, cases, tuple(findings))


def expect(report: Report, known: dict[str, str]) -> Report:
    """Return the report with the known failures marked; one that passes becomes a failure."""
    verdicts = [
        replace(
            verdict,
            known=known.get(verdict.clause, "") if verdict.findings else "",
            findings=verdict.findings or _unexpected(verdict, known),
        )
        for verdict in report.verdicts
    ]
    return replace(report, verdicts=tuple(verdicts))


def _unexpected(verdict: Verdict, known: dict[str, str]) -> tuple[Finding, ...]:
    if verdict.clause not in known:
        return ()
    got = "not tested" if verdict.untested else "pass"
    return (Finding("known failure", f"a failure: {known[verdict.clause]}", got),)


def cross_check(names: tuple[str, str], first: Backend, second: Backend) -> Report:
    """Return the report on the two agreeing bit for bit: masks, kept rows, gradients."""
    a, b = Subject(first, first.info()), Subject(second, second.info())
    shared = a.info.claims & b.info.claims
    if "keyed" not in shared:
        raise BrokenAdapter(f"{' x '.join(names)}: both must claim keyed to be given one mask")
    dtypes = tuple(dtype for dtype in a.info.dtypes if dtype in b.info.dtypes)
    pair = Info(f"{a.info.name}  x  {b.info.name}", shared, dtypes)
    with deadline(2 * SECONDS):
        verdicts = [
            _collect("masks", _same_masks(a, b)),
            _collect("values", _same_values(a, b, pair)),
        ]
    return Report(" x ".join(names), pair, tuple(verdicts))


def _same_masks(a: Subject, b: Subject) -> Iterator[Finding | None]:
    for mode in [mode for mode in modes(a) if mode in modes(b)]:
        for batch in (0, 1, 2, 3, 8, 64, 257, 4097):
            for groups, offset in ((1, 0), (1, batch * 5), (batch or 1, batch * 3)):
                for p in (0.001, 0.1, 0.9):
                    options = {"mode": mode, "groups": groups, "offset": offset}
                    call = Call(np.ones((batch, 2)), p, key=KEY, options=options)
                    case = f"B={batch}, p={p}, {options}"
                    yield equal(case, a.rows(call) * 1.0, b.rows(call) * 1.0, "float32")


def _same_values(a: Subject, b: Subject, pair: Info) -> Iterator[Finding | None]:
    for dtype in pair.dtypes:
        for p in (0.02, 0.1, 0.37, 0.9):
            for mode in [mode for mode in modes(a) if mode in modes(b)]:
                x, dy = sample((64, 33), dtype), sample((64, 33), dtype, first=9000)
                call = Call(x, p, dtype, key=KEY, options={"mode": mode})
                case = f"{mode}, p={p}, {dtype}"
                yield equal(case, a.run(call).y, b.run(call).y, dtype)
                if "gradient" in pair.claims:
                    call = replace(call, dy=dy)
                    yield equal(f"{case}, gradient", gradient(a, call), gradient(b, call), dtype)
                if "residual" in pair.claims and p == 0.37:
                    call = replace(block(p, mode, dtype=dtype), dy=None, key=KEY)
                    want, got, keep = a.run(call).y, b.run(call).y, residual_mask(a, call)
                    yield from same_block(f"residual, {case}", keep, want, got, dtype)
